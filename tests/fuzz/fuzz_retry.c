/* SPDX-License-Identifier: Apache-2.0 */
/* A retry policy and a circuit breaker (two lines of JSON), request headers up to an empty line,
 * and what then happens to some streams of it, a line each: answers ("503 name: value|..."), resets
 * ("r REASON", "R" when nothing was sent yet), per-try timeouts with hedging ("h"), ends ("x"),
 * other requests that come and go ("+", "-"), another stream ("1" to "4"), the runtime's switch
 * ("e"), the clock ("w SECONDS"). Promises: attempts are bounded by what policy and client allow,
 * the breaker's room by its limit, whatever is taken is given back, and each decision is counted
 * once and as what it is. */
#include "tests/fuzz/fuzz.h"

#include "base/obj.h"
#include "proto/pb_json.h"
#include "proto/pb_validate.h"
#include "proxy/router/retry_policy.h"
#include "proxy/router/retry_state.h"
#include "proxy/router/route_build.h"
#include "proxy/upstream/circuit_breaker.h"

#define INPUT_MAX  4000
#define EVENTS_MAX 400
#define STREAMS    4
#define ANSWER_MAX 12
#define BASE_MS    25
#define OTHERS_MAX 50
#define GAUGES_MAX 1024 /* statistics of a cluster, at most */
#define DEFAULT    KB_PRIORITY_DEFAULT
#define RETRIES    KB_RESOURCE_RETRIES
#define ACTIVE     KB_RESOURCE_REQUESTS

struct stream {
    struct kb_header_map request;
    struct kb_retry_state state;
    uint32_t allowed; /* retries, by policy or client */
    uint32_t tries;   /* that followed the first attempt */
    bool open;
};

struct run {
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_regex_list regexes;
    uint8_t gauge_used[GAUGES_MAX];
    struct kb_cluster_impl cluster;
    struct kb_cluster_local local;
    struct kb_cluster_local *locals[2];
    const struct kb_retry_policy *policy;
    struct stream streams[STREAMS];
    unsigned at;
    uint32_t others; /* requests beside those of the streams */
    struct kb_retry_gate gate;
    uint64_t random;
};

static struct kb_stat_block stats; /* of which only gauge_used is there */

/* ---- the configuration ---- */

static const void *message_read(struct run *run, const ProtobufCMessageDescriptor *type,
                                struct kb_str text)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_json(&doc, KB_STR("retry"), text, &run->diag) == 0) {
        message = kb_pb_from_doc(type, &doc, KB_PB_UNKNOWN_ERROR, &run->arena, &run->diag);
    }
    kb_doc_dispose(&doc);
    return message != NULL && kb_pb_validate(message, &run->diag) == 0 ? message : NULL;
}

static bool policy_read(struct run *run, struct kb_str text)
{
    struct kb_route_build build = {
        .match = {.arena = &run->arena, .regexes = &run->regexes, .diag = &run->diag}};
    const void *message;

    if (text.len == 0) {
        return true; /* only what the client asks for */
    }
    message = message_read(run, &envoy__config__route__v3__retry_policy__descriptor, text);
    if (message == NULL) {
        return false;
    }
    run->policy = kb_route_build_retry(&build, message);
    KB_ASSERT(build.failed == (run->diag.error_count > 0));
    return run->diag.error_count == 0;
}

static bool breaker_read(struct run *run, struct kb_str text)
{
    const void *message = NULL;

    KB_ASSERT(kb_stat_schema_cluster.count < GAUGES_MAX);
    if (text.len > 0) {
        message =
            message_read(run, &envoy__config__cluster__v3__circuit_breakers__descriptor, text);
        if (message == NULL) {
            return false;
        }
    }
    run->locals[0] = &run->local;
    run->cluster.locals = run->locals;
    run->cluster.worker_count = 1;
    run->local.cluster = &run->cluster.api;
    run->local.stats = &stats;
    stats.gauge_used = run->gauge_used;
    kb_circuit_breakers_read(message, &run->cluster, &run->diag);
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        run->cluster.api.limits[p].track_remaining = false; /* there is no store */
    }
    kb_circuit_breakers_start(&run->cluster, NULL, KB_STR("cluster.c."));
    return run->diag.error_count == 0;
}

