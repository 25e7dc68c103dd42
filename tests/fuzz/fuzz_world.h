/* SPDX-License-Identifier: Apache-2.0 */
/* A stream with every fact set from the bytes of an input, or not set: what formatters, matchers
 * and loggers look at. Included by one target each: it is the TLS of that program, too. */
#pragma once

#include "tests/fuzz/fuzz.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/doc.h"
#include "proto/pb.h"
#include "proto/pb_json.h"
#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/formatter.h"
#include "proxy/api/route.h"
#include "proxy/api/ssl_connection_info.h"

#define FUZZ_WORLD_LIST_MAX 5

/* Bytes that choose; zeros when they are used up. */
struct fuzz_bytes {
    const uint8_t *p;
    size_t left;
};

struct fuzz_world {
    struct kb_arena arena;
    struct fuzz_bytes bytes;
    struct kb_header_map request, response, trailers;
    struct kb_cluster cluster;
    struct kb_route route;
    struct kb_connection_info connection;
    struct kb_stream_info info;
    struct kb_formatter_input input;
    struct kb_str state_text;
};

/* What the TLS of a connection says; the address stands for the connection's own. */
struct kb_ssl_connection_info {
    struct kb_str texts[KB_SSL_TEXT_COUNT];
    struct kb_str lists[KB_SSL_LIST_COUNT][FUZZ_WORLD_LIST_MAX];
    size_t counts[KB_SSL_LIST_COUNT];
    bool presented;
    int64_t not_before, not_after;
};

struct kb_str kb_ssl_text(const struct kb_ssl_connection_info *ssl, enum kb_ssl_text what)
{
    return ssl != NULL ? ssl->texts[what] : KB_STR_NULL;
}

const struct kb_str *kb_ssl_list(const struct kb_ssl_connection_info *ssl, enum kb_ssl_list what,
                                 size_t *count)
{
    *count = ssl != NULL ? ssl->counts[what] : 0;
    return ssl != NULL ? ssl->lists[what] : NULL;
}

bool kb_ssl_peer_validity(const struct kb_ssl_connection_info *ssl, int64_t *not_before,
                          int64_t *not_after)
{
    if (ssl == NULL || !ssl->presented) {
        return false;
    }
    *not_before = ssl->not_before;
    *not_after = ssl->not_after;
    return true;
}

static inline uint8_t fuzz_byte(struct fuzz_bytes *bytes)
{
    if (bytes->left == 0) {
        return 0;
    }
    bytes->left--;
    return *bytes->p++;
}

/* Small, large, or next to an edge. */
static inline uint64_t fuzz_number(struct fuzz_bytes *bytes)
{
    uint8_t form = fuzz_byte(bytes);
    uint64_t number = 0;

    if (form < 0x80) {
        return form * UINT64_C(1000037);
    }
    if (form < 0x90) {
        return UINT64_MAX - (form & 15);
    }
    for (unsigned i = 0; i < (form & 7U) + 1; i++) {
        number = number << 8 | fuzz_byte(bytes);
    }
    return number;
}

/* As values of a peer are: no NUL, CR or LF. p NULL now and then. */
static inline struct kb_str fuzz_text(struct fuzz_world *world)
{
    size_t len = fuzz_byte(&world->bytes);
    char *copy;

    if (len == 0) {
        return KB_STR_NULL;
    }
    len = KB_MIN(len - 1, world->bytes.left);
    copy = kb_arena_alloc(&world->arena, len + 1, 1);
    for (size_t i = 0; i < len; i++) {
        char c = (char)fuzz_byte(&world->bytes);

        copy[i] = c == '\0' || c == '\r' || c == '\n' ? '?' : c;
    }
    return kb_str_make(copy, len);
}

static inline void fuzz_addr(struct fuzz_world *world, struct kb_addr *addr)
{
    uint8_t bytes[16];
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    struct kb_str path;

    for (unsigned i = 0; i < 2; i++) {
        bytes[i] = fuzz_byte(&world->bytes);
    }
    switch (bytes[0] % 4) {
    case 0:
        memset(addr, 0, sizeof(*addr));
        return;
    case 1:
        in4.sin_port = bytes[1];
        in4.sin_addr.s_addr = (uint32_t)fuzz_number(&world->bytes);
        kb_addr_from_sockaddr(addr, (struct sockaddr *)&in4, sizeof(in4));
        return;
    case 2:
        in6.sin6_port = bytes[1];
        for (unsigned i = 0; i < sizeof(bytes); i++) {
            in6.sin6_addr.s6_addr[i] = fuzz_byte(&world->bytes);
        }
        in6.sin6_scope_id = bytes[0] >> 6;
        kb_addr_from_sockaddr(addr, (struct sockaddr *)&in6, sizeof(in6));
        return;
    default:
        path = fuzz_text(world);
        if (kb_addr_from_path(addr, path) != 0) {
            memset(addr, 0, sizeof(*addr));
        }
        return;
    }
}

