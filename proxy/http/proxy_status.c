/* SPDX-License-Identifier: Apache-2.0 */
/* Which error of RFC 9209 section 2.3 a response flag stands for, and the header that says so. */
#include "proxy/http/proxy_status.h"

#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/wkt.h"

#define HCM(name) Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__##name
#define HCM_ENUM(name) \
    ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__##name
#define NAME_CASE(name) HCM_ENUM(PROXY_STATUS_CONFIG__PROXY_NAME_##name)

typedef HCM(HttpConnectionManager__ProxyStatusConfig) config_message;

struct error_of_flag {
    uint8_t flag;
    uint16_t status; /* recommended; 0: none */
    const char *error;
};

/* Of several flags the first in this order decides. */
static const struct error_of_flag errors[] = {
    {KB_RF_FAILED_LOCAL_HEALTH_CHECK, 503, "destination_unavailable"},
    {KB_RF_NO_HEALTHY_UPSTREAM, 503, "destination_unavailable"},
    {KB_RF_UPSTREAM_REQUEST_TIMEOUT, 504, "http_response_timeout"},
    {KB_RF_DURATION_TIMEOUT, 504, "connection_timeout"},
    {KB_RF_LOCAL_RESET, 504, "connection_timeout"},
    {KB_RF_UPSTREAM_REMOTE_RESET, 502, "connection_terminated"},
    {KB_RF_UPSTREAM_CONNECTION_FAILURE, 502, "connection_refused"},
    {KB_RF_UNAUTHORIZED_EXTERNAL_SERVICE, 502, "connection_refused"},
    {KB_RF_UPSTREAM_CONNECTION_TERMINATION, 502, "connection_terminated"},
    {KB_RF_OVERLOAD_MANAGER_TERMINATED, 503, "connection_limit_reached"},
    {KB_RF_DROP_OVERLOAD, 503, "connection_limit_reached"},
    {KB_RF_FAULT_INJECTED, 0, "http_request_error"},
    {KB_RF_DOWNSTREAM_CONNECTION_TERMINATION, 502, "connection_terminated"},
    {KB_RF_DOWNSTREAM_REMOTE_RESET, 502, "connection_terminated"},
    {KB_RF_UPSTREAM_OVERFLOW, 503, "connection_limit_reached"},
    {KB_RF_NO_ROUTE_FOUND, 500, "destination_not_found"},
    {KB_RF_RATE_LIMITED, 503, "connection_limit_reached"},
    {KB_RF_RATE_LIMIT_SERVICE_ERROR, 503, "connection_limit_reached"},
    {KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED, 503, "destination_unavailable"},
    {KB_RF_STREAM_IDLE_TIMEOUT, 504, "http_response_timeout"},
    {KB_RF_INVALID_ENVOY_REQUEST_HEADERS, 0, "http_request_error"},
    {KB_RF_DOWNSTREAM_PROTOCOL_ERROR, 0, "http_request_error"},
    {KB_RF_UPSTREAM_MAX_STREAM_DURATION_REACHED, 504, "http_response_timeout"},
    {KB_RF_NO_FILTER_CONFIG_FOUND, 500, "proxy_configuration_error"},
    {KB_RF_UPSTREAM_PROTOCOL_ERROR, 502, "http_protocol_error"},
    {KB_RF_NO_CLUSTER_FOUND, 503, "destination_unavailable"},
    {KB_RF_DNS_RESOLUTION_FAILED, 502, "dns_error"},
};

const struct kb_proxy_status *kb_proxy_status_create(const config_message *message,
                                                     struct kb_str server_name,
                                                     struct kb_str node_id, struct kb_arena *arena)
{
    struct kb_proxy_status *config;

    if (message == NULL) {
        return NULL;
    }
    config = KB_ARENA_NEW(arena, struct kb_proxy_status);
    switch ((int)message->proxy_name_case) {
    case NAME_CASE(LITERAL_PROXY_NAME):
        config->name = kb_str_dup(arena, kb_wkt_str(message->literal_proxy_name));
        break;
    case NAME_CASE(USE_NODE_ID): /* true or false, as Envoy */
        config->name = kb_str_dup(arena, node_id);
        break;
    default:
        config->name = server_name;
    }
    config->with_details = !message->remove_details;
    config->with_response_flags = !message->remove_response_flags;
    config->set_recommended_response_code = message->set_recommended_response_code;
    return config;
}

static const struct error_of_flag *error_find(const struct kb_stream_info *info)
{
    for (size_t i = 0; info->flags != 0 && i < KB_ARRAY_LEN(errors); i++) {
        if (kb_stream_info_has_flag(info, (enum kb_response_flag)errors[i].flag)) {
            return &errors[i];
        }
    }
    return NULL;
}

/* Two bytes for each that needs it. */
static struct kb_str escaped(struct kb_str text, struct kb_arena *arena)
{
    static const char special[] = "\r\n\t\"";
    static const char letters[] = "rnt\"";
    char *out = kb_arena_alloc(arena, text.len * 2, 1);
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        const char *at = text.p[i] != '\0' ? strchr(special, text.p[i]) : NULL;

        if (at != NULL) {
            out[len++] = '\\';
        }
        out[len++] = at != NULL ? letters[at - special] : text.p[i];
    }
    return kb_str_make(out, len);
}

/* "NR,DI": in the order in which they were set. */
static struct kb_str flags_text(const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_str text = KB_STR("");

    for (uint8_t i = 0; i < info->flag_count; i++) {
        text = kb_str_printf(arena, "%.*s%s%s", KB_STR_ARG(text), i > 0 ? "," : "",
                             kb_response_flag_short((enum kb_response_flag)info->flag_order[i]));
    }
    return text;
}

static struct kb_str details_text(const struct kb_proxy_status *config,
                                  const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_str details = info->response_code_details;

    if (!config->with_details || details.p == NULL) {
        return KB_STR("");
    }
    if (config->with_response_flags) {
        struct kb_str flags = flags_text(info, arena);

        details = kb_str_printf(arena, "%.*s; %.*s", KB_STR_ARG(details), KB_STR_ARG(flags));
    }
    details = escaped(details, arena);
    return kb_str_printf(arena, "; details=\"%.*s\"", KB_STR_ARG(details));
}

void kb_proxy_status_apply(const struct kb_proxy_status *config, const struct kb_stream_info *info,
                           struct kb_header_map *headers)
{
    const struct error_of_flag *error = error_find(info);
    struct kb_str before = kb_header_map_value_id(headers, KB_HDR_PROXY_STATUS);
    struct kb_str details;

    if (error == NULL) {
        return;
    }
    details = details_text(config, info, headers->arena);
    kb_header_map_set_id(headers, KB_HDR_PROXY_STATUS,
                         kb_str_printf(headers->arena, "%.*s%s%.*s; error=%s%.*s",
                                       KB_STR_ARG(before), before.len > 0 ? ", " : "",
                                       KB_STR_ARG(config->name), error->error,
                                       KB_STR_ARG(details)));
    if (config->set_recommended_response_code && error->status != 0) {
        headers->status = error->status;
    }
}
