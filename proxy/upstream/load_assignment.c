/* SPDX-License-Identifier: Apache-2.0 */
/* Reading endpoints. What is not read here is found by the walker of unsupported fields. */
#include "proxy/upstream/load_assignment.h"

#include "proto/pb.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/upstream/config_read.h"

/* metadata.filter_metadata["envoy.lb"].canary */
static bool canary_read(const Envoy__Config__Core__V3__Metadata *metadata)
{
    const Google__Protobuf__Value *value =
        kb_struct_get(kb_metadata_get(metadata, KB_STR("envoy.lb")), KB_STR("canary"));

    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE &&
           value->bool_value != 0;
}

static uint32_t health_flags_read(Envoy__Config__Core__V3__HealthStatus status)
{
    switch (status) {
    case ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__UNHEALTHY:
    case ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__TIMEOUT:
        return KB_HOST_FAILED_EDS;
    case ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__DRAINING:
        return KB_HOST_DRAINING_EDS;
    case ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__DEGRADED:
        return KB_HOST_DEGRADED_EDS;
    case ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__UNKNOWN:
    case ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__HEALTHY:
    default:
        return 0;
    }
}

static void check_read(const Envoy__Config__Endpoint__V3__Endpoint__HealthCheckConfig *message,
                       struct kb_host_check *check, struct kb_diag *diag)
{
    if (message == NULL) {
        return;
    }
    check->port = (uint16_t)message->port_value;
    check->disabled = message->disable_active_health_check != 0;
    check->hostname = kb_str_from_cstr(message->hostname);
    if (message->address != NULL) {
        kb_diag_push(diag, "health_check_config");
        kb_diag_push(diag, "address");
        if (kb_config_address(message->address, "", &check->addr, diag) != 0) {
            check->addr.len = 0; /* reported */
        }
        kb_diag_pop(diag);
        kb_diag_pop(diag);
    }
}

void kb_lb_endpoint_read(const Envoy__Config__Endpoint__V3__LocalityLbEndpoints *locality,
                         const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint,
                         struct kb_arena *arena, struct kb_host_params *params,
                         struct kb_diag *diag)
{
    memset(params, 0, sizeof(*params));
    if (endpoint->host_identifier_case ==
        ENVOY__CONFIG__ENDPOINT__V3__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT) {
        params->hostname = kb_str_from_cstr(endpoint->endpoint->hostname);
        check_read(endpoint->endpoint->health_check_config, &params->check, diag);
    }
    if (locality->locality != NULL) {
        params->region = kb_str_from_cstr(locality->locality->region);
        params->zone = kb_str_from_cstr(locality->locality->zone);
        params->sub_zone = kb_str_from_cstr(locality->locality->sub_zone);
    }
    params->priority = locality->priority;
    params->weight =
        endpoint->load_balancing_weight == NULL ? 1 : endpoint->load_balancing_weight->value;
    params->health_flags = health_flags_read(endpoint->health_status);
    if (endpoint->metadata != NULL) {
        params->metadata = kb_pb_pack(&endpoint->metadata->base, arena);
        params->canary = canary_read(endpoint->metadata);
    }
}

const Envoy__Config__Core__V3__Address *
kb_lb_endpoint_address(const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint)
{
    return endpoint->host_identifier_case ==
                   ENVOY__CONFIG__ENDPOINT__V3__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT
               ? endpoint->endpoint->address
               : NULL;
}

uint32_t
kb_drop_overload_read(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment__Policy *policy,
                      struct kb_diag *diag)
{
    static const uint32_t ppm[] = {10000, 100, 1}; /* HUNDRED, TEN_THOUSAND, MILLION */
    const Envoy__Type__V3__FractionalPercent *percent;

    if (policy == NULL || policy->n_drop_overloads == 0) {
        return 0;
    }
    if (policy->n_drop_overloads > 1) {
        kb_diag_error(diag,
                      "Cluster drop_overloads config has %zu categories. Envoy only support one.",
                      policy->n_drop_overloads);
        return 0;
    }
    percent = policy->drop_overloads[0]->drop_percentage;
    if (percent == NULL || (size_t)percent->denominator >= KB_ARRAY_LEN(ppm)) {
        return 0;
    }
    return (uint32_t)KB_MIN((uint64_t)percent->numerator * ppm[percent->denominator], 1000000);
}
