/* SPDX-License-Identifier: Apache-2.0 */
/* Between a HTTP codec and what stands above it: the connection manager downstream, the router's
 * attempt upstream. HTTP/1 and HTTP/2 codecs implement the same vtables. */
#pragma once

#include "base/buf.h"
#include "proxy/api/cluster.h"
#include "proxy/api/connection.h"
#include "proxy/api/reset_reason.h"
#include "proxy/api/stream_info.h"

/* Writes one response; the codec's stream is gone after the call that carried end_stream, or reset.
 */
struct kb_response_encoder_ops {
    void (*encode_1xx)(void *encoder, const struct kb_header_map *headers);
    void (*encode_headers)(void *encoder, const struct kb_header_map *headers, bool end_stream);
    void (*encode_data)(void *encoder, struct kb_buf *data,
                        bool end_stream); /* takes all of data */
    void (*encode_trailers)(void *encoder, const struct kb_header_map *trailers);
    /* Name-value pairs beside the message (METADATA of HTTP/2), as a block of literal fields (RFC
     * 7541 section 6.2.2); takes all of it. */
    void (*encode_metadata)(void *encoder, struct kb_buf *block);
    void (*reset)(void *encoder);
    /* Counted: stops delivering the request's body. */
    void (*read_disable)(void *encoder, bool disable);
};

/* Hears of the response; `owner` is given to the pool. Headers and trailers live in the arena given
 * with the request; their strings in it or in the head's slice. */
struct kb_response_decoder_ops {
    void (*on_1xx)(void *owner, struct kb_header_map *headers);
    void (*on_headers)(void *owner, struct kb_header_map *headers, bool end_stream);
    void (*on_data)(void *owner, struct kb_buf *data,
                    bool end_stream); /* what is left in data is dropped */
    void (*on_trailers)(void *owner, struct kb_header_map *trailers);
    /* METADATA; may be NULL: nobody wants it. What is left in the block is dropped. */
    void (*on_metadata)(void *owner, struct kb_buf *block);
    /* The last call; no response will come, or no more of it. `transport_failure` may be empty. */
    void (*on_reset)(void *owner, enum kb_reset_reason reason, struct kb_str transport_failure);
    void (*on_above_high)(void *owner); /* the upstream write queue */
    void (*on_below_low)(void *owner);
    void (*on_sent)(void *owner, size_t n); /* TCP connections only; may be NULL */
};

struct kb_request_encoder;

/* One request on an upstream connection, or one use of a TCP connection (Envoy GenericUpstream):
 * what each kind of connection implements; called through the functions below. */
struct kb_request_encoder_ops {
    void (*headers)(struct kb_request_encoder *encoder, const struct kb_header_map *headers,
                    bool end_stream);
    void (*data)(struct kb_request_encoder *encoder, struct kb_buf *data, bool end_stream);
    void (*trailers)(struct kb_request_encoder *encoder, const struct kb_header_map *trailers);
    void (*metadata)(struct kb_request_encoder *encoder, struct kb_buf *block); /* may be NULL */
    void (*close)(struct kb_request_encoder *encoder, enum kb_conn_close how,
                  uint64_t flush_timeout_ms);
    bool (*take_back)(struct kb_request_encoder *encoder); /* may be NULL */
    void (*read_disable)(struct kb_request_encoder *encoder, bool disable);
    struct kb_slice *(*head_slice)(struct kb_request_encoder *encoder);
    void (*info)(struct kb_request_encoder *encoder, struct kb_upstream_info *info);
    size_t (*unsent)(const struct kb_request_encoder *encoder);
};

struct kb_request_encoder {
    const struct kb_request_encoder_ops *ops;
    bool peer_reset; /* in on_reset: the peer sent RST */
};

/* Encodes the request; first, once. On a TCP connection nothing is sent: a HTTP user gets the 200
 * that opens its tunnel from within, a user without HTTP does not call it. */
