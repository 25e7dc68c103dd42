/* SPDX-License-Identifier: Apache-2.0 */
/* Health checks by gRPC: grpc.health.v1.Health/Check, whose answer is SERVING or not.
 * https://github.com/grpc/grpc/blob/master/doc/health-checking.md */
#include <string.h>

#include "proxy/upstream/health_checker_internal.h"

#define MESSAGE_BYTES_MAX 4096
#define TIMEOUT_MAX       99999999 /* eight digits */
#define STATUS_FIELD      1        /* of HealthCheckResponse */
#define SERVING           1

static struct kb_health_session *session_of(void *owner)
{
    return KB_CAST(owner, kb_health_session);
}

/* ---- the question ---- */

/* As Envoy writes grpc-timeout: in the finest unit that eight digits are enough for. */
static struct kb_str timeout_text(uint64_t ms, struct kb_arena *arena)
{
    if (ms <= TIMEOUT_MAX) {
        return kb_str_printf(arena, "%llum", (unsigned long long)ms);
    }
    if (ms / 1000 <= TIMEOUT_MAX) {
        return kb_str_printf(arena, "%lluS", (unsigned long long)(ms / 1000));
    }
    return kb_str_printf(arena, "%lluM", (unsigned long long)KB_MIN(ms / 60000, TIMEOUT_MAX));
}

static const struct kb_h2_stream_callbacks stream_callbacks;

static void grpc_ask(struct kb_health_session *session)
{
    const struct kb_health_config *config = &session->checker->config;
    bool secure = kb_transport_socket_factory_secure(kb_host_transport_socket(session->host));
    struct kb_header_map request;

    kb_health_request_init(session, &request);
    memcpy(request.pseudo_order, "mpas", sizeof(request.pseudo_order));
    request.method = KB_STR("POST");
    request.path = KB_STR("/grpc.health.v1.Health/Check");
    request.authority = kb_health_request_host(session);
    request.scheme = secure ? KB_STR("https") : KB_STR("http");
    kb_header_map_add(&request, KB_STR("te"), KB_STR("trailers"));
    kb_header_map_add_id(&request, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc"));
    kb_header_map_add_id(&request, KB_HDR_USER_AGENT, KB_STR("Envoy/HC"));
    kb_health_request_headers(session, &request);
    kb_header_map_set_id(&request, KB_HDR_GRPC_TIMEOUT,
                         timeout_text(config->timeout_ms, request.arena));
    session->probe.grpc.serving = false;
    session->probe.grpc.has_message = false;
    kb_grpc_frame_reader_dispose(&session->probe.grpc.reader);
    kb_grpc_frame_reader_init(&session->probe.grpc.reader, MESSAGE_BYTES_MAX);
    kb_health_h2_ask(session, &request, config->send, &stream_callbacks);
}

/* ---- the answer ---- */

/* Takes a varint from the front; false: there is none. */
static bool varint_take(struct kb_str *bytes, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 70 && bytes->len > 0; shift += 7) {
        unsigned char byte = (unsigned char)bytes->p[0];

        *bytes = kb_str_from(*bytes, 1);
        *value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool bytes_skip(struct kb_str *bytes, uint64_t n)
{
    if (n > bytes->len) {
        return false;
    }
    *bytes = kb_str_from(*bytes, (size_t)n);
    return true;
}

/* The status of a HealthCheckResponse; false: it is none. */
static bool response_read(struct kb_str bytes, uint64_t *status)
{
    uint64_t tag, value;
    bool fine = true;

    *status = 0;
    while (fine && bytes.len > 0) {
        fine = varint_take(&bytes, &tag) && tag >> 3 != 0;
        if (!fine) {
            break;
        }
        switch (tag & 7) {
        case 0:
            fine = varint_take(&bytes, &value);
            *status = tag >> 3 == STATUS_FIELD ? value : *status;
            break;
        case 1:
            fine = bytes_skip(&bytes, 8);
            break;
        case 2:
            fine = varint_take(&bytes, &value) && bytes_skip(&bytes, value);
            break;
        case 5:
            fine = bytes_skip(&bytes, 4);
            break;
        default:
            fine = false;
            break;
        }
    }
    return fine;
}

static bool on_message(void *arg, struct kb_str message)
{
    struct kb_health_probe *probe = &session_of(arg)->probe;
    uint64_t status;

    if (message.len == 0) {
        return true;
    }
    if (probe->grpc.has_message || !response_read(message, &status)) {
        return false;
    }
    probe->grpc.has_message = true;
    probe->grpc.serving = status == SERVING;
    return true;
}

/* The call ended, with these trailers, or headers that are all of it. */
static void call_ended(struct kb_health_session *session, const struct kb_header_map *headers)
{
    struct kb_str status = kb_header_map_value_id(headers, KB_HDR_GRPC_STATUS);
    bool fine = kb_str_eq(status, KB_STR("0")) && session->probe.grpc.serving;

    kb_health_h2_answered(session, fine ? KB_HEALTH_OK : KB_HEALTH_FAILED);
}

static void on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct kb_health_session *session = session_of(owner);
    struct kb_str type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);
    bool grpc = kb_str_starts_with(type, KB_STR("application/grpc")) &&
                (type.len == 16 || type.p[16] == '+');

    if (end_stream) {
        call_ended(session, headers);
    } else if (headers->status != 200 || !grpc) {
        kb_health_h2_answered(session, KB_HEALTH_FAILED);
    }
}

static void on_data(void *owner, const char *bytes, size_t len)
{
    struct kb_health_session *session = session_of(owner);

    if (kb_grpc_frame_read(&session->probe.grpc.reader, bytes, len, on_message, session) != 0) {
        kb_health_h2_answered(session, KB_HEALTH_FAILED);
    } else {
        kb_h2_stream_consume(session->probe.h2.stream, len);
    }
}

static void on_end(void *owner, struct kb_header_map *trailers)
{
    struct kb_health_session *session = session_of(owner);

    if (trailers == NULL) {
        kb_health_h2_answered(session, KB_HEALTH_FAILED);
    } else {
        call_ended(session, trailers);
    }
}

static void on_below_low(void *owner)
{
    (void)owner;
}

static const struct kb_h2_stream_callbacks stream_callbacks = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_end = on_end,
    .on_reset = kb_health_h2_on_reset,
    .on_below_low = on_below_low,
};

static void grpc_init(struct kb_health_session *session)
{
    kb_grpc_frame_reader_init(&session->probe.grpc.reader, MESSAGE_BYTES_MAX);
    kb_health_h2_init(session);
}

static void grpc_dispose(struct kb_health_session *session)
{
    kb_health_h2_dispose(session);
    kb_grpc_frame_reader_dispose(&session->probe.grpc.reader);
}

const struct kb_health_codec kb_health_grpc_codec = {
    .init = grpc_init,
    .ask = grpc_ask,
    .on_data = kb_health_h2_on_data,
    .cancel = kb_health_h2_cancel,
    .dispose = grpc_dispose,
};
