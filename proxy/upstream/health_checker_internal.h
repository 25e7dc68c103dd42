/* SPDX-License-Identifier: Apache-2.0 */
/* Between health_config.c, health_checker.c and health_probe.c. */
#pragma once

#include "base/arena.h"
#include "base/init_manager.h"
#include "base/list.h"
#include "proxy/api/connection.h"
#include "proxy/api/header_map.h"
#include "proxy/http/h1_parse.h"
#include "proxy/matcher/match_build.h"
#include "proxy/matcher/string_match.h"
#include "proxy/upstream/health_checker.h"

enum kb_health_kind { KB_HEALTH_HTTP, KB_HEALTH_TCP };

struct kb_health_range {
    int64_t start, end; /* [start, end) */
};

struct kb_health_ranges {
    const struct kb_health_range *items;
    size_t count;
};

/* Lives in its arena; durations in milliseconds. */
struct kb_health_config {
    struct kb_arena arena;
    struct kb_regex_list regexes;
    enum kb_health_kind kind;
    uint64_t timeout_ms;
    uint64_t interval_ms;
    uint64_t no_traffic_interval_ms;
    uint64_t no_traffic_healthy_interval_ms;
    uint64_t unhealthy_interval_ms;
    uint64_t unhealthy_edge_interval_ms;
    uint64_t healthy_edge_interval_ms;
    uint64_t initial_jitter_ms;
    uint64_t interval_jitter_ms;
    uint32_t interval_jitter_percent;
    uint32_t unhealthy_threshold;
    uint32_t healthy_threshold;
    bool reuse_connection;
    struct {                /* KB_HEALTH_HTTP */
        struct kb_str host; /* never empty: the cluster's name */
        struct kb_str path;
        struct kb_str method;
        struct kb_health_ranges expected;
        struct kb_health_ranges retriable;
        struct kb_string_matcher *service_name; /* NULL: any */
    } http;
    struct { /* KB_HEALTH_TCP */
        struct kb_str send;
        const struct kb_str *receive; /* in this order, with anything between */
        size_t receive_count;
    } tcp;
};

/* Whether this kind of check is implemented. Where it is not, hosts are not checked, and the field
 * is reported as every other that has no effect. */
bool kb_health_config_known(const Envoy__Config__Core__V3__HealthCheck *message);
/* Reads the message, of a known kind, into `config`, whose storage is the caller's; errors go to
 * diag. */
void kb_health_config_read(const Envoy__Config__Core__V3__HealthCheck *message,
                           const char *cluster_name, struct kb_health_config *config,
                           struct kb_diag *diag);
void kb_health_config_dispose(struct kb_health_config *config);

enum kb_health_result {
    KB_HEALTH_OK,
    KB_HEALTH_DEGRADED,
    KB_HEALTH_FAILED,    /* the host says so: it is unhealthy at once */
    KB_HEALTH_RETRIABLE, /* the host says so: counts towards the threshold */
    KB_HEALTH_NETWORK,   /* likewise */
    KB_HEALTH_TIMEOUT,   /* likewise */
};

/* The connection of one session. */
struct kb_health_probe {
    struct kb_conn *conn; /* NULL: none */
    bool connected;
    bool parsing; /* `parser` is set up */
    bool begun;   /* it is in a message */
    bool asked;   /* an answer is awaited */
    struct kb_h1_parser parser;
    struct kb_header_map response;
    struct kb_arena arena; /* of one check */
};

struct kb_health_session {
    KB_OBJ;
    struct kb_list link;
    struct kb_health_checker *checker;
    struct kb_host *host; /* holds a reference */
    struct kb_timer interval_timer;
    struct kb_timer timeout_timer;
    struct kb_health_probe probe;
    uint32_t generation;
    uint32_t healthy_row, unhealthy_row;
    bool first_check;
};
KB_OBJ_MAGIC(kb_health_session, 0x48435353);

struct kb_health_checker {
    KB_OBJ;
    struct kb_health_config config;
    struct kb_cluster_entry *entry;
    struct kb_server_context *server;
    struct kb_stat_group *group;
    struct kb_stat_block *stats;
    struct kb_list sessions;
    struct kb_deferred refresh;
    struct kb_init_target target;
    uint32_t awaited; /* answers that warming waits for */
    uint32_t generation;
};
KB_OBJ_MAGIC(kb_health_checker, 0x4843434b);

/* A check ended. From health_probe.c, as the last thing that it does with the session. */
void kb_health_session_answer(struct kb_health_session *session, enum kb_health_result result);

/* Asks the host, over a new connection when there is none. The answer never comes from within. */
void kb_health_probe_start(struct kb_health_session *session);
/* Closes the connection; no answer comes any more. */
void kb_health_probe_close(struct kb_health_session *session);
