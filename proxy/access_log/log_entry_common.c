/* SPDX-License-Identifier: Apache-2.0 */
/* What entries of HTTP and TCP have in common: addresses, TLS, times, flags, names, tags. */
#include <string.h>

#include "base/worker.h"
#include "proto/address.h"
#include "proto/any.h"
#include "proto/wire.h"
#include "proxy/access_log/log_entry.h"
#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/ssl_connection_info.h"

typedef Envoy__Data__Accesslog__V3__AccessLogCommon common_entry;
typedef Envoy__Data__Accesslog__V3__TLSProperties__CertificateProperties certificate_entry;
typedef Envoy__Data__Accesslog__V3__TLSProperties__CertificateProperties__SubjectAltName san_entry;

#define TLS(NAME) ENVOY__DATA__ACCESSLOG__V3__TLSPROPERTIES__TLSVERSION__##NAME
#define NS_PER_S  UINT64_C(1000000000)

/* From the start of the stream; NULL: never reached. */
static Google__Protobuf__Duration *since_start(const struct kb_stream_info *info, uint64_t at_ns,
                                               struct kb_arena *arena)
{
    Google__Protobuf__Duration *duration;
    uint64_t ns;

    if (at_ns == 0) {
        return NULL;
    }
    ns = at_ns > info->start_ns ? at_ns - info->start_ns : 0;
    duration = KB_ARENA_NEW(arena, Google__Protobuf__Duration);
    google__protobuf__duration__init(duration);
    duration->seconds = (int64_t)(ns / NS_PER_S);
    duration->nanos = (int32_t)(ns % NS_PER_S);
    return duration;
}

static void times_set(common_entry *common, const struct kb_stream_info *info,
                      struct kb_arena *arena)
{
    const struct kb_upstream_info *upstream = &info->upstream;
    Google__Protobuf__Timestamp *start = KB_ARENA_NEW(arena, Google__Protobuf__Timestamp);
    uint64_t end_ns = info->end_ns;

    google__protobuf__timestamp__init(start);
    start->seconds = (int64_t)(info->wall_start_ns / NS_PER_S);
    start->nanos = (int32_t)(info->wall_start_ns % NS_PER_S);
    common->start_time = start;
    common->time_to_last_rx_byte = since_start(info, info->last_rx_ns, arena);
    common->time_to_first_upstream_tx_byte = since_start(info, upstream->first_tx_ns, arena);
    common->time_to_last_upstream_tx_byte = since_start(info, upstream->last_tx_ns, arena);
    common->time_to_first_upstream_rx_byte = since_start(info, upstream->first_rx_ns, arena);
    common->time_to_last_upstream_rx_byte = since_start(info, upstream->last_rx_ns, arena);
    common->time_to_first_downstream_tx_byte = since_start(info, info->first_tx_ns, arena);
    common->time_to_last_downstream_tx_byte = since_start(info, info->last_tx_ns, arena);
    if (end_ns == 0 && info->worker != NULL) {
        end_ns = kb_loop_now_ns(&info->worker->loop);
    }
    common->duration = since_start(info, end_ns, arena);
}

static void flags_set(common_entry *common, const struct kb_stream_info *info,
                      struct kb_arena *arena)
{
    Envoy__Data__Accesslog__V3__ResponseFlags *flags;

    if (info->flag_count == 0) {
        return;
    }
    flags = KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__ResponseFlags);
    envoy__data__accesslog__v3__response_flags__init(flags);
