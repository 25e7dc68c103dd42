/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets of tokens under a clock that the test turns, taken from by several threads; and which
 * buckets a descriptor finds. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/diag.h"
#include "envoy/extensions/common/ratelimit/v3/ratelimit.pb-c.h"
#include "envoy/type/v3/token_bucket.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/ext/common/local_rate_limiter.h"

#define SECOND UINT64_C(1000000000)
#define START  (5000 * SECOND)

static struct kb_arena arena;
static struct kb_diag diag;

static int setup(void **state)
{
    (void)state;
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    return 0;
}

static void *message(const ProtobufCMessageDescriptor *type, const char *text)
{
    ProtobufCMessage *out = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("t.yaml"), kb_str_from_cstr(text), &diag) == 0) {
        out = kb_pb_from_doc(type, &doc, KB_PB_UNKNOWN_ERROR, &arena, &diag);
    }
    kb_doc_dispose(&doc);
    assert_non_null(out);
    return out;
}

static struct kb_token_bucket bucket_at(const char *text, uint64_t now_ns)
{
    struct kb_token_bucket bucket;
    struct kb_token_rate rate;

    kb_token_rate_read(&rate, message(&envoy__type__v3__token_bucket__descriptor, text),
                       "token bucket", &diag);
    assert_int_equal(diag.error_count, 0);
    kb_token_bucket_init(&bucket, &rate, now_ns);
    return bucket;
}

static unsigned take_all(struct kb_token_bucket *bucket, uint64_t now_ns)
{
    unsigned taken = 0;

    while (kb_token_bucket_take(bucket, now_ns, 1)) {
        taken++;
    }
    return taken;
}

static void test_refill(void **state)
{
    struct kb_token_bucket bucket =
        bucket_at("{max_tokens: 10, tokens_per_fill: 2, fill_interval: 1s}", START);

    (void)state;
    assert_int_equal(kb_token_bucket_left(&bucket, START), 10);
    assert_int_equal(take_all(&bucket, START), 10);
    assert_int_equal(kb_token_bucket_wait_s(&bucket, START), 1);
    assert_int_equal(take_all(&bucket, START + SECOND / 2 - 1000), 0);
    assert_int_equal(take_all(&bucket, START + SECOND / 2), 1);
    assert_int_equal(kb_token_bucket_left(&bucket, START + SECOND), 1);
    assert_int_equal(kb_token_bucket_wait_s(&bucket, START + SECOND), 0);
    assert_int_equal(take_all(&bucket, START + 3 * SECOND / 2), 2);
    assert_int_equal(take_all(&bucket, START + 100 * SECOND), 10);
}

static void test_many_and_parts(void **state)
{
    struct kb_token_bucket bucket = bucket_at("{max_tokens: 10, fill_interval: 1s}", START);

    (void)state;
    assert_false(kb_token_bucket_take(&bucket, START, 11));
    assert_false(kb_token_bucket_take(&bucket, START, 0));
    assert_false(kb_token_bucket_take(&bucket, START, -1));
    assert_true(kb_token_bucket_take(&bucket, START, 2.5));
    assert_int_equal(kb_token_bucket_left(&bucket, START), 7);
    assert_true(kb_token_bucket_take(&bucket, START, 7.5));
    assert_false(kb_token_bucket_take(&bucket, START, 0.5));
    kb_token_bucket_give(&bucket, START, 3);
    assert_int_equal(kb_token_bucket_left(&bucket, START), 3);
    kb_token_bucket_give(&bucket, START, 1e9);
    assert_int_equal(kb_token_bucket_left(&bucket, START), 10);
    kb_token_bucket_give(&bucket, START, 0);
    assert_int_equal(take_all(&bucket, START), 10);
}

/* A clock that jumps as far as it can, and one that is behind another's. */
static void test_clocks(void **state)
{
    struct kb_token_bucket bucket = bucket_at("{max_tokens: 3, fill_interval: 1s}", START);

    (void)state;
    assert_int_equal(take_all(&bucket, START), 3);
    assert_int_equal(take_all(&bucket, START - 10 * SECOND), 0);
    assert_int_equal(take_all(&bucket, 0), 0);
    assert_int_equal(take_all(&bucket, START), 0);
    assert_int_equal(take_all(&bucket, (uint64_t)INT64_MAX), 3);
    assert_int_equal(take_all(&bucket, START), 0);

    bucket = bucket_at("{max_tokens: 4294967295, fill_interval: 315576000000s}", 0);
    assert_int_equal(kb_token_bucket_left(&bucket, 0), 4294967295);
    assert_true(kb_token_bucket_take(&bucket, 0, 4294967295.0));
    assert_int_equal(kb_token_bucket_wait_s(&bucket, 0), 315576000000);

    bucket = bucket_at("{max_tokens: 4294967295, tokens_per_fill: 4294967295, "
                       "fill_interval: 0.05s}",
                       START);
    assert_int_equal(kb_token_bucket_left(&bucket, START), 4294967295);
    assert_true(kb_token_bucket_take(&bucket, START, 4294967295.0));
    assert_int_equal(kb_token_bucket_left(&bucket, START + SECOND / 20), 4294967295);

    bucket = bucket_at("{max_tokens: 0, fill_interval: 0.01s}", START);
    assert_int_equal(take_all(&bucket, START + 100 * SECOND), 0);
    assert_int_equal(kb_token_bucket_left(&bucket, START + 100 * SECOND), 0);
}

#define THREADS 4
#define TAKES   20000

static struct kb_token_bucket shared;

