/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts by DNS: each name of the load assignment is looked up again and again. A strict cluster has
 * a host for each address; a logical one has one host, with the first address. A failed lookup
 * leaves the hosts as they are; an answer without addresses empties a strict cluster and is a
 * failure for a logical one. */
#include "proxy/upstream/dns_cluster.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/eds_update.h"
#include "proxy/upstream/load_assignment.h"

#define REFRESH_DEFAULT_MS 5000
/* Envoy: max_interval is ten times base_interval when it is not set. */
#define FAILURE_MAX_FACTOR 10

/* One endpoint: a name and a port. */
struct dns_target {
    struct kb_timer timer;
    struct kb_dns_cluster *cluster;
    struct kb_dns_query *query;
    struct kb_str name;
    uint16_t port;
    uint32_t group;             /* its LocalityLbEndpoints */
    uint64_t failure_next_ms;   /* the next upper bound of waiting after a failure */
    struct kb_host_params host; /* all but the address */
    struct kb_host **hosts;     /* of the last good answer; one reference each */
    uint32_t host_count;
};

struct kb_dns_cluster {
    KB_OBJ;
    struct kb_cluster_entry *entry;
    struct kb_dns_cluster_config config;
    struct kb_arena arena; /* names and the targets' texts */
    uint32_t worker_count;
    struct kb_loop *loop;
    struct kb_rand *rand;
    struct dns_target *targets;
    uint32_t target_count;
    struct kb_host_group *groups; /* without hosts; priorities and weights */
    uint32_t group_count;
};
KB_OBJ_MAGIC(kb_dns_cluster, 0x444e5343);

static void target_resolve(struct dns_target *target);

static void hosts_publish(struct kb_dns_cluster *cluster)
{
    struct kb_host_group *groups = kb_calloc(cluster->group_count + 1, sizeof(groups[0]));

    for (uint32_t g = 0; g < cluster->group_count; g++) {
        KB_VEC(struct kb_host *) hosts;

        kb_vec_init(&hosts);
        for (uint32_t t = 0; t < cluster->target_count; t++) {
            for (uint32_t i = 0;
                 cluster->targets[t].group == g && i < cluster->targets[t].host_count; i++) {
                kb_vec_push(&hosts, cluster->targets[t].hosts[i]);
            }
        }
        groups[g] = cluster->groups[g];
        groups[g].hosts = hosts.items;
        groups[g].count = (uint32_t)hosts.len;
    }
    kb_cluster_entry_set_hosts(cluster->entry, groups, cluster->group_count);
    for (uint32_t g = 0; g < cluster->group_count; g++) {
        free(groups[g].hosts);
    }
    free(groups);
}

static struct kb_host *host_find(struct kb_host **hosts, uint32_t count, const struct kb_addr *addr)
{
    for (uint32_t i = 0; i < count; i++) {
        if (kb_host_is_at(hosts[i], addr)) {
            return hosts[i];
        }
    }
    return NULL;
}

static void hosts_free(struct kb_host **hosts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        kb_host_unref(hosts[i]);
    }
    free(hosts);
}

/* Adds those hosts that the answer does not have and stay; returns how many. */
static uint32_t hosts_keep(const struct dns_target *target, struct kb_host **hosts, uint32_t count)
{
    uint32_t before = count;

    for (uint32_t i = 0; i < target->host_count; i++) {
        struct kb_host *host = target->hosts[i];
        struct kb_addr addr = kb_host_addr(host);

        if (host_find(hosts, before, &addr) == NULL &&
            kb_host_outlives_discovery(target->cluster->entry, host)) {
            __atomic_fetch_or(&host->health_flags, KB_HOST_PENDING_REMOVAL, __ATOMIC_RELAXED);
            hosts[count++] = kb_host_ref(host);
        }
    }
    return count - before;
}

/* Makes the target's hosts those of the answer, keeping the ones whose address is still there. True
 * when it changed. */
