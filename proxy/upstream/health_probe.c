/* SPDX-License-Identifier: Apache-2.0 */
/* The connection of a health check: HTTP/1 requests, or bytes. What the peer sends is bounded by
 * the check's timeout and by the settings of the parser; bodies are dropped as they come. */
#include <string.h>

#include "base/mem.h"
#include "proxy/api/transport_socket.h"
#include "proxy/http/h1_encode.h"
#include "proxy/upstream/health_checker_internal.h"

#define HEAD_BYTES_MAX    (80 * 1024)
#define HEADERS_MAX       100
#define RECEIVE_BYTES_MAX (64 * 1024)
#define EVENTS_MAX        1000 /* of the parser, in one go */

static const struct kb_h1_settings settings = {
    .max_head_bytes = HEAD_BYTES_MAX,
    .max_headers_count = HEADERS_MAX,
};

static struct kb_health_session *session_of(void *owner)
{
    return KB_CAST(owner, kb_health_session);
}

static void parser_dispose(struct kb_health_probe *probe)
{
    if (probe->parsing) {
        kb_h1_parser_dispose(&probe->parser);
        probe->parsing = false;
    }
    probe->begun = false;
}

void kb_health_probe_close(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    struct kb_conn *conn = probe->conn;

    probe->conn = NULL; /* its last event is not for us */
    probe->connected = false;
    probe->asked = false;
    parser_dispose(probe);
    if (conn != NULL) {
        kb_conn_close(conn, KB_CONN_NO_FLUSH);
    }
}

/* The check ended; the connection stays for the next one when it may. */
static void answer(struct kb_health_session *session, enum kb_health_result result, bool keep)
{
    struct kb_health_probe *probe = &session->probe;

    probe->asked = false;
    if (!keep || !session->checker->config.reuse_connection) {
        kb_health_probe_close(session);
    }
    kb_health_session_answer(session, result);
}

/* ---- HTTP ---- */

static bool in_ranges(const struct kb_health_ranges *ranges, unsigned status)
{
    for (size_t i = 0; i < ranges->count; i++) {
        if (status >= ranges->items[i].start && status < ranges->items[i].end) {
            return true;
        }
    }
    return false;
}

static enum kb_health_result response_judge(struct kb_health_session *session)
{
    const struct kb_health_config *config = &session->checker->config;
    const struct kb_header_map *response = &session->probe.response;

    if (!in_ranges(&config->http.expected, response->status)) {
        if (kb_header_map_get_id(response, KB_HDR_X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL) != NULL) {
            __atomic_fetch_or(&session->host->health_flags, KB_HOST_EXCLUDED_IMMEDIATE_HC,
                              __ATOMIC_RELAXED);
        }
        return in_ranges(&config->http.retriable, response->status) ? KB_HEALTH_RETRIABLE
                                                                    : KB_HEALTH_FAILED;
    }
    if (config->http.service_name != NULL) {
        struct kb_str name =
            kb_header_map_value_id(response, KB_HDR_X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER);

        kb_stat_inc(session->checker->stats, KB_STAT_HEALTH_CHECK_VERIFY_CLUSTER);
        if (!kb_string_matcher_match(config->http.service_name,
                                     name.p == NULL ? KB_STR("") : name)) {
            return KB_HEALTH_FAILED;
        }
    }
    return kb_header_map_get_id(response, KB_HDR_X_ENVOY_DEGRADED) != NULL ? KB_HEALTH_DEGRADED
                                                                           : KB_HEALTH_OK;
}

static void http_send(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    const struct kb_health_config *config = &session->checker->config;
    struct kb_header_map request;

    kb_arena_dispose(&probe->arena);
    kb_header_map_init(&request, &probe->arena);
    request.method = config->http.method;
    request.path = config->http.path;
    request.authority = config->http.host;
    kb_header_map_add_id(&request, KB_HDR_USER_AGENT, KB_STR("Envoy/HC"));
    if (!probe->parsing) {
        kb_h1_parser_init(&probe->parser, true, &settings, &probe->conn->worker->slices);
        probe->parsing = true;
    }
    kb_h1_encode_request(&probe->conn->out, &request, true, &settings);
    kb_conn_written(probe->conn);
}

/* The whole answer is there. */
static void http_done(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    enum kb_health_result result = response_judge(session);
    bool keep = probe->parser.keep_alive && !probe->parser.until_close;

    kb_h1_parser_next(&probe->parser);
    probe->begun = false;
    answer(session, result, keep);
}

static void http_begin(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;

    if (!probe->begun) {
        probe->begun = true;
        kb_header_map_init(&probe->response, &probe->arena);
        probe->parser.head_response_expected =
            kb_str_eq(session->checker->config.http.method, KB_STR("HEAD"));
        kb_h1_parser_begin(&probe->parser, &probe->response, &probe->arena);
    }
}