static void *taker(void *arg)
{
    unsigned *taken = arg;

    for (unsigned i = 0; i < TAKES; i++) {
        *taken += kb_token_bucket_take(&shared, START + i, 1);
    }
    return NULL;
}

/* Workers whose clocks differ take each token once. */
static void test_threads(void **state)
{
    pthread_t threads[THREADS];
    unsigned taken[THREADS] = {0}, sum = 0;

    (void)state;
    shared = bucket_at("{max_tokens: 30000, fill_interval: 3000s}", START);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, taker, &taken[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += taken[i];
    }
    assert_int_equal(sum, 30000);
}

/* ---- limiters ---- */

#define DESCRIPTORS_MAX 4

static struct kb_rate_limiter *limiter_create(const char *const *texts, size_t count,
                                              const char *bucket, uint32_t dynamic_max)
{
    Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor *messages[DESCRIPTORS_MAX];
    struct kb_rate_rules_config config = {.descriptors = messages,
                                          .descriptor_count = count,
                                          .dynamic_max = dynamic_max,
                                          .always_consume_default = true};
    struct kb_rate_limiter *limiter;
    struct kb_rate_rules *rules;

    for (size_t i = 0; i < count; i++) {
        messages[i] = message(
            &envoy__extensions__common__ratelimit__v3__local_rate_limit_descriptor__descriptor,
            texts[i]);
    }
    if (bucket != NULL) {
        config.token_bucket = message(&envoy__type__v3__token_bucket__descriptor, bucket);
    }
    rules = kb_rate_rules_create(&config, &diag);
    if (rules == NULL) {
        return NULL;
    }
    limiter = kb_rate_limiter_create(rules, START);
    kb_rate_rules_unref(rules);
    return limiter;
}

static bool asks(struct kb_rate_limiter *limiter, const char *key, const char *value)
{
    const struct kb_rate_entry entry = {kb_str_from_cstr(key), kb_str_from_cstr(value)};
    const struct kb_rate_descriptor made = {.entries = &entry, .count = 1, .hits = 1};
    struct kb_rate_decision decision;

    kb_rate_limiter_take(limiter, &made, 1, 1, START, &arena, &decision);
    kb_rate_decision_dispose(&decision);
    return decision.allowed;
}

/* However many values come, so many buckets are kept, those of the latest. */
static void test_values_are_bounded(void **state)
{
    static const char *const texts[] = {
        "{entries: [{key: u}], token_bucket: {max_tokens: 1, fill_interval: 1000s}}",
        "{entries: [{key: u, value: known}], token_bucket: {max_tokens: 2, fill_interval: 1000s}}"};
    struct kb_rate_limiter *limiter = limiter_create(texts, 2, NULL, 3);
    char value[16];

    (void)state;
    assert_non_null(limiter);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(value, sizeof(value), "v%u", i);
        assert_true(asks(limiter, "u", value));
    }
    assert_int_equal(kb_rate_limiter_dynamic_count(limiter), 3);
    assert_false(asks(limiter, "u", "v997")); /* the latest now */
    assert_true(asks(limiter, "u", "new"));   /* drops v998 */
    assert_false(asks(limiter, "u", "v997"));
    assert_false(asks(limiter, "u", "v999"));
    assert_true(asks(limiter, "u", "v998"));
    assert_true(asks(limiter, "u", "known"));
    assert_true(asks(limiter, "u", "known"));
    assert_false(asks(limiter, "u", "known"));
    assert_true(asks(limiter, "other", "v1"));
    kb_rate_limiter_destroy(limiter);
}

/* A bucket that is still told of outlives its place in the list. */
static void test_dropped_while_held(void **state)
{
    static const char *const texts[] = {
        "{entries: [{key: u}], token_bucket: {max_tokens: 2, fill_interval: 1000s}}"};
    struct kb_rate_limiter *limiter = limiter_create(texts, 1, NULL, 1);
    const struct kb_rate_entry entry = {KB_STR("u"), KB_STR("a")};
    const struct kb_rate_descriptor made = {.entries = &entry, .count = 1, .hits = 1};
    struct kb_rate_decision decision;

    (void)state;
    kb_rate_limiter_take(limiter, &made, 1, 1, START, &arena, &decision);
    assert_true(asks(limiter, "u", "b"));
    kb_rate_limiter_destroy(limiter);
    assert_int_equal(kb_token_bucket_left(decision.bucket, START), 1);
    kb_rate_decision_dispose(&decision);
}

/* The half of the tokens is a fleet of two's; those of the default bucket count by one. */
static void test_share(void **state)
{
    struct kb_rate_limiter *limiter =
        limiter_create(NULL, 0, "{max_tokens: 10, fill_interval: 1000s}", 1);
    struct kb_rate_decision decision;
    unsigned allowed = 0;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        kb_rate_limiter_take(limiter, NULL, 0, 0.5, START, &arena, &decision);
        allowed += decision.allowed;
    }
    assert_int_equal(allowed, 5);
    kb_rate_limiter_destroy(limiter);
}

static void test_refused(void **state)
{
    static const char *const twice[] = {
        "{entries: [{key: u}], token_bucket: {max_tokens: 2, fill_interval: 1000s}}",
        "{entries: [{key: u}], token_bucket: {max_tokens: 3, fill_interval: 1000s}}"};
    static const char *const quick[] = {
        "{entries: [{key: u}], token_bucket: {max_tokens: 2, fill_interval: 0.04s}}"};

    (void)state;
    assert_null(limiter_create(twice, 2, NULL, 1));
    assert_null(limiter_create(quick, 1, NULL, 1));
    assert_int_equal(diag.error_count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_and_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_while_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_share, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
