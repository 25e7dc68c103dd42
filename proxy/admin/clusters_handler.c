/* SPDX-License-Identifier: Apache-2.0 */
/* /clusters: limits, hosts and their counters, as text or envoy.admin.v3.Clusters. */
#include "envoy/admin/v3/clusters.pb-c.h"
#include "proto/address.h"
#include "proxy/admin/admin_internal.h"

#define NEW(type, lower, arena) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

struct clusters_write {
    struct kb_admin_response *response;
    struct kb_regex *filter;
    bool any;
};

static const char *const host_stats[KB_HOST_STAT_COUNT] = {
    [KB_HOST_CX_ACTIVE] = "cx_active",   [KB_HOST_CX_CONNECT_FAIL] = "cx_connect_fail",
    [KB_HOST_CX_TOTAL] = "cx_total",     [KB_HOST_RQ_ACTIVE] = "rq_active",
    [KB_HOST_RQ_ERROR] = "rq_error",     [KB_HOST_RQ_PENDING_ACTIVE] = "rq_pending_active",
    [KB_HOST_RQ_SUCCESS] = "rq_success", [KB_HOST_RQ_TIMEOUT] = "rq_timeout",
    [KB_HOST_RQ_TOTAL] = "rq_total",
};

static const struct {
    uint32_t flag;
    const char *text;
} health_flags[] = {{KB_HOST_FAILED_ACTIVE_HC, "/failed_active_hc"},
                    {KB_HOST_FAILED_OUTLIER, "/failed_outlier_check"},
                    {KB_HOST_FAILED_EDS, "/failed_eds_health"},
                    {KB_HOST_DEGRADED_ACTIVE_HC, "/degraded_active_hc"},
                    {KB_HOST_DEGRADED_EDS, "/degraded_eds_health"},
                    {KB_HOST_PENDING_REMOVAL, "/pending_dynamic_removal"},
                    {KB_HOST_PENDING_ACTIVE_HC, "/pending_active_hc"},
                    {KB_HOST_EXCLUDED_IMMEDIATE_HC, "/excluded_via_immediate_hc_fail"},
                    {KB_HOST_ACTIVE_HC_TIMEOUT, "/active_hc_timeout"},
                    {KB_HOST_DRAINING_EDS, "/eds_status_draining"}};

/* "cluster::address::key::value"; the address may be empty for the cluster's own. */
static void line_add(struct kb_admin_response *response, struct kb_str cluster,
                     struct kb_str address, const char *key, struct kb_str value)
{
    kb_admin_add(response, cluster);
    kb_admin_add(response, KB_STR("::"));
    if (address.len > 0) {
        kb_admin_add(response, address);
        kb_admin_add(response, KB_STR("::"));
    }
    kb_admin_add(response, kb_str_from_cstr(key));
    kb_admin_add(response, KB_STR("::"));
    kb_admin_add(response, value);
    kb_admin_add(response, KB_STR("\n"));
}

static void number_line_add(struct kb_admin_response *response, struct kb_str cluster,
                            struct kb_str address, const char *key, uint64_t value)
{
    char text[20];

    line_add(response, cluster, address, key, kb_str_make(text, kb_u64_to_str(value, text)));
}

static void rate_line_add(struct kb_admin_response *response, struct kb_str cluster,
                          struct kb_str address, const char *key, double rate)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "%g", rate);

    line_add(response, cluster, address, key, kb_str_make(text, (size_t)len));
}

static void outlier_lines_add(struct kb_admin_response *response, struct kb_str name,
                              const struct kb_admin_cluster *cluster)
{
    struct kb_str outlier = KB_STR("outlier");

    rate_line_add(response, name, outlier, "success_rate_average",
                  cluster->success_rate_average[KB_OUTLIER_EXTERNAL]);
    rate_line_add(response, name, outlier, "success_rate_ejection_threshold",
                  cluster->success_rate_threshold[KB_OUTLIER_EXTERNAL]);
    rate_line_add(response, name, outlier, "local_origin_success_rate_average",
                  cluster->success_rate_average[KB_OUTLIER_LOCAL]);
    rate_line_add(response, name, outlier, "local_origin_success_rate_ejection_threshold",
                  cluster->success_rate_threshold[KB_OUTLIER_LOCAL]);
}

