/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of istio.stats; for istio_stats*.c only. */
#pragma once

#include "proxy/ext/common/istio_stats.h"

#define ISTIO_SANS_SLOTS     64   /* connections whose principals are remembered; a power of two */
#define ISTIO_ENDPOINT_SLOTS 64   /* endpoints whose workload is remembered; a power of two */
#define ISTIO_ENDPOINT_MAX   4096 /* bytes of metadata that are looked at */
#define ISTIO_TEXTS_MAX      4096 /* principals and authorities that are remembered */
#define ISTIO_LABEL_SETS_MIN 64
#define ISTIO_LABEL_SETS_MAX 8192
#define ISTIO_PRINCIPAL_MAX  2048 /* bytes; longer ones are as none */
#define ISTIO_LABELS_ALL     ((UINT32_C(1) << KB_ISTIO_LABEL_COUNT) - 1)

/* What labels depend on, as numbers; compared as bytes, so that padding is zero. */
struct istio_key {
    uint64_t peer; /* serial of the workload; 0: unknown */
    uint64_t endpoint;
    uint64_t cluster; /* kb_cluster_istio.serial; 0: none */
    uint64_t flags;   /* of the response, in their order */
    int64_t grpc_status;
    struct kb_istio_principals principals;
    uint32_t authority;
    uint16_t code;
    uint8_t report;
    uint8_t how; /* enum istio_how, added up */
};

enum istio_how {
    ISTIO_GRPC = 1,
    ISTIO_GRPC_STATUS = 2,
    ISTIO_BLOCK_ALL = 4, /* the route of that name */
    ISTIO_ALLOW_ANY = 8,
};

struct istio_label_set {
    struct istio_key key;
    bool used;
    struct kb_stat_named *metrics[KB_ISTIO_METRICS_MAX];
};

struct istio_endpoint {
    struct kb_workload *workload; /* NULL: its metadata say nothing of one */
    size_t len;                   /* of the copy of its metadata */
    char *metadata;
};

struct istio_text {
    uint32_t number;
    size_t len;
    char text[];
};

/* One worker's part. */
struct istio_worker {
    struct istio_label_set *sets; /* open addressing */
    uint32_t set_cap;             /* power of two, or 0 */
    uint32_t set_count;
    struct kb_map texts; /* text -> istio_text */
    uint32_t last_number;
    struct {
        uint64_t connection_id; /* 0: empty */
        struct kb_istio_principals principals;
    } sans[ISTIO_SANS_SLOTS];
    struct istio_endpoint *endpoints; /* [ISTIO_ENDPOINT_SLOTS], made at first use */
};

struct istio_metric_config {
    bool dropped;
    uint32_t labels; /* bits of those that it has */
};

struct kb_istio_stats_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_server_context *server;
    enum kb_istio_reporter reporter;
    bool host_header_fallback;
    uint64_t interval_ms;
    struct kb_workload *self; /* of this proxy */
    struct istio_metric_config metrics[KB_ISTIO_REPORT_COUNT][KB_ISTIO_METRICS_MAX];
    struct kb_stat_named *build;
    struct istio_worker workers[];
};
KB_OBJ_MAGIC(kb_istio_stats_config, 0x49535443);

/* The peers that labels are about; NULL: not known. */
struct istio_peers {
    const struct kb_workload *peer;
    const struct kb_workload *endpoint; /* behind a gateway */
};

extern const struct kb_str kb_istio_label_names[KB_ISTIO_LABEL_COUNT];
/* Without "istio_"; empty past the last of a report. */
extern const struct kb_str kb_istio_metric_names[KB_ISTIO_REPORT_COUNT][KB_ISTIO_METRICS_MAX];

/* Every label of the subject; texts in the arena or borrowed. */
void kb_istio_labels_fill(const struct kb_istio_stats_config *config,
                          const struct kb_istio_subject *subject, const struct istio_peers *peers,
                          struct kb_str peer_principal, struct kb_str local_principal,
                          struct kb_arena *arena, struct kb_str labels[KB_ISTIO_LABEL_COUNT]);

/* Frees what a worker's part holds. */
void kb_istio_worker_dispose(struct istio_worker *worker);
