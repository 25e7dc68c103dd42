/* SPDX-License-Identifier: Apache-2.0 */
/* Listener message to listener: address, filter chains with their network filters, sockets. */
#include "proxy/listener/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "envoy/config/listener/v3/listener.pb-c.h"
#include "proto/any.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/extension.h"

#define BUFFER_LIMIT_DEFAULT (1024 * 1024)

/* ---- filter chains ---- */

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

static void filter_create(struct kb_listener *listener, struct kb_filter_chain *chain,
                          const Envoy__Config__Listener__V3__Filter *m, bool last,
                          struct kb_diag *diag)
{
    struct kb_network_filter_entry *entry = &chain->filters[chain->filter_count];
    struct kb_arena scratch;
    struct kb_str type = KB_STR_NULL;
    const struct kb_extension *extension;
    const ProtobufCMessage *message;
    struct kb_factory_context factory = {
        .server = listener->server,
        .arena = &listener->arena,
        .stat_prefix = listener->stat_prefix.p,
        .listener_name = listener->name,
        .inbound = listener->inbound,
        .drain_modify_only = listener->drain_modify_only,
    };

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
    entry->name = kb_str_dup(&listener->arena, kb_wkt_str(m->name));
    if (entry->ops->terminal != last) {
        kb_diag_error(diag,
                      last ? "Error: non-terminal filter named %s of type %s is the last filter in "
                             "a network filter chain."
                           : "Error: terminal filter named %s of type %s must be the last filter "
                             "in a network filter chain.",
                      m->name, entry->ops->name);
    }
    message = filter_message(m, type, &scratch, diag);
    if (message != NULL || type.len == 0) {
        kb_diag_push(diag, "typed_config");
        if (entry->ops->config_create(message, &factory, diag, &entry->config) == 0) {
            chain->filter_count++;
        }
        kb_diag_pop(diag);
    }
    kb_arena_dispose(&scratch);
}

static struct kb_cidr *ranges_create(struct kb_listener *listener,
                                     Envoy__Config__Core__V3__CidrRange **messages, size_t n,
                                     const char *field, struct kb_diag *diag)
{
    struct kb_cidr *ranges = kb_arena_calloc(&listener->arena, (n + 1) * sizeof(*ranges));

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

static void match_create(struct kb_listener *listener, struct kb_filter_chain_match *match,
                         const Envoy__Config__Listener__V3__FilterChainMatch *m,
                         struct kb_diag *diag)
{
    if (m == NULL) {
        return;
    }
    kb_diag_push(diag, "filter_chain_match");
    if (m->destination_port != NULL) {
        match->has_destination_port = true;
        match->destination_port = (uint16_t)m->destination_port->value;
    }
    match->prefix_ranges =
        ranges_create(listener, m->prefix_ranges, m->n_prefix_ranges, "prefix_ranges", diag);
    match->prefix_range_count = m->n_prefix_ranges;
    match->direct_source_ranges =
        ranges_create(listener, m->direct_source_prefix_ranges, m->n_direct_source_prefix_ranges,
                      "direct_source_prefix_ranges", diag);
    match->direct_source_range_count = m->n_direct_source_prefix_ranges;
    match->source_ranges = ranges_create(listener, m->source_prefix_ranges,
                                         m->n_source_prefix_ranges, "source_prefix_ranges", diag);
    match->source_range_count = m->n_source_prefix_ranges;
    match->source_ports =
        kb_arena_calloc(&listener->arena, (m->n_source_ports + 1) * sizeof(*match->source_ports));
    for (size_t i = 0; i < m->n_source_ports; i++) {
        match->source_ports[i] = m->source_ports[i];
    }
    match->source_port_count = m->n_source_ports;
    match->source_type = (uint8_t)m->source_type;
    match->wants_server_name = m->n_server_names > 0;
    match->wants_application_protocol = m->n_application_protocols > 0;
    match->transport_protocol = kb_str_dup(&listener->arena, kb_wkt_str(m->transport_protocol));
    kb_diag_pop(diag);
}

static void transport_check(const Envoy__Config__Core__V3__TransportSocket *m,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str type = KB_STR_NULL;

    if (m == NULL) {
        return;
    }
    kb_diag_push(diag, "transport_socket");
    if (m->typed_config != NULL) {
        type = kb_any_inner_name(m->typed_config, arena);
    }
    if (kb_extension_find(KB_EXT_TRANSPORT_SOCKET_DOWNSTREAM, type, kb_wkt_str(m->name)) == NULL &&
        !kb_str_eq(type, KB_STR("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"))) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      m->name, KB_STR_ARG(type));
    }
    kb_diag_pop(diag);
}

