/* SPDX-License-Identifier: Apache-2.0 */
/* Events of health checks: to which files they go, and what a line says (Envoy
 * HealthCheckEventLoggerImpl). */
#include "envoy/data/core/v3/health_check_event.pb-c.h"
#include "envoy/extensions/health_check/event_sinks/file/v3/file.pb-c.h"

#include "proto/address.h"
#include "proto/any.h"
#include "proto/pb.h"
#include "proto/wire.h"
#include "proxy/api/event_log.h"
#include "proxy/upstream/health_checker_internal.h"

#define NEW(type, lower, arena) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

typedef Envoy__Data__Core__V3__HealthCheckEvent HealthCheckEvent;
typedef Envoy__Extensions__HealthCheck__EventSinks__File__V3__HealthCheckEventFileSink FileSink;

/* ---- where to ---- */

static void file_add(struct kb_health_checker *checker, const char *path, const char *field,
                     struct kb_diag *diag)
{
    struct kb_log_file *file;

    kb_diag_push(diag, field);
    file = kb_event_log_open(checker->server, kb_str_from_cstr(path), diag);
    kb_diag_pop(diag);
    if (file != NULL) {
        checker->event_files[checker->event_file_count++] = file;
    }
}

static void sink_add(struct kb_health_checker *checker,
                     const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                     struct kb_arena *arena, struct kb_diag *diag)
{
    const Google__Protobuf__Any *any = message->typed_config;
    struct kb_str type = any == NULL ? KB_STR("") : kb_any_type_name(any->type_url);
    const FileSink *sink;

    if (!kb_str_eq(
            type,
            KB_STR("envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"))) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      message->name, KB_STR_ARG(type));
        return;
    }
    kb_diag_push(diag, "typed_config");
    sink = KB_ANY_UNPACK(
        any, envoy__extensions__health_check__event_sinks__file__v3__health_check_event_file_sink,
        FileSink, arena, diag);
    if (sink != NULL) {
        file_add(checker, sink->event_log_path, "event_log_path", diag);
    }
    kb_diag_pop(diag);
}

void kb_health_events_read(struct kb_health_checker *checker,
                           const Envoy__Config__Core__V3__HealthCheck *message,
                           struct kb_arena *arena, struct kb_diag *diag)
{
    checker->event_files = kb_arena_calloc(
        &checker->config.arena, (message->n_event_logger + 1) * sizeof(struct kb_log_file *));
    if (message->event_log_path[0] != '\0') {
        file_add(checker, message->event_log_path, "event_log_path", diag);
    }
    for (size_t i = 0; i < message->n_event_logger; i++) {
        kb_diag_push_index(diag, "event_logger", i);
        sink_add(checker, message->event_logger[i], arena, diag);
        kb_diag_pop(diag);
    }
}

/* ---- what ---- */

/* Who, where and when. */
static HealthCheckEvent *event_create(const struct kb_health_session *session,
                                      struct kb_arena *arena)
{
    static const Envoy__Data__Core__V3__HealthCheckerType types[] = {
        [KB_HEALTH_HTTP1] = ENVOY__DATA__CORE__V3__HEALTH_CHECKER_TYPE__HTTP,
        [KB_HEALTH_HTTP2] = ENVOY__DATA__CORE__V3__HEALTH_CHECKER_TYPE__HTTP,
        [KB_HEALTH_GRPC] = ENVOY__DATA__CORE__V3__HEALTH_CHECKER_TYPE__GRPC,
        [KB_HEALTH_TCP] = ENVOY__DATA__CORE__V3__HEALTH_CHECKER_TYPE__TCP,
    };
    const struct kb_host *host = session->host;
    struct kb_addr addr = kb_host_addr(host);
    uint64_t wall_ns = kb_loop_wall_ns(&session->checker->server->main->loop);
    struct kb_str metadata = kb_host_metadata(host);
    HealthCheckEvent *event =
        NEW(HealthCheckEvent, envoy__data__core__v3__health_check_event, arena);
    ProtobufCMessage *unpacked;

    event->health_checker_type = types[session->checker->config.kind];
    event->host = kb_address_message(&addr, arena);
    event->cluster_name = kb_pb_text(host->cluster->name, arena);
    event->timestamp = NEW(Google__Protobuf__Timestamp, google__protobuf__timestamp, arena);
    event->timestamp->seconds = (int64_t)(wall_ns / 1000000000);
    event->timestamp->nanos = (int32_t)(wall_ns / 1000000 % 1000 * 1000000);
    if (metadata.len > 0 && kb_pb_unpack(&envoy__config__core__v3__metadata__descriptor, metadata,
                                         arena, &unpacked) == 0) {
        event->metadata = (Envoy__Config__Core__V3__Metadata *)(void *)unpacked;
    }
    event->locality =
        NEW(Envoy__Config__Core__V3__Locality, envoy__config__core__v3__locality, arena);
    event->locality->region = kb_pb_text(host->locality->region, arena);
    event->locality->zone = kb_pb_text(host->locality->zone, arena);
    event->locality->sub_zone = kb_pb_text(host->locality->sub_zone, arena);
    return event;
}

