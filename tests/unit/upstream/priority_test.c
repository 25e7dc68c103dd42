/* SPDX-License-Identifier: Apache-2.0 */
/* Loads of priorities, panic, and how hosts are sorted into lists. The expected loads are Envoy's
 * arithmetic: whole percents, what is left by rounding to the first priority that can take it. */
#include "tests/unit/upstream/upstream_fixture.h"

#include <arpa/inet.h>

#include "proxy/upstream/host.h"

struct level {
    uint32_t healthy, degraded, unhealthy, draining;
};

struct expected {
    uint8_t healthy, degraded;
    bool panic;
};

static struct kb_host *host_make(uint32_t number, uint32_t priority, uint32_t weight,
                                 uint32_t flags, const char *zone)
{
    struct kb_host_params params = {.priority = priority, .weight = weight, .health_flags = flags};

    params.zone = kb_str_from_cstr(zone);
    assert_int_equal(kb_addr_from_ip(&params.addr, KB_STR("10.0.0.1"), (uint16_t)number), 0);
    return kb_host_create(NULL, &params, 1);
}

static struct kb_priority_set *set_make(const struct level *levels, uint32_t count,
                                        const struct kb_priority_policy *policy)
{
    struct kb_host_group groups[8];
    struct kb_priority_set *set;
    uint32_t number = 1;

    memset(groups, 0, sizeof(groups));
    for (uint32_t p = 0; p < count; p++) {
        const uint32_t numbers[4] = {levels[p].healthy, levels[p].degraded, levels[p].unhealthy,
                                     levels[p].draining};
        const uint32_t flags[4] = {0, KB_HOST_DEGRADED_EDS, KB_HOST_FAILED_EDS,
                                   KB_HOST_DRAINING_EDS};

        groups[p].priority = p;
        groups[p].hosts =
            calloc(numbers[0] + numbers[1] + numbers[2] + numbers[3] + 1, sizeof(struct kb_host *));
        for (unsigned kind = 0; kind < 4; kind++) {
            for (uint32_t i = 0; i < numbers[kind]; i++) {
                groups[p].hosts[groups[p].count++] = host_make(number++, p, 1, flags[kind], "");
            }
        }
    }
    set = kb_priority_set_create(NULL, groups, count, policy);
    for (uint32_t p = 0; p < count; p++) {
        for (uint32_t i = 0; i < groups[p].count; i++) {
            kb_host_unref(groups[p].hosts[i]);
        }
        free(groups[p].hosts);
    }
    return set;
}

#define DEFAULT_POLICY \
    ((struct kb_priority_policy){.overprovisioning_factor = 140, .panic_threshold = 50})

