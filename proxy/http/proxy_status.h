/* SPDX-License-Identifier: Apache-2.0 */
/* proxy_status_config of the connection manager: the header Proxy-Status (RFC 9209) of answers that
 * went wrong here, by the stream's response flags (Envoy StreamInfo::ProxyStatusUtils). */
#pragma once

#include "base/arena.h"
#include "proxy/api/header_map.h"
#include "proxy/api/stream_info.h"

struct kb_proxy_status {
    struct kb_str name; /* what the proxy calls itself */
    bool with_details;
    bool with_response_flags;
    bool set_recommended_response_code;
};

struct
    Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager__ProxyStatusConfig;

/* From the message, which may be NULL: then it is NULL. Lives in the arena. */
const struct kb_proxy_status *kb_proxy_status_create(
    const struct
    Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager__ProxyStatusConfig
        *message,
    struct kb_str server_name, struct kb_str node_id, struct kb_arena *arena);

/* Appends to the answer's Proxy-Status if its flags stand for one of the errors that the RFC knows,
 * and changes its status as configured. New text lives in headers->arena. */
void kb_proxy_status_apply(const struct kb_proxy_status *config, const struct kb_stream_info *info,
                           struct kb_header_map *headers);
