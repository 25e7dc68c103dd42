/* SPDX-License-Identifier: Apache-2.0 */
/* The sets of labels that a worker has seen: found by a hash over numbers, so that a request costs
 * no text. A set that is new is put together once and its metrics are taken from the store. Tables
 * are bounded; at the bound they begin anew. */
#include "proxy/ext/common/istio_stats.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/ext/common/istio_stats_internal.h"

enum kb_istio_reporter kb_istio_stats_reporter(const struct kb_istio_stats_config *config)
{
    return config->reporter;
}

uint64_t kb_istio_stats_interval_ms(const struct kb_istio_stats_config *config)
{
    return config->interval_ms;
}

/* ---- texts by number ---- */

static void texts_clear(struct istio_worker *worker)
{
    KB_MAP_FOREACH (e, &worker->texts) {
        free(e->value);
    }
    kb_map_dispose(&worker->texts);
    kb_map_init(&worker->texts);
    memset(worker->sans, 0, sizeof(worker->sans));
}

static void sets_clear(struct istio_worker *worker)
{
    free(worker->sets);
    worker->sets = NULL;
    worker->set_cap = 0;
    worker->set_count = 0;
}

/* The number of a text; 0 of the empty one. Numbers are not given twice. */
static uint32_t text_number(struct istio_worker *worker, struct kb_str text)
{
    struct istio_text *known;

    if (text.len == 0 || text.len > ISTIO_PRINCIPAL_MAX) {
        return 0;
    }
    known = kb_map_get(&worker->texts, text);
    if (known != NULL) {
        return known->number;
    }
    if (worker->texts.len >= ISTIO_TEXTS_MAX || worker->last_number == UINT32_MAX) {
        texts_clear(worker);
        sets_clear(worker);
        worker->last_number = worker->last_number == UINT32_MAX ? 0 : worker->last_number;
    }
    known = kb_malloc(sizeof(*known) + text.len);
    known->number = ++worker->last_number;
    known->len = text.len;
    memcpy(known->text, text.p, text.len);
    kb_map_put(&worker->texts, kb_str_make(known->text, known->len), known);
    return known->number;
}

/* Only where a set of labels is made. */
static struct kb_str text_of(const struct istio_worker *worker, uint32_t number)
{
    KB_MAP_FOREACH (e, &worker->texts) {
        const struct istio_text *text = e->value;

        if (text->number == number) {
            return kb_str_make(text->text, text->len);
        }
    }
    return KB_STR("");
}

static struct kb_str first_uri(const struct kb_ssl_connection_info *ssl, enum kb_ssl_list which)
{
    size_t count = 0;
    const struct kb_str *list = kb_ssl_list(ssl, which, &count);

    return count > 0 ? list[0] : KB_STR("");
}

struct kb_istio_principals kb_istio_stats_principals(struct kb_istio_stats_config *config,
                                                     uint32_t worker_index,
                                                     const struct kb_ssl_connection_info *ssl,
                                                     uint64_t connection_id)
{
    struct istio_worker *worker = &config->workers[worker_index];
    size_t slot = connection_id & (ISTIO_SANS_SLOTS - 1);
    struct kb_istio_principals principals = {0};

    if (ssl == NULL) {
        return principals;
    }
    if (KB_LIKELY(worker->sans[slot].connection_id == connection_id && connection_id != 0)) {
        return worker->sans[slot].principals;
    }
    principals.peer = text_number(worker, first_uri(ssl, KB_SSL_PEER_URI_SANS));
    principals.local = text_number(worker, first_uri(ssl, KB_SSL_LOCAL_URI_SANS));
    worker->sans[slot].connection_id = connection_id;
    worker->sans[slot].principals = principals;
    return principals;
}

/* ---- endpoints ---- */

/* istio.workload in an endpoint's metadata. */
static struct kb_workload *endpoint_read(struct kb_str metadata)
{
    struct kb_workload *workload;
    struct kb_str text;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    text = kb_struct_get_text(kb_packed_metadata_get(metadata, KB_STR("istio"), &arena),
                              KB_STR("workload"));
    workload = text.p != NULL ? kb_workload_from_endpoint(text) : NULL;
    kb_arena_dispose(&arena);
    return workload;
}

