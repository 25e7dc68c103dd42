/* SPDX-License-Identifier: Apache-2.0 */
/* One type of resource over the incremental protocol: requests say what changed of what is wanted,
 * responses what changed of what is there, each resource with a version of its own. Pure. */
#pragma once

#include "xds/xds_decode.h"

struct kb_xds_delta {
    KB_OBJ;
    struct kb_xds_watches watches;
    struct kb_xds_push_log *pushes; /* where responses are noted; NULL: nowhere */
};
KB_OBJ_MAGIC(kb_xds_delta, 0x5844454c);

/* The answer to a response: the NULL nonce is none. Strings belong to whoever holds the ack. */
struct kb_xds_ack {
    const char *nonce;
    const char *error; /* NULL: accepted */
};

/* On caller's storage; every watch must be gone before dispose. */
void kb_xds_delta_init(struct kb_xds_delta *delta, enum kb_xds_type type);
void kb_xds_delta_dispose(struct kb_xds_delta *delta);

/* The next request is the first of a stream: it says all that is wanted and held. */
void kb_xds_delta_stream_opened(struct kb_xds_delta *delta);
/* There is something to say besides answers. */
bool kb_xds_delta_pending(const struct kb_xds_delta *delta);
/* The next DeltaDiscoveryRequest as bytes in the arena: what changed, and the answer `ack` (NULL:
 * none). `node` is NULL when it was sent already. */
struct kb_str kb_xds_delta_request(struct kb_xds_delta *delta, Envoy__Config__Core__V3__Node *node,
                                   const struct kb_xds_ack *ack, struct kb_arena *arena);
/* Decodes and delivers. The answer is due: *ack points into the arena. diag gets what is wrong; it
 * must be empty. */
void kb_xds_delta_response(struct kb_xds_delta *delta,
                           const Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *response,
                           uint64_t now_ms, struct kb_arena *arena, struct kb_diag *diag,
                           struct kb_xds_ack *ack);
