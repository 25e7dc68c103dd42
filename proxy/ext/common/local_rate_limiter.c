/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets by descriptor. A descriptor is found by a hash of 128 bits under a seed of its own, so
 * that what is kept of a value that a client chose has a fixed size. The buckets for values are
 * under a lock, which is held for a look-up; only who configures them pays for it. */
#include "proxy/ext/common/local_rate_limiter.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

#include "base/diag.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rand.h"
#include "envoy/extensions/common/ratelimit/v3/ratelimit.pb-c.h"

typedef Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor descriptor_message;

struct descriptor_key {
    unsigned char bytes[16];
};

struct described {
    struct descriptor_key key;
    struct kb_rate_entry *entries; /* a value that is empty is open */
    size_t count;
    struct kb_token_rate rate;
    bool shadow;
    bool open;
    size_t number; /* among the open ones, or among the others */
};

struct kb_rate_rules {
    KB_OBJ;
    uint32_t refs; /* atomic */
    uint64_t seed;
    struct kb_arena arena;
    struct kb_map exact; /* key -> struct described, those without open values */
    struct described *described;
    size_t count;
    size_t exact_count;
    size_t open_count;
    const struct described **open; /* in the order of the configuration */
    struct kb_token_rate rate;
    bool has_default;
    bool always_consume_default;
    uint32_t dynamic_max;
};
KB_OBJ_MAGIC(kb_rate_rules, 0x4c52554c);

struct kb_dynamic_bucket {
    struct kb_list link; /* the latest first; unlinked: dropped */
    struct descriptor_key key;
    uint32_t refs; /* atomic: the list, and streams */
    struct kb_token_bucket bucket;
};

/* Buckets for the values of one descriptor. */
struct values {
    struct kb_map map; /* key -> struct kb_dynamic_bucket */
    struct kb_list latest;
};

struct kb_rate_limiter {
    KB_OBJ;
    struct kb_rate_rules *rules;
    pthread_mutex_t lock;  /* of `values` */
    struct values *values; /* [open_count] */
    struct kb_token_bucket by_default;
    struct kb_token_bucket exact[]; /* [exact_count] */
};
KB_OBJ_MAGIC(kb_rate_limiter, 0x4c4c494d);

/* A bucket that concerns a request. */
struct match {
    const struct described *described;
    const struct kb_rate_descriptor *made;
    struct kb_token_bucket *bucket;
    struct kb_dynamic_bucket *held;
};

/* ---- rules ---- */

static void hash_text(XXH3_state_t *state, struct kb_str text)
{
    uint64_t len = text.len;

    XXH3_128bits_update(state, &len, sizeof(len));
    XXH3_128bits_update(state, text.p, text.len);
}

