/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP side of a cluster: typed_extension_protocol_options with HttpProtocolOptions, or the
 * deprecated fields of the cluster itself. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb-c.h"
#include "proto/any.h"
#include "proxy/api/cluster_policies.h"
#include "proxy/http/h2_options.h"
#include "proxy/http/header_key_format.h"
#include "proxy/http/upstream_http_filters.h"
#include "proxy/matcher/match_build.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/config_read.h"

#define IDLE_TIMEOUT_DEFAULT_MS        3600000
#define RESPONSE_HEADERS_DEFAULT_KB    80
#define RESPONSE_HEADERS_HTTP2_KB      60
#define RESPONSE_HEADERS_DEFAULT_COUNT 100
#define KEEPALIVE_JITTER_PERCENT       15

#define HTTP_OPTIONS_NAME "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

/* The generated names of the oneofs are too long for a line. */
#define EXPLICIT(name) \
    ENVOY__EXTENSIONS__UPSTREAMS__HTTP__V3__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_##name
#define OPTIONS(name) \
    ENVOY__EXTENSIONS__UPSTREAMS__HTTP__V3__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_##name
#define FILTER(name) \
    ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_FILTER__CONFIG_TYPE_##name

typedef Envoy__Extensions__Upstreams__Http__V3__HttpProtocolOptions HttpOptions;

static void http1_read(const Envoy__Config__Core__V3__Http1ProtocolOptions *message,
                       struct kb_cluster *cluster, struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_header_key_format format;

    if (message == NULL) {
        return;
    }
    if (message->n_ignore_http_11_upgrade > 0) {
        kb_diag_push(diag, "ignore_http_11_upgrade");
        kb_diag_error(diag, "implemented for clients only: an upstream's answer to an upgrade "
                            "cannot be left out");
        kb_diag_pop(diag);
    }
    cluster->http1.enable_trailers = message->enable_trailers != 0;
    cluster->http1.allow_chunked_length = message->allow_chunked_length != 0;
    cluster->http1.send_fully_qualified_url = message->send_fully_qualified_url != 0;
    cluster->http1.override_stream_error =
        message->override_stream_error_on_invalid_http_message != NULL &&
        message->override_stream_error_on_invalid_http_message->value != 0;
    kb_header_key_format_read(message->header_key_format, &format, arena, diag);
    cluster->http1.proper_case_words = format.proper_case_words;
    cluster->http1.preserve_case = format.preserve_case;
    cluster->http1.proper_case_otherwise = format.proper_case_otherwise;
    cluster->http1.forward_reason_phrase = format.forward_reason_phrase;
}

static void common_read(const Envoy__Config__Core__V3__HttpProtocolOptions *message,
                        struct kb_cluster *cluster, struct kb_diag *diag)
{
    if (message == NULL) {
        return;
    }
    kb_diag_push(diag, "common_http_protocol_options");
    cluster->max_stream_duration_ms =
        kb_config_duration_ms(message->max_stream_duration, "max_stream_duration", 0, diag);
    cluster->idle_timeout_ms =
        kb_config_duration_ms(message->idle_timeout, "idle_timeout", IDLE_TIMEOUT_DEFAULT_MS, diag);
    cluster->max_connection_duration_ms =
        kb_config_duration_ms(message->max_connection_duration, "max_connection_duration", 0, diag);
    if (message->max_headers_count != NULL) {
        cluster->max_response_headers_count = message->max_headers_count->value;
    }
    if (message->max_response_headers_kb != NULL) {
        cluster->max_response_headers_bytes =
            KB_MIN(message->max_response_headers_kb->value, 8192) * 1024;
        cluster->http2.max_response_headers_bytes = cluster->max_response_headers_bytes;
    }
    if (message->max_requests_per_connection != NULL) {
        cluster->max_requests_per_connection = message->max_requests_per_connection->value;
    }
    kb_diag_pop(diag);
}

/* Where the configuration names no window: so much of an answer may come behind a reader that
 * stops. Envoy's 16 MiB would all be held then. */
#define KB_H2_UPSTREAM_WINDOW_BYTES (64u * 1024)

/* `message` may be NULL: defaults. */
static void http2_read(const Envoy__Config__Core__V3__Http2ProtocolOptions *message,
                       struct kb_cluster *cluster, struct kb_arena *arena, struct kb_diag *diag)
{
    const Envoy__Config__Core__V3__KeepaliveSettings *keepalive;
    struct kb_h2_options options;

