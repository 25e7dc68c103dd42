/* SPDX-License-Identifier: Apache-2.0 */
/* FilterChain message to filter chain: what connections it is for, its transport socket and its
 * network filters. A chain has its own memory and its own life: a changed listener keeps those that
 * did not change. */
#include <stdlib.h>

#include "base/mem.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "proto/any.h"
#include "proto/message_hash.h"
#include "proto/wkt.h"
#include "proxy/api/extension.h"
#include "proxy/listener/listener_internal.h"
#include "proxy/listener/network_filter_discovery.h"

/* ---- network filters ---- */

static void factory_fill(struct kb_factory_context *factory, struct kb_filter_chain *chain,
                         const struct kb_filter_chain_build *build)
{
    *factory = (struct kb_factory_context){
        .server = build->server,
        .arena = &chain->arena,
        .init = build->init,
        .stat_prefix = kb_str_dup(&chain->arena, build->stat_prefix).p,
        .listener_name = kb_str_dup(&chain->arena, build->listener_name),
        .drain = &chain->drain,
        .inbound = build->inbound,
        .outbound = build->outbound,
        .drain_modify_only = build->drain_modify_only,
        .bypass_overload = build->bypass_overload,
    };
}

static const ProtobufCMessage *filter_message(const Envoy__Config__Listener__V3__Filter *m,
                                              struct kb_str type, struct kb_arena *arena,
                                              struct kb_diag *diag)
{
    const ProtobufCMessage *message = NULL;

    if (type.len > 0) {
        kb_diag_push(diag, "typed_config");
        message = kb_any_unpack(m->typed_config, NULL, arena, diag);
        kb_diag_pop(diag);
    }
    return message;
}

static void terminal_check(const struct kb_network_filter_ops *ops,
                           const Envoy__Config__Listener__V3__Filter *m, bool last,
                           struct kb_diag *diag)
{
    if (ops->terminal != last) {
        kb_diag_error(diag,
                      last ? "Error: non-terminal filter named %s of type %s is the last filter in "
                             "a network filter chain."
                           : "Error: terminal filter named %s of type %s must be the last filter "
                             "in a network filter chain.",
                      m->name, ops->name);
    }
}

static void filter_create(struct kb_filter_chain *chain, struct kb_factory_context *factory,
                          const Envoy__Config__Listener__V3__Filter *m, bool last,
                          struct kb_diag *diag)
{
    struct kb_network_filter_entry *entry = &chain->filters[chain->filter_count];
    struct kb_arena scratch;
    struct kb_str type = KB_STR_NULL;
    const struct kb_extension *extension;
    const ProtobufCMessage *message;

    entry->name = kb_str_dup(&chain->arena, kb_wkt_str(m->name));
    if (m->config_type_case == ENVOY__CONFIG__LISTENER__V3__FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        kb_diag_push(diag, "config_discovery");
        entry->ops = &kb_network_filter_discovered;
        entry->config = kb_filter_provider_create(&kb_network_filter_discovery, m->config_discovery,
                                                  entry->name, last, factory, diag);
        chain->filter_count += entry->config != NULL ? 1 : 0;
        kb_diag_pop(diag);
        return;
    }
    kb_arena_init(&scratch, NULL);
    if (m->config_type_case == ENVOY__CONFIG__LISTENER__V3__FILTER__CONFIG_TYPE_TYPED_CONFIG) {
        type = kb_any_inner_name(m->typed_config, &scratch);
    }
    extension = kb_extension_find(KB_EXT_NETWORK_FILTER, type, kb_wkt_str(m->name));
    if (extension == NULL || type.len == 0) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      m->name, KB_STR_ARG(type));
        kb_arena_dispose(&scratch);
        return;
    }
    entry->ops = extension->ops;
    terminal_check(entry->ops, m, last, diag);
    message = filter_message(m, type, &scratch, diag);
    if (message != NULL) {
        kb_diag_push(diag, "typed_config");
        if (entry->ops->config_create(message, factory, diag, &entry->config) == 0) {
            chain->filter_count++;
        }
        kb_diag_pop(diag);
    }
    kb_arena_dispose(&scratch);
}

