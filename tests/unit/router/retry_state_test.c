/* SPDX-License-Identifier: Apache-2.0 */
/* Retry decisions: which answers and resets are retried under which words, how often, and how long
 * after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/router/retry_policy.h"
#include "proxy/router/retry_state.h"

static struct kb_arena arena;
static struct kb_header_map request;
static struct kb_retry_policy policy;
static struct kb_retry_state state;
static const struct kb_retry_gate open_gate = {.room = true, .enabled = true, .wall_s = 1000};
static unsigned counts;

static int setup(void **unused)
{
    (void)unused;
    kb_header_names_init();
    kb_arena_init(&arena, NULL);
    kb_header_map_init(&request, &arena);
    memset(&policy, 0, sizeof(policy));
    policy.num_retries = 1;
    policy.host_selection_attempts = 1;
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    kb_arena_dispose(&arena);
    return 0;
}

static void request_header(const char *name, const char *value)
{
    kb_header_map_add(&request, kb_str_from_cstr(name), kb_str_from_cstr(value));
}

/* "503" or "200|name: value". */
static struct kb_header_map *answer(const char *text)
{
    struct kb_header_map *map = kb_arena_calloc(&arena, sizeof(*map));
    struct kb_str rest = kb_str_from_cstr(text);
    struct kb_str part;
    uint64_t status;

    kb_header_map_init(map, &arena);
    assert_true(kb_str_next_token(&rest, '|', &part));
    assert_int_equal(kb_str_to_u64(part, &status), 0);
    map->status = (uint16_t)status;
    while (kb_str_next_token(&rest, '|', &part)) {
        ptrdiff_t colon = kb_str_find_char(part, ':');

        kb_header_map_add(map, kb_str_first(part, (size_t)colon),
                          kb_str_trim(kb_str_from(part, (size_t)colon + 1)));
    }
    return map;
}

static bool would(const char *retry_on, const char *text)
{
    policy.retry_on = kb_retry_on_parse(kb_str_from_cstr(retry_on), false, NULL) |
                      kb_retry_on_parse(kb_str_from_cstr(retry_on), true, NULL);
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    return kb_retry_would_retry_headers(&state, answer(text));
}

static void test_words(void **unused)
{
    unsigned unknown = 0;

    (void)unused;
    assert_int_equal(kb_retry_on_parse(KB_STR("5xx, reset ,connect-failure"), false, NULL),
                     KB_RETRY_ON_5XX | KB_RETRY_ON_RESET | KB_RETRY_ON_CONNECT_FAILURE);
    assert_int_equal(kb_retry_on_parse(KB_STR("cancelled,5xx,internal"), true, &unknown),
                     KB_RETRY_ON_GRPC_CANCELLED | KB_RETRY_ON_GRPC_INTERNAL);
    assert_int_equal(unknown, 1);
    assert_int_equal(kb_retry_on_parse(KB_STR(""), false, &unknown), 0);
    assert_int_equal(kb_retry_on_parse(KB_STR("5XX,,x"), false, &unknown), 0);
    assert_int_equal(unknown, 3);
    assert_int_equal(
        kb_retry_on_parse(KB_STR("gateway-error,envoy-ratelimited,retriable-4xx,refused-stream,"
                                 "retriable-status-codes,retriable-headers,reset-before-request,"
                                 "http3-post-connect-failure"),
                          false, NULL),
        KB_RETRY_ON_GATEWAY_ERROR | KB_RETRY_ON_ENVOY_RATE_LIMITED | KB_RETRY_ON_RETRIABLE_4XX |
            KB_RETRY_ON_REFUSED_STREAM | KB_RETRY_ON_RETRIABLE_STATUS_CODES |
            KB_RETRY_ON_RETRIABLE_HEADERS | KB_RETRY_ON_RESET_BEFORE_REQUEST |
            KB_RETRY_ON_HTTP3_POST_CONNECT_FAILURE);
}

