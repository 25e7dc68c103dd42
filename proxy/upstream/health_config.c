/* SPDX-License-Identifier: Apache-2.0 */
/* From envoy.config.core.v3.HealthCheck to what sessions need. */
#include <string.h>

#include "proxy/upstream/config_read.h"
#include "proxy/upstream/health_checker_internal.h"
#include "proxy/upstream/socket_match.h"

#define NO_TRAFFIC_INTERVAL_DEFAULT_MS 60000
#define BODY_BYTES_DEFAULT             1024
#define BODY_BYTES_MAX                 (1024 * 1024) /* also of what has no limit */

typedef Envoy__Config__Core__V3__HealthCheck HealthCheck;
typedef Envoy__Config__Core__V3__HealthCheck__HttpHealthCheck HttpHealthCheck;
typedef Envoy__Config__Core__V3__HealthCheck__TcpHealthCheck TcpHealthCheck;
typedef Envoy__Config__Core__V3__HealthCheck__GrpcHealthCheck GrpcHealthCheck;
typedef Envoy__Config__Core__V3__HealthCheck__Payload Payload;

static void ranges_read(Envoy__Type__V3__Int64Range *const *messages, size_t count,
                        const char *kind, struct kb_health_ranges *ranges, struct kb_arena *arena,
                        struct kb_diag *diag)
{
    struct kb_health_range *items = kb_arena_calloc(arena, (count + 1) * sizeof(*items));

    for (size_t i = 0; i < count; i++) {
        long long start = messages[i]->start, end = messages[i]->end;

        items[i].start = start;
        items[i].end = end;
        if (start >= end) {
            kb_diag_error(diag,
                          "Invalid http %s status range: expecting start < end, but found "
                          "start=%lld and end=%lld",
                          kind, start, end);
        } else if (start < 100) {
            kb_diag_error(diag,
                          "Invalid http %s status range: expecting start >= 100, but found "
                          "start=%lld",
                          kind, start);
        } else if (end > 600) {
            kb_diag_error(diag,
                          "Invalid http %s status range: expecting end <= 600, but found end=%lld",
                          kind, end);
        }
    }
    ranges->items = items;
    ranges->count = count;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = kb_ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes of a payload; text is hexadecimal. */
static struct kb_str payload_read(const Payload *payload, struct kb_arena *arena,
                                  struct kb_diag *diag)
{
    struct kb_str text;
    char *bytes;

    if (payload->payload_case != ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__PAYLOAD__PAYLOAD_TEXT) {
        return kb_str_dup(arena,
                          kb_str_make((const char *)payload->binary.data, payload->binary.len));
    }
    text = kb_str_from_cstr(payload->text);
    bytes = kb_arena_alloc(arena, text.len / 2 + 1, 1);
    for (size_t i = 0; i + 1 < text.len; i += 2) {
        int high = hex_value(text.p[i]), low = hex_value(text.p[i + 1]);

        if (high < 0 || low < 0) {
            text.len = 1;
            break;
        }
        bytes[i / 2] = (char)(high * 16 + low);
    }
    if (text.len % 2 != 0) {
        kb_diag_error(diag, "invalid hex string '%s'", payload->text);
        return KB_STR("");
    }
    return kb_str_make(bytes, text.len / 2);
}

static const struct kb_health_payloads *payloads_read(Payload *const *messages, size_t count,
                                                      struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_health_payloads *payloads = KB_ARENA_NEW(arena, struct kb_health_payloads);
    struct kb_str *items = kb_arena_calloc(arena, (count + 1) * sizeof(*items));

    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(diag, "receive", i);
        items[i] = payload_read(messages[i], arena, diag);
        kb_diag_pop(diag);
    }
    payloads->items = items;
    payloads->count = count;
    return payloads;
}

/* RequestMethod of the API, by number. */
static struct kb_str method_name(int method)
{
    static const char *const names[] = {"GET",    "GET",     "HEAD",    "POST",  "PUT",
                                        "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

    return kb_str_from_cstr((size_t)method < KB_ARRAY_LEN(names) ? names[method] : names[0]);
}

static void http_body_read(const HttpHealthCheck *message, struct kb_health_config *config,
                           struct kb_diag *diag)
{
    static const char *const with_body[] = {"POST", "PUT", "PATCH", "OPTIONS"};
    bool able = false;

