/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of outlier detection, as Envoy does it: rows of failures and success rates put
 * hosts out, the interval lets them in again. */
#include "proxy/upstream/outlier.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/stats.h"

/* ---- parameters ---- */

void kb_outlier_config_init(struct kb_outlier_config *config)
{
    static const uint64_t defaults[] = {
#define X(ID, key, value) value,
        KB_OUTLIER_PARAMS(X)
#undef X
    };

    memset(config, 0, sizeof(*config));
    memcpy(config->params, defaults, sizeof(defaults));
}

uint64_t kb_outlier_param(const struct kb_outlier_config *config, const struct kb_runtime *runtime,
                          enum kb_outlier_param param)
{
    static const struct kb_str keys[] = {
#define X(ID, key, value) {"outlier_detection." key, sizeof("outlier_detection." key) - 1},
        KB_OUTLIER_PARAMS(X)
#undef X
    };

    return kb_runtime_get_u64(runtime, keys[param], config->params[param]);
}

static uint64_t param_of(const struct kb_outlier *outlier, enum kb_outlier_param param)
{
    return kb_outlier_param(outlier->config, outlier->runtime, param);
}

static bool is_enforced(const struct kb_outlier *outlier, enum kb_outlier_type type)
{
    static const enum kb_outlier_param params[KB_OUTLIER_TYPE_COUNT] = {
        [KB_OUTLIER_TYPE_5XX] = KB_OUTLIER_ENFORCING_CONSECUTIVE_5XX,
        [KB_OUTLIER_TYPE_GATEWAY_FAILURE] = KB_OUTLIER_ENFORCING_CONSECUTIVE_GATEWAY_FAILURE,
        [KB_OUTLIER_TYPE_SUCCESS_RATE] = KB_OUTLIER_ENFORCING_SUCCESS_RATE,
        [KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE] =
            KB_OUTLIER_ENFORCING_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
        [KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN] =
            KB_OUTLIER_ENFORCING_LOCAL_ORIGIN_SUCCESS_RATE,
        [KB_OUTLIER_TYPE_FAILURE_PERCENTAGE] = KB_OUTLIER_ENFORCING_FAILURE_PERCENTAGE,
        [KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN] =
            KB_OUTLIER_ENFORCING_FAILURE_PERCENTAGE_LOCAL_ORIGIN,
    };

    return kb_rand_u64(outlier->rand) % 100 < param_of(outlier, params[type]);
}

/* ---- rows of failures; any thread ---- */

/* A success ends a row; nothing is written when there is none. */
static void row_end(uint32_t *row)
{
    if (KB_UNLIKELY(__atomic_load_n(row, __ATOMIC_RELAXED) != 0)) {
        __atomic_store_n(row, 0, __ATOMIC_RELAXED);
    }
}

/* True for the failure that makes the row as long as the parameter says. */
static bool row_add(uint32_t *row, const struct kb_outlier_config *config,
                    const struct kb_runtime *runtime, enum kb_outlier_param param)
{
    return __atomic_add_fetch(row, 1, __ATOMIC_RELAXED) == kb_outlier_param(config, runtime, param);
}

unsigned kb_outlier_count_code(struct kb_outlier_host *state,
                               const struct kb_outlier_config *config,
                               const struct kb_runtime *runtime, unsigned code)
{
    unsigned reached = 0;

    if (KB_LIKELY(code < 500 || code > 599)) {
        row_end(&state->row_5xx);
        row_end(&state->row_gateway);
        return 0;
    }
    if (code < 502 || code > 504) {
        row_end(&state->row_gateway);
    } else if (row_add(&state->row_gateway, config, runtime,
                       KB_OUTLIER_CONSECUTIVE_GATEWAY_FAILURE)) {
        reached |= 1u << KB_OUTLIER_TYPE_GATEWAY_FAILURE;
    }
    if (row_add(&state->row_5xx, config, runtime, KB_OUTLIER_CONSECUTIVE_5XX)) {
        reached |= 1u << KB_OUTLIER_TYPE_5XX;
    }
    return reached;
}

