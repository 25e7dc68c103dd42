/* SPDX-License-Identifier: Apache-2.0 */
/* Network filters of upstream connections (Cluster.filters). */
#pragma once

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "proxy/api/network_filter.h"
#include "proxy/upstream/cluster.h"

#define KB_UPSTREAM_FILTERS_MAX 4

/* A cluster's, immutable. */
struct kb_upstream_filter_chain {
    struct kb_arena arena; /* of the filters' configurations */
    size_t count;
    struct {
        const struct kb_network_filter_ops *ops;
        void *config;
    } filters[KB_UPSTREAM_FILTERS_MAX];
};

/* NULL when the message has none, or after an error was reported. Main thread. */
struct kb_upstream_filter_chain *
kb_upstream_filter_chain_create(const Envoy__Config__Cluster__V3__Cluster *message,
                                struct kb_factory_context *factory, struct kb_diag *diag);
/* NULL is allowed. Main thread, when no connection uses it. */
void kb_upstream_filter_chain_destroy(struct kb_upstream_filter_chain *chain);

/* One connection's; zero-initialise. */
struct kb_upstream_filters {
    const struct kb_upstream_filter_chain *chain;
    void *filters[KB_UPSTREAM_FILTERS_MAX];
    size_t count;
};

/* The connection is up: makes the filters and tells them. */
void kb_upstream_filters_begin(struct kb_upstream_filters *filters,
                               const struct kb_upstream_filter_chain *chain, struct kb_conn *conn);
/* Bytes came; false: a filter keeps them until more come. */
bool kb_upstream_filters_data(struct kb_upstream_filters *filters, struct kb_buf *in,
                              bool end_stream);
/* The connection's last event: tells the filters and frees them. */
void kb_upstream_filters_end(struct kb_upstream_filters *filters, enum kb_conn_event event);
