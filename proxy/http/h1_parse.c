/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1 parser: reads usual heads itself (h1_head.c), runs llhttp over all others and over their
 * bodies, and turns both into events. The only file that sees llhttp. */
#include "proxy/http/h1_parse.h"

#include <llhttp.h>

#include "proxy/http/h1_fields.h"
#include "proxy/http/h1_head.h"
#include "proxy/http/h1_quirks.h"
#include "proxy/http/header_spelling.h"

/* Of a chunk's size and extensions (RFC 9112 section 7.1.1: a server has to limit them). */
#define CHUNK_LINE_BYTES_MAX 16384u

enum parse_state {
    PARSE_IDLE, /* between messages */
    PARSE_HEAD, /* begun; the head is not complete */
    PARSE_BODY, /* head given out; body or trailers to come */
    PARSE_DONE, /* complete; kb_h1_parser_next comes next */
    PARSE_FAILED,
};

/* Those of llhttp that Envoy knows too: not PRI, M-SEARCH, nor RTSP's. */
#define METHODS                                                                    \
    ((((UINT64_C(1) << (HTTP_SOURCE + 1)) - 1) & ~(UINT64_C(1) << HTTP_MSEARCH)) | \
     UINT64_C(1) << HTTP_QUERY)

_Static_assert(sizeof(llhttp_t) <= KB_H1_LLHTTP_BYTES, "room for llhttp's state");

static int on_url(llhttp_t *llhttp, const char *at, size_t len);
static int on_status(llhttp_t *llhttp, const char *at, size_t len);
static int on_field(llhttp_t *llhttp, const char *at, size_t len);
static int on_value(llhttp_t *llhttp, const char *at, size_t len);
static int on_value_complete(llhttp_t *llhttp);
static int on_headers_complete(llhttp_t *llhttp);
static int on_body(llhttp_t *llhttp, const char *at, size_t len);
static int on_message_complete(llhttp_t *llhttp);

static const llhttp_settings_t llhttp_callbacks = {
    .on_url = on_url,
    .on_status = on_status,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

unsigned kb_h1_error_status(enum kb_h1_error error)
{
    static const uint16_t statuses[] = {
        200,
#define X(id, status, details) status,
#include "proxy/http/h1_errors.def"
#undef X
    };

    return statuses[error];
}

struct kb_str kb_h1_error_details(enum kb_h1_error error)
{
    static const char *const details_texts[] = {
        "",
#define X(id, status, details) details,
#include "proxy/http/h1_errors.def"
#undef X
    };

    return kb_str_from_cstr(details_texts[error]);
}

static llhttp_t *llhttp_of(struct kb_h1_parser *parser)
{
    return (llhttp_t *)(void *)parser->llhttp;
}

static struct kb_h1_parser *parser_of(llhttp_t *llhttp)
{
    return KB_CAST(KB_CONTAINER_OF((char *)llhttp, struct kb_h1_parser, llhttp), kb_h1_parser);
}

/* ---- lifecycle ---- */

void kb_h1_parser_init(struct kb_h1_parser *parser, bool response,
                       const struct kb_h1_settings *settings, struct kb_slice_source *source)
{
    memset(parser, 0, sizeof(*parser));
    KB_OBJ_SET(parser, kb_h1_parser);
    parser->response = response;
    parser->settings = settings;
    kb_buf_init(&parser->body, source, 0);
}

void kb_h1_parser_dispose(struct kb_h1_parser *parser)
{
    kb_slice_unref(parser->head_slice);
    parser->head_slice = NULL;
    kb_buf_dispose(&parser->body);
    KB_OBJ_CLEAR(parser);
}

bool kb_h1_parser_in_message(const struct kb_h1_parser *parser)
{
    return parser->state == PARSE_HEAD || parser->state == PARSE_BODY;
}

bool kb_h1_parser_has_input(struct kb_h1_parser *parser, struct kb_buf *in)
{
    struct kb_str first = kb_buf_first(in);

    while (!parser->response && first.len > 0 && (first.p[0] == '\r' || first.p[0] == '\n')) {
        kb_buf_consume(in, 1);
        first = kb_buf_first(in);
    }
    return in->len > 0;
}

void kb_h1_parser_begin(struct kb_h1_parser *parser, struct kb_header_map *map,
                        struct kb_arena *arena)
{
    KB_ASSERT(parser->state == PARSE_IDLE);
    parser->state = PARSE_HEAD;
    parser->map = map;
    parser->arena = arena;
}

void kb_h1_parser_next(struct kb_h1_parser *parser)
{
    kb_slice_unref(parser->head_slice);
    kb_buf_dispose(&parser->body);
    memset(&parser->scanned, 0,
           offsetof(struct kb_h1_parser, body) - offsetof(struct kb_h1_parser, scanned));
    parser->trailers = NULL;
    parser->arena = NULL;
    parser->parsed_bytes = 0;
    parser->head_complete = false;
    parser->message_complete = false;
    parser->counted = false;
    parser->head_response_expected = false;
    parser->state = PARSE_IDLE;
}

static enum kb_h1_event fail(struct kb_h1_parser *parser, enum kb_h1_error error)
{
    parser->error = error;
    parser->state = PARSE_FAILED;
    return KB_H1_ERROR;
}

/* ---- llhttp callbacks ---- */

static int on_url(llhttp_t *llhttp, const char *at, size_t len)
{
    parser_of(llhttp)->url = kb_str_make(at, len);
    return 0;
}

/* In a head all pieces of a token touch each other; the whole head is contiguous. */
static void span_extend(struct kb_str *whole, struct kb_str piece)
{
    if (whole->len == 0) {
        *whole = piece;
    } else {
        whole->len = (size_t)(piece.p + piece.len - whole->p);
    }
}

static int on_status(llhttp_t *llhttp, const char *at, size_t len)
{
    struct kb_h1_parser *parser = parser_of(llhttp);

    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)at[i] < 0x20 && at[i] != '\t') {
            return -1; /* llhttp passes control characters */
        }
    }
    if (KB_UNLIKELY(parser->settings->forward_reason_phrase)) {
        kb_header_spelling_reason(parser->map, kb_str_make(at, len),
                                  parser->settings->proper_case_otherwise);
    }
    return 0;
}

