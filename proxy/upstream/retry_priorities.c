/* SPDX-License-Identifier: Apache-2.0 */
/* Which priorities a retry may go to (Envoy PreviousPrioritiesRetryPriority). */
#include "proxy/upstream/retry_priorities.h"

#include <string.h>

#include "proxy/upstream/host.h"

const struct kb_priority_loads *kb_retry_priorities_loads(struct kb_retry_priorities *priorities,
                                                          const struct kb_priority_set *set)
{
    uint32_t tried = priorities->tried_count - priorities->forgotten;

    if (tried < priorities->update_frequency) {
        return NULL;
    }
    if (tried % priorities->update_frequency != 0) {
        return &priorities->loads;
    }
    for (uint32_t i = priorities->forgotten; i < priorities->tried_count; i++) {
        uint32_t priority = priorities->tried[i]->priority;

        if (priority < KB_PRIORITIES_MAX) {
            priorities->excluded[priority] = true;
        }
    }
    if (kb_priority_set_load_without(set, priorities->excluded, &priorities->loads)) {
        return &priorities->loads;
    }
    memset(priorities->excluded, 0, sizeof(priorities->excluded));
    priorities->forgotten = priorities->tried_count;
    return kb_priority_set_load_without(set, priorities->excluded, &priorities->loads)
               ? &priorities->loads
               : NULL;
}
