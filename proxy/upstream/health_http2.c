/* SPDX-License-Identifier: Apache-2.0 */
/* Health checks over HTTP/2: a session for each connection, with one stream at a time. Nothing is
 * closed from within the session: what its callbacks find out is acted upon when it returns. */
#include "proxy/upstream/h2_client.h"
#include "proxy/upstream/health_checker_internal.h"

#define OUT_BYTES_MAX     (1024u * 1024)
#define H2_INTERNAL_ERROR 2 /* RFC 9113 section 7 */

static struct kb_health_session *session_of(void *owner)
{
    return KB_CAST(owner, kb_health_session);
}

/* ---- the connection ---- */

static void on_goaway(void *owner, uint32_t error_code)
{
    struct kb_health_session *session = session_of(owner);

    session->probe.h2.goaway = true;
    if (error_code != 0) {
        session->probe.h2.failed = true; /* an answer under way is not waited for */
    }
}

static const struct kb_h2_session_callbacks session_callbacks = {
    .on_goaway = on_goaway,
};

void kb_health_h2_init(struct kb_health_session *session)
{
    const struct kb_cluster *cluster = session->host->cluster;
    struct kb_worker *main = session->checker->server->main;
    struct kb_h2_settings settings;

    kb_h2_client_settings(cluster, &settings);
    session->probe.h2.goaway = false;
    session->probe.h2.failed = false;
    session->probe.h2.session = kb_h2_session_create(
        &settings, &session_callbacks, session, &main->slices, kb_h2_mem_of(main),
        kb_stat_group_block(cluster->http2_stats, main->index));
}

void kb_health_h2_dispose(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;

    if (probe->h2.stream != NULL) {
        kb_h2_stream_close(probe->h2.stream, H2_INTERNAL_ERROR);
        probe->h2.stream = NULL;
    }
    if (probe->h2.session != NULL) {
        kb_h2_session_destroy(probe->h2.session, KB_RESET_CONNECTION_TERMINATION);
        probe->h2.session = NULL;
    }
    probe->h2.answered = false;
}

/* What the session has to say goes to the connection. */
static void flush(struct kb_health_session *session)
{
    struct kb_conn *conn = session->probe.conn;

    if (kb_h2_session_send(session->probe.h2.session, &conn->out, OUT_BYTES_MAX) != 0) {
        session->probe.h2.failed = true;
    }
    if (conn->out.len > 0) {
        kb_conn_written(conn);
    }
}

/* Acts upon what the callbacks found out. The last thing that is done with the session. */
static void settle(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    bool keep = !probe->h2.goaway && !probe->h2.failed;

    if (!probe->h2.answered || (keep && session->checker->config.reuse_connection)) {
        flush(session);
        keep = keep && !probe->h2.failed;
    }
    if (probe->h2.answered) {
        enum kb_health_result result = probe->h2.result;

        probe->h2.answered = false;
        kb_health_probe_answer(session, result, keep);
    } else if (probe->h2.failed && probe->asked) {
        kb_health_probe_answer(session, KB_HEALTH_NETWORK, false);
    } else if (probe->h2.failed || (probe->h2.goaway && !probe->asked)) {
        kb_health_probe_close(session);
    }
}

void kb_health_h2_on_data(struct kb_health_session *session, struct kb_buf *in)
{
    struct kb_health_probe *probe = &session->probe;
    uint64_t now_ms = kb_loop_now_ms(&session->checker->server->main->loop);
    int rc = 0;

    for (struct kb_segment *s = in->first; s != NULL && rc == 0; s = s->next) {
        rc = kb_h2_session_receive(probe->h2.session, s->slice->bytes + s->from, s->to - s->from,
                                   now_ms);
    }
    kb_buf_consume(in, in->len);
    if (rc != 0) {
        kb_stat_inc(kb_stat_group_block(session->host->cluster->stats,
                                        session->checker->server->main->index),
                    KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
        probe->h2.failed = true;
    }
    settle(session);
}

/* ---- the stream ---- */

void kb_health_h2_ask(struct kb_health_session *session, const struct kb_header_map *request,
                      struct kb_str body, const struct kb_h2_stream_callbacks *callbacks)
{
    struct kb_health_probe *probe = &session->probe;
    struct kb_buf data;

    probe->h2.response = NULL;
    probe->h2.stream = kb_h2_stream_open(probe->h2.session, request, body.len == 0, callbacks,
                                         session, &probe->arena);
    if (probe->h2.stream == NULL) { /* the peer allows no stream */
        probe->h2.result = KB_HEALTH_NETWORK;
        probe->h2.answered = probe->h2.failed = true;
    } else if (body.len > 0) {
        kb_buf_init(&data, &session->checker->server->main->slices, 0);
        kb_buf_append(&data, body.p, body.len);
        kb_h2_stream_send(probe->h2.stream, &data, true);
        kb_buf_dispose(&data);
    }
    settle(session);
}

void kb_health_h2_answered(struct kb_health_session *session, enum kb_health_result result)
{
    struct kb_health_probe *probe = &session->probe;

    kb_h2_stream_close(probe->h2.stream, H2_INTERNAL_ERROR);
    probe->h2.stream = NULL;
    /* what the connection failed of before counts, whether or not both came in one read */
    probe->h2.result = probe->h2.failed ? KB_HEALTH_NETWORK : result;
    probe->h2.answered = true;
}

void kb_health_h2_on_reset(void *owner, enum kb_reset_reason reason)
{
    (void)reason;
    kb_health_h2_answered(session_of(owner), KB_HEALTH_NETWORK);
}

bool kb_health_h2_cancel(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;

    if (!probe->connected || probe->h2.stream == NULL) {
        return false;
    }
    kb_h2_stream_close(probe->h2.stream, H2_INTERNAL_ERROR);
    probe->h2.stream = NULL;
    flush(session);
    return !probe->h2.goaway && !probe->h2.failed;
}

/* ---- HTTP checks ---- */

static void http2_on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct kb_health_session *session = session_of(owner);

    session->probe.h2.response = headers;
    if (end_stream) {
        kb_health_h2_answered(session, kb_health_http_judge(session, headers));
    }
}

static void http2_on_data(void *owner, const char *bytes, size_t len)
{
    struct kb_health_session *session = session_of(owner);

    kb_health_http_body(session, bytes, len);
    kb_h2_stream_consume(session->probe.h2.stream, len);
}

static void http2_on_end(void *owner, struct kb_header_map *trailers)
{
    struct kb_health_session *session = session_of(owner);

    (void)trailers;
    kb_health_h2_answered(session, kb_health_http_judge(session, session->probe.h2.response));
}

static void http2_on_below_low(void *owner)
{
    (void)owner;
}

static const struct kb_h2_stream_callbacks stream_callbacks = {
    .on_headers = http2_on_headers,
    .on_data = http2_on_data,
    .on_end = http2_on_end,
    .on_reset = kb_health_h2_on_reset,
    .on_below_low = http2_on_below_low,
};

static void http2_ask(struct kb_health_session *session)
{
    struct kb_header_map request;

    kb_health_http_request(session, &request);
    kb_health_h2_ask(session, &request, session->checker->config.send, &stream_callbacks);
}

const struct kb_health_codec kb_health_http2_codec = {
    .init = kb_health_h2_init,
    .ask = http2_ask,
    .on_data = kb_health_h2_on_data,
    .dispose = kb_health_h2_dispose,
};