/* ---- what connections it is for ---- */

static struct kb_cidr *ranges_create(struct kb_arena *arena,
                                     Envoy__Config__Core__V3__CidrRange **messages, size_t n,
                                     const char *field, struct kb_diag *diag)
{
    struct kb_cidr *ranges = kb_arena_calloc(arena, (n + 1) * sizeof(*ranges));

    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, field, i);
        if (kb_cidr_init(&ranges[i], kb_wkt_str(messages[i]->address_prefix),
                         kb_wkt_u32(messages[i]->prefix_len, 0)) != 0) {
            kb_diag_error(diag, "malformed IP address: %s", messages[i]->address_prefix);
        }
        kb_diag_pop(diag);
    }
    return ranges;
}

/* Envoy compares server names in lower case, and keeps ".example.com" for "*.example.com". */
static void server_names_create(struct kb_filter_chain *chain,
                                const Envoy__Config__Listener__V3__FilterChainMatch *m,
                                const struct kb_filter_chain_build *build)
{
    struct kb_filter_chain_match *match = &chain->match;

    match->server_names =
        kb_arena_calloc(&chain->arena, (m->n_server_names + 1) * sizeof(*match->server_names));
    for (size_t i = 0; i < m->n_server_names; i++) {
        struct kb_str name = kb_str_dup(&chain->arena, kb_wkt_str(m->server_names[i]));
        char *lower = (char *)(uintptr_t)name.p;

        for (size_t k = 0; k < name.len; k++) {
            lower[k] = kb_ascii_lower(lower[k]);
        }
        if (name.len > 2 && name.p[0] == '*' && name.p[1] == '.') {
            name = kb_str_from(name, 1);
        }
        if (kb_str_find_char(name, '*') >= 0) {
            kb_diag_push_index(build->diag, "server_names", i);
            kb_diag_error(build->diag,
                          "error adding listener '%.*s': partial wildcards are not supported in "
                          "\"server_names\"",
                          KB_STR_ARG(build->address));
            kb_diag_pop(build->diag);
        }
        match->server_names[i] = name;
    }
    match->server_name_count = m->n_server_names;
}

static void ports_create(struct kb_filter_chain *chain,
                         const Envoy__Config__Listener__V3__FilterChainMatch *m)
{
    struct kb_filter_chain_match *match = &chain->match;

    if (m->destination_port != NULL) {
        match->has_destination_port = true;
        match->destination_port = (uint16_t)m->destination_port->value;
    }
    match->source_ports =
        kb_arena_calloc(&chain->arena, (m->n_source_ports + 1) * sizeof(*match->source_ports));
    for (size_t i = 0; i < m->n_source_ports; i++) {
        match->source_ports[i] = m->source_ports[i];
    }
    match->source_port_count = m->n_source_ports;
}

static void match_create(struct kb_filter_chain *chain,
                         const Envoy__Config__Listener__V3__FilterChainMatch *m,
                         const struct kb_filter_chain_build *build)
{
    struct kb_filter_chain_match *match = &chain->match;
    struct kb_arena *arena = &chain->arena;
    struct kb_diag *diag = build->diag;

    if (m == NULL) {
        return;
    }
    kb_diag_push(diag, "filter_chain_match");
    if ((m->address_suffix != NULL && m->address_suffix[0] != '\0') || m->suffix_len != NULL) {
        kb_diag_error(diag,
                      "error adding listener '%.*s': filter chain '%.*s' contains unimplemented "
                      "fields",
                      KB_STR_ARG(build->address), KB_STR_ARG(chain->name));
    }
    ports_create(chain, m);
    match->prefix_ranges =
        ranges_create(arena, m->prefix_ranges, m->n_prefix_ranges, "prefix_ranges", diag);
    match->prefix_range_count = m->n_prefix_ranges;
    match->direct_source_ranges =
        ranges_create(arena, m->direct_source_prefix_ranges, m->n_direct_source_prefix_ranges,
                      "direct_source_prefix_ranges", diag);
    match->direct_source_range_count = m->n_direct_source_prefix_ranges;
    match->source_ranges = ranges_create(arena, m->source_prefix_ranges, m->n_source_prefix_ranges,
                                         "source_prefix_ranges", diag);
    match->source_range_count = m->n_source_prefix_ranges;
    match->source_type = (uint8_t)m->source_type;
    server_names_create(chain, m, build);
    match->transport_protocol = kb_str_dup(arena, kb_wkt_str(m->transport_protocol));
    match->application_protocols =
        kb_arena_calloc(arena, (m->n_application_protocols + 1) * sizeof(struct kb_str));
    for (size_t i = 0; i < m->n_application_protocols; i++) {
        match->application_protocols[i] =
            kb_str_dup(arena, kb_wkt_str(m->application_protocols[i]));
    }
    match->application_protocol_count = m->n_application_protocols;
    kb_diag_pop(diag);
}

