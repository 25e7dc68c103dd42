/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files health_*.c: configuration, sessions, and what is asked on their connections. */
#pragma once

#include "base/arena.h"
#include "base/init_manager.h"
#include "base/list.h"
#include "proxy/api/connection.h"
#include "proxy/api/header_map.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/h1_parse.h"
#include "proxy/http/h2_client_session.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/match_build.h"
#include "proxy/matcher/string_match.h"
#include "proxy/upstream/health_checker.h"

enum kb_health_kind { KB_HEALTH_HTTP1, KB_HEALTH_HTTP2, KB_HEALTH_GRPC, KB_HEALTH_TCP };

struct kb_health_range {
    int64_t start, end; /* [start, end) */
};

struct kb_health_ranges {
    const struct kb_health_range *items;
    size_t count;
};

/* Blocks of bytes that an answer has to hold, in this order, with anything between. */
struct kb_health_payloads {
    const struct kb_str *items;
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
    bool log_failures, log_successes; /* each one, not only those that change something */
    const struct kb_str *alpn; /* offered in place of what the transport socket is set up with */
    size_t alpn_count;         /* 0: as it is set up */
    const struct kb_health_payloads *receive; /* not NULL; of HTTP: in the body */
    struct kb_str send;                       /* bytes of TCP, body of HTTP, message of gRPC */
    const struct kb_transport_socket_factory *socket; /* in place of the hosts'; NULL: theirs */
    uint16_t socket_number;                           /* as kb_host.socket */
    const struct kb_header_mutations *headers;        /* of requests; NULL: none */
    struct kb_str host;                               /* of requests: never empty */
    struct {                                          /* KB_HEALTH_HTTP1, KB_HEALTH_HTTP2 */
        struct kb_str path;
        struct kb_str method;
        struct kb_health_ranges expected;
        struct kb_health_ranges retriable;
        struct kb_string_matcher *service_name; /* NULL: any */
        size_t body_bytes_max;                  /* so much of a body is kept to be compared */
    } http;
};

/* Reads the message into `config`, whose storage is the caller's; errors go to
 * diag. */
void kb_health_config_read(const Envoy__Config__Core__V3__HealthCheck *message,
                           const struct kb_cluster *cluster, struct kb_health_config *config,
                           struct kb_diag *diag);
void kb_health_config_dispose(struct kb_health_config *config);

enum kb_health_result {
    KB_HEALTH_OK,
    KB_HEALTH_DEGRADED,
    KB_HEALTH_FAILED,    /* the host says so: it is unhealthy at once */
    KB_HEALTH_RETRIABLE, /* the host says so: counts towards the threshold */
    KB_HEALTH_NETWORK,   /* likewise */
    KB_HEALTH_TIMEOUT,   /* likewise */
    KB_HEALTH_PASSIVE,   /* it told a client that it is unhealthy, at once */
};

struct kb_health_session;

/* What is spoken on a session's connection. None may be NULL but where it is said. */
struct kb_health_codec {
    /* The connection was created; it does not stand yet. May be NULL. */
    void (*init)(struct kb_health_session *session);
    /* It stands: the question is written. */
    void (*ask)(struct kb_health_session *session);
    void (*on_data)(struct kb_health_session *session, struct kb_buf *in);
    /* The connection ended while an answer was awaited; true: that was the end of the answer, and
     * *result is what it says. May be NULL. */
    bool (*on_end)(struct kb_health_session *session, enum kb_health_result *result);
    /* No answer came in time; true: the question was taken back, and the connection may stay. May
     * be NULL. */
    bool (*cancel)(struct kb_health_session *session);
    /* The connection is gone, or about to be. May be NULL. */
    void (*dispose)(struct kb_health_session *session);
};

extern const struct kb_health_codec kb_health_http1_codec; /* health_http1.c */
extern const struct kb_health_codec kb_health_http2_codec; /* health_http2.c */
extern const struct kb_health_codec kb_health_grpc_codec;  /* health_grpc.c */

/* The connection of one session. */
struct kb_health_probe {
    struct kb_conn *conn; /* NULL: none */
    bool connected;
    bool asked;            /* an answer is awaited */
    uint16_t status;       /* of the last answer; 0: it had none */
    struct kb_arena arena; /* of one check */
    struct kb_buf body;    /* what is compared of it */
    struct {
        struct kb_h1_parser parser;
        struct kb_header_map response;
        bool parsing; /* `parser` is set up */
        bool begun;   /* it is in a message */
    } h1;
    struct {
        struct kb_h2_session *session; /* NULL: none */
        struct kb_h2_stream *stream;   /* NULL: none */
        const struct kb_header_map *response;
        enum kb_health_result result;
        bool answered; /* `result` was found, and is to be told when the session is left */
        bool goaway;   /* no request may follow this one */
        bool failed;   /* the connection is of no use any more */
    } h2;
    struct {
        struct kb_grpc_frame_reader reader;
        bool serving;
        bool has_message;
    } grpc;
};

/* What one check does with one host. */
struct kb_health_session {
    KB_OBJ;
    struct kb_health_checker *checker;
    struct kb_health_host *owner;
    struct kb_host *host; /* the owner's */
    struct kb_timer interval_timer;
    struct kb_timer timeout_timer;
    struct kb_health_probe probe;
    uint32_t flags; /* KB_HOST_ACTIVE_HC_FLAGS as this check alone would have them */
    uint32_t healthy_row, unhealthy_row;
    bool first_check;
};
KB_OBJ_MAGIC(kb_health_session, 0x48435353);

