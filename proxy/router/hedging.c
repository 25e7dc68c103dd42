/* SPDX-License-Identifier: Apache-2.0 */
/* Hedging (hedge_on_per_try_timeout): an attempt that takes too long goes on while another one is
 * made, and the first good answer wins. The router deals with one attempt at a time, the present
 * one; the others wait here, each with what the stream's info said of it, until one of them tells
 * something and becomes the present one. */
#include "proxy/router/hedging.h"

#include "proxy/router/attempt_record.h"

struct kb_slow_attempt {
    struct kb_slow_attempt *next;
    struct kb_upstream_request *upstream;
    struct kb_upstream_info info;
    const struct kb_upstream_info *earlier;
};

/* Puts the present attempt aside; there is none afterwards. */
static void put_aside(struct kb_router *router)
{
    struct kb_slow_attempt *slow = KB_ARENA_NEW(router->arena, struct kb_slow_attempt);

    slow->upstream = router->upstream;
    slow->info = router->info->upstream;
    slow->earlier = router->earlier;
    slow->next = router->slow;
    router->slow = slow;
    router->upstream = NULL;
}

void kb_hedging_present(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;
    struct kb_slow_attempt **at = &router->slow;
    struct kb_slow_attempt *slow;

    while (*at != NULL && (*at)->upstream != upstream) {
        at = &(*at)->next;
    }
    slow = *at;
    if (slow == NULL) {
        return; /* it is being given up */
    }
    *at = slow->next;
    if (router->upstream != NULL) {
        put_aside(router);
    }
    router->upstream = upstream;
    router->info->upstream = slow->info;
    router->earlier = slow->earlier;
}

void kb_hedging_follow(struct kb_router *router)
{
    router->upstream->retried = true;
    router->timeout_retry = true;
    put_aside(router);
}

bool kb_hedging_next(struct kb_router *router)
{
    if (router->slow == NULL) {
        return false;
    }
    kb_hedging_present(router->slow->upstream);
    return true;
}

void kb_hedging_end(struct kb_router *router)
{
    struct kb_upstream_info present = router->info->upstream;
    const struct kb_upstream_info *earlier = router->earlier;

    while (router->slow != NULL) {
        struct kb_upstream_request *upstream = router->slow->upstream;

        router->info->upstream = router->slow->info;
        router->earlier = router->slow->earlier;
        router->slow = router->slow->next;
        kb_upstream_request_cancel(upstream);
        if (KB_UNLIKELY(upstream->record != NULL)) {
            kb_attempt_record_end(upstream);
        }
        router->info->upstream = present; /* also tells dispose which host has to stay */
        router->earlier = earlier;
        kb_upstream_request_dispose(upstream);
    }
}

size_t kb_hedging_held(const struct kb_router *router)
{
    size_t bytes = 0;

    for (const struct kb_slow_attempt *slow = router->slow; slow != NULL; slow = slow->next) {
        bytes += kb_upstream_request_held(slow->upstream);
    }
    return bytes;
}

void kb_hedging_choose(struct kb_router *router)
{
    struct kb_str asked =
        kb_header_map_value_id(router->request, KB_HDR_X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT);

    router->hedging =
        router->route->policies != NULL && router->route->policies->hedge_on_per_try_timeout;
    if (kb_str_eq(asked, KB_STR("true"))) {
        router->hedging = true;
    } else if (kb_str_eq(asked, KB_STR("false"))) {
        router->hedging = false;
    }
}
