/* SPDX-License-Identifier: Apache-2.0 */
/* What `tracing` changes of requests and answers where no provider collects spans: whether a
 * request would be traced is counted and told in its id, and the operation that a route names is
 * told to the other side (Envoy ConnectionManagerUtility::mutateTracingRequestHeader,
 * ActiveStream::traceRequest). */
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "envoy/extensions/request_id/uuid/v3/uuid.pb-c.h"
#include "envoy/type/v3/percent.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/api/runtime.h"
#include "proxy/http/hcm_internal.h"

#define UUID_LEN      36
#define UUID_REASON   14 /* where the id of a request says whether it is traced */
#define HEX_CHARS     8  /* at the begin of the id; they decide on random sampling */
#define SAMPLING_OF   10000
#define NOT_TRACED    '4'
#define TRACED_RANDOM '9'
#define TRACED_FORCED 'a'
#define TRACED_CLIENT 'b'

/* ---- configuration ---- */

static uint32_t share(const Envoy__Type__V3__Percent *percent)
{
    return percent != NULL ? (uint32_t)(percent->value * (SAMPLING_OF / 100)) : SAMPLING_OF;
}

void kb_hcm_tracing_apply(
    struct kb_hcm_config *config,
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *m,
    bool outbound)
{
    struct kb_hcm_tracing *tracing;

    if (m->tracing == NULL) {
        return;
    }
    tracing = KB_ARENA_NEW(&config->arena, struct kb_hcm_tracing);
    tracing->egress = outbound;
    tracing->client_share = share(m->tracing->client_sampling);
    tracing->random_share = share(m->tracing->random_sampling);
    tracing->overall_share = share(m->tracing->overall_sampling);
    config->tracing = tracing;
}

void kb_hcm_request_id_apply(
    struct kb_hcm_config *config,
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__RequestIDExtension *m,
    struct kb_diag *diag)
{
    const Envoy__Extensions__RequestId__Uuid__V3__UuidRequestIdConfig *uuid;
    struct kb_str type;

    config->request_id_packs_reason = true;
    config->request_id_samples = true;
    if (m == NULL) {
        return;
    }
    kb_diag_push(diag, "request_id_extension");
    type =
        m->typed_config != NULL ? kb_any_inner_name(m->typed_config, &config->arena) : KB_STR("");
    if (!kb_str_eq(type, KB_STR("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"))) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for type: '%.*s' (the one there is: "
                      "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig)",
                      KB_STR_ARG(type));
    } else {
        uuid = KB_ANY_UNPACK(
            m->typed_config, envoy__extensions__request_id__uuid__v3__uuid_request_id_config,
            Envoy__Extensions__RequestId__Uuid__V3__UuidRequestIdConfig, &config->arena, diag);
        if (uuid != NULL) {
            config->request_id_packs_reason = kb_wkt_bool(uuid->pack_trace_reason, true);
            config->request_id_samples = kb_wkt_bool(uuid->use_request_id_for_trace_sampling, true);
        }
    }
    kb_diag_pop(diag);
}

/* ---- the request's id ---- */

