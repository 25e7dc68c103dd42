/* SPDX-License-Identifier: Apache-2.0 */
/* Windows that grow. A lap is the time in which one window is consumed. When that is no more than
 * two round trips, the server waited for us to open the window; when most of it went by waiting for
 * the reader, the window is larger than it has to be. */
#include "proxy/upstream/h2_window.h"

#include "base/clock.h"
#include "base/sock.h"

#define RTT_NEAR_US 1000u /* on a way as short as that, the first window is enough */

void kb_h2_window_init(struct kb_h2_window *window, const struct kb_cluster *cluster)
{
    if (cluster->http2.stream_window_grows) {
        window->bytes = window->first_bytes = cluster->http2.stream_window_bytes;
    }
}

static struct kb_h2_mem *mem_of(struct kb_h2_client *client)
{
    return kb_h2_mem_of(kb_conn_pool_worker(&client->base));
}

void kb_h2_window_dispose(struct kb_h2_window *window, struct kb_h2_client *client)
{
    if (KB_UNLIKELY(window->charged > 0)) {
        mem_of(client)->windows_grown -= window->charged;
        window->charged = 0;
    }
    window->bytes = 0;
}

void kb_h2_window_hold(struct kb_h2_window *window, bool held)
{
    uint64_t now_ns = kb_clock_mono_ns();

    if (!held) {
        window->waited_ns += now_ns - window->held_ns;
    }
    window->held_ns = held ? now_ns : 0;
}

/* What a server may have sent ahead counts until the stream ends, also when the window is smaller
 * by then. */
static void grow(struct kb_h2_window *window, struct kb_h2_mem *mem, struct kb_h2_stream *stream)
{
    uint32_t bytes = KB_MIN(window->bytes * 2, KB_H2_WINDOW_MAX);
    uint32_t charge = bytes - window->first_bytes;

    if (bytes <= window->bytes) {
        return;
    }
    if (charge > window->charged) {
        if (mem->windows_grown + charge - window->charged > KB_H2_WINDOW_WORKER_BYTES) {
            return;
        }
        mem->windows_grown += charge - window->charged;
        window->charged = charge;
    }
    window->bytes = bytes;
    kb_h2_stream_set_window(stream, bytes);
}

void kb_h2_window_lap(struct kb_h2_window *window, struct kb_h2_client *client,
                      struct kb_h2_stream *stream)
{
    uint64_t now_ns;
    uint64_t lap_ns;
    uint64_t waited_ns = window->waited_ns;

    window->consumed = 0;
    if (client->rtt_us == 0) {
        client->rtt_us = KB_MAX(kb_sock_rtt_us(client->base.conn->io.fd), 1U);
    }
    if (client->rtt_us < RTT_NEAR_US) {
        window->bytes = 0; /* it stays */
        return;
    }
    now_ns = kb_clock_mono_ns();
    lap_ns = window->began_ns > 0 ? now_ns - window->began_ns : UINT64_MAX;
    window->began_ns = now_ns;
    window->waited_ns = 0;
    if (lap_ns == UINT64_MAX) {
        return;
    }
    if (waited_ns > lap_ns / 2) {
        if (window->bytes > window->first_bytes) {
            window->bytes = KB_MAX(window->bytes / 2, window->first_bytes);
            kb_h2_stream_set_window(stream, window->bytes);
        }
    } else if (lap_ns <= 2000ull * client->rtt_us && waited_ns <= lap_ns / 4) {
        grow(window, mem_of(client), stream);
    }
}
