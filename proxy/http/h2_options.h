/* SPDX-License-Identifier: Apache-2.0 */
/* Http2ProtocolOptions as a server session needs them, with Envoy's defaults filled in. */
#pragma once

#include "base/arena.h"
#include "base/diag.h"
#include "proxy/http/h2_guard.h"

/* One of custom_settings_parameters (RFC 9113 section 6.5.1). */
struct kb_h2_setting {
    uint16_t identifier;
    uint32_t value;
};

#define KB_H2_CUSTOM_SETTINGS_MAX 64

struct kb_h2_options {
    uint32_t hpack_table_bytes;
    uint32_t max_concurrent_streams;
    uint32_t stream_window_bytes;
    uint32_t connection_window_bytes;
    uint32_t max_outbound_frames;         /* in what waits for the peer to read */
    uint32_t max_outbound_control_frames; /* of these PING and SETTINGS acknowledgements, resets */
    struct kb_h2_guard_limits guard;
    uint32_t keepalive_jitter_percent;
    uint64_t keepalive_interval_ms; /* 0: no PINGs */
    uint64_t keepalive_timeout_ms;
    bool allow_connect; /* extended CONNECT (RFC 8441) */
    bool stream_error_on_invalid_message;
    bool allow_metadata;
    uint64_t max_metadata_bytes;        /* of a stream's METADATA frames */
    const struct kb_h2_setting *custom; /* are said before ours */
    size_t custom_count;
};

struct Envoy__Config__Core__V3__Http2ProtocolOptions;

/* From a message, or Envoy's defaults when it is NULL. What it keeps is in the arena; errors are
 * reported at the present path. Main thread. */
void kb_h2_options_read(struct kb_h2_options *options,
                        const struct Envoy__Config__Core__V3__Http2ProtocolOptions *message,
                        struct kb_arena *arena, struct kb_diag *diag);
