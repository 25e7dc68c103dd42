/* SPDX-License-Identifier: Apache-2.0 */
/* A pooled HTTP/2 connection: the glue between a session, its bytes and the pool (Envoy
 * Http2::ActiveClient). Nothing is closed from within nghttp2: such work waits until it returns. */
#include "proxy/upstream/h2_client.h"

#include "base/log.h"

#define OUT_BYTES_DEFAULT        (1024u * 1024)
#define CONTROL_FRAMES_IN_PERIOD 1000
#define CONTINUATIONS            64
#define CONCURRENT_STREAMS       1024

static const struct kb_h2_session_callbacks session_callbacks;

static struct kb_h2_client *client_of(void *owner)
{
    return KB_CONTAINER_OF(KB_CAST(owner, kb_pool_client), struct kb_h2_client, base);
}

/* ---- sending ---- */

/* The peer broke the protocol, or floods us. */
static void session_failed(struct kb_h2_client *client, int error)
{
    KB_LOG(POOL, DEBUG, "[C%llu] HTTP/2 with cluster '%.*s' failed: %s",
           (unsigned long long)client->base.conn->info.id,
           KB_STR_ARG(kb_conn_pool_cluster(&client->base)->name), kb_err_text(error));
    kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    kb_h2_session_fail(client->session, KB_RESET_PROTOCOL_ERROR);
    kb_conn_close(client->base.conn, KB_CONN_NO_FLUSH);
}

/* Tells the pool what happened within the session. May close the connection. */
static void settle(struct kb_h2_client *client)
{
    if (KB_UNLIKELY(!kb_list_empty(&client->refused))) {
        kb_h2_client_refused_fail(client);
    }
    while (client->gone > 0) {
        client->gone--;
        kb_conn_pool_stream_gone(&client->base);
    }
}

/* Bytes of the session to the connection. */
static int pull(struct kb_h2_client *client)
{
    struct kb_conn *conn = client->base.conn;
    int rc;

    rc = kb_h2_session_send(client->session, &conn->out, client->out_limit);
    if (conn->out.len > 0) {
        kb_conn_written(conn);
    }
    return rc;
}

static void work_deferred(struct kb_deferred *deferred)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(deferred, struct kb_h2_client, work);
    int rc;

    KB_ASSERT(client->base.kb_magic == (uint32_t)KB_MAGIC_kb_pool_client);
    if (client->base.state == KB_POOL_CLIENT_CONNECTING ||
        client->base.state == KB_POOL_CLIENT_CLOSED) {
        return;
    }
    kb_h2_client_received_consume(client);
    rc = pull(client);
    if (rc != 0) {
        session_failed(client, rc);
        return;
    }
    settle(client);
}

/* ---- life ---- */

void kb_h2_client_settings(const struct kb_cluster *cluster, struct kb_h2_settings *settings)
{
    *settings = (struct kb_h2_settings){
        .hpack_table_bytes = cluster->http2.hpack_table_bytes,
        .max_concurrent_streams = cluster->http2.max_concurrent_streams,
        .stream_window_bytes = cluster->http2.stream_window_bytes,
        .connection_window_bytes = cluster->http2.connection_window_bytes,
        .max_header_bytes = cluster->http2.max_response_headers_bytes,
        .max_header_count = cluster->max_response_headers_count,
        .stream_out_bytes = cluster->per_connection_buffer_limit_bytes,
        .override_stream_error = cluster->http2.override_stream_error,
        .requests = true,
        .allow_connect = cluster->http2.allow_connect,
        .max_outbound_acks = cluster->http2.max_outbound_control_frames,
        .guard = {.empty_frames = cluster->http2.max_empty_frames,
                  .priority_per_stream = cluster->http2.max_priority_frames,
                  .window_updates_per_data = cluster->http2.max_window_updates,
                  .control_frames_in_period = CONTROL_FRAMES_IN_PERIOD,
                  .continuations = CONTINUATIONS,
                  .metadata = cluster->http2.allow_metadata},
        .guard_filled = cluster->http2.enabled, /* a check may speak it to others, too */
        .custom = cluster->http2.custom_settings,
        .custom_count = cluster->http2.custom_settings_count,
        .allow_metadata = cluster->http2.allow_metadata,
        .max_metadata_bytes = cluster->http2.max_metadata_bytes,
    };
}

