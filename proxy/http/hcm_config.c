/* SPDX-License-Identifier: Apache-2.0 */
/* HttpConnectionManager message to the configuration that connections use. */
#include <ifaddrs.h>
#include <stdlib.h>

#include "base/mem.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/api/extension.h"
#include "proxy/api/local_reply.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/header_key_format.h"
#include "proxy/http/http_filter_chain.h"
#include "proxy/http/proxy_status.h"
#include "proxy/http/scoped_routes.h"
#include "proxy/matcher/string_match.h"
#include "proxy/stats/stat_store.h"

#define HCM(name) Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__##name
#define HCM_ENUM(name) \
    ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__##name

typedef HCM(HttpConnectionManager) hcm_message; /* the generated name does not fit a line */

#define HEADERS_KB_DEFAULT       60
#define HEADERS_COUNT_DEFAULT    100
#define IDLE_TIMEOUT_DEFAULT_MS  3600000
#define STREAM_IDLE_DEFAULT_MS   300000
#define DRAIN_DEFAULT_MS         5000
#define DELAYED_CLOSE_DEFAULT_MS 1000

/* Envoy writes its own address where a loopback peer's would stand: the first IPv4 address that is
 * not loopback. */
static struct kb_str local_ip_find(struct kb_arena *arena)
{
    struct ifaddrs *list = NULL;
    char text[KB_ADDR_TEXT_MAX];
    struct kb_str found = KB_STR("127.0.0.1");

    if (getifaddrs(&list) != 0) {
        return found;
    }
    for (struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        struct kb_addr addr;

        if (at->ifa_addr == NULL || at->ifa_addr->sa_family != AF_INET) {
            continue;
        }
        kb_addr_from_sockaddr(&addr, at->ifa_addr, sizeof(struct sockaddr_in));
        if (!kb_addr_is_loopback(&addr)) {
            found = kb_str_dup(arena, kb_addr_ip_text(&addr, text));
            break;
        }
    }
    freeifaddrs(list);
    return found;
}

struct kb_hcm_config *kb_hcm_config_create_default(struct kb_server_context *server,
                                                   struct kb_str stat_prefix,
                                                   const char *listener_stat_prefix)
{
    struct kb_hcm_config *config = kb_calloc(1, sizeof(*config));
    struct kb_arena *arena = &config->arena;

    KB_OBJ_SET(config, kb_hcm_config);
    kb_arena_init(arena, NULL);
    config->server = server;
    config->stat_prefix = kb_str_dup(arena, stat_prefix);
    config->http_stats = kb_stat_group_create(
        server->stats, kb_str_printf(arena, "http.%.*s.", KB_STR_ARG(stat_prefix)),
        &kb_stat_schema_http);
    if (listener_stat_prefix != NULL) {
        config->listener_stats = kb_stat_group_create(
            server->stats,
            kb_str_printf(arena, "%shttp.%.*s.", listener_stat_prefix, KB_STR_ARG(stat_prefix)),
            &kb_stat_schema_listener_http);
    }
    config->http1_stats =
        kb_stat_group_create(server->stats, KB_STR("http1."), &kb_stat_schema_http1);
    config->h1 = (struct kb_h1_settings){
        .max_head_bytes = HEADERS_KB_DEFAULT * 1024,
        .max_headers_count = HEADERS_COUNT_DEFAULT,
        .allow_absolute_url = true,
    };
    config->http2_stats =
        kb_stat_group_create(server->stats, KB_STR("http2."), &kb_stat_schema_http2);
    kb_stat_group_set_from_first_block(config->http2_stats);
    config->h2 = (struct kb_h2_server_settings){
        .max_header_bytes = HEADERS_KB_DEFAULT * 1024,
        .max_header_count = HEADERS_COUNT_DEFAULT,
    };
    kb_h2_options_read(&config->h2.options, NULL, NULL, NULL);
    config->server_name = KB_STR("envoy");
    config->overload = &kb_overload_never;
    config->local_ip = local_ip_find(arena);
    config->generate_request_id = true;
    config->idle_timeout_ms = IDLE_TIMEOUT_DEFAULT_MS;
    config->stream_idle_timeout_ms = STREAM_IDLE_DEFAULT_MS;
    config->stream_flush_timeout_ms = UINT64_MAX;
    config->drain_timeout_ms = DRAIN_DEFAULT_MS;
    config->delayed_close_ms = DELAYED_CLOSE_DEFAULT_MS;
    return config;
}

