/* SPDX-License-Identifier: Apache-2.0 */
/* Building tables of subsets: each host says by its metadata in which subsets it is; from their
 * lists of hosts the subsets become priority sets of their own, with health, loads and localities.
 */
#include "proxy/upstream/subset_table.h"

#include <math.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/vec.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/upstream/metadata_criteria.h"

/* Hosts of one subset in one locality (or priority, when localities are not looked at). */
struct part {
    uint32_t priority;
    uint32_t locality; /* UINT32_MAX: all */
    KB_VEC(struct kb_host *) hosts;
};

struct building {
    struct kb_str key;
    uint64_t id;
    bool single_host;
    struct kb_host *single;
    uint32_t single_priority; /* in which a host was last found for it, + 1 */
    KB_VEC(struct part) parts;
};

struct builder {
    const struct kb_subset_rules *rules;
    const struct kb_priority_set *set;
    struct kb_arena arena;
    struct kb_map map; /* key -> struct building */
    KB_VEC(struct building *) all;
    struct building any, fallback;
    const struct kb_shared_text *seen; /* whose metadata is `metadata` */
    const Google__Protobuf__Struct *metadata;
    uint32_t priority, locality; /* where we are */
    uint32_t duplicates;
    bool cut_short;
};

/* The bytes of the items so far, one for each combination of values. */
struct combination {
    struct kb_str key;
};
typedef KB_VEC(struct combination) combinations;

/* ---- hosts into subsets ---- */

static void part_add(struct building *to, const struct builder *builder, struct kb_host *host)
{
    struct part *last = to->parts.len == 0 ? NULL : &to->parts.items[to->parts.len - 1];

    if (last == NULL || last->priority != builder->priority ||
        last->locality != builder->locality) {
        struct part part = {.priority = builder->priority, .locality = builder->locality};

        kb_vec_push(&to->parts, part);
        last = &to->parts.items[to->parts.len - 1];
    }
    if (last->hosts.len == 0 || last->hosts.items[last->hosts.len - 1] != host) {
        kb_vec_push(&last->hosts, host); /* once, though two selectors have the same keys */
    }
}

static void host_add(struct builder *builder, const struct kb_subset_selector *selector,
                     struct kb_str key, struct kb_host *host)
{
    struct building *to = kb_map_get(&builder->map, key);

    if (to == NULL) {
        to = KB_ARENA_NEW(&builder->arena, struct building);
        to->key = key;
        to->single_host = selector->single_host;
        kb_map_put(&builder->map, key, to);
        kb_vec_push(&builder->all, to);
    }
    if (!to->single_host) {
        part_add(to, builder, host);
    } else if (to->single_priority == builder->priority + 1) {
        builder->duplicates++;
    } else {
        to->single_priority = builder->priority + 1;
        to->single = to->single == NULL ? host : to->single; /* of the lowest priority */
    }
}

static struct kb_str key_append(struct builder *builder, struct kb_str key, struct kb_str item)
{
    char *both;

    if (key.len == 0) {
        return item;
    }
    both = kb_arena_alloc(&builder->arena, key.len + item.len, 1);
    memcpy(both, key.p, key.len);
    memcpy(both + key.len, item.p, item.len);
    return kb_str_make(both, key.len + item.len);
}

/* Each combination so far, with each of the values. As in Envoy, an empty list at the beginning
 * leaves nothing behind, so that the next key begins anew. */
static void combinations_extend(struct builder *builder, combinations *now, struct kb_str name,
                                Google__Protobuf__Value *const *values, size_t count)
{
    combinations next;

    kb_vec_init(&next);
    for (size_t k = 0; k < KB_MAX(now->len, 1); k++) {
        struct kb_str before = now->len == 0 ? KB_STR("") : now->items[k].key;

        for (size_t i = 0; i < count; i++) {
            struct combination one;

            if (next.len == KB_SUBSETS_PER_HOST_MAX) {
                builder->cut_short = true;
                break;
            }
            one.key = key_append(builder, before,
                                 kb_metadata_item_bytes(name, values[i], &builder->arena));
            kb_vec_push(&next, one);
        }
    }
    kb_vec_dispose(now);
    *now = next;
}

/* In which subsets of a selector the host is. */
static void selector_apply(struct builder *builder, const struct kb_subset_selector *selector,
                           struct kb_host *host)
{
    combinations now;

    kb_vec_init(&now);
    for (uint32_t i = 0; i < selector->key_count; i++) {
        const Google__Protobuf__Value *value = kb_struct_get(builder->metadata, selector->keys[i]);
        Google__Protobuf__Value *one = (Google__Protobuf__Value *)(uintptr_t)value;

        if (value == NULL) {
            kb_vec_dispose(&now);
            return;
        }
        if (builder->rules->list_as_any &&
            value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
            combinations_extend(builder, &now, selector->keys[i], value->list_value->values,
                                value->list_value->n_values);
        } else {
            combinations_extend(builder, &now, selector->keys[i], &one, 1);
        }
    }
    KB_VEC_FOREACH (one, &now) {
        host_add(builder, selector, one->key, host);
    }
    kb_vec_dispose(&now);
}

