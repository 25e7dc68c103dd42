/* SPDX-License-Identifier: Apache-2.0 */
/* Retry decisions and back-off, as Envoy's RetryStateImpl. No I/O, no clock, no random numbers of
 * its own. */
#include "proxy/router/retry_state.h"

#include "proxy/matcher/header_match.h"
#include "proxy/router/retry_policy.h"

static const struct kb_str reset_texts[KB_RESET_COUNT] = {
#define X(id, text) [KB_RESET_##id] = {text, sizeof(text) - 1},
#include "proxy/api/reset_reason.def"
#undef X
};

struct kb_str kb_reset_reason_text(enum kb_reset_reason reason)
{
    return (unsigned)reason < KB_RESET_COUNT ? reset_texts[reason] : KB_STR("unknown reset");
}

/* A number of a header, which may have spaces around it and a plus sign, as Envoy reads them. */
static int number_read(struct kb_str text, uint64_t *number)
{
    text = kb_str_trim(text);
    if (kb_str_starts_with(text, KB_STR("+"))) {
        text = kb_str_from(text, 1);
    }
    return kb_str_to_u64(text, number);
}

/* ---- retry_on ---- */

struct retry_word {
    struct kb_str word;
    uint32_t bit;
};

static const struct retry_word http_words[] = {
    {{"5xx", 3}, KB_RETRY_ON_5XX},
    {{"gateway-error", 13}, KB_RETRY_ON_GATEWAY_ERROR},
    {{"connect-failure", 15}, KB_RETRY_ON_CONNECT_FAILURE},
    {{"envoy-ratelimited", 17}, KB_RETRY_ON_ENVOY_RATE_LIMITED},
    {{"retriable-4xx", 13}, KB_RETRY_ON_RETRIABLE_4XX},
    {{"refused-stream", 14}, KB_RETRY_ON_REFUSED_STREAM},
    {{"retriable-status-codes", 22}, KB_RETRY_ON_RETRIABLE_STATUS_CODES},
    {{"retriable-headers", 17}, KB_RETRY_ON_RETRIABLE_HEADERS},
    {{"reset", 5}, KB_RETRY_ON_RESET},
    {{"reset-before-request", 20}, KB_RETRY_ON_RESET_BEFORE_REQUEST},
    {{"http3-post-connect-failure", 26}, KB_RETRY_ON_HTTP3_POST_CONNECT_FAILURE},
};

static const struct retry_word grpc_words[] = {
    {{"cancelled", 9}, KB_RETRY_ON_GRPC_CANCELLED},
    {{"deadline-exceeded", 17}, KB_RETRY_ON_GRPC_DEADLINE_EXCEEDED},
    {{"resource-exhausted", 18}, KB_RETRY_ON_GRPC_RESOURCE_EXHAUSTED},
    {{"unavailable", 11}, KB_RETRY_ON_GRPC_UNAVAILABLE},
    {{"internal", 8}, KB_RETRY_ON_GRPC_INTERNAL},
};

static uint32_t word_bit(const struct retry_word *words, size_t count, struct kb_str word)
{
    for (size_t i = 0; i < count; i++) {
        if (kb_str_eq(words[i].word, word)) {
            return words[i].bit;
        }
    }
    return 0;
}

uint32_t kb_retry_on_parse(struct kb_str list, bool grpc, unsigned *unknown)
{
    const struct retry_word *words = grpc ? grpc_words : http_words;
    size_t count = grpc ? KB_ARRAY_LEN(grpc_words) : KB_ARRAY_LEN(http_words);
    struct kb_str word;
    uint32_t bits = 0;

    while (kb_str_next_token(&list, ',', &word)) {
        uint32_t bit = word_bit(words, count, kb_str_trim(word));

        bits |= bit;
        if (unknown != NULL && bit == 0 && kb_str_trim(word).len > 0) {
            (*unknown)++;
        }
    }
    return bits;
}

/* ---- start ---- */

static void headers_consume(struct kb_header_map *request)
{
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_RETRY_ON);
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_RETRY_GRPC_ON);
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_MAX_RETRIES);
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT);
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_RETRIABLE_HEADER_NAMES);
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_RETRIABLE_STATUS_CODES);
    kb_header_map_remove_id(request, KB_HDR_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS);
}

static void headers_merge(struct kb_retry_state *state, const struct kb_header_map *request)
{
    struct kb_str max_retries = kb_header_map_value_id(request, KB_HDR_X_ENVOY_MAX_RETRIES);
    const struct kb_retry_policy *policy = state->policy;
    uint64_t number;

    state->retry_on |=
        kb_retry_on_parse(kb_header_map_value_id(request, KB_HDR_X_ENVOY_RETRY_ON), false, NULL);
    state->retry_on |= kb_retry_on_parse(
        kb_header_map_value_id(request, KB_HDR_X_ENVOY_RETRY_GRPC_ON), true, NULL);
    if (policy != NULL && policy->retriable_request_header_count > 0 &&
        !kb_header_matchers_any(policy->retriable_request_headers,
                                policy->retriable_request_header_count, request)) {
        state->retry_on = 0;
    }
    if (state->retry_on != 0 && number_read(max_retries, &number) == 0) {
        state->retries_remaining =
            (uint32_t)number; /* wins over the policy; cut to 32 bits as in Envoy */
    }
    state->status_codes = kb_header_map_value_id(request, KB_HDR_X_ENVOY_RETRIABLE_STATUS_CODES);
    state->header_names = kb_header_map_value_id(request, KB_HDR_X_ENVOY_RETRIABLE_HEADER_NAMES);
}

