/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.access_loggers.open_telemetry: a log record per stream or connection to a collector over
 * OTLP/gRPC. Config:
 * envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.
 * https://opentelemetry.io/docs/specs/otlp/ */
#include "envoy/extensions/access_loggers/open_telemetry/v3/logs_service.pb-c.h"
#include "opentelemetry/proto/logs/v1/logs.pb-c.h"
#include "opentelemetry/proto/resource/v1/resource.pb-c.h"
#include "proto/pb.h"
#include "proto/wire.h"
#include "proto/wkt.h"
#include "proxy/access_log/log_entry.h"
#include "proxy/ext/access_logger/grpc_log.h"
#include "proxy/ext/access_logger/open_telemetry_value.h"

#define FLUSH_INTERVAL_MS 1000
#define BUFFER_BYTES      16384
#define RESOURCE_LOGS_TAG \
    0x0a /* ExportLogsServiceRequest.resource_logs; its resource, scope_logs */
#define SCOPE_LOGS_TAG  0x12
#define LOG_RECORDS_TAG 0x12 /* ScopeLogs.log_records */

typedef Envoy__Extensions__AccessLoggers__OpenTelemetry__V3__OpenTelemetryAccessLogConfig Config;
typedef Opentelemetry__Proto__Logs__V1__LogRecord LogRecord;
typedef Opentelemetry__Proto__Common__V1__KeyValue KeyValue;

struct otel_logger {
    KB_OBJ;
    struct kb_grpc_log *log;
    const struct kb_otel_value *body; /* NULL: none */
    const struct kb_otel_attribute *attributes;
    size_t attribute_count;
    const struct kb_custom_tag *tags;
    size_t tag_count;
    const struct kb_filter_state_key **states;
    size_t state_count;
};
KB_OBJ_MAGIC(otel_logger, 0x4f54454c);

/* ---- configuration ---- */

/* What stands in one of two places; common_config is the older one. */
struct otel_common {
    const Envoy__Config__Core__V3__GrpcService *service;
    const char *log_name;
    const Google__Protobuf__Duration *flush_interval;
    const Google__Protobuf__UInt32Value *buffer_size_bytes;
    char *const *states;
    size_t state_count;
    Envoy__Type__Tracing__V3__CustomTag *const *tags;
    size_t tag_count;
};

static void common_read(struct otel_common *common, const Config *config)
{
    const Envoy__Extensions__AccessLoggers__Grpc__V3__CommonGrpcAccessLogConfig *old =
        config->common_config;

    *common = (struct otel_common){
        .service = config->grpc_service,
        .log_name = config->log_name,
        .flush_interval = config->buffer_flush_interval,
        .buffer_size_bytes = config->buffer_size_bytes,
        .states = config->filter_state_objects_to_log,
        .state_count = config->n_filter_state_objects_to_log,
        .tags = config->custom_tags,
        .tag_count = config->n_custom_tags,
    };
    if (old != NULL) { /* its tags and filter state count for nothing, as in Envoy */
        common->service = old->grpc_service != NULL ? old->grpc_service : config->grpc_service;
        common->log_name = old->log_name;
        common->flush_interval = old->buffer_flush_interval;
        common->buffer_size_bytes = old->buffer_size_bytes;
    }
}

/* ResourceLogs.resource as a field: who we are, and what the configuration adds. */
static struct kb_str resource_bytes(const Config *config, const struct otel_common *common,
                                    const struct kb_server_context *server, struct kb_arena *arena)
{
    const struct {
        char *key;
        struct kb_str value;
    } own[] = {{(char *)(uintptr_t)"log_name", kb_str_from_cstr(common->log_name)},
               {(char *)(uintptr_t)"zone_name", server->node_zone},
               {(char *)(uintptr_t)"cluster_name", server->node_cluster},
               {(char *)(uintptr_t)"node_name", server->node_id}};
    size_t more = config->resource_attributes != NULL ? config->resource_attributes->n_values : 0;
    Opentelemetry__Proto__Resource__V1__Resource resource =
        OPENTELEMETRY__PROTO__RESOURCE__V1__RESOURCE__INIT;
    Opentelemetry__Proto__Logs__V1__ResourceLogs logs =
        OPENTELEMETRY__PROTO__LOGS__V1__RESOURCE_LOGS__INIT;

    resource.attributes =
        kb_arena_calloc(arena, (KB_ARRAY_LEN(own) + more) * sizeof(*resource.attributes));
    for (size_t i = 0; !config->disable_builtin_labels && i < KB_ARRAY_LEN(own); i++) {
        resource.attributes[resource.n_attributes++] =
            kb_otel_attribute_make(own[i].key, kb_pb_text(own[i].value, arena), arena);
    }
    for (size_t i = 0; i < more; i++) {
        resource.attributes[resource.n_attributes++] = config->resource_attributes->values[i];
    }
    logs.resource = &resource;
    return kb_pb_pack(&logs.base, arena);
}

static struct kb_grpc_log *log_get(const Config *config, const struct otel_common *common,
                                   struct kb_factory_context *factory, struct kb_diag *diag)
{
    const char *prefix = config->stat_prefix;
    struct kb_grpc_log_options options = {
        .service = common->service,
        .kind = "open_telemetry",
        .key = kb_pb_pack(&config->base, factory->arena),
        .path = KB_STR("/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        .stat_prefix = kb_str_printf(factory->arena, "access_logs.open_telemetry_access_log.%s%s",
                                     prefix, prefix[0] != '\0' ? "." : ""),
        .flush_interval_ms = kb_wkt_duration_ms(common->flush_interval, FLUSH_INTERVAL_MS),
        .buffer_bytes = kb_wkt_u32(common->buffer_size_bytes, BUFFER_BYTES),
        .levels = {{KB_STR_NULL, RESOURCE_LOGS_TAG},
                   {resource_bytes(config, common, factory->server, factory->arena),
                    SCOPE_LOGS_TAG}},
        .level_count = 2,
        .entry_tag = LOG_RECORDS_TAG,
        .unary = true,
    };
    struct kb_grpc_log *log;