static struct descriptor_key key_of(uint64_t seed, const struct kb_rate_entry *entries,
                                    size_t count)
{
    XXH128_canonical_t canonical;
    struct descriptor_key key;
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    XXH3_128bits_reset_withSeed(&state, seed);
    for (size_t i = 0; i < count; i++) {
        hash_text(&state, entries[i].key);
        hash_text(&state, entries[i].value);
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(key.bytes, canonical.digest, sizeof(key.bytes));
    return key;
}

static struct kb_str key_text(const struct descriptor_key *key)
{
    return kb_str_make((const char *)key->bytes, sizeof(key->bytes));
}

/* "a=b, c=" */
static struct kb_str entries_text(const struct described *described, struct kb_arena *arena)
{
    struct kb_str text = KB_STR("");

    for (size_t i = 0; i < described->count; i++) {
        text = kb_str_printf(arena, "%.*s%s%.*s=%.*s", KB_STR_ARG(text), i > 0 ? ", " : "",
                             KB_STR_ARG(described->entries[i].key),
                             KB_STR_ARG(described->entries[i].value));
    }
    return text;
}

static bool key_taken(const struct kb_rate_rules *rules, const struct described *described)
{
    for (size_t i = 0; described->open && i < rules->open_count; i++) {
        if (memcmp(&rules->open[i]->key, &described->key, sizeof(described->key)) == 0) {
            return true;
        }
    }
    return !described->open && kb_map_get(&rules->exact, key_text(&described->key)) != NULL;
}

static void descriptor_read(struct kb_rate_rules *rules, const descriptor_message *m,
                            struct kb_diag *diag)
{
    struct described *described = &rules->described[rules->count++];

    described->count = m->n_entries;
    described->entries =
        kb_arena_calloc(&rules->arena, (m->n_entries + 1) * sizeof(*described->entries));
    for (size_t i = 0; i < m->n_entries; i++) {
        described->entries[i] = (struct kb_rate_entry){
            kb_str_dup(&rules->arena, kb_str_from_cstr(m->entries[i]->key)),
            kb_str_dup(&rules->arena, kb_str_from_cstr(m->entries[i]->value))};
        described->open |= m->entries[i]->value[0] == '\0';
    }
    described->key = key_of(rules->seed, described->entries, described->count);
    described->shadow = m->shadow_mode;
    kb_diag_push(diag, "token_bucket");
    if (m->token_bucket == NULL) {
        kb_diag_error(diag, "value is required");
    } else {
        kb_token_rate_read(&described->rate, m->token_bucket,
                           "local rate limit descriptor token bucket", diag);
    }
    kb_diag_pop(diag);
    if (key_taken(rules, described)) {
        kb_diag_error(diag, "duplicate descriptor in the local rate descriptor: %.*s",
                      KB_STR_ARG(entries_text(described, &rules->arena)));
    } else if (described->open) {
        described->number = rules->open_count;
        rules->open[rules->open_count++] = described;
    } else {
        described->number = rules->exact_count++;
        kb_map_put(&rules->exact, key_text(&described->key), described);
    }
}

struct kb_rate_rules *kb_rate_rules_create(const struct kb_rate_rules_config *config,
                                           struct kb_diag *diag)
{
    struct kb_rate_rules *rules = kb_calloc(1, sizeof(*rules));
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(rules, kb_rate_rules);
    rules->refs = 1;
    rules->seed = kb_rand_entropy();
    kb_arena_init(&rules->arena, NULL);
    kb_map_init(&rules->exact);
    rules->always_consume_default = config->always_consume_default;
    rules->dynamic_max = config->dynamic_max;
    rules->has_default = config->token_bucket != NULL;
    if (rules->has_default) {
        kb_diag_push(diag, "token_bucket");
        kb_token_rate_read(&rules->rate, config->token_bucket, "local rate limit token bucket",
                           diag);
        kb_diag_pop(diag);
    }
    rules->described =
        kb_arena_calloc(&rules->arena, (config->descriptor_count + 1) * sizeof(*rules->described));
    rules->open =
        kb_arena_calloc(&rules->arena, (config->descriptor_count + 1) * sizeof(struct described *));
    for (size_t i = 0; i < config->descriptor_count; i++) {
        kb_diag_push_index(diag, "descriptors", i);
        descriptor_read(rules, config->descriptors[i], diag);
        kb_diag_pop(diag);
    }
    if (diag->error_count > errors) {
        kb_rate_rules_unref(rules);
        return NULL;
    }
    return rules;
}

void kb_rate_rules_unref(struct kb_rate_rules *rules)
{
    if (rules != NULL && __atomic_sub_fetch(&rules->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_map_dispose(&rules->exact);
        kb_arena_dispose(&rules->arena);
        free(rules);
    }
}

/* ---- limiters ---- */

struct kb_rate_limiter *kb_rate_limiter_create(struct kb_rate_rules *rules, uint64_t now_ns)
{
    struct kb_rate_limiter *limiter =
        kb_calloc(1, sizeof(*limiter) + rules->exact_count * sizeof(limiter->exact[0]));

    KB_OBJ_SET(limiter, kb_rate_limiter);
    __atomic_add_fetch(&rules->refs, 1, __ATOMIC_RELAXED);
    limiter->rules = rules;
    kb_token_bucket_init(&limiter->by_default, &rules->rate, now_ns);
    for (size_t i = 0; i < rules->count; i++) {
        const struct described *described = &rules->described[i];

        if (!described->open) {
            kb_token_bucket_init(&limiter->exact[described->number], &described->rate, now_ns);
        }
    }
    if (rules->open_count > 0) {
        pthread_mutex_init(&limiter->lock, NULL);
        limiter->values = kb_calloc(rules->open_count, sizeof(*limiter->values));
        for (size_t i = 0; i < rules->open_count; i++) {
            kb_map_init(&limiter->values[i].map);
            kb_list_init(&limiter->values[i].latest);
        }
    }
    return limiter;
}

static void bucket_unref(struct kb_dynamic_bucket *held)
{
    if (__atomic_sub_fetch(&held->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(held);
    }
}

static void oldest_drop(struct values *values)
{
    struct kb_dynamic_bucket *oldest =
        KB_LIST_ENTRY(values->latest.prev, struct kb_dynamic_bucket, link);

    kb_list_unlink(&oldest->link);
    kb_map_remove(&values->map, key_text(&oldest->key));
    bucket_unref(oldest);
}

void kb_rate_limiter_destroy(struct kb_rate_limiter *limiter)
{
    if (limiter == NULL) {
        return;
    }
    for (size_t i = 0; i < limiter->rules->open_count; i++) {
        while (!kb_list_empty(&limiter->values[i].latest)) {
            oldest_drop(&limiter->values[i]);
        }
        kb_map_dispose(&limiter->values[i].map);
    }
    if (limiter->values != NULL) {
        pthread_mutex_destroy(&limiter->lock);
        free(limiter->values);
    }
    kb_rate_rules_unref(limiter->rules);
    free(limiter);
}

/* The bucket of these values, the latest now; made when there is none. Held for the caller. */
static struct kb_dynamic_bucket *value_find(struct kb_rate_limiter *limiter,
                                            const struct described *described,
                                            const struct descriptor_key *key, uint64_t now_ns)
{
    struct values *values = &limiter->values[described->number];
    struct kb_dynamic_bucket *held;

    pthread_mutex_lock(&limiter->lock);
    held = kb_map_get(&values->map, key_text(key));
    if (held != NULL) {
        kb_list_unlink(&held->link);
    } else {
        held = kb_malloc(sizeof(*held));
        held->key = *key;
        held->refs = 1;
        kb_token_bucket_init(&held->bucket, &described->rate, now_ns);
        if (values->map.len >= limiter->rules->dynamic_max) {
            oldest_drop(values);
        }
        kb_map_put(&values->map, key_text(&held->key), held);
    }
    kb_list_push_front(&values->latest, &held->link);
    __atomic_add_fetch(&held->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&limiter->lock);
    return held;
}

/* Keys are the same, and values where they are not open. */
static bool open_fits(const struct described *described, const struct kb_rate_descriptor *made)
{
    if (described->count != made->count) {
        return false;
    }
    for (size_t i = 0; i < made->count; i++) {
        const struct kb_rate_entry *entry = &described->entries[i];

        if (!kb_str_eq(entry->key, made->entries[i].key) ||
            (entry->value.len > 0 && !kb_str_eq(entry->value, made->entries[i].value))) {
            return false;
        }
    }
    return true;
}

static bool match_find(struct kb_rate_limiter *limiter, const struct kb_rate_descriptor *made,
                       uint64_t now_ns, struct match *match)
{
    const struct kb_rate_rules *rules = limiter->rules;
    struct descriptor_key key = key_of(rules->seed, made->entries, made->count);

    match->made = made;
    match->held = NULL;
    match->described = kb_map_get(&rules->exact, key_text(&key));
    if (match->described != NULL) {
        match->bucket = &limiter->exact[match->described->number];
        return true;
    }
    for (size_t i = 0; i < rules->open_count; i++) {
        if (open_fits(rules->open[i], made)) {
            match->described = rules->open[i];
            match->held = value_find(limiter, rules->open[i], &key, now_ns);
            match->bucket = &match->held->bucket;
            return true;
        }
    }
    return false;
}

/* The slowest first; what is as slow stays in order. */
static void match_insert(struct match *matches, size_t count, const struct match *match)
{
    size_t at = count;

    while (at > 0 && matches[at - 1].described->rate.per_ns > match->described->rate.per_ns) {
        matches[at] = matches[at - 1];
        at--;
    }
    matches[at] = *match;
}

static void decide(struct kb_rate_decision *decision, bool allowed, struct match *match)
{
    decision->allowed = allowed;
    decision->bucket = match->bucket;
    decision->shadow = !allowed && match->described->shadow;
    decision->x_rate_limit = match->made->x_rate_limit;
    decision->held = match->held;
    match->held = NULL;
}

static bool match_take(const struct match *match, double share, uint64_t now_ns)
{
    if (match->made->gives_back) {
        kb_token_bucket_give(match->bucket, now_ns, (double)match->made->hits);
        return true;
    }
    return kb_token_bucket_take(match->bucket, now_ns, (double)match->made->hits / share);
}

static void matches_take(struct kb_rate_limiter *limiter, struct match *matches, size_t count,
                         double share, uint64_t now_ns, struct kb_rate_decision *decision)
{
    const struct kb_rate_rules *rules = limiter->rules;
    struct match *watched = NULL; /* the first that only watches and would refuse */

    for (size_t i = 0; i < count; i++) {
        if (match_take(&matches[i], share, now_ns)) {
            continue;
        }
        if (!matches[i].described->shadow) {
            decide(decision, false, &matches[i]);
            return;
        }
        watched = watched != NULL ? watched : &matches[i];
    }
    if (rules->has_default && (count == 0 || rules->always_consume_default) &&
        !kb_token_bucket_take(&limiter->by_default, now_ns, 1 / share)) {
        decision->allowed = false;
        /* one of no tokens at all is nothing to tell of */
        decision->bucket = rules->rate.max > 0 ? &limiter->by_default : NULL;
    } else if (count > 0) {
        decide(decision, watched == NULL, watched != NULL ? watched : &matches[0]);
    } else if (rules->has_default) {
        decision->bucket = &limiter->by_default;
    }
}

void kb_rate_limiter_take(struct kb_rate_limiter *limiter, const struct kb_rate_descriptor *made,
                          size_t count, double share, uint64_t now_ns, struct kb_arena *arena,
                          struct kb_rate_decision *decision)
{
    struct match *matches = NULL;
    size_t found = 0;

    *decision = (struct kb_rate_decision){.allowed = true};
    if (count > 0) {
        matches = kb_arena_alloc(arena, count * sizeof(*matches), _Alignof(struct match));
    }
    for (size_t i = 0; i < count; i++) {
        struct match match;

        if (match_find(limiter, &made[i], now_ns, &match)) {
            match_insert(matches, found++, &match);
        }
    }
    matches_take(limiter, matches, found, share, now_ns, decision);
    for (size_t i = 0; i < found; i++) {
        if (matches[i].held != NULL) {
            bucket_unref(matches[i].held);
        }
    }
}

void kb_rate_decision_dispose(struct kb_rate_decision *decision)
{
    if (decision->held != NULL) {
        bucket_unref(decision->held);
        decision->held = NULL;
    }
    decision->bucket = NULL;
}

size_t kb_rate_limiter_dynamic_count(struct kb_rate_limiter *limiter)
{
    size_t count = 0;

    for (size_t i = 0; i < limiter->rules->open_count; i++) {
        pthread_mutex_lock(&limiter->lock);
        count += limiter->values[i].map.len;
        pthread_mutex_unlock(&limiter->lock);
    }
    return count;
}