#define SET(FLAG, member) flags->member = kb_stream_info_has_flag(info, KB_RF_##FLAG)
    SET(FAILED_LOCAL_HEALTH_CHECK, failed_local_healthcheck);
    SET(NO_HEALTHY_UPSTREAM, no_healthy_upstream);
    SET(UPSTREAM_REQUEST_TIMEOUT, upstream_request_timeout);
    SET(LOCAL_RESET, local_reset);
    SET(UPSTREAM_REMOTE_RESET, upstream_remote_reset);
    SET(UPSTREAM_CONNECTION_FAILURE, upstream_connection_failure);
    SET(UPSTREAM_CONNECTION_TERMINATION, upstream_connection_termination);
    SET(UPSTREAM_OVERFLOW, upstream_overflow);
    SET(NO_ROUTE_FOUND, no_route_found);
    SET(DELAY_INJECTED, delay_injected);
    SET(FAULT_INJECTED, fault_injected);
    SET(RATE_LIMITED, rate_limited);
    SET(RATE_LIMIT_SERVICE_ERROR, rate_limit_service_error);
    SET(DOWNSTREAM_CONNECTION_TERMINATION, downstream_connection_termination);
    SET(UPSTREAM_RETRY_LIMIT_EXCEEDED, upstream_retry_limit_exceeded);
    SET(STREAM_IDLE_TIMEOUT, stream_idle_timeout);
    SET(INVALID_ENVOY_REQUEST_HEADERS, invalid_envoy_request_headers);
    SET(DOWNSTREAM_PROTOCOL_ERROR, downstream_protocol_error);
    SET(UPSTREAM_MAX_STREAM_DURATION_REACHED, upstream_max_stream_duration_reached);
    SET(RESPONSE_FROM_CACHE_FILTER, response_from_cache_filter);
    SET(NO_FILTER_CONFIG_FOUND, no_filter_config_found);
    SET(DURATION_TIMEOUT, duration_timeout);
    SET(UPSTREAM_PROTOCOL_ERROR, upstream_protocol_error);
    SET(NO_CLUSTER_FOUND, no_cluster_found);
    SET(OVERLOAD_MANAGER_TERMINATED, overload_manager);
    SET(DNS_RESOLUTION_FAILED, dns_resolution_failure);
    SET(DOWNSTREAM_REMOTE_RESET, downstream_remote_reset);
#undef SET
    if (kb_stream_info_has_flag(info, KB_RF_UNAUTHORIZED_EXTERNAL_SERVICE)) {
        flags->unauthorized_details =
            KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__ResponseFlags__Unauthorized);
        envoy__data__accesslog__v3__response_flags__unauthorized__init(flags->unauthorized_details);
        flags->unauthorized_details->reason =
            ENVOY__DATA__ACCESSLOG__V3__RESPONSE_FLAGS__UNAUTHORIZED__REASON__EXTERNAL_SERVICE;
    }
    common->response_flags = flags;
}

/* ---- TLS ---- */

static certificate_entry *certificate_make(const struct kb_ssl_connection_info *ssl,
                                           enum kb_ssl_list uris, enum kb_ssl_text subject,
                                           struct kb_arena *arena)
{
    certificate_entry *entry = KB_ARENA_NEW(arena, certificate_entry);
    const struct kb_str *names = kb_ssl_list(ssl, uris, &entry->n_subject_alt_name);
    size_t count = entry->n_subject_alt_name;

    envoy__data__accesslog__v3__tlsproperties__certificate_properties__init(entry);
    entry->n_subject_alt_name = count;
    entry->subject_alt_name =
        kb_arena_calloc(arena, (count + 1) * sizeof(*entry->subject_alt_name));
    for (size_t i = 0; i < count; i++) {
        san_entry *name = KB_ARENA_NEW(arena, san_entry);

        envoy__data__accesslog__v3__tlsproperties__certificate_properties__subject_alt_name__init(
            name);
        name->san_case =
            ENVOY__DATA__ACCESSLOG__V3__TLSPROPERTIES__CERTIFICATE_PROPERTIES__SUBJECT_ALT_NAME__SAN_URI;
        name->uri = kb_pb_text(names[i], arena);
        entry->subject_alt_name[i] = name;
    }
    entry->subject = kb_pb_text(kb_ssl_text(ssl, subject), arena);
    return entry;
}

static Envoy__Data__Accesslog__V3__TLSProperties__TLSVersion version_of(struct kb_str name)
{
    static const struct {
        const char *name;
        Envoy__Data__Accesslog__V3__TLSProperties__TLSVersion version;
    } versions[] = {{"TLSv1", TLS(TLSv1)},
                    {"TLSv1.1", TLS(TLSv1_1)},
                    {"TLSv1.2", TLS(TLSv1_2)},
                    {"TLSv1.3", TLS(TLSv1_3)}};

    for (size_t i = 0; i < KB_ARRAY_LEN(versions); i++) {
        if (kb_str_eq(name, kb_str_from_cstr(versions[i].name))) {
            return versions[i].version;
        }
    }
    return TLS(VERSION_UNSPECIFIED);
}

