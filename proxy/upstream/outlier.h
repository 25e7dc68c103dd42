/* SPDX-License-Identifier: Apache-2.0 */
/* Outlier detection: which hosts of a cluster are left out because of what requests met there, and
 * for how long (Envoy docs: architecture, outlier detection). Pure but for statistics cells: it is
 * told the time and the results, and tells its owner whose state changed. Main thread, except where
 * said. */
#pragma once

#include "base/list.h"
#include "base/rand.h"
#include "proxy/api/cluster.h"
#include "proxy/api/runtime.h"

/* X(ID, runtime key after "outlier_detection.", default) */
#define KB_OUTLIER_PARAMS(X)                                                                    \
    X(INTERVAL_MS, "interval_ms", 10000)                                                        \
    X(BASE_EJECTION_TIME_MS, "base_ejection_time_ms", 30000)                                    \
    X(MAX_EJECTION_TIME_MS, "max_ejection_time_ms", 300000)                                     \
    X(MAX_EJECTION_TIME_JITTER_MS, "max_ejection_time_jitter_ms", 0)                            \
    X(CONSECUTIVE_5XX, "consecutive_5xx", 5)                                                    \
    X(CONSECUTIVE_GATEWAY_FAILURE, "consecutive_gateway_failure", 5)                            \
    X(CONSECUTIVE_LOCAL_ORIGIN_FAILURE, "consecutive_local_origin_failure", 5)                  \
    X(MAX_EJECTION_PERCENT, "max_ejection_percent", 10)                                         \
    X(SUCCESS_RATE_MINIMUM_HOSTS, "success_rate_minimum_hosts", 5)                              \
    X(SUCCESS_RATE_REQUEST_VOLUME, "success_rate_request_volume", 100)                          \
    X(SUCCESS_RATE_STDEV_FACTOR, "success_rate_stdev_factor", 1900)                             \
    X(FAILURE_PERCENTAGE_THRESHOLD, "failure_percentage_threshold", 85)                         \
    X(FAILURE_PERCENTAGE_MINIMUM_HOSTS, "failure_percentage_minimum_hosts", 5)                  \
    X(FAILURE_PERCENTAGE_REQUEST_VOLUME, "failure_percentage_request_volume", 50)               \
    X(ENFORCING_CONSECUTIVE_5XX, "enforcing_consecutive_5xx", 100)                              \
    X(ENFORCING_CONSECUTIVE_GATEWAY_FAILURE, "enforcing_consecutive_gateway_failure", 0)        \
    X(ENFORCING_SUCCESS_RATE, "enforcing_success_rate", 100)                                    \
    X(ENFORCING_CONSECUTIVE_LOCAL_ORIGIN_FAILURE, "enforcing_consecutive_local_origin_failure", \
      100)                                                                                      \
    X(ENFORCING_LOCAL_ORIGIN_SUCCESS_RATE, "enforcing_local_origin_success_rate", 100)          \
    X(ENFORCING_FAILURE_PERCENTAGE, "enforcing_failure_percentage", 0)                          \
    X(ENFORCING_FAILURE_PERCENTAGE_LOCAL_ORIGIN, "enforcing_failure_percentage_local_origin", 0)

enum kb_outlier_param {
#define X(ID, key, value) KB_OUTLIER_##ID,
    KB_OUTLIER_PARAMS(X)
#undef X
        KB_OUTLIER_PARAM_COUNT
};

/* Why a host is put out, in the order of envoy.data.cluster.v3.OutlierEjectionType. */
enum kb_outlier_type {
    KB_OUTLIER_TYPE_5XX,
    KB_OUTLIER_TYPE_GATEWAY_FAILURE,
    KB_OUTLIER_TYPE_SUCCESS_RATE,
    KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE,
    KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN,
    KB_OUTLIER_TYPE_FAILURE_PERCENTAGE,
    KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN,
    KB_OUTLIER_TYPE_COUNT
};

/* Immutable; shared with workers. */
struct kb_outlier_config {
    uint64_t params[KB_OUTLIER_PARAM_COUNT];
    bool split_external_local_origin_errors;
    bool always_eject_one_host;
    bool unejected_by_health_check; /* successful_active_health_check_uneject_host */
};

struct kb_outlier;

