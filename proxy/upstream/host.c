/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory: the struct, its table of worker parts, its address and its texts are one
 * allocation; what equal hosts have in common is shared. A worker's
 * part is written by that worker only and read by the main thread for /clusters, and by least
 * request of other workers. */
#include "proxy/upstream/host.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/outlier.h"
#include "proxy/upstream/socket_match.h"

static kb_host_removed_cb removed_cb;
static kb_host_removed_cb failed_cb;

void kb_host_set_removed_cb(kb_host_removed_cb cb)
{
    removed_cb = cb;
}

void kb_host_set_failed_cb(kb_host_removed_cb cb)
{
    failed_cb = cb;
}

static struct kb_str text_put(char **at, struct kb_str text)
{
    struct kb_str copy = {*at, text.len};

    if (text.len == 0) {
        return KB_STR("");
    }
    memcpy(*at, text.p, text.len);
    *at += text.len;
    return copy;
}

/* ---- what hosts share ---- */

struct kb_shared_text *kb_shared_text_create(struct kb_str text)
{
    struct kb_shared_text *shared;

    if (text.len == 0) {
        return NULL;
    }
    shared = kb_malloc(sizeof(*shared) + text.len);
    shared->refs = 1;
    shared->len = (uint32_t)text.len;
    memcpy(shared->text, text.p, text.len);
    return shared;
}

void kb_shared_text_unref(struct kb_shared_text *text)
{
    if (text != NULL && __atomic_fetch_sub(&text->refs, 1, __ATOMIC_ACQ_REL) == 1) {
        free(text);
    }
}

static struct kb_shared_text *metadata_of(const struct kb_host_params *params)
{
    const struct kb_host *like = params->like;

    if (like != NULL && params->metadata.len > 0 &&
        kb_str_eq(kb_host_metadata(like), params->metadata)) {
        __atomic_fetch_add(&like->metadata->refs, 1, __ATOMIC_RELAXED);
        return like->metadata;
    }
    return kb_shared_text_create(params->metadata);
}

bool kb_host_same_locality(const struct kb_host *host, const struct kb_host_params *params)
{
    return kb_str_eq(host->locality->region, params->region) &&
           kb_str_eq(host->locality->zone, params->zone) &&
           kb_str_eq(host->locality->sub_zone, params->sub_zone);
}

bool kb_host_same_locality_as(const struct kb_host *a, const struct kb_host *b)
{
    const struct kb_locality *x = a->locality, *y = b->locality;

    return x == y || (kb_str_eq(x->region, y->region) && kb_str_eq(x->zone, y->zone) &&
                      kb_str_eq(x->sub_zone, y->sub_zone));
}

/* Hosts without a locality share this one, for ever. */
static struct kb_locality locality_none;

static struct kb_locality *locality_of(const struct kb_host_params *params,
                                       const struct kb_cluster_impl *cluster)
{
    struct kb_locality *locality;
    char *at;

    if (params->region.len + params->zone.len + params->sub_zone.len == 0) {
        return &locality_none;
    }
    if (params->like != NULL && kb_host_same_locality(params->like, params)) {
        __atomic_fetch_add(&params->like->locality->refs, 1, __ATOMIC_RELAXED);
        return params->like->locality;
    }
    locality = kb_calloc(1, sizeof(*locality) + params->region.len + params->zone.len +
                                params->sub_zone.len);
    at = (char *)(locality + 1);
    locality->refs = 1;
    locality->region = text_put(&at, params->region);
    locality->zone = text_put(&at, params->zone);
    locality->sub_zone = text_put(&at, params->sub_zone);
    if (cluster != NULL) {
        const struct kb_server_context *server = kb_cluster_manager_server(cluster->manager);

        if (server->node_zone.len > 0 && locality->zone.len > 0) {
            locality->zone_variant =
                kb_stat_zone_key(server->stats, server->node_zone, locality->zone);
        }
    }
    return locality;
}

static void locality_unref(struct kb_locality *locality)
{
    if (locality != &locality_none &&
        __atomic_fetch_sub(&locality->refs, 1, __ATOMIC_ACQ_REL) == 1) {
        free(locality);
    }
}

/* ---- checks ---- */

static const struct kb_host_check check_none;

static struct kb_host_check *check_create(const struct kb_host_check *params)
{
    struct kb_host_check *check;
    char *at;

