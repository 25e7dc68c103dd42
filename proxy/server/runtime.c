/* SPDX-License-Identifier: Apache-2.0 */
/* Runtime snapshots: the layers flattened to "a.b.c" keys, the last layer that has a key wins. How
 * text, numbers and fractions are read is Envoy's Runtime::SnapshotImpl. */
#include "proxy/server/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/vec.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/stats.h"

#define NAME_MAX_BYTES 1024
#define DEPTH_MAX      32
/* More than any operator sets by hand, and few enough to copy. */
#define OVERRIDES_MAX  1024

struct entry {
    struct kb_str key;
    struct kb_str *layer_values; /* one per layer */
    struct kb_str final_value;
    uint64_t u64;
    uint32_t numerator, denominator;
    bool has_u64;
    bool has_number;
    double number;
    bool has_fraction;
    bool is_bool, truth;
};

struct snapshot {
    struct kb_arena arena;
    struct kb_map by_key; /* of struct entry */
    struct entry **sorted;
    size_t count;
    /* Until it can be freed. */
    struct kb_worker *main;
    uint32_t workers_left;
};

struct override {
    char *key;
    char *value;
};

struct runtime {
    struct kb_runtime api;
    KB_OBJ;
    const Envoy__Config__Bootstrap__V3__LayeredRuntime *message;
    struct kb_server_context *server;
    struct kb_stat_group *stats;
    struct snapshot *current; /* atomic: stored by main, loaded by workers */
    KB_VEC(struct override) overrides;
    ptrdiff_t admin_layer; /* -1: none */
};
KB_OBJ_MAGIC(runtime, 0x52554e54);

static struct runtime *runtime_of(const struct kb_runtime *api)
{
    struct runtime *runtime =
        KB_CONTAINER_OF((struct kb_runtime *)(uintptr_t)api, struct runtime, api);

    KB_ASSERT(runtime->kb_magic == (uint32_t)KB_MAGIC_runtime);
    return runtime;
}

static const struct entry *entry_find(const struct kb_runtime *api, struct kb_str key)
{
    const struct snapshot *snapshot = __atomic_load_n(&runtime_of(api)->current, __ATOMIC_ACQUIRE);

    return snapshot->count == 0 ? NULL : kb_map_get(&snapshot->by_key, key);
}

static bool runtime_feature_enabled(const struct kb_runtime *api, struct kb_str key,
                                    uint32_t numerator, uint32_t denominator, uint64_t random)
{
    const struct entry *entry = entry_find(api, key);

    if (entry != NULL && entry->has_fraction) {
        return random % entry->denominator < entry->numerator;
    }
    if (entry != NULL && entry->has_u64) {
        return random % 100 < entry->u64;
    }
    return random % denominator < numerator;
}

static uint64_t runtime_get_u64(const struct kb_runtime *api, struct kb_str key, uint64_t absent)
{
    const struct entry *entry = entry_find(api, key);

    return entry != NULL && entry->has_u64 ? entry->u64 : absent;
}

static double runtime_get_double(const struct kb_runtime *api, struct kb_str key, double absent)
{
    const struct entry *entry = entry_find(api, key);

    return entry != NULL && entry->has_number ? entry->number : absent;
}

/* Words are neither, as in Envoy, nor are numbers that are no int; others are true unless 0. */
static bool runtime_get_bool(const struct kb_runtime *api, struct kb_str key, bool absent)
{
    const struct entry *entry = entry_find(api, key);

    return entry != NULL && entry->is_bool ? entry->truth : absent;
}

static const struct kb_runtime_ops ops = {
    .feature_enabled = runtime_feature_enabled,
    .get_u64 = runtime_get_u64,
    .get_double = runtime_get_double,
    .get_bool = runtime_get_bool,
};

static void entry_set_number(struct entry *entry, double number)
{
    entry->has_number = true;
    entry->number = number;
    entry->has_u64 = number >= 0 && number < 18446744073709551616.0;
    entry->u64 = entry->has_u64 ? (uint64_t)number : 0;
    entry->is_bool = number >= INT32_MIN && number < INT32_MAX && trunc(number) == number;
    entry->truth = number < 0 || number > 0;
}

