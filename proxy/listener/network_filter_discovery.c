/* SPDX-License-Identifier: Apache-2.0 */
/* What is special to network filters from a control plane: a connection keeps the configuration
 * with which it began, and passes everything on to a filter of it. */
#include "proxy/listener/network_filter_discovery.h"

#include <stdlib.h>

#include "base/mem.h"

struct discovered {
    KB_OBJ;
    const struct kb_network_filter_ops *ops;
    void *filter;
    struct kb_filter_config *config; /* held */
    struct kb_worker *worker;
};
KB_OBJ_MAGIC(discovered, 0x44535646);

/* ---- the kind ---- */

static bool network_terminal(const void *ops)
{
    return ((const struct kb_network_filter_ops *)ops)->terminal;
}

static int network_config_create(const void *ops, const void *message,
                                 struct kb_factory_context *factory, struct kb_diag *diag,
                                 void **config)
{
    return ((const struct kb_network_filter_ops *)ops)
        ->config_create(message, factory, diag, config);
}

static void network_config_destroy(const void *ops, void *config)
{
    if (((const struct kb_network_filter_ops *)ops)->config_destroy != NULL) {
        ((const struct kb_network_filter_ops *)ops)->config_destroy(config);
    }
}

const struct kb_filter_discovery_kind kb_network_filter_discovery = {
    .category = KB_EXT_NETWORK_FILTER,
    .stats = "network_filter",
    .chain = "network",
    .terminal = network_terminal,
    .config_create = network_config_create,
    .config_destroy = network_config_destroy,
};

/* ---- the filter ---- */

static void provider_destroy(void *provider)
{
    kb_filter_provider_destroy(provider);
}

static void *discovered_create(void *provider, struct kb_conn *conn)
{
    struct kb_filter_config *config = kb_filter_provider_get(provider, conn->worker);
    struct discovered *discovered;

    if (config == NULL) {
        return NULL;
    }
    discovered = kb_calloc(1, sizeof(*discovered));
    KB_OBJ_SET(discovered, discovered);
    discovered->ops = config->ops;
    discovered->config = config;
    discovered->worker = conn->worker;
    kb_shared_ref(&config->shared, conn->worker);
    discovered->filter = discovered->ops->create(config->config, conn);
    return discovered;
}

static enum kb_network_filter_status discovered_on_new_connection(void *filter)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    return discovered->ops->on_new_connection == NULL
               ? KB_NETWORK_FILTER_CONTINUE
               : discovered->ops->on_new_connection(discovered->filter);
}

static enum kb_network_filter_status discovered_on_data(void *filter, struct kb_buf *in,
                                                        bool end_stream)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    return discovered->ops->on_data(discovered->filter, in, end_stream);
}

static void discovered_on_event(void *filter, enum kb_conn_event event)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    discovered->ops->on_event(discovered->filter, event);
}

static void discovered_on_above_high(void *filter)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    if (discovered->ops->on_above_high != NULL) {
        discovered->ops->on_above_high(discovered->filter);
    }
}

static void discovered_on_below_low(void *filter)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    if (discovered->ops->on_below_low != NULL) {
        discovered->ops->on_below_low(discovered->filter);
    }
}

static void discovered_on_sent(void *filter, size_t n)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    if (discovered->ops->on_sent != NULL) {
        discovered->ops->on_sent(discovered->filter, n);
    }
}

static void discovered_on_drain(void *filter)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    if (discovered->ops->on_drain != NULL) {
        discovered->ops->on_drain(discovered->filter);
    }
}

static void discovered_destroy(void *filter)
{
    struct discovered *discovered = KB_CAST(filter, discovered);

    discovered->ops->destroy(discovered->filter);
    kb_shared_unref(&discovered->config->shared, discovered->worker);
    KB_OBJ_CLEAR(discovered);
    free(discovered);
}

const struct kb_network_filter_ops kb_network_filter_discovered = {
    .name = "",
    .config_destroy = provider_destroy,
    .create = discovered_create,
    .on_new_connection = discovered_on_new_connection,
    .on_data = discovered_on_data,
    .on_event = discovered_on_event,
    .on_above_high = discovered_on_above_high,
    .on_below_low = discovered_on_below_low,
    .on_sent = discovered_on_sent,
    .on_drain = discovered_on_drain,
    .destroy = discovered_destroy,
};
