/* SPDX-License-Identifier: Apache-2.0 */
/* Earliest deadline first: Envoy's order, whatever the number of picks before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "proxy/upstream/edf.h"

static double weight_of(void *arg, uint32_t index)
{
    return ((const double *)arg)[index];
}

/* Envoy 1.40, ROUND_ROBIN over hosts of weight 1, 2, 3, 4, 5: one period as seen on the wire. */
static const uint32_t envoy_period[15] = {4, 4, 3, 2, 4, 1, 3, 4, 2, 3, 4, 0, 1, 2, 3};

static void order_is_envoys_from_any_start(void **state)
{
    double weights[5] = {1, 2, 3, 4, 5};
    struct kb_rand rand;

    (void)state;
    kb_rand_init(&rand, 1);
    for (unsigned round = 0; round < 500; round++) {
        uint32_t picks = (uint32_t)kb_rand_u64(&rand) | 0x100000, seen[30];
        struct kb_edf *edf = kb_edf_create(5, picks, weight_of, weights);
        bool found = false;

        for (unsigned i = 0; i < 30; i++) {
            seen[i] = kb_edf_pick(edf, weight_of, weights);
        }
        for (unsigned start = 0; start < 15 && !found; start++) {
            found = memcmp(seen + start, envoy_period, sizeof(envoy_period)) == 0;
        }
        assert_true(found);
        assert_memory_equal(seen, seen + 15, 15 * sizeof(seen[0]));
        kb_edf_destroy(edf);
    }
}

static void start_counts_picks(void **state)
{
    double weights[3] = {1, 1, 2};
    uint32_t from_zero[24];
    struct kb_edf *edf = kb_edf_create(3, 0, weight_of, weights);

    (void)state;
    for (unsigned i = 0; i < 24; i++) {
        from_zero[i] = kb_edf_pick(edf, weight_of, weights);
    }
    kb_edf_destroy(edf);
    for (uint32_t picks = 0; picks < 16; picks++) {
        uint32_t seen[8];

        edf = kb_edf_create(3, picks, weight_of, weights);
        for (unsigned i = 0; i < 8; i++) {
            seen[i] = kb_edf_pick(edf, weight_of, weights);
        }
        assert_memory_equal(seen, from_zero + picks, sizeof(seen));
        kb_edf_destroy(edf);
    }
}

static void weights_change_between_picks(void **state)
{
    double weights[2] = {1, 1};
    unsigned count[2] = {0, 0};
    struct kb_edf *edf = kb_edf_create(2, 0, weight_of, weights);

    (void)state;
    weights[1] = 9;
    for (unsigned i = 0; i < 1000; i++) {
        count[kb_edf_pick(edf, weight_of, weights)]++;
    }
    assert_in_range(count[1], 898, 902);
    kb_edf_destroy(edf);
}

static void shares_follow_weights(void **state)
{
    double weights[4] = {0.5, 10, 128, 4294967295.0};
    unsigned count[4] = {0, 0, 0, 0};
    struct kb_edf *edf = kb_edf_create(3, 12345, weight_of, weights);

    (void)state;
    for (unsigned i = 0; i < 2770; i++) {
        count[kb_edf_pick(edf, weight_of, weights)]++;
    }
    assert_in_range(count[0], 9, 11);
    assert_in_range(count[1], 199, 201);
    assert_in_range(count[2], 2558, 2562);
    kb_edf_destroy(edf);
    edf = kb_edf_create(4, UINT32_MAX, weight_of, weights);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(kb_edf_pick(edf, weight_of, weights), 3);
    }
    kb_edf_destroy(edf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_envoys_from_any_start),
        cmocka_unit_test(start_counts_picks),
        cmocka_unit_test(weights_change_between_picks),
        cmocka_unit_test(shares_follow_weights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
