/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the builders, and one Route message to one entry. */
#include "proxy/router/route_build.h"

#include <stdarg.h>
#include <stdio.h>

#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/formatter.h"
#include "proxy/matcher/runtime_fraction.h"

#define ACTION(name) ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_##name
#define SECONDS_MAX  INT64_C(315576000000) /* google.protobuf.Duration */

void kb_route_build_error(struct kb_route_build *build, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    kb_diag_error(build->match.diag, "%s", text);
    build->failed = true;
}

struct kb_str kb_route_build_dup(struct kb_route_build *build, const char *text)
{
    return kb_str_dup(build->match.arena, kb_str_from_cstr(text));
}

struct kb_str kb_route_build_intern(struct kb_route_build *build, const char *text)
{
    struct kb_str key = kb_str_from_cstr(text);
    const char *found = kb_map_get(&build->names, key);

    if (key.len == 0) {
        return KB_STR("");
    }
    if (found == NULL) {
        struct kb_str copy = kb_str_dup(build->match.arena, key);

        kb_map_put(&build->names, copy, (void *)copy.p);
        found = copy.p;
    }
    return kb_str_make(found, key.len);
}

/* The number is given back with the table. */
static void slot_note(struct kb_route_build *build, uint32_t slot)
{
    struct kb_cluster_slot_node *node =
        KB_ARENA_NEW(build->match.arena, struct kb_cluster_slot_node);

    node->slot = slot;
    node->next = build->config->cluster_slots;
    build->config->cluster_slots = node;
    build->config->server = build->factory->server;
}

const struct kb_route_cluster *kb_route_build_cluster(struct kb_route_build *build,
                                                      const char *name, const char *unknown)
{
    struct kb_str key = kb_str_from_cstr(name);
    struct kb_route_cluster *cluster = kb_map_get(&build->clusters, key);
    struct kb_cluster_manager *manager = build->factory->server->clusters;

    if (cluster == NULL) {
        if (build->validate_clusters && !kb_cluster_manager_has(manager, key)) {
            kb_route_build_error(build, "route: unknown %s '%s'", unknown, name);
            return NULL;
        }
        cluster = KB_ARENA_NEW(build->match.arena, struct kb_route_cluster);
        cluster->name = kb_route_build_intern(build, name);
        cluster->slot = kb_cluster_slot(manager, cluster->name);
        slot_note(build, cluster->slot);
        kb_map_put(&build->clusters, cluster->name, cluster);
    }
    return cluster;
}

uint64_t kb_route_build_ms(struct kb_route_build *build, const char *field,
                           const Google__Protobuf__Duration *duration, uint64_t absent)
{
    if (duration == NULL) {
        return absent;
    }
    if (duration->seconds < 0 || duration->nanos < 0) {
        kb_diag_push(build->match.diag, field);
        kb_route_build_error(build, "Invalid duration: Expected positive duration");
        kb_diag_pop(build->match.diag);
        return absent;
    }
    if (duration->seconds > SECONDS_MAX) {
        kb_diag_push(build->match.diag, field);
        kb_route_build_error(build, "Invalid duration: duration out-of-range");
        kb_diag_pop(build->match.diag);
        return absent;
    }
    return (uint64_t)duration->seconds * 1000 + (uint64_t)duration->nanos / 1000000;
}

const struct kb_regex *kb_route_build_regex(struct kb_route_build *build, const char *field,
                                            const Envoy__Type__Matcher__V3__RegexMatcher *message)
{
    const struct kb_regex *regex = NULL;

    kb_diag_push(build->match.diag, field);
    if (message == NULL) {
        kb_route_build_error(build, "value is required");
    } else {
        regex = kb_match_build_regex(&build->match, message);
        build->failed |= regex == NULL;
    }
    kb_diag_pop(build->match.diag);
    return regex;
}

/* Route before virtual host, the new field before the old one. */
static uint64_t body_buffer_limit(const Envoy__Config__Route__V3__Route *route,
                                  const Envoy__Config__Route__V3__VirtualHost *vhost)
{
    if (route->request_body_buffer_limit != NULL) {
        return route->request_body_buffer_limit->value;
    }
    if (vhost->request_body_buffer_limit != NULL) {
        return vhost->request_body_buffer_limit->value;
    }
    if (route->per_request_buffer_limit_bytes != NULL) {
        return route->per_request_buffer_limit_bytes->value;
    }
    if (vhost->per_request_buffer_limit_bytes != NULL) {
        return vhost->per_request_buffer_limit_bytes->value;
    }
    return UINT64_MAX;
}

static void action_build(struct kb_route_build *build,
                         const Envoy__Config__Route__V3__Route *message,
                         const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry,
                         struct kb_route_changes *changes)
{
    switch ((int)message->action_case) {
    case ACTION(ROUTE):
        kb_diag_push(build->match.diag, "route");
        kb_route_build_action(build, message->route, defaults, entry, changes);
        kb_diag_pop(build->match.diag);
        break;
    case ACTION(REDIRECT):
        kb_diag_push(build->match.diag, "redirect");
        kb_route_build_redirect(build, message->redirect, entry);
        kb_diag_pop(build->match.diag);
        break;
    case ACTION(DIRECT_RESPONSE):
        kb_diag_push(build->match.diag, "direct_response");
        kb_route_build_direct(build, message->direct_response, entry);
        kb_diag_pop(build->match.diag);
        break;
    case ACTION(FILTER_ACTION):
    case ACTION(NON_FORWARDING_ACTION):
        entry->route.kind = KB_ROUTE_NON_FORWARDING;
        break;
    default:
        kb_route_build_error(build, "action: is required");
    }
}