static inline struct kb_ssl_connection_info *fuzz_ssl(struct fuzz_world *world)
{
    struct kb_ssl_connection_info *ssl;

    if (fuzz_byte(&world->bytes) % 4 == 0) {
        return NULL;
    }
    ssl = kb_arena_calloc(&world->arena, sizeof(*ssl));
    for (unsigned i = 0; i < KB_SSL_TEXT_COUNT; i++) {
        ssl->texts[i] = fuzz_text(world);
    }
    for (unsigned i = 0; i < KB_SSL_LIST_COUNT; i++) {
        ssl->counts[i] = fuzz_byte(&world->bytes) % (FUZZ_WORLD_LIST_MAX + 1);
        for (size_t k = 0; k < ssl->counts[i]; k++) {
            ssl->lists[i][k] = fuzz_text(world);
        }
    }
    ssl->presented = fuzz_byte(&world->bytes) % 2 == 1;
    ssl->not_before = (int64_t)fuzz_number(&world->bytes);
    ssl->not_after = (int64_t)fuzz_number(&world->bytes);
    return ssl;
}

static inline void fuzz_headers(struct fuzz_world *world, struct kb_header_map *map)
{
    static const char *const names[] = {
        "x-a",          "x-b",         "x-a",  "x-envoy-original-path", "content-type",
        "grpc-status",  "user-agent",  "host", "x-forwarded-for",       "set-cookie",
        "x-request-id", "grpc-message"};
    unsigned count = fuzz_byte(&world->bytes) % 16;

    kb_header_map_init(map, &world->arena);
    for (unsigned i = 0; i < count; i++) {
        const char *name = names[fuzz_byte(&world->bytes) % KB_ARRAY_LEN(names)];

        kb_header_map_append(map, kb_str_from_cstr(name), fuzz_text(world));
    }
}

/* A struct of any content from a line of JSON, or NULL. */
static inline Google__Protobuf__Struct *fuzz_struct(struct kb_arena *arena, struct kb_str json)
{
    ProtobufCMessage *message = NULL;
    struct kb_diag diag;
    struct kb_doc doc;

    kb_diag_init(&diag);
    kb_doc_init(&doc);
    if (json.len > 0 && kb_doc_parse_json(&doc, KB_STR("fuzz"), json, &diag) == 0) {
        message = kb_pb_from_doc(&google__protobuf__struct__descriptor, &doc, KB_PB_UNKNOWN_ERROR,
                                 arena, &diag);
    }
    kb_doc_dispose(&doc);
    kb_diag_dispose(&diag);
    return (Google__Protobuf__Struct *)message;
}

static inline struct kb_str fuzz_metadata_packed(struct fuzz_world *world,
                                                 Google__Protobuf__Struct *value)
{
    Envoy__Config__Core__V3__Metadata metadata = ENVOY__CONFIG__CORE__V3__METADATA__INIT;
    Envoy__Config__Core__V3__Metadata__FilterMetadataEntry entry =
        ENVOY__CONFIG__CORE__V3__METADATA__FILTER_METADATA_ENTRY__INIT;
    Envoy__Config__Core__V3__Metadata__FilterMetadataEntry *entries[] = {&entry};

    entry.key = (char *)(uintptr_t)"n";
    entry.value = value;
    metadata.n_filter_metadata = 1;
    metadata.filter_metadata = entries;
    return kb_pb_pack(&metadata.base, &world->arena);
}

static inline void fuzz_metadata(struct fuzz_world *world, struct kb_str json)
{
    Google__Protobuf__Struct *value = fuzz_struct(&world->arena, json);
    struct kb_str packed;

    if (value == NULL) {
        return;
    }
    kb_dynamic_metadata_merge(&world->info.dynamic_metadata, &world->arena, KB_STR("n"), value);
    kb_dynamic_metadata_update(&world->info.dynamic_metadata, &world->arena, KB_STR("n"), value);
    packed = fuzz_metadata_packed(world, value);
    world->cluster.metadata = packed;
    world->route.metadata = packed;
    world->route.virtual_host_metadata = packed;
    world->connection.listener_metadata = packed;
}

/* The host's texts, and the packed metadata of its cluster. */
static inline void fuzz_host(struct fuzz_world *world)
{
    struct kb_str addr = kb_str_first(fuzz_text(world), 100), name = fuzz_text(world);
    struct kb_str packed = world->cluster.metadata;
    struct kb_shared_text *text;
    struct kb_host *host = kb_arena_calloc(&world->arena, sizeof(*host) + addr.len + name.len);
    char *texts = (char *)host->locals;

    KB_OBJ_SET(host, kb_host);
    host->addr_text_len = (uint8_t)addr.len;
    host->hostname_len = (uint32_t)name.len;
    memcpy(texts, addr.len > 0 ? addr.p : "", addr.len);
    memcpy(texts + addr.len, name.len > 0 ? name.p : "", name.len);
    if (packed.len > 0) {
        text = kb_arena_calloc(&world->arena, sizeof(*text) + packed.len);
        text->len = packed.len;
        memcpy(text->text, packed.p, packed.len);
        host->metadata = text;
    }
    world->info.upstream.host = host;
}