    kb_h2_options_read(&options, message, arena, diag);
    cluster->http2.enabled = true;
    cluster->http2.hpack_table_bytes = options.hpack_table_bytes;
    cluster->http2.max_concurrent_streams = options.max_concurrent_streams;
    cluster->http2.stream_window_bytes =
        message != NULL && message->initial_stream_window_size != NULL
            ? options.stream_window_bytes
            : KB_H2_UPSTREAM_WINDOW_BYTES;
    cluster->http2.stream_window_grows =
        message == NULL || message->initial_stream_window_size == NULL;
    cluster->http2.connection_window_bytes = options.connection_window_bytes;
    cluster->http2.max_outbound_control_frames = options.max_outbound_control_frames;
    cluster->http2.max_empty_frames = options.guard.empty_frames;
    cluster->http2.max_priority_frames = options.guard.priority_per_stream;
    cluster->http2.max_window_updates = options.guard.window_updates_per_data;
    if (options.custom_count > 0) {
        size_t bytes = options.custom_count * sizeof(*options.custom);

        cluster->http2.custom_settings = memcpy(kb_malloc(bytes), options.custom, bytes);
        cluster->http2.custom_settings_count = options.custom_count;
    }
    cluster->http2.allow_metadata = options.allow_metadata;
    cluster->http2.max_metadata_bytes = options.max_metadata_bytes;
    cluster->http2.allow_connect = options.allow_connect;
    cluster->http2.override_stream_error = options.stream_error_on_invalid_message;
    keepalive = message != NULL ? message->connection_keepalive : NULL;
    if (keepalive == NULL) {
        return;
    }
    kb_diag_push(diag, "connection_keepalive");
    cluster->http2.keepalive_interval_ms =
        kb_config_duration_ms(keepalive->interval, "interval", 0, diag);
    cluster->http2.keepalive_timeout_ms =
        kb_config_duration_ms(keepalive->timeout, "timeout", 0, diag);
    cluster->http2.keepalive_idle_ms = kb_config_duration_ms(keepalive->connection_idle_interval,
                                                             "connection_idle_interval", 0, diag);
    cluster->http2.keepalive_jitter_percent = keepalive->interval_jitter != NULL
                                                  ? (uint32_t)keepalive->interval_jitter->value
                                                  : KEEPALIVE_JITTER_PERCENT;
    kb_diag_pop(diag);
}

static void http3_refuse(struct kb_diag *diag)
{
    kb_diag_push(diag, "http3_protocol_options");
    kb_diag_error_hint(diag, KB_STR("use explicit_http_config with http_protocol_options"),
                       "HTTP/3 to upstreams is not implemented");
    kb_diag_pop(diag);
}

static void explicit_read(
    const Envoy__Extensions__Upstreams__Http__V3__HttpProtocolOptions__ExplicitHttpConfig *config,
    struct kb_cluster *cluster, struct kb_arena *arena, struct kb_diag *diag)
{
    kb_diag_push(diag, "explicit_http_config");
    switch (config->protocol_config_case) {
    case EXPLICIT(HTTP_PROTOCOL_OPTIONS):
        kb_diag_push(diag, "http_protocol_options");
        http1_read(config->http_protocol_options, cluster, arena, diag);
        kb_diag_pop(diag);
        break;
    case EXPLICIT(HTTP2_PROTOCOL_OPTIONS):
        kb_diag_push(diag, "http2_protocol_options");
        http2_read(config->http2_protocol_options, cluster, arena, diag);
        cluster->http_protocol = KB_CLUSTER_HTTP2;
        kb_diag_pop(diag);
        break;
    case EXPLICIT(HTTP3_PROTOCOL_OPTIONS):
        http3_refuse(diag);
        break;
    case EXPLICIT(_NOT_SET):
    default:
        kb_diag_error(diag, "field: \"protocol_config\", reason: is required");
        break;
    }
    kb_diag_pop(diag);
}

static void
upstream_options_read(const Envoy__Config__Core__V3__UpstreamHttpProtocolOptions *message,
                      struct kb_cluster *cluster)
{
    if (message == NULL) {
        return;
    }
    cluster->auto_sni = message->auto_sni != 0;
    cluster->auto_san_validation = message->auto_san_validation != 0;
    if (message->override_auto_sni_header[0] != '\0') {
        char *name = kb_strdup(message->override_auto_sni_header);

        cluster->auto_sni_header = kb_str_from_cstr(name);
        for (char *c = name; *c != '\0'; c++) {
            *c = kb_ascii_lower(*c);
        }
    }
}