/* ---- lifecycle ---- */

static uint32_t alive; /* main thread */

static void chain_destroy(struct kb_shared *shared)
{
    struct kb_filter_chain *chain = KB_CONTAINER_OF(shared, struct kb_filter_chain, shared);

    for (size_t i = 0; i < chain->filter_count; i++) {
        if (chain->filters[i].ops->config_destroy != NULL) {
            chain->filters[i].ops->config_destroy(chain->filters[i].config);
        }
    }
    if (chain->drain.draining) {
        __atomic_sub_fetch(&chain->server->filter_chains_draining, 1, __ATOMIC_RELAXED);
    }
    kb_transport_socket_factory_dispose(&chain->transport_socket);
    kb_shared_dispose(&chain->shared);
    kb_arena_dispose(&chain->arena);
    free(chain);
    alive--;
}

uint32_t kb_filter_chains_alive(void)
{
    return alive;
}

struct kb_filter_chain *kb_filter_chain_new(struct kb_server_context *server)
{
    struct kb_filter_chain *chain = kb_calloc(1, sizeof(*chain));

    kb_shared_init(&chain->shared, server->main, server->worker_count, chain_destroy);
    kb_arena_init(&chain->arena, NULL);
    chain->server = server;
    alive++;
    return chain;
}

struct kb_filter_chain *
kb_filter_chain_create(const struct kb_filter_chain_build *build,
                       const struct Envoy__Config__Listener__V3__FilterChain *m)
{
    struct kb_filter_chain *chain = kb_filter_chain_new(build->server);
    struct kb_diag *diag = build->diag;
    struct kb_factory_context factory;

    factory_fill(&factory, chain, build);
    chain->hash = kb_pb_hash(&m->base);
    chain->name = kb_str_dup(&chain->arena, kb_wkt_str(m->name));
    chain->filters = kb_arena_calloc(&chain->arena, (m->n_filters + 1) * sizeof(*chain->filters));
    match_create(chain, m->filter_chain_match, build);
    chain->transport_socket_connect_timeout_ms =
        kb_wkt_duration_ms(m->transport_socket_connect_timeout, 0);
    kb_transport_socket_factory_init(&chain->transport_socket, m->transport_socket, false, &factory,
                                     diag);
    for (size_t i = 0; i < m->n_filters; i++) {
        kb_diag_push_index(diag, "filters", i);
        filter_create(chain, &factory, m->filters[i], i + 1 == m->n_filters, diag);
        kb_diag_pop(diag);
    }
    return chain;
}

void kb_filter_chain_drain(struct kb_filter_chain *chain)
{
    struct kb_server_context *server = chain->server;

    if (chain->drain.draining) {
        return;
    }
    chain->drain.deadline_ms =
        kb_loop_now_ms(&server->main->loop) + server->drain_time_s * UINT64_C(1000);
    __atomic_store_n(&chain->drain.draining, true, __ATOMIC_RELEASE);
    __atomic_add_fetch(&server->filter_chains_draining, 1, __ATOMIC_RELAXED);
}
