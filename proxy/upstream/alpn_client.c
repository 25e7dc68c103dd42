/* SPDX-License-Identifier: Apache-2.0 */
/* A connection whose protocol the host chooses in its TLS handshake (auto_config; Envoy
 * HttpConnPoolImplMixed): nothing but connecting, then it becomes an HTTP/1 or HTTP/2 client. */
#include "proxy/api/ssl_connection_info.h"
#include "proxy/upstream/h1_client.h"
#include "proxy/upstream/h2_client.h"

/* Whichever it becomes. */
union alpn_client {
    struct kb_pool_client base;
    struct kb_h1_client h1;
    struct kb_h2_client h2;
};

static void client_init(struct kb_pool_client *base, const struct kb_h1_settings *settings)
{
    (void)settings;
    base->stream_limit = kb_conn_pool_cluster(base)->http2.max_concurrent_streams;
}

static void client_dispose(struct kb_pool_client *base)
{
    (void)base;
}

/* The handshake is done: hands the connection to the client of its protocol. */
static void become(struct kb_pool_client *base)
{
    struct kb_str chosen = kb_ssl_text(base->conn->info.ssl, KB_SSL_ALPN);
    uint32_t promised = base->stream_limit, limit;

    base->ops = kb_str_eq(chosen, KB_STR("h2")) ? &kb_h2_client_ops : &kb_h1_client_ops;
    base->stream_limit = 1;
    base->ops->init(base, kb_conn_pool_h1_settings(base));
    limit = base->stream_limit;
    base->stream_limit = promised;
    kb_conn_pool_stream_limit(base, limit);
    /* Envoy counts such a connection once more when it becomes what it is. */
    kb_stat_inc(kb_conn_pool_stats(base), KB_STAT_CLUSTER_UPSTREAM_CX_TOTAL);
    base->ops->count(base);
    kb_conn_set_owner(base->conn, base->ops->conn_callbacks, base);
    base->ops->conn_callbacks->on_event(base, KB_CONN_CONNECTED);
}

static void client_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_pool_client *base = KB_CAST(owner, kb_pool_client);

    if (event == KB_CONN_CONNECTED) {
        become(base);
    } else {
        kb_conn_pool_closed(base, event);
    }
}

/* Before it is connected nothing can come. */
static void client_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    (void)owner;
    (void)end_stream;
    kb_buf_consume(in, in->len);
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = client_on_data,
    .on_event = client_on_event,
};

static const struct kb_str alpn[] = {{"h2", 2}, {"http/1.1", 8}};

const struct kb_pool_client_ops kb_alpn_client_ops = {
    .size = sizeof(union alpn_client),
    .conn_callbacks = &conn_callbacks,
    .init = client_init,
    .dispose = client_dispose,
    .alpn = alpn,
    .alpn_count = KB_ARRAY_LEN(alpn),
};