static void loads_are_envoys(void **state)
{
    static const struct {
        struct level levels[3];
        uint32_t count;
        uint32_t panic_threshold;
        struct expected expected[3];
    } cases[] = {
        {{{1, 0, 0, 0}}, 1, 50, {{100, 0, false}}},
        /* No hosts at all: total panic, and the load has to be somewhere. */
        {{{0, 0, 0, 0}}, 1, 50, {{100, 0, true}}},
        {{{0, 0, 0, 0}}, 1, 0, {{100, 0, false}}},
        /* 72 % healthy times 1.4 is still 100. */
        {{{72, 0, 28, 0}, {10, 0, 0, 0}}, 2, 50, {{100, 0, false}, {0, 0, false}}},
        {{{71, 0, 29, 0}, {10, 0, 0, 0}}, 2, 50, {{99, 0, false}, {1, 0, false}}},
        {{{5, 0, 5, 0}, {10, 0, 0, 0}}, 2, 50, {{70, 0, false}, {30, 0, false}}},
        {{{0, 0, 10, 0}, {10, 0, 0, 0}}, 2, 50, {{0, 0, false}, {100, 0, false}}},
        /* Together below 100: scaled up, and priorities below the threshold panic. */
        {{{2, 0, 8, 0}, {2, 0, 8, 0}}, 2, 50, {{50, 0, true}, {50, 0, true}}},
        {{{5, 0, 5, 0}, {1, 0, 9, 0}}, 2, 50, {{84, 0, false}, {16, 0, true}}},
        {{{1, 0, 3, 0}, {1, 0, 3, 0}}, 2, 50, {{50, 0, true}, {50, 0, true}}},
        /* All panic: by size, whatever the health. */
        {{{0, 0, 1, 0}, {0, 0, 2, 0}}, 2, 50, {{34, 0, true}, {66, 0, true}}},
        {{{0, 0, 0, 0}, {0, 0, 3, 0}}, 2, 50, {{0, 0, true}, {100, 0, true}}},
        /* Degraded hosts take what the healthy cannot. */
        {{{5, 5, 0, 0}}, 1, 50, {{70, 30, false}}},
        {{{0, 10, 0, 0}}, 1, 50, {{0, 100, false}}},
        {{{1, 1, 8, 0}, {5, 0, 5, 0}}, 2, 50, {{15, 14, true}, {71, 0, false}}},
        /* Draining hosts are not counted at all. */
        {{{5, 0, 0, 5}, {1, 0, 0, 0}}, 2, 50, {{100, 0, false}, {0, 0, false}}},
        {{{0, 0, 0, 5}, {1, 0, 0, 0}}, 2, 50, {{0, 0, false}, {100, 0, false}}},
        /* Panic switched off. */
        {{{1, 0, 9, 0}}, 1, 0, {{100, 0, false}}},
        {{{1, 0, 9, 0}, {0, 0, 5, 0}, {1, 0, 9, 0}},
         3,
         0,
         {{50, 0, false}, {0, 0, false}, {50, 0, false}}},
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct kb_priority_policy policy = DEFAULT_POLICY;
        struct kb_priority_set *set;
        uint32_t sum = 0;

        policy.panic_threshold = cases[i].panic_threshold;
        set = set_make(cases[i].levels, cases[i].count, &policy);
        for (uint32_t p = 0; p < cases[i].count; p++) {
            const struct kb_host_set *hosts = &set->sets[p];

            if (hosts->healthy_load != cases[i].expected[p].healthy ||
                hosts->degraded_load != cases[i].expected[p].degraded ||
                hosts->panic != cases[i].expected[p].panic) {
                fail_msg("case %zu priority %u: %u %u %d", i, p, hosts->healthy_load,
                         hosts->degraded_load, hosts->panic);
            }
            sum += (uint32_t)hosts->healthy_load + hosts->degraded_load;
        }
        assert_int_equal(sum, 100);
        kb_priority_set_unref(set);
    }
}

static void weights_decide_when_asked(void **state)
{
    struct kb_priority_policy policy = DEFAULT_POLICY;
    struct kb_host *hosts[3] = {host_make(1, 0, 1, 0, ""),
                                host_make(2, 0, 9, KB_HOST_FAILED_EDS, ""),
                                host_make(3, 1, 1, 0, "")};
    struct kb_host_group groups[2] = {{.priority = 0, .hosts = hosts, .count = 2},
                                      {.priority = 1, .hosts = hosts + 2, .count = 1}};
    struct kb_priority_set *set;

    (void)state;
    set = kb_priority_set_create(NULL, groups, 2, &policy);
    assert_int_equal(set->sets[0].healthy_load, 70);
    kb_priority_set_unref(set);
    policy.weighted_priority_health = true;
    set = kb_priority_set_create(NULL, groups, 2, &policy);
    assert_int_equal(set->sets[0].healthy_load, 14);
    assert_int_equal(set->sets[1].healthy_load, 86);
    kb_priority_set_unref(set);
    for (unsigned i = 0; i < 3; i++) {
        kb_host_unref(hosts[i]);
    }
}