static void test_answers(void **unused)
{
    static const struct {
        const char *retry_on, *answer;
        bool would;
    } cases[] = {
        {"5xx", "500", true},
        {"5xx", "599", true},
        {"5xx", "499", false},
        {"gateway-error", "502", true},
        {"gateway-error", "504", true},
        {"gateway-error", "500", false},
        {"gateway-error", "505", false},
        {"retriable-4xx", "409", true},
        {"retriable-4xx", "404", false},
        {"retriable-status-codes", "429", true},
        {"retriable-status-codes", "430", false},
        {"5xx", "429", false},
        {"reset", "503", false},
        {"connect-failure", "503", false},
        {"5xx", "503|x-envoy-ratelimited: 1", false},
        {"5xx,envoy-ratelimited", "429|x-envoy-ratelimited: 1", true},
        {"envoy-ratelimited", "429", false},
        {"unavailable", "200|grpc-status: 14", true},
        {"unavailable", "200|grpc-status: 13", false},
        {"internal", "200|grpc-status: 13", true},
        {"cancelled", "200|grpc-status: 1", true},
        {"deadline-exceeded", "200|grpc-status: 4", true},
        {"resource-exhausted", "200|grpc-status: 8", true},
        {"resource-exhausted", "200|grpc-status: x", false},
        {"5xx", "200|grpc-status: 14", false},
    };
    static const uint32_t codes[] = {418, 429};

    (void)unused;
    policy.retriable_status_codes = codes;
    policy.retriable_status_code_count = 2;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        if (would(cases[i].retry_on, cases[i].answer) != cases[i].would) {
            fail_msg("%s with %s: not %d", cases[i].retry_on, cases[i].answer, cases[i].would);
        }
    }
}

static bool would_reset(const char *retry_on, enum kb_reset_reason reason, bool started)
{
    policy.retry_on = kb_retry_on_parse(kb_str_from_cstr(retry_on), false, NULL);
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    return kb_retry_should_retry_reset(&state, reason, started, &open_gate, &counts) ==
           KB_RETRY_YES;
}

static void test_resets(void **unused)
{
    (void)unused;
    assert_true(would_reset("connect-failure", KB_RESET_REMOTE_CONNECTION_FAILURE, false));
    assert_true(would_reset("connect-failure", KB_RESET_LOCAL_CONNECTION_FAILURE, false));
    assert_true(would_reset("connect-failure", KB_RESET_CONNECTION_TIMEOUT, false));
    assert_false(would_reset("connect-failure", KB_RESET_CONNECTION_TERMINATION, true));
    assert_true(would_reset("reset", KB_RESET_CONNECTION_TERMINATION, true));
    assert_true(would_reset("5xx", KB_RESET_REMOTE_CONNECTION_FAILURE, false));
    assert_true(would_reset("gateway-error", KB_RESET_PROTOCOL_ERROR, true));
    assert_false(would_reset("retriable-4xx", KB_RESET_REMOTE_RESET, true));
    assert_true(would_reset("refused-stream", KB_RESET_REMOTE_REFUSED_STREAM_RESET, true));
    assert_false(would_reset("refused-stream", KB_RESET_REMOTE_RESET, true));
    assert_true(would_reset("reset-before-request", KB_RESET_REMOTE_CONNECTION_FAILURE, false));
    assert_false(would_reset("reset-before-request", KB_RESET_CONNECTION_TERMINATION, true));
    assert_false(would_reset("reset,5xx,connect-failure", KB_RESET_OVERFLOW, false));
    assert_false(would_reset("", KB_RESET_LOCAL_RESET, false));
}

static void test_count(void **unused)
{
    (void)unused;
    policy.num_retries = 2;
    policy.retry_on = KB_RETRY_ON_5XX;
    assert_true(kb_retry_state_init(&state, &policy, &request, 25));
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("503"), &open_gate, &counts),
                     KB_RETRY_YES);
    assert_int_equal(counts, KB_RETRY_COUNT_RETRY);
    assert_int_equal(
        kb_retry_should_retry_reset(&state, KB_RESET_REMOTE_RESET, true, &open_gate, &counts),
        KB_RETRY_YES);
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("503"), &open_gate, &counts),
                     KB_RETRY_LIMIT_EXCEEDED);
    assert_int_equal(counts, KB_RETRY_COUNT_LIMIT_EXCEEDED);
    assert_false(state.retrying);
}