/* A host that is checked; kb_host.health points to it. */
struct kb_health_host {
    KB_OBJ;
    struct kb_list link;
    struct kb_host *host; /* holds a reference */
    uint32_t generation;
    uint32_t awaited; /* bits of checks that have not had their first answer: nothing is made of
                         any until all have */
    struct kb_health_session sessions[]; /* one for each check */
};
KB_OBJ_MAGIC(kb_health_host, 0x48434854);

/* One of the cluster's checks. */
struct kb_health_checker {
    struct kb_health_config config;
    struct kb_health_checks *checks;
    struct kb_cluster_entry *entry;
    struct kb_server_context *server;
    struct kb_stat_group *group;
    struct kb_stat_block *stats;
    uint32_t index;
    struct kb_log_file **event_files; /* in the configuration's arena */
    size_t event_file_count;
};

struct kb_health_checks {
    KB_OBJ;
    struct kb_cluster_entry *entry;
    struct kb_server_context *server;
    struct kb_stat_group *group; /* of all checks together; NULL: there is one */
    struct kb_stat_block *stats;
    struct kb_list hosts;
    struct kb_deferred refresh;
    struct kb_init_target target;
    uint32_t awaited; /* answers that warming waits for */
    uint32_t generation;
    uint32_t count;
    struct kb_health_checker items[];
};
KB_OBJ_MAGIC(kb_health_checks, 0x48434b53);

/* ---- health_checker.c ---- */

/* What one check says of its host changed, or it said the same again (`changed` is false): makes
 * what all checks say together the host's state. */
void kb_health_host_combine(struct kb_health_session *session, bool changed, bool healthy);

/* ---- health_session.c ---- */

/* Begins to check; `session` is zeroed storage of its owner. */
void kb_health_session_start(struct kb_health_session *session, struct kb_health_checker *checker,
                             struct kb_health_host *owner);
/* The host goes. */
void kb_health_session_end(struct kb_health_session *session);
/* An answer to a request of a client says that the host is unhealthy. */
void kb_health_session_passive(struct kb_health_session *session);
/* A check ended. From the probe, as the last thing that it does with the session. */
void kb_health_session_answer(struct kb_health_session *session, enum kb_health_result result);

/* ---- health_event.c ---- */

enum kb_health_event {
    KB_HEALTH_EVENT_ADDED,   /* the host is healthy now */
    KB_HEALTH_EVENT_EJECTED, /* it is not any more */
    KB_HEALTH_EVENT_FAILURE,
    KB_HEALTH_EVENT_SUCCESS,
    KB_HEALTH_EVENT_DEGRADED,
    KB_HEALTH_EVENT_NO_LONGER_DEGRADED,
};

/* Opens the files that the message names. `arena` is for reading it. */
void kb_health_events_read(struct kb_health_checker *checker,
                           const Envoy__Config__Core__V3__HealthCheck *message,
                           struct kb_arena *arena, struct kb_diag *diag);
/* One more line, where there is a file; `result` is that of the present check. */
void kb_health_event_log(const struct kb_health_session *session, enum kb_health_event kind,
                         enum kb_health_result result);

/* ---- health_probe.c ---- */

/* Asks the host, over a new connection when there is none. The answer never comes from within. */
void kb_health_probe_start(struct kb_health_session *session);
/* Closes the connection; no answer comes any more. */
void kb_health_probe_close(struct kb_health_session *session);
/* No answer came in time: none comes any more, for this check. */
void kb_health_probe_cancel(struct kb_health_session *session);
/* For codecs: the check ended; the connection stays for the next one when it may. The last thing
 * that a codec does. */
void kb_health_probe_answer(struct kb_health_session *session, enum kb_health_result result,
                            bool keep);

/* ---- health_http.c: what HTTP/1, HTTP/2 and gRPC have in common ---- */

/* An empty request in the probe's arena, which holds nothing else from now on. */
void kb_health_request_init(struct kb_health_session *session, struct kb_header_map *request);
/* Whom a request is for. */
struct kb_str kb_health_request_host(const struct kb_health_session *session);
/* Adds and removes the configured headers. */
void kb_health_request_headers(struct kb_health_session *session, struct kb_header_map *request);
/* The request of an HTTP check. */
void kb_health_http_request(struct kb_health_session *session, struct kb_header_map *request);
/* Some of the body of an answer. */
void kb_health_http_body(struct kb_health_session *session, const char *bytes, size_t len);
/* What a whole answer says. */
enum kb_health_result kb_health_http_judge(struct kb_health_session *session,
                                           const struct kb_header_map *response);
/* Whether all blocks stand in the bytes, one behind the other. */
bool kb_health_payloads_match(const struct kb_health_payloads *payloads, struct kb_str bytes);

/* ---- health_http2.c: what gRPC needs of it ---- */

void kb_health_h2_init(struct kb_health_session *session);
/* Sends a request with `body`, whose answer `callbacks` hear, with the session as the owner. */
void kb_health_h2_ask(struct kb_health_session *session, const struct kb_header_map *request,
                      struct kb_str body, const struct kb_h2_stream_callbacks *callbacks);
/* From within callbacks: the answer is there. A stream that is not over is reset. */
void kb_health_h2_answered(struct kb_health_session *session, enum kb_health_result result);
void kb_health_h2_on_data(struct kb_health_session *session, struct kb_buf *in);
void kb_health_h2_on_reset(void *owner, enum kb_reset_reason reason);
/* Resets the stream; true: the connection may stay. */
bool kb_health_h2_cancel(struct kb_health_session *session);
void kb_health_h2_dispose(struct kb_health_session *session);