static bool values_equal(const Google__Protobuf__Value *a, const Google__Protobuf__Value *b,
                         struct kb_arena *arena)
{
    return kb_str_eq(kb_metadata_value_bytes(a, arena), kb_metadata_value_bytes(b, arena));
}

static bool default_wants(struct builder *builder, const Google__Protobuf__Struct *wanted)
{
    for (size_t i = 0; i < wanted->n_fields; i++) {
        const Google__Protobuf__Value *value = wanted->fields[i]->value;
        const Google__Protobuf__Value *found =
            builder->metadata == NULL
                ? NULL
                : kb_struct_get(builder->metadata, kb_str_from_cstr(wanted->fields[i]->key));
        bool equal = false;

        if (found == NULL) {
            return false;
        }
        if (!builder->rules->list_as_any ||
            found->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
            equal = values_equal(found, value, &builder->arena);
        } else {
            for (size_t k = 0; !equal && k < found->list_value->n_values; k++) {
                equal = values_equal(found->list_value->values[k], value, &builder->arena);
            }
        }
        if (!equal) {
            return false;
        }
    }
    return true;
}

static void host_divide(struct builder *builder, struct kb_host *host)
{
    const struct kb_subset_rules *rules = builder->rules;

    if (host->metadata == NULL || host->metadata != builder->seen) {
        builder->seen = host->metadata;
        builder->metadata =
            kb_packed_metadata_get(kb_host_metadata(host), KB_STR(KB_METADATA_LB), &builder->arena);
    }
    if (rules->wants_any) {
        part_add(&builder->any, builder, host);
    }
    if (rules->default_subset != NULL && default_wants(builder, rules->default_subset)) {
        part_add(&builder->fallback, builder, host);
    }
    for (uint32_t i = 0; builder->metadata != NULL && i < rules->selector_count; i++) {
        selector_apply(builder, &rules->selectors[i], host);
    }
}

static void list_divide(struct builder *builder, const struct kb_host_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        host_divide(builder, list->hosts[i]);
    }
}

static void hosts_divide(struct builder *builder)
{
    const struct kb_priority_set *set = builder->set;

    for (uint32_t p = 0; p < set->count; p++) {
        bool localities = set->sets[p].locality_count > 0 && !builder->rules->drop_localities;

        builder->priority = p;
        builder->locality = UINT32_MAX;
        builder->duplicates = 0; /* Envoy's gauge has those of the last priority */
        if (!localities) {
            list_divide(builder, &set->sets[p].all);
        }
        for (uint32_t i = 0; localities && i < set->sets[p].locality_count; i++) {
            builder->locality = i;
            list_divide(builder, &set->sets[p].localities[i].all);
        }
    }
}

/* ---- subsets into priority sets ---- */

static uint32_t part_weight(const struct builder *builder, const struct part *part)
{
    const struct kb_host_locality *from;

    if (part->locality == UINT32_MAX || !builder->rules->locality_weight_aware) {
        return 0;
    }
    from = &builder->set->sets[part->priority].localities[part->locality];
    if (!builder->rules->scale_locality_weight || from->all.count == 0) {
        return from->weight;
    }
    return (uint32_t)roundf((float)((uint64_t)from->weight * part->hosts.len) /
                            (float)from->all.count);
}

static struct kb_priority_set *set_make(const struct builder *builder,
                                        const struct building *building)
{
    size_t count = building->parts.len;
    struct kb_host_group *groups = kb_calloc(count + 1, sizeof(*groups));
    struct kb_priority_policy policy = *builder->rules->policy;
    struct kb_priority_set *set;

    policy.keep_localities = policy.keep_localities && !builder->rules->drop_localities;
    for (size_t i = 0; i < count; i++) {
        const struct part *part = &building->parts.items[i];

        groups[i].priority = part->priority;
        groups[i].locality_weight = part_weight(builder, part);
        groups[i].hosts = part->hosts.items;
        groups[i].count = (uint32_t)part->hosts.len;
    }
    set = kb_priority_set_create(builder->set->cluster, groups, count, &policy);
    free(groups);
    return set;
}

static void building_dispose(struct building *building)
{
    KB_VEC_FOREACH (part, &building->parts) {
        kb_vec_dispose(&part->hosts);
    }
    kb_vec_dispose(&building->parts);
}

/* ---- tables ---- */

static int id_cmp(const void *a, const void *b)
{
    uint64_t x = (*(struct building *const *)a)->id, y = (*(struct building *const *)b)->id;

    return x < y ? -1 : x > y;
}

