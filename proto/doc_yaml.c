/* SPDX-License-Identifier: Apache-2.0 */
/* YAML text to tree: libyaml's events, scalars as Envoy 1.40 reads them (yaml-cpp, then its own
 * conversion). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/map.h"
#include "base/vec.h"
#include "proto/doc.h"

/* Children beyond which duplicate names are looked for with a hash map. */
#define PAIRWISE_MAX 8

struct anchor {
    const struct kb_doc_node *node;
    uint32_t weight; /* values in it */
};

struct frame {
    struct kb_doc_open open;
    const char *anchor; /* to be defined when the collection ends; NULL: none */
    uint32_t nodes_before;
    /* of a map: the name that was read and whose value comes next */
    struct kb_str key;
    uint32_t key_line;
    uint32_t key_column;
    bool have_key;
    bool key_ignored; /* tagged !ignore */
};

struct reader {
    struct kb_doc *doc;
    struct kb_diag *diag;
    struct kb_map anchors;
    KB_VEC(struct frame) frames;
};

static int fail_at(struct reader *reader, const yaml_mark_t *mark, const char *text)
{
    kb_diag_error_at(reader->diag, reader->doc->file, (uint32_t)mark->line + 1,
                     (uint32_t)mark->column + 1, "%s", text);
    return KB_ECONFIG;
}

static struct kb_str event_text(const yaml_event_t *event)
{
    return kb_str_make((const char *)event->data.scalar.value, event->data.scalar.length);
}

/* yaml-cpp's booleans: all lower, all upper, or only the first letter upper case. */
static bool bool_read(struct kb_str text, bool *out)
{
    static const struct {
        struct kb_str word;
        bool value;
    } words[] = {{KB_STR("y"), true},   {KB_STR("n"), false},   {KB_STR("yes"), true},
                 {KB_STR("no"), false}, {KB_STR("true"), true}, {KB_STR("false"), false},
                 {KB_STR("on"), true},  {KB_STR("off"), false}};

    for (size_t i = 0; i < KB_ARRAY_LEN(words); i++) {
        bool first_upper = text.len > 0 && text.p[0] >= 'A' && text.p[0] <= 'Z';
        bool lower = true;
        bool upper = true;

        if (!kb_str_ieq(text, words[i].word)) {
            continue;
        }
        for (size_t k = 1; k < text.len; k++) {
            bool is_upper = text.p[k] >= 'A' && text.p[k] <= 'Z';

            lower = lower && !is_upper;
            upper = upper && is_upper;
        }
        *out = words[i].value;
        return lower || (upper && first_upper);
    }
    return false;
}

/* C's integer literals, decimal, octal and hexadecimal, that fit 64 bits. */
static bool integer_read(struct kb_str text, int64_t *out)
{
    char digits[72];
    char *end = NULL;
    size_t first = text.len > 0 && (text.p[0] == '+' || text.p[0] == '-') ? 1 : 0;

    if (text.len <= first || text.len >= sizeof(digits) || !kb_ascii_is_digit(text.p[first])) {
        return false;
    }
    memcpy(digits, text.p, text.len);
    digits[text.len] = '\0';
    errno = 0;
    *out = strtoll(digits, &end, 0);
    return errno == 0 && end == digits + text.len;
}

static bool is_null_word(struct kb_str text)
{
    return text.len == 0 || kb_str_eq(text, KB_STR("~")) || kb_str_eq(text, KB_STR("null")) ||
           kb_str_eq(text, KB_STR("Null")) || kb_str_eq(text, KB_STR("NULL"));
}

