/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of outlier detection with a clock of its own: rows, rates, limits, how long a host
 * stays out, and what is counted. Figures are those of Envoy 1.40. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/upstream/outlier.h"

#define HOSTS 12

struct fixture {
    struct kb_outlier outlier;
    struct kb_outlier_config config;
    struct kb_outlier_host hosts[HOSTS];
    uint32_t total[HOSTS][KB_OUTLIER_ORIGIN_COUNT], success[HOSTS][KB_OUTLIER_ORIGIN_COUNT];
    struct kb_stat_store *store;
    struct kb_stat_group *group;
    struct kb_rand rand;
    unsigned changes;
    char events[1024];
};

static struct fixture *fixture;

static void counts(const struct kb_outlier_host *host, uint32_t *total, uint32_t *success)
{
    size_t at = (size_t)(host - fixture->hosts);

    memcpy(total, fixture->total[at], sizeof(fixture->total[at]));
    memcpy(success, fixture->success[at], sizeof(fixture->success[at]));
}

static void changed(void *arg, struct kb_outlier_host *host)
{
    (void)host;
    ((struct fixture *)arg)->changes++;
}

static void event(void *arg, const struct kb_outlier_host *host, enum kb_outlier_type type,
                  bool enforced, uint64_t since_ms)
{
    struct fixture *f = arg;
    size_t len = strlen(f->events);

    snprintf(f->events + len, sizeof(f->events) - len, "%d:%d%s%s:%d ", (int)(host - f->hosts),
             (int)type, enforced ? "!" : "", since_ms == UINT64_MAX ? ":never" : "",
             since_ms == UINT64_MAX ? 0 : (int)since_ms);
}

static int setup(void **state)
{
    struct kb_outlier_owner owner = {counts, changed, event, NULL};
    struct fixture *f = fixture = calloc(1, sizeof(*f));

    owner.arg = f;
    f->store = kb_stat_store_create(0);
    f->group = kb_stat_group_create(f->store, KB_STR("cluster.c.outlier_detection."),
                                    &kb_stat_schema_outlier_detection);
    kb_rand_init(&f->rand, 1);
    kb_outlier_config_init(&f->config);
    kb_outlier_init(&f->outlier, &f->config, NULL, kb_stat_group_block(f->group, 0), &f->rand,
                    &owner);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    kb_outlier_dispose(&f->outlier);
    kb_stat_group_destroy(f->group);
    kb_stat_store_destroy(f->store);
    free(f);
    return 0;
}

static void hosts_add(struct fixture *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        kb_outlier_add(&f->outlier, &f->hosts[i], NULL);
    }
}

static unsigned counted(struct fixture *f, unsigned id)
{
    return (unsigned)kb_stat_group_value(f->group, id);
}

#define STAT(name) counted(f, KB_STAT_OUTLIER_DETECTION_##name)

/* The host's workers see these statuses; what is due is heard. */
static void codes(struct fixture *f, unsigned host, unsigned n, unsigned code, uint64_t now_ms)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned reached = kb_outlier_count_code(&f->hosts[host], &f->config, NULL, code);

        for (unsigned type = 0; type < KB_OUTLIER_TYPE_COUNT; type++) {
            if ((reached & 1u << type) != 0) {
                kb_outlier_on_row(&f->outlier, &f->hosts[host], (enum kb_outlier_type)type, now_ms);
            }
        }
    }
}

