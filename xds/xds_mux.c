/* SPDX-License-Identifier: Apache-2.0 */
/* The stream and what is said over it. State of the world: a queue of types, each request says all
 * there is to say of its type. Incremental: answers first, in order, then changes in the order in
 * which types were first asked for. */
#include "xds/xds_mux.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "xds/xds_delta.h"
#include "xds/xds_sotw.h"

#define TRIM_BYTES_MIN (64 * 1024) /* of a response: decoding it took many times as much */

struct type_state {
    union {
        struct kb_xds_sotw sotw;
        struct kb_xds_delta delta;
    };
    uint32_t pauses;
    bool subscribed; /* once asked for: said again on each stream */
    bool queued;     /* state of the world: in mux->queue */
    bool pending;    /* state of the world: to be queued when it is resumed */
};

/* An answer of the incremental protocol that is not sent yet. */
struct queued_ack {
    struct kb_list link;
    enum kb_xds_type type;
    char *nonce;
    char *error;
};

struct kb_xds_mux {
    KB_OBJ;
    struct kb_xds_mux_options options;
    char *method;
    struct kb_xds_stream *stream;
    struct type_state types[KB_XDS_TYPE_COUNT];
    enum kb_xds_type order[KB_XDS_TYPE_COUNT]; /* in which types were first asked for */
    unsigned order_count;
    enum kb_xds_type queue[KB_XDS_TYPE_COUNT]; /* state of the world; each type at most once */
    unsigned queue_count;
    struct kb_list acks; /* incremental */
    uint32_t ack_count;
    struct kb_str blocked; /* heap; a request that the transport would not take yet */
    struct kb_timer retry;
    struct kb_timer expiry;
    struct kb_timer refill;
    uint64_t backoff_ms;
    double tokens;
    uint64_t tokens_at_ms;
    bool started;
    bool node_sent;
};
KB_OBJ_MAGIC(kb_xds_mux, 0x58444d58);

static struct kb_xds_watches *watches_of(struct kb_xds_mux *mux, enum kb_xds_type type)
{
    struct type_state *state = &mux->types[type];

    return mux->options.delta ? &state->delta.watches : &state->sotw.watches;
}

bool kb_xds_mux_is_delta(const struct kb_xds_mux *mux)
{
    return mux->options.delta;
}

/* ---- Sending ---- */

static bool token_take(struct kb_xds_mux *mux)
{
    uint64_t now_ms = kb_loop_now_ms(mux->options.loop);

    if (mux->options.rate_limit_tokens == 0) {
        return true;
    }
    mux->tokens += (double)(now_ms - mux->tokens_at_ms) * mux->options.rate_limit_per_s / 1000;
    mux->tokens = KB_MIN(mux->tokens, (double)mux->options.rate_limit_tokens);
    mux->tokens_at_ms = now_ms;
    if (mux->tokens >= 1) {
        mux->tokens -= 1;
        return true;
    }
    mux->options.observer->rate_limited(mux->options.arg);
    if (!kb_timer_armed(&mux->refill)) {
        kb_loop_timer_arm(mux->options.loop, &mux->refill,
                          (uint64_t)((1 - mux->tokens) * 1000 / mux->options.rate_limit_per_s) + 1);
    }
    return false;
}

static void bytes_send(struct kb_xds_mux *mux, struct kb_str bytes)
{
    mux->node_sent = true;
    if (mux->options.transport->send(mux->stream, bytes) == KB_EAGAIN) {
        mux->blocked = kb_str_make(kb_str_to_cstr(bytes), bytes.len);
    }
}

static Envoy__Config__Core__V3__Node *node_due(const struct kb_xds_mux *mux)
{
    return mux->node_sent && mux->options.node_on_first_message_only ? NULL : mux->options.node;
}

static void ack_free(struct kb_xds_mux *mux, struct queued_ack *ack)
{
    kb_list_unlink(&ack->link);
    mux->ack_count--;
    free(ack->nonce);
    free(ack->error);
    free(ack);
}