static bool target_update(struct dns_target *target, const struct kb_dns_answer *answers, size_t n)
{
    struct kb_dns_cluster *cluster = target->cluster;
    struct kb_host **hosts = kb_calloc(n + target->host_count + 1, sizeof(hosts[0]));
    uint32_t count = 0, kept = 0, stay;
    bool changed;

    for (size_t i = 0; i < n; i++) {
        struct kb_host *host;

        target->host.addr = answers[i].addr;
        kb_addr_set_port(&target->host.addr, target->port);
        if (host_find(hosts, count, &target->host.addr) != NULL) {
            continue; /* twice in the answer */
        }
        host = host_find(target->hosts, target->host_count, &target->host.addr);
        if (host != NULL) {
            __atomic_fetch_and(&host->health_flags, ~(uint32_t)KB_HOST_PENDING_REMOVAL,
                               __ATOMIC_RELAXED);
            kept++;
        }
        hosts[count++] = host != NULL ? kb_host_ref(host)
                                      : kb_host_create(cluster->entry->cluster, &target->host,
                                                       cluster->worker_count);
        /* Envoy makes a host first and compares then. */
        kb_cluster_entry_count_match(cluster->entry, hosts[count - 1]);
    }
    stay = hosts_keep(target, hosts, count);
    count += stay;
    kept += stay;
    changed = kept != count || kept != target->host_count;
    if (changed) {
        hosts_free(target->hosts, target->host_count);
        target->hosts = hosts;
        target->host_count = count;
    } else {
        hosts_free(hosts, count); /* the order alone changes nothing, as in Envoy */
    }
    return changed;
}

static uint64_t failure_delay(struct dns_target *target)
{
    const struct kb_dns_cluster_config *config = &target->cluster->config;
    uint64_t bound = target->failure_next_ms;

    if (config->failure_base_ms == 0) {
        return config->refresh_ms;
    }
    target->failure_next_ms = KB_MIN(bound * 2, config->failure_max_ms);
    return kb_rand_u64(target->cluster->rand) % KB_MAX(bound, 1);
}

static uint64_t success_delay(const struct dns_target *target, const struct kb_dns_answer *answers,
                              size_t n)
{
    const struct kb_dns_cluster_config *config = &target->cluster->config;
    uint64_t delay = config->refresh_ms;
    uint32_t ttl_s = UINT32_MAX;

    for (size_t i = 0; i < n; i++) {
        ttl_s = KB_MIN(ttl_s, answers[i].ttl_s);
    }
    if (config->respect_ttl && n > 0 && ttl_s > 0) {
        delay = (uint64_t)ttl_s * 1000;
    }
    if (config->jitter_ms > 0) {
        delay += kb_rand_u64(target->cluster->rand) % config->jitter_ms;
    }
    return delay;
}

static void target_resolved(void *arg, int status, const struct kb_dns_answer *answers, size_t n,
                            const char *text)
{
    struct dns_target *target = arg;
    struct kb_dns_cluster *cluster = target->cluster;
    struct kb_cluster_counts *counts = &cluster->entry->counts;
    uint64_t delay;

    target->query = NULL;
    KB_LOG(UPSTREAM, DEBUG, "DNS of cluster %.*s: %.*s: %zu addresses: %s",
           KB_STR_ARG(cluster->entry->cluster->api.name), KB_STR_ARG(target->name), n, text);
    if (status != 0 || (n == 0 && cluster->config.logical)) {
        counts->update_failure++;
        delay = failure_delay(target);
    } else {
        n = cluster->config.logical ? 1 : n;
        counts->update_success++;
        if (!cluster->config.logical) {
            counts->max_host_weight = n == 0 ? 1 : target->host.weight;
        }
        if (target_update(target, answers, n)) {
            hosts_publish(cluster);
        } else {
            counts->update_no_rebuild++;
        }
        target->failure_next_ms = cluster->config.failure_base_ms;
        delay = success_delay(target, answers, n);
    }
    kb_loop_timer_arm(cluster->loop, &target->timer, delay);
    kb_cluster_entry_initialized(
        cluster->entry); /* the first name's answer is enough, as in Envoy */
}

static void target_resolve(struct dns_target *target)
{
    target->cluster->entry->counts.update_attempt++;
    kb_dns_resolve(target->cluster->config.dns, target->name, target->cluster->config.family,
                   target_resolved, target, &target->query);
}

static void target_timer_fired(struct kb_timer *timer)
{
    target_resolve(KB_CONTAINER_OF(timer, struct dns_target, timer));
}

void kb_dns_cluster_start(void *state)
{
    struct kb_dns_cluster *cluster = KB_CAST(state, kb_dns_cluster);

    if (cluster->target_count == 0) {
        kb_cluster_entry_initialized(cluster->entry);
    }
    for (uint32_t i = 0; i < cluster->target_count; i++) {
        target_resolve(&cluster->targets[i]);
    }
}

