/* SPDX-License-Identifier: Apache-2.0 */
/* Several attempts of one stream at a time (Envoy HedgePolicy). For router.c, router_upstream.c and
 * upstream_request.c only. */
#pragma once

#include "proxy/router/router.h"

/* Before the headers for the router are taken out: whether the route, or the request's
 * x-envoy-hedge-on-per-try-timeout, asks for it. */
void kb_hedging_choose(struct kb_router *router);
/* The present attempt took too long, and another will be made: it is put aside, and goes on. */
void kb_hedging_follow(struct kb_router *router);
/* An attempt that was put aside has something to tell: makes it the present one, and puts that
 * aside which was, if any. */
void kb_hedging_present(struct kb_upstream_request *upstream);
/* There is no present attempt: makes one of those put aside the present one; false: none is left.
 */
bool kb_hedging_next(struct kb_router *router);
/* Gives all up that are put aside; the present one stays. */
void kb_hedging_end(struct kb_router *router);
/* Bytes of the request that they hold. */
size_t kb_hedging_held(const struct kb_router *router);

/* Others may still answer: attempts that were put aside, or one that is about to be made. */
KB_INLINE bool kb_hedging_others(const struct kb_router *router)
{
    return router->hedging && (router->slow != NULL || kb_timer_armed(&router->retry_timer));
}
