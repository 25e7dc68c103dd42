/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands (tidy: table): name, what may follow it, what evaluates it. In the order of
 * names, for the search. */
#include "proxy/access_log/formatter_internal.h"

#define ONLY(name, fn, what)    {name, KB_FORMAT_ONLY, 0, kb_format_eval_##fn, what, NULL}
#define NUMBER(name, what)      ONLY(name, number, KB_FORMAT_##what)
#define TEXT(name, what)        ONLY(name, text, KB_FORMAT_##what)
#define SPAN(name, what)        ONLY(name, duration, KB_FORMAT_##what)
#define TLS(name)               ONLY(name, missing, 0)
#define SSL_TEXT(name, what)    ONLY(name, ssl, KB_SSL_##what)
#define SSL_LIST(name, what)    ONLY(name, ssl, KB_FORMAT_SSL_LIST | KB_SSL_##what)
#define SSL_UP_TEXT(name, what) ONLY(name, ssl, KB_FORMAT_SSL_UPSTREAM | KB_SSL_##what)
#define SSL_UP_LIST(name, what) \
    ONLY(name, ssl, KB_FORMAT_SSL_UPSTREAM | KB_FORMAT_SSL_LIST | KB_SSL_##what)
#define ADDRESS(name, which) ONLY(name, address, KB_FORMAT_ADDR_##which)
#define PORT(name, which)    ONLY(name, address, KB_FORMAT_ADDR_##which | KB_FORMAT_ADDR_PORT)
#define ENDPOINT(name, which) \
    ONLY(name, address, KB_FORMAT_ADDR_##which | KB_FORMAT_ADDR_ENDPOINT_ID)
#define NO_PORT(name, which)                               \
    {name,                                                 \
     KB_FORMAT_PARAMS_OPTIONAL,                            \
     0,                                                    \
     kb_format_eval_address,                               \
     KB_FORMAT_ADDR_##which | KB_FORMAT_ADDR_WITHOUT_PORT, \
     kb_format_make_address}
#define HEADER(name, map)                          \
    {name,                                         \
     KB_FORMAT_PARAMS_REQUIRED | KB_FORMAT_LENGTH, \
     0,                                            \
     kb_format_eval_header,                        \
     KB_FORMAT_##map,                              \
     kb_format_make_header}
#define TIME(name, what) \
    {name, KB_FORMAT_PARAMS_OPTIONAL, 0, kb_format_eval_time, what, kb_format_make_time}
#define MADE(name, syntax, fn, make_fn) \
    {name, syntax, 0, kb_format_eval_##fn, 0, kb_format_make_##make_fn}

static const struct kb_format_entry entries[] = {
    ONLY("ACCESS_LOG_TYPE", access_log_type, 0),
    NUMBER("BYTES_RECEIVED", BYTES_RECEIVED),
    NUMBER("BYTES_RETRANSMITTED", ZERO),
    NUMBER("BYTES_SENT", BYTES_SENT),
    MADE("CEL", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, missing, unsupported),
    {"CLUSTER_METADATA", KB_FORMAT_PARAMS_REQUIRED, 0, kb_format_eval_metadata,
     KB_FORMAT_METADATA_CLUSTER, kb_format_make_metadata_path},
    MADE("COALESCE", KB_FORMAT_PARAMS_REQUIRED | KB_FORMAT_LENGTH, coalesce, coalesce),
    MADE("COMMON_DURATION", KB_FORMAT_PARAMS_REQUIRED, common_duration, common_duration),
    NUMBER("CONNECTION_ID", CONNECTION_ID),
    TEXT("CONNECTION_TERMINATION_DETAILS", TERMINATION_DETAILS),
    ONLY("CUSTOM_FLAGS", literal, 0),
    NUMBER("DOWNSTREAM_CX_RTT", ZERO),
    NUMBER("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", DOWNSTREAM_HEADER_RECEIVED),
    NUMBER("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", DOWNSTREAM_HEADER_SENT),
    TEXT("DOWNSTREAM_DETECTED_CLOSE_TYPE", DOWNSTREAM_CLOSE_TYPE),
    ADDRESS("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", DIRECT_LOCAL),
    ENDPOINT("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", DIRECT_LOCAL),
    NO_PORT("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", DIRECT_LOCAL),
    PORT("DOWNSTREAM_DIRECT_LOCAL_PORT", DIRECT_LOCAL),
    ADDRESS("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", DIRECT_REMOTE),
    NO_PORT("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", DIRECT_REMOTE),
    PORT("DOWNSTREAM_DIRECT_REMOTE_PORT", DIRECT_REMOTE),
    TLS("DOWNSTREAM_HANDSHAKE_DURATION"),
    NUMBER("DOWNSTREAM_HEADER_BYTES_RECEIVED", DOWNSTREAM_HEADER_RECEIVED),
    NUMBER("DOWNSTREAM_HEADER_BYTES_SENT", DOWNSTREAM_HEADER_SENT),
    ADDRESS("DOWNSTREAM_LOCAL_ADDRESS", LOCAL),
    ENDPOINT("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", LOCAL),
    NO_PORT("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", LOCAL),
    TEXT("DOWNSTREAM_LOCAL_CLOSE_REASON", DOWNSTREAM_CLOSE_REASON),
    SSL_LIST("DOWNSTREAM_LOCAL_DNS_SAN", LOCAL_DNS_SANS),
    SSL_LIST("DOWNSTREAM_LOCAL_EMAIL_SAN", LOCAL_EMAIL_SANS),
    SSL_LIST("DOWNSTREAM_LOCAL_IP_SAN", LOCAL_IP_SANS),
    TLS("DOWNSTREAM_LOCAL_OTHERNAME_SAN"),
    PORT("DOWNSTREAM_LOCAL_PORT", LOCAL),
    SSL_TEXT("DOWNSTREAM_LOCAL_SUBJECT", LOCAL_SUBJECT),
    SSL_LIST("DOWNSTREAM_LOCAL_URI_SAN", LOCAL_URI_SANS),
    SSL_TEXT("DOWNSTREAM_PEER_CERT", PEER_PEM_ENCODED),
    TIME("DOWNSTREAM_PEER_CERT_V_END", KB_FORMAT_TIME_CERTIFICATE | KB_FORMAT_TIME_CERTIFICATE_END),
    TIME("DOWNSTREAM_PEER_CERT_V_START", KB_FORMAT_TIME_CERTIFICATE),
    SSL_TEXT("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", PEER_CHAIN_SHA1),
    SSL_TEXT("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", PEER_CHAIN_SHA256),
    SSL_TEXT("DOWNSTREAM_PEER_CHAIN_SERIALS", PEER_CHAIN_SERIALS),
    SSL_LIST("DOWNSTREAM_PEER_DNS_SAN", PEER_DNS_SANS),
    SSL_LIST("DOWNSTREAM_PEER_EMAIL_SAN", PEER_EMAIL_SANS),
    SSL_TEXT("DOWNSTREAM_PEER_FINGERPRINT_1", PEER_SHA1),
    SSL_TEXT("DOWNSTREAM_PEER_FINGERPRINT_256", PEER_SHA256),
    SSL_LIST("DOWNSTREAM_PEER_IP_SAN", PEER_IP_SANS),
    SSL_TEXT("DOWNSTREAM_PEER_ISSUER", PEER_ISSUER),
    SSL_TEXT("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", PEER_ISSUER_SHA256),
    SSL_TEXT("DOWNSTREAM_PEER_ISSUER_SERIAL", PEER_ISSUER_SERIAL),
    TLS("DOWNSTREAM_PEER_OTHERNAME_SAN"),
    SSL_TEXT("DOWNSTREAM_PEER_SERIAL", PEER_SERIAL),
    SSL_TEXT("DOWNSTREAM_PEER_SUBJECT", PEER_SUBJECT),
    SSL_LIST("DOWNSTREAM_PEER_URI_SAN", PEER_URI_SANS),
    ADDRESS("DOWNSTREAM_REMOTE_ADDRESS", REMOTE),
    NO_PORT("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", REMOTE),
    PORT("DOWNSTREAM_REMOTE_PORT", REMOTE),
    SSL_TEXT("DOWNSTREAM_TLS_CIPHER", CIPHER),
    SSL_TEXT("DOWNSTREAM_TLS_GROUP", GROUP),
    SSL_TEXT("DOWNSTREAM_TLS_SESSION_ID", SESSION_ID),
    SSL_TEXT("DOWNSTREAM_TLS_VERSION", VERSION),
    TEXT("DOWNSTREAM_TRANSPORT_FAILURE_REASON", DOWNSTREAM_FAILURE),
    NUMBER("DOWNSTREAM_WIRE_BYTES_RECEIVED", DOWNSTREAM_WIRE_RECEIVED),
    NUMBER("DOWNSTREAM_WIRE_BYTES_SENT", DOWNSTREAM_WIRE_SENT),
    SPAN("DURATION", DURATION),
    {"DYNAMIC_METADATA", KB_FORMAT_PARAMS_REQUIRED | KB_FORMAT_LENGTH, 0, kb_format_eval_metadata,
     KB_FORMAT_METADATA_DYNAMIC, kb_format_make_metadata_path},
    TIME("EMIT_TIME", KB_FORMAT_TIME_EMIT),
    TIME("EMIT_TIME_LOCAL", KB_FORMAT_TIME_EMIT | KB_FORMAT_TIME_LOCAL),
    MADE("ENVIRONMENT", KB_FORMAT_PARAMS_REQUIRED | KB_FORMAT_LENGTH, literal, environment),
    TEXT("FILTER_CHAIN_NAME", FILTER_CHAIN_NAME),
    MADE("FILTER_STATE", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, filter_state, filter_state),
    MADE("GRPC_STATUS", KB_FORMAT_PARAMS_OPTIONAL, grpc_status, grpc_status),
    ONLY("GRPC_STATUS_NUMBER", grpc_status, KB_FORMAT_GRPC_NUMBER),
    MADE("HOSTNAME", KB_FORMAT_ONLY, literal, hostname),
    TEXT("LISTENER_NAME", LISTENER_NAME),
    ONLY("LOCAL_REPLY_BODY", local_reply_body, 0),
    MADE("METADATA", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, metadata, metadata),
    NUMBER("PACKETS_RETRANSMITTED", ZERO),
    MADE("PATH", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, path, path),
    TEXT("PROTOCOL", PROTOCOL),
    MADE("QUERY_PARAM", KB_FORMAT_PARAMS_REQUIRED | KB_FORMAT_LENGTH, query_param, query_param),
    MADE("QUERY_PARAMS", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, query_params, query_params),
    HEADER("REQ", REQUEST),
    MADE("REQUESTED_SERVER_NAME", KB_FORMAT_PARAMS_OPTIONAL, server_name, server_name),
    SPAN("REQUEST_DURATION", REQUEST_DURATION),
    HEADER("REQUEST_HEADER", REQUEST),
    ONLY("REQUEST_HEADERS_BYTES", headers_bytes, KB_FORMAT_REQUEST),
    SPAN("REQUEST_TX_DURATION", REQUEST_TX_DURATION),
    {"REQ_WITHOUT_QUERY", KB_FORMAT_PARAMS_REQUIRED | KB_FORMAT_LENGTH, KB_FORMAT_REQ_WITHOUT_QUERY,
     kb_format_eval_header_without_query, KB_FORMAT_REQUEST, kb_format_make_header},
    HEADER("RESP", RESPONSE),
    NUMBER("RESPONSE_CODE", RESPONSE_CODE),
    MADE("RESPONSE_CODE_DETAILS", KB_FORMAT_PARAMS_OPTIONAL, text, details),
    SPAN("RESPONSE_DURATION", RESPONSE_DURATION),
    ONLY("RESPONSE_FLAGS", flags, 0),
    ONLY("RESPONSE_FLAGS_LONG", flags, 1),
    HEADER("RESPONSE_HEADER", RESPONSE),
    ONLY("RESPONSE_HEADERS_BYTES", headers_bytes, KB_FORMAT_RESPONSE),
    HEADER("RESPONSE_TRAILER", TRAILERS),
    ONLY("RESPONSE_TRAILERS_BYTES", headers_bytes, KB_FORMAT_TRAILERS),
    SPAN("RESPONSE_TX_DURATION", RESPONSE_TX_DURATION),
    TLS("ROUNDTRIP_DURATION"), /* acknowledgements of HTTP/3 */
    TEXT("ROUTE_NAME", ROUTE_NAME),
    NUMBER("ROUTE_RESOLUTION_COUNT", ROUTE_RESOLUTIONS),
    SPAN("ROUTE_RESOLUTION_TIME_US", ROUTE_RESOLUTION_US),
    ONLY("SPAN_ID", missing, 0),
    TIME("START_TIME", KB_FORMAT_TIME_START),
    TIME("START_TIME_LOCAL", KB_FORMAT_TIME_START | KB_FORMAT_TIME_LOCAL),
    TEXT("STREAM_ID", STREAM_ID),
    HEADER("STREAM_INFO_REQ", REQUEST),
    TLS("TLS_JA3_FINGERPRINT"),
    TLS("TLS_JA4_FINGERPRINT"),
    ONLY("TRACE_ID", missing, 0),
    HEADER("TRAILER", TRAILERS),
    MADE("TYPED_CEL", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, missing, unsupported),
    ONLY("UNIQUE_ID", unique_id, 0),
    TEXT("UPSTREAM_CLUSTER", UPSTREAM_CLUSTER),
    TEXT("UPSTREAM_CLUSTER_RAW", UPSTREAM_CLUSTER_RAW),
    NUMBER("UPSTREAM_CONNECTION_ID", UPSTREAM_CONNECTION_ID),
    TEXT("UPSTREAM_CONNECTION_IDS_ATTEMPTED", CONNECTION_IDS_ATTEMPTED),
    SPAN("UPSTREAM_CONNECTION_POOL_READY_DURATION", POOL_READY_DURATION),
    NUMBER("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", UPSTREAM_HEADER_RECEIVED),
    NUMBER("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", UPSTREAM_HEADER_SENT),
    TEXT("UPSTREAM_DETECTED_CLOSE_TYPE", UPSTREAM_CLOSE_TYPE),
    {"UPSTREAM_FILTER_STATE", KB_FORMAT_PARAMS_OPTIONAL | KB_FORMAT_LENGTH, 0,
     kb_format_eval_filter_state, 1, kb_format_make_filter_state},
    NUMBER("UPSTREAM_HEADER_BYTES_RECEIVED", UPSTREAM_HEADER_RECEIVED),
    NUMBER("UPSTREAM_HEADER_BYTES_SENT", UPSTREAM_HEADER_SENT),
    TEXT("UPSTREAM_HOST", UPSTREAM_HOST),
    TEXT("UPSTREAM_HOSTS_ATTEMPTED", HOSTS_ATTEMPTED),
    TEXT("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", HOSTS_ATTEMPTED_NO_PORT),
    TEXT("UPSTREAM_HOST_NAME", UPSTREAM_HOST_NAME),
    TEXT("UPSTREAM_HOST_NAMES_ATTEMPTED", HOST_NAMES_ATTEMPTED),
    TEXT("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", HOST_NAMES_ATTEMPTED_NO_PORT),
    TEXT("UPSTREAM_HOST_NAME_WITHOUT_PORT", UPSTREAM_HOST_NAME_NO_PORT),
    ADDRESS("UPSTREAM_LOCAL_ADDRESS", UPSTREAM_LOCAL),
    NO_PORT("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", UPSTREAM_LOCAL),
    TEXT("UPSTREAM_LOCAL_CLOSE_REASON", UPSTREAM_CLOSE_REASON),
    SSL_UP_LIST("UPSTREAM_LOCAL_DNS_SAN", LOCAL_DNS_SANS),
    SSL_UP_LIST("UPSTREAM_LOCAL_IP_SAN", LOCAL_IP_SANS),
    PORT("UPSTREAM_LOCAL_PORT", UPSTREAM_LOCAL),
    SSL_UP_LIST("UPSTREAM_LOCAL_URI_SAN", LOCAL_URI_SANS),
    {"UPSTREAM_METADATA", KB_FORMAT_PARAMS_REQUIRED, 0, kb_format_eval_metadata,
     KB_FORMAT_METADATA_HOST, kb_format_make_metadata_path},
    SSL_UP_TEXT("UPSTREAM_PEER_CERT", PEER_PEM_ENCODED),
    TIME("UPSTREAM_PEER_CERT_V_END",
         KB_FORMAT_TIME_CERTIFICATE | KB_FORMAT_TIME_CERTIFICATE_END | KB_FORMAT_TIME_UPSTREAM),
    TIME("UPSTREAM_PEER_CERT_V_START", KB_FORMAT_TIME_CERTIFICATE | KB_FORMAT_TIME_UPSTREAM),
    SSL_UP_LIST("UPSTREAM_PEER_DNS_SAN", PEER_DNS_SANS),
    SSL_UP_LIST("UPSTREAM_PEER_IP_SAN", PEER_IP_SANS),
    SSL_UP_TEXT("UPSTREAM_PEER_ISSUER", PEER_ISSUER),
    SSL_UP_TEXT("UPSTREAM_PEER_SUBJECT", PEER_SUBJECT),
    SSL_UP_LIST("UPSTREAM_PEER_URI_SAN", PEER_URI_SANS),
    TEXT("UPSTREAM_PROTOCOL", UPSTREAM_PROTOCOL),
    ADDRESS("UPSTREAM_REMOTE_ADDRESS", UPSTREAM_REMOTE),
    ENDPOINT("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", UPSTREAM_REMOTE),
    NO_PORT("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", UPSTREAM_REMOTE),
    PORT("UPSTREAM_REMOTE_PORT", UPSTREAM_REMOTE),
    NUMBER("UPSTREAM_REQUEST_ATTEMPT_COUNT", ATTEMPT_COUNT),
    TLS("UPSTREAM_SERVER_NAME"),
    SSL_UP_TEXT("UPSTREAM_TLS_CIPHER", CIPHER),
    SSL_UP_TEXT("UPSTREAM_TLS_GROUP", GROUP),
    SSL_UP_TEXT("UPSTREAM_TLS_SESSION_ID", SESSION_ID),
    SSL_UP_TEXT("UPSTREAM_TLS_VERSION", VERSION),
    TEXT("UPSTREAM_TRANSPORT_FAILURE_REASON", UPSTREAM_FAILURE),
    NUMBER("UPSTREAM_WIRE_BYTES_RECEIVED", UPSTREAM_WIRE_RECEIVED),
    NUMBER("UPSTREAM_WIRE_BYTES_SENT", UPSTREAM_WIRE_SENT),
    TEXT("VIRTUAL_CLUSTER_NAME", VIRTUAL_CLUSTER_NAME),
};

const char *kb_format_command_name(size_t i)
{
    return i < KB_ARRAY_LEN(entries) ? entries[i].name : NULL;
}

static const struct kb_format_entry *entry_find(struct kb_str name)
{
    size_t low = 0, high = KB_ARRAY_LEN(entries);

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = kb_str_cmp(name, kb_str_from_cstr(entries[middle].name));

        if (order == 0) {
            return &entries[middle];
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

/* Whether arguments and length may stand behind this name. */
static bool syntax_check(const struct kb_format_entry *entry, struct kb_str args, bool has_len,
                         struct kb_diag *diag)
{
    if (entry->syntax == KB_FORMAT_ONLY && (args.len > 0 || has_len)) {
        kb_diag_error(diag, "%s does not take any parameters or length", entry->name);
        return false;
    }
    if ((entry->syntax & KB_FORMAT_PARAMS_REQUIRED) != 0 && args.len == 0) {
        kb_diag_error(diag, "%s requires parameters", entry->name);
        return false;
    }
    if ((entry->syntax & KB_FORMAT_LENGTH) == 0 && has_len) {
        kb_diag_error(diag, "%s does not allow length to be specified.", entry->name);
        return false;
    }
    return true;
}

bool kb_route_resolution_timed;

int kb_format_command_make(struct kb_format_command *command, struct kb_str name,
                           struct kb_str args, size_t max_len, unsigned extensions,
                           struct kb_arena *arena, struct kb_diag *diag)
{
    const struct kb_format_entry *entry = entry_find(name);

    if (entry == NULL || (entry->extension & ~extensions) != 0) {
        return KB_ENOTFOUND;
    }
    if (!syntax_check(entry, args, max_len != SIZE_MAX, diag)) {
        return KB_EINVALID;
    }
    memset(command, 0, sizeof(*command));
    command->eval = entry->eval;
    command->max_len = max_len;
    command->param = entry->param;
    if (kb_str_eq(name, KB_STR("ROUTE_RESOLUTION_TIME_US"))) {
        __atomic_store_n(&kb_route_resolution_timed, true, __ATOMIC_RELAXED);
    }
    if (entry->make != NULL) {
        return entry->make(command, args, arena, diag) ? 0 : KB_EINVALID;
    }
    if (entry->eval == kb_format_eval_literal) {
        command->text = entry->param != 0 ? KB_STR("Normal") : KB_STR("");
    }
    return 0;
}
