/* SPDX-License-Identifier: Apache-2.0 */
/* Rate limits, from their configuration. */
#include "proxy/router/rate_limit.h"

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/formatter.h"
#include "proxy/router/rate_limit_actions.h"

typedef Envoy__Config__Route__V3__RateLimit limit_message;

static int hits_read(struct kb_rate_limit *limit, const limit_message *m,
                     const struct kb_match_build *build)
{
    const Envoy__Config__Route__V3__RateLimit__HitsAddend *hits = m->hits_addend;
    bool format = hits->format[0] != '\0';

    kb_diag_push(build->diag, "hits_addend");
    limit->gives_back = hits->is_negative_hits;
    if (format == (hits->number != NULL)) {
        kb_diag_error(build->diag, "hits_addend must contain either a format or a number");
    } else if (!format) {
        limit->hits = hits->number->value;
    } else {
        limit->hits_format =
            kb_formatter_create(build->arena, kb_str_from_cstr(hits->format), true, build->diag);
        if (limit->hits_format != NULL && !kb_formatter_is_single(limit->hits_format)) {
            kb_diag_error(build->diag, "hits_addend format must contain exactly one substitution");
            limit->hits_format = NULL;
        }
    }
    kb_diag_pop(build->diag);
    return limit->hits_format != NULL || (!format && hits->number != NULL) ? 0 : KB_ECONFIG;
}

/* What Envoy allows only in one of the places. */
static int place_read(struct kb_rate_limit *limit, const limit_message *m,
                      enum kb_rate_limits_place place, const struct kb_match_build *build)
{
    limit->hits = 1;
    limit->x_rate_limit = (uint8_t)m->x_ratelimit_option;
    if (place == KB_RATE_LIMITS_OF_ROUTE) {
        limit->stage = kb_wkt_u32(m->stage, 0);
        limit->off = m->disable_key[0] != '\0';
        return 0;
    }
    limit->of_filter = true;
    limit->off = m->apply_on_stream_done;
    if (m->stage != NULL || m->disable_key[0] != '\0') {
        kb_diag_error(build->diag, "'stage' field and 'disable_key' field are not supported");
        return KB_ECONFIG;
    }
    if (m->limit != NULL) {
        kb_diag_error(build->diag, "'limit' field is not supported");
        return KB_ECONFIG;
    }
    return m->hits_addend != NULL ? hits_read(limit, m, build) : 0;
}

static void limit_read(struct kb_rate_limit *limit, const limit_message *m,
                       enum kb_rate_limits_place place, struct kb_str node_cluster,
                       const struct kb_match_build *build, bool *failed)
{
    *failed |= place_read(limit, m, place, build) != 0;
    limit->actions = kb_arena_calloc(build->arena, (m->n_actions + 1) * sizeof(*limit->actions));
    limit->count = m->n_actions;
    for (size_t i = 0; i < m->n_actions; i++) {
        kb_diag_push_index(build->diag, "actions", i);
        *failed |= kb_rate_action_init(&limit->actions[i], m->actions[i], node_cluster, build) != 0;
        kb_diag_pop(build->diag);
    }
}

const struct kb_rate_limits *kb_rate_limits_create(limit_message *const *messages, size_t count,
                                                   enum kb_rate_limits_place place,
                                                   struct kb_str node_cluster,
                                                   const struct kb_match_build *build, bool *failed)
{
    struct kb_rate_limits *limits;

    if (count == 0) {
        return NULL;
    }
    limits = kb_arena_calloc(build->arena, sizeof(*limits) + count * sizeof(limits->limits[0]));
    limits->count = count;
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, "rate_limits", i);
        limit_read(&limits->limits[i], messages[i], place, node_cluster, build, failed);
        kb_diag_pop(build->diag);
    }
    return limits;
}

size_t kb_rate_limits_count(const struct kb_rate_limits *limits)
{
    return limits != NULL ? limits->count : 0;
}
