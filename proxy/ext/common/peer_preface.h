/* SPDX-License-Identifier: Apache-2.0 */
/* What two proxies tell one another before the bytes of a connection (Istio's TCP metadata
 * exchange): 0x3D230467, the length of what follows, both big-endian, and a google.protobuf.Any of
 * a Struct with the members x-envoy-peer-metadata and x-envoy-peer-metadata-id. No I/O. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/ext/common/workload.h"

#define KB_PEER_PREFACE_HEAD 8
#define KB_PEER_PREFACE_MAX  65536 /* bytes behind the head; a peer that announces more is wrong */

/* The whole preface of this proxy, in the arena. */
struct kb_str kb_peer_preface_write(const struct kb_server_context *server,
                                    const struct kb_workload_labels *labels,
                                    struct kb_arena *arena);
/* Whether a preface begins here; *len is what follows the head, as the peer says. */
bool kb_peer_preface_head(const unsigned char head[KB_PEER_PREFACE_HEAD], uint32_t *len);
/* What followed the head. KB_EINVALID: not an Any. Else 0, and *peer is who it is, held once, or
 * NULL when that is not said or not understood. */
int kb_peer_preface_read(struct kb_str bytes, const struct kb_workload_labels *labels,
                         struct kb_workload **peer) KB_MUST_USE;