void kb_dns_cluster_destroy(void *state)
{
    struct kb_dns_cluster *cluster = KB_CAST(state, kb_dns_cluster);

    for (uint32_t i = 0; i < cluster->target_count; i++) {
        struct dns_target *target = &cluster->targets[i];

        if (target->query != NULL) {
            kb_dns_cancel(target->query);
        }
        kb_loop_timer_cancel(cluster->loop, &target->timer);
        hosts_free(target->hosts, target->host_count);
    }
    free(cluster->targets);
    free(cluster->groups);
    kb_arena_dispose(&cluster->arena);
    KB_OBJ_CLEAR(cluster);
    free(cluster);
}

void kb_dns_cluster_read_rates(const Google__Protobuf__Duration *refresh,
                               const Google__Protobuf__Duration *jitter, bool has_failure,
                               const Google__Protobuf__Duration *failure_base,
                               const Google__Protobuf__Duration *failure_max,
                               struct kb_dns_cluster_config *config, struct kb_diag *diag)
{
    config->refresh_ms =
        kb_config_duration_ms(refresh, "dns_refresh_rate", REFRESH_DEFAULT_MS, diag);
    config->jitter_ms = kb_config_duration_ms(jitter, "dns_jitter", 0, diag);
    if (!has_failure) {
        return;
    }
    kb_diag_push(diag, "dns_failure_refresh_rate");
    config->failure_base_ms =
        kb_config_duration_ms(failure_base, "base_interval", REFRESH_DEFAULT_MS, diag);
    config->failure_max_ms = kb_config_duration_ms(
        failure_max, "max_interval", config->failure_base_ms * FAILURE_MAX_FACTOR, diag);
    if (config->failure_max_ms < config->failure_base_ms) {
        kb_diag_error(diag, "dns_failure_refresh_rate must have max_interval greater than or equal "
                            "to the base_interval");
    }
    kb_diag_pop(diag);
}

/* The texts live in the cluster's arena from now on. */
static void target_keep(struct dns_target *target, struct kb_arena *arena)
{
    target->name = kb_str_dup(arena, target->name);
    target->host.hostname =
        target->host.hostname.len > 0 ? kb_str_dup(arena, target->host.hostname) : target->name;
    target->host.region = kb_str_dup(arena, target->host.region);
    target->host.zone = kb_str_dup(arena, target->host.zone);
    target->host.sub_zone = kb_str_dup(arena, target->host.sub_zone);
    target->host.metadata = kb_str_dup(arena, target->host.metadata);
    target->host.check.hostname = kb_str_dup(arena, target->host.check.hostname);
}

static void target_read(struct kb_dns_cluster *cluster, struct dns_target *target, uint32_t group,
                        const Envoy__Config__Endpoint__V3__LocalityLbEndpoints *locality, size_t at,
                        struct kb_factory_context *factory, struct kb_diag *diag)
{
    const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint = locality->lb_endpoints[at];
    const Envoy__Config__Core__V3__Address *address = kb_lb_endpoint_address(endpoint);

    kb_diag_push_index(diag, "lb_endpoints", at);
    kb_lb_endpoint_read(locality, endpoint, factory->arena, &target->host, diag);
    target->cluster = cluster;
    target->group = group;
    target->failure_next_ms = cluster->config.failure_base_ms;
    kb_timer_init(&target->timer, target_timer_fired);
    if (address == NULL ||
        address->address_case != ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        struct kb_str path = kb_diag_path(diag);

        /* Envoy takes it, and looks up the empty name. */
        KB_LOG(UPSTREAM, WARNING, "%.*s: without a socket_address it never has a host",
               KB_STR_ARG(path));
    } else {
        if (address->socket_address->resolver_name[0] != '\0') {
            kb_diag_error(diag, "%s clusters must NOT have a custom resolver name set",
                          cluster->config.logical ? "LOGICAL_DNS" : "STRICT_DNS");
        }
        target->name = kb_str_from_cstr(address->socket_address->address);
        target->port = (uint16_t)address->socket_address->port_value;
    }
    if (endpoint->host_identifier_case ==
            ENVOY__CONFIG__ENDPOINT__V3__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT &&
        endpoint->endpoint->n_additional_addresses > 0) {
        kb_diag_error(diag, "additional addresses of an endpoint are not implemented yet");
    }
    target->host.is_discovered = true;
    target_keep(target, &cluster->arena);
    kb_diag_pop(diag);
}

static void assignment_read(struct kb_dns_cluster *cluster,
                            const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment,
                            struct kb_factory_context *factory, struct kb_diag *diag)
{
    size_t n = assignment == NULL ? 0 : assignment->n_endpoints, targets = 0;

