/* SPDX-License-Identifier: Apache-2.0 */
/* /stats and what belongs to it. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/admin/admin_internal.h"
#include "proxy/stats/stats_dump.h"

#define RECENT_LOOKUPS_CAPACITY 100

/* One output under way. */
struct stats_body {
    KB_OBJ;
    struct kb_stats_dump *dump;
    struct kb_regex *filter;
};
KB_OBJ_MAGIC(stats_body, 0x53424f44);

static bool stats_body_next(void *arg, struct kb_json_out *out, size_t bytes)
{
    return kb_stats_dump_next(KB_CAST(arg, stats_body)->dump, out, bytes);
}

static void stats_body_end(void *arg)
{
    struct stats_body *body = KB_CAST(arg, stats_body);

    kb_stats_dump_destroy(body->dump);
    kb_regex_destroy(body->filter);
    KB_OBJ_CLEAR(body);
    free(body);
}

static bool buckets_read(const struct kb_admin_query *query, struct kb_stats_params *params)
{
    static const struct {
        const char *name;
        enum kb_stats_buckets buckets;
    } names[] = {
        {"cumulative", KB_STATS_BUCKETS_CUMULATIVE}, {"disjoint", KB_STATS_BUCKETS_DISJOINT},
        {"detailed", KB_STATS_BUCKETS_DETAILED},     {"summary", KB_STATS_BUCKETS_SUMMARY},
        {"none", KB_STATS_BUCKETS_SUMMARY},          {"prometheusnative", KB_STATS_BUCKETS_NATIVE}};
    struct kb_str value = kb_admin_query_get(query, KB_STR("histogram_buckets"));

    if (value.len == 0) {
        return true;
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        if (kb_str_eq(value, kb_str_from_cstr(names[i].name))) {
            params->buckets = names[i].buckets;
            params->buckets_set = true;
            return true;
        }
    }
    return false;
}

static bool type_read(const struct kb_admin_query *query, struct kb_stats_params *params)
{
    static const struct {
        const char *name;
        enum kb_stats_type type;
    } names[] = {{"All", KB_STATS_TYPE_ALL},
                 {"Counters", KB_STATS_TYPE_COUNTERS},
                 {"Gauges", KB_STATS_TYPE_GAUGES},
                 {"Histograms", KB_STATS_TYPE_HISTOGRAMS},
                 {"TextReadouts", KB_STATS_TYPE_TEXT_READOUTS}};
    struct kb_str value = kb_admin_query_get(query, KB_STR("type"));

    if (value.len == 0) {
        return true;
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        if (kb_str_eq(value, kb_str_from_cstr(names[i].name))) {
            params->type = names[i].type;
            return true;
        }
    }
    return false;
}

/* Why the format cannot be given, or an empty slice. */
static struct kb_str format_read(const struct kb_admin_query *query, struct kb_stats_params *params)
{
    struct kb_str value = kb_admin_query_get(query, KB_STR("format"));

    if (value.len == 0 || kb_str_eq(value, KB_STR("text"))) {
        params->format = KB_STATS_TEXT;
    } else if (kb_str_eq(value, KB_STR("json"))) {
        params->format = KB_STATS_JSON;
    } else if (kb_str_eq(value, KB_STR("prometheus"))) {
        params->format = KB_STATS_PROMETHEUS;
    } else if (kb_str_eq(value, KB_STR("html"))) {
        params->format = KB_STATS_HTML;
    } else if (kb_str_eq(value, KB_STR("active-html"))) {
        return KB_STR(
            "Active HTML output was disabled by building with --define=admin_html=disabled");
    } else {
        return KB_STR("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n");
    }
    return KB_STR("");
}

static bool hidden_read(const struct kb_admin_query *query, struct kb_stats_params *params)
{
    struct kb_str value = kb_admin_query_get(query, KB_STR("hidden"));

    params->hidden_only = kb_str_eq(value, KB_STR("only"));
    return value.len == 0 || params->hidden_only || kb_str_eq(value, KB_STR("include")) ||
           kb_str_eq(value, KB_STR("exclude"));
}

/* Reads everything, in the order in which Envoy finds errors; false after an answer. *filter is the
 * caller's. */
static bool params_read(struct kb_admin_request *request, struct kb_admin_response *response,
                        struct kb_stats_params *params, struct kb_regex **filter)
{
    const struct kb_admin_query *query = &request->query;
    struct kb_str pattern = kb_admin_query_get(query, KB_STR("filter"));
    struct kb_str error = KB_STR("");

