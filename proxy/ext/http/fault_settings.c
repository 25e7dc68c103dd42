/* SPDX-License-Identifier: Apache-2.0 */
/* HTTPFault messages to the settings that requests use. */
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/extensions/filters/common/fault/v3/fault.pb-c.h"
#include "envoy/extensions/filters/http/fault/v3/fault.pb-c.h"
#include "envoy/type/v3/percent.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/stats.h"
#include "proxy/ext/http/fault.h"
#include "proxy/matcher/runtime_fraction.h"

#define ABORT(name) ENVOY__EXTENSIONS__FILTERS__HTTP__FAULT__V3__FAULT_ABORT__ERROR_TYPE_##name
#define DELAY(name) \
    ENVOY__EXTENSIONS__FILTERS__COMMON__FAULT__V3__FAULT_DELAY__FAULT_DELAY_SECIFIER_##name
#define LIMIT(name) \
    ENVOY__EXTENSIONS__FILTERS__COMMON__FAULT__V3__FAULT_RATE_LIMIT__LIMIT_TYPE_##name

typedef Envoy__Extensions__Filters__Http__Fault__V3__HTTPFault fault_message;

static struct kb_fault_percent percent_of(const Envoy__Type__V3__FractionalPercent *message)
{
    return message != NULL
               ? (struct kb_fault_percent){message->numerator, kb_fraction_denominator(message)}
               : (struct kb_fault_percent){0, 100};
}

static void delay_read(struct kb_fault_settings *settings,
                       const Envoy__Extensions__Filters__Common__Fault__V3__FaultDelay *m)
{
    if (m == NULL) {
        return;
    }
    settings->delay_percent = percent_of(m->percentage);
    if ((int)m->fault_delay_secifier_case == DELAY(FIXED_DELAY)) {
        settings->delay = KB_FAULT_FIXED;
        settings->delay_ms = kb_wkt_duration_ms(m->fixed_delay, 0);
    } else {
        settings->delay = KB_FAULT_HEADER;
    }
}

static void abort_read(struct kb_fault_settings *settings,
                       const Envoy__Extensions__Filters__Http__Fault__V3__FaultAbort *m,
                       struct kb_arena *arena)
{
    if (m == NULL) {
        return;
    }
    settings->abort_percent = percent_of(m->percentage);
    settings->abort_body = m->response_body[0] != '\0'
                               ? kb_str_dup(arena, kb_wkt_str(m->response_body))
                               : KB_STR("fault filter abort");
    switch ((int)m->error_type_case) {
    case ABORT(HTTP_STATUS):
        settings->abort = KB_FAULT_FIXED;
        settings->abort_status = m->http_status;
        break;
    case ABORT(GRPC_STATUS):
        settings->abort = KB_FAULT_GRPC;
        settings->abort_status = m->grpc_status;
        break;
    default:
        settings->abort = KB_FAULT_HEADER;
    }
}

static void limit_read(struct kb_fault_settings *settings,
                       const Envoy__Extensions__Filters__Common__Fault__V3__FaultRateLimit *m)
{
    if (m == NULL) {
        return;
    }
    settings->limit_percent = percent_of(m->percentage);
    if ((int)m->limit_type_case == LIMIT(FIXED_LIMIT)) {
        settings->limit = KB_FAULT_FIXED;
        settings->limit_kbps = m->fixed_limit->limit_kbps;
    } else {
        settings->limit = KB_FAULT_HEADER;
    }
}

static struct kb_str key_of(const char *given, const char *usual, struct kb_arena *arena)
{
    return given[0] != '\0' ? kb_str_dup(arena, kb_wkt_str(given)) : kb_str_from_cstr(usual);
}

static void keys_read(struct kb_fault_settings *settings, const fault_message *m,
                      struct kb_arena *arena)
{
    settings->delay_percent_key =
        key_of(m->delay_percent_runtime, "fault.http.delay.fixed_delay_percent", arena);
    settings->abort_percent_key =
        key_of(m->abort_percent_runtime, "fault.http.abort.abort_percent", arena);
    settings->delay_ms_key =
        key_of(m->delay_duration_runtime, "fault.http.delay.fixed_duration_ms", arena);
    settings->abort_http_key =
        key_of(m->abort_http_status_runtime, "fault.http.abort.http_status", arena);
    settings->abort_grpc_key =
        key_of(m->abort_grpc_status_runtime, "fault.http.abort.grpc_status", arena);
    settings->max_active_key =
        key_of(m->max_active_faults_runtime, "fault.http.max_active_faults", arena);
    settings->limit_percent_key = key_of(m->response_rate_limit_percent_runtime,
                                         "fault.http.rate_limit.response_percent", arena);
}

int kb_fault_route_settings_create(const void *message, struct kb_factory_context *factory,
                                   struct kb_diag *diag, void **out)
{
    const fault_message *m = message;
    struct kb_arena *arena = factory->arena;
    struct kb_fault_settings *settings = KB_ARENA_NEW(arena, struct kb_fault_settings);
    const struct kb_match_build build = {arena, &settings->regexes, diag};

    KB_OBJ_SET(settings, kb_fault_settings);
    settings->runtime = factory->server->runtime;
    delay_read(settings, m->delay);
    abort_read(settings, m->abort, arena);
    limit_read(settings, m->response_rate_limit);
    keys_read(settings, m, arena);
    settings->upstream_cluster = kb_str_dup(arena, kb_wkt_str(m->upstream_cluster));
    settings->header_count = m->n_headers;
    settings->headers = kb_header_matchers_create(m->headers, m->n_headers, "headers", &build);
    settings->downstream_nodes =
        kb_arena_calloc(arena, (m->n_downstream_nodes + 1) * sizeof(struct kb_str));
    settings->downstream_node_count = m->n_downstream_nodes;
    for (size_t i = 0; i < m->n_downstream_nodes; i++) {
        settings->downstream_nodes[i] = kb_str_dup(arena, kb_wkt_str(m->downstream_nodes[i]));
    }
    settings->max_active_faults =
        m->max_active_faults != NULL ? m->max_active_faults->value : UINT64_MAX;
    if (m->filter_metadata != NULL) {
        settings->filter_metadata = kb_pb_copy(&m->filter_metadata->base, arena);
    }
    if ((settings->headers == NULL) != (m->n_headers == 0)) {
        kb_regex_list_dispose(&settings->regexes);
        return KB_ECONFIG;
    }
    *out = settings;
    return 0;
}

int kb_fault_settings_create(const void *message, struct kb_factory_context *factory,
                             struct kb_diag *diag, void **out)
{
    struct kb_fault_settings *settings;
    int rc;

    if (message == NULL) {
        kb_diag_error(diag, "typed_config is required");
        return KB_ECONFIG;
    }
    rc = kb_fault_route_settings_create(message, factory, diag, out);
    if (rc == 0) {
        settings = *out;
        settings->stats = kb_stat_group_create(
            factory->server->stats,
            kb_str_printf(factory->arena, "%.*sfault.", KB_STR_ARG(factory->http_stat_prefix)),
            &kb_stat_schema_fault);
    }
    return rc;
}

void kb_fault_settings_destroy(void *arg)
{
    struct kb_fault_settings *settings;

    if (arg == NULL) {
        return;
    }
    settings = KB_CAST(arg, kb_fault_settings);
    kb_stat_group_destroy(settings->stats);
    kb_regex_list_dispose(&settings->regexes);
    KB_OBJ_CLEAR(settings);
}
