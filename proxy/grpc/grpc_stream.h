/* SPDX-License-Identifier: Apache-2.0 */
/* A bidirectional gRPC stream to a named cluster (Envoy Grpc::AsyncClient with envoy_grpc): what
 * xDS, the other services of a control plane and collectors of logs are spoken over. The host is
 * chosen by the cluster's load balancer; a worker's streams to one host share its HTTP/2
 * connection. On that worker, the main thread's mostly.
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
#pragma once

#include "base/str.h"
#include "base/worker.h"

struct kb_grpc_stream;

enum kb_grpc_status { /* https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
                      KB_GRPC_OK = 0,
                      KB_GRPC_CANCELLED = 1,
                      KB_GRPC_UNKNOWN = 2,
                      KB_GRPC_INVALID_ARGUMENT = 3,
                      KB_GRPC_DEADLINE_EXCEEDED = 4,
                      KB_GRPC_NOT_FOUND = 5,
                      KB_GRPC_PERMISSION_DENIED = 7,
                      KB_GRPC_RESOURCE_EXHAUSTED = 8,
                      KB_GRPC_UNIMPLEMENTED = 12,
                      KB_GRPC_INTERNAL = 13,
                      KB_GRPC_UNAVAILABLE = 14,
                      KB_GRPC_UNAUTHENTICATED = 16,
};

/* None is called from within kb_grpc_stream_open; none may be NULL except where it says so. */
struct kb_grpc_stream_callbacks {
    /* Bytes of a request can leave: the connection stands and the stream's headers are on their
     * way. May be NULL. */
    void (*on_opened)(void *arg);
    /* The server answered with headers that are fit for gRPC. May be NULL. */
    void (*on_response_headers)(void *arg);
    /* One whole message; borrowed for the call. The stream may be destroyed from within. */
    void (*on_message)(void *arg, struct kb_str message);
    /* kb_grpc_stream_send said KB_EAGAIN before, and would take a message now. May be NULL. */
    void (*on_writable)(void *arg);
    /* The last event. `status` is the server's grpc-status, or what stands for the failure as in
     * Envoy; `text` (borrowed) is its grpc-message or the reason. The owner still has to call
     * kb_grpc_stream_destroy, from within or later. */
    void (*on_closed)(void *arg, int status, struct kb_str text);
};

struct kb_grpc_metadata {
    struct kb_str name; /* lower case */
    struct kb_str value;
};

struct kb_grpc_stream_options {
    struct kb_str cluster;   /* its name; it must have http2_protocol_options */
    struct kb_str authority; /* :authority; empty: the cluster's name */
    struct kb_str path;      /* "/envoy.service.discovery.v3.AggregatedDiscoveryService/..." */
    const struct kb_grpc_metadata *metadata; /* initial metadata, copied */
    size_t metadata_count;
    size_t max_message_bytes; /* of a message received; 0: KB_GRPC_MESSAGE_MAX */
    bool skip_envoy_headers;  /* neither x-envoy-internal nor x-forwarded-for */
};

#define KB_GRPC_MESSAGE_MAX (256u * 1024 * 1024)
#define KB_GRPC_SEND_QUEUE_MAX                                        \
    (64u * 1024 * 1024) /* bytes that wait for the server, per stream \
                         */

/* Begins to connect, or takes the connection that there is. Never NULL: what goes wrong comes as
 * on_closed. Options and what they point to are copied. On `worker`. */
struct kb_grpc_stream *kb_grpc_stream_open(struct kb_worker *worker,
                                           const struct kb_grpc_stream_options *options,
                                           const struct kb_grpc_stream_callbacks *callbacks,
                                           void *arg);

/* Queues one message (copied); before on_opened too. KB_EAGAIN: nothing was taken, because as much
 * is waiting as may; on_writable says when to try again. KB_ELIMIT: it can never be sent.
 * KB_ECLOSED: on_closed has been called, or is about to be. */
int kb_grpc_stream_send(struct kb_grpc_stream *stream, struct kb_str message) KB_MUST_USE;
/* Half-closes: no message follows. */
void kb_grpc_stream_end(struct kb_grpc_stream *stream);
/* Resets the stream when it is not closed, and frees it; no callback comes any more. From a
 * callback too. NULL is allowed. */
void kb_grpc_stream_destroy(struct kb_grpc_stream *stream);

/* Bytes of messages that wait for the server. */
size_t kb_grpc_stream_queued(const struct kb_grpc_stream *stream);

/* A worker ends: closes every connection; streams hear on_closed (CANCELLED). Before
 * kb_conn_worker_dispose. */
void kb_grpc_worker_close(struct kb_worker *worker);
