/* SPDX-License-Identifier: Apache-2.0 */
/* Ring hash (envoy.load_balancing_policies.ring_hash): each host stands on a ring at as many points
 * as its weight says; a request goes to the first point at or behind its hash (Ketama). */
#include "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.pb-c.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "proxy/upstream/lb_base.h"
#include "proxy/upstream/lb_hash.h"

#define RING_SIZE_MIN_DEFAULT 1024
#define RING_SIZE_MAX_DEFAULT (8 * 1024 * 1024)
#define MURMUR_SEED           0xc70f6907U

typedef Envoy__Extensions__LoadBalancingPolicies__RingHash__V3__RingHash RingHash;

extern const struct kb_lb_ops kb_lb_ring_hash;

struct ring_config {
    struct kb_lb_hash_config head; /* first */
    uint64_t min_size, max_size;
    bool murmur;
};

struct ring_point {
    uint64_t hash;
    struct kb_host *host;
};

struct ring {
    struct kb_hash_table head; /* first */
    size_t count;
    struct ring_point points[];
};

static int ring_config_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, struct kb_lb_config **out)
{
    const RingHash *ring = message;
    struct ring_config *config = kb_calloc(1, sizeof(*config));

    (void)factory;
    config->min_size =
        ring->minimum_ring_size == NULL ? RING_SIZE_MIN_DEFAULT : ring->minimum_ring_size->value;
    config->max_size =
        ring->maximum_ring_size == NULL ? RING_SIZE_MAX_DEFAULT : ring->maximum_ring_size->value;
    config->murmur =
        ring->hash_function ==
        ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__RING_HASH__V3__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2;
    config->head.use_hostname = ring->use_hostname_for_hashing != 0;
    kb_lb_hash_config_read(ring->consistent_hashing_lb_config, &config->head);
    config->head.head.locality_weighted = ring->locality_weighted_lb_config != NULL;
    if (config->min_size > config->max_size) {
        kb_diag_error(diag, "ring hash: minimum_ring_size (%llu) > maximum_ring_size (%llu)",
                      (unsigned long long)config->min_size, (unsigned long long)config->max_size);
        free(config);
        return KB_ECONFIG;
    }
    *out = &config->head.head;
    return 0;
}

static void ring_config_destroy(struct kb_lb_config *config)
{
    free(config);
}

/* MurmurHash2, 64 bits, as std::hash of libstdc++. */
static uint64_t murmur_hash(const char *p, size_t len)
{
    const uint64_t m = 0xc6a4a7935bd1e995ULL;
    uint64_t hash = MURMUR_SEED ^ (len * m), word;

    for (; len >= 8; p += 8, len -= 8) {
        memcpy(&word, p, 8);
        word *= m;
        word ^= word >> 47;
        word *= m;
        hash = (hash ^ word) * m;
    }
    if (len > 0) {
        word = 0;
        for (size_t i = len; i > 0; i--) {
            word = (word << 8) | (uint8_t)p[i - 1];
        }
        hash = (hash ^ word) * m;
    }
    hash ^= hash >> 47;
    hash *= m;
    return hash ^ (hash >> 47);
}

static int point_cmp(const void *a, const void *b)
{
    const struct ring_point *x = a, *y = b;

    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static struct kb_hash_table *ring_build(const struct kb_lb_config *base,
                                        const struct kb_hash_hosts *hosts)
{
    const struct ring_config *config = (const struct ring_config *)base;
    double scale = fmin(ceil(hosts->min_weight * (double)config->min_size) / hosts->min_weight,
                        (double)config->max_size);
    size_t max = (size_t)ceil(scale) + hosts->count, count = 0;
    struct ring *ring = kb_malloc(sizeof(*ring) + max * sizeof(ring->points[0]));
    double current = 0, target = 0;

    ring->head = (struct kb_hash_table){.shares = NULL};
    for (uint32_t i = 0; i < hosts->count; i++) {
        struct kb_str key = hosts->hosts[i].key;
        char *text = kb_malloc(key.len + 24);

        memcpy(text, key.p, key.len);
        target += scale * hosts->hosts[i].weight;
        for (uint64_t k = 0; current < target && count < max; k++, current++) {
            size_t len =
                key.len + (size_t)snprintf(text + key.len, 24, "_%llu", (unsigned long long)k);

            ring->points[count].hash =
                config->murmur ? murmur_hash(text, len) : XXH64(text, len, 0);
            ring->points[count++].host = hosts->hosts[i].host;
        }
        free(text);
    }
    ring->count = count;
    qsort(ring->points, count, sizeof(ring->points[0]), point_cmp);
    return &ring->head;
}

static struct kb_host *ring_pick(const struct kb_hash_table *table, uint64_t hash, uint32_t attempt)
{
    const struct ring *ring = (const struct ring *)table;
    size_t low = 0, high = ring->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (ring->points[middle].hash < hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return ring->points[(low + attempt) % ring->count].host;
}

static void ring_destroy(struct kb_hash_table *table)
{
    free(table);
}

static const struct kb_hash_table_ops ring_tables = {ring_build, ring_pick, ring_destroy};

static struct kb_lb *ring_hash_create(struct kb_cluster_local *local,
                                      const struct kb_lb_config *config,
                                      const struct kb_priority_set *set)
{
    return kb_lb_hash_create(local, config, set, &kb_lb_ring_hash, &ring_tables);
}

const struct kb_lb_ops kb_lb_ring_hash = {
    .name = "envoy.load_balancing_policies.ring_hash",
    .type_url = "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    .config_create = ring_config_create,
    .config_destroy = ring_config_destroy,
    .create = ring_hash_create,
    .hosts_changed = kb_lb_hash_hosts_changed,
    .choose_host = kb_lb_hash_choose_host,
    .destroy = kb_lb_hash_destroy,
};
