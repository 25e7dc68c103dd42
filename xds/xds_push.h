/* SPDX-License-Identifier: Apache-2.0 */
/* The last responses of control planes, for people who ask what changed and when: a ring of
 * KB_XDS_PUSHES_MAX, with names and reasons cut to a bound. Main thread. */
#pragma once

#include "base/list.h"
#include "xds/xds_type.h"

#define KB_XDS_PUSHES_MAX           20
#define KB_XDS_PUSH_NAMES_MAX       60   /* kept of one push; the others are only counted */
#define KB_XDS_PUSH_NAME_BYTES_MAX  256  /* longer ones are cut */
#define KB_XDS_PUSH_ERROR_BYTES_MAX 2048 /* likewise */

enum kb_xds_change {
    KB_XDS_ADDED,
    KB_XDS_CHANGED,
    KB_XDS_REMOVED,
    KB_XDS_UNCHANGED, /* sent again as it was; its name is not kept */
    KB_XDS_CHANGE_COUNT
};

struct kb_xds_push_name {
    enum kb_xds_change change;
    char *name;
};

/* One response. */
struct kb_xds_push {
    struct kb_list link;
    uint64_t wall_ns; /* when it was answered */
    enum kb_xds_type type;
    const char *way;                      /* "delta", "sotw" or "file" */
    char *version;                        /* of the response */
    char *error;                          /* why it was refused; NULL: it was accepted */
    uint64_t counts[KB_XDS_CHANGE_COUNT]; /* of all its names */
    struct kb_xds_push_name names[KB_XDS_PUSH_NAMES_MAX];
    uint32_t name_count;
};

struct kb_xds_push_log {
    struct kb_list pushes; /* newest first */
    uint32_t count;
    uint64_t total; /* since the start */
};

/* An empty log on caller's storage. Streams and files that write to it must be gone at dispose. */
void kb_xds_push_log_init(struct kb_xds_push_log *log);
void kb_xds_push_log_dispose(struct kb_xds_push_log *log);

/* A push that is not in the log yet; NULL when `log` is. */
struct kb_xds_push *kb_xds_push_begin(const struct kb_xds_push_log *log, enum kb_xds_type type,
                                      const char *way);
/* What the push does to a name (copied). `push` may be NULL. */
void kb_xds_push_note(struct kb_xds_push *push, enum kb_xds_change change, struct kb_str name);
/* Takes the push into the log, in the place of the oldest when that is full. An `error` with p NULL
 * is none. `push` may be NULL. */
void kb_xds_push_end(struct kb_xds_push_log *log, struct kb_xds_push *push, struct kb_str version,
                     struct kb_str error);