static void lists_keep_configuration_order(void **state)
{
    struct kb_priority_policy policy = DEFAULT_POLICY;
    const struct level levels[1] = {{2, 1, 1, 1}};
    struct kb_priority_set *set = set_make(levels, 1, &policy);
    const struct kb_host_set *hosts = &set->sets[0];

    (void)state;
    assert_int_equal(set->host_count, 5);
    assert_int_equal(set->healthy_count, 2);
    assert_int_equal(set->degraded_count, 1);
    assert_int_equal(set->excluded_count, 1);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(kb_host_port(hosts->all.hosts[i]), i + 1);
    }
    assert_ptr_equal(hosts->healthy.hosts[1], hosts->all.hosts[1]);
    assert_ptr_equal(hosts->degraded.hosts[0], hosts->all.hosts[2]);
    kb_priority_set_unref(set);
}

static void gaps_between_priorities_are_empty(void **state)
{
    struct kb_priority_policy policy = DEFAULT_POLICY;
    struct kb_host *host = host_make(1, 2, 1, 0, "");
    struct kb_host_group group = {.priority = 2, .hosts = &host, .count = 1};
    struct kb_priority_set *set = kb_priority_set_create(NULL, &group, 1, &policy);

    (void)state;
    assert_int_equal(set->count, 3);
    assert_int_equal(set->sets[0].all.count, 0);
    assert_int_equal(set->sets[2].healthy_load, 100);
    kb_priority_set_unref(set);
    kb_host_unref(host);
}

static void removed_hosts_are_found(void **state)
{
    struct kb_priority_policy policy = DEFAULT_POLICY;
    struct kb_host *hosts[6];
    struct kb_host_group before = {.hosts = hosts, .count = 5},
                         after = {.hosts = hosts + 2, .count = 4};
    struct kb_priority_set *old, *new;

    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        hosts[i] = host_make(i + 1, 0, 1, 0, "");
    }
    old = kb_priority_set_create(NULL, &before, 1, &policy);
    new = kb_priority_set_create(NULL, &after, 1, &policy);
    kb_priority_set_find_removed(new, old);
    assert_int_equal(new->removed_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(new->removed[i] == hosts[0] || new->removed[i] == hosts[1]);
    }
    kb_priority_set_unref(old);
    kb_priority_set_unref(new);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(hosts[i]->refs, 1);
        kb_host_unref(hosts[i]);
    }
}

static void localities_are_grouped_by_name(void **state)
{
    struct kb_priority_policy policy = DEFAULT_POLICY;
    struct kb_host *hosts[4] = {host_make(1, 0, 1, 0, "a"), host_make(2, 0, 1, 0, "b"),
                                host_make(3, 0, 1, 0, "a"),
                                host_make(4, 0, 1, KB_HOST_FAILED_EDS, "b")};
    struct kb_host_group groups[4];
    struct kb_priority_set *set;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        groups[i] =
            (struct kb_host_group){.locality_weight = i + 1, .hosts = &hosts[i], .count = 1};
    }
    policy.keep_localities = true;
    set = kb_priority_set_create(NULL, groups, 4, &policy);
    assert_int_equal(set->sets[0].locality_count, 2);
    assert_int_equal(set->sets[0].localities[0].all.count, 2);
    assert_ptr_equal(set->sets[0].localities[0].healthy.hosts[1], hosts[2]);
    assert_int_equal(set->sets[0].localities[1].healthy.count, 1);
    assert_int_equal(set->sets[0].localities[1].weight, 4);
    kb_priority_set_unref(set);
    for (unsigned i = 0; i < 4; i++) {
        kb_host_unref(hosts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_are_envoys),
        cmocka_unit_test(weights_decide_when_asked),
        cmocka_unit_test(lists_keep_configuration_order),
        cmocka_unit_test(gaps_between_priorities_are_empty),
        cmocka_unit_test(removed_hosts_are_found),
        cmocka_unit_test(localities_are_grouped_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
