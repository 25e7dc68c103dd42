/* SPDX-License-Identifier: Apache-2.0 */
/* A parsed JSON or YAML text as one kind of tree, every value with its place in the file. Lives in
 * an arena of its own and is thrown away when the message has been made from it. */
#pragma once

#include "base/arena.h"
#include "base/diag.h"
#include "base/str.h"

#define KB_DOC_DEPTH_MAX   1000
/* Values of one document, and how many of them aliases may add. */
#define KB_DOC_NODES_MAX   10000000U
#define KB_DOC_ALIASED_MAX 2000000U
#define KB_DOC_TEXT_MAX    ((size_t)256 << 20)

enum kb_doc_kind {
    KB_DOC_NULL,
    KB_DOC_BOOL,
    KB_DOC_NUMBER, /* text is the literal */
    KB_DOC_STRING, /* text is decoded */
    KB_DOC_LIST,
    KB_DOC_MAP,
};

struct kb_doc_node {
    struct kb_doc_node *next; /* next in the same list or map */
    union {
        struct kb_doc_node *first; /* LIST, MAP */
        const char *text;          /* NUMBER, STRING */
    };
    const char *key; /* name within a map */
    uint32_t key_len;
    uint32_t len; /* bytes of text; children of LIST and MAP */
    uint32_t line;
    uint32_t key_line;
    uint16_t column; /* from 1; 65535 stands for "further right" */
    uint16_t key_column;
    uint8_t kind; /* enum kb_doc_kind */
    bool truth;   /* BOOL */
};

struct kb_doc {
    struct kb_arena arena;
    struct kb_doc_node *root; /* NULL before a text was parsed */
    struct kb_str file;       /* borrowed */
    uint32_t node_count;
    uint32_t aliased_count;
};

/* What is being put together; for the two readers. */
struct kb_doc_open {
    struct kb_doc_node *node;
    struct kb_doc_node **last; /* where the next child goes */
};

/* A new value in the arena, counted; NULL when there are too many. */
struct kb_doc_node *kb_doc_node_new(struct kb_doc *doc, enum kb_doc_kind kind, uint32_t line,
                                    size_t column);
void kb_doc_open_init(struct kb_doc_open *open, struct kb_doc_node *node);
void kb_doc_open_add(struct kb_doc_open *open, struct kb_doc_node *child);

/* An empty document on caller's storage; disposing frees the tree, never the text. */
void kb_doc_init(struct kb_doc *doc);
void kb_doc_dispose(struct kb_doc *doc);

/* RFC 8259 JSON, and of what Envoy's parser takes beyond it: see doc_json.c. `text` and `file` are
 * borrowed as long as the tree is used. KB_ECONFIG after an error in diag with line and column. */
int kb_doc_parse_json(struct kb_doc *doc, struct kb_str file, struct kb_str text,
                      struct kb_diag *diag) KB_MUST_USE;

/* YAML as Envoy reads it: YAML 1.1 booleans, octal and hexadecimal integers, decimal fractions stay
 * text, a key tagged !ignore is left out, documents after the first are ignored. */
int kb_doc_parse_yaml(struct kb_doc *doc, struct kb_str file, struct kb_str text,
                      struct kb_diag *diag) KB_MUST_USE;

/* The value of a name in a map (the last one of that name), or NULL. */
const struct kb_doc_node *kb_doc_get(const struct kb_doc_node *map, struct kb_str key);

/* The value at a path as kb_diag writes it ("static_resources.clusters[0].name", `metadata["k"]`),
 * names in snake or camel case; looks through TypedStruct's `value`. When the path leads further
 * than the document, the deepest value that is there. NULL when not even the first name is. */
const struct kb_doc_node *kb_doc_find(const struct kb_doc *doc, struct kb_str path);

KB_INLINE struct kb_str kb_doc_text(const struct kb_doc_node *node)
{
    return kb_str_make(node->text, node->len);
}

KB_INLINE struct kb_str kb_doc_key(const struct kb_doc_node *node)
{
    return kb_str_make(node->key, node->key_len);
}
