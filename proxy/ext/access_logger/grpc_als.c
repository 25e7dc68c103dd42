/* SPDX-License-Identifier: Apache-2.0 */
/* CommonGrpcAccessLogConfig: the stream to envoy.service.accesslog.v3.AccessLogService. */
#include "proxy/ext/access_logger/grpc_als.h"

#include "envoy/service/accesslog/v3/als.pb-c.h"
#include "proto/pb.h"
#include "proto/wkt.h"

#define FLUSH_INTERVAL_MS 1000
#define BUFFER_BYTES      16384
#define HTTP_LOGS_TAG     0x12 /* StreamAccessLogsMessage.http_logs, .tcp_logs; their log_entry */
#define TCP_LOGS_TAG      0x1a
#define LOG_ENTRY_TAG     0x0a

typedef Envoy__Extensions__AccessLoggers__Grpc__V3__CommonGrpcAccessLogConfig common_config;

/* The first message's field: who we are. */
static struct kb_str identifier_bytes(const common_config *config,
                                      const struct kb_server_context *server,
                                      struct kb_arena *arena)
{
    Envoy__Service__Accesslog__V3__StreamAccessLogsMessage message =
        ENVOY__SERVICE__ACCESSLOG__V3__STREAM_ACCESS_LOGS_MESSAGE__INIT;
    Envoy__Service__Accesslog__V3__StreamAccessLogsMessage__Identifier identifier =
        ENVOY__SERVICE__ACCESSLOG__V3__STREAM_ACCESS_LOGS_MESSAGE__IDENTIFIER__INIT;

    identifier.node = (Envoy__Config__Core__V3__Node *)(uintptr_t)server->node;
    identifier.log_name = config->log_name;
    message.identifier = &identifier;
    return kb_pb_pack(&message.base, arena);
}

static bool version_check(const common_config *config, struct kb_diag *diag)
{
    if (config->transport_api_version == ENVOY__CONFIG__CORE__V3__API_VERSION__V3) {
        return true;
    }
    kb_diag_push(diag, "transport_api_version");
    kb_diag_error_hint(diag, KB_STR("set it to V3"),
                       "V2 (and AUTO) xDS transport protocol versions are deprecated");
    kb_diag_pop(diag);
    return false;
}

static bool entry_init(struct kb_log_entry_config *entry, const common_config *config,
                       struct kb_arena *arena, struct kb_diag *diag)
{
    const struct kb_filter_state_key **states =
        kb_arena_calloc(arena, (config->n_filter_state_objects_to_log + 1) * sizeof(*states));

    for (size_t i = 0; i < config->n_filter_state_objects_to_log; i++) {
        states[i] = kb_filter_state_key(kb_str_from_cstr(config->filter_state_objects_to_log[i]));
    }
    entry->states = states;
    entry->state_count = config->n_filter_state_objects_to_log;
    entry->tags = kb_custom_tags_create(config->custom_tags, config->n_custom_tags, arena, diag);
    entry->tag_count = config->n_custom_tags;
    return entry->tags != NULL;
}

static struct kb_grpc_log *log_get(enum kb_grpc_als_kind kind, const common_config *config,
                                   struct kb_factory_context *factory, struct kb_diag *diag)
{
    bool http = kind == KB_GRPC_ALS_HTTP;
    struct kb_grpc_log_options options = {
        .service = config->grpc_service,
        .key = kb_pb_pack(&config->base, factory->arena),
        .kind = http ? "http als" : "tcp als",
        .path = KB_STR("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"),
        .stat_prefix = KB_STR("access_logs.grpc_access_log."),
        .flush_interval_ms = kb_wkt_duration_ms(config->buffer_flush_interval, FLUSH_INTERVAL_MS),
        .buffer_bytes = kb_wkt_u32(config->buffer_size_bytes, BUFFER_BYTES),
        .levels = {{identifier_bytes(config, factory->server, factory->arena),
                    http ? HTTP_LOGS_TAG : TCP_LOGS_TAG}},
        .level_count = 1,
        .entry_tag = LOG_ENTRY_TAG,
    };
    struct kb_grpc_log *log;

    kb_diag_push(diag, "grpc_service");
    log = kb_grpc_log_get(factory->server, &options, diag);
    kb_diag_pop(diag);
    return log;
}

struct kb_grpc_als *kb_grpc_als_create(enum kb_grpc_als_kind kind, const common_config *config,
                                       struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_grpc_als *als = KB_ARENA_NEW(factory->arena, struct kb_grpc_als);
    bool ok;

    KB_OBJ_SET(als, kb_grpc_als);
    kb_diag_push(diag, "common_config");
    ok = version_check(config, diag) && entry_init(&als->entry, config, factory->arena, diag);
    als->log = ok ? log_get(kind, config, factory, diag) : NULL;
    kb_diag_pop(diag);
    return als->log != NULL ? als : NULL;
}

/* The memory is the arena's. */
void kb_grpc_als_destroy(void *logger)
{
    struct kb_grpc_als *als = KB_CAST(logger, kb_grpc_als);

    kb_grpc_log_release(als->log);
    KB_OBJ_CLEAR(als);
}