/* The entry of that key, made when it is new, with its value of `layer` set to `text`. */
static struct entry *entry_set(struct snapshot *snapshot, size_t layer_count, size_t layer,
                               struct kb_str key, struct kb_str text)
{
    struct entry *entry = kb_map_get(&snapshot->by_key, key);

    if (entry == NULL) {
        entry = KB_ARENA_NEW(&snapshot->arena, struct entry);
        entry->key = kb_str_dup(&snapshot->arena, key);
        entry->layer_values =
            kb_arena_calloc(&snapshot->arena, layer_count * sizeof(struct kb_str));
        kb_map_put(&snapshot->by_key, entry->key, entry);
    }
    text = kb_str_dup(&snapshot->arena, text);
    entry->layer_values[layer] = text;
    entry->final_value = text;
    entry->has_u64 = false;
    entry->has_number = false;
    entry->has_fraction = false;
    entry->is_bool = false;
    return entry;
}

static void entry_set_text(struct entry *entry, struct kb_str text)
{
    double number;

    if (kb_str_to_double(text, &number) == 0) {
        entry_set_number(entry, number);
    }
}

/* Walks the layers' Structs into a snapshot; reports with diag unless it is NULL. */
struct builder {
    struct snapshot *snapshot;
    struct kb_diag *diag;
    size_t layer_count;
    size_t layer;
    char key[NAME_MAX_BYTES];
};

/* {"numerator": 30, "denominator": "TEN_THOUSAND"}: envoy.type.v3.FractionalPercent. False when it
 * is not one. */
static bool fraction_add(struct builder *builder, size_t key_len,
                         const Google__Protobuf__Struct *fields)
{
    const Google__Protobuf__Value *numerator = kb_struct_get(fields, KB_STR("numerator"));
    const Google__Protobuf__Value *denominator = kb_struct_get(fields, KB_STR("denominator"));
    const char *name = "HUNDRED";
    double number = 0;
    struct entry *entry;
    uint32_t base = 100;
    struct kb_str text;

    if (numerator != NULL) {
        number = numerator->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE
                     ? numerator->number_value
                     : -1;
    }
    if (denominator != NULL) {
        name = denominator->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE
                   ? denominator->string_value
                   : "";
    }
    if (strcmp(name, "TEN_THOUSAND") == 0) {
        base = 10000;
    } else if (strcmp(name, "MILLION") == 0) {
        base = 1000000;
    } else if (strcmp(name, "HUNDRED") != 0) {
        return false;
    }
    if (number < 0 || number > UINT32_MAX) {
        return false;
    }
    text = kb_str_printf(&builder->snapshot->arena, "{\"numerator\":%u,\"denominator\":\"%s\"}",
                         (uint32_t)number, name);
    entry = entry_set(builder->snapshot, builder->layer_count, builder->layer,
                      kb_str_make(builder->key, key_len), text);
    entry->has_fraction = true;
    entry->numerator = (uint32_t)number;
    entry->denominator = base;
    return true;
}

/* A number as it is written in a configuration: without a fraction when it has none. */
static struct kb_str number_text(struct kb_arena *arena, double number)
{
    if (number == floor(number) && fabs(number) < 1e15) {
        return kb_str_printf(arena, "%.0f", number);
    }
    for (int digits = 6; digits < 17; digits++) {
        struct kb_str text = kb_str_printf(arena, "%.*g", digits, number);
        double back;

        if (kb_str_to_double(text, &back) == 0 && memcmp(&back, &number, sizeof(back)) == 0) {
            return text;
        }
    }
    return kb_str_printf(arena, "%.17g", number);
}

static void invalid_value(struct builder *builder, size_t key_len)
{
    if (builder->diag != NULL) {
        kb_diag_error_hint(
            builder->diag,
            KB_STR("a runtime value is a number, a text, true or false, an object of those, or a "
                   "fraction with numerator and denominator"),
            "Invalid runtime entry value for %.*s", (int)key_len, builder->key);
    }
}