/* ---- headers ---- */

static void header_add(struct kb_header_map *map, struct kb_str line)
{
    ptrdiff_t colon = kb_str_find_char(line, ':');
    struct kb_str name = kb_str_trim(kb_str_first(line, (size_t)KB_MAX(colon, 0)));

    if (name.len == 0) {
        return;
    }
    for (size_t i = 0; i < line.len; i++) {
        char *c = (char *)(uintptr_t)&line.p[i];

        *c = i < (size_t)colon ? kb_ascii_lower(*c) : *c == '\0' || *c == '\r' ? '?' : *c;
    }
    kb_header_map_append(map, name, kb_str_trim(kb_str_from(line, (size_t)colon + 1)));
}

/* What the client may ask for is not forwarded. */
static void consumed_check(const struct kb_header_map *request)
{
    KB_ASSERT(kb_header_map_get_id(request, KB_HDR_X_ENVOY_RETRY_ON) == NULL);
    KB_ASSERT(kb_header_map_get_id(request, KB_HDR_X_ENVOY_RETRY_GRPC_ON) == NULL);
    KB_ASSERT(kb_header_map_get_id(request, KB_HDR_X_ENVOY_MAX_RETRIES) == NULL);
    KB_ASSERT(kb_header_map_get_id(request, KB_HDR_X_ENVOY_RETRIABLE_STATUS_CODES) == NULL);
    KB_ASSERT(kb_header_map_get_id(request, KB_HDR_X_ENVOY_RETRIABLE_HEADER_NAMES) == NULL);
    KB_ASSERT(kb_header_map_get_id(request, KB_HDR_X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT) == NULL);
}

static void stream_open(struct run *run, struct stream *stream, struct kb_str headers)
{
    struct kb_str line, asked;
    uint64_t number;

    kb_header_map_init(&stream->request, &run->arena);
    while (stream->request.count < 40 && kb_str_next_token(&headers, '\n', &line)) {
        header_add(&stream->request, kb_str_dup(&run->arena, line));
    }
    asked = kb_header_map_value_id(&stream->request, KB_HDR_X_ENVOY_MAX_RETRIES);
    stream->open = kb_retry_state_init(&stream->state, run->policy, &stream->request, BASE_MS);
    consumed_check(&stream->request);
    if (!stream->open) {
        return;
    }
    stream->allowed = run->policy != NULL ? run->policy->num_retries : 1;
    if (kb_str_to_u64(kb_str_trim(asked), &number) == 0) {
        stream->allowed = (uint32_t)number;
    }
    KB_ASSERT(stream->state.retries_remaining == stream->allowed);
    kb_resource_force(&run->local, DEFAULT, ACTIVE);
}

/* ---- decisions ---- */

static void lend(struct run *run, const struct stream *stream)
{
    if (stream->state.retrying) {
        kb_resource_give(&run->local, DEFAULT, RETRIES);
    }
    run->gate.room = kb_resource_can(&run->local, DEFAULT, RETRIES);
}

static void delay_check(struct run *run, struct stream *stream)
{
    uint64_t upper = stream->state.next_interval_ms, limited_ms = stream->state.rate_limited_ms;
    bool limited;
    uint64_t delay = kb_retry_delay_ms(&stream->state, run->random, &limited);

    KB_ASSERT(limited == (limited_ms > 1));
    if (limited) {
        KB_ASSERT(delay >= limited_ms && delay < limited_ms + limited_ms / 2 + 1);
        KB_ASSERT(limited_ms <= run->policy->rate_limited->max_interval_ms);
    } else {
        KB_ASSERT(delay < upper);
        KB_ASSERT(stream->state.next_interval_ms <= KB_MAX(stream->state.max_interval_ms, upper));
    }
    run->random = run->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
}

