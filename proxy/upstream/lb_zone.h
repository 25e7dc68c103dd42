/* SPDX-License-Identifier: Apache-2.0 */
/* Zone aware routing (Envoy docs: load balancing, zone aware routing): requests stay in the zone of
 * this process as far as its share of the callers and of the upstream's hosts agree; the rest goes
 * where there is capacity left. Only for priority 0. */
#pragma once

#include "proxy/api/lb.h"
#include "proxy/upstream/priority_set.h"

enum kb_lb_zone_state {
    KB_LB_ZONE_OFF,    /* too few zones or hosts: all hosts alike */
    KB_LB_ZONE_DIRECT, /* everything stays */
    KB_LB_ZONE_RESIDUAL
};

/* One worker's state for one cluster. */
struct kb_lb_zone {
    uint32_t slot;                     /* of the cluster of this process; UINT32_MAX: not aware */
    struct kb_priority_set *local_set; /* its hosts as they were looked at; holds a reference */
    enum kb_lb_zone_state state;
    uint32_t local;     /* which locality of the upstream is ours; UINT32_MAX: none */
    uint64_t stays;     /* of 10,000 requests */
    uint64_t *residual; /* capacity left in each locality and those before it */
};

enum { KB_LB_ZONE_ANY = -1, KB_LB_ZONE_FAIL = -2 };

/* The hosts of `lb` are other ones, or it is new; `zone` was zero then. */
void kb_lb_zone_update(struct kb_lb_zone *zone, const struct kb_lb *lb,
                       const struct kb_lb_config *config);
void kb_lb_zone_dispose(struct kb_lb_zone *zone);
/* The locality for the next request; ANY: all hosts alike; FAIL: none, because the own cluster
 * panics and that was asked for. */
int kb_lb_zone_pick(struct kb_lb_zone *zone, const struct kb_lb *lb,
                    const struct kb_lb_config *config);