    config->http.body_bytes_max = message->response_buffer_size != NULL
                                      ? (size_t)message->response_buffer_size->value
                                      : BODY_BYTES_DEFAULT;
    if (config->http.body_bytes_max == 0 || config->http.body_bytes_max > BODY_BYTES_MAX) {
        config->http.body_bytes_max = BODY_BYTES_MAX;
    }
    config->receive = payloads_read(message->receive, message->n_receive, &config->arena, diag);
    if (message->send == NULL) {
        return;
    }
    kb_diag_push(diag, "send");
    config->send = payload_read(message->send, &config->arena, diag);
    for (size_t i = 0; i < KB_ARRAY_LEN(with_body); i++) {
        able = able || kb_str_eq(config->http.method, kb_str_from_cstr(with_body[i]));
    }
    if (!able) {
        kb_diag_error(diag,
                      "HTTP health check cannot specify a request payload with method '%.*s'. Only "
                      "methods that support a request body (POST, PUT, PATCH, OPTIONS) can be used "
                      "with payload.",
                      KB_STR_ARG(config->http.method));
    }
    kb_diag_pop(diag);
}

static void host_read(const char *host, const struct kb_cluster *cluster,
                      struct kb_health_config *config)
{
    config->host =
        kb_str_dup(&config->arena, host[0] != '\0' ? kb_str_from_cstr(host) : cluster->name);
}

static void http_read(const HttpHealthCheck *message, const struct kb_cluster *cluster,
                      struct kb_health_config *config, struct kb_diag *diag)
{
    static const struct kb_health_range ok = {200, 201};
    struct kb_match_build build = {&config->arena, &config->regexes, diag};
    bool failed = false; /* reported */

    kb_diag_push(diag, "http_health_check");
    config->kind = (int)message->codec_client_type == ENVOY__TYPE__V3__CODEC_CLIENT_TYPE__HTTP2
                       ? KB_HEALTH_HTTP2
                       : KB_HEALTH_HTTP1;
    if ((int)message->codec_client_type == ENVOY__TYPE__V3__CODEC_CLIENT_TYPE__HTTP3) {
        kb_diag_push(diag, "codec_client_type");
        kb_diag_error(diag, "HTTP3 is not implemented: checks speak HTTP1 or HTTP2");
        kb_diag_pop(diag);
    }
    host_read(message->host, cluster, config);
    config->headers = kb_header_mutations_create(
        message->request_headers_to_add, message->n_request_headers_to_add,
        message->request_headers_to_remove, message->n_request_headers_to_remove, "request", &build,
        &failed);
    config->http.path = kb_str_dup(&config->arena, kb_str_from_cstr(message->path));
    config->http.method = method_name((int)message->method);
    ranges_read(message->expected_statuses, message->n_expected_statuses, "expected",
                &config->http.expected, &config->arena, diag);
    ranges_read(message->retriable_statuses, message->n_retriable_statuses, "retriable",
                &config->http.retriable, &config->arena, diag);
    if (message->n_expected_statuses == 0) {
        config->http.expected = (struct kb_health_ranges){&ok, 1};
    }
    http_body_read(message, config, diag);
    if (message->service_name_matcher != NULL) {
        config->http.service_name = KB_ARENA_NEW(&config->arena, struct kb_string_matcher);
        kb_diag_push(diag, "service_name_matcher");
        if (kb_string_matcher_init(config->http.service_name, message->service_name_matcher,
                                   &build) != 0) {
            config->http.service_name = NULL; /* reported */
        }
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
}

static void tcp_read(const TcpHealthCheck *message, struct kb_health_config *config,
                     struct kb_diag *diag)
{
    kb_diag_push(diag, "tcp_health_check");
    config->kind = KB_HEALTH_TCP;
    if (message->send != NULL) {
        config->send = payload_read(message->send, &config->arena, diag);
    }
    config->receive = payloads_read(message->receive, message->n_receive, &config->arena, diag);
    kb_diag_pop(diag);
}

/* A HealthCheckRequest, framed. */
static struct kb_str grpc_request(const char *service, struct kb_arena *arena)
{
    struct kb_str name = kb_str_from_cstr(service);
    size_t room = KB_GRPC_FRAME_HEADER_BYTES + 1 + 10 + name.len, len = KB_GRPC_FRAME_HEADER_BYTES;
    unsigned char *bytes = kb_arena_calloc(arena, room);
    size_t message;

    if (name.len > 0) {
        bytes[len++] = 1 << 3 | 2; /* service, a string */
        for (size_t left = name.len; left > 0; left >>= 7) {
            bytes[len++] = (unsigned char)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
        }
        memcpy(bytes + len, name.p, name.len);
        len += name.len;
    }
    message = len - KB_GRPC_FRAME_HEADER_BYTES;
    for (unsigned i = 0; i < 4; i++) {
        bytes[1 + i] = (unsigned char)(message >> (24 - 8 * i));
    }
    return kb_str_make((const char *)bytes, len);
}

static void grpc_read(const GrpcHealthCheck *message, const struct kb_cluster *cluster,
                      struct kb_health_config *config, struct kb_diag *diag)
{
    struct kb_match_build build = {&config->arena, &config->regexes, diag};
    bool failed = false; /* reported */