Envoy__Data__Accesslog__V3__TLSProperties *kb_log_entry_tls(const struct kb_stream_info *info,
                                                            struct kb_arena *arena)
{
    const struct kb_ssl_connection_info *ssl =
        info->connection != NULL ? info->connection->ssl : NULL;
    Envoy__Data__Accesslog__V3__TLSProperties *tls;

    if (ssl == NULL) {
        return NULL;
    }
    tls = KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__TLSProperties);
    envoy__data__accesslog__v3__tlsproperties__init(tls);
    tls->tls_sni_hostname = kb_pb_text(info->connection->requested_server_name, arena);
    tls->local_certificate_properties =
        certificate_make(ssl, KB_SSL_LOCAL_URI_SANS, KB_SSL_LOCAL_SUBJECT, arena);
    tls->peer_certificate_properties =
        certificate_make(ssl, KB_SSL_PEER_URI_SANS, KB_SSL_PEER_SUBJECT, arena);
    tls->peer_certificate_properties->issuer =
        kb_pb_text(kb_ssl_text(ssl, KB_SSL_PEER_ISSUER), arena);
    tls->tls_session_id = kb_pb_text(kb_ssl_text(ssl, KB_SSL_SESSION_ID), arena);
    tls->tls_version = version_of(kb_ssl_text(ssl, KB_SSL_VERSION));
    tls->tls_cipher_suite = KB_ARENA_NEW(arena, Google__Protobuf__UInt32Value);
    google__protobuf__uint32_value__init(tls->tls_cipher_suite);
    tls->tls_cipher_suite->value = kb_ssl_cipher_id(ssl);
    return tls;
}

/* ---- what filters left ---- */

static void metadata_set(common_entry *common, const struct kb_stream_info *info,
                         struct kb_arena *arena)
{
    const struct kb_dynamic_metadata *metadata = kb_stream_info_metadata(info);
    Envoy__Config__Core__V3__Metadata *message;
    size_t count = 0;

    if (metadata == NULL || metadata->first == NULL) {
        return;
    }
    for (const struct kb_dynamic_metadata_item *i = metadata->first; i != NULL; i = i->next) {
        count++;
    }
    message = KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Metadata);
    envoy__config__core__v3__metadata__init(message);
    message->filter_metadata = kb_arena_calloc(arena, count * sizeof(*message->filter_metadata));
    for (const struct kb_dynamic_metadata_item *i = metadata->first; i != NULL; i = i->next) {
        Envoy__Config__Core__V3__Metadata__FilterMetadataEntry *entry =
            KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Metadata__FilterMetadataEntry);

        envoy__config__core__v3__metadata__filter_metadata_entry__init(entry);
        entry->key = kb_pb_text(i->name, arena);
        entry->value = i->value;
        message->filter_metadata[message->n_filter_metadata++] = entry;
    }
    common->metadata = message;
}

static const struct kb_filter_state_item *state_find(const struct kb_stream_info *info,
                                                     const struct kb_filter_state_key *key)
{
    const struct kb_filter_state_item *item = kb_filter_state_find(info, key);

    return item != NULL ? item : kb_filter_state_item_find(info->upstream.filter_state, key);
}

/* Objects that are texts; others have no message that stands for them. */
static void states_set(common_entry *common, const struct kb_log_entry_config *config,
                       const struct kb_stream_info *info, struct kb_arena *arena)
{
    if (config->state_count == 0) {
        return;
    }
    common->filter_state_objects =
        kb_arena_calloc(arena, config->state_count * sizeof(*common->filter_state_objects));
    for (size_t i = 0; i < config->state_count; i++) {
        const struct kb_filter_state_item *item = state_find(info, config->states[i]);
        Envoy__Data__Accesslog__V3__AccessLogCommon__FilterStateObjectsEntry *entry;
        Google__Protobuf__StringValue text = GOOGLE__PROTOBUF__STRING_VALUE__INIT;
        struct kb_str value;

        if (item == NULL || item->type->text == NULL ||
            !item->type->text(item->object, arena, &value)) {
            continue;
        }
        entry = KB_ARENA_NEW(arena,
                             Envoy__Data__Accesslog__V3__AccessLogCommon__FilterStateObjectsEntry);
        envoy__data__accesslog__v3__access_log_common__filter_state_objects_entry__init(entry);
        entry->key = kb_pb_text(kb_filter_state_key_name(config->states[i]), arena);
        text.value = kb_pb_text(value, arena);
        entry->value = KB_ARENA_NEW(arena, Google__Protobuf__Any);
        kb_any_pack(&text.base, arena, entry->value);
        common->filter_state_objects[common->n_filter_state_objects++] = entry;
    }
}