static int on_field(llhttp_t *llhttp, const char *at, size_t len)
{
    struct kb_h1_parser *parser = parser_of(llhttp);

    if (KB_UNLIKELY(parser->head_complete)) {
        return kb_h1_trailer_piece(parser, &parser->field, &parser->field_cap,
                                   kb_str_make(at, len));
    }
    span_extend(&parser->field, kb_str_make(at, len));
    return 0;
}

static int on_value(llhttp_t *llhttp, const char *at, size_t len)
{
    struct kb_h1_parser *parser = parser_of(llhttp);

    if (KB_UNLIKELY(parser->head_complete)) {
        return kb_h1_trailer_piece(parser, &parser->value, &parser->value_cap,
                                   kb_str_make(at, len));
    }
    span_extend(&parser->value, kb_str_make(at, len));
    return 0;
}

static int on_value_complete(llhttp_t *llhttp)
{
    struct kb_h1_parser *parser = parser_of(llhttp);
    struct kb_str name = parser->field;
    struct kb_str value = kb_str_trim(parser->value);

    parser->field = KB_STR_NULL;
    parser->value = KB_STR_NULL;
    parser->field_cap = 0;
    parser->value_cap = 0;
    if (KB_UNLIKELY(parser->head_complete)) {
        return kb_h1_trailer_add(parser, name, value);
    }
    if (parser->response) {
        parser->map->status = llhttp->status_code; /* joining of repeated headers depends on it */
    }
    return kb_h1_field_add(parser, name, value);
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct kb_h1_parser *parser = parser_of(llhttp);

    parser->head_complete = true;
    /* HTTP/0.9 counts as 1.0; what claims to be newer than 1.1 is not HTTP/1. */
    parser->http_minor = llhttp->http_major == 1 && llhttp->http_minor == 1;
    if (llhttp->http_major > 1) {
        parser->error = parser->response ? KB_H1_CODEC_ERROR : KB_H1_LOW_VERSION;
        return -1;
    }
    parser->upgrade = llhttp->upgrade != 0;
    parser->keep_alive = llhttp_should_keep_alive(llhttp) != 0;
    parser->content_length = llhttp->content_length;
    parser->head_header_count = parser->header_count;
    parser->header_count = 0;
    if (parser->response) {
        if (llhttp->status_code < 100) {
            return -1;
        }
        parser->map->status = llhttp->status_code;
        /* Envoy knows no upgrade unless it is configured; the decision is not the parser's. */
        llhttp->upgrade = 0;
        parser->until_close = llhttp_message_needs_eof(llhttp) != 0;
        return parser->head_response_expected ? 1 : 0;
    }
    if (KB_UNLIKELY(parser->url.len == 0 || (METHODS >> llhttp->method & 1) == 0)) {
        return -1; /* llhttp takes "CONNECT \n" for HTTP/0.9 */
    }
    parser->map->method = kb_str_from_cstr(llhttp_method_name((llhttp_method_t)llhttp->method));
    llhttp->upgrade = 0;
    return 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t len)
{
    struct kb_h1_parser *parser = parser_of(llhttp);
    struct kb_slice *slice = parser->head_slice;

    kb_buf_append_slice(&parser->body, slice, (size_t)(at - slice->bytes), len);
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    parser_of(llhttp)->message_complete = true;
    return HPE_PAUSED;
}

