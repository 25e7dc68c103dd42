/* SPDX-License-Identifier: Apache-2.0 */
/* Network filters of a downstream connection (Envoy network filters): the terminal one is the HTTP
 * connection manager or the TCP proxy. Order of calls: create, on_new_connection, on_data...,
 * on_event, destroy. */
#pragma once

#include "proxy/api/connection.h"
#include "proxy/api/factory_context.h"

enum kb_network_filter_status {
    KB_NETWORK_FILTER_CONTINUE, /* go on to the next filter */
    KB_NETWORK_FILTER_STOP,     /* until kb_network_filter_continue */
};

struct kb_network_filter_ops {
    const char *name;
    const char *type_url;
    bool terminal;
    /* From the typed_config message (already unpacked and checked). */
    int (*config_create)(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config);
    void (*config_destroy)(void *config);
    /* A filter of one connection; its memory is its own. The connection outlives it. NULL: it has
     * no configuration, and the connection ends. */
    void *(*create)(void *config, struct kb_conn *conn);
    enum kb_network_filter_status (*on_new_connection)(void *filter);
    enum kb_network_filter_status (*on_data)(void *filter, struct kb_buf *in, bool end_stream);
    void (*on_event)(void *filter, enum kb_conn_event event);
    void (*on_above_high)(void *filter); /* the downstream write queue */
    void (*on_below_low)(void *filter);
    void (*on_sent)(void *filter, size_t n);
    /* The listener drains: finish what runs, take nothing new. May be NULL. */
    void (*on_drain)(void *filter);
    void (*destroy)(void *filter);
};
