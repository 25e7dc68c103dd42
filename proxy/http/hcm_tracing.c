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

static struct kb_tracing_share share(const Envoy__Type__V3__Percent *percent)
{
    return (struct kb_tracing_share){
        percent != NULL ? (uint32_t)(percent->value * (SAMPLING_OF / 100)) : SAMPLING_OF,
        SAMPLING_OF};
}

/* Nothing shows what the format makes; it has to be one all the same. */
static bool operation_check(struct kb_hcm_config *config, const char *field, const char *format,
                            struct kb_diag *diag)
{
    if (format[0] == '\0') {
        return false;
    }
    kb_diag_push(diag, field);
    (void)kb_formatter_create(&config->arena, kb_str_from_cstr(format), true, diag);
    kb_diag_pop(diag);
    return true;
}

void kb_hcm_tracing_apply(
    struct kb_hcm_config *config,
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *m,
    bool outbound, struct kb_diag *diag)
{
    struct kb_hcm_tracing *tracing;

    if (m->tracing == NULL) {
        return;
    }
    tracing = KB_ARENA_NEW(&config->arena, struct kb_hcm_tracing);
    tracing->egress = outbound;
    tracing->client = share(m->tracing->client_sampling);
    tracing->random = share(m->tracing->random_sampling);
    tracing->overall = share(m->tracing->overall_sampling);
    kb_diag_push(diag, "tracing");
    tracing->names_operation = operation_check(config, "operation", m->tracing->operation, diag);
    operation_check(config, "upstream_operation", m->tracing->upstream_operation, diag);
    kb_diag_pop(diag);
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
    if (m == NULL || m->typed_config == NULL) {
        return;
    }
    kb_diag_push(diag, "request_id_extension");
    type = kb_any_inner_name(m->typed_config, &config->arena);
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

/* Of these shares, those of the route or the connection manager's. */
struct shares {
    struct kb_tracing_share client, random, overall;
};

static struct shares shares_of(const struct kb_stream *stream)
{
    const struct kb_hcm_tracing *all = stream->hcm->config->tracing;
    const struct kb_route_tracing *own = stream->route != NULL ? stream->route->tracing : NULL;

    return own != NULL && own->samples ? (struct shares){own->client, own->random, own->overall}
                                       : (struct shares){all->client, all->random, all->overall};
}

static bool share_holds(const struct kb_stream *stream, struct kb_str key,
                        struct kb_tracing_share of, uint64_t number)
{
    return kb_runtime_feature_enabled(stream->hcm->config->server->runtime, key, of.numerator,
                                      of.denominator, number);
}

static char reason_new(struct kb_stream *stream, const struct shares *shares, uint64_t number)
{
    const struct kb_header_map *map = &stream->request;

    if (kb_header_map_get_id(map, KB_HDR_X_CLIENT_TRACE_ID) != NULL &&
        share_holds(stream, KB_STR("tracing.client_enabled"), shares->client,
                    kb_rand_u64(&stream->hcm->worker->rand))) {
        return TRACED_CLIENT;
    }
    if (kb_header_map_get_id(map, KB_HDR_X_ENVOY_FORCE_TRACE) != NULL) {
        return TRACED_FORCED;
    }
    return share_holds(stream, KB_STR("tracing.random_sampling"), shares->random, number)
               ? TRACED_RANDOM
               : NOT_TRACED;
}

/* Decides, and marks the request's id. */
static char reason_choose(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_str id = kb_header_map_value_id(&stream->request, KB_HDR_X_REQUEST_ID);
    struct shares shares;
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
    shares = shares_of(stream);
    before = config->request_id_packs_reason ? id_reason(id) : NOT_TRACED;
    reason = before != NOT_TRACED ? before : reason_new(stream, &shares, number);
    if (reason == NOT_TRACED) {
        return reason;
    }
    if (!share_holds(stream, KB_STR("tracing.global_enabled"), shares.overall, number)) {
        reason = NOT_TRACED;
    }
    kb_hcm_request_id_mark(stream, reason);
    return reason;
}

/* ---- requests ---- */

void kb_hcm_trace_count(struct kb_stream *stream)
{
    uint32_t stat = KB_STAT_HTTP_TRACING_NOT_TRACEABLE;

    if (stream->info.health_check) {
        stat = KB_STAT_HTTP_TRACING_NOT_TRACEABLE;
    } else if (stream->trace_reason == TRACED_CLIENT) {
        stat = KB_STAT_HTTP_TRACING_CLIENT_ENABLED;
    } else if (stream->trace_reason == TRACED_FORCED) {
        stat = KB_STAT_HTTP_TRACING_SERVICE_FORCED;
    } else if (stream->trace_reason == TRACED_RANDOM) {
        stat = KB_STAT_HTTP_TRACING_RANDOM_SAMPLING;
    }
    kb_stat_inc(stream->hcm->stats, stat);
}

void kb_hcm_trace_begin(struct kb_stream *stream)
{
    /* Later passes of a redirect decide only where they are routed again. */
    stream->trace_reason = stream->recreated ? NOT_TRACED : reason_choose(stream);
}

/* A format names the operation: what decorators say is not told. */
static bool operation_named(const struct kb_stream *stream)
{
    return stream->hcm->config->tracing->names_operation ||
           (stream->route != NULL && stream->route->tracing != NULL &&
            stream->route->tracing->names_operation);
}

static void decorator_set(struct kb_stream *stream)
{
    const struct kb_hcm_tracing *tracing = stream->hcm->config->tracing;
    const struct kb_route_tracing *decorator =
        stream->route != NULL ? stream->route->tracing : NULL;
    struct kb_header_map *map = &stream->request;
    const struct kb_header *told;

    stream->decorator = NULL;
    if (operation_named(stream)) {
        return;
    }
    if (decorator != NULL && decorator->propagate && decorator->operation.len > 0) {
        stream->decorator = decorator;
    }
    if (tracing->egress) {
        if (stream->decorator != NULL) {
            kb_header_map_set_id(map, KB_HDR_X_ENVOY_DECORATOR_OPERATION, decorator->operation);
        }
        return;
    }
    told = kb_header_map_get_id(map, KB_HDR_X_ENVOY_DECORATOR_OPERATION);
    if (told != NULL) {
        /* The caller's name for it goes before the route's. */
        stream->operation_told |= told->value.len > 0;
        kb_header_map_remove_id(map, KB_HDR_X_ENVOY_DECORATOR_OPERATION);
    }
    if (stream->operation_told) {
        stream->decorator = NULL;
    }
}

void kb_hcm_trace_request(struct kb_stream *stream)
{
    stream->trace_begun = true;
    stream->operation_told = false;
    decorator_set(stream);
}

void kb_hcm_trace_refresh(struct kb_stream *stream)
{
    if (stream->trace_begun) {
        stream->trace_reason = reason_choose(stream);
        decorator_set(stream);
    }
}

void kb_hcm_trace_response(struct kb_stream *stream, struct kb_header_map *headers)
{
    kb_hcm_trace_count(stream);
    if (operation_named(stream)) {
        return;
    }
    if (stream->hcm->config->tracing->egress) {
        kb_header_map_remove_id(headers, KB_HDR_X_ENVOY_DECORATOR_OPERATION);
    } else if (stream->decorator != NULL) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_DECORATOR_OPERATION,
                             stream->decorator->operation);
    }
}
