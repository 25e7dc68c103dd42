/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics as the data path sees them: a group is one Envoy scope ("cluster.x.") with a fixed
 * schema; each worker has a block of 64-bit cells of it, made at first use. The owner keeps its
 * worker's block pointer, so that counting is one store. Reading merges the blocks of all workers
 * (proxy/stats/stat_store.h). */
#pragma once

#include <stdbool.h>

#include "base/str.h"
#include "base/worker.h"

enum kb_stat_kind { KB_STAT_COUNTER, KB_STAT_GAUGE, KB_STAT_HISTOGRAM };

struct kb_stat_def {
    const char *name;
    enum kb_stat_kind kind;
    bool on_first_use; /* not shown before; of kind LAZY_... in the .def files */
};

/* Sorted by name, histograms last; the index in `defs` is the statistic's id. */
struct kb_stat_schema {
    const struct kb_stat_def *defs;
    uint16_t count;           /* all */
    uint16_t histogram_count; /* the last so many */
};

/* Ids: KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL and so on, from proxy/stats/<file>.def. */
#define KB_STAT_SCHEMAS(S)                                        \
    S(CLUSTER, cluster)                                           \
    S(CLUSTER_SIZES, cluster_sizes)                               \
    S(CLUSTER_BUDGETS, cluster_budgets)                           \
    S(HTTP, http)                                                 \
    S(HTTP1, http1)                                               \
    S(HTTP2, http2)                                               \
    S(REMAINING, remaining)                                       \
    S(ECDS, ecds)                                                 \
    S(RDS, rds)                                                   \
    S(LISTENER, listener)                                         \
    S(LISTENER_HTTP, listener_http)                               \
    S(LISTENER_WORKER, listener_worker)                           \
    S(LISTENER_MANAGER, listener_manager)                         \
    S(CLUSTER_MANAGER, cluster_manager)                           \
    S(TCP, tcp)                                                   \
    S(DNS, dns)                                                   \
    S(FILESYSTEM, filesystem)                                     \
    S(ACCESS_LOG, access_log)                                     \
    S(RUNTIME, runtime)                                           \
    S(SUBSCRIPTION, subscription)                                 \
    S(CONTROL_PLANE, control_plane)                               \
    S(SERVER, server)                                             \
    S(WATCHDOG, watchdog)                                         \
    S(KOBUNE, kobune)                                             \
    S(VIRTUAL_CLUSTER, virtual_cluster)                           \
    S(ASYNC_CLIENT, async_client)                                 \
    S(THREAD_LOCAL_CLUSTER_MANAGER, thread_local_cluster_manager) \
    S(OVERLOAD, overload)                                         \
    S(RBAC, rbac)                                                 \
    S(RBAC_SHADOW, rbac_shadow)                                   \
    S(FAULT, fault)                                               \
    S(CORS, cors)                                                 \
    S(CSRF, csrf)                                                 \
    S(JWT_AUTHN, jwt_authn)                                       \
    S(OUTLIER_DETECTION, outlier_detection)                       \
    S(HEALTH_CHECK, health_check)                                 \
    S(HEALTH_CHECKS, health_checks)                               \
    S(HEALTH_CHECK_FILTER, health_check_filter)                   \
    S(SSL, ssl)                                                   \
    S(SSL_SOCKET_FACTORY, ssl_socket_factory)                     \
    S(TLS_INSPECTOR, tls_inspector)                               \
    S(HTTP_INSPECTOR, http_inspector)                             \
    S(PROXY_PROTO, proxy_proto)

#define S(ID, file) extern const struct kb_stat_schema kb_stat_schema_##file;
KB_STAT_SCHEMAS(S)
#undef S