void kb_hcm_request_id_mark(struct kb_stream *stream, char reason)
{
    struct kb_header *header = kb_header_map_get_id(&stream->request, KB_HDR_X_REQUEST_ID);

    if (!stream->hcm->config->request_id_packs_reason || header == NULL ||
        header->value.len != UUID_LEN || header->value.p[UUID_REASON] == reason) {
        return;
    }
    header->value = kb_str_dup(&stream->arena, header->value);
    ((char *)(uintptr_t)header->value.p)[UUID_REASON] = reason;
    stream->info.request_id = header->value;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The number that the id begins with; false: it is none. */
static bool id_number(struct kb_str id, uint64_t *number)
{
    *number = 0;
    if (id.len < HEX_CHARS) {
        return false;
    }
    for (size_t i = 0; i < HEX_CHARS; i++) {
        int digit = hex_digit(id.p[i]);

        if (digit < 0) {
            return false;
        }
        *number = *number * 16 + (uint64_t)digit;
    }
    return true;
}

/* What the id says already; NOT_TRACED: nothing. */
static char id_reason(struct kb_str id)
{
    char reason = id.len == UUID_LEN ? id.p[UUID_REASON] : NOT_TRACED;

    return reason == TRACED_FORCED || reason == TRACED_RANDOM || reason == TRACED_CLIENT
               ? reason
               : NOT_TRACED;
}

static char reason_new(struct kb_stream *stream, uint64_t number)
{
    const struct kb_hcm_tracing *tracing = stream->hcm->config->tracing;
    const struct kb_runtime *runtime = stream->hcm->config->server->runtime;
    const struct kb_header_map *map = &stream->request;

    if (kb_header_map_get_id(map, KB_HDR_X_CLIENT_TRACE_ID) != NULL &&
        kb_runtime_feature_enabled(runtime, KB_STR("tracing.client_enabled"), tracing->client_share,
                                   SAMPLING_OF, kb_rand_u64(&stream->hcm->worker->rand))) {
        return TRACED_CLIENT;
    }
    if (kb_header_map_get_id(map, KB_HDR_X_ENVOY_FORCE_TRACE) != NULL) {
        return TRACED_FORCED;
    }
    return kb_runtime_feature_enabled(runtime, KB_STR("tracing.random_sampling"),
                                      tracing->random_share, SAMPLING_OF, number)
               ? TRACED_RANDOM
               : NOT_TRACED;
}

/* Decides, and marks the request's id. */
static char reason_choose(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_str id = kb_header_map_value_id(&stream->request, KB_HDR_X_REQUEST_ID);
    uint64_t number;
    char before;
    char reason;

    if (!config->request_id_samples) {
        return TRACED_RANDOM;
    }
    if (!id_number(id, &number)) {
        return NOT_TRACED;
    }
    number %= SAMPLING_OF;
    before = config->request_id_packs_reason ? id_reason(id) : NOT_TRACED;
    reason = before != NOT_TRACED ? before : reason_new(stream, number);
    if (reason == NOT_TRACED) {
        return reason;
    }
    if (!kb_runtime_feature_enabled(config->server->runtime, KB_STR("tracing.global_enabled"),
                                    config->tracing->overall_share, SAMPLING_OF, number)) {
        reason = NOT_TRACED;
    }
    kb_hcm_request_id_mark(stream, reason);
    return reason;
}

/* ---- requests ---- */

static void reason_count(struct kb_stream *stream, char reason)
{
    uint32_t stat = KB_STAT_HTTP_TRACING_NOT_TRACEABLE;

    if (stream->info.health_check) {
        stat = KB_STAT_HTTP_TRACING_HEALTH_CHECK;
    } else if (reason == TRACED_CLIENT) {
        stat = KB_STAT_HTTP_TRACING_CLIENT_ENABLED;
    } else if (reason == TRACED_FORCED) {
        stat = KB_STAT_HTTP_TRACING_SERVICE_FORCED;
    } else if (reason == TRACED_RANDOM) {
        stat = KB_STAT_HTTP_TRACING_RANDOM_SAMPLING;
    }
    kb_stat_inc(stream->hcm->stats, stat);
}

void kb_hcm_trace_begin(struct kb_stream *stream)
{
    bool chooses = stream->headers_decoded && !stream->recreated;

    reason_count(stream, chooses ? reason_choose(stream) : NOT_TRACED);
}

void kb_hcm_trace_request(struct kb_stream *stream)
{
    const struct kb_hcm_tracing *tracing = stream->hcm->config->tracing;
    const struct kb_route_decorator *decorator =
        stream->route != NULL ? stream->route->decorator : NULL;
    struct kb_header_map *map = &stream->request;
    const struct kb_header *told;

    stream->decorator = decorator != NULL && decorator->propagate && decorator->operation.len > 0
                            ? decorator
                            : NULL;
    if (tracing->egress) {
        if (stream->decorator != NULL) {
            kb_header_map_set_id(map, KB_HDR_X_ENVOY_DECORATOR_OPERATION, decorator->operation);
        }
        return;
    }
    told = kb_header_map_get_id(map, KB_HDR_X_ENVOY_DECORATOR_OPERATION);
    if (told != NULL) {
        if (told->value.len > 0) {
            stream->decorator = NULL; /* the caller's name for it goes before the route's */
        }
        kb_header_map_remove_id(map, KB_HDR_X_ENVOY_DECORATOR_OPERATION);
    }
}

void kb_hcm_trace_response(const struct kb_stream *stream, struct kb_header_map *headers)
{
    if (stream->hcm->config->tracing->egress) {
        kb_header_map_remove_id(headers, KB_HDR_X_ENVOY_DECORATOR_OPERATION);
    } else if (stream->decorator != NULL) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_DECORATOR_OPERATION,
                             stream->decorator->operation);
    }
}