static bool asked_by_client(const struct kb_header_map *request)
{
    return kb_header_map_get_id(request, KB_HDR_X_ENVOY_RETRY_ON) != NULL ||
           kb_header_map_get_id(request, KB_HDR_X_ENVOY_RETRY_GRPC_ON) != NULL;
}

bool kb_retry_state_init(struct kb_retry_state *state, const struct kb_retry_policy *policy,
                         struct kb_header_map *request, uint64_t base_interval_ms)
{
    memset(state, 0, sizeof(*state));
    if (KB_LIKELY(policy == NULL) && !asked_by_client(request)) {
        headers_consume(request);
        return false;
    }
    state->policy = policy;
    state->retries_remaining = policy != NULL ? policy->num_retries : 1;
    state->host_selection_attempts = policy != NULL ? policy->host_selection_attempts : 1;
    state->retry_on = policy != NULL ? policy->retry_on : 0;
    state->next_interval_ms = policy != NULL && policy->base_interval_ms > 0
                                  ? policy->base_interval_ms
                                  : base_interval_ms;
    state->next_interval_ms = KB_MAX(state->next_interval_ms, 1);
    state->max_interval_ms = policy != NULL && policy->max_interval_ms > 0
                                 ? policy->max_interval_ms
                                 : state->next_interval_ms * 10;
    headers_merge(state, request);
    headers_consume(request);
    return state->retry_on != 0;
}

/* ---- decisions ---- */

/* RETRY takes a slot and a try; everything else only counts. */
static enum kb_retry_status decide(struct kb_retry_state *state, bool would_retry,
                                   const struct kb_retry_gate *gate, unsigned *counts)
{
    *counts = state->retrying && !would_retry ? KB_RETRY_COUNT_SUCCESS : 0;
    state->retrying = false;
    if (!would_retry) {
        return KB_RETRY_NO;
    }
    if (state->retries_remaining == 0) {
        *counts |= KB_RETRY_COUNT_LIMIT_EXCEEDED;
        return KB_RETRY_LIMIT_EXCEEDED;
    }
    state->retries_remaining--;
    if (!gate->room) {
        *counts |= KB_RETRY_COUNT_OVERFLOW;
        return KB_RETRY_OVERFLOW;
    }
    if (!gate->enabled) {
        return KB_RETRY_NO;
    }
    *counts |= KB_RETRY_COUNT_RETRY;
    state->retrying = true;
    return KB_RETRY_YES;
}

static bool status_listed(const struct kb_retry_state *state, unsigned status)
{
    const struct kb_retry_policy *policy = state->policy;
    struct kb_str rest = state->status_codes;
    struct kb_str word;
    uint64_t code;

    for (size_t i = 0; policy != NULL && i < policy->retriable_status_code_count; i++) {
        if (policy->retriable_status_codes[i] == status) {
            return true;
        }
    }
    while (kb_str_next_token(&rest, ',', &word)) {
        if (number_read(word, &code) == 0 && code == status) {
            return true;
        }
    }
    return false;
}

static bool header_listed(const struct kb_retry_state *state, const struct kb_header_map *response)
{
    const struct kb_retry_policy *policy = state->policy;
    struct kb_str rest = state->header_names;
    struct kb_str name;

    if (policy != NULL && kb_header_matchers_any(policy->retriable_headers,
                                                 policy->retriable_header_count, response)) {
        return true;
    }
    while (kb_str_next_token(&rest, ',', &name)) {
        if (kb_header_name_present(response, kb_str_trim(name))) {
            return true;
        }
    }
    return false;
}

