/* SPDX-License-Identifier: Apache-2.0 */
/* Listener message to one immutable version of a listener: addresses, options, filter chains and
 * listener filters. */
#include "proxy/listener/listener.h"

#include <stdlib.h>

#include "base/mem.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "proto/message_hash.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/extension.h"
#include "proxy/listener/listener_internal.h"

#define BUFFER_LIMIT_DEFAULT  (1024 * 1024)
#define FILTERS_TIMEOUT_MS    15000
#define SOCKET_OPTION_INT_MAX INT32_MAX

/* ---- filter chains ---- */

/* The chain of that hash that the present version has, or NULL. */
static struct kb_filter_chain *chain_same(const struct kb_listener *listener, uint64_t hash)
{
    for (size_t i = 0; listener != NULL && i < listener->chain_count; i++) {
        if (listener->chains[i]->hash == hash && !listener->chains[i]->drain.draining) {
            return listener->chains[i];
        }
    }
    if (listener != NULL && listener->default_chain != NULL &&
        listener->default_chain->hash == hash && !listener->default_chain->drain.draining) {
        return listener->default_chain;
    }
    return NULL;
}

static struct kb_filter_chain *chain_get(const struct kb_filter_chain_build *build,
                                         const Envoy__Config__Listener__V3__FilterChain *message,
                                         const struct kb_listener *chains_of)
{
    struct kb_filter_chain *same =
        chains_of != NULL ? chain_same(chains_of, kb_pb_hash(&message->base)) : NULL;

    if (same != NULL) {
        kb_shared_ref(&same->shared, build->server->main);
        return same;
    }
    return kb_filter_chain_create(build, message);
}

static void chains_create(struct kb_listener *listener,
                          const Envoy__Config__Listener__V3__Listener *m,
                          const struct kb_listener *chains_of, struct kb_diag *diag)
{
    char text[KB_ADDR_TEXT_MAX];
    struct kb_filter_chain_build build = {
        .server = listener->server,
        .init = &listener->init,
        .stat_prefix = listener->stat_prefix,
        .listener_name = listener->name,
        .address = kb_addr_text(&listener->addrs[0].addr, text),
        .inbound = listener->inbound,
        .outbound = listener->outbound,
        .drain_modify_only = listener->drain_modify_only,
        .bypass_overload = listener->bypass_overload,
        .diag = diag,
    };

    listener->chains = kb_arena_calloc(&listener->arena,
                                       (m->n_filter_chains + 1) * sizeof(struct kb_filter_chain *));
    for (size_t i = 0; i < m->n_filter_chains; i++) {
        kb_diag_push_index(diag, "filter_chains", i);
        listener->chains[listener->chain_count++] =
            chain_get(&build, m->filter_chains[i], chains_of);
        kb_diag_pop(diag);
    }
    if (m->default_filter_chain != NULL) {
        kb_diag_push(diag, "default_filter_chain");
        listener->default_chain = chain_get(&build, m->default_filter_chain, chains_of);
        kb_diag_pop(diag);
    }
    if (m->n_filter_chains == 0 && m->default_filter_chain == NULL) {
        kb_diag_error(diag, "error adding listener '%.*s': no filter chains specified",
                      KB_STR_ARG(build.address));
    }
    kb_filter_chains_index(listener, m, diag);
}

/* ---- addresses and options ---- */

static void address_read(struct kb_listener_address *out, const Envoy__Config__Core__V3__Address *m,
                         const char *name, struct kb_diag *diag)
{
    if (m == NULL) {
        kb_diag_error(diag, "error adding listener named '%s': address is necessary", name);
    } else if (m->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE) {
        if (kb_addr_from_path(&out->addr, kb_wkt_str(m->pipe->path)) != 0) {
            kb_diag_error(diag, "pipe path '%s' is empty or longer than %zu bytes", m->pipe->path,
                          sizeof(out->addr.un.sun_path) - 1);
        }
        out->unix_mode = m->pipe->mode;
    } else if (m->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        const Envoy__Config__Core__V3__SocketAddress *sa = m->socket_address;

        out->ipv4_compat = sa->ipv4_compat;
        if (sa->protocol != ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PROTOCOL__TCP) {
            kb_diag_error(diag, "UDP listeners are not supported");
        } else if (kb_addr_from_ip(&out->addr, kb_wkt_str(sa->address), (uint16_t)sa->port_value) !=
                   0) {
            kb_diag_error(diag, "malformed IP address: %s", sa->address);
        }
    } else {
        kb_diag_error(diag, "internal addresses are not supported yet");
    }
}