/* The first answer whose type is not paused, or NULL. */
static struct queued_ack *ack_next(struct kb_xds_mux *mux)
{
    KB_LIST_FOREACH (link, &mux->acks) {
        struct queued_ack *ack = KB_LIST_ENTRY(link, struct queued_ack, link);

        if (mux->types[ack->type].pauses == 0) {
            return ack;
        }
    }
    return NULL;
}

/* The type that has something to say; KB_XDS_TYPE_COUNT: none. */
static enum kb_xds_type delta_next(struct kb_xds_mux *mux, const struct queued_ack *ack)
{
    if (ack != NULL) {
        return ack->type;
    }
    for (unsigned i = 0; i < mux->order_count; i++) {
        struct type_state *state = &mux->types[mux->order[i]];

        if (state->pauses == 0 && kb_xds_delta_pending(&state->delta)) {
            return mux->order[i];
        }
    }
    return KB_XDS_TYPE_COUNT;
}

static void delta_drain(struct kb_xds_mux *mux)
{
    while (mux->stream != NULL && mux->blocked.p == NULL) {
        struct queued_ack *ack = ack_next(mux);
        enum kb_xds_type type = delta_next(mux, ack);
        struct kb_xds_ack said;
        struct kb_arena arena;

        if (type == KB_XDS_TYPE_COUNT || !token_take(mux)) {
            break;
        }
        kb_arena_init(&arena, NULL);
        if (ack != NULL) {
            said.nonce = ack->nonce;
            said.error = ack->error;
        }
        bytes_send(mux, kb_xds_delta_request(&mux->types[type].delta, node_due(mux),
                                             ack != NULL ? &said : NULL, &arena));
        kb_arena_dispose(&arena);
        if (ack != NULL) {
            ack_free(mux, ack);
        }
    }
    mux->options.observer->pending_requests(mux->options.arg, mux->ack_count);
}

static void sotw_drain(struct kb_xds_mux *mux)
{
    while (mux->stream != NULL && mux->blocked.p == NULL && mux->queue_count > 0) {
        struct type_state *state = &mux->types[mux->queue[0]];
        struct kb_arena arena;

        if (state->pauses == 0 && !token_take(mux)) {
            break;
        }
        mux->queue_count--;
        memmove(&mux->queue[0], &mux->queue[1], mux->queue_count * sizeof(mux->queue[0]));
        state->queued = false;
        if (state->pauses > 0) {
            state->pending = true;
            continue;
        }
        kb_arena_init(&arena, NULL);
        bytes_send(mux, kb_xds_sotw_request(&state->sotw, node_due(mux), &arena));
        kb_arena_dispose(&arena);
    }
    mux->options.observer->pending_requests(mux->options.arg, mux->queue_count);
}

static void drain(struct kb_xds_mux *mux)
{
    if (mux->options.delta) {
        delta_drain(mux);
    } else {
        sotw_drain(mux);
    }
}

static void sotw_queue(struct kb_xds_mux *mux, enum kb_xds_type type)
{
    struct type_state *state = &mux->types[type];

    if (mux->stream == NULL) {
        return; /* a new stream says everything again */
    }
    if (state->pauses > 0) {
        state->pending = true;
        return;
    }
    if (!state->queued) {
        state->queued = true;
        mux->queue[mux->queue_count++] = type;
    }
    sotw_drain(mux);
}

static void refill_fired(struct kb_timer *timer)
{
    drain(KB_CONTAINER_OF(timer, struct kb_xds_mux, refill));
}

/* ---- Receiving ---- */

static void expiry_arm(struct kb_xds_mux *mux)
{
    uint64_t now_ms = kb_loop_now_ms(mux->options.loop);
    uint64_t next_ms = UINT64_MAX;

    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        next_ms = KB_MIN(next_ms, watches_of(mux, (enum kb_xds_type)i)->expires_ms);
    }
    if (next_ms == UINT64_MAX) {
        kb_loop_timer_cancel(mux->options.loop, &mux->expiry);
    } else {
        kb_loop_timer_arm(mux->options.loop, &mux->expiry, next_ms > now_ms ? next_ms - now_ms : 0);
    }
}