/* The workload that a host is said to be; NULL: nothing is said. */
static const struct kb_workload *endpoint_of(struct istio_worker *worker,
                                             const struct kb_host *host)
{
    struct kb_str metadata = host != NULL ? kb_host_metadata(host) : KB_STR_NULL;
    struct istio_endpoint *at;

    if (metadata.len == 0 || metadata.len > ISTIO_ENDPOINT_MAX) {
        return NULL;
    }
    if (worker->endpoints == NULL) {
        worker->endpoints = kb_calloc(ISTIO_ENDPOINT_SLOTS, sizeof(*worker->endpoints));
    }
    at = &worker->endpoints[((uintptr_t)host / sizeof(void *)) & (ISTIO_ENDPOINT_SLOTS - 1)];
    if (at->len == metadata.len && memcmp(at->metadata, metadata.p, metadata.len) == 0) {
        return at->workload;
    }
    kb_workload_unref(at->workload);
    at->workload = endpoint_read(metadata);
    at->metadata = kb_realloc(at->metadata, metadata.len);
    memcpy(at->metadata, metadata.p, metadata.len);
    at->len = metadata.len;
    return at->workload;
}

static const struct kb_workload *peer_in(const struct kb_filter_state_item *item)
{
    return item != NULL && item->type == &kb_workload_state_type
               ? KB_CAST((void *)(uintptr_t)item->object, kb_workload)
               : NULL;
}

static struct istio_peers peers_of(const struct kb_istio_stats_config *config,
                                   struct istio_worker *worker,
                                   const struct kb_istio_subject *subject)
{
    const struct kb_workload *upstream =
        peer_in(kb_filter_state_item_find(subject->upstream_state, kb_workload_upstream_key));
    struct istio_peers peers = {NULL, NULL};

    if (config->reporter == KB_ISTIO_SOURCE) {
        peers.peer =
            upstream != NULL ? upstream : endpoint_of(worker, subject->info->upstream.host);
        return peers;
    }
    peers.peer = peer_in(kb_filter_state_find(subject->info, kb_workload_downstream_key));
    peers.endpoint = config->reporter == KB_ISTIO_WAYPOINT ? upstream : NULL;
    return peers;
}

bool kb_istio_peer_known(const struct kb_istio_stats_config *config,
                         const struct kb_stream_info *info,
                         const struct kb_filter_state_item *upstream_state)
{
    if (config->reporter == KB_ISTIO_SOURCE) {
        return kb_filter_state_item_find(upstream_state, kb_workload_upstream_key) != NULL ||
               kb_filter_state_item_find(upstream_state, kb_workload_not_found_key) != NULL;
    }
    return kb_filter_state_find(info, kb_workload_downstream_key) != NULL ||
           kb_filter_state_find(info, kb_workload_not_found_key) != NULL;
}

/* ---- sets of labels ---- */

static uint64_t flags_key(const struct kb_stream_info *info)
{
    uint64_t key = 0;

    for (size_t i = 0; i < info->flag_count; i++) {
        key = key * (KB_RF_COUNT + 1) + info->flag_order[i] + 1;
    }
    return key;
}

static void key_fill(const struct kb_istio_stats_config *config, struct istio_worker *worker,
                     const struct kb_istio_subject *subject, const struct istio_peers *peers,
                     struct istio_key *key)
{
    const struct kb_stream_info *info = subject->info;
    const struct kb_cluster *cluster = info->upstream.cluster;

    memset(key, 0, sizeof(*key));
    if (config->host_header_fallback && subject->authority.len > 0 &&
        (cluster == NULL || cluster->istio.service_host.p == NULL ||
         cluster->istio.service_name.p == NULL)) {
        key->authority = text_number(worker, subject->authority);
    }
    key->peer = peers->peer != NULL ? peers->peer->serial : 0;
    key->endpoint = peers->endpoint != NULL ? peers->endpoint->serial : 0;
    key->cluster = cluster != NULL ? cluster->istio.serial : 0;
    key->principals = subject->principals;
    key->report = (uint8_t)subject->report;
    key->how = kb_str_eq(info->route_name, KB_STR("block_all"))   ? ISTIO_BLOCK_ALL
               : kb_str_eq(info->route_name, KB_STR("allow_any")) ? ISTIO_ALLOW_ANY
                                                                  : 0;
    if (subject->report != KB_ISTIO_MESSAGES) {
        key->flags = flags_key(info);
    }
    if (subject->report == KB_ISTIO_HTTP) {
        key->how |= subject->grpc ? ISTIO_GRPC : 0;
        key->how |= subject->has_grpc_status ? ISTIO_GRPC_STATUS : 0;
        key->grpc_status = subject->has_grpc_status ? subject->grpc_status : 0;
        key->code = info->response_code;
    }
}