/* What is kept of one host; hangs on it and goes with it. */
struct kb_outlier_host {
    /* Failures in a row over all workers; any thread, relaxed. A success writes only when it ends a
     * row. */
    uint32_t row_5xx, row_gateway, row_local;
    uint32_t ejections;
    uint32_t backoff;            /* the next ejection lasts so many times the base */
    struct kb_outlier *detector; /* NULL: not watched, or not any more */
    struct kb_list link;         /* in the detector's list */
    struct kb_host *host;
    uint32_t generation; /* for whoever compares lists of hosts */
    bool ejected;
    bool was_unejected;
    uint64_t jitter_ms;
    uint64_t ejected_at_ms; /* the last time; valid when ejections > 0 */
    uint64_t unejected_at_ms;
    uint32_t seen_total[KB_OUTLIER_ORIGIN_COUNT]; /* of the workers' counts, at the last interval */
    uint32_t seen_success[KB_OUTLIER_ORIGIN_COUNT];
    uint32_t volume[KB_OUTLIER_ORIGIN_COUNT];     /* requests of the interval that ended */
    double rate[KB_OUTLIER_ORIGIN_COUNT];         /* successes of them, percent */
    double success_rate[KB_OUTLIER_ORIGIN_COUNT]; /* as shown; -1: too few requests */
};

/* The owner of a detector. */
struct kb_outlier_owner {
    /* What the workers counted for this host so far; 32 bits that wrap around. */
    void (*counts)(const struct kb_outlier_host *host, uint32_t total[KB_OUTLIER_ORIGIN_COUNT],
                   uint32_t success[KB_OUTLIER_ORIGIN_COUNT]);
    /* host->ejected is another one now. */
    void (*changed)(void *arg, struct kb_outlier_host *host);
    /* For the event log: after an ejection, enforced or not (the type says why), and after its end
     * (KB_OUTLIER_TYPE_COUNT). `since_ms`: since the host's last action of the other kind;
     * UINT64_MAX: there was none. NULL: nobody wants to know. */
    void (*event)(void *arg, const struct kb_outlier_host *host, enum kb_outlier_type type,
                  bool enforced, uint64_t since_ms);
    void *arg;
};

struct kb_outlier {
    const struct kb_outlier_config *config;
    const struct kb_runtime *runtime; /* NULL: none */
    struct kb_stat_block *stats;      /* of kb_stat_schema_outlier_detection */
    struct kb_rand *rand;
    struct kb_outlier_owner owner;
    struct kb_list hosts;
    uint32_t host_count;
    uint32_t ejected_count;
    double success_rate_average[KB_OUTLIER_ORIGIN_COUNT]; /* -1: not computed */
    double success_rate_threshold[KB_OUTLIER_ORIGIN_COUNT];
};

/* The defaults. */
void kb_outlier_config_init(struct kb_outlier_config *config);
/* The value at this moment: runtime may say another one. Any thread. */
uint64_t kb_outlier_param(const struct kb_outlier_config *config, const struct kb_runtime *runtime,
                          enum kb_outlier_param param);

/* Everything that is pointed to outlives the detector. */
void kb_outlier_init(struct kb_outlier *outlier, const struct kb_outlier_config *config,
                     const struct kb_runtime *runtime, struct kb_stat_block *stats,
                     struct kb_rand *rand, const struct kb_outlier_owner *owner);
/* Lets go of all hosts, whose state stays as it is. */
void kb_outlier_dispose(struct kb_outlier *outlier);

/* The host is watched from now on; `state` was zero. */
void kb_outlier_add(struct kb_outlier *outlier, struct kb_outlier_host *state,
                    struct kb_host *host);
void kb_outlier_remove(struct kb_outlier *outlier, struct kb_outlier_host *state);

/* A worker saw the last failure of a row that is long enough. */
void kb_outlier_on_row(struct kb_outlier *outlier, struct kb_outlier_host *state,
                       enum kb_outlier_type type, uint64_t now_ms);
/* An active health check of an ejected host succeeded. */
void kb_outlier_uneject(struct kb_outlier *outlier, struct kb_outlier_host *state, uint64_t now_ms);
/* To be called every interval (kb_outlier_param). */
void kb_outlier_on_interval(struct kb_outlier *outlier, uint64_t now_ms);

/* What one result does to the rows: a bit 1 << type for each row that is long enough now, which the
 * main thread has to hear of. Any thread. */
unsigned kb_outlier_count_code(struct kb_outlier_host *state,
                               const struct kb_outlier_config *config,
                               const struct kb_runtime *runtime, unsigned code);
unsigned kb_outlier_count_local(struct kb_outlier_host *state,
                                const struct kb_outlier_config *config,
                                const struct kb_runtime *runtime, bool success);
