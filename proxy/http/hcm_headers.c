/* SPDX-License-Identifier: Apache-2.0 */
/* Request and response headers at the edge of the proxy: hop-by-hop headers, x-forwarded-*,
 * x-envoy-*, x-request-id (Envoy ConnectionManagerUtility). */
#include <time.h>

#include "proxy/http/hcm_internal.h"
#include "proxy/http/proxy_status.h"

/* ---- hop-by-hop ---- */

/* Removes the headers that `connection` names, except those that mean something to the proxy
 * itself. */
static void nominated_remove(struct kb_header_map *map, struct kb_str connection)
{
    struct kb_str rest = connection;
    struct kb_str token;

    while (kb_str_next_token(&rest, ',', &token)) {
        char name[64];

        token = kb_str_trim(token);
        if (token.len == 0 || token.len > sizeof(name) || kb_str_ieq(token, KB_STR("close")) ||
            kb_str_ieq(token, KB_STR("keep-alive"))) {
            continue;
        }
        if (kb_str_ieq(token, KB_STR("te")) && kb_header_map_value_id(map, KB_HDR_TE).len > 0) {
            continue; /* te_sanitise keeps what may stay of it */
        }
        for (size_t i = 0; i < token.len; i++) {
            name[i] = kb_ascii_lower(token.p[i]);
        }
        kb_header_map_remove(map, kb_str_make(name, token.len));
    }
}

bool kb_connection_names(const struct kb_header_map *map, struct kb_str option)
{
    return kb_str_list_has(kb_header_map_value_id(map, KB_HDR_CONNECTION), option);
}

static void te_sanitise(struct kb_header_map *map)
{
    if (KB_LIKELY(kb_header_map_value_id(map, KB_HDR_TE).len == 0)) {
        return;
    }
    if (kb_str_list_has(kb_header_map_value_id(map, KB_HDR_TE), KB_STR("trailers"))) {
        kb_header_map_set_id(map, KB_HDR_TE, KB_STR("trailers"));
    } else {
        kb_header_map_remove_id(map, KB_HDR_TE);
    }
}

static void hop_by_hop_remove(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    struct kb_str connection = kb_header_map_value_id(map, KB_HDR_CONNECTION);

    if (!kb_header_map_asks_upgrade(map) ||
        kb_str_ieq(kb_header_map_value_id(map, KB_HDR_UPGRADE), KB_STR("h2c"))) {
        if (connection.p != NULL) {
            nominated_remove(map, connection);
            kb_header_map_remove_id(map, KB_HDR_CONNECTION);
        }
        kb_header_map_remove_id(map, KB_HDR_UPGRADE);
        if (KB_LIKELY(stream->hcm->h2 == NULL)) {
            kb_header_map_remove_id(map, KB_HDR_HTTP2_SETTINGS);
        }
        te_sanitise(map);
    }
    kb_header_map_remove_id(map, KB_HDR_X_ENVOY_INTERNAL);
    kb_header_map_remove_id(map, KB_HDR_KEEP_ALIVE);
    kb_header_map_remove_id(map, KB_HDR_PROXY_CONNECTION);
    kb_header_map_remove_id(map, KB_HDR_TRANSFER_ENCODING);
}

/* A Connection header that a mutation adds names nothing to remove: that was the client's to say.
 */
static KB_COLD void early_mutations_run(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    bool upgrade = kb_header_map_asks_upgrade(map) &&
                   !kb_str_ieq(kb_header_map_value_id(map, KB_HDR_UPGRADE), KB_STR("h2c"));

    if (!upgrade) {
        nominated_remove(map, kb_header_map_value_id(map, KB_HDR_CONNECTION));
        kb_header_map_remove_id(map, KB_HDR_CONNECTION);
    }
    kb_early_mutations_apply(stream->hcm->config->early_mutations, stream);
    if (!upgrade && !kb_header_map_asks_upgrade(map)) {
        kb_header_map_remove_id(map, KB_HDR_CONNECTION);
    }
}

/* ---- client address ---- */

