/* SPDX-License-Identifier: Apache-2.0 */
/* Format strings: text with %COMMAND(arguments):length% in it, "%%" for a percent sign. Parsed once
 * to a row of commands with the text before each. Envoy: "Substitution Formatter". */
#include "proxy/access_log/formatter_internal.h"

struct format_item {
    struct kb_str before; /* literal text in front of the command */
    struct kb_format_command command;
};

struct kb_formatter {
    bool omit_empty;
    size_t count;
    struct format_item *items;
    struct kb_str
        tail; /* literal text behind the last command; all of the text when there is none */
};

/* A command as it stands in the text. */
struct command_text {
    struct kb_str name;
    struct kb_str args;
    size_t max_len;
    size_t end; /* offset behind the closing percent sign */
};

static bool char_is_name(char c)
{
    return (c >= 'A' && c <= 'Z') || kb_ascii_is_digit(c) || c == '_';
}

/* `:digits` if any, then the percent sign. */
static bool command_close(struct kb_str format, size_t at, struct command_text *found)
{
    found->max_len = SIZE_MAX;
    if (at < format.len && format.p[at] == ':') {
        size_t from = ++at;
        uint64_t len;

        while (at < format.len && kb_ascii_is_digit(format.p[at])) {
            at++;
        }
        if (kb_str_to_u64(kb_str_make(format.p + from, at - from), &len) != 0) {
            return false;
        }
        found->max_len = (size_t)len;
    }
    if (at >= format.len || format.p[at] != '%') {
        return false;
    }
    found->end = at + 1;
    return true;
}

/* The command that starts at the percent sign at `at`. The arguments end at the first bracket
 * behind which the command can end, so they may hold brackets. */
static bool command_find(struct kb_str format, size_t at, struct command_text *found)
{
    size_t from = ++at;

    while (at < format.len && char_is_name(format.p[at])) {
        at++;
    }
    found->name = kb_str_make(format.p + from, at - from);
    found->args = KB_STR("");
    if (found->name.len == 0) {
        return false;
    }
    if (at >= format.len || format.p[at] != '(') {
        return command_close(format, at, found);
    }
    from = ++at;
    for (; at < format.len && format.p[at] != '\n'; at++) {
        if (format.p[at] == ')' && command_close(format, at + 1, found)) {
            found->args = kb_str_make(format.p + from, at - from);
            return true;
        }
    }
    return false;
}

/* Literal text from `from` up to a command or the end, percent signs undoubled; *at is moved there.
 * */
static struct kb_str literal_take(struct kb_str format, size_t *at, struct kb_arena *arena)
{
    size_t from = *at;
    size_t len = 0;
    char *text;

    while (*at < format.len) {
        if (format.p[*at] == '%') {
            if (*at + 1 >= format.len || format.p[*at + 1] != '%') {
                break;
            }
            (*at)++;
        }
        (*at)++;
        len++;
    }
    text = kb_arena_alloc(arena, len + 1, 1);
    for (size_t i = from, n = 0; n < len; i++) {
        text[n++] = format.p[i];
        i += format.p[i] == '%';
    }
    text[len] = '\0';
    return kb_str_make(text, len);
}

/* A command takes three bytes at least. */
static struct format_item *items_alloc(struct kb_str format, struct kb_arena *arena)
{
    size_t count = 0;

    for (size_t i = 0; i < format.len; i++) {
        count += format.p[i] == '%';
    }
    return kb_arena_calloc(arena, (count / 2 + 1) * sizeof(struct format_item));
}

struct kb_formatter *kb_formatter_create_extended(struct kb_arena *arena, struct kb_str format,
                                                  bool omit_empty, unsigned extensions,
                                                  struct kb_diag *diag)
{
    struct kb_formatter *formatter = KB_ARENA_NEW(arena, struct kb_formatter);
    size_t at = 0;

    formatter->omit_empty = omit_empty;
    formatter->items = items_alloc(format, arena);
    formatter->tail = literal_take(format, &at, arena);
    while (at < format.len) {
        struct format_item *item = &formatter->items[formatter->count];
        struct command_text found;
        int rc;

        if (!command_find(format, at, &found)) {
            kb_diag_error_hint(
                diag,
                KB_STR("a command is %NAME%, %NAME(arguments)% or %NAME(arguments):length%; write "
                       "%% for a percent sign"),
                "Incorrect configuration: %.*s. Couldn't find valid command at position %zu",
                KB_STR_ARG(format), at);
            return NULL;
        }
        rc = kb_format_command_make(&item->command, found.name, found.args, found.max_len,
                                    extensions, arena, diag);
        if (rc == KB_ENOTFOUND) {
            kb_diag_error(diag, "Not supported field in StreamInfo: %.*s", KB_STR_ARG(found.name));
        }
        if (rc != 0) {
            return NULL;
        }
        item->before = formatter->tail;
        formatter->count++;
        at = found.end;
        formatter->tail = literal_take(format, &at, arena);
    }
    return formatter;
}