static void flags_line_add(struct kb_admin_response *response, struct kb_str cluster,
                           const struct kb_admin_host *host)
{
    char text[128];
    size_t len = 0;

    for (size_t i = 0; i < KB_ARRAY_LEN(health_flags); i++) {
        if ((host->health_flags & health_flags[i].flag) != 0) {
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s", health_flags[i].text);
        }
    }
    line_add(response, cluster, host->addr_text, "health_flags",
             len > 0 ? kb_str_make(text, len) : KB_STR("healthy"));
}

static void host_text_add(struct kb_admin_response *response, struct kb_str cluster,
                          const struct kb_admin_host *host)
{
    for (int i = 0; i < KB_HOST_STAT_COUNT; i++) {
        number_line_add(response, cluster, host->addr_text, host_stats[i], host->stats[i]);
    }
    line_add(response, cluster, host->addr_text, "hostname", host->hostname);
    flags_line_add(response, cluster, host);
    number_line_add(response, cluster, host->addr_text, "weight", host->weight);
    line_add(response, cluster, host->addr_text, "region", host->region);
    line_add(response, cluster, host->addr_text, "zone", host->zone);
    line_add(response, cluster, host->addr_text, "sub_zone", host->sub_zone);
    line_add(response, cluster, host->addr_text, "canary",
             host->canary ? KB_STR("true") : KB_STR("false"));
    number_line_add(response, cluster, host->addr_text, "priority", host->priority);
    rate_line_add(response, cluster, host->addr_text, "success_rate",
                  host->success_rate[KB_OUTLIER_EXTERNAL]);
    rate_line_add(response, cluster, host->addr_text, "local_origin_success_rate",
                  host->success_rate[KB_OUTLIER_LOCAL]);
}

static bool wanted(const struct clusters_write *write, const struct kb_admin_cluster *cluster)
{
    return write->filter == NULL || kb_regex_partial_match(write->filter, cluster->name);
}

static void text_write(void *arg, const struct kb_admin_cluster *cluster)
{
    static const char *const priorities[KB_PRIORITY_COUNT] = {"default_priority", "high_priority"};
    const struct clusters_write *write = arg;
    struct kb_str name = cluster->name;

    if (!wanted(write, cluster)) {
        return;
    }
    line_add(write->response, name, KB_STR(""), "observability_name", cluster->observability_name);
    if (cluster->outliers) {
        outlier_lines_add(write->response, name, cluster);
    }
    for (int i = 0; i < KB_PRIORITY_COUNT; i++) {
        struct kb_str priority = kb_str_from_cstr(priorities[i]);

        number_line_add(write->response, name, priority, "max_connections",
                        cluster->limits[i].connections);
        number_line_add(write->response, name, priority, "max_pending_requests",
                        cluster->limits[i].pending);
        number_line_add(write->response, name, priority, "max_requests",
                        cluster->limits[i].requests);
        number_line_add(write->response, name, priority, "max_retries", cluster->limits[i].retries);
    }
    line_add(write->response, name, KB_STR(""), "added_via_api",
             cluster->added_via_api ? KB_STR("true") : KB_STR("false"));
    if (cluster->eds_service_name.len > 0) {
        line_add(write->response, name, KB_STR(""), "eds_service_name", cluster->eds_service_name);
    }
    for (size_t i = 0; i < cluster->host_count; i++) {
        host_text_add(write->response, name, &cluster->hosts[i]);
    }
}

static Google__Protobuf__UInt32Value *limit_message(uint64_t value, struct kb_arena *arena)
{
    Google__Protobuf__UInt32Value *message =
        NEW(Google__Protobuf__UInt32Value, google__protobuf__uint32_value, arena);

    message->value = (uint32_t)KB_MIN(value, (uint64_t)UINT32_MAX);
    return message;
}