static void a_row_of_errors_ejects(void **state)
{
    struct fixture *f = *state;

    hosts_add(f, 10);
    codes(f, 0, 4, 500, 0);
    codes(f, 0, 1, 200, 0);
    codes(f, 0, 4, 599, 0);
    codes(f, 0, 3, 600, 0); /* no 5xx: ends the row */
    codes(f, 0, 4, 503, 0);
    assert_false(f->hosts[0].ejected);
    codes(f, 0, 1, 500, 7);
    assert_true(f->hosts[0].ejected);
    assert_int_equal(f->changes, 1);
    assert_int_equal(STAT(EJECTIONS_ACTIVE), 1);
    assert_int_equal(STAT(EJECTIONS_CONSECUTIVE_5XX), 1);
    assert_int_equal(STAT(EJECTIONS_DETECTED_CONSECUTIVE_5XX), 1);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_CONSECUTIVE_5XX), 1);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_TOTAL), 1);
    assert_int_equal(STAT(EJECTIONS_TOTAL), 1);
    assert_int_equal(STAT(EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE), 0);
    codes(f, 0, 5, 500, 8); /* late answers: it is out already */
    assert_int_equal(STAT(EJECTIONS_DETECTED_CONSECUTIVE_5XX), 1);
    assert_string_equal(f->events, "0:0!:never:0 ");
}

static void gateway_failures_are_a_row_of_their_own(void **state)
{
    struct fixture *f = *state;

    hosts_add(f, 10);
    f->config.params[KB_OUTLIER_CONSECUTIVE_5XX] = 100;
    codes(f, 0, 4, 502, 0);
    codes(f, 0, 1, 501, 0); /* no gateway failure */
    codes(f, 0, 4, 504, 0);
    assert_int_equal(STAT(EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE), 0);
    codes(f, 0, 1, 503, 0);
    assert_int_equal(STAT(EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE), 1);
    assert_false(f->hosts[0].ejected); /* enforced in no case, by default */
    assert_int_equal(STAT(EJECTIONS_TOTAL), 0);
    f->config.params[KB_OUTLIER_ENFORCING_CONSECUTIVE_GATEWAY_FAILURE] = 100;
    codes(f, 0, 5, 503, 3); /* a new row */
    assert_true(f->hosts[0].ejected);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_CONSECUTIVE_GATEWAY_FAILURE), 1);
    assert_string_equal(f->events, "0:1:never:0 0:1!:never:0 ");
}

static void local_failures_are_a_row_of_their_own(void **state)
{
    struct fixture *f = *state;

    hosts_add(f, 10);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(kb_outlier_count_local(&f->hosts[1], &f->config, NULL, false), 0);
    }
    assert_int_equal(kb_outlier_count_local(&f->hosts[1], &f->config, NULL, true), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(kb_outlier_count_local(&f->hosts[1], &f->config, NULL, false), 0);
    }
    assert_int_equal(kb_outlier_count_local(&f->hosts[1], &f->config, NULL, false),
                     1u << KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE);
    kb_outlier_on_row(&f->outlier, &f->hosts[1], KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE, 0);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE), 1);
    assert_true(f->hosts[1].ejected);
}

static void so_many_are_out_at_most(void **state)
{
    struct fixture *f = *state;

    hosts_add(f, 9); /* the first would be more than 10 % */
    codes(f, 0, 5, 500, 0);
    assert_int_equal(STAT(EJECTIONS_OVERFLOW), 1);
    assert_int_equal(STAT(EJECTIONS_CONSECUTIVE_5XX), 1);
    assert_int_equal(STAT(EJECTIONS_TOTAL), 0);
    f->config.always_eject_one_host = true;
    codes(f, 0, 5, 500, 0);
    codes(f, 1, 5, 500, 0);
    assert_true(f->hosts[0].ejected);
    assert_false(f->hosts[1].ejected);
    assert_int_equal(STAT(EJECTIONS_OVERFLOW), 2);
    f->config.params[KB_OUTLIER_MAX_EJECTION_PERCENT] = 34;
    for (unsigned i = 1; i < 9; i++) {
        codes(f, i, 5, 500, 0);
    }
    assert_int_equal(STAT(EJECTIONS_ACTIVE), 3);
    kb_outlier_remove(&f->outlier, &f->hosts[0]); /* one that is out leaves the cluster */
    assert_int_equal(STAT(EJECTIONS_ACTIVE), 2);
}

