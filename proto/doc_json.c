/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text to tree: RFC 8259, and what Envoy 1.40 takes beyond it: text in single quotes, names
 * without quotes, a comma after the last element, control characters inside text. */
#include "proto/doc.h"
#include "proto/wire.h"

#include <string.h>

struct reader {
    struct kb_doc *doc;
    struct kb_diag *diag;
    const char *at;
    const char *end;
    const char *line_start;
    uint32_t line;
    uint32_t depth;
};

static size_t column_of(const struct reader *reader)
{
    return (size_t)(reader->at - reader->line_start) + 1;
}

/* Reports at the present place; the result ends the reading. */
#define FAIL(reader, ...)                                                  \
    (kb_diag_error_at((reader)->diag, (reader)->doc->file, (reader)->line, \
                      (uint32_t)column_of(reader), __VA_ARGS__),           \
     KB_ECONFIG)

static void space_skip(struct reader *reader)
{
    while (reader->at < reader->end) {
        char c = *reader->at;

        if (c == '\n') {
            reader->line++;
            reader->line_start = reader->at + 1;
        } else if (c != ' ' && c != '\t' && c != '\r') {
            return;
        }
        reader->at++;
    }
}

/* Reports what stands here instead of `expected`. */
static int unexpected(struct reader *reader, const char *expected)
{
    if (reader->at >= reader->end) {
        return FAIL(reader, "unexpected end of the file; expected %s", expected);
    }
    if ((unsigned char)*reader->at < 0x20 || (unsigned char)*reader->at >= 0x7f) {
        return FAIL(reader, "unexpected byte 0x%02x; expected %s", (unsigned char)*reader->at,
                    expected);
    }
    return FAIL(reader, "unexpected character: '%c'; expected %s", *reader->at, expected);
}

static int hex4_read(struct reader *reader, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        char c = reader->at < reader->end ? kb_ascii_lower(*reader->at) : '\0';

        if (!kb_ascii_is_digit(c) && (c < 'a' || c > 'f')) {
            return unexpected(reader, "four hexadecimal digits after \\u");
        }
        *out = *out << 4 | (uint32_t)(kb_ascii_is_digit(c) ? c - '0' : c - 'a' + 10);
        reader->at++;
    }
    return 0;
}