static void xff_append(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    const struct kb_addr *peer = &stream->hcm->conn->info.remote;
    char *text = kb_arena_alloc(&stream->arena, KB_ADDR_TEXT_MAX, 1);
    struct kb_str address = kb_addr_ip_text(peer, text);
    struct kb_str before = kb_header_map_value_id(map, KB_HDR_X_FORWARDED_FOR);

    if (!kb_addr_is_ip(peer)) {
        return;
    }
    if (kb_addr_is_loopback(peer)) {
        address = stream->hcm->config->local_ip;
    }
    if (before.len > 0) {
        address =
            kb_str_printf(&stream->arena, "%.*s,%.*s", KB_STR_ARG(before), KB_STR_ARG(address));
    }
    kb_header_map_set_id(map, KB_HDR_X_FORWARDED_FOR, address);
}

static struct kb_str transport_scheme(const struct kb_stream *stream)
{
    return stream->hcm->conn->info.tls ? KB_STR("https") : KB_STR("http");
}

static void forwarded_port_set(struct kb_stream *stream)
{
    char *text = kb_arena_alloc(&stream->arena, 8, 1);
    size_t len = kb_u64_to_str(kb_addr_port(&stream->hcm->conn->info.local), text);

    kb_header_map_set_id(&stream->request, KB_HDR_X_FORWARDED_PORT, kb_str_make(text, len));
}

static KB_COLD bool original_ip_detect(struct kb_stream *stream, struct kb_addr *addr,
                                       bool *trusted, unsigned *reject_status)
{
    struct kb_original_ip_result result;

    kb_original_ip_detect(&stream->hcm->config->original_ip, &stream->request,
                          &stream->hcm->conn->info.remote, &result);
    *trusted = result.trusted;
    *reject_status = result.reject_status;
    if (result.append_xff) {
        xff_append(stream);
    }
    if (result.found) {
        *addr = result.addr;
    }
    return result.found;
}

/* Finds the client's address and completes x-forwarded-*. *single_xff as Envoy's
 * single_xff_address. */
static bool client_address(struct kb_stream *stream, bool *single_xff, unsigned *reject_status)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_header_map *map = &stream->request;
    struct kb_str xff = kb_header_map_value_id(map, KB_HDR_X_FORWARDED_FOR);
    bool untrusted = config->use_remote_address && config->xff_num_trusted_hops == 0;
    struct kb_addr addr;
    bool found = false;
    bool single = false;

    if (KB_UNLIKELY(config->original_ip.count > 0)) {
        found = original_ip_detect(stream, &addr, single_xff, reject_status);
    } else if (config->use_remote_address) {
        *single_xff = xff.p == NULL;
        if (config->xff_num_trusted_hops > 0) {
            found = kb_original_ip_xff(xff, config->xff_num_trusted_hops - 1, &addr, &single);
        }
        if (!found) {
            addr = stream->hcm->conn->info.remote;
            found = true;
        }
        if (!config->skip_xff_append) {
            xff_append(stream);
        }
    } else if (xff.p != NULL) {
        found = kb_original_ip_xff(xff, config->xff_num_trusted_hops, &addr, &single);
        *single_xff = single;
    }
    if (found) {
        stream->info.remote = addr;
    }
    if (untrusted || kb_header_map_get_id(map, KB_HDR_X_FORWARDED_PROTO) == NULL) {
        kb_header_map_set_id(map, KB_HDR_X_FORWARDED_PROTO, transport_scheme(stream));
    }
    if (config->append_x_forwarded_port &&
        (untrusted || kb_header_map_get_id(map, KB_HDR_X_FORWARDED_PORT) == NULL)) {
        forwarded_port_set(stream);
    }
    return found;
}

static bool address_internal(const struct kb_hcm_config *config, const struct kb_addr *addr)
{
    if (!kb_addr_is_ip(addr)) {
        return config->internal_unix_sockets;
    }
    for (size_t i = 0; i < config->internal_cidr_count; i++) {
        if (kb_cidr_contains(&config->internal_cidrs[i], addr)) {
            return true;
        }
    }
    return false;
}

