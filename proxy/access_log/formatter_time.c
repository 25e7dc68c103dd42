/* SPDX-License-Identifier: Apache-2.0 */
/* START_TIME and its kin: strftime's conversions, and beyond them %f %1f..%9f %E3S %E*S %E3f %E*f
 * %s %Ez %E*z %:z %E4Y as Envoy has them. A format is cut into stretches that change once a second,
 * kept per thread, and the digits of the second's fraction between them: a request costs no
 * strftime. */
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "proxy/access_log/formatter_internal.h"
#include "proxy/api/factory_context.h"

#define PIECES_MAX   64
#define CACHE_TEXT   96
#define CACHE_PIECES 5
#define FRACTION_MAX 18 /* digits; more are a mistake */
#define CACHE_SLOTS  8

enum fraction_kind { FRACTION_NONE, FRACTION_DIGITS, FRACTION_ALL, FRACTION_DOT_ALL };

/* A stretch of the format and the fraction behind it. */
struct time_piece {
    const char *format; /* for strftime; NULL: seconds since 1970 */
    enum fraction_kind fraction;
    unsigned digits; /* FRACTION_DIGITS */
    bool offset; /* the format is made of the zone's offset instead: see offset_text for `digits` */
};

struct kb_format_time {
    uint64_t id; /* of this format in the process; names it in the caches */
    bool local;
    unsigned count;
    size_t room; /* bytes that one second's texts may take */
    struct time_piece pieces[PIECES_MAX];
};

/* The texts of one second, one behind the other; end[i] is where piece i ends. */
struct time_cache {
    uint64_t id;
    uint64_t second;
    uint16_t end[CACHE_PIECES];
    char text[CACHE_TEXT];
};

static _Thread_local struct time_cache caches[CACHE_SLOTS];
static uint64_t next_id = 1; /* main thread */

/* ---- parsing ---- */

struct time_parser {
    struct kb_format_time *time;
    struct kb_str format;
    size_t at;
    char *text; /* what has been taken for the present piece's strftime */
    size_t len;
    struct kb_arena *arena;
};

static void parser_add(struct time_parser *parser, struct kb_str text)
{
    memcpy(parser->text + parser->len, text.p, text.len);
    parser->len += text.len;
}

/* Ends the present piece; false when there are too many. */
static bool parser_end(struct time_parser *parser, enum fraction_kind fraction, unsigned digits)
{
    struct kb_format_time *time = parser->time;
    struct time_piece *piece = &time->pieces[time->count];

    if (time->count == PIECES_MAX) {
        return false;
    }
    piece->format = kb_str_dup(parser->arena, kb_str_make(parser->text, parser->len)).p;
    piece->fraction = fraction;
    piece->digits = digits;
    time->count++;
    parser->len = 0;
    return true;
}

/* A piece without strftime. */
static bool parser_special(struct time_parser *parser, bool offset, unsigned digits)
{
    struct kb_format_time *time = parser->time;

    if (!parser_end(parser, FRACTION_NONE, 0) || time->count == PIECES_MAX) {
        return false;
    }
    time->pieces[time->count++] = (struct time_piece){.offset = offset, .digits = digits};
    return true;
}

/* Bytes of "f" or "3f" at p, 0 when there is none. */
static size_t plain_fraction(struct kb_str rest, unsigned *digits)
{
    if (rest.len > 0 && rest.p[0] == 'f') {
        *digits = 9;
        return 1;
    }
    if (rest.len > 1 && rest.p[0] >= '1' && rest.p[0] <= '9' && rest.p[1] == 'f') {
        *digits = (unsigned)(rest.p[0] - '0');
        return 2;
    }
    return 0;
}

/* What stands behind "%E". Returns how many bytes it takes; 0: nothing of ours; -1: too many
 * pieces. */
