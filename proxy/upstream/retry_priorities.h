/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.retry_priorities.previous_priorities: after every so many attempts of a request the
 * priorities of the hosts tried are left out, until none is left. One request's; on its worker. */
#pragma once

#include "proxy/upstream/priority_set.h"

struct kb_retry_priorities {
    uint32_t update_frequency;
    const struct kb_host *const *tried; /* set by the owner before every choice */
    uint32_t tried_count;
    uint32_t forgotten; /* of them: no priority had been left */
    bool excluded[KB_PRIORITIES_MAX];
    struct kb_priority_loads loads;
};

/* The shares of the priorities for the next attempt; NULL: those of the set. */
const struct kb_priority_loads *kb_retry_priorities_loads(struct kb_retry_priorities *priorities,
                                                          const struct kb_priority_set *set);