static void struct_add(struct builder *builder, size_t key_len,
                       const Google__Protobuf__Struct *fields, unsigned depth);

static void value_add(struct builder *builder, size_t key_len, const Google__Protobuf__Value *value,
                      unsigned depth)
{
    struct kb_str key = kb_str_make(builder->key, key_len);
    struct kb_arena *arena = &builder->snapshot->arena;
    struct entry *entry;
    struct kb_str text;

    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        text = number_text(arena, value->number_value);
        entry_set_number(
            entry_set(builder->snapshot, builder->layer_count, builder->layer, key, text),
            value->number_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        text = kb_str_from_cstr(value->string_value);
        entry_set_text(
            entry_set(builder->snapshot, builder->layer_count, builder->layer, key, text), text);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        text = value->bool_value ? KB_STR("true") : KB_STR("false");
        entry = entry_set(builder->snapshot, builder->layer_count, builder->layer, key, text);
        entry->is_bool = true;
        entry->truth = value->bool_value;
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        if (kb_struct_get(value->struct_value, KB_STR("numerator")) != NULL ||
            kb_struct_get(value->struct_value, KB_STR("denominator")) != NULL) {
            if (!fraction_add(builder, key_len, value->struct_value)) {
                invalid_value(builder, key_len);
            }
            return;
        }
        struct_add(builder, key_len, value->struct_value, depth + 1);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    default:
        invalid_value(builder, key_len);
    }
}

static void struct_add(struct builder *builder, size_t key_len,
                       const Google__Protobuf__Struct *fields, unsigned depth)
{
    for (size_t i = 0; i < fields->n_fields; i++) {
        const Google__Protobuf__Struct__FieldsEntry *field = fields->fields[i];
        size_t room = sizeof(builder->key) - key_len;
        int n = snprintf(builder->key + key_len, room, "%s%s", key_len > 0 ? "." : "", field->key);

        if (builder->diag != NULL) {
            kb_diag_push_key(builder->diag, kb_str_from_cstr(field->key));
        }
        if (n < 0 || (size_t)n >= room || depth > DEPTH_MAX) {
            if (builder->diag != NULL) {
                kb_diag_error(builder->diag,
                              "the runtime key is longer than %d bytes or nested too deeply",
                              NAME_MAX_BYTES - 1);
            }
        } else if (field->value == NULL) {
            invalid_value(builder, key_len + (size_t)n);
        } else {
            value_add(builder, key_len + (size_t)n, field->value, depth);
        }
        if (builder->diag != NULL) {
            kb_diag_pop(builder->diag);
        }
    }
}

static int entry_compare(const void *a, const void *b)
{
    return kb_str_cmp((*(struct entry *const *)a)->key, (*(struct entry *const *)b)->key);
}

static struct snapshot *snapshot_build(struct runtime *runtime, struct kb_diag *diag)
{
    struct snapshot *snapshot = kb_calloc(1, sizeof(*snapshot));
    struct builder builder = {
        .snapshot = snapshot, .diag = diag, .layer_count = kb_runtime_layer_count(&runtime->api)};
    size_t i = 0;

    kb_arena_init(&snapshot->arena, NULL);
    kb_map_init(&snapshot->by_key);
    for (; builder.layer < builder.layer_count; builder.layer++) {
        const Envoy__Config__Bootstrap__V3__RuntimeLayer *layer =
            runtime->message->layers[builder.layer];

        if (layer->layer_specifier_case ==
            ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER) {
            if (diag != NULL) {
                kb_diag_push_index(diag, "layers", builder.layer);
                kb_diag_push(diag, "static_layer");
            }
            struct_add(&builder, 0, layer->static_layer, 0);
            if (diag != NULL) {
                kb_diag_pop(diag);
                kb_diag_pop(diag);
            }
        }
        if ((ptrdiff_t)builder.layer == runtime->admin_layer) {
            KB_VEC_FOREACH (override, &runtime->overrides) {
                struct kb_str value = kb_str_from_cstr(override->value);

                entry_set_text(entry_set(snapshot, builder.layer_count, builder.layer,
                                         kb_str_from_cstr(override->key), value),
                               value);
            }
        }
    }
    snapshot->count = snapshot->by_key.len;
    snapshot->sorted =
        kb_arena_calloc(&snapshot->arena, KB_MAX(snapshot->count, 1U) * sizeof(struct entry *));
    KB_MAP_FOREACH (e, &snapshot->by_key) {
        snapshot->sorted[i++] = e->value;
    }
    qsort(snapshot->sorted, snapshot->count, sizeof(struct entry *), entry_compare);
    return snapshot;
}