/* ---- heads ---- */

static enum kb_h1_error llhttp_error(struct kb_h1_parser *parser)
{
    if (parser->error != KB_H1_OK) {
        return parser->error;
    }
    return KB_H1_CODEC_ERROR;
}

/* Runs llhttp over a whole head; true when it accepts. */
static bool head_run(struct kb_h1_parser *parser, struct kb_str head)
{
    llhttp_t *llhttp = llhttp_of(parser);
    llhttp_errno_t rc;

    llhttp_init(llhttp, parser->response ? HTTP_RESPONSE : HTTP_REQUEST, &llhttp_callbacks);
    rc = llhttp_execute(llhttp, head.p, head.len);
    return parser->head_complete && (rc == HPE_OK || rc == HPE_PAUSED);
}

/* Undoes what a refused head left behind. */
static void head_reset(struct kb_h1_parser *parser)
{
    kb_header_map_clear(parser->map);
    parser->error = KB_H1_OK;
    parser->header_count = 0;
    parser->field = KB_STR_NULL;
    parser->value = KB_STR_NULL;
    parser->url = KB_STR_NULL;
    parser->chunked = false;
    parser->has_content_length = false;
    parser->head_complete = false;
    parser->message_complete = false;
}

/* Envoy counts three bytes for a head without headers, too. */
static void header_bytes_count(struct kb_h1_parser *parser, struct kb_str head)
{
    size_t first_line = (size_t)(kb_str_find_char(head, '\n') + 1);
    size_t other = first_line + 2 + parser->head_header_count;

    parser->header_bytes = (uint32_t)(head.len > other ? head.len - other : 3);
}

static enum kb_h1_event head_taken(struct kb_h1_parser *parser, struct kb_buf *in, size_t len)
{
    kb_buf_consume(in, len);
    parser->head_bytes = (uint32_t)len;
    parser->parsed_bytes = len;
    parser->state = PARSE_BODY;
    return KB_H1_HEAD;
}

/* Header bytes of a head that was refused because of its header number `count`, or, when it has
 * fewer, as a whole. Envoy has seen the name of the next header by then. */
static void refused_bytes_count(struct kb_h1_parser *parser, struct kb_str head, uint32_t count)
{
    struct kb_str line;

    kb_str_next_token(&head, '\n', &line);
    for (uint32_t i = 0; kb_str_next_token(&head, '\n', &line) && line.len > 1; i++) {
        if (i == count) {
            parser->header_bytes += (uint32_t)KB_MAX(kb_str_find_char(line, ':'), 0);
            return;
        }
        parser->header_bytes += (uint32_t)line.len;
    }
}

/* Parses a canonical head; `framing` is what stands against it otherwise. */
static enum kb_h1_error canonical_run(struct kb_h1_parser *parser, struct kb_str head,
                                      enum kb_h1_error framing)
{
    enum kb_h1_error error = head_run(parser, head) ? framing : llhttp_error(parser);

    if ((error == KB_H1_TOO_MANY_HEADERS || error == KB_H1_UNEXPECTED_UNDERSCORE) &&
        !kb_h1_quirks_name_valid(head, parser->header_count)) {
        return KB_H1_CODEC_ERROR;
    }
    return error;
}

/* llhttp refused: gives Envoy's reason, or parses Envoy's reading of it. `in` starts with the head.
 */
