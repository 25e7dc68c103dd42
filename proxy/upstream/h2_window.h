/* SPDX-License-Identifier: Apache-2.0 */
/* How far an upstream of HTTP/2 may send ahead of who reads (RFC 9113 section 6.9). A stream begins
 * with a small window, which bounds what a slow reader makes us hold. Where the way is long and
 * the reader is quick, the window is what limits the rate: then it grows, up to Envoy's. */
#pragma once

#include "proxy/api/cluster.h"
#include "proxy/http/h2_client_session.h"
#include "proxy/upstream/h2_client.h"

#define KB_H2_WINDOW_MAX          (16u * 1024 * 1024)
#define KB_H2_WINDOW_WORKER_BYTES (32u * 1024 * 1024) /* of growth, all streams of a worker */

/* One stream's; in its request. */
struct kb_h2_window {
    uint32_t bytes;    /* now; 0: configured, it stays */
    uint32_t consumed; /* of the present lap, which is one window */
    uint32_t first_bytes;
    uint32_t charged;   /* of windows_grown */
    uint64_t began_ns;  /* the lap; 0: there was none yet */
    uint64_t held_ns;   /* since when reading is disabled; 0: it is not */
    uint64_t waited_ns; /* in this lap, for the reader */
};

/* Of a request to a host of the cluster; all zeros before. */
void kb_h2_window_init(struct kb_h2_window *window, const struct kb_cluster *cluster);
/* When the request is over. */
void kb_h2_window_dispose(struct kb_h2_window *window, struct kb_h2_client *client);
/* A whole window was consumed: it grows or shrinks. */
void kb_h2_window_lap(struct kb_h2_window *window, struct kb_h2_client *client,
                      struct kb_h2_stream *stream);
/* Reading is, or is not, disabled. */
void kb_h2_window_hold(struct kb_h2_window *window, bool held);

/* `len` bytes were passed on. */
KB_INLINE void kb_h2_window_consumed(struct kb_h2_window *window, struct kb_h2_client *client,
                                     struct kb_h2_stream *stream, size_t len)
{
    window->consumed += (uint32_t)len;
    if (KB_UNLIKELY(window->consumed >= window->bytes) && window->bytes > 0) {
        kb_h2_window_lap(window, client, stream);
    }
}

KB_INLINE void kb_h2_window_held(struct kb_h2_window *window, bool held)
{
    if (window->began_ns > 0 && held != (window->held_ns > 0)) {
        kb_h2_window_hold(window, held);
    }
}