static void external_headers_remove(struct kb_header_map *map, bool edge)
{
    static const uint16_t external[] = {
        KB_HDR_X_ENVOY_RETRIABLE_STATUS_CODES,
        KB_HDR_X_ENVOY_RETRIABLE_HEADER_NAMES,
        KB_HDR_X_ENVOY_RETRY_ON,
        KB_HDR_X_ENVOY_RETRY_GRPC_ON,
        KB_HDR_X_ENVOY_MAX_RETRIES,
        KB_HDR_X_ENVOY_UPSTREAM_ALT_STAT_NAME,
        KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
        KB_HDR_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
        KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
        KB_HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
        KB_HDR_X_ENVOY_FORCE_TRACE,
        KB_HDR_X_ENVOY_IP_TAGS,
        KB_HDR_X_ENVOY_ORIGINAL_URL,
        KB_HDR_X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
    };
    static const uint16_t at_edge[] = {
        KB_HDR_X_ENVOY_DECORATOR_OPERATION,     KB_HDR_X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
        KB_HDR_X_ENVOY_DOWNSTREAM_SERVICE_NODE, KB_HDR_X_ENVOY_ORIGINAL_PATH,
        KB_HDR_X_ENVOY_ORIGINAL_HOST,
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(external); i++) {
        kb_header_map_remove_id(map, external[i]);
    }
    for (size_t i = 0; edge && i < KB_ARRAY_LEN(at_edge); i++) {
        kb_header_map_remove_id(map, at_edge[i]);
    }
}

static KB_COLD void internal_only_remove(struct kb_stream *stream)
{
    const struct kb_route_config *config = kb_stream_route_table(stream);
    const struct kb_str *names;
    size_t count;

    if (config == NULL) {
        return;
    }
    names = kb_route_config_internal_only_headers(config, &count);
    for (size_t i = 0; i < count; i++) {
        kb_header_map_remove(&stream->request, names[i]);
    }
}

/* ---- identity ---- */

static void via_append(struct kb_header_map *map, struct kb_str via)
{
    struct kb_str before = kb_header_map_value_id(map, KB_HDR_VIA);

    if (via.len == 0) {
        return;
    }
    if (before.len > 0) {
        via = kb_str_printf(map->arena, "%.*s, %.*s", KB_STR_ARG(before), KB_STR_ARG(via));
    }
    kb_header_map_set_id(map, KB_HDR_VIA, via);
}

static void user_agent_add(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_header_map *map = &stream->request;

    if (KB_LIKELY(config->user_agent.len == 0)) {
        return;
    }
    kb_header_map_set_id(map, KB_HDR_X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, config->user_agent);
    if (kb_header_map_value_id(map, KB_HDR_USER_AGENT).len == 0) {
        kb_header_map_set_id(map, KB_HDR_USER_AGENT, config->user_agent);
    }
    if (config->server->node_id.len > 0) {
        kb_header_map_set_id(map, KB_HDR_X_ENVOY_DOWNSTREAM_SERVICE_NODE, config->server->node_id);
    }
}

static void request_id_set(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_header_map *map = &stream->request;
    struct kb_header *header = kb_header_map_get_id(map, KB_HDR_X_REQUEST_ID);

    if (config->generate_request_id &&
        (header == NULL || header->value.len == 0 ||
         (stream->edge_request && !config->preserve_external_request_id))) {
        char *uuid = kb_arena_alloc(&stream->arena, 36, 1);

        kb_rand_uuid4(&stream->hcm->worker->rand, uuid);
        kb_header_map_set_id(map, KB_HDR_X_REQUEST_ID, kb_str_make(uuid, 36));
    }
    if (header != NULL && stream->edge_request && config->preserve_external_request_id) {
        /* Kept, but not what its sender decided on tracing. */
        kb_hcm_request_id_mark(stream, '4');
    }
    stream->info.request_id = kb_header_map_value_id(map, KB_HDR_X_REQUEST_ID);
}

/* In lower case; p NULL for what only HTTP/2 can bring. */
static struct kb_str known_scheme(struct kb_str scheme)
{
    if (kb_str_ieq(scheme, KB_STR("http"))) {
        return KB_STR("http");
    }
    return kb_str_ieq(scheme, KB_STR("https")) ? KB_STR("https") : KB_STR_NULL;
}