static inline void fuzz_times(struct fuzz_world *world)
{
    struct kb_upstream_info *up = &world->info.upstream;
    uint64_t *const times[] = {&world->info.start_ns,
                               &world->info.wall_start_ns,
                               &world->info.last_rx_ns,
                               &world->info.first_tx_ns,
                               &world->info.last_tx_ns,
                               &world->info.end_ns,
                               &world->info.route_resolution_ns,
                               &up->connect_start_ns,
                               &up->connect_end_ns,
                               &up->handshake_end_ns,
                               &up->connection_pool_asked_ns,
                               &up->connection_pool_ready_ns,
                               &up->first_tx_ns,
                               &up->last_tx_ns,
                               &up->first_rx_ns,
                               &up->first_body_rx_ns,
                               &up->last_rx_ns,
                               &world->info.bytes_received,
                               &world->info.bytes_sent,
                               &up->connection_id,
                               &up->wire_bytes_sent,
                               &world->connection.id};

    for (size_t i = 0; i < KB_ARRAY_LEN(times); i++) {
        *times[i] = fuzz_number(&world->bytes);
    }
}

static inline void fuzz_texts(struct fuzz_world *world)
{
    struct kb_connection_info *connection = &world->connection;
    struct kb_stream_info *info = &world->info;
    struct kb_str *const texts[] = {&world->request.path,
                                    &world->request.method,
                                    &world->request.authority,
                                    &world->request.scheme,
                                    &connection->requested_server_name,
                                    &connection->filter_chain_name,
                                    &connection->listener_name,
                                    &connection->termination_details,
                                    &connection->transport_failure_reason,
                                    &connection->local_close_reason,
                                    &info->response_code_details,
                                    &info->route_name,
                                    &info->virtual_cluster_name,
                                    &info->upstream_cluster_name,
                                    &info->request_id,
                                    &info->upstream.transport_failure_reason,
                                    &info->upstream.local_close_reason,
                                    &info->upstream.hosts_attempted,
                                    &world->cluster.name,
                                    &world->input.local_reply_body,
                                    &world->state_text};

    for (size_t i = 0; i < KB_ARRAY_LEN(texts); i++) {
        *texts[i] = fuzz_text(world);
    }
}

static inline void fuzz_state(struct fuzz_world *world)
{
    struct kb_filter_state_item item = {.key = kb_filter_state_key(KB_STR("k")),
                                        .type = &kb_filter_state_string,
                                        .object = &world->state_text};

    if (world->state_text.p != NULL) {
        (void)!kb_filter_state_put_stream(&world->info, &world->arena, &item);
        (void)!kb_filter_state_put(&world->info.upstream.filter_state, &world->arena, &item);
    }
}

/* Everything out of the bytes; `metadata` is JSON of a struct, or anything. The arena is the
 * caller's to begin and to end, as is world->bytes to set. */
static inline void fuzz_world_make(struct fuzz_world *world, struct kb_str metadata)
{
    struct fuzz_bytes *bytes = &world->bytes;
    struct kb_stream_info *info = &world->info;
    uint8_t present = fuzz_byte(bytes);

    fuzz_headers(world, &world->request);
    fuzz_headers(world, &world->response);
    fuzz_headers(world, &world->trailers);
    fuzz_times(world);
    fuzz_texts(world);
    fuzz_metadata(world, metadata);
    fuzz_host(world);
    fuzz_state(world);
    fuzz_addr(world, &world->connection.direct_remote);
    fuzz_addr(world, &world->connection.remote);
    fuzz_addr(world, &world->connection.local);
    fuzz_addr(world, &world->connection.direct_local);
    fuzz_addr(world, &info->remote);
    fuzz_addr(world, &info->upstream.local);
    fuzz_addr(world, &info->upstream.remote);
    world->response.status = (uint16_t)(fuzz_number(bytes) % 1000);
    info->response_code = (uint16_t)(fuzz_number(bytes) % 1000);
    info->protocol = (enum kb_protocol)(fuzz_byte(bytes) % 4);
    info->upstream.protocol = (enum kb_protocol)(fuzz_byte(bytes) % 4);
    info->attempt_count = (uint32_t)fuzz_number(bytes);
    for (unsigned n = fuzz_byte(bytes) % 8; n > 0; n--) {
        kb_stream_info_set_flag(info, (enum kb_response_flag)(fuzz_byte(bytes) % KB_RF_COUNT));
    }
    world->connection.peer_reset = fuzz_byte(bytes) % 2 == 1;
    world->connection.ssl = fuzz_ssl(world);
    info->upstream.ssl = fuzz_ssl(world);
    info->upstream.cluster = (present & 1) != 0 ? &world->cluster : NULL;
    info->upstream.host = (present & 2) != 0 ? info->upstream.host : NULL;
    info->route = (present & 4) != 0 ? &world->route : NULL;
    info->connection = (present & 8) != 0 ? &world->connection : NULL;
    world->input.request = (present & 16) != 0 ? &world->request : NULL;
    world->input.response = (present & 32) != 0 ? &world->response : NULL;
    world->input.response_trailers = (present & 64) != 0 ? &world->trailers : NULL;
    world->input.access_log_type = (present & 128) != 0 ? "DownstreamEnd" : NULL;
}