static void addresses_read(struct kb_listener *listener,
                           const Envoy__Config__Listener__V3__Listener *m, struct kb_diag *diag)
{
    listener->addr_count = 1 + m->n_additional_addresses;
    listener->addrs =
        kb_arena_calloc(&listener->arena, listener->addr_count * sizeof(*listener->addrs));
    kb_diag_push(diag, "address");
    address_read(&listener->addrs[0], m->address, m->name, diag);
    kb_diag_pop(diag);
    for (size_t i = 0; i < m->n_additional_addresses; i++) {
        kb_diag_push_index(diag, "additional_addresses", i);
        kb_diag_push(diag, "address");
        address_read(&listener->addrs[i + 1], m->additional_addresses[i]->address, m->name, diag);
        kb_diag_pop(diag);
        kb_diag_pop(diag);
    }
}

static void options_read(struct kb_listener *listener,
                         const Envoy__Config__Listener__V3__Listener *m)
{
    listener->buffer_limit = kb_wkt_u32(m->per_connection_buffer_limit_bytes, BUFFER_LIMIT_DEFAULT);
    listener->accepts_per_event =
        KB_MAX(kb_wkt_u32(m->max_connections_to_accept_per_socket_event, 1), 1u);
    listener->backlog = (int)kb_wkt_u32(m->tcp_backlog_size, 0);
    listener->reuse_port =
        kb_wkt_bool(m->enable_reuse_port, true) && kb_addr_is_ip(&listener->addrs[0].addr);
    listener->transparent = kb_wkt_bool(m->transparent, false);
    listener->freebind = kb_wkt_bool(m->freebind, false);
    listener->bind_to_port =
        kb_wkt_bool(m->bind_to_port, true) &&
        (m->deprecated_v1 == NULL || kb_wkt_bool(m->deprecated_v1->bind_to_port, true));
    listener->inbound = m->traffic_direction == ENVOY__CONFIG__CORE__V3__TRAFFIC_DIRECTION__INBOUND;
    listener->outbound =
        m->traffic_direction == ENVOY__CONFIG__CORE__V3__TRAFFIC_DIRECTION__OUTBOUND;
    listener->drain_modify_only =
        m->drain_type == ENVOY__CONFIG__LISTENER__V3__LISTENER__DRAIN_TYPE__MODIFY_ONLY;
    listener->use_original_dst = kb_wkt_bool(m->use_original_dst, false);
    listener->filters_timeout_ms =
        kb_wkt_duration_ms(m->listener_filters_timeout, FILTERS_TIMEOUT_MS);
    listener->continue_on_filters_timeout = m->continue_on_listener_filters_timeout;
    listener->fast_open_queue_length = kb_wkt_u32(m->tcp_fast_open_queue_length, 0);
    listener->ignore_global_limit = m->ignore_global_conn_limit;
    listener->bypass_overload = m->bypass_overload_manager;
    listener->exact_balance =
        m->connection_balance_config != NULL &&
        m->connection_balance_config->balance_type_case ==
            ENVOY__CONFIG__LISTENER__V3__LISTENER__CONNECTION_BALANCE_CONFIG__BALANCE_TYPE_EXACT_BALANCE;
    if (m->tcp_keepalive != NULL) {
        listener->keepalive.set = true;
        listener->keepalive.probes = kb_wkt_u32(m->tcp_keepalive->keepalive_probes, 0);
        listener->keepalive.time_s = kb_wkt_u32(m->tcp_keepalive->keepalive_time, 0);
        listener->keepalive.interval_s = kb_wkt_u32(m->tcp_keepalive->keepalive_interval, 0);
    }
    listener->connection_limit_key = kb_str_printf(
        &listener->arena, "envoy.resource_limits.listener.%s.connection_limit", m->name);
}

static void socket_options_read(struct kb_listener *listener,
                                const Envoy__Config__Listener__V3__Listener *m,
                                struct kb_diag *diag)
{
    listener->socket_options = kb_arena_calloc(
        &listener->arena, (m->n_socket_options + 1) * sizeof(*listener->socket_options));
    for (size_t i = 0; i < m->n_socket_options; i++) {
        const Envoy__Config__Core__V3__SocketOption *from = m->socket_options[i];
        struct kb_listener_sock_option *option = &listener->socket_options[i];

        option->level = (int)from->level;
        option->name = (int)from->name;
        option->state = (enum kb_sock_state)from->state;
        if (from->value_case == ENVOY__CONFIG__CORE__V3__SOCKET_OPTION__VALUE_BUF_VALUE) {
            option->value =
                kb_str_dup(&listener->arena,
                           kb_str_make((const char *)from->buf_value.data, from->buf_value.len));
        } else {
            int value = (int)from->int_value;

            if (from->int_value > SOCKET_OPTION_INT_MAX ||
                from->int_value < -SOCKET_OPTION_INT_MAX) {
                kb_diag_push_index(diag, "socket_options", i);
                kb_diag_error(diag, "int_value %lld does not fit an int",
                              (long long)from->int_value);
                kb_diag_pop(diag);
            }
            option->value =
                kb_str_dup(&listener->arena, kb_str_make((const char *)&value, sizeof(value)));
        }
        listener->socket_option_count = i + 1;
    }
}

