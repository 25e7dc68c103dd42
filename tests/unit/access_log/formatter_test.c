/* SPDX-License-Identifier: Apache-2.0 */
/* Format strings: what each command yields. */
#include "tests/unit/access_log/fixture.h"

#include <stdlib.h>
#include <time.h>

#include "proxy/access_log/formatter_internal.h"

static void setup(struct fixture *f)
{
    fixture_init(f);
}

struct expectation {
    const char *format, *text;
};

static void expect_all(struct fixture *f, const struct expectation *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        fixture_expect(f, list[i].format, list[i].text);
    }
}

static void test_literal_text_is_returned_itself(void **state)
{
    struct fixture f;
    struct kb_formatter *formatter;
    struct kb_str one, two;

    (void)state;
    setup(&f);
    fixture_expect(&f, "", "");
    fixture_expect(&f, "100%% of a%%%%", "100% of a%%");
    formatter = kb_formatter_create(&f.arena, KB_STR("plain"), false, &f.diag);
    one = kb_formatter_text(formatter, &f.input, &f.info, &f.arena);
    two = kb_formatter_text(formatter, &f.input, &f.info, &f.arena);
    assert_ptr_equal(one.p, two.p);
    fixture_dispose(&f);
}

static void test_single_header_is_not_copied(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    assert_ptr_equal(fixture_text(&f, "%REQ(X-LONG)%").p,
                     kb_header_map_get(&f.request, KB_STR("x-long"))->value.p);
    fixture_dispose(&f);
}

static void test_headers(void **state)
{
    static const struct expectation list[] = {
        {"%REQ(X-A)%", "A1"},
        {"%REQ(:METHOD)%", "GET"},
        {"%REQ(x-none?x-b)%", "B"},
        {"%REQ(x-a?x-b)%", "A1"},
        {"%REQ(?x-a)%", "A1"},
        {"%REQ(x-a?)%", "A1"},
        {"%REQ(X-LONG):5%", "12345"},
        {"%REQ(X-LONG):0%", ""},
        {"%REQ(x-dup)%", "1"},
        {"[%REQ(x-empty)%]", "[]"},
        {"%REQ(x-none)%", "-"},
        {"%REQ(x-empty?x-a)%", ""},
        {"%REQUEST_HEADER(host)%", "ex.com:80"},
        {"%STREAM_INFO_REQ(:authority)%", "ex.com:80"},
        {"%REQ(:scheme)%", "http"},
        {"%RESP(x-a?:status)%", "ra"},
        {"%RESP(x-none?:status)%", "200"},
        {"%RESP(:STATUS)%|%RESPONSE_HEADER(server):3%", "200|env"},
        {"%TRAILER(x-t)%%RESPONSE_TRAILER(X-T):1%", "tvt"},
    };
    struct fixture f;

    (void)state;
    setup(&f);
    expect_all(&f, list, KB_ARRAY_LEN(list));
    fixture_dispose(&f);
}

static void test_path_and_query(void **state)
{
    static const struct expectation list[] = {
        {"%PATH%", "/ok/a?q=hello%20w&r=1&a%20b=1%41&z=%zz&bare"},
        {"%PATH(NQ)%", "/ok/a"},
        {"%PATH(NQ:PATH):3%", "/ok"},
        {"%PATH(WQ:ORIG)%", "-"},
        {"%QUERY_PARAM(q)%", "hello w"},
        {"%QUERY_PARAM(q):2%", "he"},
        {"%QUERY_PARAM(a b)%", "1A"},
        {"%QUERY_PARAM(z)%", "%zz"},
        {"[%QUERY_PARAM(bare)%]", "[]"},
        {"%QUERY_PARAM(none)%", "-"},
        {"%QUERY_PARAMS%", "q=hello%20w&r=1&a%20b=1%41&z=%zz&bare"},
        {"%QUERY_PARAMS(ORIG):3%", "q=h"},
        {"%QUERY_PARAMS(DECODED)%", "q=hello%20w&r=1&a%20b=1A&z=zz&bare"},
    };
    struct fixture f;

    (void)state;
    setup(&f);
    expect_all(&f, list, KB_ARRAY_LEN(list));
    kb_header_map_add_id(&f.request, KB_HDR_X_ENVOY_ORIGINAL_PATH, KB_STR("/rw/x?y"));
    fixture_expect(&f, "%PATH% %PATH(NQ)% %PATH(WQ:PATH):3% %PATH(NQ:ORIG):3%",
                   "/rw/x?y /rw/x /ok /rw");
    f.request.path = KB_STR("/p?%41%4&%%41&%zz&%2f%3F%3c%5B%5c%7e%7f%e2%82&a+b&%G");
    fixture_expect(&f, "%QUERY_PARAMS(DECODED)%", "A4&A&zz&/?%3c[%5c~%7f%e2%82&a+b&%G");
    f.request.path = KB_STR("/p?d=%0A%0d%00%09%ff%41%4&e=%%41%4g");
    fixture_expect(&f, "%QUERY_PARAM(d)%|%QUERY_PARAM(e)%",
                   "%0A%0d%00\t\xff"
                   "A%4|%A%4g");
    f.request.path = KB_STR("/p?");
    fixture_expect(&f, "[%QUERY_PARAMS%]", "[]");
    f.request.path = KB_STR("/p");
    fixture_expect(&f, "[%QUERY_PARAMS%]", "[-]");
    fixture_dispose(&f);
}

