/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the few groups that a person watches. */
#include "proxy/stats/live.h"

#include "proxy/stats/stat_internal.h"

#define VALUE(group, ID) kb_stat_group_value((group), KB_STAT_##ID)

static void listener_read(const struct kb_stat_group *group, struct kb_stat_live *live)
{
    live->kind = KB_STAT_LIVE_LISTENER;
    live->connections = VALUE(group, LISTENER_DOWNSTREAM_CX_TOTAL);
    live->connections_active = VALUE(group, LISTENER_DOWNSTREAM_CX_ACTIVE);
}

static void route_read(const struct kb_stat_group *group, struct kb_stat_live *live)
{
    live->kind = KB_STAT_LIVE_ROUTE;
    live->requests = VALUE(group, LISTENER_HTTP_DOWNSTREAM_RQ_COMPLETED);
    live->errors = VALUE(group, LISTENER_HTTP_DOWNSTREAM_RQ_5XX);
}

static void http_read(const struct kb_stat_group *group, struct kb_stat_live *live)
{
    live->kind = KB_STAT_LIVE_HTTP;
    live->connections = VALUE(group, HTTP_DOWNSTREAM_CX_TOTAL);
    live->connections_active = VALUE(group, HTTP_DOWNSTREAM_CX_ACTIVE);
    live->requests = VALUE(group, HTTP_DOWNSTREAM_RQ_COMPLETED);
    live->requests_active = VALUE(group, HTTP_DOWNSTREAM_RQ_ACTIVE);
    live->errors = VALUE(group, HTTP_DOWNSTREAM_RQ_5XX);
    live->times_ms = kb_stat_group_histogram(group, KB_STAT_HTTP_DOWNSTREAM_RQ_TIME);
}

static void code_count(void *arg, uint32_t variant, uint16_t code, uint64_t count,
                       const struct kb_histogram_total *time)
{
    struct kb_stat_live *live = arg;

    (void)time;
    if (variant == KB_STAT_CODE_PLAIN && code != UINT16_MAX) {
        live->requests += count;
        live->errors += code >= 500 && code <= 599 ? count : 0;
    }
}

static void cluster_read(const struct kb_stat_group *group, struct kb_stat_live *live)
{
    live->kind = KB_STAT_LIVE_CLUSTER;
    live->connections = VALUE(group, CLUSTER_UPSTREAM_CX_TOTAL);
    live->connections_active = VALUE(group, CLUSTER_UPSTREAM_CX_ACTIVE);
    live->requests_active = VALUE(group, CLUSTER_UPSTREAM_RQ_ACTIVE);
    live->times_ms = kb_stat_group_histogram(group, KB_STAT_CLUSTER_UPSTREAM_RQ_TIME);
    kb_stat_codes_visit(group, code_count, live);
}

void kb_stat_live_visit(const struct kb_stat_store *store, kb_stat_live_fn visit, void *arg)
{
    static const struct {
        const struct kb_stat_schema *schema;
        void (*read)(const struct kb_stat_group *group, struct kb_stat_live *live);
    } readers[] = {{&kb_stat_schema_listener, listener_read},
                   {&kb_stat_schema_listener_http, route_read},
                   {&kb_stat_schema_http, http_read},
                   {&kb_stat_schema_cluster, cluster_read}};

    KB_LIST_FOREACH (link, &store->scopes) {
        const struct kb_stat_scope *scope = KB_LIST_ENTRY(link, struct kb_stat_scope, link);
        const struct kb_stat_group *group;

        if (scope->type != KB_STAT_SCOPE_GROUP || scope->gone) {
            continue;
        }
        group = KB_CONTAINER_OF(scope, struct kb_stat_group, scope);
        for (size_t i = 0; i < KB_ARRAY_LEN(readers) && kb_stat_group_has_blocks(group); i++) {
            struct kb_stat_live live = {
                .name = kb_str_first(kb_stat_group_prefix(group), group->scope.name_len - 1)};

            if (group->schema != readers[i].schema) {
                continue;
            }
            readers[i].read(group, &live);
            if (live.connections > 0 || live.requests > 0) {
                visit(arg, &live);
            }
        }
    }
}