KB_INLINE void kb_request_encoder_headers(struct kb_request_encoder *encoder,
                                          const struct kb_header_map *headers, bool end_stream)
{
    encoder->ops->headers(encoder, headers, end_stream);
}
/* Takes all of data. end_stream half-closes what has no other end: TCP connections and tunnels. */
KB_INLINE void kb_request_encoder_data(struct kb_request_encoder *encoder, struct kb_buf *data,
                                       bool end_stream)
{
    encoder->ops->data(encoder, data, end_stream);
}
KB_INLINE void kb_request_encoder_trailers(struct kb_request_encoder *encoder,
                                           const struct kb_header_map *trailers)
{
    encoder->ops->trailers(encoder, trailers);
}
/* METADATA in its turn, before the end of the request; takes all of the block. Where the other side
 * cannot have it, it is dropped. */
KB_INLINE void kb_request_encoder_metadata(struct kb_request_encoder *encoder, struct kb_buf *block)
{
    if (encoder->ops->metadata != NULL) {
        encoder->ops->metadata(encoder, block);
    }
    kb_buf_consume(block, block->len);
}
/* Gives the request up; no callback comes any more. Its connection goes as `how` says; when it is
 * flushed first, the peer may take nothing for flush_timeout_ms (0: for ever). */
KB_INLINE void kb_request_encoder_close(struct kb_request_encoder *encoder, enum kb_conn_close how,
                                        uint64_t flush_timeout_ms)
{
    encoder->ops->close(encoder, how, flush_timeout_ms);
}
KB_INLINE void kb_request_encoder_reset(struct kb_request_encoder *encoder)
{
    encoder->ops->close(encoder, KB_CONN_NO_FLUSH, 0);
}
/* The same, but where nothing of the request has left, its connection is free again: what clients
 * that ask in order to reset cannot make anew each time. */
KB_INLINE void kb_request_encoder_take_back(struct kb_request_encoder *encoder)
{
    if (encoder->ops->take_back == NULL || !encoder->ops->take_back(encoder)) {
        kb_request_encoder_reset(encoder);
    }
}
/* Counted: stops reading the response. */
KB_INLINE void kb_request_encoder_read_disable(struct kb_request_encoder *encoder, bool disable)
{
    encoder->ops->read_disable(encoder, disable);
}
/* The slice that holds the response's header strings, or NULL; take a reference in on_headers to
 * keep them. */
KB_INLINE struct kb_slice *kb_request_encoder_head_slice(struct kb_request_encoder *encoder)
{
    return encoder->ops->head_slice(encoder);
}
/* Facts of the connection for the access log. */
KB_INLINE void kb_request_encoder_info(struct kb_request_encoder *encoder,
                                       struct kb_upstream_info *info)
{
    encoder->ops->info(encoder, info);
}
/* Bytes of the request that wait for the upstream to take them. */
KB_INLINE size_t kb_request_encoder_unsent(const struct kb_request_encoder *encoder)
{
    return encoder->ops->unsent(encoder);
}

/* Who waits for a connection. */
struct kb_pool_callbacks {
    /* A connection is there: encode on it. May come from within kb_http_pool_new_stream. */
    void (*on_ready)(void *owner, struct kb_request_encoder *encoder, struct kb_host *host);
    /* None can be had: KB_RESET_OVERFLOW, REMOTE/LOCAL_CONNECTION_FAILURE, CONNECTION_TIMEOUT.
     * `text` is the transport's reason ("delayed connect error: Connection refused"), may be empty.
     * `host` is NULL when the request was not even queued for it. */
    void (*on_failure)(void *owner, enum kb_reset_reason reason, struct kb_str text,
                       struct kb_host *host);
};

/* A waiting request; NULL when it was answered already. */
struct kb_pool_waiter;

/* Asks the pool of this host on this worker for a stream. Connections with other transport socket
 * options (NULL: none) are another pool's; they are copied. Response headers go into `response`
 * (initialised by the codec) in `arena`; both must live until the stream ends. Calls one of
 * `callbacks`, perhaps before returning; then *waiter is NULL. */
void kb_pool_new_stream(struct kb_cluster_local *local, struct kb_host *host,
                        enum kb_pool_kind kind, enum kb_priority priority,
                        const struct kb_transport_socket_options *options, struct kb_arena *arena,
                        const struct kb_pool_callbacks *callbacks,
                        const struct kb_response_decoder_ops *decoder, void *owner,
                        struct kb_pool_waiter **waiter);
/* The request is not wanted any more. */
void kb_pool_cancel(struct kb_pool_waiter *waiter);