static void scheme_set(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_header_map *map = &stream->request;
    struct kb_str proto = kb_header_map_value_id(map, KB_HDR_X_FORWARDED_PROTO);

    if (config->scheme_to_overwrite.len > 0) {
        map->scheme = config->scheme_to_overwrite;
        kb_header_map_set_id(map, KB_HDR_X_FORWARDED_PROTO, config->scheme_to_overwrite);
        return;
    }
    if (KB_UNLIKELY(map->scheme.p != NULL)) {
        map->scheme = known_scheme(map->scheme);
    }
    if (map->scheme.p == NULL) {
        if (kb_str_ieq(proto, KB_STR("http"))) {
            map->scheme = KB_STR("http");
        } else if (kb_str_ieq(proto, KB_STR("https"))) {
            map->scheme = KB_STR("https");
        } else {
            map->scheme = transport_scheme(stream);
        }
    }
}

unsigned kb_hcm_mutate_request(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_header_map *map = &stream->request;
    bool single_xff = false;
    unsigned reject_status = 0;
    bool found;

    if (KB_UNLIKELY(config->early_mutations != NULL)) {
        early_mutations_run(stream);
    }
    hop_by_hop_remove(stream);
    found = client_address(stream, &single_xff, &reject_status);
    if (KB_UNLIKELY(reject_status != 0)) {
        return reject_status;
    }
    scheme_set(stream);
    stream->info.internal = single_xff && found && address_internal(config, &stream->info.remote);
    stream->edge_request = !stream->info.internal && config->use_remote_address;
    if (stream->info.internal) {
        kb_header_map_set_id(map, KB_HDR_X_ENVOY_INTERNAL, KB_STR("true"));
    } else {
        external_headers_remove(map, stream->edge_request);
        if (KB_UNLIKELY(config->internal_only_headers)) {
            internal_only_remove(stream);
        }
    }
    user_agent_add(stream);
    via_append(map, config->via);
    if (stream->edge_request && kb_addr_is_ip(&stream->info.remote)) {
        char *text = kb_arena_alloc(&stream->arena, KB_ADDR_TEXT_MAX, 1);

        kb_header_map_set_id(map, KB_HDR_X_ENVOY_EXTERNAL_ADDRESS,
                             kb_addr_ip_text(&stream->info.remote, text));
    }
    request_id_set(stream);
    kb_hcm_client_cert_forward(stream);
    return 0;
}

/* ---- responses ---- */

void kb_hcm_mutate_1xx(struct kb_stream *stream, struct kb_header_map *headers)
{
    const struct kb_header_map *request = &stream->request;
    const struct kb_hcm_config *config = stream->hcm->config;

    if (!stream->upgraded || stream->connect_request) {
        kb_header_map_remove_id(headers, KB_HDR_CONNECTION);
        kb_header_map_remove_id(headers, KB_HDR_UPGRADE);
    }
    kb_header_map_remove_id(headers, KB_HDR_TRANSFER_ENCODING);
    if (KB_UNLIKELY(config->always_set_request_id_in_response ||
                    kb_header_map_get_id(request, KB_HDR_X_ENVOY_FORCE_TRACE) != NULL)) {
        const struct kb_header *id = kb_header_map_get_id(request, KB_HDR_X_REQUEST_ID);

        if (id != NULL) {
            kb_header_map_set_id(headers, KB_HDR_X_REQUEST_ID, id->value);
        }
    }
    kb_header_map_remove_id(headers, KB_HDR_PROXY_CONNECTION);
}

void kb_hcm_mutate_response(struct kb_stream *stream, struct kb_header_map *headers)
{
    const struct kb_hcm_config *config = stream->hcm->config;

    kb_hcm_mutate_1xx(stream, headers);
    via_append(headers, config->via);
    if (KB_UNLIKELY(config->proxy_status != NULL)) {
        kb_proxy_status_apply(config->proxy_status, &stream->info, headers);
        stream->info.response_code = headers->status;
    }
}

struct kb_str kb_http_date(struct kb_worker *worker)
{
    struct kb_http_worker *http = kb_http_worker_get(worker);
    uint64_t second = kb_loop_wall_ns(&worker->loop) / 1000000000;

    if (KB_UNLIKELY(second != http->date_second)) {
        time_t t = (time_t)second;
        struct tm tm;

        gmtime_r(&t, &tm);
        http->date_len = strftime(http->date, sizeof(http->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        http->date_second = second;
    }
    return kb_str_make(http->date, http->date_len);
}
