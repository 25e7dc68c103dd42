/* SPDX-License-Identifier: Apache-2.0 */
/* From envoy.config.core.v3.HealthCheck to what sessions need. */
#include <string.h>

#include "proxy/upstream/config_read.h"
#include "proxy/upstream/health_checker_internal.h"

#define NO_TRAFFIC_INTERVAL_DEFAULT_MS 60000

typedef Envoy__Config__Core__V3__HealthCheck HealthCheck;
typedef Envoy__Config__Core__V3__HealthCheck__HttpHealthCheck HttpHealthCheck;
typedef Envoy__Config__Core__V3__HealthCheck__TcpHealthCheck TcpHealthCheck;
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

/* RequestMethod of the API, by number. */
static struct kb_str method_name(int method)
{
    static const char *const names[] = {"GET",    "GET",     "HEAD",    "POST",  "PUT",
                                        "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

    return kb_str_from_cstr((size_t)method < KB_ARRAY_LEN(names) ? names[method] : names[0]);
}

static void http_read(const HttpHealthCheck *message, const char *cluster_name,
                      struct kb_health_config *config, struct kb_diag *diag)
{
    static const struct kb_health_range ok = {200, 201};
    struct kb_match_build build = {&config->arena, &config->regexes, diag};

    kb_diag_push(diag, "http_health_check");
    config->kind = KB_HEALTH_HTTP;
    config->http.host = kb_str_dup(
        &config->arena, kb_str_from_cstr(message->host[0] != '\0' ? message->host : cluster_name));
    config->http.path = kb_str_dup(&config->arena, kb_str_from_cstr(message->path));
    config->http.method = method_name((int)message->method);
    ranges_read(message->expected_statuses, message->n_expected_statuses, "expected",
                &config->http.expected, &config->arena, diag);
    ranges_read(message->retriable_statuses, message->n_retriable_statuses, "retriable",
                &config->http.retriable, &config->arena, diag);
    if (message->n_expected_statuses == 0) {
        config->http.expected = (struct kb_health_ranges){&ok, 1};
    }
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

static void tcp_read(const TcpHealthCheck *message, struct kb_health_config *config,
                     struct kb_diag *diag)
{
    struct kb_str *receive =
        kb_arena_calloc(&config->arena, (message->n_receive + 1) * sizeof(*receive));

    kb_diag_push(diag, "tcp_health_check");
    config->kind = KB_HEALTH_TCP;
    if (message->send != NULL) {
        config->tcp.send = payload_read(message->send, &config->arena, diag);
    }
    for (size_t i = 0; i < message->n_receive; i++) {
        kb_diag_push_index(diag, "receive", i);
        receive[i] = payload_read(message->receive[i], &config->arena, diag);
        kb_diag_pop(diag);
    }
    config->tcp.receive = receive;
    config->tcp.receive_count = message->n_receive;
    kb_diag_pop(diag);
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

void kb_health_config_read(const HealthCheck *message, const char *cluster_name,
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
    if (message->health_checker_case ==
        ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_HTTP_HEALTH_CHECK) {
        http_read(message->http_health_check, cluster_name, config, diag);
    } else {
        tcp_read(message->tcp_health_check, config, diag);
    }
}

bool kb_health_config_known(const HealthCheck *message)
{
    if (message->health_checker_case ==
        ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_HTTP_HEALTH_CHECK) {
        return (int)message->http_health_check->codec_client_type ==
               ENVOY__TYPE__V3__CODEC_CLIENT_TYPE__HTTP1;
    }
    return message->health_checker_case ==
           ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_TCP_HEALTH_CHECK;
}

void kb_health_config_dispose(struct kb_health_config *config)
{
    kb_regex_list_dispose(&config->regexes);
    kb_arena_dispose(&config->arena);
}
