/* SPDX-License-Identifier: Apache-2.0 */
/* What a person watches: connections, requests, errors and durations of each listener, connection
 * manager and cluster, whatever stats_matcher leaves out elsewhere. Main thread. */
#pragma once

#include "proxy/stats/stat_store.h"

enum kb_stat_live_kind {
    KB_STAT_LIVE_LISTENER, /* connections only */
    KB_STAT_LIVE_ROUTE,    /* requests of one connection manager of one listener */
    KB_STAT_LIVE_HTTP,     /* of one stat_prefix of connection managers, with durations */
    KB_STAT_LIVE_CLUSTER,
};

/* Totals since the start or the last reset; gauges are of now. */
struct kb_stat_live {
    enum kb_stat_live_kind kind;
    struct kb_str name; /* without the final dot: "listener.0.0.0.0_80", "http.ingress" */
    uint64_t connections, connections_active;
    uint64_t requests, requests_active;        /* answered; under way */
    uint64_t errors;                           /* answered with 5xx */
    const struct kb_histogram_total *times_ms; /* up to the last flush; NULL: none */
};

typedef void (*kb_stat_live_fn)(void *arg, const struct kb_stat_live *live);

/* Calls visit for each of them that had a connection or a request; any order. */
void kb_stat_live_visit(const struct kb_stat_store *store, kb_stat_live_fn visit, void *arg);