    if (common->service == NULL) {
        kb_diag_error_hint(diag, KB_STR("use grpc_service"),
                           config->http_service != NULL ? "http_service is not implemented"
                                                        : "a gRPC service is required");
        return NULL;
    }
    kb_diag_push(diag, "grpc_service");
    log = kb_grpc_log_get(factory->server, &options, diag);
    kb_diag_pop(diag);
    return log;
}

static bool values_create(struct otel_logger *logger, const Config *config, struct kb_arena *arena,
                          struct kb_diag *diag)
{
    bool ok = true;

    if (config->body != NULL) {
        kb_diag_push(diag, "body");
        logger->body = kb_otel_value_create(config->body, arena, diag);
        ok = logger->body != NULL;
        kb_diag_pop(diag);
    }
    kb_diag_push(diag, "attributes");
    logger->attributes =
        kb_otel_attributes_create(config->attributes, arena, diag, &logger->attribute_count);
    kb_diag_pop(diag);
    return ok && logger->attributes != NULL;
}

static int otel_create(const void *message, struct kb_factory_context *factory,
                       struct kb_diag *diag, void **created)
{
    struct otel_logger *logger = KB_ARENA_NEW(factory->arena, struct otel_logger);
    const Config *config = message;
    struct otel_common common;

    KB_OBJ_SET(logger, otel_logger);
    common_read(&common, config);
    if (!values_create(logger, config, factory->arena, diag)) {
        return KB_ECONFIG;
    }
    logger->tags = kb_custom_tags_create(common.tags, common.tag_count, factory->arena, diag);
    logger->tag_count = common.tag_count;
    logger->states =
        kb_arena_calloc(factory->arena, (common.state_count + 1) * sizeof(*logger->states));
    logger->state_count = common.state_count;
    for (size_t i = 0; i < common.state_count; i++) {
        logger->states[i] = kb_filter_state_key(kb_str_from_cstr(common.states[i]));
    }
    if (logger->tags == NULL) {
        return KB_ECONFIG;
    }
    logger->log = log_get(config, &common, factory, diag);
    *created = logger;
    return logger->log != NULL ? 0 : KB_ECONFIG;
}

static void otel_destroy(void *created)
{
    struct otel_logger *logger = KB_CAST(created, otel_logger);

    kb_grpc_log_release(logger->log);
    KB_OBJ_CLEAR(logger);
}

/* ---- on the worker ---- */

static void attributes_add(LogRecord *record, const struct otel_logger *logger,
                           const struct kb_formatter_input *input,
                           const struct kb_stream_info *info, struct kb_arena *arena)
{
    for (size_t i = 0; i < logger->attribute_count; i++) {
        KeyValue *attribute = KB_ARENA_NEW(arena, KeyValue);

        opentelemetry__proto__common__v1__key_value__init(attribute);
        attribute->key = logger->attributes[i].key;
        attribute->value = kb_otel_value_make(logger->attributes[i].value, input, info, arena);
        record->attributes[record->n_attributes++] = attribute;
    }
}

static void text_add(LogRecord *record, struct kb_str key, struct kb_str text,
                     struct kb_arena *arena)
{
    record->attributes[record->n_attributes++] =
        kb_otel_attribute_make(kb_pb_text(key, arena), kb_pb_text(text, arena), arena);
}

/* Objects of the filter state by their JSON, as Envoy writes it. */
static void states_add(LogRecord *record, const struct otel_logger *logger,
                       const struct kb_stream_info *info, struct kb_arena *arena)
{
    for (size_t i = 0; i < logger->state_count; i++) {
        const struct kb_filter_state_item *item = kb_filter_state_find(info, logger->states[i]);
        struct kb_str json;

        if (item == NULL) {
            item = kb_filter_state_item_find(info->upstream.filter_state, logger->states[i]);
        }
        if (item != NULL && item->type->json != NULL &&
            item->type->json(item->object, arena, &json)) {
            text_add(record, kb_filter_state_key_name(logger->states[i]), json, arena);
        }
    }
}

static void otel_log(void *created, const struct kb_formatter_input *input,
                     const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct otel_logger *logger = KB_CAST(created, otel_logger);
    LogRecord *record = KB_ARENA_NEW(arena, LogRecord);
    size_t most = logger->attribute_count + logger->state_count + logger->tag_count;

    opentelemetry__proto__logs__v1__log_record__init(record);
    record->time_unix_nano = info->wall_start_ns;
    if (logger->body != NULL) {
        record->body = kb_otel_value_make(logger->body, input, info, arena);
    }
    record->attributes = kb_arena_calloc(arena, (most + 1) * sizeof(*record->attributes));
    attributes_add(record, logger, input, info, arena);
    states_add(record, logger, info, arena);
    for (size_t i = 0; i < logger->tag_count; i++) {
        struct kb_str value = kb_custom_tag_value(&logger->tags[i], input, info, arena);

        if (value.len > 0) {
            text_add(record, logger->tags[i].name, value, arena);
        }
    }
    kb_grpc_log_write(logger->log, info->worker, &record->base, true);
}

extern const struct kb_access_logger_ops kb_ext_access_logger_open_telemetry;
const struct kb_access_logger_ops kb_ext_access_logger_open_telemetry = {
    .name = "envoy.access_loggers.open_telemetry",
    .type_url = "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
    .create = otel_create,
    .destroy = otel_destroy,
    .log = otel_log,
};