static void chain_create(struct kb_listener *listener, struct kb_filter_chain *chain,
                         const Envoy__Config__Listener__V3__FilterChain *m, struct kb_diag *diag)
{
    chain->name = kb_str_dup(&listener->arena, kb_wkt_str(m->name));
    chain->filters =
        kb_arena_calloc(&listener->arena, (m->n_filters + 1) * sizeof(*chain->filters));
    match_create(listener, &chain->match, m->filter_chain_match, diag);
    transport_check(m->transport_socket, &listener->arena, diag);
    if (m->n_filters == 0) {
        kb_diag_error(diag, "a filter chain needs a terminal filter such as envoy.filters.network."
                            "http_connection_manager or envoy.filters.network.tcp_proxy");
    }
    for (size_t i = 0; i < m->n_filters; i++) {
        kb_diag_push_index(diag, "filters", i);
        filter_create(listener, chain, m->filters[i], i + 1 == m->n_filters, diag);
        kb_diag_pop(diag);
    }
}

static void chains_create(struct kb_listener *listener,
                          const Envoy__Config__Listener__V3__Listener *m, struct kb_diag *diag)
{
    listener->chains =
        kb_arena_calloc(&listener->arena, (m->n_filter_chains + 1) * sizeof(*listener->chains));
    for (size_t i = 0; i < m->n_filter_chains; i++) {
        kb_diag_push_index(diag, "filter_chains", i);
        listener->chain_count = i + 1;
        chain_create(listener, &listener->chains[i], m->filter_chains[i], diag);
        kb_diag_pop(diag);
    }
    if (m->default_filter_chain != NULL) {
        kb_diag_push(diag, "default_filter_chain");
        listener->default_chain = KB_ARENA_NEW(&listener->arena, struct kb_filter_chain);
        chain_create(listener, listener->default_chain, m->default_filter_chain, diag);
        kb_diag_pop(diag);
    }
    if (m->n_filter_chains == 0 && m->default_filter_chain == NULL) {
        kb_diag_error(diag, "error adding listener '%.*s': no filter chains specified",
                      KB_STR_ARG(listener->name));
    }
}

/* ---- lifecycle ---- */

static void address_read(struct kb_listener *listener, const Envoy__Config__Core__V3__Address *m,
                         struct kb_diag *diag)
{
    kb_diag_push(diag, "address");
    if (m == NULL) {
        kb_diag_error(diag, "a listener needs an address");
    } else if (m->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE) {
        if (kb_addr_from_path(&listener->addr, kb_wkt_str(m->pipe->path)) != 0) {
            kb_diag_error(diag, "pipe path '%s' is empty or longer than %zu bytes", m->pipe->path,
                          sizeof(listener->addr.un.sun_path) - 1);
        }
        listener->unix_mode = m->pipe->mode;
    } else if (m->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        const Envoy__Config__Core__V3__SocketAddress *sa = m->socket_address;

        listener->ipv4_compat = sa->ipv4_compat;
        if (sa->protocol != ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PROTOCOL__TCP) {
            kb_diag_error(diag, "UDP listeners are not supported");
        } else if (kb_addr_from_ip(&listener->addr, kb_wkt_str(sa->address),
                                   (uint16_t)sa->port_value) != 0) {
            kb_diag_error(diag, "malformed IP address: %s", sa->address);
        }
    } else {
        kb_diag_error(diag, "internal addresses are not supported yet");
    }
    kb_diag_pop(diag);
}

