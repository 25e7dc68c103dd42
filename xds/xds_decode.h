/* SPDX-License-Identifier: Apache-2.0 */
/* From the bytes of a response to resources that are checked, and from what is wrong with them to
 * the text of a NACK. Pure. */
#pragma once

#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "google/rpc/status.pb-c.h"

#include "xds/xds_watch.h"

#define KB_XDS_ERROR_TEXT_MAX 4096 /* as Envoy: the rest becomes "...(truncated)" */
#define KB_XDS_INTERNAL       13   /* google.rpc.Code */

/* Bytes to message. NULL when they are not one. */
Envoy__Service__Discovery__V3__DiscoveryResponse *kb_xds_decode_sotw(struct kb_str bytes,
                                                                     struct kb_arena *arena);
Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *kb_xds_decode_delta(struct kb_str bytes,
                                                                           struct kb_arena *arena);

/* Takes a resource out of its Any and checks its constraints; NULL after an error in diag. */
const ProtobufCMessage *kb_xds_decode_resource(enum kb_xds_type type,
                                               const Google__Protobuf__Any *any,
                                               struct kb_arena *arena, struct kb_diag *diag);

/* A copy in the arena as protobuf-c wants it. */
char *kb_xds_text(struct kb_arena *arena, struct kb_str text);

/* All errors of diag in one text, each with its field: what a NACK says. */
struct kb_str kb_xds_error_text(const struct kb_diag *diag, struct kb_arena *arena);
/* The bytes of a resource; never NULL. */
KB_INLINE struct kb_str kb_xds_any_bytes(const Google__Protobuf__Any *any)
{
    return kb_str_make(any->value.len > 0 ? (const char *)any->value.data : "", any->value.len);
}

/* The same as google.rpc.Status. */
Google__Rpc__Status *kb_xds_error_detail(struct kb_str text, struct kb_arena *arena);