/* The chain of attempts has to end where the connection begins. */
static void filters_read(const HttpOptions *options, struct kb_cluster_policies *policies,
                         const struct kb_factory_context *factory, struct kb_diag *diag)
{
    size_t count = options->n_http_filters;
    struct kb_str type = KB_STR("");

    if (count > 0 && options->http_filters[count - 1]->config_type_case == FILTER(TYPED_CONFIG)) {
        type = kb_any_inner_name(options->http_filters[count - 1]->typed_config, factory->arena);
    }
    if (count > 0 &&
        !kb_str_eq(type, KB_STR("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"))) {
        kb_diag_push_index(diag, "http_filters", count - 1);
        kb_diag_error(diag, "The codec filter is the only valid terminal upstream HTTP filter, use "
                            "'envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec'");
        kb_diag_pop(diag);
        return;
    }
    policies->filters =
        kb_upstream_http_chain_create(options->http_filters, count, true, factory, diag);
}

/* What few clusters say. */
static void policies_read(const HttpOptions *options, struct kb_cluster *cluster,
                          const struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_factory_context inner = *factory;
    struct kb_cluster_policies *policies;

    if (options->n_http_filters == 0 && options->retry_policy == NULL) {
        return;
    }
    policies = kb_calloc(1, sizeof(*policies));
    kb_arena_init(&policies->arena, NULL);
    policies->regexes = kb_arena_calloc(&policies->arena, sizeof(*policies->regexes));
    cluster->policies = policies;
    inner.arena = &policies->arena;
    filters_read(options, policies, factory, diag);
    if (options->retry_policy != NULL) {
        kb_diag_push(diag, "retry_policy");
        policies->retry = kb_retry_policy_create(
            options->retry_policy,
            &(struct kb_match_build){&policies->arena, policies->regexes, diag}, &inner);
        kb_diag_pop(diag);
    }
}

static void options_read(const HttpOptions *options, struct kb_cluster *cluster,
                         const struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_arena *arena = factory->arena;

    common_read(options->common_http_protocol_options, cluster, diag);
    upstream_options_read(options->upstream_http_protocol_options, cluster);
    policies_read(options, cluster, factory, diag);
    switch (options->upstream_protocol_options_case) {
    case OPTIONS(EXPLICIT_HTTP_CONFIG):
        explicit_read(options->explicit_http_config, cluster, arena, diag);
        break;
    case OPTIONS(USE_DOWNSTREAM_PROTOCOL_CONFIG):
        cluster->http_protocol = KB_CLUSTER_HTTP_DOWNSTREAM;
        kb_diag_push(diag, "use_downstream_protocol_config");
        http1_read(options->use_downstream_protocol_config->http_protocol_options, cluster, arena,
                   diag);
        http2_read(options->use_downstream_protocol_config->http2_protocol_options, cluster, arena,
                   diag);
        kb_diag_pop(diag);
        break;
    case OPTIONS(AUTO_CONFIG):
        cluster->http_protocol = KB_CLUSTER_HTTP_ALPN;
        kb_diag_push(diag, "auto_config");
        http1_read(options->auto_config->http_protocol_options, cluster, arena, diag);
        http2_read(options->auto_config->http2_protocol_options, cluster, arena, diag);
        kb_diag_pop(diag);
        break;
    case OPTIONS(_NOT_SET):
    default:
        kb_diag_error(diag, "field: \"upstream_protocol_options\", reason: is required");
        break;
    }
}

/* The fields that HttpProtocolOptions replaced. */
static void deprecated_read(const Envoy__Config__Cluster__V3__Cluster *message,
                            struct kb_cluster *cluster, struct kb_arena *arena,
                            struct kb_diag *diag)
{
    bool downstream =
        message->protocol_selection ==
        ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_PROTOCOL_SELECTION__USE_DOWNSTREAM_PROTOCOL;