static uint64_t key_hash(const struct istio_key *key)
{
    uint64_t words[sizeof(*key) / sizeof(uint64_t)];
    uint64_t hash = UINT64_C(0x9e3779b97f4a7c15);

    _Static_assert(sizeof(*key) % sizeof(uint64_t) == 0, "the key is whole words");
    memcpy(words, key, sizeof(words));
    for (size_t i = 0; i < KB_ARRAY_LEN(words); i++) {
        hash = (hash ^ words[i]) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    return hash;
}

/* The set of this key, or the free place for it; there is one. */
static struct istio_label_set *set_at(const struct istio_worker *worker,
                                      const struct istio_key *key)
{
    uint32_t at = (uint32_t)key_hash(key) & (worker->set_cap - 1);

    while (worker->sets[at].used && memcmp(&worker->sets[at].key, key, sizeof(*key)) != 0) {
        at = (at + 1) & (worker->set_cap - 1);
    }
    return &worker->sets[at];
}

/* Makes room for one more set. */
static void sets_grow(struct istio_worker *worker)
{
    struct istio_label_set *old = worker->sets;
    uint32_t old_cap = worker->set_cap;

    if (worker->set_count >= ISTIO_LABEL_SETS_MAX) {
        sets_clear(worker);
        old = NULL;
        old_cap = 0;
    }
    worker->set_cap = old_cap == 0 ? ISTIO_LABEL_SETS_MIN : old_cap * 2;
    worker->sets = kb_calloc(worker->set_cap, sizeof(*worker->sets));
    for (uint32_t i = 0; i < old_cap; i++) {
        if (old[i].used) {
            *set_at(worker, &old[i].key) = old[i];
        }
    }
    free(old);
}

static void set_make(struct kb_istio_stats_config *config, struct istio_worker *worker,
                     const struct kb_istio_subject *subject, const struct istio_peers *peers,
                     const struct istio_key *key, struct istio_label_set *set)
{
    struct kb_str labels[KB_ISTIO_LABEL_COUNT];
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    kb_istio_labels_fill(config, subject, peers, text_of(worker, key->principals.peer),
                         text_of(worker, key->principals.local), &arena, labels);
    for (size_t i = 0; i < KB_ISTIO_METRICS_MAX; i++) {
        const struct istio_metric_config *metric = &config->metrics[subject->report][i];
        struct kb_str name = kb_istio_metric_names[subject->report][i];
        struct kb_tag tags[KB_ISTIO_LABEL_COUNT];
        size_t count = 0;

        set->metrics[i] = NULL;
        if (name.len == 0 || metric->dropped) {
            continue;
        }
        for (size_t k = 0; k < KB_ISTIO_LABEL_COUNT; k++) {
            if ((metric->labels & (UINT32_C(1) << k)) != 0) {
                tags[count++] = (struct kb_tag){kb_istio_label_names[k], labels[k]};
            }
        }
        set->metrics[i] = kb_stat_tagged_get(
            config->server->stats,
            kb_str_printf(&arena, KB_STAT_CUSTOM_NAMESPACE "istio_%.*s", KB_STR_ARG(name)), tags,
            count,
            subject->report == KB_ISTIO_HTTP && i != KB_ISTIO_REQUESTS_TOTAL ? KB_STAT_HISTOGRAM
                                                                             : KB_STAT_COUNTER);
    }
    kb_arena_dispose(&arena);
    set->key = *key;
    set->used = true;
    worker->set_count++;
}

struct kb_stat_named *const *kb_istio_stats_metrics(struct kb_istio_stats_config *config,
                                                    uint32_t worker_index,
                                                    const struct kb_istio_subject *subject)
{
    struct istio_worker *worker = &config->workers[worker_index];
    struct istio_peers peers = peers_of(config, worker, subject);
    struct istio_label_set *set;
    struct istio_key key;

    key_fill(config, worker, subject, &peers, &key);
    if (worker->set_count >= worker->set_cap - worker->set_cap / 4) {
        sets_grow(worker);
    }
    set = set_at(worker, &key);
    if (KB_UNLIKELY(!set->used)) {
        set_make(config, worker, subject, &peers, &key, set);
    }
    return set->metrics;
}

void kb_istio_worker_dispose(struct istio_worker *worker)
{
    texts_clear(worker);
    sets_clear(worker);
    for (size_t i = 0; worker->endpoints != NULL && i < ISTIO_ENDPOINT_SLOTS; i++) {
        kb_workload_unref(worker->endpoints[i].workload);
        free(worker->endpoints[i].metadata);
    }
    free(worker->endpoints);
}
