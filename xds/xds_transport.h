/* SPDX-License-Identifier: Apache-2.0 */
/* The stream to a control plane, as the xDS client needs it: whole messages out and in. Given from
 * outside, so that the client knows neither gRPC nor clusters. Main thread. */
#pragma once

#include "base/str.h"

struct kb_xds_stream; /* the transport's own */

/* None comes from within `open`. */
struct kb_xds_stream_events {
    /* One whole message, borrowed for the call. The stream may be closed from within. */
    void (*message)(void *arg, struct kb_str bytes);
    /* `send` said KB_EAGAIN before, and would take a message now. */
    void (*writable)(void *arg);
    /* The last event: it could not be opened, or ended. `status` is a gRPC status code, `text` says
     * why (borrowed). The stream still has to be closed, from within or later. */
    void (*closed)(void *arg, int status, struct kb_str text);
};

struct kb_xds_transport {
    /* Begins a bidirectional stream of a gRPC method ("/package.Service/Method"). NULL: it cannot
     * be begun, as there is no host. `events` and `arg` are kept until close. */
    struct kb_xds_stream *(*open)(struct kb_xds_transport *transport, struct kb_str method,
                                  const struct kb_xds_stream_events *events, void *arg);
    /* Queues one message (copied). KB_EAGAIN: nothing was taken, `writable` comes later; anything
     * else but 0: the stream is about to be closed. */
    int (*send)(struct kb_xds_stream *stream, struct kb_str message);
    /* Ends it; no event comes any more, and the memory is gone. From an event too. */
    void (*close)(struct kb_xds_stream *stream);
};