static void test_stream_numbers(void **state)
{
    static const struct expectation list[] = {
        {"%BYTES_RECEIVED% %BYTES_SENT% %BYTES_RETRANSMITTED% %PACKETS_RETRANSMITTED%", "10 5 0 0"},
        {"%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT%", "180 192"},
        {"%DOWNSTREAM_HEADER_BYTES_RECEIVED% %DOWNSTREAM_HEADER_BYTES_SENT%", "132 168"},
        {"%UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_SENT%", "87 277"},
        {"%UPSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_HEADER_BYTES_SENT%", "59 239"},
        {"%RESPONSE_CODE% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %CONNECTION_ID% "
         "%UPSTREAM_CONNECTION_ID%",
         "200 1 1 2"},
        {"%ROUTE_RESOLUTION_COUNT% %ROUTE_RESOLUTION_TIME_US% %DOWNSTREAM_CX_RTT%", "1 7 0"},
        {"%DURATION% %REQUEST_DURATION% %REQUEST_TX_DURATION%", "12 1 4"},
        {"%RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "7 2"},
        {"%UPSTREAM_CONNECTION_POOL_READY_DURATION% %ROUNDTRIP_DURATION%", "3 -"},
        {"%COMMON_DURATION(DS_RX_BEG:DS_TX_END)% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
         "10 10000"},
        {"%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ns)% %COMMON_DURATION(US_CX_BEG:US_CX_END:us)%",
         "3360804 26"},
        {"%COMMON_DURATION(US_RX_BEG:US_RX_END:us)% %COMMON_DURATION(US_HS_END:DS_TX_END)%",
         "200 -"},
        {"%COMMON_DURATION(DS_TX_END:DS_RX_BEG)% %COMMON_DURATION(a:b)% %COMMON_DURATION(:)%",
         "- - -"},
    };
    struct fixture f;

    (void)state;
    setup(&f);
    expect_all(&f, list, KB_ARRAY_LEN(list));
    f.info.route_resolutions = 0;
    f.info.upstream.first_rx_ns = 0;
    fixture_expect(&f, "%ROUTE_RESOLUTION_TIME_US% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%",
                   "- - -");
    f.info.upstream.connection_pool_asked_ns = FIXTURE_START_NS + 2500000;
    fixture_expect(&f, "%UPSTREAM_CONNECTION_POOL_READY_DURATION%", "0");
    fixture_dispose(&f);
}

static void test_addresses(void **state)
{
    static const struct expectation list[] = {
        {"%DOWNSTREAM_REMOTE_ADDRESS%", "192.168.37.129:222"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", "192.168.37.129 222"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%", "192.168.0.0/16"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(31)%", "192.168.37.128/31"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33)%", "192.168.37.129/32"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)%", "0.0.0.0/0"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(x)%", "192.168.37.129"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(+8)%", "192.0.0.0/8"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT( 8)%", "192.0.0.0/8"},
        {"[%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(-1)%]", "[]"},
        {"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "127.0.0.1:53234"},
        {"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_PORT%",
         "127.0.0.1 53234"},
        {"%DOWNSTREAM_LOCAL_ADDRESS%", "[2001:db8::1]:443"},
        {"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%", "2001:db8::1 443"},
        {"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(20)%", "2001::/20"},
        {"[%DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID%]", "[]"},
        {"%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%", "/run/k.sock"},
        {"%DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT%", "/run/k.sock"},
        {"[%DOWNSTREAM_DIRECT_LOCAL_PORT%]", "[]"},
        {"[%DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT(8)%]", "[]"},
        {"%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %UPSTREAM_LOCAL_PORT%",
         "127.0.0.1:54646 127.0.0.1 54646"},
        {"%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)% "
         "%UPSTREAM_REMOTE_PORT%",
         "127.0.0.1:21401 127.0.0.0/8 21401"},
    };
    struct fixture f;

    (void)state;
    setup(&f);
    expect_all(&f, list, KB_ARRAY_LEN(list));
    f.info.upstream.local.len = 0;
    f.info.upstream.remote.len = 0;
    fixture_expect(
        &f, "%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_REMOTE_PORT% %UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID%",
        "- - -");
    f.info.remote.len = 0;
    fixture_expect(&f, "%DOWNSTREAM_REMOTE_ADDRESS%", "10.1.2.3:111");
    f.info.connection = NULL;
    fixture_expect(&f, "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_PORT% %CONNECTION_ID%",
                   "- - 0");
    fixture_dispose(&f);
}

static void test_upstream_names(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    fixture_expect(&f,
                   "%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_PROTOCOL%",
                   "127.0.0.1:21401 altup up HTTP/1.1");
    fixture_expect(&f, "%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%",
                   "127.0.0.1:21401 127.0.0.1");
    fixture_expect(&f, "%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%",
                   "127.0.0.1:21401 127.0.0.1");
    fixture_expect(&f, "%UPSTREAM_CONNECTION_IDS_ATTEMPTED% %UPSTREAM_DETECTED_CLOSE_TYPE%",
                   "2 Normal");
    fixture_host(&f, KB_STR("hn:99"));
    fixture_expect(&f, "%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%", "hn:99 hn");
    fixture_expect(&f,
                   "%UPSTREAM_HOST_NAMES_ATTEMPTED% %UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT%",
                   "hn:99 hn");
    f.info.upstream.hosts_attempted = KB_STR("10.0.0.1:1,[::2]:3");
    fixture_expect(&f, "%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%",
                   "10.0.0.1:1,[::2]:3 10.0.0.1,[::2]");
    f.info.upstream.hosts_attempted = KB_STR_NULL;
    f.info.upstream.connection_id = 0;
    fixture_expect(&f,
                   "%UPSTREAM_HOST% %UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_CONNECTION_IDS_ATTEMPTED%",
                   "127.0.0.1:21401 - -");
    f.info.upstream.host = NULL;
    f.info.upstream.cluster = NULL;
    f.info.upstream_cluster_name = KB_STR_NULL;
    f.info.upstream.protocol = KB_PROTOCOL_NONE;
    fixture_expect(&f,
                   "%UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%",
                   "- - - -");
    /* A pool was asked and had nothing to give. */
    fixture_expect(&f, "%UPSTREAM_PROTOCOL% %UPSTREAM_DETECTED_CLOSE_TYPE%", "- Normal");
    f.info.upstream.connection_pool_ready_ns = 0;
    fixture_expect(&f, "%UPSTREAM_PROTOCOL% %UPSTREAM_DETECTED_CLOSE_TYPE%", "- -");
    fixture_dispose(&f);
}

static void test_names_and_failures(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    fixture_expect(&f, "%ROUTE_NAME% %FILTER_CHAIN_NAME% %LISTENER_NAME% %VIRTUAL_CLUSTER_NAME%",
                   "rt_ok fc lh -");
    fixture_expect(&f,
                   "%PROTOCOL% %STREAM_ID% %ACCESS_LOG_TYPE% [%LOCAL_REPLY_BODY%] [%CUSTOM_FLAGS%]",
                   "HTTP/1.1 8d57c642-cfae-40de-b0bc-54f1b670b12f DownstreamEnd [] []");
    fixture_expect(&f, "%CONNECTION_TERMINATION_DETAILS% %REQUESTED_SERVER_NAME% %TRACE_ID%",
                   "- - -");
    f.input.local_reply_body = KB_STR("no healthy upstream");
    f.connection.requested_server_name = KB_STR("a_b.example:1/x");
    f.connection.termination_details = KB_STR("rbac denied");
    f.connection.transport_failure_reason = KB_STR("TLS error: x y");
    f.connection.local_close_reason = KB_STR("idle timeout");
    f.info.upstream.transport_failure_reason = KB_STR("delayed connect error: Connection refused");
    f.info.response_code_details = KB_STR("a b\tc");
    fixture_expect(&f,
                   "%LOCAL_REPLY_BODY%|%REQUESTED_SERVER_NAME%|%CONNECTION_TERMINATION_DETAILS%",
                   "no healthy upstream|a_b.example_1_x|rbac denied");
    fixture_expect(&f, "%DOWNSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_LOCAL_CLOSE_REASON%",
                   "- idle_timeout"); /* a request came through */
    f.info.protocol = KB_PROTOCOL_NONE;
    fixture_expect(&f, "%DOWNSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_LOCAL_CLOSE_REASON%",
                   "TLS_error:_x_y idle_timeout");
    f.info.protocol = KB_PROTOCOL_HTTP11;
    fixture_expect(&f, "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
                   "delayed_connect_error:_Connection_refused");
    fixture_expect(&f, "%RESPONSE_CODE_DETAILS%|%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%",
                   "a_b_c|a b\tc");
    fixture_dispose(&f);
}

static void test_flags_stand_in_the_order_set(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    fixture_expect(&f, "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "- -");
    kb_stream_info_set_flag(&f.info, KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED);
    fixture_expect(&f, "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "URX UpstreamRetryLimitExceeded");
    kb_stream_info_set_flag(&f.info, KB_RF_UPSTREAM_CONNECTION_TERMINATION);
    fixture_expect(&f, "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
                   "URX,UC UpstreamRetryLimitExceeded,UpstreamConnectionTermination");
    for (int i = 0; i < KB_RF_COUNT; i++) {
        kb_stream_info_set_flag(&f.info, (enum kb_response_flag)i);
    }
    assert_true(fixture_text(&f, "%RESPONSE_FLAGS_LONG%").len > KB_FORMAT_SCRATCH);
    fixture_dispose(&f);
}

static void test_grpc_status(void **state)
{
    static const struct {
        const char *value, *expected; /* camel, snake, number */
    } list[] = {
        {"0", "OK OK 0"},
        {"1", "Canceled CANCELLED 1"},
        {"007", "PermissionDenied PERMISSION_DENIED 7"},
        {"16", "Unauthenticated UNAUTHENTICATED 16"},
        {"17", "17 17 17"},
        {"4294967301", "4294967301 NOT_FOUND 4294967301"},
        {"abc", "-1 -1 -1"},
        {"-1", "-1 -1 -1"},
        {"", "Unknown UNKNOWN 2"},
        {"99999999999999999999", "-1 -1 -1"},
    };
    const char *format = "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%";
    struct fixture f;

    (void)state;
    setup(&f);
    fixture_expect(&f, format, "- - -");
    kb_header_map_add_id(&f.request, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc+json"));
    for (size_t i = 0; i < KB_ARRAY_LEN(list); i++) {
        kb_header_map_set_id(&f.response, KB_HDR_GRPC_STATUS, kb_str_from_cstr(list[i].value));
        fixture_expect(&f, format, list[i].expected);
    }
    kb_header_map_add_id(&f.trailers, KB_HDR_GRPC_STATUS, KB_STR("5"));
    fixture_expect(&f, format, "NotFound NOT_FOUND 5");
    kb_header_map_remove_id(&f.trailers, KB_HDR_GRPC_STATUS);
    kb_header_map_remove_id(&f.response, KB_HDR_GRPC_STATUS);
    f.info.response_code = 503;
    fixture_expect(&f, format, "Unavailable UNAVAILABLE 14");
    kb_header_map_set_id(&f.request, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc-web"));
    fixture_expect(&f, format, "- - -");
    fixture_dispose(&f);
}

static void test_time(void **state)
{
    static const struct expectation list[] = {
        {"%START_TIME%", "2026-11-22T01:18:50.675Z"},
        {"%START_TIME()%", "2026-11-22T01:18:50.675Z"},
        {"%START_TIME(abc)%", "abc"},
        {"%START_TIME(%s.%3f)%", "1795310330.675"},
        {"%START_TIME(%f|%1f|%6f|%9f)%", "675840000|6|675840|675840000"},
        {"%START_TIME(%E3S|%E6S|%E0S|%E*S|%E9S)%", "50.675|50.675840|50|50.67584|50.675840000"},
        {"%START_TIME(%E20S)%", "50.675840000000000000"},
        {"%START_TIME(%E4f|%E*f|%E0f)%", "6758|67584|"},
        {"%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2026/11/22T01:18:50+0000 1795310330"},
        {"%START_TIME(%Ez %E*z %:z %::z %:::z %Z %E4Y%ET)%",
         "+00:00 +00:00:00 +00:00 +00:00:00 +00 UTC 2026T"},
        {"%START_TIME(%a %A %b %B %j %e %p %P %I %U %V %u %w %y %C)%",
         "Sun Sunday Nov November 326 22 AM am 01 47 47 7 0 26 20"},
        {"%START_TIME(%D %F %T %R %x %X)%", "11/22/26 2026-11-22 01:18:50 01:18 11/22/26 01:18:50"},
        {"%START_TIME(%%f %%3f|%%)%", "%675840000 %675|%"},
        {"%START_TIME(%f%%f %%s)%", "675840000%675840000 %1795310330"},
        {"%START_TIME(%E3Sx%3f)%", "50.675x675"},
        {"%START_TIME(%N%Q a%)%", "%N%Q a%"},
        {"%UPSTREAM_PEER_CERT_V_START(%s)% %DOWNSTREAM_PEER_CERT_V_END%", "- -"},
    };
    struct fixture f;

    (void)state;
    setup(&f);
    expect_all(&f, list, KB_ARRAY_LEN(list));
    expect_all(&f, list, KB_ARRAY_LEN(list)); /* from the cache, and past it */
    f.info.wall_start_ns = UINT64_C(1000000007000000000);
    fixture_expect(&f, "%START_TIME% %START_TIME(%E*S|%E*f|%3f)%",
                   "2001-09-09T01:46:47.000Z 47|0|000");
    fixture_dispose(&f);
}

static void test_time_moves_on_with_a_cached_format(void **state)
{
    struct fixture f;
    struct kb_formatter *formatter;
    struct kb_str text;

    (void)state;
    setup(&f);
    formatter = kb_formatter_create(&f.arena, KB_STR("%START_TIME%"), false, &f.diag);
    kb_formatter_text(formatter, &f.input, &f.info, &f.arena);
    f.info.wall_start_ns += 200000000;
    text = kb_formatter_text(formatter, &f.input, &f.info, &f.arena);
    assert_true(kb_str_eq(text, KB_STR("2026-11-22T01:18:50.875Z")));
    f.info.wall_start_ns += 200000000;
    text = kb_formatter_text(formatter, &f.input, &f.info, &f.arena);
    assert_true(kb_str_eq(text, KB_STR("2026-11-22T01:18:51.075Z")));
    fixture_dispose(&f);
}

static void test_local_time(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    setenv("TZ", "EST5", 1);
    tzset();
    fixture_expect(&f, "%START_TIME_LOCAL%", "2026-11-21T20:18:50.675-0500");
    fixture_expect(&f, "%START_TIME_LOCAL(%3f %z %Ez %Z %s)%", "675 -0500 -05:00 EST 1795310330");
    fixture_expect(&f, "%START_TIME%", "2026-11-22T01:18:50.675Z");
    unsetenv("TZ");
    tzset();
    fixture_dispose(&f);
}

static void test_environment_and_identifiers(void **state)
{
    struct fixture f;
    struct kb_str one, two;

    (void)state;
    setup(&f);
    setenv("KB_TEST_VARIABLE", "value", 1);
    fixture_expect(&f, "%ENVIRONMENT(KB_TEST_VARIABLE)% %ENVIRONMENT(KB_TEST_VARIABLE):3%",
                   "value val");
    fixture_expect(&f, "%ENVIRONMENT(KB_TEST_NONE)%", "-");
    assert_true(fixture_text(&f, "%HOSTNAME%").len > 0);
    one = fixture_text(&f, "%UNIQUE_ID%");
    two = fixture_text(&f, "%UNIQUE_ID%");
    assert_int_equal(one.len, 36);
    assert_false(kb_str_eq(one, two));
    fixture_dispose(&f);
}

static void test_coalesce(void **state)
{
    static const struct expectation list[] = {
        {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-none\"},\"PROTOCOL\"]})%",
         "HTTP/1.1"},
        {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-empty\"},\"DURATION\"]})%",
         "12"},
        {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-long\",\"max_length\":4}]}):"
         "2%",
         "12"},
        {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-long\",\"max_length\":4}]})"
         "%",
         "1234"},
        {"%COALESCE({\"operators\":[\"TRACE_ID\"]})%", "-"},
    };
    struct fixture f;

    (void)state;
    setup(&f);
    expect_all(&f, list, KB_ARRAY_LEN(list));
    fixture_dispose(&f);
}

static void test_nothing_of_a_request_yet(void **state)
{
    static const struct kb_formatter_input nothing;
    struct fixture f;
    struct kb_formatter *formatter;
    size_t i = 0;

    (void)state;
    setup(&f);
    memset(&f.info, 0, sizeof(f.info));
    f.input = nothing;
    fixture_expect(&f,
                   "%REQ(a)% %RESP(:status)% %TRAILER(a)% %PATH% %QUERY_PARAM(a)% %QUERY_PARAMS%",
                   "- - - - - -");
    fixture_expect(&f, "%REQUEST_HEADERS_BYTES% %GRPC_STATUS% %ACCESS_LOG_TYPE%", "0 - NotSet");
    for (; kb_format_command_name(i) != NULL; i++) {
        struct kb_str format = kb_str_printf(&f.arena, "%%%s%%", kb_format_command_name(i));

        formatter = kb_formatter_create(&f.arena, format, true, &f.diag);
        if (formatter != NULL) {
            kb_formatter_text(formatter, &f.input, &f.info, &f.arena);
        }
    }
    assert_true(i > 150);
    fixture_dispose(&f);
}

static void test_omit_empty_gives_nothing(void **state)
{
    struct fixture f;
    struct kb_formatter *formatter;

    (void)state;
    setup(&f);
    formatter = kb_formatter_create(
        &f.arena, KB_STR("[%REQ(x-none)%][%TRACE_ID%][%RESPONSE_FLAGS%]"), true, &f.diag);
    assert_true(
        kb_str_eq(kb_formatter_text(formatter, &f.input, &f.info, &f.arena), KB_STR("[][][-]")));
    formatter = kb_formatter_create(&f.arena, KB_STR("%TRACE_ID%"), true, &f.diag);
    assert_int_equal(kb_formatter_text(formatter, &f.input, &f.info, &f.arena).len, 0);
    fixture_dispose(&f);
}

/* Every name that Envoy 1.40 takes is in the table, in order, and found. */
static void test_table_is_sorted(void **state)
{
    (void)state;
    for (size_t i = 1; kb_format_command_name(i) != NULL; i++) {
        assert_true(kb_str_cmp(kb_str_from_cstr(kb_format_command_name(i - 1)),
                               kb_str_from_cstr(kb_format_command_name(i))) < 0);
    }
}

static void test_default_format(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    kb_header_map_add_id(&f.response, KB_HDR_X_ENVOY_UPSTREAM_SERVICE_TIME, KB_STR("7"));
    kb_header_map_add_id(&f.request, KB_HDR_X_REQUEST_ID, KB_STR("id"));
    fixture_expect(
        &f,
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" "
        "%RESPONSE_CODE% "
        "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
        "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" "
        "\"%REQ(:AUTHORITY)%\" "
        "\"%UPSTREAM_HOST%\"\n",
        "[2026-11-22T01:18:50.675Z] \"GET /ok/a?q=hello%20w&r=1&a%20b=1%41&z=%zz&bare HTTP/1.1\" "
        "200 - 10 5 "
        "12 7 \"-\" \"ua/1 \"q\" \xc3\xa9\\\" \"id\" \"ex.com:80\" \"127.0.0.1:21401\"\n");
    fixture_dispose(&f);
}

static void test_long_lines_grow(void **state)
{
    struct fixture f;
    struct kb_str text;
    char *value = malloc(70000);

    (void)state;
    setup(&f);
    memset(value, 'v', 70000);
    kb_header_map_add(&f.request, KB_STR("x-huge"), kb_str_make(value, 70000));
    text = fixture_text(&f, "<%REQ(x-huge)%|%REQ(x-huge):3%>");
    assert_int_equal(text.len, 70000 + 6);
    assert_memory_equal(text.p + 70001, "|vvv>", 5);
    free(value);
    fixture_dispose(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literal_text_is_returned_itself),
        cmocka_unit_test(test_single_header_is_not_copied),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_path_and_query),
        cmocka_unit_test(test_stream_numbers),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_upstream_names),
        cmocka_unit_test(test_names_and_failures),
        cmocka_unit_test(test_flags_stand_in_the_order_set),
        cmocka_unit_test(test_grpc_status),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_time_moves_on_with_a_cached_format),
        cmocka_unit_test(test_local_time),
        cmocka_unit_test(test_environment_and_identifiers),
        cmocka_unit_test(test_coalesce),
        cmocka_unit_test(test_nothing_of_a_request_yet),
        cmocka_unit_test(test_omit_empty_gives_nothing),
        cmocka_unit_test(test_table_is_sorted),
        cmocka_unit_test(test_default_format),
        cmocka_unit_test(test_long_lines_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
