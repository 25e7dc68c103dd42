/* SPDX-License-Identifier: Apache-2.0 */
/* Pacing of an answer's body by a token bucket (Envoy StreamRateLimiter): twenty tokens a second,
 * at most a second's worth saved up, one token to begin with. */
#include "proxy/ext/http/fault.h"

#define TOKENS_PER_S 20
#define TOKEN_MS     (1000 / TOKENS_PER_S)

static void timer_fired(struct kb_timer *timer);

void kb_fault_limiter_init(struct kb_fault_limiter *limiter, struct kb_stream *stream, void *filter,
                           uint64_t kbps)
{
    limiter->stream = stream;
    limiter->filter = filter;
    limiter->slice_bytes = KB_MAX(kbps * 1024 / TOKENS_PER_S, 1);
    kb_buf_init(&limiter->held, &kb_stream_worker(stream)->slices, kb_stream_buffer_limit(stream));
    kb_timer_init(&limiter->timer, timer_fired);
}

void kb_fault_limiter_dispose(struct kb_fault_limiter *limiter)
{
    kb_loop_timer_cancel(&kb_stream_worker(limiter->stream)->loop, &limiter->timer);
    kb_buf_dispose(&limiter->held);
}

static void timer_arm(struct kb_fault_limiter *limiter, uint64_t delay_ms)
{
    if (!kb_timer_armed(&limiter->timer)) {
        kb_loop_timer_arm(&kb_stream_worker(limiter->stream)->loop, &limiter->timer, delay_ms);
    }
}

void kb_fault_limiter_write(struct kb_fault_limiter *limiter, struct kb_buf *data, bool end_stream)
{
    kb_buf_move(&limiter->held, data);
    limiter->ended |= end_stream;
    if (!limiter->above_high && kb_buf_above_high(&limiter->held)) {
        limiter->above_high = true;
        kb_stream_encoder_above_high(limiter->stream, limiter->filter);
    }
    timer_arm(limiter, 0);
}

bool kb_fault_limiter_trailers(struct kb_fault_limiter *limiter)
{
    limiter->trailers = true;
    return limiter->held.len > 0 || kb_timer_armed(&limiter->timer);
}

static void tokens_fill(struct kb_fault_limiter *limiter)
{
    uint64_t now_ms = kb_loop_now_ms(&kb_stream_worker(limiter->stream)->loop);
    uint64_t made;

    if (!limiter->started) {
        limiter->started = true;
        limiter->tokens = 1;
        limiter->filled_ms = now_ms;
        return;
    }
    made = (now_ms - limiter->filled_ms) / TOKEN_MS;
    limiter->tokens = KB_MIN(limiter->tokens + made, (uint64_t)TOKENS_PER_S);
    limiter->filled_ms += made * TOKEN_MS;
}

static void timer_fired(struct kb_timer *timer)
{
    struct kb_fault_limiter *limiter = KB_CONTAINER_OF(timer, struct kb_fault_limiter, timer);
    struct kb_stream *stream = limiter->stream;
    void *filter = limiter->filter;
    uint64_t needed;
    uint64_t bytes;
    bool last, release;
    struct kb_buf data;

    tokens_fill(limiter);
    needed = (limiter->held.len + limiter->slice_bytes - 1) / limiter->slice_bytes;
    needed = KB_MIN(needed, limiter->tokens);
    limiter->tokens -= needed;
    bytes = KB_MIN(needed * limiter->slice_bytes, limiter->held.len);
    kb_buf_init(&data, limiter->held.source, 0);
    kb_buf_move_first(&data, &limiter->held, bytes);
    if (limiter->held.len > 0) {
        timer_arm(limiter, TOKEN_MS);
    }
    if (limiter->above_high && kb_buf_below_low(&limiter->held)) {
        limiter->above_high = false;
        kb_stream_encoder_below_low(stream, filter);
    }
    last = limiter->held.len == 0 && limiter->ended && !limiter->trailers;
    release = limiter->held.len == 0 && limiter->trailers;
    if (data.len > 0 || last) {
        kb_stream_inject_encoded_data(stream, filter, &data, last);
    }
    kb_buf_dispose(&data);
    if (release) {
        kb_stream_continue_encoding(stream, filter);
    }
}
