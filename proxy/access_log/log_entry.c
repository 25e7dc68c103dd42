/* SPDX-License-Identifier: Apache-2.0 */
/* The entries of HTTP streams and TCP connections: the request, the answer, the bytes. */
#include "proxy/access_log/log_entry.h"

#include "proto/pb.h"
#include "proto/wire.h"

#define ENTRY(NAME) ENVOY__DATA__ACCESSLOG__V3__HTTPACCESS_LOG_ENTRY__HTTPVERSION__##NAME

static Envoy__Data__Accesslog__V3__HTTPAccessLogEntry__HTTPVersion
version_of(enum kb_protocol protocol)
{
    switch (protocol) {
    case KB_PROTOCOL_HTTP10:
        return ENTRY(HTTP10);
    case KB_PROTOCOL_HTTP11:
        return ENTRY(HTTP11);
    case KB_PROTOCOL_HTTP2:
        return ENTRY(HTTP2);
    case KB_PROTOCOL_NONE:
    default:
        return ENTRY(PROTOCOL_UNSPECIFIED);
    }
}

static Envoy__Config__Core__V3__RequestMethod method_of(struct kb_str method)
{
    static const char *const names[] = {"METHOD_UNSPECIFIED",
                                        "GET",
                                        "HEAD",
                                        "POST",
                                        "PUT",
                                        "DELETE",
                                        "CONNECT",
                                        "OPTIONS",
                                        "TRACE",
                                        "PATCH"};

    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        if (kb_str_eq(method, kb_str_from_cstr(names[i]))) {
            return (Envoy__Config__Core__V3__RequestMethod)i;
        }
    }
    return ENVOY__CONFIG__CORE__V3__REQUEST_METHOD__METHOD_UNSPECIFIED;
}

static char *header_text(const struct kb_header_map *map, const char *name, struct kb_arena *arena)
{
    return kb_pb_text(kb_header_map_value(map, kb_str_from_cstr(name)), arena);
}

/* All map entries of headers have one shape. */
typedef Envoy__Data__Accesslog__V3__HTTPRequestProperties__RequestHeadersEntry header_entry;

/* Those of the names that the map has. Returns how many; *entries may be NULL then. */
static size_t headers_pick(const struct kb_header_map *map, const struct kb_str *names,
                           size_t count, const ProtobufCMessageDescriptor *type,
                           struct kb_arena *arena, header_entry ***entries)
{
    size_t found = 0;

    *entries = NULL;
    if (map == NULL || count == 0) {
        return 0;
    }
    *entries = kb_arena_calloc(arena, count * sizeof(**entries));
    for (size_t i = 0; i < count; i++) {
        struct kb_str value = kb_header_map_joined(map, names[i]);

        if (value.p != NULL) {
            header_entry *entry = (header_entry *)(void *)kb_pb_new(type, arena);

            entry->key = kb_pb_text(names[i], arena);
            entry->value = kb_pb_text(value, arena);
            (*entries)[found++] = entry;
        }
    }
    return found;
}

static Envoy__Data__Accesslog__V3__HTTPRequestProperties *
request_make(const struct kb_log_entry_config *config, const struct kb_formatter_input *input,
             const struct kb_stream_info *info, struct kb_arena *arena)
{
    Envoy__Data__Accesslog__V3__HTTPRequestProperties *request =
        KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__HTTPRequestProperties);
    const struct kb_header_map *map = input->request;

    envoy__data__accesslog__v3__httprequest_properties__init(request);
    request->request_body_bytes = info->bytes_received;
    request->downstream_header_bytes_received = info->header_bytes_received;
    request->upstream_header_bytes_sent = info->upstream.header_bytes_sent;
    if (map == NULL) {
        return request;
    }
    request->request_method = method_of(map->method);
    request->scheme = kb_pb_text(map->scheme, arena);
    request->authority = kb_pb_text(map->authority, arena);
    request->path = kb_pb_text(map->path, arena);
    request->user_agent = header_text(map, "user-agent", arena);
    request->referer = header_text(map, "referer", arena);
    request->forwarded_for = header_text(map, "x-forwarded-for", arena);
    request->request_id = header_text(map, "x-request-id", arena);
    request->original_path = header_text(map, "x-envoy-original-path", arena);
    request->request_headers_bytes = kb_header_map_bytes(map);
    request->n_request_headers = headers_pick(
        map, config->request_headers, config->request_header_count,
        &envoy__data__accesslog__v3__httprequest_properties__request_headers_entry__descriptor,
        arena, &request->request_headers);
    return request;
}

