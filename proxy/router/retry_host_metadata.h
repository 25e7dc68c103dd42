/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts that retries leave out because of their metadata
 * (envoy.retry_host_predicates.omit_host_metadata). */
#pragma once

#include "base/arena.h"
#include "proto/any.h"

struct kb_diag;
struct kb_host;
struct kb_host_labels; /* what the metadata of such hosts has under `envoy.lb` */

/* From an OmitHostMetadataConfig, in the route table's arena; NULL after an error in diag. */
const struct kb_host_labels *kb_host_labels_create(const Google__Protobuf__Any *config,
                                                   struct kb_arena *arena, struct kb_diag *diag);
/* Whether the host has all of them: then it is left out. Takes memory from `blocks` for the time of
 * the call. */
bool kb_host_labels_match(const struct kb_host_labels *labels, const struct kb_host *host,
                          struct kb_pool *blocks);