static void expiry_fired(struct kb_timer *timer)
{
    struct kb_xds_mux *mux = KB_CONTAINER_OF(timer, struct kb_xds_mux, expiry);

    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        kb_xds_watches_expire(watches_of(mux, (enum kb_xds_type)i),
                              kb_loop_now_ms(mux->options.loop));
    }
    expiry_arm(mux);
}

static void ack_queue(struct kb_xds_mux *mux, enum kb_xds_type type, const struct kb_xds_ack *said)
{
    struct queued_ack *ack = kb_calloc(1, sizeof(*ack));

    ack->type = type;
    ack->nonce = kb_strdup(said->nonce);
    ack->error = kb_strdup(said->error);
    kb_list_push_back(&mux->acks, &ack->link);
    mux->ack_count++;
}

static void identify(struct kb_xds_mux *mux, const Envoy__Config__Core__V3__ControlPlane *plane)
{
    if (plane != NULL) {
        mux->options.observer->identified(mux->options.arg, kb_str_from_cstr(plane->identifier));
    }
}

/* False: the stream has to go. */
static bool delta_message(struct kb_xds_mux *mux, struct kb_str bytes, struct kb_arena *arena,
                          struct kb_diag *diag)
{
    Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *response =
        kb_xds_decode_delta(bytes, arena);
    struct kb_xds_ack ack;
    enum kb_xds_type type;

    if (response == NULL || mux->ack_count >= KB_XDS_ACKS_MAX) {
        return false;
    }
    type = kb_xds_type_by_url(response->type_url);
    if (type == KB_XDS_TYPE_COUNT || !mux->types[type].subscribed) {
        KB_LOG(CONFIG, WARNING,
               "Dropping received DeltaDiscoveryResponse (with version %s) for non-existent "
               "subscription %s.",
               response->system_version_info, response->type_url);
        return true;
    }
    identify(mux, response->control_plane);
    kb_xds_delta_response(&mux->types[type].delta, response, kb_loop_now_ms(mux->options.loop),
                          arena, diag, &ack);
    ack_queue(mux, type, &ack);
    delta_drain(mux);
    return true;
}

static bool sotw_message(struct kb_xds_mux *mux, struct kb_str bytes, struct kb_arena *arena,
                         struct kb_diag *diag)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse *response = kb_xds_decode_sotw(bytes, arena);
    enum kb_xds_type type;

    if (response == NULL) {
        return false;
    }
    type = kb_xds_type_by_url(response->type_url);
    if (type == KB_XDS_TYPE_COUNT || !mux->types[type].subscribed) {
        KB_LOG(CONFIG, WARNING,
               "Ignoring the message for type URL %s as it has no current subscribers.",
               response->type_url);
        return true;
    }
    identify(mux, response->control_plane);
    /* What a callback changes of this type is said together with the answer. */
    kb_xds_mux_pause(mux, type);
    if (kb_xds_sotw_response(&mux->types[type].sotw, response, kb_loop_now_ms(mux->options.loop),
                             arena, diag)) {
        sotw_queue(mux, type);
    }
    kb_xds_mux_resume(mux, type);
    return true;
}

static void stream_lost(struct kb_xds_mux *mux, int status, struct kb_str text)
{
    uint64_t delay_ms = kb_rand_u64(mux->options.rand) % mux->backoff_ms;

    KB_LOG(CONFIG, WARNING, "%s gRPC config stream closed: %d, %.*s; next try in %llu ms",
           mux->method, status, KB_STR_ARG(text), (unsigned long long)delay_ms);
    if (mux->stream != NULL) {
        mux->options.transport->close(mux->stream);
        mux->stream = NULL;
    }
    mux->options.observer->connected(mux->options.arg, false);
    kb_loop_timer_arm(mux->options.loop, &mux->retry, delay_ms);
    mux->backoff_ms = KB_MIN(mux->backoff_ms * 2, mux->options.backoff_max_ms);
    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        kb_xds_watches_fail(watches_of(mux, (enum kb_xds_type)i), KB_XDS_FAILURE_CONNECTION);
    }
}

