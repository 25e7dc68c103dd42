/* SPDX-License-Identifier: Apache-2.0 */
/* Resolvers by their options, and reading those options. */
#include "proxy/upstream/cluster_dns.h"

#include <stdlib.h>

#include "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.pb-c.h"

#include "base/mem.h"
#include "proto/any.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/config_read.h"

typedef Envoy__Extensions__Network__DnsResolver__Cares__V3__CaresDnsResolverConfig CaresConfig;

static bool dns_provide(void *arg, unsigned id, uint64_t *value)
{
    const struct kb_cluster_dns *dns = arg;
    bool used = false; /* a gauge that was set once counts as used at 0 too */

    *value = 0;
    KB_VEC_FOREACH (resolver, &dns->resolvers) {
        const struct kb_dns_stats *stats = kb_dns_stats((*resolver)->dns);

        used = used || stats->resolve_total > 0 || stats->pending_resolutions > 0;
        switch (id) {
        case KB_STAT_DNS_RESOLVE_TOTAL:
            *value += stats->resolve_total;
            break;
        case KB_STAT_DNS_PENDING_RESOLUTIONS:
            *value += stats->pending_resolutions;
            break;
        case KB_STAT_DNS_NOT_FOUND:
            *value += stats->not_found;
            break;
        case KB_STAT_DNS_GET_ADDR_FAILURE:
            *value += stats->get_addr_failure;
            break;
        case KB_STAT_DNS_TIMEOUTS:
            *value += stats->timeouts;
            break;
        case KB_STAT_DNS_REINITS:
            *value += stats->reinits;
            break;
        default:
            break;
        }
    }
    return *value != 0 || (used && id == KB_STAT_DNS_PENDING_RESOLUTIONS);
}

void kb_cluster_dns_init(struct kb_cluster_dns *dns, struct kb_server_context *server)
{
    dns->server = server;
    dns->defaults.options.servers = dns->defaults.servers;
    kb_vec_init(&dns->resolvers);
}

void kb_cluster_dns_dispose(struct kb_cluster_dns *dns)
{
    if (dns->stats != NULL) {
        kb_stat_group_set_provider(dns->stats, NULL, dns);
        kb_stat_group_destroy(dns->stats);
    }
    KB_VEC_FOREACH (resolver, &dns->resolvers) {
        kb_dns_destroy((*resolver)->dns);
        free(*resolver);
    }
    kb_vec_dispose(&dns->resolvers);
}

static bool options_same(const struct kb_dns_options *a, const struct kb_dns_options *b)
{
    if (a->server_count != b->server_count || a->servers_as_fallback != b->servers_as_fallback ||
        a->use_tcp != b->use_tcp || a->no_search != b->no_search || a->rotate != b->rotate ||
        a->reinit_on_timeout != b->reinit_on_timeout || a->query_timeout_s != b->query_timeout_s ||
        a->query_tries != b->query_tries || a->udp_max_queries != b->udp_max_queries) {
        return false;
    }
    for (size_t i = 0; i < a->server_count; i++) {
        if (!kb_addr_eq(&a->servers[i], &b->servers[i])) {
            return false;
        }
    }
    return true;
}

int kb_cluster_dns_get(struct kb_cluster_dns *dns, const struct kb_dns_options *options,
                       struct kb_dns **out)
{
    struct kb_cluster_resolver *made;

    options = options == NULL ? &dns->defaults.options : options;
    KB_VEC_FOREACH (resolver, &dns->resolvers) {
        if (options_same(&(*resolver)->options, options)) {
            *out = (*resolver)->dns;
            return 0;
        }
    }
    made = kb_calloc(1, sizeof(*made));
    made->options = *options;
    made->options.servers = made->servers;
    if (options->server_count > 0) {
        memcpy(made->servers, options->servers, options->server_count * sizeof(made->servers[0]));
    }
    if (kb_dns_create(&dns->server->main->loop, &made->options, &made->dns) != 0) {
        free(made);
        return KB_EIO;
    }
    kb_vec_push(&dns->resolvers, made);
    if (dns->stats == NULL) {
        dns->stats =
            kb_stat_group_create(dns->server->stats, KB_STR("dns.cares."), &kb_stat_schema_dns);
        kb_stat_group_set_provider(dns->stats, dns_provide, dns);
    }
    *out = made->dns;
    return 0;
}

static void servers_read(Envoy__Config__Core__V3__Address *const *addresses, size_t n,
                         const char *field, struct kb_addr *servers, struct kb_dns_options *options,
                         struct kb_diag *diag)
{
    options->servers = servers;
    for (size_t i = 0; i < n; i++) {
        struct kb_addr addr;

        kb_diag_push_index(diag, field, i);
        if (i >= KB_DNS_SERVERS_MAX) {
            kb_diag_error(diag, "more than %d resolvers", KB_DNS_SERVERS_MAX);
            kb_diag_pop(diag);
            return;
        }
        if (kb_config_address(addresses[i], "", &addr, diag) == 0) {
            if (!kb_addr_is_ip(&addr)) {
                kb_diag_error(diag, "DNS resolver '%s' is not an IP address",
                              addresses[i]->pipe->path);
            } else {
                servers[options->server_count++] = addr;
            }
        }
        kb_diag_pop(diag);
    }
}