/* ---- hashes ---- */

/* What is set on the sockets: with another one they have to be made anew. */
static uint64_t sockets_hash(const Envoy__Config__Listener__V3__Listener *m)
{
    Envoy__Config__Listener__V3__Listener part;

    envoy__config__listener__v3__listener__init(&part);
    part.address = m->address;
    part.n_additional_addresses = m->n_additional_addresses;
    part.additional_addresses = m->additional_addresses;
    part.n_socket_options = m->n_socket_options;
    part.socket_options = m->socket_options;
    part.transparent = m->transparent;
    part.freebind = m->freebind;
    part.enable_reuse_port = m->enable_reuse_port;
    part.tcp_fast_open_queue_length = m->tcp_fast_open_queue_length;
    part.tcp_backlog_size = m->tcp_backlog_size;
    part.tcp_keepalive = m->tcp_keepalive;
    part.bind_to_port = m->bind_to_port;
    return kb_pb_hash(&part.base);
}

uint64_t kb_listener_hash_without_chains(const struct Envoy__Config__Listener__V3__Listener *m)
{
    Envoy__Config__Listener__V3__Listener part = *m;

    part.n_filter_chains = 0;
    part.default_filter_chain = NULL;
    part.filter_chain_matcher = NULL;
    return kb_pb_hash(&part.base);
}

/* ---- lifecycle ---- */

/* "listener.127.0.0.1_80." */
static void stats_create(struct kb_listener *listener, struct kb_str prefix)
{
    struct kb_stat_store *store = listener->server->stats;
    struct kb_arena *arena = &listener->arena;
    uint32_t worker_count = listener->admin ? 1 : listener->server->worker_count;
    char text[KB_ADDR_TEXT_MAX];

    if (prefix.len == 0) {
        prefix = kb_str_dup(arena, kb_addr_text(&listener->addrs[0].addr, text));
        for (size_t i = 0; i < prefix.len; i++) {
            if (prefix.p[i] == ':') {
                ((char *)(uintptr_t)prefix.p)[i] = '_';
            }
        }
    }
    listener->stat_prefix = kb_str_printf(arena, "listener.%.*s.", KB_STR_ARG(prefix));
    listener->stats = kb_stat_group_create(store, listener->stat_prefix, &kb_stat_schema_listener);
    listener->worker_stats = kb_arena_calloc(arena, worker_count * sizeof(*listener->worker_stats));
    for (uint32_t i = 0; i < worker_count; i++) {
        struct kb_str name = listener->admin
                                 ? kb_str_printf(arena, "%smain_thread.", listener->stat_prefix.p)
                                 : kb_str_printf(arena, "%sworker_%u.", listener->stat_prefix.p, i);

        listener->worker_stats[i] =
            kb_stat_group_create(store, name, &kb_stat_schema_listener_worker);
    }
}

static uint32_t alive; /* main thread */

uint32_t kb_listener_objects_alive(void)
{
    return alive + kb_filter_chains_alive();
}

static void listener_destroy(struct kb_shared *shared)
{
    struct kb_listener *listener = KB_CONTAINER_OF(shared, struct kb_listener, shared);
    uint32_t worker_count = listener->admin ? 1 : listener->server->worker_count;

    for (uint32_t i = 0; listener->worker_stats != NULL && i < worker_count; i++) {
        kb_stat_group_destroy(listener->worker_stats[i]);
    }
    for (size_t i = 0; i < listener->chain_count; i++) {
        kb_shared_discard(&listener->chains[i]->shared);
    }
    if (listener->default_chain != NULL) {
        kb_shared_discard(&listener->default_chain->shared);
    }
    kb_listener_filters_destroy(listener);
    kb_access_log_list_destroy(listener->access_log);
    kb_stat_group_destroy(listener->stats);
    kb_init_target_dispose(&listener->startup);
    kb_init_manager_dispose(&listener->init);
    kb_shared_dispose(&listener->shared);
    kb_arena_dispose(&listener->arena);
    free(listener);
    alive--;
}

