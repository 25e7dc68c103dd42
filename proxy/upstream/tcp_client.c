/* SPDX-License-Identifier: Apache-2.0 */
/* A pooled TCP connection: bytes both ways for one user, with half-close (Envoy
 * Tcp::ConnectionPool, and TcpUpstream for a HTTP stream that ends here). */
#include "proxy/api/filter_state.h"
#include "proxy/upstream/pool_client.h"
#include "proxy/upstream/upstream_filters.h"

struct tcp_client {
    struct kb_pool_client base;
    struct kb_upstream_filters filters;
    bool http;     /* the user is a HTTP stream, which is over when both directions are */
    bool ended;    /* the user half-closed */
    bool up_ended; /* the upstream half-closed */
};

static const struct kb_request_encoder_ops encoder_ops;

static struct tcp_client *client_of(struct kb_request_encoder *encoder)
{
    return KB_CONTAINER_OF(
        KB_CAST(KB_CONTAINER_OF(encoder, struct kb_pool_client, encoder), kb_pool_client),
        struct tcp_client, base);
}

/* ---- lifecycle ---- */

static void client_init(struct kb_pool_client *base, const struct kb_h1_settings *settings)
{
    (void)settings;
    base->encoder.ops = &encoder_ops;
    /* Whoever had the connection before left bytes that are for nobody else. */
    base->close_after = true;
}

static void client_attach(struct kb_pool_client *base)
{
    base->conn->half_close_enabled = true;
}

static void client_dispose(struct kb_pool_client *base)
{
    (void)base;
}

/* ---- to the upstream ---- */

static void end_stream_send(struct tcp_client *client)
{
    client->ended = true;
    client->base.answer_ended = client->http && client->up_ended;
    kb_conn_end_stream(client->base.conn);
}

/* A HTTP stream ends here: its client is told that the tunnel stands (RFC 9110 section 9.3.6). */
static void encode_headers(struct kb_request_encoder *encoder, const struct kb_header_map *headers,
                           bool end_stream)
{
    struct tcp_client *client = client_of(encoder);
    struct kb_header_map *response = KB_ARENA_NEW(client->base.arena, struct kb_header_map);

    (void)headers;
    client->http = true;
    if (end_stream) {
        end_stream_send(client);
    }
    kb_header_map_init(response, client->base.arena);
    response->status = 200;
    client->base.decoder->on_headers(client->base.owner, response, false);
}

static void encode_data(struct kb_request_encoder *encoder, struct kb_buf *data, bool end_stream)
{
    struct tcp_client *client = client_of(encoder);

    kb_buf_move(&client->base.conn->out, data);
    if (end_stream && !client->ended) {
        end_stream_send(client);
    } else {
        kb_conn_written(client->base.conn);
    }
}

static void encode_trailers(struct kb_request_encoder *encoder,
                            const struct kb_header_map *trailers)
{
    (void)trailers;
    end_stream_send(client_of(encoder));
}

static struct kb_slice *head_slice(struct kb_request_encoder *encoder)
{
    (void)encoder;
    return NULL;
}

/* What filters of the connection left there is the user's too. */
static void client_info(struct kb_request_encoder *encoder, struct kb_upstream_info *info)
{
    struct tcp_client *client = client_of(encoder);
    const struct kb_filter_state_item *item = client->base.conn->info.filter_state;

    kb_pool_client_info(encoder, info);
    if (KB_LIKELY(item == NULL) || info->filter_state != NULL || client->http) {
        return;
    }
    for (; item != NULL; item = item->next) {
        if (kb_filter_state_put(&info->filter_state, client->base.arena, item) != 0) {
            return;
        }
    }
}

static const struct kb_request_encoder_ops encoder_ops = {
    .headers = encode_headers,
    .data = encode_data,
    .trailers = encode_trailers,
    .close = kb_pool_client_close,
    .read_disable = kb_pool_client_read_disable,
    .head_slice = head_slice,
    .info = client_info,
    .unsent = kb_pool_client_unsent,
};

/* ---- from the upstream ---- */

static void client_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct tcp_client *client =
        KB_CONTAINER_OF(KB_CAST(owner, kb_pool_client), struct tcp_client, base);
    const struct kb_response_decoder_ops *decoder = client->base.decoder;

    if (!kb_upstream_filters_data(&client->filters, in, end_stream)) {
        return;
    }
    if (client->base.state == KB_POOL_CLIENT_READY) {
        /* Nobody is there for these bytes, nor will be. */
        kb_conn_close(client->base.conn, KB_CONN_NO_FLUSH);
        return;
    }
    if (decoder == NULL) {
        kb_buf_consume(in, in->len);
        return;
    }
    client->up_ended = end_stream;
    if (end_stream && client->ended) {
        /* Nothing more in either direction: the connection ends by itself. */
        client->base.answer_ended = client->http;
        kb_pool_client_detach(&client->base);
    }
    decoder->on_data(client->base.owner, in, end_stream);
    kb_buf_consume(in, in->len);
}

static void client_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_pool_client *client = KB_CAST(owner, kb_pool_client);
    struct tcp_client *tcp = KB_CONTAINER_OF(client, struct tcp_client, base);

    if (event == KB_CONN_CONNECTED) {
        kb_upstream_filters_begin(&tcp->filters, kb_conn_pool_cluster(client)->filters,
                                  client->conn);
        kb_conn_pool_connected(client);
        return;
    }
    kb_upstream_filters_end(&tcp->filters, event);
    kb_pool_client_fail(client, KB_RESET_CONNECTION_TERMINATION);
    kb_conn_pool_closed(client, event);
}

static void client_on_sent(void *owner, size_t n)
{
    struct kb_pool_client *client = KB_CAST(owner, kb_pool_client);

    if (client->decoder != NULL && client->decoder->on_sent != NULL) {
        client->decoder->on_sent(client->owner, n);
    }
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = client_on_data,
    .on_event = client_on_event,
    .on_above_high = kb_pool_client_above_high,
    .on_below_low = kb_pool_client_below_low,
    .on_sent = client_on_sent,
};

const struct kb_pool_client_ops kb_tcp_client_ops = {
    .size = sizeof(struct tcp_client),
    .conn_callbacks = &conn_callbacks,
    .init = client_init,
    .attach = client_attach,
    .dispose = client_dispose,
};
