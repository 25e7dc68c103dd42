/* SPDX-License-Identifier: Apache-2.0 */
/* Rate limits: from actions to descriptors, and what a descriptor costs. */
#include "proxy/router/rate_limit.h"

#include <stdlib.h>
#include <string.h>

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/formatter.h"
#include "proxy/router/rate_limit_actions.h"
#include "proxy/router/route_table.h"

#define HITS_MAX      1e9
#define HITS_TEXT_MAX 64

typedef Envoy__Config__Route__V3__RateLimit limit_message;

struct limit {
    struct kb_rate_action *actions;
    size_t count;
    const struct kb_formatter *hits_format; /* NULL: `hits` */
    uint64_t hits;
    uint32_t stage;
    bool of_filter;
    bool gives_back;
    bool off; /* never makes a descriptor */
    uint8_t x_rate_limit;
};

struct kb_rate_limits {
    size_t count;
    struct limit limits[];
};

/* ---- configuration ---- */

static int hits_read(struct limit *limit, const limit_message *m,
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
static int place_read(struct limit *limit, const limit_message *m, enum kb_rate_limits_place place,
                      const struct kb_match_build *build)
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

static void limit_read(struct limit *limit, const limit_message *m, enum kb_rate_limits_place place,
                       struct kb_str node_cluster, const struct kb_match_build *build, bool *failed)
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

/* ---- of a request ---- */

/* A number as a person writes it, of 0 to HITS_MAX; false for anything else. */
static bool hits_parse(struct kb_str text, uint64_t *hits)
{
    char copy[HITS_TEXT_MAX + 1];
    char *end;
    double value;

    text = kb_str_trim(text);
    if (text.len == 0 || text.len > HITS_TEXT_MAX) {
        return false;
    }
    memcpy(copy, text.p, text.len);
    copy[text.len] = '\0';
    if (strspn(copy, "+-.0123456789abcdefABCDEFxXpP") != text.len) {
        return false;
    }
    value = strtod(copy, &end);
    if (*end != '\0' || !(value >= 0 && value <= HITS_MAX)) {
        return false;
    }
    *hits = (uint64_t)value;
    return true;
}

static bool cost_of(const struct limit *limit, struct kb_stream *stream,
                    const struct kb_header_map *headers, struct kb_rate_descriptor *out)
{
    const struct kb_formatter_input input = {.request = headers};

    out->hits = limit->hits;
    out->gives_back = limit->gives_back;
    out->x_rate_limit = limit->x_rate_limit;
    return limit->hits_format == NULL ||
           hits_parse(kb_formatter_text(limit->hits_format, &input, kb_stream_stream_info(stream),
                                        kb_stream_arena(stream)),
                      &out->hits);
}

static bool descriptor_make(const struct limit *limit, struct kb_stream *stream,
                            const struct kb_header_map *headers, struct kb_rate_descriptor *out)
{
    struct kb_rate_entry *entries =
        kb_arena_alloc(kb_stream_arena(stream), (limit->count + 1) * sizeof(*entries),
                       _Alignof(struct kb_rate_entry));

    out->entries = entries;
    out->count = 0;
    for (size_t i = 0; i < limit->count; i++) {
        enum kb_rate_action_result result =
            kb_rate_action_apply(&limit->actions[i], stream, headers, &entries[out->count]);

        if (result == KB_RATE_ACTION_NONE) {
            return false;
        }
        out->count += result == KB_RATE_ACTION_ENTRY;
    }
    return cost_of(limit, stream, headers, out);
}

size_t kb_rate_limits_describe(const struct kb_rate_limits *limits, uint32_t stage,
                               struct kb_stream *stream, const struct kb_header_map *headers,
                               struct kb_rate_descriptor *out)
{
    size_t count = 0;

    for (size_t i = 0; limits != NULL && i < limits->count; i++) {
        const struct limit *limit = &limits->limits[i];

        if (!limit->off && (limit->of_filter || limit->stage == stage)) {
            count += descriptor_make(limit, stream, headers, &out[count]);
        }
    }
    return count;
}

/* ---- of a route ---- */

const struct kb_rate_limits *kb_route_rate_limits(const struct kb_route *route)
{
    return route->policies != NULL ? route->policies->rate_limits : NULL;
}

const struct kb_rate_limits *kb_route_virtual_host_rate_limits(const struct kb_route *route)
{
    return route->virtual_host != NULL ? route->virtual_host->rate_limits : NULL;
}

bool kb_route_includes_virtual_host_rate_limits(const struct kb_route *route)
{
    return route->policies != NULL && route->policies->include_virtual_host_rate_limits;
}