static void stream_message(void *arg, struct kb_str bytes)
{
    struct kb_xds_mux *mux = KB_CAST(arg, kb_xds_mux);
    struct kb_arena arena;
    struct kb_diag diag;
    bool fine;

    mux->backoff_ms = mux->options.backoff_base_ms;
    mux->options.observer->connected(mux->options.arg, true);
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    diag.unknown_fields_warn = !mux->options.unknown_fields_refused;
    fine = mux->options.delta ? delta_message(mux, bytes, &arena, &diag)
                              : sotw_message(mux, bytes, &arena, &diag);
    if (diag.warning_count > 0) {
        mux->options.observer->warned(mux->options.arg, &diag);
    }
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    if (bytes.len >= TRIM_BYTES_MIN) {
        kb_mem_trim();
    }
    expiry_arm(mux);
    if (!fine && mux->stream != NULL) {
        stream_lost(mux, KB_XDS_INTERNAL, KB_STR("a response that is not understood, or too many"));
    }
}

static void stream_writable(void *arg)
{
    struct kb_xds_mux *mux = KB_CAST(arg, kb_xds_mux);
    struct kb_str bytes = mux->blocked;

    mux->blocked = KB_STR_NULL;
    if (bytes.p != NULL) {
        bytes_send(mux, bytes);
        free((char *)(uintptr_t)bytes.p);
    }
    drain(mux);
}

static void stream_closed(void *arg, int status, struct kb_str text)
{
    stream_lost(KB_CAST(arg, kb_xds_mux), status, text);
}

static const struct kb_xds_stream_events stream_events = {stream_message, stream_writable,
                                                          stream_closed};

/* ---- Opening ---- */

static void unsaid_drop(struct kb_xds_mux *mux)
{
    struct kb_list *link;

    while ((link = kb_list_pop_front(&mux->acks)) != NULL) {
        ack_free(mux, KB_LIST_ENTRY(link, struct queued_ack, link));
    }
    free((char *)(uintptr_t)mux->blocked.p);
    mux->blocked = KB_STR_NULL;
    mux->queue_count = 0;
    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        mux->types[i].queued = false;
    }
}

static void stream_open(struct kb_xds_mux *mux)
{
    mux->stream = mux->options.transport->open(mux->options.transport,
                                               kb_str_from_cstr(mux->method), &stream_events, mux);
    if (mux->stream == NULL) {
        stream_lost(mux, 14, KB_STR("no host to connect to"));
        return;
    }
    mux->options.observer->connected(mux->options.arg, true);
    mux->node_sent = false;
    unsaid_drop(mux);
    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        if (mux->options.delta) {
            kb_xds_delta_stream_opened(&mux->types[i].delta);
        } else {
            kb_xds_sotw_stream_opened(&mux->types[i].sotw);
        }
    }
    for (unsigned i = 0; i < mux->order_count && !mux->options.delta; i++) {
        sotw_queue(mux, mux->order[i]);
    }
    drain(mux);
}

static void retry_fired(struct kb_timer *timer)
{
    stream_open(KB_CONTAINER_OF(timer, struct kb_xds_mux, retry));
}

void kb_xds_mux_start(struct kb_xds_mux *mux)
{
    if (!mux->started) {
        mux->started = true;
        stream_open(mux);
    }
}

void kb_xds_mux_stop(struct kb_xds_mux *mux)
{
    mux->started = true;
    kb_loop_timer_cancel(mux->options.loop, &mux->retry);
    kb_loop_timer_cancel(mux->options.loop, &mux->expiry);
    kb_loop_timer_cancel(mux->options.loop, &mux->refill);
    if (mux->stream != NULL) {
        mux->options.transport->close(mux->stream);
        mux->stream = NULL;
    }
}