    params->used_only = kb_admin_query_has(query, KB_STR("usedonly"));
    params->text_readouts = kb_admin_query_has(query, KB_STR("text_readouts"));
    params->invert_filter = kb_admin_query_has(query, KB_STR("invert_filter"));
    if (pattern.len > 0) {
        *filter = kb_regex_create(pattern, request->arena, &error);
        params->filter = *filter;
    }
    if (error.len > 0) {
        error = kb_str_printf(request->arena, "Invalid re2 regex: %.*s", KB_STR_ARG(error));
    } else if (!buckets_read(query, params)) {
        error = KB_STR(
            "usage: "
            "/stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n");
    } else if (!type_read(query, params)) {
        error = KB_STR("invalid &type= param");
    } else if (!hidden_read(query, params)) {
        error = KB_STR("usage: /stats?hidden=(include|only|exclude)\n\n");
    } else {
        error = format_read(query, params);
    }
    if (error.len == 0) {
        return true;
    }
    kb_admin_answer(response, 400, error);
    return false;
}

static void stats_answer(struct kb_admin_request *request, struct kb_admin_response *response,
                         bool prometheus)
{
    struct kb_stats_params params = {0};
    struct kb_regex *filter = NULL;
    struct stats_body *body;

    if (!params_read(request, response, &params, &filter)) {
        kb_regex_destroy(filter);
        return;
    }
    if (prometheus) {
        params.format = KB_STATS_PROMETHEUS;
    }
    if (params.buckets == KB_STATS_BUCKETS_NATIVE) {
        kb_regex_destroy(filter);
        kb_admin_answer(
            response, 400,
            params.format == KB_STATS_PROMETHEUS
                ? KB_STR("unsupported prometheusnative histogram type when not using "
                         "protobuf exposition format")
                : KB_STR("Invalid histogram_buckets type for non prometheus stats type"));
        return;
    }
    if (params.format == KB_STATS_PROMETHEUS && (params.buckets == KB_STATS_BUCKETS_DETAILED ||
                                                 params.buckets == KB_STATS_BUCKETS_DISJOINT)) {
        kb_regex_destroy(filter);
        kb_admin_answer(response, 400, KB_STR("unsupported prometheus histogram bucket mode"));
        return;
    }
    if (request->admin->sources.flush_on_admin) {
        kb_stat_store_flush(request->admin->stats);
    }
    if (params.format == KB_STATS_JSON) {
        kb_admin_set_content_type(response, KB_ADMIN_JSON);
    } else if (params.format == KB_STATS_HTML) {
        kb_admin_set_content_type(response, "text/html; charset=UTF-8");
        kb_admin_add(
            response,
            KB_STR("<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <title>Envoy Admin</title>\n"
                   "</head>\n<body>\n"));
    }
    body = kb_calloc(1, sizeof(*body));
    KB_OBJ_SET(body, stats_body);
    body->filter = filter;
    body->dump = kb_stats_dump_create(request->admin->stats, &params);
    response->next = stats_body_next;
    response->end = stats_body_end;
    response->arg = body;
}

KB_ADMIN_HANDLER(stats)
{
    stats_answer(request, response, false);
}

KB_ADMIN_HANDLER(stats_prometheus)
{
    stats_answer(request, response, true);
}

KB_ADMIN_HANDLER(reset_counters)
{
    kb_stat_store_reset_counters(request->admin->stats);
    kb_admin_add(response, KB_STR("OK\n"));
}

/* Envoy looks names up in a table shared by all threads, and shows how often. Kobune's names are
 * indices, so that there is nothing to show. */
KB_ADMIN_HANDLER(recentlookups)
{
    if (request->admin->stats->recent_lookups_capacity == 0) {
        kb_admin_add(
            response,
            KB_STR("Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n"));
    } else {
        kb_admin_add(response, KB_STR("   Count Lookup\n"));
    }
    kb_admin_add(response, KB_STR("\ntotal: 0\n"));
}

KB_ADMIN_HANDLER(recentlookups_clear)
{
    (void)request;
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(recentlookups_disable)
{
    request->admin->stats->recent_lookups_capacity = 0;
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(recentlookups_enable)
{
    request->admin->stats->recent_lookups_capacity = RECENT_LOOKUPS_CAPACITY;
    kb_admin_add(response, KB_STR("OK\n"));
}
