/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a cluster's network filters on its TCP connections. */
#include "proxy/upstream/upstream_filters.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proto/any.h"
#include "proxy/api/extension.h"

static void filter_create(struct kb_upstream_filter_chain *chain,
                          const Envoy__Config__Cluster__V3__Filter *m,
                          const struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_str type = kb_any_inner_name(m->typed_config, factory->arena);
    const struct kb_extension *extension =
        kb_extension_find(KB_EXT_UPSTREAM_NETWORK_FILTER, type, kb_str_from_cstr(m->name));
    struct kb_factory_context inner = *factory;
    const struct kb_network_filter_ops *ops;
    const ProtobufCMessage *message;
    void *config = NULL;

    if (m->config_discovery != NULL || extension == NULL) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      m->name, KB_STR_ARG(type));
        return;
    }
    kb_diag_push(diag, "typed_config");
    message = kb_any_unpack(m->typed_config, NULL, factory->arena, diag);
    ops = extension->ops;
    inner.arena = &chain->arena;
    if (message != NULL && ops->config_create(message, &inner, diag, &config) == 0) {
        chain->filters[chain->count].ops = ops;
        chain->filters[chain->count++].config = config;
    }
    kb_diag_pop(diag);
}

struct kb_upstream_filter_chain *
kb_upstream_filter_chain_create(const Envoy__Config__Cluster__V3__Cluster *message,
                                struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_upstream_filter_chain *chain;
    uint32_t errors = diag->error_count;

    if (message->n_filters == 0) {
        return NULL;
    }
    if (message->n_filters > KB_UPSTREAM_FILTERS_MAX) {
        kb_diag_error(diag, "filters: more than %d are not supported", KB_UPSTREAM_FILTERS_MAX);
        return NULL;
    }
    chain = kb_calloc(1, sizeof(*chain));
    kb_arena_init(&chain->arena, NULL);
    for (size_t i = 0; i < message->n_filters; i++) {
        kb_diag_push_index(diag, "filters", i);
        filter_create(chain, message->filters[i], factory, diag);
        kb_diag_pop(diag);
    }
    if (diag->error_count != errors) {
        kb_upstream_filter_chain_destroy(chain);
        return NULL;
    }
    return chain;
}

void kb_upstream_filter_chain_destroy(struct kb_upstream_filter_chain *chain)
{
    if (chain == NULL) {
        return;
    }
    for (size_t i = 0; i < chain->count; i++) {
        chain->filters[i].ops->config_destroy(chain->filters[i].config);
    }
    kb_arena_dispose(&chain->arena);
    free(chain);
}

void kb_upstream_filters_begin(struct kb_upstream_filters *filters,
                               const struct kb_upstream_filter_chain *chain, struct kb_conn *conn)
{
    if (chain == NULL) {
        return;
    }
    filters->chain = chain;
    for (; filters->count < chain->count; filters->count++) {
        filters->filters[filters->count] =
            chain->filters[filters->count].ops->create(chain->filters[filters->count].config, conn);
    }
    for (size_t i = 0; i < filters->count; i++) {
        chain->filters[i].ops->on_event(filters->filters[i], KB_CONN_CONNECTED);
    }
}

bool kb_upstream_filters_data(struct kb_upstream_filters *filters, struct kb_buf *in,
                              bool end_stream)
{
    for (size_t i = 0; i < filters->count; i++) {
        if (filters->chain->filters[i].ops->on_data(filters->filters[i], in, end_stream) ==
            KB_NETWORK_FILTER_STOP) {
            return false;
        }
    }
    return true;
}

void kb_upstream_filters_end(struct kb_upstream_filters *filters, enum kb_conn_event event)
{
    for (size_t i = 0; i < filters->count; i++) {
        filters->chain->filters[i].ops->on_event(filters->filters[i], event);
        filters->chain->filters[i].ops->destroy(filters->filters[i]);
    }
    filters->count = 0;
}