static void http_on_data(struct kb_health_session *session, struct kb_buf *in)
{
    struct kb_health_probe *probe = &session->probe;

    for (unsigned events = 0; events < EVENTS_MAX; events++) {
        if (!probe->begun && !kb_h1_parser_has_input(&probe->parser, in)) {
            return;
        }
        http_begin(session);
        switch (kb_h1_parse(&probe->parser, in)) {
        case KB_H1_NEED_MORE:
            return;
        case KB_H1_HEAD:
            break;
        case KB_H1_BODY:
            kb_buf_consume(&probe->parser.body, probe->parser.body.len);
            break;
        case KB_H1_COMPLETE:
            if (probe->response.status >= 200 || probe->response.status == 101) {
                http_done(session);
                return;
            }
            kb_h1_parser_next(&probe->parser); /* informational: the answer follows */
            probe->begun = false;
            break;
        case KB_H1_ERROR:
        default:
            answer(session, KB_HEALTH_NETWORK, false);
            return;
        }
    }
    answer(session, KB_HEALTH_NETWORK, false); /* pieces without an end */
}

/* ---- TCP ---- */

static void tcp_send(struct kb_health_session *session)
{
    const struct kb_health_config *config = &session->checker->config;

    if (config->tcp.receive_count == 0) {
        answer(session, KB_HEALTH_OK, false); /* connecting was all that was to be seen */
        return;
    }
    if (config->tcp.send.len > 0) {
        kb_buf_append(&session->probe.conn->out, config->tcp.send.p, config->tcp.send.len);
        kb_conn_written(session->probe.conn);
    }
}

/* Whether all blocks stand in the bytes, one behind the other; the bytes stay until they do. */
static bool tcp_matches(const struct kb_health_config *config, struct kb_str bytes)
{
    for (size_t i = 0; i < config->tcp.receive_count; i++) {
        struct kb_str block = config->tcp.receive[i];
        const char *at = block.len == 0 ? bytes.p : memmem(bytes.p, bytes.len, block.p, block.len);

        if (at == NULL) {
            return false;
        }
        bytes = kb_str_from(bytes, (size_t)(at - bytes.p) + block.len);
    }
    return true;
}

static void tcp_on_data(struct kb_health_session *session, struct kb_buf *in)
{
    if (in->len > 0 && tcp_matches(&session->checker->config,
                                   kb_buf_pullup(in, KB_MIN(in->len, (size_t)RECEIVE_BYTES_MAX)))) {
        kb_buf_consume(in, in->len);
        answer(session, KB_HEALTH_OK, true);
    } else if (in->len >= RECEIVE_BYTES_MAX) {
        answer(session, KB_HEALTH_NETWORK, false);
    }
}

/* ---- the connection ---- */

static void probe_send(struct kb_health_session *session)
{
    if (session->checker->config.kind == KB_HEALTH_HTTP) {
        http_send(session);
    } else {
        tcp_send(session);
    }
}

static void probe_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_health_session *session = session_of(owner);

    (void)end_stream;
    if (session->probe.conn == NULL) {
        kb_buf_consume(in, in->len);
    } else if (!session->probe.asked) {
        kb_buf_consume(in, in->len);
        kb_health_probe_close(session); /* nobody asked for that */
    } else if (session->checker->config.kind == KB_HEALTH_HTTP) {
        http_on_data(session, in);
    } else {
        tcp_on_data(session, in);
    }
}

/* The connection is gone; it may have been the end of an answer without a length. */
static void probe_on_close(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    bool complete = probe->asked && probe->begun && probe->parser.head_complete &&
                    kb_h1_parse_eof(&probe->parser) == KB_H1_COMPLETE;
    bool asked = probe->asked;
    enum kb_health_result result = complete ? response_judge(session) : KB_HEALTH_NETWORK;

    probe->conn = NULL;
    probe->connected = false;
    probe->asked = false;
    parser_dispose(probe);
    if (asked) {
        kb_health_session_answer(session, result);
    }
}

static void probe_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_health_session *session = session_of(owner);

    if (session->probe.conn == NULL) {
        return;
    }
    if (event == KB_CONN_CONNECTED) {
        session->probe.connected = true;
        probe_send(session);
    } else {
        probe_on_close(session);
    }
}

static void probe_nothing(void *owner)
{
    (void)owner;
}

static const struct kb_conn_callbacks probe_callbacks = {
    .on_data = probe_on_data,
    .on_event = probe_on_event,
    .on_above_high = probe_nothing,
    .on_below_low = probe_nothing,
};

void kb_health_probe_start(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    const struct kb_cluster *cluster = session->host->cluster;
    struct kb_addr addr = kb_host_addr(session->host);

    probe->asked = true;
    if (probe->conn != NULL) {
        if (probe->connected) {
            probe_send(session);
        }
        return;
    }
    probe->conn = kb_conn_create_connecting(
        session->checker->server->main, &addr, kb_cluster_bind_source(cluster, &addr),
        session->checker->config.timeout_ms, HEAD_BYTES_MAX + 1);
    kb_conn_set_owner(probe->conn, &probe_callbacks, session);
    probe->conn->in.high = KB_MAX(probe->conn->in.high, (size_t)HEAD_BYTES_MAX + 1);
    kb_transport_socket_factory_create(kb_host_transport_socket(session->host), probe->conn, NULL);
}
