/* SPDX-License-Identifier: Apache-2.0 */
/* The router filter (envoy.filters.http.router) and its attempts: shared by router.c,
 * router_host.c, router_upstream.c and upstream_request.c only. */
#pragma once

#include "proxy/api/codec.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/route.h"
#include "proxy/router/retry_state.h"

/* From the Router message; immutable. */
struct kb_router_config {
    KB_OBJ;
    struct kb_server_context *server;
    bool suppress_envoy_headers;
    bool respect_expected_rq_timeout;
    bool dynamic_stats;
    bool suppress_grpc_codes;   /* suppress_grpc_request_failure_code_stats */
    bool upstream_log_on_ready; /* flush_upstream_log_on_upstream_stream */
    uint8_t strict_checks[5];   /* strict_check_headers: places in a list of router_config.c */
    uint8_t strict_check_count;
    uint64_t upstream_log_interval_ms;           /* 0: attempts are logged at their end */
    struct kb_access_log_list *upstream_log;     /* NULL: none */
    struct kb_upstream_http_chain *http_filters; /* upstream_http_filters; NULL: none */
    struct kb_arena arena;
};
KB_OBJ_MAGIC(kb_router_config, 0x52544346);

struct kb_attempt_record;
struct kb_router;
struct kb_shadow;
struct kb_slow_attempt;

/* One attempt at an upstream. */
struct kb_upstream_request {
    KB_OBJ;
    struct kb_router *router;
    struct kb_host *host;
    struct kb_host_local *host_local;   /* holds a reference */
    struct kb_request_encoder *encoder; /* NULL: no connection yet, or any more */
    struct kb_pool_waiter *waiter;
    struct kb_buf pending;       /* body that came before the connection */
    struct kb_buf *metadata;     /* blocks that came before the connection; NULL: none */
    struct kb_slice *head_slice; /* pins the response's strings */
    struct kb_timer per_try_timer;
    struct kb_timer per_try_idle_timer;
    struct kb_attempt_duration *duration;     /* limits this attempt; NULL: nothing does */
    struct kb_upstream_http_filters *filters; /* NULL: none; see upstream_http_filters.h */
    struct kb_attempt_record *record;         /* attempt_record.h; NULL: nobody wants to know */
    uint64_t start_ns;
    bool end_pending; /* end_stream belongs behind `pending` */
    bool trailers_pending;
    bool filtered;      /* its filters have seen the request's headers */
    bool paused;        /* an upgrade: bytes wait in `pending` until the upstream agrees */
    bool refused;       /* the upstream did not agree to an upgrade or CONNECT: no more is sent */
    bool headers_sent;  /* the request's head was given to a connection */
    bool request_ended; /* all of the request was given to the connection */
    bool response_started;
    bool interim_seen;          /* a 1xx head: further ones are of no interest */
    bool done;                  /* no event comes any more */
    bool grpc_success_deferred; /* only the trailers tell whether the call succeeded */
    bool downstream_stopped;    /* reading of the request is stopped because of us */
    bool timeout_reported;      /* outlier detection knows that it took too long */
    bool retried;               /* took too long: another attempt followed, this one goes on */
};
KB_OBJ_MAGIC(kb_upstream_request, 0x55505251);

/* A Set-Cookie value; in the stream's arena. */
struct kb_router_cookie {
    struct kb_router_cookie *next;
    struct kb_str text;
};

