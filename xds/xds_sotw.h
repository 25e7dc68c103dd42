/* SPDX-License-Identifier: Apache-2.0 */
/* One type of resource over the state-of-the-world protocol: each request names all that is wanted,
 * each response has all that is there of it. Pure: messages in, messages out, and the time.
 * https://www.envoyproxy.io/docs/envoy/v1.40/api-docs/xds_protocol */
#pragma once

#include "xds/xds_decode.h"

struct kb_xds_sotw {
    KB_OBJ;
    struct kb_xds_watches watches;
    struct kb_xds_push_log *pushes; /* where responses are noted; NULL: nowhere */
    const char *way;                /* how: "sotw", or "file" */
    bool owner_tells;               /* the owner says in the log what is wrong with a response */
    char *version;                  /* accepted last; NULL: none */
    char *nonce;                    /* of the last response on this stream; NULL: none */
    char *error;                    /* what was wrong with it, until it is said; NULL: nothing */
};
KB_OBJ_MAGIC(kb_xds_sotw, 0x58534f54);

/* On caller's storage; every watch must be gone before dispose. */
void kb_xds_sotw_init(struct kb_xds_sotw *sotw, enum kb_xds_type type);
void kb_xds_sotw_dispose(struct kb_xds_sotw *sotw);

/* A new stream knows no nonce; what was accepted stays accepted. */
void kb_xds_sotw_stream_opened(struct kb_xds_sotw *sotw);
/* The next DiscoveryRequest as bytes in the arena: subscription, acceptance and refusal in one.
 * `node` is NULL when it was sent already. An error is said once. */
struct kb_str kb_xds_sotw_request(struct kb_xds_sotw *sotw, Envoy__Config__Core__V3__Node *node,
                                  struct kb_arena *arena);
/* Decodes and delivers. The answer is kb_xds_sotw_request; false: none is due. diag gets what is
 * wrong; it must be empty. */
bool kb_xds_sotw_response(struct kb_xds_sotw *sotw,
                          const Envoy__Service__Discovery__V3__DiscoveryResponse *response,
                          uint64_t now_ms, struct kb_arena *arena, struct kb_diag *diag);