unsigned kb_outlier_count_local(struct kb_outlier_host *state,
                                const struct kb_outlier_config *config,
                                const struct kb_runtime *runtime, bool success)
{
    if (KB_LIKELY(success)) {
        row_end(&state->row_local);
        return 0;
    }
    return row_add(&state->row_local, config, runtime, KB_OUTLIER_CONSECUTIVE_LOCAL_ORIGIN_FAILURE)
               ? 1u << KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE
               : 0;
}

/* ---- hosts ---- */

void kb_outlier_init(struct kb_outlier *outlier, const struct kb_outlier_config *config,
                     const struct kb_runtime *runtime, struct kb_stat_block *stats,
                     struct kb_rand *rand, const struct kb_outlier_owner *owner)
{
    memset(outlier, 0, sizeof(*outlier));
    outlier->config = config;
    outlier->runtime = runtime;
    outlier->stats = stats;
    outlier->rand = rand;
    outlier->owner = *owner;
    kb_list_init(&outlier->hosts);
    for (unsigned i = 0; i < KB_OUTLIER_ORIGIN_COUNT; i++) {
        outlier->success_rate_average[i] = -1;
        outlier->success_rate_threshold[i] = -1;
    }
}

void kb_outlier_add(struct kb_outlier *outlier, struct kb_outlier_host *state, struct kb_host *host)
{
    state->detector = outlier;
    state->host = host;
    for (unsigned i = 0; i < KB_OUTLIER_ORIGIN_COUNT; i++) {
        state->success_rate[i] = -1;
    }
    kb_list_push_back(&outlier->hosts, &state->link);
    outlier->host_count++;
}

static void ejected_count_add(struct kb_outlier *outlier, int n)
{
    outlier->ejected_count = (uint32_t)((int)outlier->ejected_count + n);
    kb_stat_gauge_add(outlier->stats, KB_STAT_OUTLIER_DETECTION_EJECTIONS_ACTIVE, n);
}

void kb_outlier_remove(struct kb_outlier *outlier, struct kb_outlier_host *state)
{
    if (state->ejected) {
        ejected_count_add(outlier, -1);
    }
    state->detector = NULL;
    kb_list_unlink(&state->link);
    outlier->host_count--;
}

void kb_outlier_dispose(struct kb_outlier *outlier)
{
    while (!kb_list_empty(&outlier->hosts)) {
        kb_outlier_remove(outlier,
                          KB_LIST_ENTRY(outlier->hosts.next, struct kb_outlier_host, link));
    }
}

/* ---- out and in ---- */