static void test_success_is_counted_once(void **unused)
{
    (void)unused;
    policy.num_retries = 3;
    policy.retry_on = KB_RETRY_ON_5XX;
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("200"), &open_gate, &counts),
                     KB_RETRY_NO);
    assert_int_equal(counts, 0);
    (void)kb_retry_should_retry_headers(&state, answer("503"), &open_gate, &counts);
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("200"), &open_gate, &counts),
                     KB_RETRY_NO);
    assert_int_equal(counts, KB_RETRY_COUNT_SUCCESS);
    (void)kb_retry_should_retry_headers(&state, answer("200"), &open_gate, &counts);
    assert_int_equal(counts, 0);
}

static void test_gate(void **unused)
{
    struct kb_retry_gate gate = {.room = false, .enabled = true};

    (void)unused;
    policy.num_retries = 2;
    policy.retry_on = KB_RETRY_ON_5XX;
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("503"), &gate, &counts),
                     KB_RETRY_OVERFLOW);
    assert_int_equal(counts, KB_RETRY_COUNT_OVERFLOW);
    gate.room = true;
    gate.enabled = false;
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("503"), &gate, &counts),
                     KB_RETRY_NO);
    assert_int_equal(counts, 0);
    gate.enabled = true; /* both decisions above used up a try */
    assert_int_equal(kb_retry_should_retry_headers(&state, answer("503"), &gate, &counts),
                     KB_RETRY_LIMIT_EXCEEDED);
}

static void test_request_headers(void **unused)
{
    (void)unused;
    request_header("x-envoy-retry-on", "retriable-status-codes,retriable-headers");
    request_header("x-envoy-retry-grpc-on", "unavailable");
    request_header("x-envoy-max-retries", "5");
    request_header("x-envoy-retriable-status-codes", "418, 430,x");
    request_header("x-envoy-retriable-header-names", "X-Again, x-more");
    request_header("x-envoy-hedge-on-per-try-timeout", "true");
    request_header("x-envoy-upstream-rq-per-try-timeout-ms", "1");
    request_header("x-keep", "1");
    assert_true(kb_retry_state_init(&state, NULL, &request, 25));
    assert_int_equal(request.live, 1);
    assert_int_equal(state.retries_remaining, 5);
    assert_true(kb_retry_would_retry_headers(&state, answer("418")));
    assert_true(kb_retry_would_retry_headers(&state, answer("430")));
    assert_false(kb_retry_would_retry_headers(&state, answer("431")));
    assert_true(kb_retry_would_retry_headers(&state, answer("200|x-again: 0")));
    assert_true(kb_retry_would_retry_headers(&state, answer("200|x-more: 0")));
    assert_false(kb_retry_would_retry_headers(&state, answer("200|x-other: 0")));
    assert_true(kb_retry_would_retry_headers(&state, answer("200|grpc-status: 14")));
    kb_header_map_init(&request, &arena);
    assert_false(kb_retry_state_init(&state, NULL, &request, 25));
    request_header("x-envoy-max-retries", "5"); /* nothing to retry on */
    assert_false(kb_retry_state_init(&state, NULL, &request, 25));
    assert_int_equal(request.live, 0);
}

static void test_exponential_backoff(void **unused)
{
    bool limited;

    (void)unused;
    policy.retry_on = KB_RETRY_ON_5XX;
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    assert_int_equal(kb_retry_delay_ms(&state, 24, &limited), 24);
    assert_false(limited);
    assert_int_equal(kb_retry_delay_ms(&state, 49, &limited), 49);
    assert_int_equal(kb_retry_delay_ms(&state, 50, &limited), 50);
    assert_int_equal(kb_retry_delay_ms(&state, 199, &limited), 199);
    assert_int_equal(kb_retry_delay_ms(&state, 249, &limited),
                     249); /* ten times the base at most */
    assert_int_equal(kb_retry_delay_ms(&state, 250, &limited), 0);
    policy.base_interval_ms = 3;
    policy.max_interval_ms = 5;
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    assert_int_equal(kb_retry_delay_ms(&state, 3, &limited), 0);
    assert_int_equal(kb_retry_delay_ms(&state, 4, &limited), 4);
    assert_int_equal(kb_retry_delay_ms(&state, 5, &limited), 0);
}

