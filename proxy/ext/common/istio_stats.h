/* SPDX-License-Identifier: Apache-2.0 */
/* istio.stats: metrics of requests and connections by who calls whom. What the HTTP and the network
 * filter have in common: configuration, and the sets of labels that were seen, each resolved once
 * per worker and found again by numbers. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/api/stats.h"
#include "proxy/api/stream_info.h"
#include "proxy/ext/common/workload.h"

/* In the order of the labels in Prometheus output. */
enum kb_istio_label {
#define X(id, name) KB_ISTIO_LABEL_##id,
#include "proxy/ext/common/istio_labels.def"
#undef X
    KB_ISTIO_LABEL_COUNT
};

/* What is reported at once, with the same labels. */
enum kb_istio_report {
    KB_ISTIO_HTTP,     /* a request that has ended */
    KB_ISTIO_MESSAGES, /* of gRPC, also while the request lasts */
    KB_ISTIO_TCP,      /* a connection, also while it lasts */
    KB_ISTIO_REPORT_COUNT
};

enum kb_istio_metric { /* of each report, from 0 */
                       KB_ISTIO_REQUESTS_TOTAL = 0,
                       KB_ISTIO_REQUEST_DURATION,
                       KB_ISTIO_REQUEST_BYTES,
                       KB_ISTIO_RESPONSE_BYTES,
                       KB_ISTIO_REQUEST_MESSAGES = 0,
                       KB_ISTIO_RESPONSE_MESSAGES,
                       KB_ISTIO_CONNECTIONS_OPENED = 0,
                       KB_ISTIO_CONNECTIONS_CLOSED,
                       KB_ISTIO_SENT_BYTES,
                       KB_ISTIO_RECEIVED_BYTES,
                       KB_ISTIO_METRICS_MAX = 4
};

enum kb_istio_reporter { KB_ISTIO_SOURCE, KB_ISTIO_DESTINATION, KB_ISTIO_WAYPOINT };

struct kb_istio_stats_config;

/* From a stats.PluginConfig message; KB_ECONFIG after errors were reported. Main thread. */
int kb_istio_stats_config_create(const void *message, struct kb_factory_context *factory,
                                 struct kb_diag *diag, void **config);
/* When no stream and no connection uses it any more. Main thread. */
void kb_istio_stats_config_destroy(void *config);
enum kb_istio_reporter kb_istio_stats_reporter(const struct kb_istio_stats_config *config);
/* Between two reports of what lasts; 0: only at the end. */
uint64_t kb_istio_stats_interval_ms(const struct kb_istio_stats_config *config);

/* Numbers that stand for the URI names of both ends of a TLS connection; 0: none. */
struct kb_istio_principals {
    uint32_t peer, local;
};

/* What a report is about. */
struct kb_istio_subject {
    enum kb_istio_report report;
    const struct kb_stream_info *info;
    /* Where objects of the upstream side stand: the stream's own, or its upstream connection's. */
    const struct kb_filter_state_item *upstream_state;
    struct kb_istio_principals principals;
    struct kb_str authority; /* of the request; p NULL: there is none */
    bool grpc;
    bool has_grpc_status;
    int64_t grpc_status;
};

/* The principals of this connection; `ssl` may be NULL. On the worker. */
struct kb_istio_principals kb_istio_stats_principals(struct kb_istio_stats_config *config,
                                                     uint32_t worker_index,
                                                     const struct kb_ssl_connection_info *ssl,
                                                     uint64_t connection_id);
/* The metrics of this report with the labels of the subject, KB_ISTIO_METRICS_MAX of them; NULL
 * where one is dropped or has no room. Valid until the next call. On the worker. */
struct kb_stat_named *const *kb_istio_stats_metrics(struct kb_istio_stats_config *config,
                                                    uint32_t worker_index,
                                                    const struct kb_istio_subject *subject);

/* Whether it is known who the peer is, or that it will not tell. */
bool kb_istio_peer_known(const struct kb_istio_stats_config *config,
                         const struct kb_stream_info *info,
                         const struct kb_filter_state_item *upstream_state);