static int parse_extended(struct time_parser *parser, struct kb_str rest)
{
    unsigned number = 0;
    size_t len = 0;

    if (kb_str_starts_with(rest, KB_STR("*S")) || kb_str_starts_with(rest, KB_STR("*f"))) {
        bool dot = rest.p[1] == 'S';

        if (dot) {
            parser_add(parser, KB_STR("%S"));
        }
        return parser_end(parser, dot ? FRACTION_DOT_ALL : FRACTION_ALL, 0) ? 2 : -1;
    }
    if (kb_str_starts_with(rest, KB_STR("*z"))) {
        return parser_special(parser, true, 2) ? 2 : -1;
    }
    if (kb_str_starts_with(rest, KB_STR("z"))) {
        return parser_special(parser, true, 1) ? 1 : -1;
    }
    if (kb_str_starts_with(rest, KB_STR("T"))) {
        parser_add(parser, KB_STR("T"));
        return 1;
    }
    if (kb_str_starts_with(rest, KB_STR("4Y"))) {
        parser_add(parser, KB_STR("%Y"));
        return 2;
    }
    while (len < rest.len && kb_ascii_is_digit(rest.p[len]) && len < 4) {
        number = number * 10 + (unsigned)(rest.p[len++] - '0');
    }
    if (len == 0 || len == rest.len || number > 1024 ||
        (rest.p[len] != 'S' && rest.p[len] != 'f')) {
        return 0;
    }
    if (rest.p[len] == 'S') {
        parser_add(parser, number > 0 ? KB_STR("%S.") : KB_STR("%S"));
    }
    return parser_end(parser, FRACTION_DIGITS, KB_MIN(number, (unsigned)FRACTION_MAX))
               ? (int)len + 1
               : -1;
}

/* One conversion, at its percent sign. */
static bool parse_conversion(struct time_parser *parser)
{
    struct kb_str rest = kb_str_from(parser->format, parser->at + 1);
    unsigned digits;
    size_t fraction = plain_fraction(rest, &digits);
    int extended;

    if (fraction > 0) {
        parser->at += 1 + fraction;
        return parser_end(parser, FRACTION_DIGITS, digits);
    }
    if (kb_str_starts_with(rest, KB_STR("%"))) {
        /* Envoy looks for fractions and seconds before it looks for doubled signs: "%%f" is a sign
         * and nine digits. */
        bool doubled = plain_fraction(kb_str_from(rest, 1), &digits) == 0 &&
                       !kb_str_starts_with(rest, KB_STR("%s"));

        parser_add(parser, KB_STR("%%"));
        parser->at += doubled ? 2 : 1;
        return true;
    }
    if (kb_str_starts_with(rest, KB_STR("s"))) {
        parser->at += 2;
        return parser_special(parser, false, 0);
    }
    if (kb_str_starts_with(rest, KB_STR("Z")) && !parser->time->local) {
        parser->at += 2;
        parser_add(parser, KB_STR("UTC"));
        return true;
    }
    for (size_t colons = 1; colons <= 3; colons++) {
        if (kb_str_starts_with(rest, kb_str_first(KB_STR(":::"), colons)) && rest.len > colons &&
            rest.p[colons] == 'z') {
            parser->at += 2 + colons;
            return parser_special(parser, true, (unsigned)colons);
        }
    }
    extended =
        kb_str_starts_with(rest, KB_STR("E")) ? parse_extended(parser, kb_str_from(rest, 1)) : 0;
    if (extended != 0) {
        parser->at += 2 + (size_t)KB_MAX(extended, 0);
        return extended > 0;
    }
    parser_add(parser, KB_STR("%"));
    parser->at++;
    return true;
}

static struct kb_format_time *time_parse(struct kb_str format, bool local, struct kb_arena *arena)
{
    struct kb_format_time *time = KB_ARENA_NEW(arena, struct kb_format_time);
    struct time_parser parser = {.time = time, .format = format, .arena = arena};
    size_t conversions = 0;

    time->id = next_id++;
    time->local = local;
    parser.text = kb_arena_alloc(arena, format.len * 2 + 4, 1);
    while (parser.at < format.len) {
        if (format.p[parser.at] == '%') {
            conversions++;
            if (!parse_conversion(&parser)) {
                return NULL;
            }
        } else {
            parser.text[parser.len++] = format.p[parser.at++];
        }
    }
    time->room = format.len * 2 + conversions * 64 + 64;
    return parser_end(&parser, FRACTION_NONE, 0) ? time : NULL;
}