static Envoy__Data__Core__V3__HealthCheckFailureType failure_type(enum kb_health_result result)
{
    switch (result) {
    case KB_HEALTH_NETWORK:
        return ENVOY__DATA__CORE__V3__HEALTH_CHECK_FAILURE_TYPE__NETWORK;
    case KB_HEALTH_TIMEOUT:
        return ENVOY__DATA__CORE__V3__HEALTH_CHECK_FAILURE_TYPE__NETWORK_TIMEOUT;
    case KB_HEALTH_PASSIVE:
        return ENVOY__DATA__CORE__V3__HEALTH_CHECK_FAILURE_TYPE__PASSIVE;
    case KB_HEALTH_OK:
    case KB_HEALTH_DEGRADED:
    case KB_HEALTH_FAILED:
    case KB_HEALTH_RETRIABLE:
    default:
        return ENVOY__DATA__CORE__V3__HEALTH_CHECK_FAILURE_TYPE__ACTIVE;
    }
}

#define EVENT(name) ENVOY__DATA__CORE__V3__HEALTH_CHECK_EVENT__EVENT_##name

static void failure_fill(HealthCheckEvent *event, const struct kb_health_session *session,
                         bool ejected, enum kb_health_result result, struct kb_arena *arena)
{
    uint32_t status = session->probe.status;

    if (ejected) {
        event->event_case = EVENT(EJECT_UNHEALTHY_EVENT);
        event->eject_unhealthy_event =
            NEW(Envoy__Data__Core__V3__HealthCheckEjectUnhealthy,
                envoy__data__core__v3__health_check_eject_unhealthy, arena);
        event->eject_unhealthy_event->failure_type = failure_type(result);
        event->eject_unhealthy_event->http_status_code = status;
        return;
    }
    event->event_case = EVENT(HEALTH_CHECK_FAILURE_EVENT);
    event->health_check_failure_event = NEW(Envoy__Data__Core__V3__HealthCheckFailure,
                                            envoy__data__core__v3__health_check_failure, arena);
    event->health_check_failure_event->failure_type = failure_type(result);
    event->health_check_failure_event->first_check = session->first_check;
    event->health_check_failure_event->http_status_code = status;
}

static void event_fill(HealthCheckEvent *event, const struct kb_health_session *session,
                       enum kb_health_event kind, enum kb_health_result result,
                       struct kb_arena *arena)
{
    switch (kind) {
    case KB_HEALTH_EVENT_EJECTED:
    case KB_HEALTH_EVENT_FAILURE:
        failure_fill(event, session, kind == KB_HEALTH_EVENT_EJECTED, result, arena);
        break;
    case KB_HEALTH_EVENT_ADDED:
        event->event_case = EVENT(ADD_HEALTHY_EVENT);
        event->add_healthy_event = NEW(Envoy__Data__Core__V3__HealthCheckAddHealthy,
                                       envoy__data__core__v3__health_check_add_healthy, arena);
        event->add_healthy_event->first_check = session->first_check;
        break;
    case KB_HEALTH_EVENT_SUCCESS:
        event->event_case = EVENT(SUCCESSFUL_HEALTH_CHECK_EVENT);
        event->successful_health_check_event =
            NEW(Envoy__Data__Core__V3__HealthCheckSuccessful,
                envoy__data__core__v3__health_check_successful, arena);
        break;
    case KB_HEALTH_EVENT_DEGRADED:
        event->event_case = EVENT(DEGRADED_HEALTHY_HOST);
        event->degraded_healthy_host = NEW(Envoy__Data__Core__V3__DegradedHealthyHost,
                                           envoy__data__core__v3__degraded_healthy_host, arena);
        break;
    case KB_HEALTH_EVENT_NO_LONGER_DEGRADED:
    default:
        event->event_case = EVENT(NO_LONGER_DEGRADED_HOST);
        event->no_longer_degraded_host = NEW(Envoy__Data__Core__V3__NoLongerDegradedHost,
                                             envoy__data__core__v3__no_longer_degraded_host, arena);
        break;
    }
}

void kb_health_event_log(const struct kb_health_session *session, enum kb_health_event kind,
                         enum kb_health_result result)
{
    const struct kb_health_checker *checker = session->checker;
    HealthCheckEvent *event;
    struct kb_arena arena;

    if (checker->event_file_count == 0) {
        return;
    }
    kb_arena_init(&arena, NULL);
    event = event_create(session, &arena);
    event_fill(event, session, kind, result, &arena);
    for (size_t i = 0; i < checker->event_file_count; i++) {
        kb_event_log_write(checker->event_files[i], checker->server, &event->base);
    }
    kb_arena_dispose(&arena);
}
