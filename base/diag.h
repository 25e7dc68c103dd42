/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostics of configuration: every error and warning with file, line, column, the path of the
 * field, and a hint. Code that reads configuration keeps the path up to date and goes on after an
 * error, so that the user sees all of them at once. Main thread only. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

enum kb_diag_level { KB_DIAG_ERROR, KB_DIAG_WARNING };

struct kb_diag_entry {
    struct kb_diag_entry *next;
    enum kb_diag_level level;
    struct kb_str file; /* empty when unknown */
    uint32_t line;      /* from 1; 0 when unknown */
    uint32_t column;    /* from 1; 0 when unknown */
    struct kb_str path; /* "static_resources.clusters[0].name" */
    struct kb_str text; /* one line, lower case, no final stop */
    struct kb_str hint; /* what to do, or empty */
};

/* Finds where a field stands in the source: sets file, line and column; returns false when unknown.
 * Called only when an error is reported, so it may be slow. */
typedef bool (*kb_diag_locate_fn)(void *arg, struct kb_str path, struct kb_str *file,
                                  uint32_t *line, uint32_t *column);

#define KB_DIAG_ENTRIES_MAX 256 /* more are counted, not kept: nobody reads further */
#define KB_DIAG_DEPTH_MAX   128

struct kb_diag {
    struct kb_arena arena;
    struct kb_diag_entry *first;
    struct kb_diag_entry **last;
    uint32_t error_count;
    uint32_t warning_count;
    bool unknown_fields_warn; /* unknown fields are warnings: a control plane may be newer than we
                                 are */
    uint32_t depth;
    struct {
        struct kb_str name; /* field; or map key when is_key */
        int64_t index;      /* -1: no index */
        bool is_key;
    } stack[KB_DIAG_DEPTH_MAX];
    kb_diag_locate_fn locate;
    void *locate_arg;
};

/* An empty list on caller's storage; disposing frees all entries and forgets the path. */
void kb_diag_init(struct kb_diag *diag);
void kb_diag_dispose(struct kb_diag *diag);

/* Sets how paths are found in the source; NULL to forget. */
void kb_diag_set_locate(struct kb_diag *diag, kb_diag_locate_fn locate, void *arg);

/* Enters a field, an element of a repeated field, or an entry of a map. `name` is borrowed until
 * popped. Deeper than KB_DIAG_DEPTH_MAX is counted and shown as "...". */
void kb_diag_push(struct kb_diag *diag, const char *name);
void kb_diag_push_index(struct kb_diag *diag, const char *name, size_t index);
void kb_diag_push_key(struct kb_diag *diag, struct kb_str key);
void kb_diag_pop(struct kb_diag *diag);

/* The present path, in the arena of diag. */
struct kb_str kb_diag_path(struct kb_diag *diag);

/* Reports at the present path. The hint variants add what to do. */
void kb_diag_error(struct kb_diag *diag, const char *fmt, ...) KB_PRINTF(2, 3);
void kb_diag_error_hint(struct kb_diag *diag, struct kb_str hint, const char *fmt, ...)
    KB_PRINTF(3, 4);
void kb_diag_warning(struct kb_diag *diag, const char *fmt, ...) KB_PRINTF(2, 3);
/* Reports at a place in a file, for syntax errors. */
void kb_diag_error_at(struct kb_diag *diag, struct kb_str file, uint32_t line, uint32_t column,
                      const char *fmt, ...) KB_PRINTF(5, 6);

/* 0 when no error was reported since init, otherwise KB_ECONFIG. */
int kb_diag_result(const struct kb_diag *diag) KB_MUST_USE;

/* One entry as a user reads it: "file:line:column: error: path: text (hint)". */
struct kb_str kb_diag_format(struct kb_diag *diag, const struct kb_diag_entry *entry);