static Envoy__Config__Cluster__V3__CircuitBreakers *
breakers_message(const struct kb_admin_cluster *cluster, struct kb_arena *arena)
{
    Envoy__Config__Cluster__V3__CircuitBreakers *breakers =
        NEW(Envoy__Config__Cluster__V3__CircuitBreakers,
            envoy__config__cluster__v3__circuit_breakers, arena);

    breakers->thresholds =
        kb_arena_alloc(arena, KB_PRIORITY_COUNT * sizeof(*breakers->thresholds), sizeof(void *));
    for (int i = 0; i < KB_PRIORITY_COUNT; i++) {
        Envoy__Config__Cluster__V3__CircuitBreakers__Thresholds *thresholds =
            NEW(Envoy__Config__Cluster__V3__CircuitBreakers__Thresholds,
                envoy__config__cluster__v3__circuit_breakers__thresholds, arena);

        thresholds->priority = i == KB_PRIORITY_HIGH
                                   ? ENVOY__CONFIG__CORE__V3__ROUTING_PRIORITY__HIGH
                                   : ENVOY__CONFIG__CORE__V3__ROUTING_PRIORITY__DEFAULT;
        thresholds->max_connections = limit_message(cluster->limits[i].connections, arena);
        thresholds->max_pending_requests = limit_message(cluster->limits[i].pending, arena);
        thresholds->max_requests = limit_message(cluster->limits[i].requests, arena);
        thresholds->max_retries = limit_message(cluster->limits[i].retries, arena);
        breakers->thresholds[breakers->n_thresholds++] = thresholds;
    }
    return breakers;
}

static bool stat_is_gauge(int stat)
{
    return stat == KB_HOST_CX_ACTIVE || stat == KB_HOST_RQ_ACTIVE ||
           stat == KB_HOST_RQ_PENDING_ACTIVE;
}

static void stats_message_add(Envoy__Admin__V3__HostStatus *status,
                              const struct kb_admin_host *host, struct kb_arena *arena)
{
    status->stats =
        kb_arena_alloc(arena, KB_HOST_STAT_COUNT * sizeof(*status->stats), sizeof(void *));
    for (int gauges = 0; gauges < 2; gauges++) {
        for (int i = 0; i < KB_HOST_STAT_COUNT; i++) {
            Envoy__Admin__V3__SimpleMetric *metric;

            if (stat_is_gauge(i) != (gauges == 1)) {
                continue;
            }
            metric = NEW(Envoy__Admin__V3__SimpleMetric, envoy__admin__v3__simple_metric, arena);
            metric->type = gauges == 1 ? ENVOY__ADMIN__V3__SIMPLE_METRIC__TYPE__GAUGE
                                       : ENVOY__ADMIN__V3__SIMPLE_METRIC__TYPE__COUNTER;
            metric->name = kb_admin_text(kb_str_from_cstr(host_stats[i]), arena);
            metric->value = host->stats[i];
            status->stats[status->n_stats++] = metric;
        }
    }
}

/* NULL when it is not known. */
static Envoy__Type__V3__Percent *percent_message(double percent, struct kb_arena *arena)
{
    Envoy__Type__V3__Percent *message;

    if (percent < 0) {
        return NULL;
    }
    message = NEW(Envoy__Type__V3__Percent, envoy__type__v3__percent, arena);
    message->value = percent;
    return message;
}

static Envoy__Admin__V3__HostStatus *host_message(const struct kb_admin_host *host,
                                                  struct kb_arena *arena)
{
    Envoy__Admin__V3__HostStatus *status =
        NEW(Envoy__Admin__V3__HostStatus, envoy__admin__v3__host_status, arena);
    Envoy__Admin__V3__HostHealthStatus *health =
        NEW(Envoy__Admin__V3__HostHealthStatus, envoy__admin__v3__host_health_status, arena);
    Envoy__Config__Core__V3__Locality *locality =
        NEW(Envoy__Config__Core__V3__Locality, envoy__config__core__v3__locality, arena);