void kb_hcm_config_destroy(struct kb_hcm_config *config)
{
    kb_http_filter_chain_dispose(&config->chain);
    for (size_t i = 0; i < config->upgrade_count; i++) {
        kb_http_filter_chain_dispose(&config->upgrades[i].chain);
    }
    if (config->route_config != NULL) {
        kb_route_config_destroy(config->route_config);
    }
    if (config->route_provider != NULL) {
        kb_route_provider_destroy(config->route_provider);
    }
    if (config->scoped_routes != NULL) {
        kb_scoped_routes_destroy(config->scoped_routes);
    }
    if (config->local_reply != NULL) {
        kb_local_reply_config_dispose(config->local_reply);
    }
    if (config->access_log != NULL) {
        kb_access_log_list_destroy(config->access_log);
    }
    kb_stat_group_destroy(config->http_stats);
    if (config->listener_stats != NULL) {
        kb_stat_group_destroy(config->listener_stats);
    }
    kb_stat_group_destroy(config->http1_stats);
    kb_stat_group_destroy(config->http2_stats);
    kb_regex_list_dispose(&config->regexes);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

static void unsupported(struct kb_diag *diag, const char *field, const char *why)
{
    kb_diag_push(diag, field);
    kb_diag_error(diag, "%s", why);
    kb_diag_pop(diag);
}

static void ignored_upgrades_apply(struct kb_hcm_config *config,
                                   const Envoy__Config__Core__V3__Http1ProtocolOptions *options,
                                   struct kb_diag *diag)
{
    struct kb_match_build build = {&config->arena, &config->regexes, diag};
    struct kb_string_matcher *matchers;
    size_t n = options->n_ignore_http_11_upgrade;

    if (n == 0) {
        return;
    }
    matchers = kb_arena_calloc(&config->arena, n * sizeof(*matchers));
    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, "ignore_http_11_upgrade", i);
        if (kb_string_matcher_init(&matchers[i], options->ignore_http_11_upgrade[i], &build) == 0) {
            config->h1.ignored_upgrade_count++;
        }
        kb_diag_pop(diag);
    }
    config->h1.ignored_upgrades = matchers;
}

static void http1_apply(struct kb_hcm_config *config,
                        const Envoy__Config__Core__V3__Http1ProtocolOptions *options,
                        struct kb_diag *diag)
{
    struct kb_header_key_format format;

    if (options == NULL) {
        return;
    }
    kb_diag_push(diag, "http_protocol_options");
    config->h1.allow_absolute_url = kb_wkt_bool(options->allow_absolute_url, true);
    config->h1.accept_http_10 = options->accept_http_10;
    config->default_host_for_http_10 =
        kb_str_dup(&config->arena, kb_wkt_str(options->default_host_for_http_10));
    config->h1.enable_trailers = options->enable_trailers;
    config->h1.allow_chunked_length = options->allow_chunked_length;
    config->h1.send_fully_qualified_url = options->send_fully_qualified_url;
    if (options->override_stream_error_on_invalid_http_message != NULL) {
        config->stream_error_on_invalid_http_message =
            options->override_stream_error_on_invalid_http_message->value;
    }
    config->h1.allow_custom_methods = options->allow_custom_methods;
    kb_header_key_format_read(options->header_key_format, &format, &config->arena, diag);
    config->h1.proper_case_words = format.proper_case_words;
    config->h1.preserve_case = format.preserve_case;
    config->h1.proper_case_otherwise = format.proper_case_otherwise;
    config->h1.forward_reason_phrase = format.forward_reason_phrase;
    ignored_upgrades_apply(config, options, diag);
    kb_diag_pop(diag);
}

