/* SPDX-License-Identifier: Apache-2.0 */
/* How long a stream may last: max_stream_duration of connection manager and route, and what a gRPC
 * client asks for (Envoy ActiveStream::refreshDurationTimeout). */
#include "proxy/http/hcm_internal.h"

#define GRPC_TIMEOUT_MAX 99999999 /* eight digits */

uint64_t kb_grpc_timeout_parse(struct kb_str value)
{
    struct kb_str number;
    uint64_t n;

    if (value.len < 2) {
        return UINT64_MAX;
    }
    /* As Envoy reads numbers: with spaces around, with a plus, with zeros before. */
    number = kb_str_trim(kb_str_first(value, value.len - 1));
    if (number.len > 1 && number.p[0] == '+') {
        number = kb_str_from(number, 1);
    }
    if (kb_str_to_u64(number, &n) != 0 || n > GRPC_TIMEOUT_MAX) {
        return UINT64_MAX;
    }
    switch (value.p[value.len - 1]) {
    case 'H':
        return n * 3600000;
    case 'M':
        return n * 60000;
    case 'S':
        return n * 1000;
    case 'm':
        return n;
    case 'u':
        return (n + 999) / 1000;
    case 'n':
        return (n + 999999) / 1000000;
    default:
        return UINT64_MAX;
    }
}

void kb_stream_grpc_timeout_set(struct kb_stream *stream, uint64_t ms)
{
    static const char units[] = "mSMH";
    const char *unit = units;
    uint64_t n = ms;
    char *text;
    size_t len;

    if (!stream->grpc_request) {
        return;
    }
    if (n > GRPC_TIMEOUT_MAX) {
        n /= 1000;
        unit++;
    }
    for (; n > GRPC_TIMEOUT_MAX && *unit != 'H'; unit++) {
        n /= 60;
    }
    text = kb_arena_alloc(&stream->arena, 24, 1);
    len = kb_u64_to_str(KB_MIN(n, GRPC_TIMEOUT_MAX), text);
    text[len] = *unit;
    kb_header_map_set_id(&stream->request, KB_HDR_GRPC_TIMEOUT, kb_str_make(text, len + 1));
}

/* What a gRPC client gets of the time that it asked for. */
static uint64_t grpc_duration(const struct kb_route *route, uint64_t asked_ms)
{
    uint64_t offset_ms =
        route->policies != NULL ? route->policies->grpc_timeout_header_offset_ms : 0;
    uint64_t ms = asked_ms;

    if (route->grpc_timeout_header_max_ms > 0 && ms > route->grpc_timeout_header_max_ms) {
        ms = route->grpc_timeout_header_max_ms;
    }
    return offset_ms < ms ? ms - offset_ms : 0;
}

void kb_stream_duration_refresh(struct kb_stream *stream)
{
    const struct kb_route *route = stream->route;
    struct kb_loop *loop = &stream->hcm->worker->loop;
    struct kb_str value = kb_header_map_value_id(&stream->request, KB_HDR_GRPC_TIMEOUT);
    uint64_t asked_ms = value.p != NULL ? kb_grpc_timeout_parse(value) : UINT64_MAX;
    uint64_t spent_ms = (kb_loop_now_ns(loop) - stream->info.start_ns) / 1000000;
    uint64_t ms;

    if (asked_ms != UINT64_MAX && route->grpc_timeout_header_max_set) {
        ms = grpc_duration(route, asked_ms);
    } else {
        ms = route->max_stream_duration_set ? route->max_stream_duration_ms
                                            : stream->hcm->config->max_stream_duration_ms;
        if (ms == 0) {
            if (kb_timer_armed(&stream->duration_timer) && route->new_timeouts &&
                stream->grpc_request) {
                kb_header_map_remove_id(&stream->request, KB_HDR_GRPC_TIMEOUT);
            }
            kb_loop_timer_cancel(loop, &stream->duration_timer);
            return;
        }
    }
    if (route->new_timeouts) {
        kb_stream_grpc_timeout_set(stream, ms);
    }
    kb_loop_timer_cancel(loop, &stream->duration_timer);
    kb_loop_timer_arm(loop, &stream->duration_timer, ms > spent_ms ? ms - spent_ms : 0);
}