static void each_ejection_lasts_longer(void **state)
{
    struct fixture *f = *state;
    uint64_t now = 0;

    hosts_add(f, 10);
    f->config.params[KB_OUTLIER_MAX_EJECTION_TIME_MS] = 70000;
    for (unsigned round = 0; round < 5; round++) {
        uint64_t lasts = KB_MIN(30000 * (round + 1), 70000);

        codes(f, 0, 5, 500, now);
        assert_true(f->hosts[0].ejected);
        kb_outlier_on_interval(&f->outlier, now + lasts - 1);
        assert_true(f->hosts[0].ejected);
        kb_outlier_on_interval(&f->outlier, now + lasts);
        assert_false(f->hosts[0].ejected);
        now += lasts;
    }
    assert_int_equal(f->hosts[0].ejections, 5);
    assert_int_equal(f->hosts[0].backoff, 4); /* no more than is needed for the longest */
    for (unsigned i = 1; i <= 3; i++) {       /* forgiven one an interval */
        kb_outlier_on_interval(&f->outlier, now + i * 10000);
    }
    assert_int_equal(f->hosts[0].backoff, 1);
    codes(f, 0, 5, 500, now + 40000);
    kb_outlier_on_interval(&f->outlier, now + 40000 + 60000);
    assert_false(f->hosts[0].ejected);
}

static void jitter_makes_it_longer(void **state)
{
    struct fixture *f = *state;

    hosts_add(f, 10);
    f->config.params[KB_OUTLIER_MAX_EJECTION_TIME_JITTER_MS] = 1000000;
    codes(f, 0, 5, 500, 0);
    assert_in_range(f->hosts[0].jitter_ms, 1, 1000000);
    kb_outlier_on_interval(&f->outlier, 30000 + f->hosts[0].jitter_ms - 1);
    assert_true(f->hosts[0].ejected);
    kb_outlier_on_interval(&f->outlier, 30000 + f->hosts[0].jitter_ms);
    assert_false(f->hosts[0].ejected);
}

static void back_in_the_rows_are_new(void **state)
{
    struct fixture *f = *state;

    hosts_add(f, 10);
    codes(f, 0, 5, 500, 0);
    codes(f, 0, 4, 500, 1);
    kb_outlier_uneject(&f->outlier, &f->hosts[0], 9);
    assert_false(f->hosts[0].ejected);
    codes(f, 0, 4, 500, 10);
    assert_false(f->hosts[0].ejected);
    codes(f, 0, 1, 500, 11);
    assert_true(f->hosts[0].ejected);
    assert_string_equal(f->events, "0:0!:never:0 0:7:9 0:0!:2 ");
}

/* Of 200 requests to each host, so many fail. */
static void failures(struct fixture *f, const unsigned *failed, unsigned n, unsigned origin)
{
    for (unsigned i = 0; i < n; i++) {
        f->total[i][origin] += 200;
        f->success[i][origin] += 200 - failed[i];
    }
}

static void a_low_success_rate_ejects(void **state)
{
    static const unsigned failed[10] = {100}; /* 50, 100, 100 ... */
    struct fixture *f = *state;

    hosts_add(f, 10);
    f->total[3][0] = UINT32_MAX - 99; /* the counts wrap around */
    f->success[3][0] = UINT32_MAX - 7;
    kb_outlier_on_interval(&f->outlier, 0);
    failures(f, failed, 10, KB_OUTLIER_EXTERNAL);
    kb_outlier_on_interval(&f->outlier, 10000);
    assert_true(f->hosts[0].ejected);
    assert_float_equal(f->hosts[0].success_rate[0], 50, 1e-9);
    assert_float_equal(f->hosts[3].success_rate[0], 100, 1e-9);
    assert_float_equal(f->hosts[3].success_rate[1], -1, 1e-9);
    assert_float_equal(f->outlier.success_rate_average[0], 95, 1e-9);
    assert_float_equal(f->outlier.success_rate_threshold[0], 95 - 1.9 * 15, 1e-9);
    assert_float_equal(f->outlier.success_rate_average[1], -1, 1e-9);
    assert_int_equal(STAT(EJECTIONS_SUCCESS_RATE), 1);
    assert_int_equal(STAT(EJECTIONS_DETECTED_SUCCESS_RATE), 1);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_SUCCESS_RATE), 1);
    assert_int_equal(STAT(EJECTIONS_TOTAL), 1);
    kb_outlier_on_interval(&f->outlier, 20000); /* an interval without requests */
    assert_float_equal(f->hosts[3].success_rate[0], -1, 1e-9);
    assert_float_equal(f->outlier.success_rate_average[0], -1, 1e-9);
    assert_string_equal(f->events, "0:2!:never:0 ");
}