static void common_apply(struct kb_hcm_config *config,
                         const Envoy__Config__Core__V3__HttpProtocolOptions *options,
                         struct kb_diag *diag)
{
    if (options == NULL) {
        return;
    }
    if (options->max_response_headers_kb != NULL) {
        unsupported(diag, "common_http_protocol_options",
                    "Error: max_response_headers_kb cannot be set on http_connection_manager.");
    }
    config->idle_timeout_ms = kb_wkt_duration_ms(options->idle_timeout, IDLE_TIMEOUT_DEFAULT_MS);
    config->max_connection_duration_ms = kb_wkt_duration_ms(options->max_connection_duration, 0);
    config->max_stream_duration_ms = kb_wkt_duration_ms(options->max_stream_duration, 0);
    config->max_requests_per_connection = kb_wkt_u32(options->max_requests_per_connection, 0);
    config->h1.max_headers_count = kb_wkt_u32(options->max_headers_count, HEADERS_COUNT_DEFAULT);
    config->h1.underscores = (enum kb_h1_underscores)options->headers_with_underscores_action;
}

static void timeouts_apply(struct kb_hcm_config *config, const hcm_message *m)
{
    config->stream_flush_timeout_ms = kb_wkt_duration_ms(m->stream_flush_timeout, UINT64_MAX);
    config->stream_idle_timeout_ms =
        kb_wkt_duration_ms(m->stream_idle_timeout, STREAM_IDLE_DEFAULT_MS);
    config->request_timeout_ms = kb_wkt_duration_ms(m->request_timeout, 0);
    config->request_headers_timeout_ms = kb_wkt_duration_ms(m->request_headers_timeout, 0);
    config->drain_timeout_ms = kb_wkt_duration_ms(m->drain_timeout, DRAIN_DEFAULT_MS);
    config->http1_safe_max_connection_duration = m->http1_safe_max_connection_duration;
    config->delayed_close_ms =
        kb_wkt_duration_ms(m->delayed_close_timeout, DELAYED_CLOSE_DEFAULT_MS);
}

static void identity_apply(struct kb_hcm_config *config, const hcm_message *m)
{
    struct kb_arena *arena = &config->arena;

    if (m->server_name[0] != '\0') {
        config->server_name = kb_str_dup(arena, kb_wkt_str(m->server_name));
    }
    config->server_header = (enum kb_server_header)m->server_header_transformation;
    config->via = kb_str_dup(arena, kb_wkt_str(m->via));
    if (kb_wkt_bool(m->add_user_agent, false)) {
        config->user_agent = config->server->node_cluster;
    }
    config->unnamed_upstream = !kb_wkt_bool(m->add_proxy_protocol_connection_state, true);
    if (m->scheme_header_transformation != NULL) {
        config->scheme_to_overwrite =
            kb_str_dup(arena, kb_wkt_str(m->scheme_header_transformation->scheme_to_overwrite));
        config->scheme_match_upstream =
            config->scheme_to_overwrite.len == 0 && m->scheme_header_transformation->match_upstream;
    }
    config->use_remote_address = kb_wkt_bool(m->use_remote_address, false);
    config->xff_num_trusted_hops = m->xff_num_trusted_hops;
    config->h1.validate_scheme = config->use_remote_address && m->xff_num_trusted_hops == 0;
    config->skip_xff_append = m->skip_xff_append;
    config->generate_request_id = kb_wkt_bool(m->generate_request_id, true);
    config->preserve_external_request_id = m->preserve_external_request_id;
    config->always_set_request_id_in_response = m->always_set_request_id_in_response;
    config->forward_client_cert = (enum kb_forward_client_cert)m->forward_client_cert_details;
    if (m->set_current_client_cert_details != NULL) {
        config->client_cert_details.cert = m->set_current_client_cert_details->cert;
        config->client_cert_details.chain = m->set_current_client_cert_details->chain;
        config->client_cert_details.subject =
            kb_wkt_bool(m->set_current_client_cert_details->subject, false);
        config->client_cert_details.uri = m->set_current_client_cert_details->uri;
        config->client_cert_details.dns = m->set_current_client_cert_details->dns;
    }
    config->append_x_forwarded_port = m->append_x_forwarded_port;
    config->proxy_100_continue = m->proxy_100_continue;
    config->proxy_status = kb_proxy_status_create(m->proxy_status_config, config->server_name,
                                                  config->server->node_id, arena);
    config->append_local_overload = m->append_local_overload;
    config->stream_error_on_invalid_http_message =
        kb_wkt_bool(m->stream_error_on_invalid_http_message, false);
}