static void decided(struct run *run, struct stream *stream, enum kb_retry_status status,
                    unsigned counts, bool was_retrying, uint32_t remaining)
{
    uint32_t left = stream->state.retries_remaining;

    KB_ASSERT(stream->state.retrying == (status == KB_RETRY_YES));
    KB_ASSERT(((counts & KB_RETRY_COUNT_RETRY) != 0) == (status == KB_RETRY_YES));
    KB_ASSERT(((counts & KB_RETRY_COUNT_LIMIT_EXCEEDED) != 0) ==
              (status == KB_RETRY_LIMIT_EXCEEDED));
    KB_ASSERT(((counts & KB_RETRY_COUNT_OVERFLOW) != 0) == (status == KB_RETRY_OVERFLOW));
    KB_ASSERT((counts & KB_RETRY_COUNT_SUCCESS) == 0 || (was_retrying && status == KB_RETRY_NO));
    KB_ASSERT(left == remaining || left + 1 == remaining);
    if (status != KB_RETRY_YES) {
        KB_ASSERT(status != KB_RETRY_LIMIT_EXCEEDED || left == 0);
        return;
    }
    KB_ASSERT(run->gate.room && run->gate.enabled && left + 1 == remaining);
    stream->tries++;
    KB_ASSERT(stream->tries <= stream->allowed);
    KB_ASSERT(kb_resource_used(&run->cluster, DEFAULT, RETRIES) <
              kb_resource_max(&run->cluster, DEFAULT, RETRIES));
    kb_resource_force(&run->local, DEFAULT, RETRIES);
    delay_check(run, stream);
}

static void stream_end(struct run *run, struct stream *stream)
{
    if (!stream->open) {
        return;
    }
    if (stream->state.retrying) {
        kb_resource_give(&run->local, DEFAULT, RETRIES);
    }
    kb_resource_give(&run->local, DEFAULT, ACTIVE);
    stream->open = false;
}

static void answer(struct run *run, struct stream *stream, struct kb_str text)
{
    bool was_retrying = stream->state.retrying;
    uint32_t remaining = stream->state.retries_remaining;
    struct kb_header_map response;
    enum kb_retry_status status;
    unsigned counts = 0;
    struct kb_str part;
    uint64_t code;
    bool would;

    if (!kb_str_next_token(&text, ' ', &part) || kb_str_to_u64(part, &code) != 0 || code < 100 ||
        code > 999) {
        return;
    }
    kb_header_map_init(&response, &run->arena);
    response.status = (uint16_t)code;
    while (response.count < ANSWER_MAX && kb_str_next_token(&text, '|', &part)) {
        header_add(&response, kb_str_dup(&run->arena, part));
    }
    would = kb_retry_would_retry_headers(&stream->state, &response);
    lend(run, stream);
    status = kb_retry_should_retry_headers(&stream->state, &response, &run->gate, &counts);
    KB_ASSERT(would ==
              (stream->state.retries_remaining != remaining || status == KB_RETRY_LIMIT_EXCEEDED));
    decided(run, stream, status, counts, was_retrying, remaining);
    if (status != KB_RETRY_YES) {
        stream_end(run, stream);
    }
}

static void reset(struct run *run, struct stream *stream, struct kb_str text, bool started)
{
    bool was_retrying = stream->state.retrying;
    uint32_t remaining = stream->state.retries_remaining;
    enum kb_retry_status status;
    unsigned counts = 0;
    uint64_t reason;

    if (kb_str_to_u64(kb_str_trim(text), &reason) != 0) {
        return;
    }
    reason %= KB_RESET_COUNT;
    KB_ASSERT(kb_reset_reason_text((enum kb_reset_reason)reason).len > 0);
    lend(run, stream);
    status = kb_retry_should_retry_reset(&stream->state, (enum kb_reset_reason)reason, started,
                                         &run->gate, &counts);
    KB_ASSERT(status == KB_RETRY_NO || reason != KB_RESET_OVERFLOW);
    decided(run, stream, status, counts, was_retrying, remaining);
    if (status != KB_RETRY_YES) {
        stream_end(run, stream);
    }
}