static void snapshot_free(struct snapshot *snapshot)
{
    kb_map_dispose(&snapshot->by_key);
    kb_arena_dispose(&snapshot->arena);
    free(snapshot);
}

static void snapshot_free_posted(void *arg)
{
    snapshot_free(arg);
}

/* On a worker, between two events: it reads the new snapshot from now on. */
static void worker_passed(void *arg)
{
    struct snapshot *snapshot = arg;

    if (__atomic_sub_fetch(&snapshot->workers_left, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_loop_post(&snapshot->main->loop, snapshot_free_posted, snapshot);
    }
}

static void snapshot_retire(struct runtime *runtime, struct snapshot *snapshot)
{
    struct kb_server_context *server = runtime->server;
    uint32_t running = 0;

    for (uint32_t i = 0; i < server->worker_count; i++) {
        running += server->workers[i].started;
    }
    if (running == 0) {
        snapshot_free(snapshot);
        return;
    }
    snapshot->main = server->main;
    snapshot->workers_left = running;
    for (uint32_t i = 0; i < server->worker_count; i++) {
        if (server->workers[i].started) {
            kb_loop_post(&server->workers[i].loop, worker_passed, snapshot);
        }
    }
}

static void stats_update(struct runtime *runtime)
{
    struct kb_stat_block *block = kb_stat_group_block(runtime->stats, runtime->server->main->index);

    kb_stat_inc(block, KB_STAT_RUNTIME_LOAD_SUCCESS);
    kb_stat_inc(block, KB_STAT_RUNTIME_OVERRIDE_DIR_NOT_EXISTS);
    kb_stat_gauge_set(block, KB_STAT_RUNTIME_NUM_KEYS, runtime->current->count);
    kb_stat_gauge_set(block, KB_STAT_RUNTIME_NUM_LAYERS, kb_runtime_layer_count(&runtime->api));
    kb_stat_gauge_set(block, KB_STAT_RUNTIME_ADMIN_OVERRIDES_ACTIVE, runtime->overrides.len > 0);
}

/* Names of layers are unique, there is one admin layer, and what is not implemented is not taken
 * for set. */
static void layers_check(struct runtime *runtime, struct kb_diag *diag)
{
    for (size_t i = 0; i < kb_runtime_layer_count(&runtime->api); i++) {
        const Envoy__Config__Bootstrap__V3__RuntimeLayer *layer = runtime->message->layers[i];

        kb_diag_push_index(diag, "layers", i);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(layer->name, runtime->message->layers[j]->name) == 0) {
                kb_diag_error(diag, "Duplicate layer name: %s", layer->name);
                break;
            }
        }
        if (layer->layer_specifier_case ==
            ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_ADMIN_LAYER) {
            if (runtime->admin_layer >= 0) {
                kb_diag_error(diag, "Too many admin layers specified in LayeredRuntime, at most "
                                    "one may be specified");
            }
            runtime->admin_layer = (ptrdiff_t)i;
        } else if (layer->layer_specifier_case ==
                   ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_RTDS_LAYER) {
            kb_diag_push(diag, "rtds_layer");
            kb_diag_error_hint(
                diag, KB_STR("use a static_layer"),
                "runtime from a control plane is not implemented, and its values would be missing");
            kb_diag_pop(diag);
        }
        kb_diag_pop(diag);
    }
}