enum {
#define X(ID, name, kind) KB_STAT_CLUSTER_##ID,
#include "proxy/stats/cluster.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HTTP_##ID,
#include "proxy/stats/http.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HTTP1_##ID,
#include "proxy/stats/http1.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HTTP2_##ID,
#include "proxy/stats/http2.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_REMAINING_##ID,
#include "proxy/stats/remaining.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_ECDS_##ID,
#include "proxy/stats/ecds.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_RDS_##ID,
#include "proxy/stats/rds.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_LISTENER_##ID,
#include "proxy/stats/listener.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_LISTENER_HTTP_##ID,
#include "proxy/stats/listener_http.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_LISTENER_WORKER_##ID,
#include "proxy/stats/listener_worker.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_LISTENER_MANAGER_##ID,
#include "proxy/stats/listener_manager.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_CLUSTER_MANAGER_##ID,
#include "proxy/stats/cluster_manager.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_TCP_##ID,
#include "proxy/stats/tcp.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_CLUSTER_SIZES_##ID,
#include "proxy/stats/cluster_sizes.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_CLUSTER_BUDGETS_##ID,
#include "proxy/stats/cluster_budgets.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_DNS_##ID,
#include "proxy/stats/dns.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_FILESYSTEM_##ID,
#include "proxy/stats/filesystem.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_ACCESS_LOG_##ID,
#include "proxy/stats/access_log.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_RUNTIME_##ID,
#include "proxy/stats/runtime.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_SUBSCRIPTION_##ID,
#include "proxy/stats/subscription.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_CONTROL_PLANE_##ID,
#include "proxy/stats/control_plane.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_SERVER_##ID,
#include "proxy/stats/server.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_WATCHDOG_##ID,
#include "proxy/stats/watchdog.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_KOBUNE_##ID,
#include "proxy/stats/kobune.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_VIRTUAL_CLUSTER_##ID,
#include "proxy/stats/virtual_cluster.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_ASYNC_CLIENT_##ID,
#include "proxy/stats/async_client.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_THREAD_LOCAL_CLUSTER_MANAGER_##ID,
#include "proxy/stats/thread_local_cluster_manager.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_OVERLOAD_##ID,
#include "proxy/stats/overload.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_RBAC_##ID,
#include "proxy/stats/rbac.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_RBAC_SHADOW_##ID,
#include "proxy/stats/rbac_shadow.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_FAULT_##ID,
#include "proxy/stats/fault.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_CORS_##ID,
#include "proxy/stats/cors.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_CSRF_##ID,
#include "proxy/stats/csrf.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HEALTH_CHECK_FILTER_##ID,
#include "proxy/stats/health_check_filter.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HEALTH_CHECK_##ID,
#include "proxy/stats/health_check.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HEALTH_CHECKS_##ID,
#include "proxy/stats/health_checks.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_OUTLIER_DETECTION_##ID,
#include "proxy/stats/outlier_detection.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_JWT_AUTHN_##ID,
#include "proxy/stats/jwt_authn.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_SSL_##ID,
#include "proxy/stats/ssl.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_SSL_SOCKET_FACTORY_##ID,
#include "proxy/stats/ssl_socket_factory.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_TLS_INSPECTOR_##ID,
#include "proxy/stats/tls_inspector.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_HTTP_INSPECTOR_##ID,
#include "proxy/stats/http_inspector.def"
#undef X
};
enum {
#define X(ID, name, kind) KB_STAT_PROXY_PROTO_##ID,
#include "proxy/stats/proxy_proto.def"
#undef X
};

struct kb_stat_store;
struct kb_stat_group;
struct kb_stat_codes;
struct kb_histogram;

/* One worker's cells of one group. Written by that worker only, read by the main thread. */
struct kb_stat_block {
    struct kb_stat_group *group;
    struct kb_histogram *
        *histograms; /* per histogram id - (count - histogram_count); made at first record */
    struct kb_stat_codes *codes; /* response code counters, made at first use */
    uint8_t *gauge_used;         /* per id: this gauge was set once */
    uint64_t cells[];
};

/* A group under `prefix` ("cluster.a.", copied), for `worker_count` workers and the main thread.
 * Whoever asks for the same prefix and schema gets the same group, as two connection managers with
 * one stat_prefix count together. The store owns it until the last kb_stat_group_destroy. From the
 * main thread. */
struct kb_stat_group *kb_stat_group_create(struct kb_stat_store *store, struct kb_str prefix,
                                           const struct kb_stat_schema *schema);
/* When no worker can write to it any more through this owner. NULL is allowed. */
void kb_stat_group_destroy(struct kb_stat_group *group);

/* The block of this worker, made when it is not there yet. Keep the pointer. On that worker's
 * thread (or the main thread for its own index). */
struct kb_stat_block *kb_stat_group_block(struct kb_stat_group *group, uint32_t worker_index);

KB_INLINE void kb_stat_add(struct kb_stat_block *block, unsigned id, uint64_t n)
{
    __atomic_store_n(&block->cells[id], block->cells[id] + n, __ATOMIC_RELAXED);
}

KB_INLINE void kb_stat_inc(struct kb_stat_block *block, unsigned id)
{
    kb_stat_add(block, id, 1);
}