/* Subsets that were there before keep their ids. */
static void ids_give(struct builder *builder, struct kb_subset_table *table,
                     const struct kb_subset_table *before)
{
    table->next_id = before == NULL ? 3 : before->next_id;
    builder->any.id = 1;
    builder->fallback.id = 2;
    KB_VEC_FOREACH (at, &builder->all) {
        struct building *building = *at;
        uint32_t old = before == NULL ? KB_SUBSET_NONE
                                      : kb_subset_table_find(before, building->key,
                                                             kb_map_hash(building->key));

        if (old == KB_SUBSET_NONE) {
            building->id = table->next_id++;
            table->created++;
        } else {
            building->id = before->subsets[old].id;
        }
    }
    table->selected_count = (uint32_t)builder->all.len;
    table->removed =
        (before == NULL ? 0 : before->selected_count) + table->created - table->selected_count;
    if (builder->all.len > 1) {
        qsort(builder->all.items, builder->all.len, sizeof(builder->all.items[0]), id_cmp);
    }
}

static uint32_t subset_add(struct kb_subset_table *table, const struct builder *builder,
                           const struct building *building, char **text)
{
    struct kb_subset *subset = &table->subsets[table->count];

    subset->id = building->id;
    if (building->key.len > 0) {
        memcpy(*text, building->key.p, building->key.len);
        subset->key = kb_str_make(*text, building->key.len);
        *text += building->key.len;
    }
    subset->single = building->single;
    subset->set = building->single != NULL ? NULL : set_make(builder, building);
    return table->count++;
}

static void slot_put(struct kb_subset_table *table, uint32_t index)
{
    uint32_t hash = (uint32_t)kb_map_hash(table->subsets[index].key);
    uint32_t at = hash & table->slot_mask;

    while (table->slots[at].index != KB_SUBSET_NONE) {
        at = (at + 1) & table->slot_mask;
    }
    table->slots[at].hash = hash;
    table->slots[at].index = index;
}

static void table_fill(struct kb_subset_table *table, const struct builder *builder)
{
    size_t bytes = 0, slots = 4;
    char *text;

    KB_VEC_FOREACH (at, &builder->all) {
        bytes += (*at)->key.len;
    }
    while (slots < 2 * builder->all.len) {
        slots *= 2;
    }
    table->subsets = kb_calloc(builder->all.len + 2, sizeof(table->subsets[0]));
    table->texts = text = kb_malloc(bytes + 1);
    table->slots = kb_malloc(slots * sizeof(table->slots[0]));
    memset(table->slots, 0xff, slots * sizeof(table->slots[0]));
    table->slot_mask = (uint32_t)slots - 1;
    table->any = builder->rules->wants_any ? subset_add(table, builder, &builder->any, &text)
                                           : KB_SUBSET_NONE;
    table->fallback = builder->rules->default_subset != NULL
                          ? subset_add(table, builder, &builder->fallback, &text)
                          : KB_SUBSET_NONE;
    KB_VEC_FOREACH (at, &builder->all) {
        slot_put(table, subset_add(table, builder, *at, &text));
    }
}

struct kb_subset_table *kb_subset_table_create(const struct kb_subset_rules *rules,
                                               const struct kb_priority_set *set,
                                               const struct kb_subset_table *before)
{
    struct kb_subset_table *table = kb_calloc(1, sizeof(*table));
    struct builder builder = {.rules = rules, .set = set};

    kb_arena_init(&builder.arena, NULL);
    kb_map_init(&builder.map);
    hosts_divide(&builder);
    ids_give(&builder, table, before);
    table->single_duplicates = builder.duplicates;
    table_fill(table, &builder);
    if (builder.cut_short) {
        KB_LOG(UPSTREAM, WARNING,
               "subsets: the lists in a host's metadata give rise to more than %u subsets of "
               "one selector; the others are left out",
               KB_SUBSETS_PER_HOST_MAX);
    }
    KB_VEC_FOREACH (at, &builder.all) {
        building_dispose(*at);
    }
    building_dispose(&builder.any);
    building_dispose(&builder.fallback);
    kb_vec_dispose(&builder.all);
    kb_map_dispose(&builder.map);
    kb_arena_dispose(&builder.arena);
    return table;
}

void kb_subset_table_destroy(struct kb_subset_table *table)
{
    for (uint32_t i = 0; i < table->count; i++) {
        if (table->subsets[i].set != NULL) {
            kb_priority_set_unref(table->subsets[i].set);
        }
    }
    free(table->subsets);
    free(table->slots);
    free(table->texts);
    free(table);
}

uint32_t kb_subset_table_find(const struct kb_subset_table *table, struct kb_str key, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & table->slot_mask;

    while (table->slots[at].index != KB_SUBSET_NONE) {
        const struct kb_subset_slot *slot = &table->slots[at];

        if (slot->hash == (uint32_t)hash && kb_str_eq(table->subsets[slot->index].key, key)) {
            return slot->index;
        }
        at = (at + 1) & table->slot_mask;
    }
    return KB_SUBSET_NONE;
}
