/* SPDX-License-Identifier: Apache-2.0 */
/* The connection of a health check, and the checks that are bytes alone. What the peer sends is
 * bounded by the check's timeout and by the limits of what is spoken. */
#include <string.h>

#include "base/mem.h"
#include "proxy/api/transport_socket.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/health_checker_internal.h"
#include "proxy/upstream/host.h"

#define IN_BYTES_MAX      (80 * 1024)
#define RECEIVE_BYTES_MAX (64 * 1024)

static const struct kb_health_codec tcp_codec;

static struct kb_health_session *session_of(void *owner)
{
    return KB_CAST(owner, kb_health_session);
}

static const struct kb_health_codec *codec_of(const struct kb_health_session *session)
{
    static const struct kb_health_codec *const codecs[] = {
        [KB_HEALTH_HTTP1] = &kb_health_http1_codec,
        [KB_HEALTH_HTTP2] = &kb_health_http2_codec,
        [KB_HEALTH_GRPC] = &kb_health_grpc_codec,
        [KB_HEALTH_TCP] = &tcp_codec,
    };

    return codecs[session->checker->config.kind];
}

/* The connection is gone, or goes. */
static void probe_dispose(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;

    probe->conn = NULL; /* its last event is not for us */
    probe->connected = false;
    probe->asked = false;
    if (codec_of(session)->dispose != NULL) {
        codec_of(session)->dispose(session);
    }
    kb_buf_dispose(&probe->body);
}

void kb_health_probe_close(struct kb_health_session *session)
{
    struct kb_conn *conn = session->probe.conn;

    if (conn != NULL) {
        probe_dispose(session);
        kb_conn_close(conn, KB_CONN_NO_FLUSH);
    }
}

void kb_health_probe_cancel(struct kb_health_session *session)
{
    const struct kb_health_codec *codec = codec_of(session);

    session->probe.asked = false;
    if (codec->cancel == NULL || !codec->cancel(session) ||
        !session->checker->config.reuse_connection) {
        kb_health_probe_close(session);
    }
}

void kb_health_probe_answer(struct kb_health_session *session, enum kb_health_result result,
                            bool keep)
{
    session->probe.asked = false;
    if (!keep || !session->checker->config.reuse_connection) {
        kb_health_probe_close(session);
    }
    kb_health_session_answer(session, result);
}

/* ---- TCP ---- */

static void tcp_ask(struct kb_health_session *session)
{
    const struct kb_health_config *config = &session->checker->config;

    if (config->receive->count == 0) {
        kb_health_probe_answer(session, KB_HEALTH_OK, false); /* connecting was all */
        return;
    }
    if (config->send.len > 0) {
        kb_buf_append(&session->probe.conn->out, config->send.p, config->send.len);
        kb_conn_written(session->probe.conn);
    }
}

static void tcp_on_data(struct kb_health_session *session, struct kb_buf *in)
{
    if (in->len > 0 &&
        kb_health_payloads_match(session->checker->config.receive,
                                 kb_buf_pullup(in, KB_MIN(in->len, (size_t)RECEIVE_BYTES_MAX)))) {
        kb_buf_consume(in, in->len);
        kb_health_probe_answer(session, KB_HEALTH_OK, true);
    } else if (in->len >= RECEIVE_BYTES_MAX) {
        kb_health_probe_answer(session, KB_HEALTH_NETWORK, false);
    }
}

static const struct kb_health_codec tcp_codec = {
    .ask = tcp_ask,
    .on_data = tcp_on_data,
};

/* ---- the connection ---- */

static void probe_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_health_session *session = session_of(owner);

    (void)end_stream;
    if (session->probe.conn == NULL) {
        kb_buf_consume(in, in->len);
    } else {
        codec_of(session)->on_data(session, in);
    }
}

/* The connection is gone; it may have been the end of an answer without a length. */
static void probe_on_close(struct kb_health_session *session)
{
    const struct kb_health_codec *codec = codec_of(session);
    bool asked = session->probe.asked;
    enum kb_health_result result = KB_HEALTH_NETWORK;

    if (!asked || codec->on_end == NULL || !codec->on_end(session, &result)) {
        result = KB_HEALTH_NETWORK;
    }
    probe_dispose(session);
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
        codec_of(session)->ask(session);
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

static void transport_start(struct kb_health_session *session)
{
    const struct kb_health_config *config = &session->checker->config;
    const struct kb_transport_socket_options options = {.alpn = config->alpn,
                                                        .alpn_count = config->alpn_count};

    const struct kb_transport_socket_factory *socket = config->socket;

    if (socket == NULL) {
        socket = kb_host_transport_socket(session->host);
    } else {
        kb_cluster_entry_count_socket(session->checker->entry, config->socket_number);
    }
    kb_transport_socket_factory_create(socket, session->probe.conn,
                                       config->alpn_count > 0 ? &options : NULL);
}

void kb_health_probe_start(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    const struct kb_cluster *cluster = session->host->cluster;
    struct kb_addr addr = kb_host_check_addr(session->host);

    probe->asked = true;
    probe->status = 0;
    if (probe->conn != NULL) {
        if (probe->connected) {
            codec_of(session)->ask(session);
        }
        return;
    }
    probe->conn = kb_conn_create_connecting(session->checker->server->main, &addr,
                                            kb_cluster_bind_source(cluster, &addr),
                                            session->checker->config.timeout_ms, IN_BYTES_MAX + 1);
    kb_conn_set_owner(probe->conn, &probe_callbacks, session);
    probe->conn->in.high = KB_MAX(probe->conn->in.high, (size_t)IN_BYTES_MAX + 1);
    kb_buf_init(&probe->body, &session->checker->server->main->slices, 0);
    if (codec_of(session)->init != NULL) {
        codec_of(session)->init(session);
    }
    transport_start(session);
}