/* grpc-status of a headers-only answer. https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
static bool grpc_status_listed(uint32_t retry_on, const struct kb_header_map *response)
{
    static const struct {
        uint64_t status;
        uint32_t bit;
    } known[] = {
        {1, KB_RETRY_ON_GRPC_CANCELLED},          {4, KB_RETRY_ON_GRPC_DEADLINE_EXCEEDED},
        {8, KB_RETRY_ON_GRPC_RESOURCE_EXHAUSTED}, {13, KB_RETRY_ON_GRPC_INTERNAL},
        {14, KB_RETRY_ON_GRPC_UNAVAILABLE},
    };
    uint64_t status;

    if (number_read(kb_header_map_value_id(response, KB_HDR_GRPC_STATUS), &status) != 0) {
        return false;
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(known); i++) {
        if (known[i].status == status) {
            return (retry_on & known[i].bit) != 0;
        }
    }
    return false;
}

bool kb_retry_would_retry_headers(const struct kb_retry_state *state,
                                  const struct kb_header_map *response)
{
    uint32_t on = state->retry_on;
    unsigned status = response->status;

    if (kb_header_map_get_id(response, KB_HDR_X_ENVOY_RATELIMITED) != NULL) {
        return (on & KB_RETRY_ON_ENVOY_RATE_LIMITED) != 0;
    }
    if ((on & KB_RETRY_ON_5XX) && status >= 500 && status < 600) {
        return true;
    }
    if ((on & KB_RETRY_ON_GATEWAY_ERROR) && status >= 502 && status <= 504) {
        return true;
    }
    if ((on & KB_RETRY_ON_RETRIABLE_4XX) && status == 409) {
        return true;
    }
    if ((on & KB_RETRY_ON_RETRIABLE_STATUS_CODES) && status_listed(state, status)) {
        return true;
    }
    if ((on & KB_RETRY_ON_RETRIABLE_HEADERS) && header_listed(state, response)) {
        return true;
    }
    return grpc_status_listed(on, response);
}

static bool would_retry_reset(uint32_t on, enum kb_reset_reason reason, bool request_started)
{
    if (reason == KB_RESET_OVERFLOW) {
        return false;
    }
    if ((on & KB_RETRY_ON_CONNECT_FAILURE) &&
        (reason == KB_RESET_LOCAL_CONNECTION_FAILURE ||
         reason == KB_RESET_REMOTE_CONNECTION_FAILURE || reason == KB_RESET_CONNECTION_TIMEOUT)) {
        return true;
    }
    if ((on & KB_RETRY_ON_RESET_BEFORE_REQUEST) && !request_started) {
        return true;
    }
    /* A reset becomes a 503: the status policies cover it. */
    if (on & (KB_RETRY_ON_RESET | KB_RETRY_ON_5XX | KB_RETRY_ON_GATEWAY_ERROR)) {
        return true;
    }
    return (on & KB_RETRY_ON_REFUSED_STREAM) && reason == KB_RESET_REMOTE_REFUSED_STREAM_RESET;
}

/* Milliseconds that an answer asks to wait; 0: it does not. */
static uint64_t reset_interval_ms(const struct kb_rate_limited_backoff *backoff,
                                  const struct kb_header_map *response, uint64_t wall_s)
{
    for (size_t i = 0; i < backoff->header_count; i++) {
        const struct kb_reset_header *header = &backoff->headers[i];
        uint64_t seconds;

        if (number_read(kb_header_map_value(response, header->name), &seconds) != 0) {
            continue;
        }
        if (header->unix_time) {
            if (seconds < wall_s) {
                continue;
            }
            seconds -= wall_s;
        }
        if (seconds <= backoff->max_interval_ms / 1000) {
            return seconds * 1000;
        }
    }
    return 0;
}

enum kb_retry_status kb_retry_should_retry_headers(struct kb_retry_state *state,
                                                   const struct kb_header_map *response,
                                                   const struct kb_retry_gate *gate,
                                                   unsigned *counts)
{
    bool would_retry = kb_retry_would_retry_headers(state, response);

    state->rate_limited_ms = 0;
    if (would_retry && state->policy != NULL && state->policy->rate_limited != NULL) {
        state->rate_limited_ms =
            reset_interval_ms(state->policy->rate_limited, response, gate->wall_s);
    }
    return decide(state, would_retry, gate, counts);
}

enum kb_retry_status kb_retry_should_retry_reset(struct kb_retry_state *state,
                                                 enum kb_reset_reason reason, bool request_started,
                                                 const struct kb_retry_gate *gate, unsigned *counts)
{
    state->rate_limited_ms = 0;
    return decide(state, would_retry_reset(state->retry_on, reason, request_started), gate, counts);
}

enum kb_retry_status kb_retry_should_hedge(struct kb_retry_state *state,
                                           const struct kb_retry_gate *gate, unsigned *counts)
{
    state->rate_limited_ms = 0;
    return decide(state, true, gate, counts);
}

uint64_t kb_retry_delay_ms(struct kb_retry_state *state, uint64_t random, bool *rate_limited)
{
    uint64_t interval = state->next_interval_ms;

    *rate_limited = state->rate_limited_ms > 1;
    if (*rate_limited) {
        uint64_t least = state->rate_limited_ms;

        state->rate_limited_ms = 0;
        return least + random % (least >> 1);
    }
    state->next_interval_ms =
        interval < state->max_interval_ms / 2 ? interval * 2 : state->max_interval_ms;
    return random % interval;
}

uint64_t kb_retry_budget_limit(double percent, uint32_t min_concurrency, uint64_t requests_active,
                               uint64_t requests_pending)
{
    uint64_t allowed = (uint64_t)((double)(requests_active + requests_pending) * percent / 100.0);

    return KB_MAX(allowed, min_concurrency);
}
