/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of a gRPC request, as the filter grpc_stats leaves them in filter state under
 * "envoy.filters.http.grpc_stats". */
#pragma once

#include "proxy/api/filter_state.h"

struct kb_grpc_counts {
    uint64_t request_messages;
    uint64_t response_messages;
};

extern const struct kb_filter_state_type kb_grpc_counts_type;
/* The key; valid after kb_grpc_counts_init, which any factory calls first; main thread. */
extern const struct kb_filter_state_key *kb_grpc_counts_key;
void kb_grpc_counts_init(void);

/* NULL: nobody counts. */
KB_INLINE const struct kb_grpc_counts *kb_grpc_counts_find(const struct kb_stream_info *info)
{
    const struct kb_filter_state_item *item =
        kb_grpc_counts_key != NULL ? kb_filter_state_find(info, kb_grpc_counts_key) : NULL;

    return item != NULL ? item->object : NULL;
}