bool kb_formatter_is_single(const struct kb_formatter *formatter)
{
    return formatter->count == 0 || (formatter->count == 1 && formatter->items[0].before.len == 0 &&
                                     formatter->tail.len == 0);
}

struct kb_formatter *kb_formatter_create(struct kb_arena *arena, struct kb_str format,
                                         bool omit_empty, struct kb_diag *diag)
{
    return kb_formatter_create_extended(arena, format, omit_empty, 0, diag);
}

const struct kb_format_command *kb_formatter_single(const struct kb_formatter *formatter)
{
    if (formatter->count != 1 || formatter->items[0].before.len > 0 || formatter->tail.len > 0) {
        return NULL;
    }
    return &formatter->items[0].command;
}

static void escape_in_place(struct kb_str *text, struct kb_arena *arena)
{
    struct kb_format_out out;

    kb_format_out_init(&out, arena, NULL, 0);
    kb_format_out_add_escaped(&out, *text);
    *text = kb_str_make(out.p, out.len);
}

void kb_formatter_set_json(struct kb_formatter *formatter, struct kb_arena *arena)
{
    for (size_t i = 0; i < formatter->count; i++) {
        escape_in_place(&formatter->items[i].before, arena);
    }
    escape_in_place(&formatter->tail, arena);
}

bool kb_formatter_append_json(const struct kb_formatter *formatter, struct kb_format_source *source,
                              bool omit, struct kb_format_out *out)
{
    const struct kb_format_command *single = kb_formatter_single(formatter);
    struct kb_format_value value;

    if (single != NULL) {
        source->typed = true;
        kb_format_command_eval(single, source, &value);
        source->typed = false;
        if (omit && (value.kind == KB_FORMAT_MISSING || value.kind == KB_FORMAT_BLANK)) {
            return false;
        }
        kb_format_out_add_json_value(out, &value);
        return true;
    }
    kb_format_out_add_char(out, '"');
    for (size_t i = 0; i < formatter->count; i++) {
        const struct format_item *item = &formatter->items[i];

        kb_format_out_add(out, item->before);
        kb_format_command_eval(&item->command, source, &value);
        if (value.kind == KB_FORMAT_TEXT || value.kind == KB_FORMAT_JSON) {
            kb_format_out_add_escaped(out, value.text);
        } else {
            kb_format_out_add_value(out, &value, formatter->omit_empty ? KB_STR("") : KB_STR("-"));
        }
    }
    kb_format_out_add(out, formatter->tail);
    kb_format_out_add_char(out, '"');
    return true;
}

void kb_formatter_append(const struct kb_formatter *formatter, struct kb_format_source *source,
                         struct kb_format_out *out)
{
    struct kb_str missing = formatter->omit_empty ? KB_STR("") : KB_STR("-");

    for (size_t i = 0; i < formatter->count; i++) {
        const struct format_item *item = &formatter->items[i];
        struct kb_format_value value;

        kb_format_out_add(out, item->before);
        kb_format_command_eval(&item->command, source, &value);
        kb_format_out_add_value(out, &value, missing);
    }
    kb_format_out_add(out, formatter->tail);
}

struct kb_str kb_formatter_text(const struct kb_formatter *formatter,
                                const struct kb_formatter_input *input,
                                const struct kb_stream_info *info, struct kb_arena *arena)
{
    const struct kb_format_command *single = kb_formatter_single(formatter);
    struct kb_format_source source;
    struct kb_format_out out;

    if (formatter->count == 0) {
        return formatter->tail;
    }
    source.input = input;
    source.info = info;
    source.arena = arena;
    source.typed = false;
    kb_format_out_init(&out, arena, NULL, 0);
    if (single != NULL) {
        struct kb_format_value value;

        kb_format_command_eval(single, &source, &value);
        if (value.kind == KB_FORMAT_TEXT || value.kind == KB_FORMAT_JSON) {
            return value.scratch ? kb_str_dup(arena, value.text) : value.text;
        }
        if (value.kind == KB_FORMAT_MISSING) {
            return formatter->omit_empty ? KB_STR("") : KB_STR("-");
        }
        kb_format_out_init(&out, arena, kb_arena_alloc(arena, 24, 1), 24);
        kb_format_out_add_value(&out, &value, KB_STR(""));
        return kb_str_make(out.p, out.len);
    }
    kb_formatter_append(formatter, &source, &out);
    return kb_str_make(out.p, out.len);
}
