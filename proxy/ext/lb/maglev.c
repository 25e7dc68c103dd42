/* SPDX-License-Identifier: Apache-2.0 */
/* Maglev (envoy.load_balancing_policies.maglev): a table in which each host has as many places as
 * its weight says, filled so that few places change when a host comes or goes (Eisenbud et al.,
 * "Maglev", section 3.4). */
#include "envoy/extensions/load_balancing_policies/maglev/v3/maglev.pb-c.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "proxy/upstream/lb_base.h"
#include "proxy/upstream/lb_hash.h"

#define TABLE_SIZE_DEFAULT 65537
#define TABLE_SIZE_MAX     5000011

typedef Envoy__Extensions__LoadBalancingPolicies__Maglev__V3__Maglev Maglev;

extern const struct kb_lb_ops kb_lb_maglev;

struct maglev_config {
    struct kb_lb_hash_config head; /* first */
    uint64_t size;
};

struct maglev_table {
    struct kb_hash_table head; /* first */
    uint64_t size;
    struct kb_host **hosts;
    uint32_t places[]; /* indexes of hosts */
};

/* A host while the table is filled. */
struct maglev_entry {
    const struct kb_hash_host *host;
    uint64_t offset, skip, next;
    double target;
};

#define PLACE_FREE UINT32_MAX

static bool is_prime(uint64_t n)
{
    if (n < 2) {
        return false;
    }
    for (uint64_t i = 2; i * i <= n; i++) {
        if (n % i == 0) {
            return false;
        }
    }
    return true;
}

static int maglev_config_create(const void *message, struct kb_factory_context *factory,
                                struct kb_diag *diag, struct kb_lb_config **out)
{
    const Maglev *maglev = message;
    uint64_t size = maglev->table_size == NULL ? TABLE_SIZE_DEFAULT : maglev->table_size->value;
    struct maglev_config *config;

    (void)factory;
    if (size > TABLE_SIZE_MAX || !is_prime(size)) {
        kb_diag_error(diag, "The table size of maglev must be prime number");
        return KB_ECONFIG;
    }
    config = kb_calloc(1, sizeof(*config));
    config->size = size;
    kb_lb_hash_config_read(maglev->consistent_hashing_lb_config, &config->head);
    config->head.head.locality_weighted = maglev->locality_weighted_lb_config != NULL;
    *out = &config->head.head;
    return 0;
}

static void maglev_config_destroy(struct kb_lb_config *config)
{
    free(config);
}

static int entry_cmp(const void *a, const void *b)
{
    const struct maglev_entry *x = a, *y = b;

    return kb_str_cmp(x->host->key, y->host->key);
}

static struct maglev_entry *entries_make(const struct kb_hash_hosts *hosts, uint64_t size)
{
    struct maglev_entry *entries = kb_calloc(hosts->count, sizeof(entries[0]));

    for (uint32_t i = 0; i < hosts->count; i++) {
        struct kb_str key = hosts->hosts[i].key;

        entries[i].host = &hosts->hosts[i];
        entries[i].offset = XXH64(key.p, key.len, 0) % size;
        entries[i].skip = XXH64(key.p, key.len, 1) % KB_MAX(size - 1, 1) + 1;
    }
    qsort(entries, hosts->count, sizeof(entries[0]), entry_cmp);
    return entries;
}

/* The entry's next free place. */
static uint64_t place_take(struct maglev_table *table, struct maglev_entry *entry)
{
    uint64_t place;

    do {
        place = (entry->offset + entry->skip * entry->next++) % table->size;
    } while (table->places[place] != PLACE_FREE);
    return place;
}

static struct kb_hash_table *maglev_build(const struct kb_lb_config *base,
                                          const struct kb_hash_hosts *hosts)
{
    const struct maglev_config *config = (const struct maglev_config *)base;
    struct maglev_table *table =
        kb_malloc(sizeof(*table) + config->size * sizeof(table->places[0]));
    struct maglev_entry *entries = entries_make(hosts, config->size);
    uint64_t filled = 0;

    table->head = (struct kb_hash_table){.shares = NULL};
    table->size = config->size;
    table->hosts = kb_malloc(hosts->count * sizeof(table->hosts[0]));
    memset(table->places, 0xff, config->size * sizeof(table->places[0]));
    for (uint32_t i = 0; i < hosts->count; i++) {
        table->hosts[i] = entries[i].host->host;
    }
    for (uint64_t round = 1; filled < config->size; round++) {
        for (uint32_t i = 0; i < hosts->count && filled < config->size; i++) {
            if ((double)round * entries[i].host->weight < entries[i].target) {
                continue; /* its weight has had its share so far */
            }
            entries[i].target += hosts->max_weight;
            table->places[place_take(table, &entries[i])] = i;
            filled++;
        }
    }
    free(entries);
    return &table->head;
}

static struct kb_host *maglev_pick(const struct kb_hash_table *base, uint64_t hash,
                                   uint32_t attempt)
{
    const struct maglev_table *table = (const struct maglev_table *)base;

    if (attempt > 0) {
        hash ^= ~(uint64_t)0 - attempt + 1;
    }
    return table->hosts[table->places[hash % table->size]];
}

static void maglev_destroy(struct kb_hash_table *base)
{
    struct maglev_table *table = (struct maglev_table *)base;

    free(table->hosts);
    free(table);
}

static const struct kb_hash_table_ops maglev_tables = {maglev_build, maglev_pick, maglev_destroy};

static struct kb_lb *maglev_create(struct kb_cluster_local *local,
                                   const struct kb_lb_config *config,
                                   const struct kb_priority_set *set)
{
    return kb_lb_hash_create(local, config, set, &kb_lb_maglev, &maglev_tables);
}

const struct kb_lb_ops kb_lb_maglev = {
    .name = "envoy.load_balancing_policies.maglev",
    .type_url = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
    .config_create = maglev_config_create,
    .config_destroy = maglev_config_destroy,
    .create = maglev_create,
    .hosts_changed = kb_lb_hash_hosts_changed,
    .choose_host = kb_lb_hash_choose_host,
    .destroy = kb_lb_hash_destroy,
};