    if (params->addr.len == 0 && params->port == 0 && !params->disabled &&
        params->hostname.len == 0) {
        return NULL;
    }
    check = kb_malloc(sizeof(*check) + params->hostname.len);
    *check = *params;
    at = (char *)(check + 1);
    check->hostname = text_put(&at, params->hostname);
    return check;
}

bool kb_host_same_check(const struct kb_host *host, const struct kb_host_check *check)
{
    const struct kb_host_check *own = host->check != NULL ? host->check : &check_none;

    return own->disabled == check->disabled && own->port == check->port &&
           own->addr.len == check->addr.len &&
           (own->addr.len == 0 || kb_addr_eq(&own->addr, &check->addr)) &&
           kb_str_eq(own->hostname, check->hostname);
}

struct kb_addr kb_host_check_addr(const struct kb_host *host)
{
    const struct kb_host_check *check = host->check;
    struct kb_addr addr = check != NULL && check->addr.len > 0 ? check->addr : kb_host_addr(host);

    if (check != NULL && check->port != 0 && kb_addr_is_ip(&addr)) {
        kb_addr_set_port(&addr, check->port);
    }
    return addr;
}

/* ---- hosts ---- */

struct kb_host *kb_host_create(struct kb_cluster_impl *cluster, const struct kb_host_params *params,
                               uint32_t worker_count)
{
    char addr_text[KB_ADDR_TEXT_MAX];
    struct kb_str text = kb_addr_text(&params->addr, addr_text);
    struct kb_str addr = kb_addr_significant(&params->addr);
    size_t bytes = addr.len + text.len + params->hostname.len;
    struct kb_host *host =
        kb_calloc(1, sizeof(*host) + (worker_count + 1) * sizeof(host->locals[0]) + bytes);
    char *at;

    KB_OBJ_SET(host, kb_host);
    host->refs = 1;
    host->cluster = cluster == NULL ? NULL : &cluster->api;
    host->local_count = (uint16_t)(worker_count + 1);
    at = (char *)&host->locals[worker_count + 1];
    host->addr_len = (uint8_t)addr.len;
    (void)text_put(&at, addr);
    host->addr_text_len = (uint8_t)text_put(&at, text).len;
    host->hostname_len = (uint32_t)text_put(&at, params->hostname).len;
    host->locality = locality_of(params, cluster);
    host->zone_variant = host->locality->zone_variant;
    host->metadata = metadata_of(params);
    if (cluster != NULL && cluster->api.socket_match_count > 0) {
        host->socket = params->like != NULL && params->like->metadata == host->metadata
                           ? params->like->socket
                           : kb_socket_match_find(&cluster->api, params->metadata);
    }
    host->weight = KB_MAX(params->weight, 1);
    host->priority = (uint8_t)params->priority;
    host->health_flags = params->health_flags;
    host->check = check_create(&params->check);
    if (cluster != NULL && cluster->api.health_checked && !params->check.disabled) {
        host->health_flags |= KB_HOST_FAILED_ACTIVE_HC;
        if (cluster->api.ignore_new_hosts_until_first_hc && params->is_discovered) {
            host->health_flags |= KB_HOST_PENDING_ACTIVE_HC;
        }
    }
    host->canary = params->canary;
    if (cluster != NULL) {
        kb_cluster_impl_ref(cluster);
        host->outlier = cluster->outlier == NULL ? NULL : kb_calloc(1, sizeof(*host->outlier));
        host->watched = host->outlier != NULL || cluster->api.health_checked;
    }
    return host;
}

struct kb_str kb_addr_significant(const struct kb_addr *addr)
{
    return kb_str_make((const char *)&addr->sa, addr->sa.sa_family == AF_INET && addr->len > 0
                                                    ? offsetof(struct sockaddr_in, sin_zero)
                                                    : addr->len);
}

struct kb_str kb_host_addr_bytes(const struct kb_host *host)
{
    return kb_str_make((const char *)&host->locals[host->local_count], host->addr_len);
}

struct kb_addr kb_host_addr(const struct kb_host *host)
{
    struct kb_addr addr;

    memset(&addr, 0, sizeof(addr));
    memcpy(&addr.sa, kb_host_addr_bytes(host).p, host->addr_len);
    addr.len = addr.sa.sa_family == AF_INET ? sizeof(struct sockaddr_in) : host->addr_len;
    return addr;
}

bool kb_host_is_at(const struct kb_host *host, const struct kb_addr *addr)
{
    struct kb_addr own = kb_host_addr(host);

    return kb_addr_eq(&own, addr);
}