static void original_ip_apply(struct kb_hcm_config *config, const hcm_message *m,
                              struct kb_diag *diag)
{
    config->original_ip =
        kb_original_ip_read(m->original_ip_detection_extensions,
                            m->n_original_ip_detection_extensions, &config->arena, diag);
    if (config->original_ip.count == 0) {
        return;
    }
    if (config->use_remote_address) {
        kb_diag_error(diag, "Original IP detection extensions and use_remote_address may not be "
                            "mixed");
    }
    if (config->xff_num_trusted_hops > 0) {
        kb_diag_error(diag, "Original IP detection extensions and xff_num_trusted_hops may not be "
                            "mixed");
    }
}

static void access_log_options_apply(struct kb_hcm_config *config, const hcm_message *m,
                                     struct kb_diag *diag)
{
    if (m->access_log_options != NULL && m->flush_access_log_on_new_request) {
        kb_diag_error(diag, "Only one of flush_access_log_on_new_request or access_log_options can "
                            "be specified.");
    }
    if (m->access_log_options != NULL && m->access_log_flush_interval != NULL) {
        kb_diag_error(
            diag, "Only one of access_log_flush_interval or access_log_options can be specified.");
    }
    config->flush_access_log_on_new_request = m->flush_access_log_on_new_request;
    config->access_log_flush_interval_ms = kb_wkt_duration_ms(m->access_log_flush_interval, 0);
    if (m->access_log_options != NULL) {
        config->flush_access_log_on_new_request =
            m->access_log_options->flush_access_log_on_new_request;
        config->access_log_flush_interval_ms =
            kb_wkt_duration_ms(m->access_log_options->access_log_flush_interval, 0);
        config->flush_log_on_tunnel_established =
            m->access_log_options->flush_log_on_tunnel_successfully_established;
    }
}

static void path_apply(struct kb_hcm_config *config, const hcm_message *m, struct kb_diag *diag)
{
    config->normalize_path = kb_wkt_bool(m->normalize_path, false);
    config->merge_slashes = m->merge_slashes;
    config->strip_matching_host_port = m->strip_matching_host_port;
    config->strip_any_host_port =
        m->strip_port_mode_case == HCM_ENUM(STRIP_PORT_MODE_STRIP_ANY_HOST_PORT) &&
        m->strip_any_host_port;
    if (config->strip_any_host_port && config->strip_matching_host_port) {
        kb_diag_error(diag, "Error: Only one of `strip_matching_host_port` or "
                            "`strip_any_host_port` can be set.");
    }
    config->strip_trailing_host_dot = m->strip_trailing_host_dot;
    switch ((int)m->path_with_escaped_slashes_action) {
    case HCM_ENUM(PATH_WITH_ESCAPED_SLASHES_ACTION__REJECT_REQUEST):
        config->escaped_slashes = KB_ESCAPED_SLASHES_REJECT;
        break;
    case HCM_ENUM(PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_REDIRECT):
        config->escaped_slashes = KB_ESCAPED_SLASHES_UNESCAPE_AND_REDIRECT;
        break;
    case HCM_ENUM(PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_FORWARD):
        config->escaped_slashes = KB_ESCAPED_SLASHES_UNESCAPE_AND_FORWARD;
        break;
    default:
        config->escaped_slashes = KB_ESCAPED_SLASHES_KEEP;
    }
}

static void internal_addresses_apply(struct kb_hcm_config *config, const hcm_message *m,
                                     struct kb_diag *diag)
{
    const HCM(HttpConnectionManager__InternalAddressConfig) *internal = m->internal_address_config;