    common_read(message->common_http_protocol_options, cluster, diag);
    upstream_options_read(message->upstream_http_protocol_options, cluster);
    if (downstream) {
        cluster->http_protocol = KB_CLUSTER_HTTP_DOWNSTREAM;
        kb_diag_push(diag, "http2_protocol_options");
        http2_read(message->http2_protocol_options, cluster, arena, diag);
        kb_diag_pop(diag);
    }
    if (message->http2_protocol_options != NULL && message->http_protocol_options != NULL &&
        !downstream) {
        kb_diag_error(
            diag, "cluster: Both HTTP1 and HTTP2 options may only be configured with non-default "
                  "'protocol_selection' values");
    } else if (message->http2_protocol_options != NULL && !downstream) {
        kb_diag_push(diag, "http2_protocol_options");
        http2_read(message->http2_protocol_options, cluster, arena, diag);
        cluster->http_protocol = KB_CLUSTER_HTTP2;
        kb_diag_pop(diag);
    }
    kb_diag_push(diag, "http_protocol_options");
    http1_read(message->http_protocol_options, cluster, arena, diag);
    kb_diag_pop(diag);
}

static const HttpOptions *options_find(const Envoy__Config__Cluster__V3__Cluster *message,
                                       struct kb_arena *arena, struct kb_diag *diag, bool *failed)
{
    const HttpOptions *found = NULL;

    kb_diag_push(diag, "typed_extension_protocol_options");
    for (size_t i = 0; i < message->n_typed_extension_protocol_options; i++) {
        const Envoy__Config__Cluster__V3__Cluster__TypedExtensionProtocolOptionsEntry *entry =
            message->typed_extension_protocol_options[i];

        kb_diag_push_key(diag, kb_str_from_cstr(entry->key));
        if (!kb_str_eq(kb_str_from_cstr(entry->key), KB_STR(HTTP_OPTIONS_NAME))) {
            kb_diag_error(diag,
                          "Didn't find a registered network or http filter or protocol options "
                          "implementation for "
                          "name: '%s'",
                          entry->key);
        } else {
            found = KB_ANY_UNPACK(entry->value,
                                  envoy__extensions__upstreams__http__v3__http_protocol_options,
                                  HttpOptions, arena, diag);
            *failed = found == NULL;
        }
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
    return found;
}

void kb_cluster_http_read(const Envoy__Config__Cluster__V3__Cluster *message,
                          struct kb_cluster *cluster, const struct kb_factory_context *factory,
                          struct kb_diag *diag)
{
    struct kb_arena *arena = factory->arena;
    bool failed = false;
    const HttpOptions *options = options_find(message, arena, diag, &failed);

    cluster->idle_timeout_ms = IDLE_TIMEOUT_DEFAULT_MS;
    cluster->max_response_headers_bytes = RESPONSE_HEADERS_DEFAULT_KB * 1024;
    cluster->max_response_headers_count = RESPONSE_HEADERS_DEFAULT_COUNT;
    cluster->http2.max_response_headers_bytes = RESPONSE_HEADERS_HTTP2_KB * 1024;
    if (message->max_requests_per_connection != NULL) {
        cluster->max_requests_per_connection = message->max_requests_per_connection->value;
        if (options != NULL && options->common_http_protocol_options != NULL &&
            options->common_http_protocol_options->max_requests_per_connection != NULL) {
            kb_diag_error(diag, "Only one of max_requests_per_connection from Cluster or "
                                "HttpProtocolOptions can be "
                                "specified");
        }
    }
    if (options == NULL) {
        if (!failed) {
            deprecated_read(message, cluster, arena, diag);
        }
        return;
    }
    kb_diag_push(diag, "typed_extension_protocol_options");
    kb_diag_push_key(diag, KB_STR(HTTP_OPTIONS_NAME));
    options_read(options, cluster, factory, diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

void kb_cluster_http_dispose(struct kb_cluster *cluster)
{
    struct kb_cluster_policies *policies = (void *)(uintptr_t)cluster->policies;

    if (policies != NULL) {
        kb_upstream_http_chain_destroy(policies->filters);
        kb_regex_list_dispose(policies->regexes);
        kb_arena_dispose(&policies->arena);
        free(policies);
        cluster->policies = NULL;
    }
}

static bool offers_protocols(const struct kb_transport_socket_factory *factory)
{
    return factory->ops != NULL && factory->ops->alpn != NULL;
}

void kb_cluster_http_check(const struct kb_cluster *cluster, struct kb_diag *diag)
{
    bool able = offers_protocols(&cluster->transport_socket);

    for (uint32_t i = 0; i < cluster->socket_match_count; i++) {
        able = able && offers_protocols(&cluster->socket_matches[i].socket);
    }
    if (cluster->http_protocol == KB_CLUSTER_HTTP_ALPN && !able) {
        kb_diag_error(diag,
                      "ALPN configured for cluster %.*s which has a non-ALPN transport socket",
                      KB_STR_ARG(cluster->name));
    }
}