static void tags_set(common_entry *common, const struct kb_log_entry_config *config,
                     const struct kb_formatter_input *input, const struct kb_stream_info *info,
                     struct kb_arena *arena)
{
    if (config->tag_count == 0) {
        return;
    }
    common->custom_tags = kb_arena_calloc(arena, config->tag_count * sizeof(*common->custom_tags));
    for (size_t i = 0; i < config->tag_count; i++) {
        struct kb_str value = kb_custom_tag_value(&config->tags[i], input, info, arena);
        Envoy__Data__Accesslog__V3__AccessLogCommon__CustomTagsEntry *entry;

        if (value.len == 0) {
            continue;
        }
        entry = KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__AccessLogCommon__CustomTagsEntry);
        envoy__data__accesslog__v3__access_log_common__custom_tags_entry__init(entry);
        entry->key = kb_pb_text(config->tags[i].name, arena);
        entry->value = kb_pb_text(value, arena);
        common->custom_tags[common->n_custom_tags++] = entry;
    }
}

/* ---- all of it ---- */

static Envoy__Data__Accesslog__V3__AccessLogType type_of(const char *name)
{
    const ProtobufCEnumValue *value =
        name != NULL ? protobuf_c_enum_descriptor_get_value_by_name(
                           &envoy__data__accesslog__v3__access_log_type__descriptor, name)
                     : NULL;

    return value != NULL ? (Envoy__Data__Accesslog__V3__AccessLogType)value->value
                         : ENVOY__DATA__ACCESSLOG__V3__ACCESS_LOG_TYPE__NotSet;
}

static void upstream_set(common_entry *common, const struct kb_stream_info *info,
                         struct kb_arena *arena)
{
    const struct kb_upstream_info *upstream = &info->upstream;

    if (upstream->host != NULL) {
        struct kb_addr addr = kb_host_addr(upstream->host);

        common->upstream_remote_address = kb_address_message(&addr, arena);
        common->upstream_cluster =
            kb_pb_text(upstream->cluster != NULL ? upstream->cluster->name : KB_STR_NULL, arena);
    }
    common->upstream_local_address = kb_address_message(&upstream->local, arena);
    common->upstream_transport_failure_reason =
        kb_pb_text(upstream->transport_failure_reason, arena);
    common->upstream_wire_bytes_sent = upstream->wire_bytes_sent;
    common->upstream_wire_bytes_received = upstream->wire_bytes_received;
}

common_entry *kb_log_entry_common(const struct kb_log_entry_config *config,
                                  const struct kb_formatter_input *input,
                                  const struct kb_stream_info *info, struct kb_arena *arena)
{
    const struct kb_connection_info *connection = info->connection;
    common_entry *common = KB_ARENA_NEW(arena, common_entry);

    envoy__data__accesslog__v3__access_log_common__init(common);
    common->downstream_remote_address = kb_address_message(
        info->remote.len != 0 || connection == NULL ? &info->remote : &connection->remote, arena);
    if (connection != NULL) {
        common->downstream_local_address = kb_address_message(&connection->local, arena);
        common->downstream_direct_remote_address =
            kb_address_message(&connection->direct_remote, arena);
        common->connection_termination_details = kb_pb_text(connection->termination_details, arena);
        if (info->protocol == KB_PROTOCOL_NONE) {
            common->downstream_transport_failure_reason =
                kb_pb_text(connection->transport_failure_reason, arena);
        }
    }
    common->tls_properties = kb_log_entry_tls(info, arena);
    times_set(common, info, arena);
    upstream_set(common, info, arena);
    flags_set(common, info, arena);
    metadata_set(common, info, arena);
    common->route_name = kb_pb_text(info->route_name, arena);
    states_set(common, config, info, arena);
    tags_set(common, config, input, info, arena);
    common->upstream_request_attempt_count = info->attempt_count;
    common->stream_id = kb_pb_text(info->request_id, arena);
    common->downstream_wire_bytes_sent = info->wire_bytes_sent;
    common->downstream_wire_bytes_received = info->wire_bytes_received;
    common->access_log_type = type_of(input->access_log_type);
    return common;
}