static char *utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* One \uXXXX, or a pair of them that makes one character. `at` is behind the u. */
static int unicode_escape_read(struct reader *reader, char **out)
{
    uint32_t high;
    uint32_t low;

    KB_TRY(hex4_read(reader, &high));
    if (high >= 0xdc00 && high < 0xe000) {
        return FAIL(reader, "unpaired low surrogate in text");
    }
    if (high >= 0xd800 && high < 0xdc00) {
        if (reader->end - reader->at < 2 || reader->at[0] != '\\' || reader->at[1] != 'u') {
            return unexpected(reader, "a second \\u escape to complete the surrogate pair");
        }
        reader->at += 2;
        KB_TRY(hex4_read(reader, &low));
        if (low < 0xdc00 || low >= 0xe000) {
            return FAIL(reader, "invalid low surrogate in text");
        }
        high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    *out = utf8_put(*out, high);
    return 0;
}

/* One escape; `at` is behind the backslash. */
static int escape_read(struct reader *reader, char **out)
{
    static const char names[] = "\"\\/bfnrt'";
    static const char values[] = "\"\\/\b\f\n\r\t'";
    char c = reader->at < reader->end ? *reader->at : '\0';
    const char *found = c != '\0' ? strchr(names, c) : NULL;

    if (c == 'u') {
        reader->at++;
        return unicode_escape_read(reader, out);
    }
    if (found == NULL) {
        return unexpected(reader, "an escape that JSON knows");
    }
    *(*out)++ = values[found - names];
    reader->at++;
    return 0;
}

/* Decodes text with escapes from its start to `quote`; no escape makes it longer. */
static int escaped_text_read(struct reader *reader, char quote, size_t raw_len, struct kb_str *out)
{
    char *copy = kb_arena_alloc(&reader->doc->arena, raw_len + 4, 1);
    char *put = copy;

    while (reader->at < reader->end && *reader->at != quote) {
        if (*reader->at == '\\') {
            reader->at++;
            KB_TRY(escape_read(reader, &put));
            continue;
        }
        if (*reader->at == '\n') {
            reader->line++;
            reader->line_start = reader->at + 1;
        }
        *put++ = *reader->at++;
    }
    *out = kb_str_make(copy, (size_t)(put - copy));
    return 0;
}

/* Text in quotes. Without escapes it stays a slice of the source. */
static int text_read(struct reader *reader, struct kb_str *out)
{
    char quote = *reader->at++;
    const char *from = reader->at;
    const char *p = from;
    bool escaped = false;

    while (p < reader->end && *p != quote) {
        if (*p == '\\') {
            escaped = true;
            p++;
        } else if (*p == '\n') {
            escaped = true;
        }
        p++;
    }
    if (p >= reader->end) {
        return FAIL(reader, "text without its closing quote");
    }
    if (escaped) {
        KB_TRY(escaped_text_read(reader, quote, (size_t)(p - from), out));
    } else {
        *out = kb_str_make(from, (size_t)(p - from));
        reader->at = p;
    }
    reader->at++;
    return 0;
}

static bool is_word(char c, bool first)
{
    return (kb_ascii_lower(c) >= 'a' && kb_ascii_lower(c) <= 'z') || c == '_' || c == '$' ||
           (!first && kb_ascii_is_digit(c));
}

static int name_read(struct reader *reader, struct kb_str *out)
{
    const char *from = reader->at;

    if (reader->at < reader->end && (*reader->at == '"' || *reader->at == '\'')) {
        return text_read(reader, out);
    }
    while (reader->at < reader->end && is_word(*reader->at, reader->at == from)) {
        reader->at++;
    }
    *out = kb_str_make(from, (size_t)(reader->at - from));
    return out->len > 0 ? 0 : unexpected(reader, "a name in quotes, or '}'");
}

static void digits_skip(struct reader *reader)
{
    while (reader->at < reader->end && kb_ascii_is_digit(*reader->at)) {
        reader->at++;
    }
}

static bool here(const struct reader *reader, char c)
{
    return reader->at < reader->end && *reader->at == c;
}

static int number_read(struct reader *reader, struct kb_doc_node *node)
{
    const char *from = reader->at;
    const char *digits;

    reader->at += here(reader, '-');
    digits = reader->at;
    digits_skip(reader);
    if (reader->at == digits) {
        return unexpected(reader, "a digit");
    }
    if (*digits == '0' && reader->at - digits > 1) {
        reader->at = digits;
        return FAIL(reader, "a number cannot begin with a superfluous 0");
    }
    if (here(reader, '.')) {
        reader->at++;
        digits = reader->at;
        digits_skip(reader);
        if (reader->at == digits) {
            return unexpected(reader, "a digit after the decimal point");
        }
    }
    if (here(reader, 'e') || here(reader, 'E')) {
        reader->at++;
        reader->at += here(reader, '-') || here(reader, '+');
        digits = reader->at;
        digits_skip(reader);
        if (reader->at == digits) {
            return unexpected(reader, "a digit in the exponent");
        }
    }
    node->kind = KB_DOC_NUMBER;
    node->text = from;
    node->len = (uint32_t)(reader->at - from);
    return 0;
}

static bool literal_take(struct reader *reader, struct kb_str word)
{
    struct kb_str rest = kb_str_make(reader->at, (size_t)(reader->end - reader->at));

    if (!kb_str_starts_with(rest, word) ||
        (rest.len > word.len && is_word(rest.p[word.len], false))) {
        return false;
    }
    reader->at += word.len;
    return true;
}

static int value_read(struct reader *reader, struct kb_doc_node **out);

/* What follows a child: ',' and perhaps the end, or the end. */
static int child_end_read(struct reader *reader, char close, bool *ended)
{
    space_skip(reader);
    if (here(reader, ',')) {
        reader->at++;
        space_skip(reader);
    } else if (!here(reader, close)) {
        return unexpected(reader, close == '}' ? "',' or '}'" : "',' or ']'");
    }
    *ended = here(reader, close);
    return 0;
}

static int children_read(struct reader *reader, struct kb_doc_node *node, char close)
{
    struct kb_doc_open open;
    bool ended;

    kb_doc_open_init(&open, node);
    reader->at++;
    space_skip(reader);
    ended = here(reader, close);
    while (!ended) {
        struct kb_str key = KB_STR_NULL;
        uint32_t key_line = reader->line;
        size_t key_column = column_of(reader);
        struct kb_doc_node *child = NULL;

        if (close == '}') {
            KB_TRY(name_read(reader, &key));
            space_skip(reader);
            if (!here(reader, ':')) {
                return unexpected(reader, "':'");
            }
            reader->at++;
            space_skip(reader);
        }
        KB_TRY(value_read(reader, &child));
        child->key = key.p;
        child->key_len = (uint32_t)key.len;
        child->key_line = key_line;
        child->key_column = (uint16_t)KB_MIN(key_column, UINT16_MAX);
        kb_doc_open_add(&open, child);
        KB_TRY(child_end_read(reader, close, &ended));
    }
    reader->at++;
    return 0;
}

static int value_read(struct reader *reader, struct kb_doc_node **out)
{
    struct kb_doc_node *node =
        kb_doc_node_new(reader->doc, KB_DOC_NULL, reader->line, column_of(reader));
    struct kb_str text;
    int rc = 0;

    if (node == NULL) {
        return FAIL(reader, "more than %u values", KB_DOC_NODES_MAX);
    }
    *out = node;
    if (here(reader, '{') || here(reader, '[')) {
        if (reader->depth >= KB_DOC_DEPTH_MAX) {
            return FAIL(reader, "nested more than %d levels deep", KB_DOC_DEPTH_MAX);
        }
        reader->depth++;
        node->kind = here(reader, '{') ? KB_DOC_MAP : KB_DOC_LIST;
        rc = children_read(reader, node, node->kind == KB_DOC_MAP ? '}' : ']');
        reader->depth--;
    } else if (here(reader, '"') || here(reader, '\'')) {
        rc = text_read(reader, &text);
        if (rc == 0) {
            node->kind = KB_DOC_STRING;
            node->text = text.p;
            node->len = (uint32_t)text.len;
        }
    } else if (literal_take(reader, KB_STR("true"))) {
        node->kind = KB_DOC_BOOL;
        node->truth = true;
    } else if (literal_take(reader, KB_STR("false"))) {
        node->kind = KB_DOC_BOOL;
    } else if (!literal_take(reader, KB_STR("null"))) {
        rc = reader->at < reader->end && (here(reader, '-') || kb_ascii_is_digit(*reader->at))
                 ? number_read(reader, node)
                 : unexpected(reader, "a value");
    }
    return rc;
}

/* Reports the first byte that is not UTF-8. */
static int encoding_check(struct reader *reader)
{
    size_t len = (size_t)(reader->end - reader->at);
    const char *bad = reader->at + kb_utf8_prefix(reader->at, len);

    if (bad == reader->end) {
        return 0;
    }
    while (reader->at < bad) {
        if (*reader->at++ == '\n') {
            reader->line++;
            reader->line_start = reader->at;
        }
    }
    return FAIL(reader, "the text is not UTF-8");
}

int kb_doc_parse_json(struct kb_doc *doc, struct kb_str file, struct kb_str text,
                      struct kb_diag *diag)
{
    struct reader reader = {.doc = doc, .diag = diag, .at = text.len > 0 ? text.p : "", .line = 1};

    reader.line_start = reader.at;
    reader.end = reader.at + text.len;
    doc->file = file;
    if (text.len > KB_DOC_TEXT_MAX) {
        return FAIL(&reader, "the text is longer than %zu MiB", KB_DOC_TEXT_MAX >> 20);
    }
    KB_TRY(encoding_check(&reader));
    space_skip(&reader);
    KB_TRY(value_read(&reader, &doc->root));
    space_skip(&reader);
    if (reader.at < reader.end) {
        return FAIL(&reader, "extraneous characters after the end of the JSON value");
    }
    return 0;
}