static void rates_need_hosts_and_requests(void **state)
{
    static const unsigned failed[10] = {200};
    struct fixture *f = *state;

    hosts_add(f, 4);
    f->config.params[KB_OUTLIER_MAX_EJECTION_PERCENT] = 100;
    f->config.params[KB_OUTLIER_ENFORCING_FAILURE_PERCENTAGE] = 100;
    failures(f, failed, 4, KB_OUTLIER_EXTERNAL);
    kb_outlier_on_interval(&f->outlier, 0);
    assert_int_equal(f->changes, 0); /* 5 hosts at least */
    kb_outlier_add(&f->outlier, &f->hosts[4], NULL);
    failures(f, failed, 4, KB_OUTLIER_EXTERNAL);
    f->total[4][0] += 49; /* too few for both */
    kb_outlier_on_interval(&f->outlier, 0);
    assert_int_equal(f->changes, 0);
    failures(f, failed, 4, KB_OUTLIER_EXTERNAL);
    f->total[4][0] += 50; /* enough for a percentage */
    kb_outlier_on_interval(&f->outlier, 0);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_FAILURE_PERCENTAGE), 2);
    assert_int_equal(STAT(EJECTIONS_DETECTED_SUCCESS_RATE), 0);
}

static void local_origin_has_rates_of_its_own(void **state)
{
    static const unsigned failed[10] = {0, 180};
    struct fixture *f = *state;

    hosts_add(f, 10);
    failures(f, failed, 10, KB_OUTLIER_LOCAL);
    f->config.params[KB_OUTLIER_ENFORCING_LOCAL_ORIGIN_SUCCESS_RATE] = 0;
    kb_outlier_on_interval(&f->outlier, 0);
    assert_int_equal(STAT(EJECTIONS_DETECTED_LOCAL_ORIGIN_SUCCESS_RATE), 1);
    assert_int_equal(STAT(EJECTIONS_DETECTED_LOCAL_ORIGIN_FAILURE_PERCENTAGE), 1);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_TOTAL), 0);
    assert_float_equal(f->hosts[1].success_rate[KB_OUTLIER_LOCAL], 10, 1e-9);
    f->config.params[KB_OUTLIER_ENFORCING_FAILURE_PERCENTAGE_LOCAL_ORIGIN] = 100;
    failures(f, failed, 10, KB_OUTLIER_LOCAL);
    kb_outlier_on_interval(&f->outlier, 0);
    assert_int_equal(STAT(EJECTIONS_ENFORCED_LOCAL_ORIGIN_FAILURE_PERCENTAGE), 1);
    assert_string_equal(f->events, "1:4:never:0 1:6:never:0 1:4:never:0 1:6!:never:0 ");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_row_of_errors_ejects),
        TEST(gateway_failures_are_a_row_of_their_own),
        TEST(local_failures_are_a_row_of_their_own),
        TEST(so_many_are_out_at_most),
        TEST(each_ejection_lasts_longer),
        TEST(jitter_makes_it_longer),
        TEST(back_in_the_rows_are_new),
        TEST(a_low_success_rate_ejects),
        TEST(rates_need_hosts_and_requests),
        TEST(local_origin_has_rates_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