uint16_t kb_host_port(const struct kb_host *host)
{
    struct kb_addr own = kb_host_addr(host);

    return kb_addr_port(&own);
}

struct kb_host *kb_host_ref(struct kb_host *host)
{
    __atomic_fetch_add(&host->refs, 1, __ATOMIC_RELAXED);
    return host;
}

static void host_free(struct kb_host *host)
{
    for (uint32_t i = 0; i < host->local_count; i++) {
        struct kb_host_local *local = host->locals[i];

        if (local != NULL) {
            KB_BUG_IF(local->refs != 0);
            for (unsigned kind = 0; kind < KB_POOL_KIND_COUNT; kind++) {
                KB_BUG_IF(local->pools[kind][0] != NULL || local->pools[kind][1] != NULL);
            }
            free(local);
        }
    }
    KB_BUG_IF(host->outlier != NULL && host->outlier->detector != NULL);
    KB_BUG_IF(host->health != NULL);
    free(host->outlier);
    free(host->check);
    locality_unref(host->locality);
    kb_shared_text_unref(host->metadata);
    KB_OBJ_CLEAR(host);
    free(host);
}

void kb_host_unref(struct kb_host *host)
{
    struct kb_cluster_impl *cluster;

    if (__atomic_fetch_sub(&host->refs, 1, __ATOMIC_ACQ_REL) != 1) {
        return;
    }
    cluster = kb_cluster_impl_of(host->cluster);
    host_free(host);
    if (cluster != NULL) {
        kb_cluster_impl_unref(cluster);
    }
}

struct kb_host_local *kb_host_local_get(struct kb_host *host, uint32_t worker_index)
{
    struct kb_host_local *local = host->locals[worker_index];

    if (KB_UNLIKELY(local == NULL)) {
        KB_ASSERT(worker_index < host->local_count);
        local = kb_calloc(1, sizeof(*local));
        local->host = host;
        __atomic_store_n(&host->locals[worker_index], local, __ATOMIC_RELEASE);
    }
    return local;
}

uint64_t kb_host_stat_sum(const struct kb_host *host, enum kb_host_stat stat)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < host->local_count; i++) {
        const struct kb_host_local *local = __atomic_load_n(&host->locals[i], __ATOMIC_ACQUIRE);

        if (local != NULL) {
            sum += __atomic_load_n(&local->stats[stat], __ATOMIC_RELAXED);
        }
    }
    return sum;
}

struct kb_str kb_host_health_text(const struct kb_host *host, char *out)
{
    static const struct {
        uint32_t flag;
        const char *text;
    } flags[] = {
        {KB_HOST_FAILED_ACTIVE_HC, "/failed_active_hc"},
        {KB_HOST_FAILED_OUTLIER, "/failed_outlier_check"},
        {KB_HOST_FAILED_EDS, "/failed_eds_health"},
        {KB_HOST_DEGRADED_ACTIVE_HC, "/degraded_active_hc"},
        {KB_HOST_DEGRADED_EDS, "/degraded_eds_health"},
        {KB_HOST_PENDING_REMOVAL, "/pending_dynamic_removal"},
        {KB_HOST_PENDING_ACTIVE_HC, "/pending_active_hc"},
        {KB_HOST_EXCLUDED_IMMEDIATE_HC, "/excluded_via_immediate_hc_fail"},
        {KB_HOST_ACTIVE_HC_TIMEOUT, "/active_hc_timeout"},
        {KB_HOST_DRAINING_EDS, "/eds_status_draining"},
    };
    uint32_t set = __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED);
    char *at = out;

    if (set == 0) {
        return KB_STR("healthy");
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(flags); i++) {
        if ((set & flags[i].flag) != 0) {
            text_put(&at, kb_str_from_cstr(flags[i].text));
        }
    }
    return kb_str_make(out, (size_t)(at - out));
}

void kb_host_notify_failed(struct kb_host *host, struct kb_worker *worker)
{
    struct kb_host_local *local = host->locals[worker->index];

    if (local != NULL && failed_cb != NULL) {
        failed_cb(worker, local);
    }
}

void kb_host_notify_removed(struct kb_host *host, struct kb_worker *worker)
{
    struct kb_host_local *local = host->locals[worker->index];

    if (local == NULL) {
        return;
    }
    local->removed = true;
    if (removed_cb != NULL) {
        removed_cb(worker, local);
    }
}