/* %n would break a line or a header: "%[-_0^#]*[1-9]*(E|O)?n". */
static bool format_has_newline(struct kb_str format)
{
    for (size_t i = 0; i < format.len; i++) {
        size_t at = i + 1;

        if (format.p[i] != '%') {
            continue;
        }
        while (at < format.len && format.p[at] != '\0' && strchr("-_0^#", format.p[at]) != NULL) {
            at++;
        }
        while (at < format.len && format.p[at] >= '1' && format.p[at] <= '9') {
            at++;
        }
        if (at < format.len && (format.p[at] == 'E' || format.p[at] == 'O')) {
            at++;
        }
        if (at < format.len && format.p[at] == 'n') {
            return true;
        }
    }
    return false;
}

bool kb_format_make_time(struct kb_format_command *command, struct kb_str args,
                         struct kb_arena *arena, struct kb_diag *diag)
{
    bool local = (command->param & KB_FORMAT_TIME_LOCAL) != 0;

    if (format_has_newline(args)) {
        kb_diag_error(diag, "Invalid header configuration. Format string contains newline.");
        return false;
    }
    if (args.len == 0) {
        args = local ? KB_STR("%Y-%m-%dT%H:%M:%E3S%z") : KB_STR("%Y-%m-%dT%H:%M:%E3SZ");
    }
    command->time = time_parse(args, local, arena);
    if (command->time == NULL) {
        kb_diag_error(diag,
                      "time format has too many conversions of a second's fraction, at most %d",
                      PIECES_MAX / 2);
        return false;
    }
    return true;
}

/* ---- writing ---- */

/* hh:mm, hh:mm:ss, or 3: no more of the latter than is not zero. */
static size_t offset_text(long offset, unsigned digits, char *out, size_t room)
{
    unsigned size = (unsigned)(offset < 0 ? -offset : offset);
    int len = snprintf(out, room, "%c%02u:%02u:%02u", offset < 0 ? '-' : '+', size / 3600,
                       size / 60 % 60, size % 60);

    if (len <= 0 || (size_t)len >= room) {
        return 0;
    }
    if (digits == 3 && size % 60 == 0) {
        return size / 60 % 60 == 0 ? 3 : 6;
    }
    return digits == 1 ? 6 : 9;
}

/* The texts of this second one behind the other in `out` (room bytes); ends in end[], time->count
 * of them. */
static void second_texts(const struct kb_format_time *time, uint64_t second, char *out, size_t room,
                         uint16_t *end)
{
    time_t at = (time_t)second;
    struct tm tm;
    size_t len = 0;

    if ((time->local ? localtime_r(&at, &tm) : gmtime_r(&at, &tm)) == NULL) {
        memset(&tm, 0, sizeof(tm));
    }
    for (unsigned i = 0; i < time->count; i++) {
        const struct time_piece *piece = &time->pieces[i];

        if (piece->offset) {
            len +=
                offset_text(time->local ? tm.tm_gmtoff : 0, piece->digits, out + len, room - len);
        } else if (piece->format == NULL) {
            len += room - len >= 20 ? kb_u64_to_str(second, out + len) : 0;
        } else if (piece->format[0] != '\0') {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            len += strftime(out + len, room - len, piece->format, &tm);
#pragma GCC diagnostic pop
        }
        end[i] = (uint16_t)len;
    }
}

/* Up to 18 digits of the fraction. */
static size_t fraction_digits(uint32_t ns, unsigned digits, char *out)
{
    char all[9];

    for (int i = 8; i >= 0; i--) {
        all[i] = (char)('0' + ns % 10);
        ns /= 10;
    }
    memcpy(out, all, KB_MIN(digits, 9u));
    for (unsigned i = 9; i < digits; i++) {
        out[i] = '0';
    }
    return digits;
}