static Envoy__Data__Accesslog__V3__HTTPResponseProperties *
response_make(const struct kb_log_entry_config *config, const struct kb_formatter_input *input,
              const struct kb_stream_info *info, struct kb_arena *arena)
{
    Envoy__Data__Accesslog__V3__HTTPResponseProperties *response =
        KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__HTTPResponseProperties);

    envoy__data__accesslog__v3__httpresponse_properties__init(response);
    response->response_body_bytes = info->bytes_sent;
    response->downstream_header_bytes_sent = info->header_bytes_sent;
    response->upstream_header_bytes_received = info->upstream.header_bytes_received;
    if (info->response_code != 0) {
        response->response_code = KB_ARENA_NEW(arena, Google__Protobuf__UInt32Value);
        google__protobuf__uint32_value__init(response->response_code);
        response->response_code->value = info->response_code;
    }
    response->response_code_details = kb_pb_text(info->response_code_details, arena);
    if (input->response != NULL) {
        response->response_headers_bytes = kb_header_map_bytes(input->response);
    }
    response->n_response_headers = headers_pick(
        input->response, config->response_headers, config->response_header_count,
        &envoy__data__accesslog__v3__httpresponse_properties__response_headers_entry__descriptor,
        arena, (header_entry ***)(void *)&response->response_headers);
    response->n_response_trailers = headers_pick(
        input->response_trailers, config->response_trailers, config->response_trailer_count,
        &envoy__data__accesslog__v3__httpresponse_properties__response_trailers_entry__descriptor,
        arena, (header_entry ***)(void *)&response->response_trailers);
    return response;
}

Envoy__Data__Accesslog__V3__HTTPAccessLogEntry *
kb_log_entry_http(const struct kb_log_entry_config *config, const struct kb_formatter_input *input,
                  const struct kb_stream_info *info, struct kb_arena *arena)
{
    Envoy__Data__Accesslog__V3__HTTPAccessLogEntry *entry =
        KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__HTTPAccessLogEntry);

    envoy__data__accesslog__v3__httpaccess_log_entry__init(entry);
    entry->common_properties = kb_log_entry_common(config, input, info, arena);
    entry->protocol_version = version_of(info->protocol);
    entry->request = request_make(config, input, info, arena);
    entry->response = response_make(config, input, info, arena);
    return entry;
}

Envoy__Data__Accesslog__V3__TCPAccessLogEntry *
kb_log_entry_tcp(const struct kb_log_entry_config *config, const struct kb_formatter_input *input,
                 const struct kb_stream_info *info, struct kb_arena *arena)
{
    Envoy__Data__Accesslog__V3__TCPAccessLogEntry *entry =
        KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__TCPAccessLogEntry);
    Envoy__Data__Accesslog__V3__ConnectionProperties *bytes =
        KB_ARENA_NEW(arena, Envoy__Data__Accesslog__V3__ConnectionProperties);

    envoy__data__accesslog__v3__tcpaccess_log_entry__init(entry);
    envoy__data__accesslog__v3__connection_properties__init(bytes);
    entry->common_properties = kb_log_entry_common(config, input, info, arena);
    bytes->received_bytes = info->bytes_received;
    bytes->sent_bytes = info->bytes_sent;
    entry->connection_properties = bytes;
    return entry;
}