static void test_rate_limited_backoff(void **unused)
{
    static const struct kb_reset_header headers[] = {{{"retry-after", 11}, false},
                                                     {{"x-ratelimit-reset", 17}, true}};
    static const struct kb_rate_limited_backoff backoff = {headers, 2, 300000};
    static const struct {
        const char *answer;
        uint64_t least_ms; /* 0: exponential */
    } cases[] = {
        {"503|retry-after: 2", 2000},
        {"503|x-ratelimit-reset: 1010", 10000},
        {"503|x-ratelimit-reset: 999", 0},  /* in the past: it is 1000 */
        {"503|x-ratelimit-reset: 1000", 0}, /* now */
        {"503|retry-after: 301", 0},        /* too long */
        {"503|retry-after: 301|x-ratelimit-reset: 1003", 3000},
        {"503|retry-after: Wed, 21 Oct 2015 07:28:00 GMT", 0},
        {"503|retry-after: 18446744073709551615", 0},
        {"503", 0},
    };

    (void)unused;
    policy.retry_on = KB_RETRY_ON_5XX;
    policy.num_retries = 100;
    policy.rate_limited = &backoff;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        bool limited;
        uint64_t delay;

        (void)kb_retry_state_init(&state, &policy, &request, 25);
        assert_int_equal(
            kb_retry_should_retry_headers(&state, answer(cases[i].answer), &open_gate, &counts),
            KB_RETRY_YES);
        delay = kb_retry_delay_ms(&state, 999, &limited);
        assert_int_equal(limited, cases[i].least_ms > 0);
        assert_int_equal(delay, cases[i].least_ms > 0
                                    ? cases[i].least_ms + 999 % (cases[i].least_ms / 2)
                                    : 999 % 25);
        if (limited) { /* only for the answer that said so */
            (void)kb_retry_delay_ms(&state, 1, &limited);
            assert_false(limited);
        }
    }
}

static void test_budget(void **unused)
{
    (void)unused;
    assert_int_equal(kb_retry_budget_limit(20.0, 3, 0, 0), 3);
    assert_int_equal(kb_retry_budget_limit(20.0, 3, 15, 4), 3);
    assert_int_equal(kb_retry_budget_limit(20.0, 3, 16, 4), 4);
    assert_int_equal(kb_retry_budget_limit(100.0, 0, 7, 3), 10);
}

static void test_hedge(void **unused)
{
    (void)unused;
    (void)kb_retry_state_init(&state, &policy, &request, 25);
    assert_int_equal(kb_retry_should_hedge(&state, &open_gate, &counts), KB_RETRY_YES);
    assert_int_equal(kb_retry_should_hedge(&state, &open_gate, &counts), KB_RETRY_LIMIT_EXCEEDED);
}

static void test_reset_texts(void **unused)
{
    (void)unused;
    assert_string_equal(kb_reset_reason_text(KB_RESET_CONNECTION_TERMINATION).p,
                        "connection termination");
    assert_string_equal(kb_reset_reason_text(KB_RESET_OVERFLOW).p, "overflow");
    assert_string_equal(kb_reset_reason_text((enum kb_reset_reason)99).p, "unknown reset");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_words),
        TEST(test_answers),
        TEST(test_resets),
        TEST(test_count),
        TEST(test_success_is_counted_once),
        TEST(test_gate),
        TEST(test_request_headers),
        TEST(test_exponential_backoff),
        TEST(test_rate_limited_backoff),
        TEST(test_budget),
        TEST(test_hedge),
        TEST(test_reset_texts),
    };

    return cmocka_run_group_tests_name("retry_state", tests, NULL, NULL);
}