/* ---- Lifecycle, watches ---- */

struct kb_xds_mux *kb_xds_mux_create(const struct kb_xds_mux_options *options)
{
    struct kb_xds_mux *mux = kb_calloc(1, sizeof(*mux));

    KB_OBJ_SET(mux, kb_xds_mux);
    mux->options = *options;
    mux->method = kb_str_to_cstr(options->method);
    if (options->backoff_base_ms == 0) {
        mux->options.backoff_base_ms = KB_XDS_BACKOFF_BASE_MS;
    }
    if (options->backoff_max_ms == 0) {
        mux->options.backoff_max_ms = KB_XDS_BACKOFF_MAX_MS;
    }
    mux->backoff_ms = mux->options.backoff_base_ms;
    mux->tokens = options->rate_limit_tokens;
    mux->tokens_at_ms = kb_loop_now_ms(options->loop);
    kb_list_init(&mux->acks);
    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        if (options->delta) {
            kb_xds_delta_init(&mux->types[i].delta, (enum kb_xds_type)i);
            mux->types[i].delta.pushes = options->pushes;
        } else {
            kb_xds_sotw_init(&mux->types[i].sotw, (enum kb_xds_type)i);
            mux->types[i].sotw.pushes = options->pushes;
        }
    }
    kb_timer_init(&mux->retry, retry_fired);
    kb_timer_init(&mux->expiry, expiry_fired);
    kb_timer_init(&mux->refill, refill_fired);
    return mux;
}

void kb_xds_mux_destroy(struct kb_xds_mux *mux)
{
    if (mux == NULL) {
        return;
    }
    kb_xds_mux_stop(mux);
    unsaid_drop(mux);
    for (unsigned i = 0; i < KB_XDS_TYPE_COUNT; i++) {
        if (mux->options.delta) {
            kb_xds_delta_dispose(&mux->types[i].delta);
        } else {
            kb_xds_sotw_dispose(&mux->types[i].sotw);
        }
    }
    free(mux->method);
    KB_OBJ_CLEAR(mux);
    free(mux);
}

struct kb_xds_watch *kb_xds_mux_watch(struct kb_xds_mux *mux, enum kb_xds_type type,
                                      struct kb_str name,
                                      const struct kb_xds_watch_callbacks *callbacks, void *arg)
{
    struct type_state *state = &mux->types[type];
    struct kb_xds_watch *watch = kb_xds_watches_add(watches_of(mux, type), name, callbacks, arg);

    if (!state->subscribed) {
        state->subscribed = true;
        mux->order[mux->order_count++] = type;
    }
    if (mux->options.delta) {
        delta_drain(mux);
    } else {
        sotw_queue(mux, type);
    }
    return watch;
}

void kb_xds_mux_unwatch(struct kb_xds_mux *mux, struct kb_xds_watch *watch)
{
    enum kb_xds_type type = KB_CAST(watch, kb_xds_watch)->watches->type;
    bool named = watch->name != NULL;

    kb_xds_watches_remove(watch);
    if (mux->options.delta) {
        delta_drain(mux);
    } else if (named) {
        sotw_queue(mux, type);
    }
}

void kb_xds_mux_pause(struct kb_xds_mux *mux, enum kb_xds_type type)
{
    mux->types[type].pauses++;
}

void kb_xds_mux_resume(struct kb_xds_mux *mux, enum kb_xds_type type)
{
    struct type_state *state = &mux->types[type];

    KB_ASSERT(state->pauses > 0);
    if (--state->pauses > 0) {
        return;
    }
    if (mux->options.delta) {
        delta_drain(mux);
    } else if (state->pending && state->subscribed) {
        state->pending = false;
        sotw_queue(mux, type);
    }
}