/* The filter of one stream; in the stream's arena. */
struct kb_router {
    KB_OBJ;
    const struct kb_router_config *config;
    struct kb_stream *stream;
    struct kb_worker *worker;
    struct kb_arena *arena;
    struct kb_stream_info *info;
    struct kb_header_map *request;
    struct kb_header_map *request_trailers;
    const struct kb_route *route;
    const void *choice;               /* weighted cluster entry */
    struct kb_cluster_local *cluster; /* holds a reference */
    struct kb_stat_block
        *vhost_stats[2];              /* of the virtual cluster and of stat_prefix; NULL: none */
    struct kb_router_cookie *cookies; /* of hash policies, for the answer; NULL: none */
    struct kb_upstream_request *upstream; /* the present attempt; NULL while backing off */
    struct kb_slow_attempt *slow;         /* hedging: attempts beside the present one; NULL: none */
    struct kb_host_local *last_host; /* which the stream info names, of an attempt that is over;
                                        holds a reference, or NULL */
    struct kb_slice *head_slice;     /* pins the answer of an attempt that is over; NULL: none */
    struct kb_retry_state retry;
    struct kb_shadow *shadows; /* copies that get the rest of the request; see shadow.h */
    bool retry_enabled;
    bool upgrade; /* the request asks for an upgrade that is enabled, or is CONNECT */
    bool connect; /* the request is CONNECT */
    enum kb_pool_kind pool_kind;
    bool redirect_enabled;    /* the route has an internal redirect policy */
    struct kb_buf retry_body; /* what must be sent again */
    struct kb_timer retry_timer;
    struct kb_timer response_timer;
    uint64_t request_complete_ns; /* the downstream request ended; 0: not yet */
    uint64_t timeout_ms;
    uint64_t per_try_timeout_ms;
    uint64_t per_try_idle_timeout_ms;
    uint64_t max_duration_ms; /* of an attempt: the client's word, or the cluster's; 0: none */
    uint32_t attempts;
    uint32_t timeout_status; /* 504, or 204 with x-envoy-upstream-rq-timeout-alt-response */
    const struct kb_host **tried_hosts;     /* for previous_hosts */
    const struct kb_upstream_info *earlier; /* as the attempts before left it; NULL: none */
    struct kb_retry_priorities *priorities; /* NULL: none, or no retry yet */
    uint32_t tried_count;
    uint32_t tried_cap;
    bool request_complete;
    bool head_only; /* the request ended with its head: no body follows, not even an empty one */
    bool response_started;
    bool informed; /* a 1xx head was passed on */
    bool response_complete;
    bool done;              /* answered: nothing more to do */
    bool watermark_stopped; /* the client reads slowly: the upstream connection is paused */
    bool abandoned;         /* the request outgrew the retry buffer */
    bool timeout_retry;
    bool hedging; /* attempts that take too long go on beside the next; see hedging.h */
    bool internal;
};
KB_OBJ_MAGIC(kb_router, 0x52545220);

/* ---- router_config.c ---- */

/* The filter's callbacks of these names. */
int kb_router_config_create(const void *message, struct kb_factory_context *factory,
                            struct kb_diag *diag, void **config);
void kb_router_config_destroy(void *config);
/* The number of an x-envoy-... header of a request; 0, or an error when it is none. */
int kb_router_number(struct kb_str value, uint64_t *number);
/* strict_check_headers: the first header of the request that is none of what Envoy understands;
 * false when all are good. The value lives as long as the request. */
bool kb_router_header_invalid(const struct kb_router *router, struct kb_str *name,
                              struct kb_str *value);

/* ---- router.c ---- */

/* Answers the stream itself: text body, details; adds the route's headers, and x-envoy-overloaded
 * when asked. */
void kb_router_reply(struct kb_router *router, unsigned status, struct kb_str body,
                     struct kb_str details, bool overloaded);
/* The upstream refused a WebSocket handshake by an answer that is no error: its status and headers
 * without its body. `answer` is copied. */
void kb_router_reply_handshake(struct kb_router *router, const struct kb_header_map *answer);
/* 503 "no healthy upstream". */
void kb_router_reply_no_host(struct kb_router *router);
/* x-envoy-attempt-count of the response, where the route asks for it. */
void kb_router_attempt_count_header(struct kb_router *router, struct kb_header_map *headers);
/* Sets a request header to a decimal number. */
void kb_router_number_header_set(struct kb_router *router, enum kb_header_id id, uint64_t v);
/* x-envoy-expected-rq-timeout-ms: what is left for this attempt. */
void kb_router_expected_timeout_set(struct kb_router *router);

