/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of health checks, and what answers to them say, whatever version of HTTP they are
 * spoken in. */
#include <string.h>

#include "proxy/api/runtime.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/health_checker_internal.h"

void kb_health_request_init(struct kb_health_session *session, struct kb_header_map *request)
{
    kb_arena_dispose(&session->probe.arena);
    kb_buf_consume(&session->probe.body, session->probe.body.len);
    kb_header_map_init(request, &session->probe.arena);
}

struct kb_str kb_health_request_host(const struct kb_health_session *session)
{
    const struct kb_host_check *check = session->host->check;

    return check != NULL && check->hostname.len > 0 ? check->hostname
                                                    : session->checker->config.host;
}

static enum kb_protocol protocol_of(const struct kb_health_config *config)
{
    return config->kind == KB_HEALTH_HTTP1 ? KB_PROTOCOL_HTTP11 : KB_PROTOCOL_HTTP2;
}

void kb_health_request_headers(struct kb_health_session *session, struct kb_header_map *request)
{
    const struct kb_health_config *config = &session->checker->config;
    struct kb_loop *loop = &session->checker->server->main->loop;
    struct kb_formatter_input input;
    struct kb_stream_info info;

    if (config->headers == NULL) {
        return;
    }
    memset(&input, 0, sizeof(input));
    input.request = request;
    memset(&info, 0, sizeof(info));
    info.worker = session->checker->server->main;
    info.start_ns = kb_loop_now_ns(loop);
    info.wall_start_ns = kb_loop_wall_ns(loop);
    info.protocol = protocol_of(config);
    info.upstream.host = session->host;
    kb_header_mutations_apply(config->headers, request, &input, &info);
}

void kb_health_http_request(struct kb_health_session *session, struct kb_header_map *request)
{
    const struct kb_health_config *config = &session->checker->config;
    bool secure = kb_transport_socket_factory_secure(kb_host_transport_socket(session->host));

    kb_health_request_init(session, request);
    memcpy(request->pseudo_order, "maps", sizeof(request->pseudo_order));
    request->method = config->http.method;
    request->path = config->http.path;
    request->authority = kb_health_request_host(session);
    request->scheme = secure ? KB_STR("https") : KB_STR("http");
    kb_header_map_add_id(request, KB_HDR_USER_AGENT, KB_STR("Envoy/HC"));
    kb_health_request_headers(session, request);
    if (config->send.len > 0) {
        kb_header_map_set_id(request, KB_HDR_CONTENT_LENGTH,
                             kb_str_printf(request->arena, "%zu", config->send.len));
    }
}

void kb_health_http_body(struct kb_health_session *session, const char *bytes, size_t len)
{
    const struct kb_health_config *config = &session->checker->config;
    struct kb_buf *body = &session->probe.body;

    if (config->receive->count > 0 && body->len < config->http.body_bytes_max) {
        kb_buf_append(body, bytes, KB_MIN(len, config->http.body_bytes_max - body->len));
    }
}

bool kb_health_payloads_match(const struct kb_health_payloads *payloads, struct kb_str bytes)
{
    for (size_t i = 0; i < payloads->count; i++) {
        struct kb_str block = payloads->items[i];
        const char *at = block.len == 0 ? bytes.p : memmem(bytes.p, bytes.len, block.p, block.len);

        if (at == NULL && block.len > 0) {
            return false;
        }
        bytes = kb_str_from(bytes, block.len == 0 ? 0 : (size_t)(at - bytes.p) + block.len);
    }
    return true;
}

static bool in_ranges(const struct kb_health_ranges *ranges, unsigned status)
{
    for (size_t i = 0; i < ranges->count; i++) {
        if (status >= ranges->items[i].start && status < ranges->items[i].end) {
            return true;
        }
    }
    return false;
}

static bool body_matches(struct kb_health_session *session)
{
    const struct kb_health_payloads *receive = session->checker->config.receive;
    struct kb_buf *body = &session->probe.body;

    return receive->count == 0 ||
           (body->len > 0 && kb_health_payloads_match(receive, kb_buf_pullup(body, body->len)));
}

static bool name_matches(struct kb_health_session *session, const struct kb_header_map *response)
{
    const struct kb_string_matcher *matcher = session->checker->config.http.service_name;
    struct kb_str name;

    if (matcher == NULL ||
        !kb_runtime_feature_enabled(session->checker->server->runtime,
                                    KB_STR("health_check.verify_cluster"), 100, 100,
                                    kb_rand_u64(&session->checker->server->main->rand))) {
        return true;
    }
    name = kb_header_map_value_id(response, KB_HDR_X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER);
    kb_stat_inc(session->checker->stats, KB_STAT_HEALTH_CHECK_VERIFY_CLUSTER);
    return kb_string_matcher_match(matcher, name.p == NULL ? KB_STR("") : name);
}

enum kb_health_result kb_health_http_judge(struct kb_health_session *session,
                                           const struct kb_header_map *response)
{
    const struct kb_health_config *config = &session->checker->config;

    session->probe.status = response->status;
    if (!in_ranges(&config->http.expected, response->status)) {
        if (kb_header_map_get_id(response, KB_HDR_X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL) != NULL) {
            session->flags |= KB_HOST_EXCLUDED_IMMEDIATE_HC;
        }
        return in_ranges(&config->http.retriable, response->status) ? KB_HEALTH_RETRIABLE
                                                                    : KB_HEALTH_FAILED;
    }
    if (!body_matches(session) || !name_matches(session, response)) {
        return KB_HEALTH_FAILED;
    }
    return kb_header_map_get_id(response, KB_HDR_X_ENVOY_DEGRADED) != NULL ? KB_HEALTH_DEGRADED
                                                                           : KB_HEALTH_OK;
}