static size_t fraction_text(const struct time_piece *piece, uint32_t ns, char *out)
{
    size_t len = 0;

    switch (piece->fraction) {
    case FRACTION_NONE:
        return 0;
    case FRACTION_DIGITS:
        return fraction_digits(ns, piece->digits, out);
    case FRACTION_DOT_ALL:
        if (ns == 0) {
            return 0;
        }
        out[len++] = '.';
        break;
    case FRACTION_ALL:
        break;
    }
    len += fraction_digits(ns, 9, out + len);
    while (len > 1 && out[len - 1] == '0') {
        len--;
    }
    return len;
}

static struct kb_str join(const struct kb_format_time *time, const char *text, const uint16_t *end,
                          uint32_t ns, char *out)
{
    size_t from = 0, len = 0;

    for (unsigned i = 0; i < time->count; i++) {
        memcpy(out + len, text + from, end[i] - from);
        len += end[i] - from;
        from = end[i];
        len += fraction_text(&time->pieces[i], ns, out + len);
    }
    return kb_str_make(out, len);
}

struct kb_str kb_format_time_text(const struct kb_format_time *time, uint64_t wall_ns,
                                  char *scratch, struct kb_arena *arena)
{
    struct time_cache *cache = &caches[time->id % CACHE_SLOTS];
    uint64_t second = wall_ns / 1000000000;
    uint32_t ns = (uint32_t)(wall_ns % 1000000000);
    size_t room = KB_MIN(time->room, (size_t)UINT16_MAX);
    uint16_t end[PIECES_MAX];
    char *text;

    _Static_assert(CACHE_TEXT + CACHE_PIECES * FRACTION_MAX <= KB_FORMAT_SCRATCH,
                   "a cached time fits the scratch");
    if (cache->id == time->id && cache->second == second) {
        return join(time, cache->text, cache->end, ns, scratch);
    }
    text = kb_arena_alloc(arena, room, 1);
    second_texts(time, second, text, room, end);
    if (time->count <= CACHE_PIECES && end[time->count - 1] <= CACHE_TEXT) {
        cache->id = time->id;
        cache->second = second;
        memcpy(cache->end, end, time->count * sizeof(end[0]));
        memcpy(cache->text, text, end[time->count - 1]);
    }
    return join(
        time, text, end, ns,
        kb_arena_alloc(arena, end[time->count - 1] + time->count * (size_t)FRACTION_MAX, 1));
}

/* From when or until when the peer's certificate is valid; false: it has none. */
static bool certificate_time(const struct kb_format_command *command,
                             const struct kb_stream_info *info, uint64_t *wall_ns)
{
    const struct kb_ssl_connection_info *ssl = (command->param & KB_FORMAT_TIME_UPSTREAM) != 0
                                                   ? info->upstream.ssl
                                               : info->connection != NULL ? info->connection->ssl
                                                                          : NULL;
    int64_t before, after, chosen;

    if (!kb_ssl_peer_validity(ssl, &before, &after)) {
        return false;
    }
    chosen = (command->param & KB_FORMAT_TIME_CERTIFICATE_END) != 0 ? after : before;
    *wall_ns = chosen > 0 ? (uint64_t)chosen * UINT64_C(1000000000) : 0;
    return true;
}

void kb_format_eval_time(const struct kb_format_command *command, struct kb_format_source *source,
                         struct kb_format_value *value)
{
    const struct kb_stream_info *info = source->info;
    uint64_t wall_ns = info->wall_start_ns;

    switch (command->param &
            ~(KB_FORMAT_TIME_LOCAL | KB_FORMAT_TIME_CERTIFICATE_END | KB_FORMAT_TIME_UPSTREAM)) {
    case KB_FORMAT_TIME_CERTIFICATE:
        if (!certificate_time(command, info, &wall_ns)) {
            return;
        }
        break;
    case KB_FORMAT_TIME_EMIT:
        wall_ns = info->worker != NULL ? kb_loop_wall_ns(&info->worker->loop) : kb_clock_wall_ns();
        break;
    default:
        break;
    }
    wall_ns -= wall_ns % 1000; /* Envoy's system clock counts microseconds */
    kb_format_value_text(
        value, kb_format_time_text(command->time, wall_ns, source->scratch, source->arena));
    value->scratch = true;
}