static void scalar_set(struct kb_doc *doc, struct kb_doc_node *node, const yaml_event_t *event)
{
    struct kb_str text = event_text(event);
    const char *tag = (const char *)event->data.scalar.tag;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    int64_t integer;
    bool truth;

    node->kind = KB_DOC_STRING;
    if ((tag == NULL && plain) || (tag != NULL && strcmp(tag, "!") != 0)) {
        if (tag == NULL && is_null_word(text)) {
            node->kind = KB_DOC_NULL;
            return;
        }
        if (bool_read(text, &truth)) {
            node->kind = KB_DOC_BOOL;
            node->truth = truth;
            return;
        }
        if (integer_read(text, &integer)) {
            /* beyond 32 bits Envoy keeps the digits as text, which every integer field takes */
            node->kind =
                integer >= INT32_MIN && integer <= INT32_MAX ? KB_DOC_NUMBER : KB_DOC_STRING;
            text = kb_str_printf(&doc->arena, "%lld", (long long)integer);
            node->text = text.p;
            node->len = (uint32_t)text.len;
            return;
        }
    }
    text = kb_str_dup(&doc->arena, text);
    node->text = text.p;
    node->len = (uint32_t)text.len;
}

static void anchor_define(struct reader *reader, const char *name, const struct kb_doc_node *node,
                          uint32_t nodes_before)
{
    struct anchor *anchor;
    struct kb_str key;

    if (name == NULL) {
        return;
    }
    key = kb_str_dup(&reader->doc->arena, kb_str_from_cstr(name));
    anchor = KB_ARENA_NEW(&reader->doc->arena, struct anchor);
    anchor->node = node;
    anchor->weight = reader->doc->node_count + reader->doc->aliased_count - nodes_before;
    kb_map_put(&reader->anchors, key, anchor);
}

static bool comes_again(const struct kb_doc_node *child)
{
    for (const struct kb_doc_node *later = child->next; later != NULL; later = later->next) {
        if (kb_str_eq(kb_doc_key(later), kb_doc_key(child))) {
            return true;
        }
    }
    return false;
}

/* Takes earlier members of the same name out: the last one counts. */
static void duplicates_drop(struct kb_doc_node *map)
{
    struct kb_doc_node **link = &map->first;
    bool many = map->len > PAIRWISE_MAX;
    struct kb_map names;

    kb_map_init(&names);
    for (struct kb_doc_node *child = map->first; many && child != NULL; child = child->next) {
        kb_map_put(&names, kb_doc_key(child), child);
    }
    while (*link != NULL) {
        struct kb_doc_node *child = *link;

        if (many ? kb_map_get(&names, kb_doc_key(child)) != child : comes_again(child)) {
            *link = child->next;
            map->len--;
        } else {
            link = &child->next;
        }
    }
    kb_map_dispose(&names);
}

/* Puts a finished or just opened value where it belongs. */
static void value_place(struct reader *reader, struct kb_doc_node *node)
{
    struct frame *frame;

    if (reader->frames.len == 0) {
        reader->doc->root = node;
        return;
    }
    frame = &reader->frames.items[reader->frames.len - 1];
    if (frame->open.node->kind == KB_DOC_MAP) {
        frame->have_key = false;
        if (frame->key_ignored) {
            return;
        }
        node->key = frame->key.p;
        node->key_len = (uint32_t)frame->key.len;
        node->key_line = frame->key_line;
        node->key_column = (uint16_t)KB_MIN(frame->key_column, UINT16_MAX);
    }
    kb_doc_open_add(&frame->open, node);
}

/* Whether the next value is the name of a map's member. */
static bool key_expected(const struct reader *reader)
{
    const struct frame *frame;

    if (reader->frames.len == 0) {
        return false;
    }
    frame = &reader->frames.items[reader->frames.len - 1];
    return frame->open.node->kind == KB_DOC_MAP && !frame->have_key;
}

static void key_take(struct reader *reader, struct kb_str text, const char *tag,
                     const yaml_mark_t *mark)
{
    struct frame *frame = &reader->frames.items[reader->frames.len - 1];

    frame->key = kb_str_dup(&reader->doc->arena, text);
    frame->key_line = (uint32_t)mark->line + 1;
    frame->key_column = (uint32_t)mark->column + 1;
    frame->have_key = true;
    frame->key_ignored = tag != NULL && strcmp(tag, "!ignore") == 0;
}