static void detected_count(struct kb_outlier *outlier, enum kb_outlier_type type)
{
    static const uint16_t ids[KB_OUTLIER_TYPE_COUNT] = {
        [KB_OUTLIER_TYPE_5XX] = KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_CONSECUTIVE_5XX,
        [KB_OUTLIER_TYPE_GATEWAY_FAILURE] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE,
        [KB_OUTLIER_TYPE_SUCCESS_RATE] = KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_SUCCESS_RATE,
        [KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
        [KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_LOCAL_ORIGIN_SUCCESS_RATE,
        [KB_OUTLIER_TYPE_FAILURE_PERCENTAGE] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_FAILURE_PERCENTAGE,
        [KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_DETECTED_LOCAL_ORIGIN_FAILURE_PERCENTAGE,
    };

    kb_stat_inc(outlier->stats, ids[type]);
}

static void enforced_count(struct kb_outlier *outlier, enum kb_outlier_type type)
{
    static const uint16_t ids[KB_OUTLIER_TYPE_COUNT] = {
        [KB_OUTLIER_TYPE_5XX] = KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_CONSECUTIVE_5XX,
        [KB_OUTLIER_TYPE_GATEWAY_FAILURE] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_CONSECUTIVE_GATEWAY_FAILURE,
        [KB_OUTLIER_TYPE_SUCCESS_RATE] = KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_SUCCESS_RATE,
        [KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
        [KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_LOCAL_ORIGIN_SUCCESS_RATE,
        [KB_OUTLIER_TYPE_FAILURE_PERCENTAGE] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_FAILURE_PERCENTAGE,
        [KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN] =
            KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_LOCAL_ORIGIN_FAILURE_PERCENTAGE,
    };

    kb_stat_inc(outlier->stats, KB_STAT_OUTLIER_DETECTION_EJECTIONS_ENFORCED_TOTAL);
    kb_stat_inc(outlier->stats, ids[type]);
}

static void event_tell(struct kb_outlier *outlier, const struct kb_outlier_host *state,
                       enum kb_outlier_type type, bool enforced, uint64_t since_ms)
{
    if (outlier->owner.event != NULL) {
        outlier->owner.event(outlier->owner.arg, state, type, enforced, since_ms);
    }
}

static void host_put_out(struct kb_outlier *outlier, struct kb_outlier_host *state,
                         enum kb_outlier_type type, uint64_t now_ms)
{
    uint64_t base_ms = param_of(outlier, KB_OUTLIER_BASE_EJECTION_TIME_MS);
    uint64_t max_ms = param_of(outlier, KB_OUTLIER_MAX_EJECTION_TIME_MS);
    uint64_t jitter_ms = param_of(outlier, KB_OUTLIER_MAX_EJECTION_TIME_JITTER_MS);

    ejected_count_add(outlier, 1);
    enforced_count(outlier, type);
    state->ejected = true;
    state->ejections++;
    state->ejected_at_ms = now_ms;
    state->jitter_ms = jitter_ms == UINT64_MAX ? 0 : kb_rand_u64(outlier->rand) % (jitter_ms + 1);
    if (state->backoff * base_ms < max_ms + base_ms) {
        state->backoff++;
    }
    outlier->owner.changed(outlier->owner.arg, state);
}

/* The success rates of one origin can put out a host that has been put out just now because of the
 * other origin's: counted and logged, but done once. */
static void host_eject(struct kb_outlier *outlier, struct kb_outlier_host *state,
                       enum kb_outlier_type type, uint64_t now_ms)
{
    uint64_t max_percent = KB_MIN(100, param_of(outlier, KB_OUTLIER_MAX_EJECTION_PERCENT));
    double percent = 100.0 * (outlier->ejected_count + 1) / outlier->host_count;
    uint64_t since_ms = state->was_unejected ? now_ms - state->unejected_at_ms : UINT64_MAX;
    bool enforced;

    if (percent > (double)max_percent &&
        !(outlier->config->always_eject_one_host && outlier->ejected_count == 0)) {
        kb_stat_inc(outlier->stats, KB_STAT_OUTLIER_DETECTION_EJECTIONS_OVERFLOW);
        return;
    }
    if (type == KB_OUTLIER_TYPE_5XX || type == KB_OUTLIER_TYPE_SUCCESS_RATE) {
        kb_stat_inc(outlier->stats, KB_STAT_OUTLIER_DETECTION_EJECTIONS_TOTAL);
    }
    enforced = is_enforced(outlier, type) && !state->ejected;
    if (enforced) {
        host_put_out(outlier, state, type, now_ms);
    }
    event_tell(outlier, state, type, enforced, since_ms);
}

void kb_outlier_on_row(struct kb_outlier *outlier, struct kb_outlier_host *state,
                       enum kb_outlier_type type, uint64_t now_ms)
{
    if (state->detector != outlier || state->ejected) {
        return;
    }
    detected_count(outlier, type);
    host_eject(outlier, state, type, now_ms);
    switch (type) {
    case KB_OUTLIER_TYPE_5XX:
        kb_stat_inc(outlier->stats, KB_STAT_OUTLIER_DETECTION_EJECTIONS_CONSECUTIVE_5XX);
        row_end(&state->row_5xx);
        break;
    case KB_OUTLIER_TYPE_GATEWAY_FAILURE:
        row_end(&state->row_gateway);
        break;
    case KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE:
        row_end(&state->row_local);
        break;
    case KB_OUTLIER_TYPE_SUCCESS_RATE:
    case KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN:
    case KB_OUTLIER_TYPE_FAILURE_PERCENTAGE:
    case KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN:
    case KB_OUTLIER_TYPE_COUNT:
        break;
    }
}

void kb_outlier_uneject(struct kb_outlier *outlier, struct kb_outlier_host *state, uint64_t now_ms)
{
    if (state->detector != outlier || !state->ejected) {
        return;
    }
    ejected_count_add(outlier, -1);
    state->ejected = false;
    row_end(&state->row_5xx);
    row_end(&state->row_gateway);
    row_end(&state->row_local);
    state->was_unejected = true;
    state->unejected_at_ms = now_ms;
    outlier->owner.changed(outlier->owner.arg, state);
    event_tell(outlier, state, KB_OUTLIER_TYPE_COUNT, false, now_ms - state->ejected_at_ms);
}

/* ---- the interval ---- */

static void uneject_check(struct kb_outlier *outlier, struct kb_outlier_host *state,
                          uint64_t now_ms)
{
    uint64_t base_ms = param_of(outlier, KB_OUTLIER_BASE_EJECTION_TIME_MS);
    uint64_t max_ms = param_of(outlier, KB_OUTLIER_MAX_EJECTION_TIME_MS);

    if (state->ejected && KB_MIN(base_ms * state->backoff, max_ms) + state->jitter_ms <=
                              now_ms - state->ejected_at_ms) {
        kb_outlier_uneject(outlier, state, now_ms);
    }
}

static void volumes_take(struct kb_outlier *outlier, struct kb_outlier_host *state)
{
    uint32_t total[KB_OUTLIER_ORIGIN_COUNT] = {0}, success[KB_OUTLIER_ORIGIN_COUNT] = {0};

    outlier->owner.counts(state, total, success);
    for (unsigned i = 0; i < KB_OUTLIER_ORIGIN_COUNT; i++) {
        uint32_t volume = total[i] - state->seen_total[i];

        state->volume[i] = volume;
        state->rate[i] = volume == 0 ? 0 : (success[i] - state->seen_success[i]) * 100.0 / volume;
        state->seen_total[i] = total[i];
        state->seen_success[i] = success[i];
        state->success_rate[i] = -1;
    }
}

/* The hosts of enough requests that were not out when the rates were looked at. */
struct rated {
    struct kb_outlier_host **hosts;
    uint32_t count;
};

static void rates_eject(struct kb_outlier *outlier, const struct rated *rated,
                        enum kb_outlier_origin origin, uint64_t now_ms)
{
    double sum = 0, variance = 0, mean, threshold;

    for (uint32_t i = 0; i < rated->count; i++) {
        sum += rated->hosts[i]->rate[origin];
    }
    mean = sum / rated->count;
    for (uint32_t i = 0; i < rated->count; i++) {
        variance += pow(rated->hosts[i]->rate[origin] - mean, 2);
    }
    threshold = mean - (double)param_of(outlier, KB_OUTLIER_SUCCESS_RATE_STDEV_FACTOR) / 1000.0 *
                           sqrt(variance / rated->count);
    outlier->success_rate_average[origin] = mean;
    outlier->success_rate_threshold[origin] = threshold;
    for (uint32_t i = 0; i < rated->count; i++) {
        enum kb_outlier_type type = origin == KB_OUTLIER_EXTERNAL
                                        ? KB_OUTLIER_TYPE_SUCCESS_RATE
                                        : KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN;

        if (rated->hosts[i]->rate[origin] < threshold) {
            kb_stat_inc(outlier->stats, KB_STAT_OUTLIER_DETECTION_EJECTIONS_SUCCESS_RATE);
            detected_count(outlier, type);
            host_eject(outlier, rated->hosts[i], type, now_ms);
        }
    }
}

static void failures_eject(struct kb_outlier *outlier, const struct rated *rated,
                           enum kb_outlier_origin origin, uint64_t now_ms)
{
    double threshold = (double)param_of(outlier, KB_OUTLIER_FAILURE_PERCENTAGE_THRESHOLD);
    enum kb_outlier_type type = origin == KB_OUTLIER_EXTERNAL
                                    ? KB_OUTLIER_TYPE_FAILURE_PERCENTAGE
                                    : KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN;

    for (uint32_t i = 0; i < rated->count; i++) {
        if (100.0 - rated->hosts[i]->rate[origin] >= threshold) {
            detected_count(outlier, type);
            host_eject(outlier, rated->hosts[i], type, now_ms);
        }
    }
}

static void origin_check(struct kb_outlier *outlier, enum kb_outlier_origin origin, uint64_t now_ms)
{
    uint64_t rate_hosts = param_of(outlier, KB_OUTLIER_SUCCESS_RATE_MINIMUM_HOSTS);
    uint64_t rate_volume = param_of(outlier, KB_OUTLIER_SUCCESS_RATE_REQUEST_VOLUME);
    uint64_t failure_hosts = param_of(outlier, KB_OUTLIER_FAILURE_PERCENTAGE_MINIMUM_HOSTS);
    uint64_t failure_volume = param_of(outlier, KB_OUTLIER_FAILURE_PERCENTAGE_REQUEST_VOLUME);
    struct rated rates, failures;

    outlier->success_rate_average[origin] = -1;
    outlier->success_rate_threshold[origin] = -1;
    if (outlier->host_count < rate_hosts && outlier->host_count < failure_hosts) {
        return;
    }
    rates = (struct rated){kb_calloc(2 * outlier->host_count + 1, sizeof(rates.hosts[0])), 0};
    failures = (struct rated){rates.hosts + outlier->host_count, 0};
    KB_LIST_FOREACH (link, &outlier->hosts) {
        struct kb_outlier_host *state = KB_LIST_ENTRY(link, struct kb_outlier_host, link);

        if (state->ejected || state->volume[origin] == 0) {
            continue;
        }
        if (state->volume[origin] >= KB_MIN(rate_volume, failure_volume)) {
            state->success_rate[origin] = state->rate[origin];
        }
        if (state->volume[origin] >= rate_volume) {
            rates.hosts[rates.count++] = state;
        }
        if (state->volume[origin] >= failure_volume) {
            failures.hosts[failures.count++] = state;
        }
    }
    if (rates.count > 0 && rates.count >= rate_hosts) {
        rates_eject(outlier, &rates, origin, now_ms);
    }
    if (failures.count > 0 && failures.count >= failure_hosts) {
        failures_eject(outlier, &failures, origin, now_ms);
    }
    free(rates.hosts);
}

/* One that has been in for an interval is forgiven one ejection. */
static void backoff_check(struct kb_outlier *outlier, struct kb_outlier_host *state,
                          uint64_t now_ms)
{
    if (!state->ejected && state->was_unejected && state->backoff > 0 &&
        now_ms - state->unejected_at_ms >= param_of(outlier, KB_OUTLIER_INTERVAL_MS)) {
        state->backoff--;
    }
}

void kb_outlier_on_interval(struct kb_outlier *outlier, uint64_t now_ms)
{
    KB_LIST_FOREACH (link, &outlier->hosts) {
        struct kb_outlier_host *state = KB_LIST_ENTRY(link, struct kb_outlier_host, link);

        uneject_check(outlier, state, now_ms);
        volumes_take(outlier, state);
    }
    origin_check(outlier, KB_OUTLIER_EXTERNAL, now_ms);
    origin_check(outlier, KB_OUTLIER_LOCAL, now_ms);
    KB_LIST_FOREACH (link, &outlier->hosts) {
        backoff_check(outlier, KB_LIST_ENTRY(link, struct kb_outlier_host, link), now_ms);
    }
}
