/* SPDX-License-Identifier: Apache-2.0 */
/* The admin interface without its sockets: a request in, status, headers and body out (Envoy
 * "Administration interface"). The terminal HTTP filter of the admin listener calls it. Main thread
 * only. */
#pragma once

#include "base/addr.h"
#include "base/arena.h"
#include "base/vec.h"
#include "proto/pb_json.h"
#include "proxy/api/cluster.h"
#include "proxy/stats/stat_store.h"

/* How far a body goes in one call of kb_admin_response_next. */
#define KB_ADMIN_PIECE_BYTES 65536

struct kb_admin_host {
    struct kb_addr addr;
    struct kb_str addr_text; /* "127.0.0.1:80" */
    struct kb_str hostname, region, zone, sub_zone;
    uint32_t weight, priority;
    uint32_t health_flags; /* KB_HOST_... */
    bool canary;
    double success_rate[KB_OUTLIER_ORIGIN_COUNT]; /* percent; -1: not known */
    uint64_t stats[KB_HOST_STAT_COUNT];           /* over all workers */
};

struct kb_admin_cluster {
    struct kb_str name, observability_name;
    struct kb_str eds_service_name; /* empty: none */
    struct {
        uint64_t connections, pending, requests, retries;
    } limits[KB_PRIORITY_COUNT];
    bool added_via_api;
    bool outliers; /* hosts are watched; then, percent or -1: */
    double success_rate_average[KB_OUTLIER_ORIGIN_COUNT];
    double success_rate_threshold[KB_OUTLIER_ORIGIN_COUNT];
    const struct kb_admin_host *hosts; /* by priority */
    size_t host_count;
};

struct kb_admin_listener {
    struct kb_str name;
    const struct kb_addr *addrs; /* bound; the first is the main one */
    size_t addr_count;
};

struct kb_admin_memory {
    uint64_t allocated, heap_size, pageheap_unmapped, pageheap_free, total_thread_cache,
        total_physical_bytes;
};

/* A field that is set and not implemented. */
struct kb_admin_unsupported {
    struct kb_str path;  /* "static_resources.clusters[].dns_jitter" */
    struct kb_str first; /* the first place */
    struct kb_str type;
    uint64_t count;
};

enum kb_admin_change {
    KB_ADMIN_ADDED,
    KB_ADMIN_CHANGED,
    KB_ADMIN_REMOVED,
    KB_ADMIN_UNCHANGED,
    KB_ADMIN_CHANGE_COUNT
};

struct kb_admin_push_name {
    enum kb_admin_change change;
    struct kb_str name;
};

/* A response of a control plane, or a file in its place. */
struct kb_admin_push {
    uint64_t wall_ns;
    const char *type; /* "CDS" */
    const char *way;  /* "delta", "sotw", "file" */
    struct kb_str version;
    struct kb_str error;                    /* why it was refused; p NULL: it was accepted */
    uint64_t counts[KB_ADMIN_CHANGE_COUNT]; /* of all names; some of them: */
    const struct kb_admin_push_name *names;
    size_t name_count;
};

/* Parts of /config_dump, in their order. */
enum kb_admin_section {
    KB_ADMIN_BOOTSTRAP,
    KB_ADMIN_CLUSTERS,
    KB_ADMIN_ECDS,      /* left out when there is nothing in it */
    KB_ADMIN_ENDPOINTS, /* only asked for with ?include_eds */
    KB_ADMIN_LISTENERS,
    KB_ADMIN_SCOPED_ROUTES,
    KB_ADMIN_ROUTES,
    KB_ADMIN_SECRETS,
    KB_ADMIN_SECTIONS
};

typedef void (*kb_admin_cluster_fn)(void *arg, const struct kb_admin_cluster *cluster);
typedef void (*kb_admin_listener_fn)(void *arg, const struct kb_admin_listener *listener);
typedef void (*kb_admin_push_fn)(void *arg, const struct kb_admin_push *push);
typedef void (*kb_admin_unsupported_fn)(void *arg, const struct kb_admin_unsupported *unsupported);
typedef void (*kb_admin_runtime_fn)(void *arg, struct kb_str key, const struct kb_str *layer_values,
                                    struct kb_str final_value);
/* One resource of a section: `field` is the repeated field of the section's message that it stands
 * in ("static_clusters"), `message` an element of it (ClustersConfigDump.StaticCluster). Of
 * KB_ADMIN_BOOTSTRAP the whole BootstrapConfigDump, `field` NULL. `name` is what ?name_regex looks
 * at. The message lives during the call. */
