/* SPDX-License-Identifier: Apache-2.0 */
/* Reads Http2ProtocolOptions of a connection manager. */
#include "proxy/http/h2_options.h"

#include "envoy/config/core/v3/protocol.pb-c.h"
#include "proto/wkt.h"

#define HPACK_TABLE_DEFAULT             4096
#define MAX_CONCURRENT_STREAMS_DEFAULT  1024
#define STREAM_WINDOW_DEFAULT           (16u * 1024 * 1024)
#define CONNECTION_WINDOW_DEFAULT       (24u * 1024 * 1024)
#define MAX_OUTBOUND_FRAMES_DEFAULT     10000
#define MAX_OUTBOUND_CONTROL_DEFAULT    1000
#define EMPTY_FRAMES_DEFAULT            1
#define PRIORITY_PER_STREAM_DEFAULT     100
#define WINDOW_UPDATES_PER_DATA_DEFAULT 10
/* Ours alone: what no honest client sends in ten seconds. */
#define CONTROL_IN_PERIOD_MAX           10000
#define CONTINUATIONS_MAX               64
#define KEEPALIVE_JITTER_PERCENT        15

static void keepalive_read(struct kb_h2_options *options,
                           const Envoy__Config__Core__V3__KeepaliveSettings *keepalive)
{
    if (keepalive == NULL) {
        return;
    }
    options->keepalive_interval_ms = kb_wkt_duration_ms(keepalive->interval, 0);
    options->keepalive_timeout_ms = kb_wkt_duration_ms(keepalive->timeout, 0);
    options->keepalive_jitter_percent = keepalive->interval_jitter != NULL
                                            ? (uint32_t)keepalive->interval_jitter->value
                                            : KEEPALIVE_JITTER_PERCENT;
}

void kb_h2_options_read(struct kb_h2_options *options,
                        const Envoy__Config__Core__V3__Http2ProtocolOptions *m)
{
    static const Envoy__Config__Core__V3__Http2ProtocolOptions none =
        ENVOY__CONFIG__CORE__V3__HTTP2_PROTOCOL_OPTIONS__INIT;

    if (m == NULL) {
        m = &none;
    }
    *options = (struct kb_h2_options){
        .hpack_table_bytes = kb_wkt_u32(m->hpack_table_size, HPACK_TABLE_DEFAULT),
        .max_concurrent_streams =
            kb_wkt_u32(m->max_concurrent_streams, MAX_CONCURRENT_STREAMS_DEFAULT),
        .stream_window_bytes = kb_wkt_u32(m->initial_stream_window_size, STREAM_WINDOW_DEFAULT),
        .connection_window_bytes =
            kb_wkt_u32(m->initial_connection_window_size, CONNECTION_WINDOW_DEFAULT),
        .max_outbound_frames = kb_wkt_u32(m->max_outbound_frames, MAX_OUTBOUND_FRAMES_DEFAULT),
        .max_outbound_control_frames =
            kb_wkt_u32(m->max_outbound_control_frames, MAX_OUTBOUND_CONTROL_DEFAULT),
        .guard = {.empty_frames = kb_wkt_u32(m->max_consecutive_inbound_frames_with_empty_payload,
                                             EMPTY_FRAMES_DEFAULT),
                  .priority_per_stream = kb_wkt_u32(m->max_inbound_priority_frames_per_stream,
                                                    PRIORITY_PER_STREAM_DEFAULT),
                  .window_updates_per_data =
                      kb_wkt_u32(m->max_inbound_window_update_frames_per_data_frame_sent,
                                 WINDOW_UPDATES_PER_DATA_DEFAULT),
                  .control_frames_in_period = CONTROL_IN_PERIOD_MAX,
                  .continuations = CONTINUATIONS_MAX},
        .allow_connect = m->allow_connect,
        .stream_error_on_invalid_message =
            m->override_stream_error_on_invalid_http_message != NULL
                ? m->override_stream_error_on_invalid_http_message->value != 0
                : m->stream_error_on_invalid_http_messaging,
    };
    keepalive_read(options, m->connection_keepalive);
}