    if (internal == NULL) {
        return;
    }
    kb_diag_push(diag, "internal_address_config");
    config->internal_unix_sockets = internal->unix_sockets;
    config->internal_cidrs = kb_arena_calloc(&config->arena, sizeof(*config->internal_cidrs) *
                                                                 (internal->n_cidr_ranges + 1));
    for (size_t i = 0; i < internal->n_cidr_ranges; i++) {
        const Envoy__Config__Core__V3__CidrRange *range = internal->cidr_ranges[i];

        kb_diag_push_index(diag, "cidr_ranges", i);
        if (kb_cidr_init(&config->internal_cidrs[i], kb_wkt_str(range->address_prefix),
                         kb_wkt_u32(range->prefix_len, 0)) != 0) {
            kb_diag_error(diag, "malformed IP address: %s", range->address_prefix);
        }
        kb_diag_pop(diag);
    }
    config->internal_cidr_count = internal->n_cidr_ranges;
    kb_diag_pop(diag);
}

/* Where a chain of filters is built: the words that Envoy's errors have for it. */
static void routes_apply(struct kb_hcm_config *config, const hcm_message *m,
                         struct kb_factory_context *factory, struct kb_diag *diag)
{
    switch ((int)m->route_specifier_case) {
    case HCM_ENUM(ROUTE_SPECIFIER_ROUTE_CONFIG):
        kb_diag_push(diag, "route_config");
        config->route_config = kb_route_config_create(
            m->route_config, factory, kb_wkt_bool(m->route_config->validate_clusters, true), diag);
        kb_diag_pop(diag);
        break;
    case HCM_ENUM(ROUTE_SPECIFIER_RDS):
        kb_diag_push(diag, "rds");
        config->route_provider =
            kb_route_provider_create(m->rds, config->stat_prefix, factory, diag);
        kb_diag_pop(diag);
        break;
    case HCM_ENUM(ROUTE_SPECIFIER_SCOPED_ROUTES):
        kb_diag_push(diag, "scoped_routes");
        config->scoped_routes = kb_scoped_routes_create(m->scoped_routes, factory, diag);
        kb_diag_pop(diag);
        break;
    default:
        break;
    }
    if (config->route_config != NULL) {
        size_t count;

        (void)kb_route_config_internal_only_headers(config->route_config, &count);
        config->internal_only_headers = count > 0;
    } else {
        config->internal_only_headers = true;
    }
}

static void codec_apply(struct kb_hcm_config *config, const hcm_message *m, struct kb_diag *diag)
{
    switch ((int)m->codec_type) {
    case HCM_ENUM(CODEC_TYPE__HTTP1):
        config->codec = KB_HCM_CODEC_HTTP1;
        break;
    case HCM_ENUM(CODEC_TYPE__HTTP2):
        config->codec = KB_HCM_CODEC_HTTP2;
        break;
    case HCM_ENUM(CODEC_TYPE__HTTP3):
        unsupported(diag, "codec_type", "HTTP/3 is not supported; use AUTO, HTTP1 or HTTP2");
        break;
    default:
        config->codec = KB_HCM_CODEC_AUTO;
    }
    kb_diag_push(diag, "http2_protocol_options");
    kb_h2_options_read(&config->h2.options, m->http2_protocol_options, &config->arena, diag);
    kb_diag_pop(diag);
    if (m->stream_error_on_invalid_http_message != NULL &&
        (m->http2_protocol_options == NULL ||
         m->http2_protocol_options->override_stream_error_on_invalid_http_message == NULL)) {
        config->h2.options.stream_error_on_invalid_message =
            m->stream_error_on_invalid_http_message->value;
    }
    config->h2.max_header_bytes = config->h1.max_head_bytes;
    config->h2.max_header_count = config->h1.max_headers_count;
    config->h2.underscores = (enum kb_h2_underscores)config->h1.underscores;
}

