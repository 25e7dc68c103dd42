/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of a JSON or YAML text: making nodes, and finding one by a path. */
#include "proto/doc.h"

#include <string.h>

void kb_doc_init(struct kb_doc *doc)
{
    memset(doc, 0, sizeof(*doc));
    kb_arena_init(&doc->arena, NULL);
}

void kb_doc_dispose(struct kb_doc *doc)
{
    kb_arena_dispose(&doc->arena);
    doc->root = NULL;
    doc->node_count = 0;
    doc->aliased_count = 0;
}

struct kb_doc_node *kb_doc_node_new(struct kb_doc *doc, enum kb_doc_kind kind, uint32_t line,
                                    size_t column)
{
    struct kb_doc_node *node;

    if (doc->node_count >= KB_DOC_NODES_MAX) {
        return NULL;
    }
    doc->node_count++;
    node = KB_ARENA_NEW(&doc->arena, struct kb_doc_node);
    node->kind = (uint8_t)kind;
    node->line = line;
    node->column = (uint16_t)KB_MIN(column, UINT16_MAX);
    return node;
}

void kb_doc_open_init(struct kb_doc_open *open, struct kb_doc_node *node)
{
    open->node = node;
    open->last = &node->first;
}

void kb_doc_open_add(struct kb_doc_open *open, struct kb_doc_node *child)
{
    *open->last = child;
    open->last = &child->next;
    open->node->len++;
}

const struct kb_doc_node *kb_doc_get(const struct kb_doc_node *map, struct kb_str key)
{
    const struct kb_doc_node *found = NULL;

    if (map->kind != KB_DOC_MAP) {
        return NULL;
    }
    for (const struct kb_doc_node *child = map->first; child != NULL; child = child->next) {
        if (kb_str_eq(kb_doc_key(child), key)) {
            found = child;
        }
    }
    return found;
}

/* Whether `key` is the camelCase of the snake_case `name`. */
static bool is_camel_of(struct kb_str key, struct kb_str name)
{
    size_t k = 0;
    bool upper = false;

    for (size_t i = 0; i < name.len; i++) {
        char want = name.p[i];

        if (want == '_') {
            upper = true;
            continue;
        }
        if (upper && want >= 'a' && want <= 'z') {
            want = (char)(want - 'a' + 'A');
        }
        upper = false;
        if (k >= key.len || key.p[k++] != want) {
            return false;
        }
    }
    return k == key.len;
}

static const struct kb_doc_node *member_find(const struct kb_doc_node *map, struct kb_str name)
{
    const struct kb_doc_node *found = kb_doc_get(map, name);
    const struct kb_doc_node *value;

    if (found != NULL || map->kind != KB_DOC_MAP) {
        return found;
    }
    for (const struct kb_doc_node *child = map->first; child != NULL; child = child->next) {
        if (is_camel_of(kb_doc_key(child), name)) {
            return child;
        }
    }
    /* {"@type": TypedStruct, "type_url": ..., "value": {...}}: the fields are one level below */
    value = kb_doc_get(map, KB_STR("@type")) ? kb_doc_get(map, KB_STR("value")) : NULL;
    return value != NULL && value->kind == KB_DOC_MAP ? member_find(value, name) : NULL;
}

static const struct kb_doc_node *element_find(const struct kb_doc_node *list, uint64_t index)
{
    const struct kb_doc_node *child;

    if (list->kind != KB_DOC_LIST) {
        return index == 0 ? list : NULL;
    }
    child = list->first;
    while (child != NULL && index-- > 0) {
        child = child->next;
    }
    return child;
}

/* Takes `[12]` or `["key"]` off the front of *rest; false when there is none. */
static bool subscript_take(struct kb_str *rest, struct kb_str *inner, bool *is_key)
{
    ptrdiff_t end;

    if (rest->len < 3 || rest->p[0] != '[') {
        return false;
    }
    *is_key = rest->p[1] == '"';
    end =
        *is_key ? kb_str_find(kb_str_from(*rest, 2), KB_STR("\"]")) : kb_str_find_char(*rest, ']');
    if (end < 0) {
        return false;
    }
    if (*is_key) {
        *inner = kb_str_make(rest->p + 2, (size_t)end);
        *rest = kb_str_from(*rest, (size_t)end + 4);
    } else {
        *inner = kb_str_make(rest->p + 1, (size_t)end - 1);
        *rest = kb_str_from(*rest, (size_t)end + 1);
    }
    return true;
}

static const struct kb_doc_node *subscript_find(const struct kb_doc_node *at, struct kb_str inner,
                                                bool is_key)
{
    uint64_t index;

    if (is_key) {
        return kb_doc_get(at, inner);
    }
    return kb_str_to_u64(inner, &index) == 0 ? element_find(at, index) : NULL;
}

const struct kb_doc_node *kb_doc_find(const struct kb_doc *doc, struct kb_str path)
{
    const struct kb_doc_node *deepest = NULL;
    const struct kb_doc_node *at = doc->root;

    while (path.len > 0 && at != NULL) {
        struct kb_str inner;
        bool is_key;

        if (subscript_take(&path, &inner, &is_key)) {
            at = subscript_find(at, inner, is_key);
        } else {
            size_t len = 0;

            path = kb_str_from(path, path.p[0] == '.' ? 1 : 0);
            while (len < path.len && path.p[len] != '.' && path.p[len] != '[') {
                len++;
            }
            if (len == 0) {
                break;
            }
            at = member_find(at, kb_str_first(path, len));
            path = kb_str_from(path, len);
        }
        deepest = at != NULL ? at : deepest;
    }
    return deepest;
}