static KB_COLD enum kb_h1_event head_retry(struct kb_h1_parser *parser, struct kb_buf *in)
{
    struct kb_str bytes = kb_buf_first(in);
    size_t len = kb_h1_quirks_head_end(bytes);
    struct kb_str head = kb_str_first(bytes, len);
    struct kb_slice *slice;
    struct kb_str method;
    size_t canonical_len;
    enum kb_h1_error error, framing;

    head_reset(parser);
    slice = kb_slice_acquire(in->source, len * 2 + 16);
    error = kb_h1_quirks_canonicalise(head, parser->response, parser->settings, slice->bytes,
                                      &canonical_len, &framing);
    slice->used = slice->cap;
    kb_slice_unref(parser->head_slice);
    parser->head_slice = slice;
    if (error == KB_H1_OK) {
        error = canonical_run(parser, kb_str_make(slice->bytes, canonical_len), framing);
    }
    if (error == KB_H1_TOO_MANY_HEADERS || error == KB_H1_UNEXPECTED_UNDERSCORE) {
        refused_bytes_count(parser, head, parser->header_count);
    } else if (error == KB_H1_INVALID_TRANSFER_ENCODING ||
               error == KB_H1_CONTENT_LENGTH_AND_CHUNKED) {
        refused_bytes_count(parser, head, UINT32_MAX);
    }
    if (error != KB_H1_OK) {
        return fail(parser, error);
    }
    method = kb_h1_quirks_custom_method(head, parser->response, parser->settings);
    if (method.len > 0) {
        parser->map->method = kb_str_dup(parser->arena, method);
    }
    parser->header_bytes = 0;
    refused_bytes_count(parser, head, UINT32_MAX); /* of what came, not of what is left of it */
    return head_taken(parser, in, len);
}

/* The head is not complete: are its limits and its first line all right so far? */
static enum kb_h1_event head_wait(struct kb_h1_parser *parser, struct kb_str bytes)
{
    if (!parser->first_line_checked) {
        ptrdiff_t lf = kb_str_find_char(bytes, '\n');
        enum kb_h1_error error = KB_H1_OK;

        if (!parser->response && !kb_h1_quirks_method_begins(bytes.p[0], parser->settings)) {
            error = KB_H1_CODEC_ERROR;
        }
        if (error == KB_H1_OK && lf >= 0) {
            error = kb_h1_quirks_first_line(kb_str_first(bytes, (size_t)lf), parser->response,
                                            parser->settings);
            parser->first_line_checked = true;
        }
        if (error != KB_H1_OK) {
            return fail(parser, error);
        }
    }
    if (bytes.len > parser->settings->max_head_bytes) {
        return fail(parser, KB_H1_HEADERS_TOO_LARGE);
    }
    parser->scanned = (uint32_t)bytes.len;
    return KB_H1_NEED_MORE;
}

/* End of the head in `bytes`, searched from where the last search ended, whether its lines end with
 * CRLF or LF; 0: none yet. */
static size_t head_find(struct kb_h1_parser *parser, struct kb_str bytes)
{
    const char *end = bytes.p + bytes.len;
    const char *at = bytes.p + (parser->scanned > 2 ? parser->scanned - 2 : 0);

    while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        at++;
        if (end - at >= 2 && at[0] == '\r' && at[1] == '\n') {
            return (size_t)(at + 2 - bytes.p);
        }
        if (end - at >= 1 && at[0] == '\n') {
            return (size_t)(at + 1 - bytes.p);
        }
        if (at == end) {
            break;
        }
    }
    return 0;
}

/* Length of a usual head that is complete in `bytes`, or 0. */
static size_t head_usual(struct kb_h1_parser *parser, struct kb_str bytes)
{
    size_t len = kb_h1_head_usual(parser, bytes);

    if (KB_UNLIKELY(len == 0 || len > parser->settings->max_head_bytes)) {
        head_reset(parser);
        return 0;
    }
    parser->http_minor = 1;
    parser->counted = true;
    parser->head_complete = true;
    parser->body_left = parser->head_response_expected ? 0 : parser->content_length;
    parser->message_complete = parser->body_left == 0;
    return len;
}

static enum kb_h1_event head_parse(struct kb_h1_parser *parser, struct kb_buf *in)
{
    struct kb_str bytes = kb_buf_first(in);
    size_t len;

    if (bytes.len == 0) {
        return KB_H1_NEED_MORE;
    }
    /* Tried once, with the first bytes: a head in many pieces is not read again for each. */
    len = parser->scanned == 0 && !parser->settings->preserve_case ? head_usual(parser, bytes) : 0;
    if (KB_LIKELY(len > 0)) {
        parser->head_slice = kb_slice_ref(in->first->slice);
        return head_taken(parser, in, len);
    }
    if (KB_UNLIKELY(parser->response && bytes.p[0] != 'H')) {
        return fail(parser, KB_H1_CODEC_ERROR); /* llhttp would skip empty lines, Envoy does not */
    }
    len = head_find(parser, bytes);
    if (len == 0 && bytes.len < in->len) {
        bytes = kb_buf_pullup(in, (size_t)parser->settings->max_head_bytes + 1);
        len = head_find(parser, bytes);
    }
    if (len == 0) {
        return head_wait(parser, bytes);
    }
    if (len > parser->settings->max_head_bytes) {
        return fail(parser, KB_H1_HEADERS_TOO_LARGE);
    }
    parser->head_slice = kb_slice_ref(in->first->slice);
    if (KB_UNLIKELY(!head_run(parser, kb_str_first(bytes, len)))) {
        return head_retry(parser, in);
    }
    header_bytes_count(parser, kb_str_first(bytes, len));
    return head_taken(parser, in, len);
}