    kb_diag_push(diag, "grpc_health_check");
    config->kind = KB_HEALTH_GRPC;
    host_read(message->authority, cluster, config);
    config->send = grpc_request(message->service_name, &config->arena);
    config->receive = payloads_read(NULL, 0, &config->arena, diag);
    config->headers = kb_header_mutations_create(
        message->initial_metadata, message->n_initial_metadata, NULL, 0, "", &build, &failed);
    if (!cluster->http2.enabled) {
        kb_diag_error(diag, "%.*s cluster must support HTTP/2 for gRPC healthchecking",
                      KB_STR_ARG(cluster->name));
    }
    kb_diag_pop(diag);
}

static void tls_read(const Envoy__Config__Core__V3__HealthCheck__TlsOptions *message,
                     struct kb_health_config *config)
{
    size_t count = message == NULL ? 0 : message->n_alpn_protocols;
    struct kb_str *alpn = kb_arena_calloc(&config->arena, (count + 1) * sizeof(*alpn));

    for (size_t i = 0; i < count; i++) {
        alpn[i] = kb_str_dup(&config->arena, kb_str_from_cstr(message->alpn_protocols[i]));
    }
    config->alpn = alpn;
    config->alpn_count = count;
}

static void socket_read(const Google__Protobuf__Struct *criteria, const struct kb_cluster *cluster,
                        struct kb_health_config *config)
{
    if (criteria == NULL) {
        return;
    }
    config->socket_number = kb_socket_match_find_for(cluster, criteria, &config->arena);
    config->socket = config->socket_number == 0
                         ? &cluster->transport_socket
                         : &cluster->socket_matches[config->socket_number - 1].socket;
}

static void durations_read(const HealthCheck *m, struct kb_health_config *config,
                           struct kb_diag *diag)
{
    config->timeout_ms = kb_config_duration_ms(m->timeout, "timeout", 0, diag);
    config->interval_ms = kb_config_duration_ms(m->interval, "interval", 0, diag);
    config->no_traffic_interval_ms = kb_config_duration_ms(
        m->no_traffic_interval, "no_traffic_interval", NO_TRAFFIC_INTERVAL_DEFAULT_MS, diag);
    config->no_traffic_healthy_interval_ms =
        kb_config_duration_ms(m->no_traffic_healthy_interval, "no_traffic_healthy_interval",
                              config->no_traffic_interval_ms, diag);
    config->unhealthy_interval_ms = kb_config_duration_ms(
        m->unhealthy_interval, "unhealthy_interval", config->interval_ms, diag);
    config->unhealthy_edge_interval_ms = kb_config_duration_ms(
        m->unhealthy_edge_interval, "unhealthy_edge_interval", config->unhealthy_interval_ms, diag);
    config->healthy_edge_interval_ms = kb_config_duration_ms(
        m->healthy_edge_interval, "healthy_edge_interval", config->interval_ms, diag);
    config->initial_jitter_ms = kb_config_duration_ms(m->initial_jitter, "initial_jitter", 0, diag);
    config->interval_jitter_ms =
        kb_config_duration_ms(m->interval_jitter, "interval_jitter", 0, diag);
}

void kb_health_config_read(const HealthCheck *message, const struct kb_cluster *cluster,
                           struct kb_health_config *config, struct kb_diag *diag)
{
    memset(config, 0, sizeof(*config));
    kb_arena_init(&config->arena, NULL);
    durations_read(message, config, diag);
    config->interval_jitter_percent = message->interval_jitter_percent;
    config->unhealthy_threshold =
        message->unhealthy_threshold == NULL ? 1 : message->unhealthy_threshold->value;
    config->healthy_threshold =
        message->healthy_threshold == NULL ? 1 : message->healthy_threshold->value;
    config->reuse_connection =
        message->reuse_connection == NULL || message->reuse_connection->value != 0;
    config->log_failures = message->always_log_health_check_failures != 0;
    config->log_successes = message->always_log_health_check_success != 0;
    tls_read(message->tls_options, config);
    socket_read(message->transport_socket_match_criteria, cluster, config);
    switch (message->health_checker_case) {
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_HTTP_HEALTH_CHECK:
        http_read(message->http_health_check, cluster, config, diag);
        break;
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_GRPC_HEALTH_CHECK:
        grpc_read(message->grpc_health_check, cluster, config, diag);
        break;
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_TCP_HEALTH_CHECK:
        tcp_read(message->tcp_health_check, config, diag);
        break;
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_CUSTOM_HEALTH_CHECK:
        kb_diag_push(diag, "custom_health_check");
        kb_diag_error(diag,
                      "the health checker '%s' is not implemented; there are http_health_check, "
                      "tcp_health_check and grpc_health_check",
                      message->custom_health_check->name);
        kb_diag_pop(diag);
        break;
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER__NOT_SET:
    default:
        kb_diag_error(diag, "a health check needs one of http_health_check, tcp_health_check and "
                            "grpc_health_check");
        break;
    }
}

void kb_health_config_dispose(struct kb_health_config *config)
{
    kb_regex_list_dispose(&config->regexes);
    kb_arena_dispose(&config->arena);
}
