/* SPDX-License-Identifier: Apache-2.0 */
/* Retries of one stream (Envoy Router::RetryStateImpl): which answers and resets are worth another
 * try, how many, and how long to wait. Pure: the caller owns timers, statistics and the retry
 * resource. Typical use, after an answer's head or a reset:
 *
 *     if (state.retrying) { kb_resource_give(local, priority, KB_RESOURCE_RETRIES); }
 *     gate.room = kb_resource_can(local, priority, KB_RESOURCE_RETRIES);
 *     status = kb_retry_should_retry_headers(&state, headers, &gate, &counts);
 *     if (status == KB_RETRY_YES) { kb_resource_take(...); arm a timer of kb_retry_delay_ms(...) }
 *
 * and give the resource back when the stream ends while state.retrying is true. */
#pragma once

#include "proxy/api/header_map.h"
#include "proxy/api/reset_reason.h"
#include "proxy/api/route.h"

enum { /* kb_retry_policy.retry_on */
       KB_RETRY_ON_5XX = 0x1,
       KB_RETRY_ON_GATEWAY_ERROR = 0x2,
       KB_RETRY_ON_CONNECT_FAILURE = 0x4,
       KB_RETRY_ON_RETRIABLE_4XX = 0x8,
       KB_RETRY_ON_REFUSED_STREAM = 0x10,
       KB_RETRY_ON_GRPC_CANCELLED = 0x20,
       KB_RETRY_ON_GRPC_DEADLINE_EXCEEDED = 0x40,
       KB_RETRY_ON_GRPC_RESOURCE_EXHAUSTED = 0x80,
       KB_RETRY_ON_GRPC_UNAVAILABLE = 0x100,
       KB_RETRY_ON_GRPC_INTERNAL = 0x200,
       KB_RETRY_ON_RETRIABLE_STATUS_CODES = 0x400,
       KB_RETRY_ON_RESET = 0x800,
       KB_RETRY_ON_RETRIABLE_HEADERS = 0x1000,
       KB_RETRY_ON_ENVOY_RATE_LIMITED = 0x2000,
       KB_RETRY_ON_HTTP3_POST_CONNECT_FAILURE = 0x4000,
       KB_RETRY_ON_RESET_BEFORE_REQUEST = 0x8000,
};

/* Bits for a comma separated retry_on list; unknown words are left out and counted in *unknown (may
 * be NULL). `grpc`: the words of x-envoy-retry-grpc-on, otherwise those of x-envoy-retry-on. A
 * route's retry_on is parsed with both. */
uint32_t kb_retry_on_parse(struct kb_str list, bool grpc, unsigned *unknown);

enum kb_retry_status {
    KB_RETRY_NO,             /* nothing to retry */
    KB_RETRY_LIMIT_EXCEEDED, /* worth it, but none left: response flag URX */
    KB_RETRY_OVERFLOW, /* worth it, but no room: the retry circuit breaker or budget is full */
    KB_RETRY_YES,
};

enum { /* what to count after a decision: cluster upstream_rq_retry*, and the same of the virtual
          cluster */
       KB_RETRY_COUNT_RETRY = 1,          /* upstream_rq_retry */
       KB_RETRY_COUNT_SUCCESS = 2,        /* upstream_rq_retry_success */
       KB_RETRY_COUNT_LIMIT_EXCEEDED = 4, /* upstream_rq_retry_limit_exceeded */
       KB_RETRY_COUNT_OVERFLOW = 8,       /* upstream_rq_retry_overflow */
};

struct kb_retry_state {
    const struct kb_retry_policy *policy; /* NULL: only what request headers asked for */
    const struct kb_header_map *request;
    uint32_t retry_on; /* 0: never */
    uint32_t retries_remaining;
    uint32_t host_selection_attempts;
    uint64_t next_interval_ms; /* upper end of the next wait */
    uint64_t max_interval_ms;
    uint64_t rate_limited_ms;   /* lower end told by the last answer; 0: none */
    struct kb_str status_codes; /* x-envoy-retriable-status-codes; empty: none */
    struct kb_str header_names; /* x-envoy-retriable-header-names */
    bool retrying;              /* the last decision was YES: the caller holds a retry resource */
};

/* What a decision needs from outside. */
struct kb_retry_gate {
    bool room;       /* the retry resource may be taken */
    bool enabled;    /* runtime upstream.use_retry (100 %) */
    uint64_t wall_s; /* seconds since 1970, for X-RateLimit-Reset */
};

/* Call when the request is about to be forwarded, before header mutations are seen by an upstream:
 * reads x-envoy-retry-on, -retry-grpc-on, -max-retries, -retriable-status-codes,
 * -retriable-header-names and removes them, and x-envoy-hedge-on-per-try-timeout and
 * x-envoy-upstream-rq-per-try-timeout-ms, from the request. `policy` may be NULL.
 * `base_interval_ms` is runtime upstream.base_retry_backoff_ms (25), used when the policy has no
 * interval. The values stay borrowed from the request's arena. Returns whether any retry is
 * possible. */
bool kb_retry_state_init(struct kb_retry_state *state, const struct kb_retry_policy *policy,
                         struct kb_header_map *request, uint64_t base_interval_ms);

/* An answer's head came. *counts gets KB_RETRY_COUNT_* bits. */
enum kb_retry_status kb_retry_should_retry_headers(struct kb_retry_state *state,
                                                   const struct kb_header_map *response,
                                                   const struct kb_retry_gate *gate,
                                                   unsigned *counts);
/* The attempt was reset before an answer's head. `request_started`: bytes of the request were given
 * to a connection. A per-try timeout counts as KB_RESET_LOCAL_RESET. */
enum kb_retry_status kb_retry_should_retry_reset(struct kb_retry_state *state,
                                                 enum kb_reset_reason reason, bool request_started,
                                                 const struct kb_retry_gate *gate,
                                                 unsigned *counts);
/* A per-try timeout with hedge_on_per_try_timeout: retried whatever retry_on says. */
enum kb_retry_status kb_retry_should_hedge(struct kb_retry_state *state,
                                           const struct kb_retry_gate *gate, unsigned *counts);

/* After YES: how long to wait. *rate_limited says which counter:
 * upstream_rq_retry_backoff_ratelimited, otherwise upstream_rq_retry_backoff_exponential. */
uint64_t kb_retry_delay_ms(struct kb_retry_state *state, uint64_t random, bool *rate_limited);

/* Whether an answer with these headers would be retried if it were allowed to; for outlier and
 * hedging decisions. */
bool kb_retry_would_retry_headers(const struct kb_retry_state *state,
                                  const struct kb_header_map *response);

/* Retries that a retry budget allows (circuit breaker retry_budget): percent of active and pending
 * requests, at least the minimum concurrency. */
uint64_t kb_retry_budget_limit(double percent, uint32_t min_concurrency, uint64_t requests_active,
                               uint64_t requests_pending);