static void options_read(struct kb_listener *listener,
                         const Envoy__Config__Listener__V3__Listener *m)
{
    listener->buffer_limit = kb_wkt_u32(m->per_connection_buffer_limit_bytes, BUFFER_LIMIT_DEFAULT);
    listener->accepts_per_event =
        KB_MAX(kb_wkt_u32(m->max_connections_to_accept_per_socket_event, 1), 1u);
    listener->backlog = (int)kb_wkt_u32(m->tcp_backlog_size, 0);
    listener->reuse_port =
        kb_wkt_bool(m->enable_reuse_port, true) && kb_addr_is_ip(&listener->addr);
    listener->transparent = kb_wkt_bool(m->transparent, false);
    listener->freebind = kb_wkt_bool(m->freebind, false);
    listener->bind_to_port = kb_wkt_bool(m->bind_to_port, true);
    listener->inbound = m->traffic_direction == ENVOY__CONFIG__CORE__V3__TRAFFIC_DIRECTION__INBOUND;
    listener->drain_modify_only =
        m->drain_type == ENVOY__CONFIG__LISTENER__V3__LISTENER__DRAIN_TYPE__MODIFY_ONLY;
}

/* "listener.127.0.0.1_80." */
static void stats_create(struct kb_listener *listener, struct kb_str prefix)
{
    struct kb_stat_store *store = listener->server->stats;
    struct kb_arena *arena = &listener->arena;
    char text[KB_ADDR_TEXT_MAX];

    if (prefix.len == 0) {
        prefix = kb_str_dup(arena, kb_addr_text(&listener->addr, text));
        for (size_t i = 0; i < prefix.len; i++) {
            if (prefix.p[i] == ':') {
                ((char *)(uintptr_t)prefix.p)[i] = '_';
            }
        }
    }
    listener->stat_prefix = kb_str_printf(arena, "listener.%.*s.", KB_STR_ARG(prefix));
    listener->stats = kb_stat_group_create(store, listener->stat_prefix, &kb_stat_schema_listener);
    listener->worker_stats =
        kb_arena_calloc(arena, listener->worker_count * sizeof(*listener->worker_stats));
    for (uint32_t i = 0; i < listener->worker_count; i++) {
        struct kb_str name = listener->admin
                                 ? kb_str_printf(arena, "%smain_thread.", listener->stat_prefix.p)
                                 : kb_str_printf(arena, "%sworker_%u.", listener->stat_prefix.p, i);

        listener->worker_stats[i] =
            kb_stat_group_create(store, name, &kb_stat_schema_listener_worker);
    }
}

static struct kb_listener *listener_new(struct kb_server_context *server, bool admin)
{
    struct kb_listener *listener = kb_calloc(1, sizeof(*listener));

    KB_OBJ_SET(listener, kb_listener);
    kb_arena_init(&listener->arena, NULL);
    listener->server = server;
    listener->admin = admin;
    listener->worker_count = admin ? 1 : server->worker_count;
    listener->workers = kb_calloc(listener->worker_count, sizeof(*listener->workers));
    for (uint32_t i = 0; i < listener->worker_count; i++) {
        struct kb_listener_worker *lw = &listener->workers[i];

        KB_OBJ_SET(lw, kb_listener_worker);
        lw->listener = listener;
        lw->worker = admin ? server->main : &server->workers[i];
        lw->fd = -1;
        lw->io.fd = -1;
        kb_list_init(&lw->connections);
    }
    listener->added_wall_ns = kb_loop_wall_ns(&server->main->loop);
    return listener;
}

static void unsupported_check(const Envoy__Config__Listener__V3__Listener *m, struct kb_diag *diag)
{
    if (m->n_listener_filters > 0) {
        kb_diag_push_index(diag, "listener_filters", 0);
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s': listener filters are not "
                      "supported yet",
                      m->listener_filters[0]->name);
        kb_diag_pop(diag);
    }
    if (m->udp_listener_config != NULL || m->api_listener != NULL || m->internal_listener != NULL ||
        m->filter_chain_matcher != NULL || m->fcds_config != NULL) {
        kb_diag_error(diag, "udp_listener_config, api_listener, internal_listener, "
                            "filter_chain_matcher and fcds_config "
                            "are not supported");
    }
}

struct kb_listener *kb_listener_create(struct kb_server_context *server,
                                       const struct Envoy__Config__Listener__V3__Listener *m,
                                       struct kb_diag *diag)
{
    struct kb_listener *listener = listener_new(server, false);
    uint32_t errors = diag->error_count;