static void resolver_options_read(const Envoy__Config__Core__V3__DnsResolverOptions *message,
                                  struct kb_dns_options *options)
{
    if (message != NULL) {
        options->use_tcp = message->use_tcp_for_dns_lookups != 0;
        options->no_search = message->no_default_search_domain != 0;
    }
}

static void cares_read(const CaresConfig *message, struct kb_addr *servers,
                       struct kb_dns_options *options, struct kb_diag *diag)
{
    servers_read(message->resolvers, message->n_resolvers, "resolvers", servers, options, diag);
    resolver_options_read(message->dns_resolver_options, options);
    options->servers_as_fallback = message->use_resolvers_as_fallback != 0;
    options->rotate = message->rotate_nameservers != 0;
    options->reinit_on_timeout = message->reinit_channel_on_timeout != 0;
    options->query_timeout_s = message->query_timeout_seconds == NULL
                                   ? 0
                                   : (uint32_t)KB_MIN(message->query_timeout_seconds->value, 3600);
    options->query_tries = message->query_tries == NULL ? 0 : message->query_tries->value;
    options->udp_max_queries =
        message->udp_max_queries == NULL ? 0 : message->udp_max_queries->value;
}

int kb_cluster_dns_read_typed(const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                              struct kb_arena *arena, struct kb_addr *servers,
                              struct kb_dns_options *options, struct kb_diag *diag)
{
    uint32_t errors = diag->error_count;
    struct kb_str type;

    if (message == NULL) {
        return 0;
    }
    kb_diag_push(diag, "typed_dns_resolver_config");
    type = kb_any_inner_name(message->typed_config, arena);
    if (kb_str_eq(
            type,
            KB_STR("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"))) {
        const CaresConfig *cares;

        kb_diag_push(diag, "typed_config");
        cares = KB_ANY_UNPACK(
            message->typed_config,
            envoy__extensions__network__dns_resolver__cares__v3__cares_dns_resolver_config,
            CaresConfig, arena, diag);
        if (cares != NULL) {
            cares_read(cares, servers, options, diag);
        }
        kb_diag_pop(diag);
    } else {
        kb_diag_error_hint(diag, KB_STR("envoy.network.dns_resolver.cares is the only resolver"),
                           "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                           message->name, KB_STR_ARG(type));
    }
    kb_diag_pop(diag);
    return diag->error_count == errors ? 0 : KB_ECONFIG;
}

static void resolution_read(const Envoy__Config__Core__V3__DnsResolutionConfig *message,
                            struct kb_addr *servers, struct kb_dns_options *options,
                            struct kb_diag *diag)
{
    kb_diag_push(diag, "dns_resolution_config");
    servers_read(message->resolvers, message->n_resolvers, "resolvers", servers, options, diag);
    resolver_options_read(message->dns_resolver_options, options);
    kb_diag_pop(diag);
}

void kb_cluster_dns_configure(struct kb_cluster_dns *dns,
                              const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                              struct kb_diag *diag)
{
    struct kb_dns_options *options = &dns->defaults.options;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    if (message->typed_dns_resolver_config != NULL) {
        if (kb_cluster_dns_read_typed(message->typed_dns_resolver_config, &arena,
                                      dns->defaults.servers, options, diag) != 0) {
            options->server_count = 0;
        }
    } else if (message->dns_resolution_config != NULL) {
        resolution_read(message->dns_resolution_config, dns->defaults.servers, options, diag);
    } else {
        options->use_tcp = message->use_tcp_for_dns_lookups != 0;
    }
    kb_arena_dispose(&arena);
}

bool kb_cluster_dns_given(const Envoy__Config__Cluster__V3__Cluster *message)
{
    return message->typed_dns_resolver_config != NULL || message->dns_resolution_config != NULL ||
           message->n_dns_resolvers > 0 || message->use_tcp_for_dns_lookups != 0;
}

int kb_cluster_dns_read(const Envoy__Config__Cluster__V3__Cluster *message, struct kb_arena *arena,
                        struct kb_addr *servers, struct kb_dns_options *options,
                        struct kb_diag *diag)
{
    uint32_t errors = diag->error_count;

    if (message->typed_dns_resolver_config != NULL) {
        return kb_cluster_dns_read_typed(message->typed_dns_resolver_config, arena, servers,
                                         options, diag);
    }
    if (message->dns_resolution_config != NULL) {
        resolution_read(message->dns_resolution_config, servers, options, diag);
    } else {
        servers_read(message->dns_resolvers, message->n_dns_resolvers, "dns_resolvers", servers,
                     options, diag);
        options->use_tcp = message->use_tcp_for_dns_lookups != 0;
    }
    return diag->error_count == errors ? 0 : KB_ECONFIG;
}