void kb_listener_unref(struct kb_listener *listener)
{
    if (listener != NULL) {
        kb_shared_unref(&listener->shared, listener->server->main);
    }
}

void kb_listener_discard(struct kb_listener *listener)
{
    kb_shared_discard(&listener->shared);
}

static struct kb_listener *listener_new(struct kb_server_context *server, bool admin)
{
    struct kb_listener *listener = kb_calloc(1, sizeof(*listener));

    kb_shared_init(&listener->shared, server->main, server->worker_count, listener_destroy);
    kb_arena_init(&listener->arena, NULL);
    kb_init_manager_init(&listener->init);
    kb_init_target_init(&listener->startup, "listener", NULL);
    listener->server = server;
    listener->admin = admin;
    listener->updated_wall_ns = kb_loop_wall_ns(&server->main->loop);
    alive++;
    return listener;
}

static void unsupported_check(const Envoy__Config__Listener__V3__Listener *m, struct kb_diag *diag)
{
    if (m->udp_listener_config != NULL || m->api_listener != NULL || m->internal_listener != NULL ||
        m->filter_chain_matcher != NULL || m->fcds_config != NULL) {
        kb_diag_error(diag, "udp_listener_config, api_listener, internal_listener, "
                            "filter_chain_matcher and fcds_config "
                            "are not supported");
    }
}

static void access_log_create(struct kb_listener *listener,
                              const Envoy__Config__Listener__V3__Listener *m, struct kb_diag *diag)
{
    struct kb_factory_context factory = {
        .server = listener->server,
        .arena = &listener->arena,
        .init = &listener->init,
        .stat_prefix = listener->stat_prefix.p,
        .listener_name = listener->name,
        .inbound = listener->inbound,
    };

    if (m->n_access_log > 0) {
        listener->access_log =
            kb_access_log_list_create(m->access_log, m->n_access_log, &factory, diag);
    }
}

struct kb_listener *kb_listener_create(struct kb_server_context *server,
                                       const struct Envoy__Config__Listener__V3__Listener *m,
                                       const struct kb_listener *chains_of, struct kb_diag *diag)
{
    struct kb_listener *listener = listener_new(server, false);
    uint32_t errors = diag->error_count;

    addresses_read(listener, m, diag);
    listener->name = kb_str_dup(&listener->arena, kb_wkt_str(m->name));
    if (m->metadata != NULL) {
        listener->metadata = kb_pb_pack(&m->metadata->base, &listener->arena);
    }
    options_read(listener, m);
    socket_options_read(listener, m, diag);
    unsupported_check(m, diag);
    stats_create(listener, kb_wkt_str(m->stat_prefix));
    kb_listener_filters_create(listener, m, diag);
    access_log_create(listener, m, diag);
    chains_create(listener, m, chains_of, diag);
    if (diag->error_count != errors) {
        kb_listener_unref(listener);
        return NULL;
    }
    listener->hash = kb_pb_hash(&m->base);
    listener->hash_without_chains = kb_listener_hash_without_chains(m);
    listener->hash_of_sockets = sockets_hash(m);
    listener->message = kb_pb_pack(&m->base, &listener->arena);
    return listener;
}

struct kb_listener *kb_listener_create_admin(struct kb_server_context *server,
                                             const struct kb_addr *addr,
                                             const struct kb_network_filter_ops *ops, void *config)
{
    struct kb_listener *listener = listener_new(server, true);
    struct kb_filter_chain *chain = kb_filter_chain_new(server);

    listener->name = KB_STR("admin");
    listener->addrs = KB_ARENA_NEW(&listener->arena, struct kb_listener_address);
    listener->addrs[0].addr = *addr;
    listener->addr_count = 1;
    listener->buffer_limit = BUFFER_LIMIT_DEFAULT;
    listener->accepts_per_event = 1;
    listener->bypass_overload = true;
    listener->bind_to_port = true;
    stats_create(listener, KB_STR("admin"));
    listener->chains = KB_ARENA_NEW(&listener->arena, struct kb_filter_chain *);
    listener->chains[0] = chain;
    listener->chain_count = 1;
    chain->filters = KB_ARENA_NEW(&chain->arena, struct kb_network_filter_entry);
    chain->filters[0] =
        (struct kb_network_filter_entry){.ops = ops, .config = config, .name = KB_STR("admin")};
    chain->filter_count = 1;
    return listener;
}