    address_read(listener, m->address, diag);
    listener->name = kb_str_dup(&listener->arena, kb_wkt_str(m->name));
    if (m->metadata != NULL) {
        listener->metadata = kb_pb_pack(&m->metadata->base, &listener->arena);
    }
    options_read(listener, m);
    unsupported_check(m, diag);
    stats_create(listener, kb_wkt_str(m->stat_prefix));
    chains_create(listener, m, diag);
    if (diag->error_count != errors) {
        kb_listener_destroy(listener);
        return NULL;
    }
    listener->message = kb_pb_pack(&m->base, &listener->arena);
    return listener;
}

struct kb_listener *kb_listener_create_admin(struct kb_server_context *server,
                                             const struct kb_addr *addr,
                                             const struct kb_network_filter_ops *ops, void *config)
{
    struct kb_listener *listener = listener_new(server, true);

    listener->name = KB_STR("admin");
    listener->addr = *addr;
    listener->buffer_limit = BUFFER_LIMIT_DEFAULT;
    listener->accepts_per_event = 1;
    listener->bind_to_port = true;
    listener->reuse_port = false;
    stats_create(listener, KB_STR("admin"));
    listener->chains = KB_ARENA_NEW(&listener->arena, struct kb_filter_chain);
    listener->chain_count = 1;
    listener->chains->filters = KB_ARENA_NEW(&listener->arena, struct kb_network_filter_entry);
    listener->chains->filters[0] =
        (struct kb_network_filter_entry){.ops = ops, .config = config, .name = KB_STR("admin")};
    listener->chains->filter_count = 1;
    return listener;
}

int kb_listener_bind(struct kb_listener *listener, const char **what)
{
    struct kb_sock_listen_options options = {
        .reuse_port = listener->reuse_port && listener->worker_count > 0,
        .transparent = listener->transparent,
        .freebind = listener->freebind,
        .ipv4_compat = listener->ipv4_compat,
        .bind_only = true,
        .backlog = listener->backlog,
        .unix_mode = listener->unix_mode,
    };
    struct kb_addr addr = listener->addr;

    listener->bound = listener->addr;
    if (!listener->bind_to_port) {
        return 0;
    }
    for (uint32_t i = 0; i < listener->worker_count; i++) {
        struct kb_listener_worker *lw = &listener->workers[i];

        if (i > 0 && !listener->reuse_port) {
            lw->fd = dup(listener->workers[0].fd);
            *what = "dup";
            if (lw->fd < 0) {
                return kb_err_from_errno(errno);
            }
            continue;
        }
        KB_TRY(kb_sock_listen(&addr, &options, &lw->fd, &listener->bound, what));
        /* Port 0: the others take the port that the first one got. */
        addr = listener->bound;
    }
    return 0;
}

int kb_listener_listen(struct kb_listener *listener)
{
    for (uint32_t i = 0; listener->bind_to_port && i < listener->worker_count; i++) {
        KB_TRY(kb_sock_start_listening(listener->workers[i].fd, listener->backlog));
    }
    return 0;
}

static void chain_destroy(struct kb_filter_chain *chain)
{
    for (size_t i = 0; i < chain->filter_count; i++) {
        if (chain->filters[i].ops->config_destroy != NULL) {
            chain->filters[i].ops->config_destroy(chain->filters[i].config);
        }
    }
}

void kb_listener_destroy(struct kb_listener *listener)
{
    for (uint32_t i = 0; i < listener->worker_count; i++) {
        KB_ASSERT(listener->workers[i].connection_count == 0);
        if (listener->workers[i].fd >= 0) {
            close(listener->workers[i].fd);
        }
        if (listener->worker_stats != NULL) {
            kb_stat_group_destroy(listener->worker_stats[i]);
        }
    }
    for (size_t i = 0; i < listener->chain_count; i++) {
        chain_destroy(&listener->chains[i]);
    }
    if (listener->default_chain != NULL) {
        chain_destroy(listener->default_chain);
    }
    if (listener->stats != NULL) {
        kb_stat_group_destroy(listener->stats);
    }
    if (listener->addr.sa.sa_family == AF_UNIX && listener->addr.len > 0 &&
        listener->addr.un.sun_path[0] != '\0' && listener->bound.len > 0) {
        unlink(listener->addr.un.sun_path);
    }
    kb_arena_dispose(&listener->arena);
    free(listener->workers);
    KB_OBJ_CLEAR(listener);
    free(listener);
}