static struct kb_doc_node *node_at(struct reader *reader, enum kb_doc_kind kind,
                                   const yaml_mark_t *mark)
{
    struct kb_doc_node *node =
        kb_doc_node_new(reader->doc, kind, (uint32_t)mark->line + 1, mark->column + 1);

    if (node == NULL) {
        fail_at(reader, mark, "the document has too many values");
    }
    return node;
}

static int scalar_event(struct reader *reader, const yaml_event_t *event)
{
    const char *anchor = (const char *)event->data.scalar.anchor;
    uint32_t before = reader->doc->node_count + reader->doc->aliased_count;
    bool is_key = key_expected(reader);
    struct kb_doc_node *node;

    if (is_key) {
        struct kb_str text = event_text(event);
        bool null = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
                    event->data.scalar.tag == NULL && is_null_word(text);

        key_take(reader, null ? KB_STR("null") : text, (const char *)event->data.scalar.tag,
                 &event->start_mark);
        if (anchor == NULL) {
            return 0;
        }
    }
    node = node_at(reader, KB_DOC_STRING, &event->start_mark);
    if (node == NULL) {
        return KB_ECONFIG;
    }
    scalar_set(reader->doc, node, event);
    anchor_define(reader, anchor, node, before);
    if (!is_key) {
        value_place(reader, node);
    }
    return 0;
}

static int collection_event(struct reader *reader, const yaml_event_t *event, enum kb_doc_kind kind)
{
    struct frame frame = {0};
    const yaml_char_t *anchor =
        kind == KB_DOC_MAP ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    struct kb_doc_node *node;

    if (key_expected(reader)) {
        return fail_at(reader, &event->start_mark, "a name cannot be a list or a map");
    }
    if (reader->frames.len >= KB_DOC_DEPTH_MAX) {
        return fail_at(reader, &event->start_mark, "the document is nested too deeply");
    }
    frame.nodes_before = reader->doc->node_count + reader->doc->aliased_count;
    node = node_at(reader, kind, &event->start_mark);
    if (node == NULL) {
        return KB_ECONFIG;
    }
    if (anchor != NULL) {
        frame.anchor = kb_str_dup(&reader->doc->arena, kb_str_from_cstr((const char *)anchor)).p;
    }
    value_place(reader, node);
    kb_doc_open_init(&frame.open, node);
    kb_vec_push(&reader->frames, frame);
    return 0;
}

static void collection_end(struct reader *reader)
{
    struct frame *frame = &reader->frames.items[reader->frames.len - 1];

    if (frame->open.node->kind == KB_DOC_MAP) {
        duplicates_drop(frame->open.node);
    }
    anchor_define(reader, frame->anchor, frame->open.node, frame->nodes_before);
    reader->frames.len--;
}

static int alias_event(struct reader *reader, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    const struct anchor *anchor = kb_map_get(&reader->anchors, kb_str_from_cstr(name));
    struct kb_doc_node *node;

    if (anchor == NULL) {
        kb_diag_error_at(reader->diag, reader->doc->file, (uint32_t)event->start_mark.line + 1,
                         (uint32_t)event->start_mark.column + 1,
                         "the referenced anchor is not defined: %s", name);
        return KB_ECONFIG;
    }
    if (anchor->weight > KB_DOC_ALIASED_MAX - reader->doc->aliased_count) {
        return fail_at(reader, &event->start_mark,
                       "the aliases of the document expand to too many values");
    }
    if (key_expected(reader)) {
        if (anchor->node->kind != KB_DOC_STRING && anchor->node->kind != KB_DOC_NUMBER) {
            return fail_at(reader, &event->start_mark, "a name must be text");
        }
        key_take(reader, kb_doc_text(anchor->node), NULL, &event->start_mark);
        return 0;
    }
    reader->doc->aliased_count += anchor->weight;
    node = node_at(reader, KB_DOC_NULL, &event->start_mark);
    if (node == NULL) {
        return KB_ECONFIG;
    }
    node->kind = anchor->node->kind;
    node->truth = anchor->node->truth;
    node->first = anchor->node->first; /* also text: children are shared, never changed */
    node->len = anchor->node->len;
    value_place(reader, node);
    return 0;
}