/* ---- bodies ---- */

/* The body behind a usual head: so many bytes. */
static enum kb_h1_event body_count(struct kb_h1_parser *parser, struct kb_buf *in)
{
    struct kb_str piece = kb_buf_first(in);
    size_t len = (size_t)KB_MIN((uint64_t)piece.len, parser->body_left);

    if (len == 0) {
        return KB_H1_NEED_MORE;
    }
    kb_buf_append_slice(&parser->body, in->first->slice,
                        (size_t)(piece.p - in->first->slice->bytes), len);
    kb_buf_consume(in, len);
    parser->parsed_bytes += len;
    parser->body_left -= len;
    parser->message_complete = parser->body_left == 0;
    return KB_H1_BODY;
}

static enum kb_h1_event body_parse(struct kb_h1_parser *parser, struct kb_buf *in)
{
    llhttp_t *llhttp = llhttp_of(parser);

    if (parser->message_complete) {
        parser->state = PARSE_DONE;
        return KB_H1_COMPLETE;
    }
    if (KB_LIKELY(parser->counted)) {
        return body_count(parser, in);
    }
    if (KB_UNLIKELY(parser->error != KB_H1_OK)) {
        return fail(parser, parser->error);
    }
    while (in->len > 0) {
        struct kb_str piece = kb_buf_first(in);
        struct kb_slice *head_slice = parser->head_slice;
        llhttp_errno_t rc;
        size_t used;

        /* on_body finds the slice of its bytes here. */
        parser->head_slice = in->first->slice;
        rc = llhttp_execute(llhttp, piece.p, piece.len);
        parser->head_slice = head_slice;
        used = rc == HPE_OK ? piece.len : (size_t)(llhttp_get_error_pos(llhttp) - piece.p);
        parser->parsed_bytes += used;
        if (KB_UNLIKELY(rc != HPE_OK && rc != HPE_PAUSED)) {
            parser->error = llhttp_error(parser);
            if (parser->body.len > 0 && (llhttp->flags & F_TRAILING) != 0) {
                /* A body that ended is given away before what is wrong with its trailers. */
                return KB_H1_BODY;
            }
            return fail(parser, parser->error);
        }
        kb_buf_consume(in, used);
        if (parser->body.len > 0) {
            parser->chunk_line_bytes = 0;
            return KB_H1_BODY;
        }
        if (parser->message_complete) {
            parser->state = PARSE_DONE;
            return KB_H1_COMPLETE;
        }
        parser->chunk_line_bytes += (uint32_t)used;
        if (KB_UNLIKELY(parser->chunk_line_bytes > CHUNK_LINE_BYTES_MAX) &&
            (llhttp->flags & F_TRAILING) == 0) {
            return fail(parser, KB_H1_CODEC_ERROR);
        }
    }
    return KB_H1_NEED_MORE;
}

enum kb_h1_event kb_h1_parse(struct kb_h1_parser *parser, struct kb_buf *in)
{
    switch ((enum parse_state)parser->state) {
    case PARSE_HEAD:
        return head_parse(parser, in);
    case PARSE_BODY:
        return body_parse(parser, in);
    case PARSE_IDLE:
    case PARSE_DONE:
        return KB_H1_NEED_MORE;
    case PARSE_FAILED:
        return KB_H1_ERROR;
    }
    return KB_H1_ERROR;
}

enum kb_h1_event kb_h1_parse_eof(struct kb_h1_parser *parser)
{
    switch ((enum parse_state)parser->state) {
    case PARSE_BODY:
        if (!parser->message_complete && !parser->counted) {
            llhttp_errno_t rc = llhttp_finish(llhttp_of(parser));

            if (rc != HPE_OK && rc != HPE_PAUSED) {
                return fail(parser, KB_H1_CODEC_ERROR);
            }
        }
        if (!parser->message_complete) {
            return fail(parser, KB_H1_CODEC_ERROR);
        }
        parser->state = PARSE_DONE;
        return KB_H1_COMPLETE;
    case PARSE_HEAD:
        return fail(parser, KB_H1_CODEC_ERROR);
    case PARSE_IDLE:
    case PARSE_DONE:
        return KB_H1_NEED_MORE;
    case PARSE_FAILED:
        return KB_H1_ERROR;
    }
    return KB_H1_ERROR;
}
