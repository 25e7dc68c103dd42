/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream HTTP/2: one pooled connection, which carries many requests. For h2_client.c and
 * alpn_client.c only. */
#pragma once

#include "proxy/http/h2_client_session.h"
#include "proxy/upstream/pool_client.h"

struct kb_h2_client {
    struct kb_pool_client base;
    struct kb_h2_session *session;
    struct kb_deferred work;    /* sends, and does what callbacks of the session left to do */
    struct kb_timer ping_timer; /* the next PING, or the end of waiting for its answer */
    struct kb_slice *receiving; /* holds the bytes that the session reads */
    struct kb_list refused;     /* requests that could not be sent */
    size_t out_limit;
    uint64_t received_ms;  /* when something came last */
    uint32_t gone;         /* streams that left the session, and the pool does not know yet */
    uint32_t stream_limit; /* as the options say */
    bool ping_waits;
};