static int event_take(struct reader *reader, const yaml_event_t *event, bool *ended)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return scalar_event(reader, event);
    case YAML_MAPPING_START_EVENT:
        return collection_event(reader, event, KB_DOC_MAP);
    case YAML_SEQUENCE_START_EVENT:
        return collection_event(reader, event, KB_DOC_LIST);
    case YAML_ALIAS_EVENT:
        return alias_event(reader, event);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        collection_end(reader);
        return 0;
    case YAML_DOCUMENT_END_EVENT:
    case YAML_STREAM_END_EVENT:
        *ended = true;
        return 0;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    default:
        return 0;
    }
}

static int syntax_error(struct reader *reader, const yaml_parser_t *parser)
{
    const yaml_mark_t *mark = &parser->problem_mark;
    const char *problem = parser->problem ? parser->problem : "not YAML";

    if (parser->error == YAML_READER_ERROR) {
        kb_diag_error_at(reader->diag, reader->doc->file, (uint32_t)parser->mark.line + 1, 1,
                         "%s (byte %zu)", problem, parser->problem_offset);
    } else if (parser->context != NULL) {
        kb_diag_error_at(reader->diag, reader->doc->file, (uint32_t)mark->line + 1,
                         (uint32_t)mark->column + 1, "%s, %s that began in line %zu", problem,
                         parser->context, parser->context_mark.line + 1);
    } else {
        kb_diag_error_at(reader->diag, reader->doc->file, (uint32_t)mark->line + 1,
                         (uint32_t)mark->column + 1, "%s", problem);
    }
    return KB_ECONFIG;
}

static int events_read(struct reader *reader, yaml_parser_t *parser)
{
    bool ended = false;

    while (!ended) {
        yaml_event_t event;
        int rc;

        if (!yaml_parser_parse(parser, &event)) {
            return syntax_error(reader, parser);
        }
        rc = event_take(reader, &event, &ended);
        yaml_event_delete(&event);
        KB_TRY(rc);
    }
    return 0;
}

int kb_doc_parse_yaml(struct kb_doc *doc, struct kb_str file, struct kb_str text,
                      struct kb_diag *diag)
{
    struct reader reader = {.doc = doc, .diag = diag};
    yaml_parser_t parser;
    int rc;

    doc->file = file;
    if (text.len > KB_DOC_TEXT_MAX) {
        kb_diag_error_at(diag, file, 0, 0, "the text is longer than %zu MiB",
                         KB_DOC_TEXT_MAX >> 20);
        return KB_ECONFIG;
    }
    if (!yaml_parser_initialize(&parser)) {
        kb_diag_error_at(diag, file, 0, 0, "no memory to read YAML");
        return KB_ECONFIG;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.len > 0 ? text.p : ""),
                                 text.len);
    kb_map_init(&reader.anchors);
    kb_vec_init(&reader.frames);
    rc = events_read(&reader, &parser);
    kb_vec_dispose(&reader.frames);
    kb_map_dispose(&reader.anchors);
    yaml_parser_delete(&parser);
    if (rc == 0 &&
        (doc->root == NULL || (doc->root->kind != KB_DOC_MAP && doc->root->kind != KB_DOC_LIST))) {
        kb_diag_error_at(
            diag, file, 1, 1,
            "Unable to convert YAML as JSON: the document is neither a map nor a list");
        rc = KB_ECONFIG;
    }
    return rc;
}