/* The attempt goes on, whatever is decided. */
static void hedge(struct run *run, struct stream *stream)
{
    bool was_retrying = stream->state.retrying;
    uint32_t remaining = stream->state.retries_remaining;
    enum kb_retry_status status;
    unsigned counts = 0;

    lend(run, stream);
    status = kb_retry_should_hedge(&stream->state, &run->gate, &counts);
    KB_ASSERT(stream->state.rate_limited_ms == 0);
    decided(run, stream, status, counts, was_retrying, remaining);
}

/* ---- events ---- */

static void others_change(struct run *run, bool more)
{
    if (more && run->others < OTHERS_MAX) {
        kb_resource_force(&run->local, DEFAULT, ACTIVE);
        run->others++;
    } else if (!more && run->others > 0) {
        kb_resource_give(&run->local, DEFAULT, ACTIVE);
        run->others--;
    }
}

static void event(struct run *run, struct kb_str line)
{
    struct stream *stream = &run->streams[run->at];
    struct kb_str rest = kb_str_from(line, 1);
    char what = line.p[0];

    if (line.len == 1 && what >= '1' && what < '1' + STREAMS) {
        run->at = (unsigned)(what - '1');
    } else if (what == '+' || what == '-') {
        others_change(run, what == '+');
    } else if (what == 'e') {
        run->gate.enabled = !run->gate.enabled;
    } else if (what == 'w') {
        (void)!kb_str_to_u64(kb_str_trim(rest), &run->gate.wall_s);
    } else if (!stream->open) {
        return;
    } else if (what == 'x') {
        stream_end(run, stream);
    } else if (what == 'h') {
        hedge(run, stream);
    } else if (what == 'r' || what == 'R') {
        reset(run, stream, rest, what == 'r');
    } else {
        answer(run, stream, line);
    }
}

/* The room that is taken is that of the streams which wait for a retry or run one. */
static void balance_check(const struct run *run)
{
    uint64_t retrying = 0, active = run->others;

    for (unsigned i = 0; i < STREAMS; i++) {
        retrying += run->streams[i].open && run->streams[i].state.retrying;
        active += run->streams[i].open;
    }
    KB_ASSERT(kb_resource_used(&run->cluster, DEFAULT, RETRIES) == retrying);
    KB_ASSERT(kb_resource_used(&run->cluster, DEFAULT, ACTIVE) == active);
}

static void story_run(struct run *run, struct kb_str text)
{
    struct kb_str headers = text, line;
    const char *end = text.p;
    unsigned events = 0;

    while (kb_str_next_token(&text, '\n', &line) && line.len > 0) {
        end = line.p + line.len;
    }
    headers.len = (size_t)(end - headers.p);
    for (unsigned i = 0; i < STREAMS; i++) {
        stream_open(run, &run->streams[i], headers);
    }
    balance_check(run);
    while (events++ < EVENTS_MAX && kb_str_next_token(&text, '\n', &line)) {
        if (line.len > 0) {
            event(run, line);
            balance_check(run);
        }
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        stream_end(run, &run->streams[i]);
    }
    while (run->others > 0) {
        others_change(run, false);
    }
    balance_check(run);
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        for (unsigned r = 0; r < KB_RESOURCE_COUNT; r++) {
            KB_ASSERT(run->cluster.share[p][r] == 0 || run->cluster.shared[p][r].over == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run run;
    struct kb_str rest, policy, breaker;

    if (size > INPUT_MAX) {
        return 0;
    }
    memset(&run, 0, sizeof(run));
    run.gate = (struct kb_retry_gate){.enabled = true, .wall_s = 1000};
    run.random = size;
    kb_header_names_init();
    kb_arena_init(&run.arena, NULL);
    kb_diag_init(&run.diag);
    rest = kb_str_dup(&run.arena, kb_str_make((const char *)data, size));
    if (kb_str_next_token(&rest, '\n', &policy) && kb_str_next_token(&rest, '\n', &breaker) &&
        policy_read(&run, policy) && breaker_read(&run, breaker)) {
        story_run(&run, rest);
    }
    kb_regex_list_dispose(&run.regexes);
    kb_diag_dispose(&run.diag);
    kb_arena_dispose(&run.arena);
    return 0;
}