    if (cluster->config.logical && assignment == NULL) {
        kb_diag_error(diag, "LOGICAL_DNS clusters must have a single host");
        return;
    }
    if (cluster->config.logical && (n != 1 || assignment->endpoints[0]->n_lb_endpoints != 1)) {
        kb_diag_push(diag, "load_assignment");
        kb_diag_error(diag, "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a "
                            "single lb_endpoint");
        kb_diag_pop(diag);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        targets += assignment->endpoints[i]->n_lb_endpoints;
    }
    cluster->targets = kb_calloc(targets + 1, sizeof(cluster->targets[0]));
    cluster->groups = kb_calloc(n + 1, sizeof(cluster->groups[0]));
    cluster->group_count = (uint32_t)n;
    kb_diag_push(diag, "load_assignment");
    for (size_t i = 0; i < n; i++) {
        const Envoy__Config__Endpoint__V3__LocalityLbEndpoints *locality = assignment->endpoints[i];

        cluster->groups[i].priority = KB_MIN(locality->priority, KB_PRIORITIES_MAX - 1);
        cluster->groups[i].locality_weight =
            locality->load_balancing_weight == NULL ? 0 : locality->load_balancing_weight->value;
        kb_diag_push_index(diag, "endpoints", i);
        for (size_t k = 0; k < locality->n_lb_endpoints; k++) {
            target_read(cluster, &cluster->targets[cluster->target_count++], (uint32_t)i, locality,
                        k, factory, diag);
        }
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
}

int kb_dns_cluster_create(struct kb_cluster_entry *entry,
                          const Envoy__Config__Cluster__V3__Cluster *message,
                          const struct kb_dns_cluster_config *config,
                          struct kb_factory_context *factory, struct kb_diag *diag, void **state)
{
    struct kb_dns_cluster *cluster = kb_calloc(1, sizeof(*cluster));
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(cluster, kb_dns_cluster);
    cluster->entry = entry;
    cluster->config = *config;
    cluster->worker_count = factory->server->worker_count;
    cluster->loop = &factory->server->main->loop;
    cluster->rand = &factory->server->main->rand;
    kb_arena_init(&cluster->arena, NULL);
    assignment_read(cluster, message->load_assignment, factory, diag);
    *state = cluster;
    return diag->error_count == errors ? 0 : KB_ECONFIG;
}

static enum kb_dns_family family_read(Envoy__Config__Cluster__V3__Cluster__DnsLookupFamily family)
{
    switch (family) {
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DNS_LOOKUP_FAMILY__V4_ONLY:
        return KB_DNS_V4_ONLY;
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DNS_LOOKUP_FAMILY__V6_ONLY:
        return KB_DNS_V6_ONLY;
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DNS_LOOKUP_FAMILY__V4_PREFERRED:
        return KB_DNS_V4_PREFERRED;
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DNS_LOOKUP_FAMILY__ALL:
        return KB_DNS_ALL;
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DNS_LOOKUP_FAMILY__AUTO:
    default:
        return KB_DNS_AUTO;
    }
}

int kb_dns_cluster_create_from_cluster(struct kb_cluster_entry *entry,
                                       const Envoy__Config__Cluster__V3__Cluster *message,
                                       bool logical, struct kb_factory_context *factory,
                                       struct kb_diag *diag, void **state)
{
    const Envoy__Config__Cluster__V3__Cluster__RefreshRate *failure =
        message->dns_failure_refresh_rate;
    struct kb_dns_cluster_config config = {.logical = logical};
    struct kb_addr servers[KB_DNS_SERVERS_MAX];
    struct kb_dns_options options = {.servers = servers};

    kb_dns_cluster_read_rates(message->dns_refresh_rate, message->dns_jitter, failure != NULL,
                              failure == NULL ? NULL : failure->base_interval,
                              failure == NULL ? NULL : failure->max_interval, &config, diag);
    config.family = family_read(message->dns_lookup_family);
    config.respect_ttl = message->respect_dns_ttl != 0;
    if (kb_cluster_dns_read(message, factory->arena, servers, &options, diag) == 0 &&
        kb_cluster_manager_dns(entry->manager, kb_cluster_dns_given(message) ? &options : NULL,
                               &config.dns) != 0) {
        kb_diag_error(diag, "the DNS resolver cannot start");
    }
    return kb_dns_cluster_create(entry, message, &config, factory, diag, state);
}
