/* SPDX-License-Identifier: Apache-2.0 */
/* A workload of the mesh as one proxy tells it to another (Istio WorkloadMetadataObject): told in
 * headers or before the bytes of a connection, kept as filter state, shown as labels. */
#pragma once

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "proxy/api/filter_state.h"

struct Google__Protobuf__Struct;

enum kb_workload_type {
    KB_WORKLOAD_UNKNOWN,
    KB_WORKLOAD_POD,
    KB_WORKLOAD_DEPLOYMENT,
    KB_WORKLOAD_JOB,
    KB_WORKLOAD_CRONJOB,
    KB_WORKLOAD_TYPE_COUNT
};

/* "deployment"; of the unknown type, empty. */
extern const struct kb_str kb_workload_type_names[];

struct kb_workload_label {
    struct kb_str name, value;
};

/* Immutable; held by counts of one thread. */
struct kb_workload {
    KB_OBJ;
    uint32_t refs;
    uint64_t serial; /* of this object: never that of another one in this process */
    enum kb_workload_type type;
    struct kb_str instance; /* name of the pod; texts are empty where nothing is known */
    struct kb_str cluster;
    struct kb_str namespace_name;
    struct kb_str name;
    struct kb_str canonical_name;
    struct kb_str canonical_revision;
    struct kb_str app;
    struct kb_str version;
    struct kb_workload_label *labels; /* the additional ones, by name */
    size_t label_count;
};
KB_OBJ_MAGIC(kb_workload, 0x574b4c44);

/* Names of labels that are told besides the well-known ones. */
struct kb_workload_labels {
    struct kb_str *names;
    size_t count;
};

/* The names in the arena. */
void kb_workload_labels_read(struct kb_workload_labels *labels, char *const *names, size_t count,
                             struct kb_arena *arena);

#define KB_WORKLOAD_BYTES_MAX  16384 /* of what a peer tells of itself; more is not read */
#define KB_WORKLOAD_LABELS_MAX 64

/* Keys under which a peer stands in filter state: "downstream_peer" and "upstream_peer". Valid
 * after kb_workload_keys_init, which any factory calls first; main thread. */
extern const struct kb_filter_state_key *kb_workload_downstream_key;
extern const struct kb_filter_state_key *kb_workload_upstream_key;
/* Stands there when it is known that the peer will not tell: "peer_not_found". */
extern const struct kb_filter_state_key *kb_workload_not_found_key;
void kb_workload_keys_init(void);

/* How a kb_workload stands in filter state. */
extern const struct kb_filter_state_type kb_workload_state_type;

/* From a node's metadata or what a peer told (NULL: empty). Held once. Never NULL. */
struct kb_workload *kb_workload_from_struct(const struct Google__Protobuf__Struct *metadata,
                                            const struct kb_workload_labels *labels);
/* The same from a packed google.protobuf.Struct; NULL: it is none, or larger than
 * KB_WORKLOAD_BYTES_MAX. */
struct kb_workload *kb_workload_from_bytes(struct kb_str bytes,
                                           const struct kb_workload_labels *labels);
/* The same in base64, padded or not. */
struct kb_workload *kb_workload_from_base64(struct kb_str text,
                                            const struct kb_workload_labels *labels);
/* From an endpoint's metadata "name;namespace;canonical name;revision;cluster"; NULL: not that. */
struct kb_workload *kb_workload_from_endpoint(struct kb_str text);
void kb_workload_ref(const struct kb_workload *workload);
/* NULL is allowed. */
void kb_workload_unref(const struct kb_workload *workload);

/* What a proxy tells of itself: the Struct, in the arena, fields by name. */
struct Google__Protobuf__Struct *kb_workload_to_struct(const struct kb_workload *workload,
                                                       struct kb_arena *arena);
/* The same packed, in base64. */
struct kb_str kb_workload_to_base64(const struct kb_workload *workload, struct kb_arena *arena);

/* Peers that were told lately, by the node id that came with it (a worker's own). */
struct kb_workload_cache {
    struct kb_map map;                 /* id -> entry */
    struct kb_list entries;            /* the oldest first */
    const struct kb_workload *unnamed; /* the last that came without an id */
    const void *last;                  /* entry, NULL: peers come many times in a row */
};

#define KB_WORKLOAD_CACHE_MAX 500

/* Empty, on caller's storage; allocates nothing yet. */
void kb_workload_cache_init(struct kb_workload_cache *cache);
/* Lets all of them go. */
void kb_workload_cache_dispose(struct kb_workload_cache *cache);
/* The workload of the peer `id` (may be empty: nothing is remembered), read from the base64 text
 * unless it is known. Borrowed until the next call; NULL: the text is malformed. */
const struct kb_workload *kb_workload_cache_read(struct kb_workload_cache *cache, struct kb_str id,
                                                 struct kb_str text,
                                                 const struct kb_workload_labels *labels);
