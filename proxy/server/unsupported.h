/* SPDX-License-Identifier: Apache-2.0 */
/* What the configuration sets and Kobune does not implement: counted, logged once, and kept for
 * /kobune/unsupported, so that nothing is ignored silently. Main thread. */
#pragma once

#include "base/arena.h"
#include "base/map.h"
#include "proto/supported.h"

/* More kinds of fields than this are counted together. */
#define KB_UNSUPPORTED_MAX 2000

struct kb_unsupported_entry {
    struct kb_unsupported_entry *next;
    struct kb_str path;  /* without indices: "static_resources.clusters[].dns_jitter" */
    struct kb_str first; /* the first place: "static_resources.clusters[3].dns_jitter" */
    struct kb_str type;  /* "envoy.config.cluster.v3.Cluster" */
    uint64_t count;      /* places */
};

struct kb_unsupported {
    struct kb_arena arena;
    struct kb_map by_path;
    struct kb_unsupported_entry *entries; /* in the order they came */
    struct kb_unsupported_entry **last;
    uint64_t more_count; /* places beyond KB_UNSUPPORTED_MAX kinds */
};

/* An empty list on caller's storage. */
void kb_unsupported_init(struct kb_unsupported *unsupported);
void kb_unsupported_dispose(struct kb_unsupported *unsupported);

/* Adds one place; logs at warning level when it is the first of its path. Texts are copied. */
void kb_unsupported_add(struct kb_unsupported *unsupported, struct kb_str path, struct kb_str type);

/* Adds every field of the message that is set and not listed in proto/supported.txt. `prefix`
 * starts the paths. */
void kb_unsupported_walk(struct kb_unsupported *unsupported, const ProtobufCMessage *message,
                         struct kb_str prefix);