KB_INLINE void kb_stat_gauge_add(struct kb_stat_block *block, unsigned id, int64_t n)
{
    __atomic_store_n(&block->gauge_used[id], 1, __ATOMIC_RELAXED);
    __atomic_store_n(&block->cells[id], block->cells[id] + (uint64_t)n, __ATOMIC_RELAXED);
}

/* Sets this worker's share of the gauge; for gauges that only one thread sets. */
KB_INLINE void kb_stat_gauge_set(struct kb_stat_block *block, unsigned id, uint64_t value)
{
    __atomic_store_n(&block->gauge_used[id], 1, __ATOMIC_RELAXED);
    __atomic_store_n(&block->cells[id], value, __ATOMIC_RELAXED);
}

/* Records a sample (milliseconds for *_ms and *_time). `id` is a histogram's. */
void kb_stat_record(struct kb_stat_block *block, unsigned id, uint64_t value);

/* Copies of the response code counters that Envoy's CodeStats keeps: "upstream_rq_200",
 * "upstream_rq_2xx", "upstream_rq_completed", with a prefix each. */
enum kb_stat_code_variant {
    KB_STAT_CODE_PLAIN,
    KB_STAT_CODE_EXTERNAL,
    KB_STAT_CODE_INTERNAL,
    KB_STAT_CODE_CANARY,
    KB_STAT_CODE_RETRY, /* "retry.": a response that was not given to the client but tried again */
    KB_STAT_CODE_ZONE,  /* "zone.<from>.<to>."; the first of those that kb_stat_zone_key gives */
    KB_STAT_CODE_VARIANTS
};

/* The variant that stands for requests from one zone to another; the same for the same zones. From
 * the main thread, when hosts are made. */
enum kb_stat_code_variant kb_stat_zone_key(struct kb_stat_store *store, struct kb_str from,
                                           struct kb_str to);

/* Counts a response code in all three counters of a variant of a cluster's block. Allocates only at
 * the first sight of a code. */
void kb_stat_code_inc(struct kb_stat_block *block, enum kb_stat_code_variant variant,
                      unsigned code);
/* Records upstream_rq_time of a variant (PLAIN is the cluster schema's own). */
void kb_stat_code_time(struct kb_stat_block *block, enum kb_stat_code_variant variant, uint64_t ms);

/* Per-worker counters of names known only at run time ("vhost.v.vcluster.c.upstream_rq_total",
 * "http1.x"): resolves the name in the group to a counter once, at configuration. From the main
 * thread. */
struct kb_stat_named;
struct kb_stat_named *kb_stat_named_create(struct kb_stat_store *store, struct kb_str full_name,
                                           enum kb_stat_kind kind);
/* The same, or NULL when stats_config leaves it out. */
struct kb_stat_named *kb_stat_named_create_shown(struct kb_stat_store *store,
                                                 struct kb_str full_name, enum kb_stat_kind kind);
/* On a histogram, records the sample n. */
void kb_stat_named_add(struct kb_stat_named *named, uint32_t worker_index, int64_t n);
/* Sets this worker's share of a gauge. */
void kb_stat_named_set(struct kb_stat_named *named, uint32_t worker_index, uint64_t value);
/* Gives one kb_stat_named_create back; the statistic goes with the last. NULL is allowed. From the
 * main thread, when no worker can write to it any more. */
void kb_stat_named_destroy(struct kb_stat_named *named);

/* A label. */
struct kb_tag {
    struct kb_str name; /* "envoy.cluster_name" */
    struct kb_str value;
};

#define KB_STAT_TAGGED_MAX 20000

/* Under names that begin so, Prometheus shows what follows, without "envoy_" in front (Envoy's
 * custom stat namespaces). */
#define KB_STAT_CUSTOM_NAMESPACE "istiocustom."

/* A statistic whose labels are given instead of being found in its name, which is `name` and behind
 * it ".tag.value" for each; with none given they are found in the name. The same for the same name
 * and labels. On any thread: takes a lock, so keep the pointer, which is valid as long as the
 * process. NULL when there are KB_STAT_TAGGED_MAX of them already, or the name would be longer than
 * 65,535 bytes. */
struct kb_stat_named *kb_stat_tagged_get(struct kb_stat_store *store, struct kb_str name,
                                         const struct kb_tag *tags, size_t count,
                                         enum kb_stat_kind kind);