typedef void (*kb_admin_config_fn)(void *arg, const char *field, struct kb_str name,
                                   const ProtobufCMessage *message);

/* What the pages show and do. The server fills it in; a NULL member is something that the process
 * does not have. proxy/admin/core_sources.h has the members for clusters, listeners and
 * configuration ready. */
struct kb_admin_sources {
    void *arg; /* of all calls */

    const char *(*state_name)(
        void *arg); /* "LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING" */
    const char *(*hot_restart_version)(void *arg); /* "disabled" */
    /* An envoy.admin.v3.ServerInfo in the arena. */
    const ProtobufCMessage *(*server_info)(void *arg, struct kb_arena *arena);
    /* Something is served from --config-cache; may be NULL. */
    bool (*from_config_cache)(void *arg);
    void (*memory)(void *arg, struct kb_admin_memory *memory);
    /* An envoy.admin.v3.Certificates in the arena; NULL: none. */
    const ProtobufCMessage *(*certificates)(void *arg, struct kb_arena *arena);
    /* An envoy.admin.v3.UnreadyTargetsDumps in the arena; NULL: none. */
    const ProtobufCMessage *(*unready_targets)(void *arg, struct kb_arena *arena);

    /* In byte order of names. */
    void (*visit_clusters)(void *arg, kb_admin_cluster_fn visit, void *visit_arg);
    void (*visit_listeners)(void *arg, kb_admin_listener_fn visit, void *visit_arg);
    /* Elements of one field of a section stand together, fields in the message's order. */
    void (*visit_configs)(void *arg, enum kb_admin_section section, kb_admin_config_fn visit,
                          void *visit_arg);
    /* version_info of a section: of the response that was applied last; empty: none. */
    struct kb_str (*section_version)(void *arg, enum kb_admin_section section);
    void (*visit_unsupported)(void *arg, kb_admin_unsupported_fn visit, void *visit_arg);
    /* Newest first. */
    void (*visit_pushes)(void *arg, kb_admin_push_fn visit, void *visit_arg);

    size_t (*runtime_layer_count)(void *arg);
    struct kb_str (*runtime_layer_name)(void *arg, size_t layer);
    void (*visit_runtime)(void *arg, kb_admin_runtime_fn visit, void *visit_arg);
    /* Sets (or, when empty, forgets) a value in the admin layer; in force after runtime_reload.
     * KB_ENOTFOUND: there is no admin layer. */
    int (*runtime_set)(void *arg, struct kb_str key, struct kb_str value);
    void (*runtime_reload)(void *arg);

    void (*fail_health_check)(void *arg, bool fail);
    void (*drain_listeners)(void *arg, bool inbound_only, bool graceful, bool skip_exit);
    void (*reopen_logs)(void *arg);
    /* The process ends after the present event, so that the answer is still written. */
    void (*quit)(void *arg);
    /* Whether the statistics are flushed before they are shown (stats_flush_on_admin). */
    bool flush_on_admin;
};

struct kb_admin;

/* Keeps a copy of `sources`. `stats` must outlive it. */
struct kb_admin *kb_admin_create(const struct kb_admin_sources *sources,
                                 struct kb_stat_store *stats);
/* NULL is allowed. */
void kb_admin_destroy(struct kb_admin *admin);

struct kb_admin_header {
    const char *name;
    const char *value;
};

#define KB_ADMIN_HEADERS_MAX 4

struct kb_admin_response {
    unsigned status;
    /* Everything but date, server and framing, in the order of sending. */
    struct kb_admin_header headers[KB_ADMIN_HEADERS_MAX];
    size_t header_count;
    /* The rest of the body; use kb_admin_response_next. */
    struct kb_json_out body;
    bool (*next)(void *arg, struct kb_json_out *out, size_t bytes);
    void (*end)(void *arg);
    void *arg;
};

/* Answers a request. `path_and_query` is the :path. `form` is the body of a request whose
 * content-type is application/x-www-form-urlencoded, else empty. Every response must be disposed.
 * For HEAD the body is to be left out by the caller. */
void kb_admin_handle(struct kb_admin *admin, struct kb_str method, struct kb_str path_and_query,
                     struct kb_str form, struct kb_admin_response *response);

/* Moves the next piece of the body to the end of `out`; true: there is more, call again when what
 * is there was sent, and not before the loop has handled other events. A call may add nothing. */
bool kb_admin_response_next(struct kb_admin_response *response, struct kb_json_out *out);

/* At the end, or when the client went away. */
void kb_admin_response_dispose(struct kb_admin_response *response);