    status->address = kb_address_message(&host->addr, arena);
    stats_message_add(status, host, arena);
    health->failed_active_health_check = (host->health_flags & KB_HOST_FAILED_ACTIVE_HC) != 0;
    health->failed_active_degraded_check = (host->health_flags & KB_HOST_DEGRADED_ACTIVE_HC) != 0;
    health->excluded_via_immediate_hc_fail =
        (host->health_flags & KB_HOST_EXCLUDED_IMMEDIATE_HC) != 0;
    health->pending_dynamic_removal = (host->health_flags & KB_HOST_PENDING_REMOVAL) != 0;
    health->pending_active_hc = (host->health_flags & KB_HOST_PENDING_ACTIVE_HC) != 0;
    health->active_hc_timeout = (host->health_flags & KB_HOST_ACTIVE_HC_TIMEOUT) != 0;
    health->failed_outlier_check = (host->health_flags & KB_HOST_FAILED_OUTLIER) != 0;
    health->eds_health_status = (host->health_flags & KB_HOST_DRAINING_EDS) != 0
                                    ? ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__DRAINING
                                : (host->health_flags & KB_HOST_FAILED_EDS) != 0
                                    ? ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__UNHEALTHY
                                : (host->health_flags & KB_HOST_DEGRADED_EDS) != 0
                                    ? ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__DEGRADED
                                    : ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__HEALTHY;
    status->health_status = health;
    status->success_rate = percent_message(host->success_rate[KB_OUTLIER_EXTERNAL], arena);
    status->local_origin_success_rate =
        percent_message(host->success_rate[KB_OUTLIER_LOCAL], arena);
    status->weight = host->weight;
    status->hostname = kb_admin_text(host->hostname, arena);
    status->priority = host->priority;
    locality->region = kb_admin_text(host->region, arena);
    locality->zone = kb_admin_text(host->zone, arena);
    locality->sub_zone = kb_admin_text(host->sub_zone, arena);
    status->locality = locality;
    return status;
}

/* One at a time, so that the message of thousands of clusters never stands in memory. */
static void json_write(void *arg, const struct kb_admin_cluster *cluster)
{
    struct clusters_write *write = arg;
    Envoy__Admin__V3__ClusterStatus *status;
    struct kb_arena arena;

    if (!wanted(write, cluster)) {
        return;
    }
    kb_arena_init(&arena, NULL);
    status = NEW(Envoy__Admin__V3__ClusterStatus, envoy__admin__v3__cluster_status, &arena);
    status->name = kb_admin_text(cluster->name, &arena);
    status->added_via_api = cluster->added_via_api;
    status->observability_name = kb_admin_text(cluster->observability_name, &arena);
    status->eds_service_name = kb_admin_text(cluster->eds_service_name, &arena);
    if (cluster->outliers) {
        status->success_rate_ejection_threshold =
            percent_message(cluster->success_rate_threshold[KB_OUTLIER_EXTERNAL], &arena);
        status->local_origin_success_rate_ejection_threshold =
            percent_message(cluster->success_rate_threshold[KB_OUTLIER_LOCAL], &arena);
    }
    status->circuit_breakers = breakers_message(cluster, &arena);
    status->host_statuses = kb_arena_alloc(
        &arena, (cluster->host_count + 1) * sizeof(*status->host_statuses), sizeof(void *));
    for (size_t i = 0; i < cluster->host_count; i++) {
        status->host_statuses[status->n_host_statuses++] = host_message(&cluster->hosts[i], &arena);
    }
    kb_admin_add(write->response,
                 write->any ? KB_STR(",\n  ") : KB_STR("{\n \"cluster_statuses\": [\n  "));
    kb_pb_json_write(&write->response->body, &status->base, KB_PB_JSON_PRETTY, 2);
    write->any = true;
    kb_arena_dispose(&arena);
}

KB_ADMIN_HANDLER(clusters)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    bool json = kb_str_eq(kb_admin_query_get(&request->query, KB_STR("format")), KB_STR("json"));
    struct kb_str filter = kb_admin_query_get(&request->query, KB_STR("filter"));
    struct clusters_write write = {.response = response};
    struct kb_str error;

    if (filter.len > 0) {
        write.filter = kb_regex_create(filter, request->arena, &error);
        if (write.filter == NULL) {
            kb_admin_answer(response, 400, KB_STR("Invalid re2 regex"));
            return;
        }
    }
    if (sources->visit_clusters != NULL) {
        sources->visit_clusters(sources->arg, json ? json_write : text_write, &write);
    }
    if (json) {
        kb_admin_set_content_type(response, KB_ADMIN_JSON);
        kb_admin_add(response, write.any ? KB_STR("\n ]\n}\n") : KB_STR("{}\n"));
    }
    kb_regex_destroy(write.filter);
}