static void client_init(struct kb_pool_client *base, const struct kb_h1_settings *h1)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(base, struct kb_h2_client, base);
    uint32_t limit = kb_conn_pool_cluster(base)->per_connection_buffer_limit_bytes;
    struct kb_h2_settings settings;

    (void)h1;
    kb_h2_client_settings(kb_conn_pool_cluster(base), &settings);
    client->out_limit = limit > 0 ? limit : OUT_BYTES_DEFAULT;
    client->stream_limit =
        settings.max_concurrent_streams > 0 ? settings.max_concurrent_streams : CONCURRENT_STREAMS;
    base->stream_limit = client->stream_limit;
    client->received_ms = kb_loop_now_ms(kb_h2_client_loop(client));
    kb_list_init(&client->refused);
    kb_list_init(&client->received);
    kb_deferred_init(&client->work, work_deferred);
    kb_timer_init(&client->ping_timer, kb_h2_client_ping_fired);
    client->session =
        kb_h2_session_create(&settings, &session_callbacks, base, kb_conn_pool_slices(base),
                             kb_h2_mem_of(kb_conn_pool_worker(base)), kb_h2_client_stats(client));
}

static void client_count(struct kb_pool_client *base)
{
    kb_stat_inc(kb_conn_pool_stats(base), KB_STAT_CLUSTER_UPSTREAM_CX_HTTP2_TOTAL);
}

static void client_dispose(struct kb_pool_client *base)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(base, struct kb_h2_client, base);

    kb_deferred_cancel(&client->work);
    kb_h2_session_destroy(client->session, KB_RESET_CONNECTION_TERMINATION);
}

/* ---- the session ---- */

static void on_goaway(void *owner, uint32_t error_code)
{
    struct kb_h2_client *client = client_of(owner);

    (void)error_code;
    kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_CLOSE_NOTIFY);
    /* At once: requests that it refuses may be asked for again from within. */
    kb_conn_pool_client_drain(&client->base);
}

static void on_ping_ack(void *owner)
{
    struct kb_h2_client *client = client_of(owner);

    if (client->ping_waits) {
        kb_h2_client_ping_arm(client);
    }
}

static void on_settings(void *owner, uint32_t max_concurrent_streams)
{
    struct kb_h2_client *client = client_of(owner);

    kb_conn_pool_stream_limit(&client->base, KB_MIN(max_concurrent_streams, client->stream_limit));
}

static void on_stream_gone(void *owner)
{
    struct kb_h2_client *client = client_of(owner);

    client->gone++;
    kb_h2_client_wake(client);
}

static const struct kb_h2_session_callbacks session_callbacks = {
    .on_goaway = on_goaway,
    .on_ping_ack = on_ping_ack,
    .on_settings = on_settings,
    .on_stream_gone = on_stream_gone,
};

/* ---- the connection ---- */

static void client_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_h2_client *client = client_of(owner);
    uint64_t now_ms = kb_loop_now_ms(kb_h2_client_loop(client));
    struct kb_buf bytes;
    int rc = 0;

    (void)end_stream;
    /* The connection may be closed from within; its queue goes then, but not what is being read. */
    kb_buf_init(&bytes, kb_conn_pool_slices(&client->base), 0);
    kb_buf_move(&bytes, in);
    client->received_ms = now_ms;
    for (struct kb_segment *s = bytes.first;
         s != NULL && rc == 0 && client->base.state != KB_POOL_CLIENT_CLOSED; s = s->next) {
        client->receiving = s->slice;
        rc = kb_h2_session_receive(client->session, s->slice->bytes + s->from, s->to - s->from,
                                   now_ms);
    }
    client->receiving = NULL;
    kb_buf_dispose(&bytes);
    if (client->base.state == KB_POOL_CLIENT_CLOSED) {
        return;
    }
    if (rc != 0) {
        session_failed(client, rc);
        return;
    }
    settle(client);
    kb_h2_client_wake(client);
}

static void client_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_h2_client *client = client_of(owner);

    if (event == KB_CONN_CONNECTED) {
        kb_conn_pool_connected(&client->base);
        kb_h2_client_ping_arm(client);
        kb_h2_client_wake(client);
        return;
    }
    kb_loop_timer_cancel(kb_h2_client_loop(client), &client->ping_timer);
    kb_h2_session_fail(client->session, KB_RESET_CONNECTION_TERMINATION);
    kb_h2_client_refused_fail(client);
    kb_conn_pool_closed(&client->base, event);
}

static void client_on_sent(void *owner, size_t n)
{
    struct kb_h2_client *client = client_of(owner);

    (void)n;
    if (client->base.conn->out.len <= client->out_limit / 2 &&
        kb_h2_session_want_send(client->session)) {
        kb_h2_client_wake(client);
    }
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = client_on_data,
    .on_event = client_on_event,
    .on_sent = client_on_sent,
};

static const struct kb_str alpn = {"h2", 2};

const struct kb_pool_client_ops kb_h2_client_ops = {
    .size = sizeof(struct kb_h2_client),
    .conn_callbacks = &conn_callbacks,
    .init = client_init,
    .count = client_count,
    .stream_create = kb_h2_client_request_create,
    .dispose = client_dispose,
    .alpn = &alpn,
    .alpn_count = 1,
};