static void changes_build(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__Route *message,
                          const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry)
{
    struct kb_route_changes changes = {.rewrite = NULL};
    struct kb_route_changes *kept;

    build->stat_prefix = KB_STR_NULL;
    if (message->stat_prefix[0] != '\0') {
        build->stat_prefix =
            kb_str_printf(build->match.arena, "vhost.%.*s.route.%s.",
                          KB_STR_ARG(entry->route.virtual_host->name), message->stat_prefix);
    }
    action_build(build, message, defaults, entry, &changes);
    changes.request = kb_header_mutations_create(
        message->request_headers_to_add, message->n_request_headers_to_add,
        message->request_headers_to_remove, message->n_request_headers_to_remove, "request",
        &build->match, &build->failed);
    changes.response = kb_header_mutations_create(
        message->response_headers_to_add, message->n_response_headers_to_add,
        message->response_headers_to_remove, message->n_response_headers_to_remove, "response",
        &build->match, &build->failed);
    changes.filters = kb_route_build_filters(build, (void *const *)message->typed_per_filter_config,
                                             message->n_typed_per_filter_config);
    entry->route.filter_configs =
        changes.filters != NULL || entry->route.virtual_host->filters != NULL ||
        build->config->filters != NULL || entry->route.choice_filter_configs;
    entry->changes = &kb_route_no_changes;
    if (changes.request != NULL || changes.response != NULL || changes.rewrite != NULL ||
        changes.filters != NULL) {
        kept = KB_ARENA_NEW(build->match.arena, struct kb_route_changes);
        *kept = changes;
        entry->changes = kept;
    }
}

/* For formats that show it. */
static struct kb_str metadata_pack(const struct kb_route_build *build,
                                   const Envoy__Config__Core__V3__Metadata *metadata)
{
    return metadata != NULL ? kb_pb_pack(&metadata->base, build->match.arena) : KB_STR("");
}

static struct kb_tracing_share share_read(const Envoy__Type__V3__FractionalPercent *percent)
{
    return percent != NULL
               ? (struct kb_tracing_share){percent->numerator, kb_fraction_denominator(percent)}
               : (struct kb_tracing_share){100, 100};
}

/* Nothing shows what the format makes; it has to be one all the same. */
static bool operation_check(struct kb_route_build *build, const char *field, const char *format)
{
    if (format[0] == '\0') {
        return false;
    }
    kb_diag_push(build->match.diag, field);
    if (kb_formatter_create(build->match.arena, kb_str_from_cstr(format), true,
                            build->match.diag) == NULL) {
        build->failed = true;
    }
    kb_diag_pop(build->match.diag);
    return true;
}

static void sampling_build(struct kb_route_build *build, const Envoy__Config__Route__V3__Tracing *m,
                           struct kb_route_tracing *tracing)
{
    tracing->samples = true;
    tracing->client = share_read(m->client_sampling);
    tracing->random = share_read(m->random_sampling);
    tracing->overall = share_read(m->overall_sampling);
    kb_diag_push(build->match.diag, "tracing");
    tracing->names_operation = operation_check(build, "operation", m->operation);
    operation_check(build, "upstream_operation", m->upstream_operation);
    kb_diag_pop(build->match.diag);
}

static const struct kb_route_tracing *tracing_build(struct kb_route_build *build,
                                                    const Envoy__Config__Route__V3__Route *message)
{
    struct kb_route_tracing *tracing;

    if (message->decorator == NULL && message->tracing == NULL) {
        return NULL;
    }
    tracing = KB_ARENA_NEW(build->match.arena, struct kb_route_tracing);
    if (message->decorator != NULL) {
        tracing->operation = kb_route_build_intern(build, message->decorator->operation);
        tracing->propagate = kb_wkt_bool(message->decorator->propagate, true);
    }
    if (message->tracing != NULL) {
        sampling_build(build, message->tracing, tracing);
    }
    return tracing;
}

void kb_route_build_entry(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__Route *message,
                          const struct kb_virtual_host *vhost,
                          const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry,
                          struct kb_path_key *key)
{
    struct kb_route *route = &entry->route;

    route->impl = entry;
    route->virtual_host = vhost;
    route->name = kb_route_build_intern(build, message->name);
    route->metadata = metadata_pack(build, message->metadata);
    route->virtual_host_metadata = metadata_pack(build, defaults->message->metadata);
    route->tracing = tracing_build(build, message);
    route->timeout_ms = KB_ROUTE_TIMEOUT_MS;
    route->flush_timeout_ms = UINT64_MAX;
    route->cluster_not_found_status = 503;
    route->request_body_buffer_limit = body_buffer_limit(message, defaults->message);
    route->include_attempt_count_request = defaults->message->include_request_attempt_count;
    route->include_attempt_count_response = defaults->message->include_attempt_count_in_response;
    route->include_is_timeout_retry = defaults->message->include_is_timeout_retry_header;
    if (message->match == NULL) {
        kb_route_build_error(build, "match: value is required");
    } else {
        kb_route_build_match(build, message->match, entry, key);
    }
    changes_build(build, message, defaults, entry);
}