/* ---- router_upstream.c ---- */

/* Chooses a host and starts an attempt there, or answers that there is none. */
void kb_router_attempt_start(struct kb_router *router);
void kb_router_retry_timer_fired(struct kb_timer *timer);
void kb_router_response_timer_fired(struct kb_timer *timer);
/* The filter's callbacks of these names. */
void kb_router_on_above_high(void *filter);
void kb_router_on_below_low(void *filter);
void kb_router_on_destroy(void *filter);

/* ---- router_upstream.c: what attempts tell ---- */

void kb_router_on_1xx(struct kb_router *router, struct kb_header_map *headers);
void kb_router_on_headers(struct kb_router *router, struct kb_header_map *headers, bool end_stream);
void kb_router_on_data(struct kb_router *router, struct kb_buf *data, bool end_stream);
void kb_router_on_trailers(struct kb_router *router, struct kb_header_map *trailers);
/* The flag of a stream, or an attempt, that ends so. */
enum kb_response_flag kb_router_reset_flag(enum kb_reset_reason reason);
/* The attempt ended without (the rest of) an answer. */
void kb_router_on_reset(struct kb_router *router, enum kb_reset_reason reason,
                        struct kb_str transport_failure);
void kb_router_on_per_try_timeout(struct kb_router *router, bool idle);
void kb_router_on_max_duration(struct kb_router *router);

/* ---- router_host.c ---- */

/* The host of the next attempt, remembered as tried; NULL: there is none. Sets what the transport
 * socket needs to know of the request. */
struct kb_host *kb_router_host_choose(struct kb_router *router);
/* Adds the cookies that hash policies made to the answer. */
void kb_router_cookies_set(const struct kb_router *router, struct kb_header_map *headers);

/* ---- upstream_request.c ---- */

/* Starts an attempt on this host; events may come from within. */
void kb_upstream_request_start(struct kb_router *router, struct kb_host *host);
void kb_upstream_request_data(struct kb_upstream_request *upstream, struct kb_buf *data,
                              bool end_stream);
void kb_upstream_request_trailers(struct kb_upstream_request *upstream);
void kb_upstream_request_metadata(struct kb_upstream_request *upstream, struct kb_buf *block);
/* Bytes of the request that it holds: for a connection, and for the upstream to take. */
size_t kb_upstream_request_held(const struct kb_upstream_request *upstream);
/* Gives the attempt up; no event comes any more. Harmless when it is over. */
void kb_upstream_request_cancel(struct kb_upstream_request *upstream);
/* Facts of its connection into the stream's info, while there is one. */
void kb_upstream_request_info(struct kb_upstream_request *upstream);
/* Releases what it holds; after the last event or cancel. */
void kb_upstream_request_dispose(struct kb_upstream_request *upstream);

/* ---- router_stats.c ---- */

/* Finds the statistics of virtual cluster and route, and counts the request there. */
void kb_router_stats_choose(struct kb_router *router);
/* Counts KB_STAT_VIRTUAL_CLUSTER_... there. */
void kb_router_count_vhost(struct kb_router *router, unsigned id);
/* Counts KB_RETRY_COUNT_* bits there. */
void kb_router_count_retries(struct kb_router *router, unsigned counts);
/* Counts a response code for the cluster and its variants (Envoy CodeStats::chargeResponseStat).
 * `retried`: the answer is not given to the client, another attempt follows. */
void kb_router_charge_code(struct kb_router *router, unsigned status,
                           const struct kb_header_map *headers,
                           struct kb_upstream_request *upstream, bool retried);
/* Records upstream_rq_time. */
/* The HTTP status that the grpc-status of the headers stands for; 0: there is none. */
unsigned kb_router_grpc_code(const struct kb_header_map *headers);
/* Outlier detection hears of the head of an answer, retried or not. */
void kb_router_report_answer(const struct kb_router *router, const struct kb_header_map *headers);
void kb_router_charge_time(struct kb_router *router);