static void runtime_keys_note(struct runtime *runtime)
{
    uint32_t letters = 0;

    for (size_t i = 0; i < runtime->current->count; i++) {
        letters |= kb_runtime_letter(runtime->current->sorted[i]->key);
    }
    __atomic_store_n(&runtime->api.first_letters, letters, __ATOMIC_RELAXED);
}

struct kb_runtime *kb_runtime_create(const Envoy__Config__Bootstrap__V3__LayeredRuntime *message,
                                     struct kb_server_context *server, struct kb_diag *diag)
{
    struct runtime *runtime = kb_calloc(1, sizeof(*runtime));

    KB_OBJ_SET(runtime, runtime);
    runtime->api.ops = &ops;
    runtime->message = message;
    runtime->server = server;
    runtime->admin_layer = -1;
    kb_vec_init(&runtime->overrides);
    runtime->stats =
        kb_stat_group_create(server->stats, KB_STR("runtime."), &kb_stat_schema_runtime);
    layers_check(runtime, diag);
    runtime->current = snapshot_build(runtime, diag);
    runtime_keys_note(runtime);
    stats_update(runtime);
    return &runtime->api;
}

void kb_runtime_destroy(struct kb_runtime *api)
{
    struct runtime *runtime;

    if (api == NULL) {
        return;
    }
    runtime = runtime_of(api);
    snapshot_free(runtime->current);
    KB_VEC_FOREACH (override, &runtime->overrides) {
        free(override->key);
        free(override->value);
    }
    kb_vec_dispose(&runtime->overrides);
    kb_stat_group_destroy(runtime->stats);
    KB_OBJ_CLEAR(runtime);
    free(runtime);
}

void kb_runtime_reload(struct kb_runtime *api)
{
    struct runtime *runtime = runtime_of(api);
    struct snapshot *old = runtime->current;

    __atomic_store_n(&runtime->current, snapshot_build(runtime, NULL), __ATOMIC_RELEASE);
    runtime_keys_note(runtime);
    snapshot_retire(runtime, old);
    stats_update(runtime);
}

bool kb_runtime_has_admin_layer(const struct kb_runtime *api)
{
    return runtime_of(api)->admin_layer >= 0;
}

int kb_runtime_set_override(struct kb_runtime *api, struct kb_str key, struct kb_str value)
{
    struct runtime *runtime = runtime_of(api);
    struct override added;

    if (runtime->admin_layer < 0) {
        return KB_ENOTFOUND;
    }
    for (size_t i = 0; i < runtime->overrides.len; i++) {
        struct override *override = &runtime->overrides.items[i];

        if (!kb_str_eq(kb_str_from_cstr(override->key), key)) {
            continue;
        }
        free(override->value);
        override->value = kb_str_to_cstr(value);
        if (value.len == 0) {
            free(override->key);
            free(override->value);
            *override = runtime->overrides.items[--runtime->overrides.len];
        }
        return 0;
    }
    if (value.len == 0) {
        return 0;
    }
    if (runtime->overrides.len >= OVERRIDES_MAX || key.len >= NAME_MAX_BYTES) {
        return KB_ELIMIT;
    }
    added.key = kb_str_to_cstr(key);
    added.value = kb_str_to_cstr(value);
    kb_vec_push(&runtime->overrides, added);
    return 0;
}

size_t kb_runtime_layer_count(const struct kb_runtime *api)
{
    const struct runtime *runtime = runtime_of(api);

    return runtime->message != NULL ? runtime->message->n_layers : 0;
}

struct kb_str kb_runtime_layer_name(const struct kb_runtime *api, size_t layer)
{
    return kb_str_from_cstr(runtime_of(api)->message->layers[layer]->name);
}

void kb_runtime_visit(const struct kb_runtime *api, kb_runtime_visit_fn visit, void *arg)
{
    const struct snapshot *snapshot = runtime_of(api)->current;

    for (size_t i = 0; i < snapshot->count; i++) {
        const struct entry *entry = snapshot->sorted[i];

        visit(arg, entry->key, entry->layer_values, entry->final_value);
    }
}