static void upgrade_apply(struct kb_hcm_config *config,
                          const HCM(HttpConnectionManager__UpgradeConfig) * m,
                          struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_hcm_upgrade *upgrade = &config->upgrades[config->upgrade_count];
    const struct kb_http_filter_chain_build build = {
        &upgrade->chain, KB_EXT_HTTP_FILTER, "http upgrade", "", factory, diag};

    upgrade->name = kb_str_dup(&config->arena, kb_wkt_str(m->upgrade_type));
    upgrade->enabled = kb_wkt_bool(m->enabled, true);
    for (size_t i = 0; i < config->upgrade_count; i++) {
        if (kb_str_ieq(config->upgrades[i].name, upgrade->name)) {
            kb_diag_error(diag, "Error: multiple upgrade configs with the same name: '%.*s'",
                          KB_STR_ARG(upgrade->name));
        }
    }
    kb_http_filter_chain_build(&build, m->filters, m->n_filters, "filters");
    config->upgrade_count++;
}

static void upgrades_apply(struct kb_hcm_config *config, const hcm_message *m,
                           struct kb_factory_context *factory, struct kb_diag *diag)
{
    config->upgrades =
        kb_arena_calloc(&config->arena, (m->n_upgrade_configs + 1) * sizeof(*config->upgrades));
    for (size_t i = 0; i < m->n_upgrade_configs; i++) {
        kb_diag_push_index(diag, "upgrade_configs", i);
        upgrade_apply(config, m->upgrade_configs[i], factory, diag);
        kb_diag_pop(diag);
    }
}

struct kb_hcm_config *kb_hcm_config_create(const hcm_message *m, struct kb_factory_context *factory,
                                           struct kb_diag *diag)
{
    struct kb_hcm_config *config = kb_hcm_config_create_default(
        factory->server, kb_wkt_str(m->stat_prefix), factory->stat_prefix);
    struct kb_factory_context inner = *factory;
    uint32_t errors = diag->error_count;

    inner.arena = &config->arena;
    inner.http_stat_prefix =
        kb_str_printf(&config->arena, "http.%.*s.", KB_STR_ARG(config->stat_prefix));
    config->inbound = factory->inbound;
    config->drain_modify_only = factory->drain_modify_only;
    if (!factory->bypass_overload) {
        config->overload = &factory->server->overload;
    }
    config->drain_state = factory->drain;
    config->h1.max_head_bytes = kb_wkt_u32(m->max_request_headers_kb, HEADERS_KB_DEFAULT) * 1024;
    common_apply(config, m->common_http_protocol_options, diag);
    timeouts_apply(config, m);
    identity_apply(config, m);
    kb_hcm_tracing_apply(config, m, factory->outbound, diag);
    kb_hcm_request_id_apply(config, m->request_id_extension, diag);
    original_ip_apply(config, m, diag);
    kb_early_mutations_apply_config(config, m, diag);
    access_log_options_apply(config, m, diag);
    http1_apply(config, m->http_protocol_options, diag);
    path_apply(config, m, diag);
    internal_addresses_apply(config, m, diag);
    codec_apply(config, m, diag);
    if (m->local_reply_config != NULL) {
        kb_diag_push(diag, "local_reply_config");
        config->local_reply = kb_local_reply_config_create(m->local_reply_config, &inner, diag);
        kb_diag_pop(diag);
    }
    config->access_log = kb_access_log_list_create(m->access_log, m->n_access_log, &inner, diag);
    kb_http_filter_chain_build(&(struct kb_http_filter_chain_build){&config->chain,
                                                                    KB_EXT_HTTP_FILTER, "http", "",
                                                                    &inner, diag},
                               m->http_filters, m->n_http_filters, "http_filters");
    upgrades_apply(config, m, &inner, diag);
    routes_apply(config, m, &inner, diag);
    if (diag->error_count != errors) {
        kb_hcm_config_destroy(config);
        return NULL;
    }
    return config;
}

int kb_hcm_filter_config_create(const void *message, struct kb_factory_context *factory,
                                struct kb_diag *diag, void **config)
{
    *config = kb_hcm_config_create(message, factory, diag);
    return *config != NULL ? 0 : KB_ECONFIG;
}

void kb_hcm_filter_config_destroy(void *config)
{
    if (config != NULL) {
        kb_hcm_config_destroy(KB_CAST(config, kb_hcm_config));
    }
}
