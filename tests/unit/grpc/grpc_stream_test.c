/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC streams against a scripted server: the status, the text and the statistics of every way to
 * end are those that Envoy 1.40 showed for its xDS stream with the same server. */
#include "../upstream/upstream_fixture.h"

#include "h2_server.h"
#include "proxy/grpc/grpc_stream.h"

#define TURNS_MAX 3000000
#define OPTIONS                                                                                    \
    "'typed_extension_protocol_options':{'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'" \
    ":{'@type':'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',"      \
    "'explicit_http_config':{'http2_protocol_options':{%s}}}}"
#define OK_HEAD "H :status=200 content-type=application/grpc"

struct seen {
    struct kb_grpc_stream *stream;
    unsigned opened, heads, messages, closed, writable;
    size_t message_bytes;
    char last[64];
    int status;
    char text[512];
    bool destroy_on_message;
};

static struct h2_server server;

static void on_opened(void *arg)
{
    ((struct seen *)arg)->opened++;
}

static void on_response_headers(void *arg)
{
    ((struct seen *)arg)->heads++;
}

static void on_message(void *arg, struct kb_str message)
{
    struct seen *seen = arg;

    seen->messages++;
    seen->message_bytes += message.len;
    (void)snprintf(seen->last, sizeof(seen->last), "%.*s", (int)KB_MIN(message.len, 63u),
                   message.p);
    if (seen->destroy_on_message) {
        kb_grpc_stream_destroy(seen->stream);
        seen->stream = NULL;
    }
}

static void on_writable(void *arg)
{
    ((struct seen *)arg)->writable++;
}

static void on_closed(void *arg, int status, struct kb_str text)
{
    struct seen *seen = arg;

    seen->closed++;
    seen->status = status;
    (void)snprintf(seen->text, sizeof(seen->text), "%.*s", KB_STR_ARG(text));
    kb_grpc_stream_destroy(seen->stream);
    seen->stream = NULL;
}

static const struct kb_grpc_stream_callbacks callbacks = {
    .on_opened = on_opened,
    .on_response_headers = on_response_headers,
    .on_message = on_message,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

static void turn(struct upstream *up)
{
    h2_server_turn(&server);
    kb_loop_post(&up->main.loop, nothing_posted, NULL); /* so that what is deferred runs */
    kb_loop_run_once(&up->main.loop, false);
}

#define TURN_UNTIL(up, condition)                           \
    do {                                                    \
        unsigned turns_ = 0;                                \
        while (!(condition)) {                              \
            turn(up);                                       \
            if (++turns_ > TURNS_MAX) {                     \
                fail_msg("never happened: %s", #condition); \
            }                                               \
        }                                                   \
    } while (0)

/* The cluster "xds" at the server. */
static void begin(struct upstream *up, const char *script, const char *http2, const char *more)
{
    struct kb_str json;

    kb_header_names_init();
    h2_server_open(&server, script);
    json = kb_str_printf(
        &up->arena,
        "{'name':'xds','connect_timeout':'1s',%s" OPTIONS
        ",'load_assignment':{'cluster_name':'xds','endpoints':[{'lb_endpoints':[{'endpoint':{"
        "'address':{'socket_address':{'address':'127.0.0.1','port_value':%u}}}}]}]}}",
        more, http2, server.port);
    assert_int_equal(cluster_add(up, json.p), 0);
    upstream_start(up);
}

static void open_stream(struct upstream *up, struct seen *seen, const char *cluster)
{
    const struct kb_grpc_metadata metadata = {KB_STR("k"), KB_STR("v")};
    const struct kb_grpc_stream_options options = {
        .cluster = kb_str_from_cstr(cluster),
        .path = KB_STR("/a.B/C"),
        .metadata = &metadata,
        .metadata_count = 1,
        .max_message_bytes = 100000,
    };

    seen->stream = kb_grpc_stream_open(&up->main, &options, &callbacks, seen);
}

static void end(struct upstream *up, struct seen *seen)
{
    kb_grpc_stream_destroy(seen->stream);
    kb_grpc_worker_close(&up->main);
    for (unsigned i = 0; i < 8; i++) {
        turn(up);
    }
    h2_server_close(&server);
}

struct ending {
    const char *script;
    int status;
    const char *text;
    const char *stats; /* "name=value name=value" of cluster.xds. */
};

#define BEFORE(word, under)                                                          \
    "upstream connect error or disconnect/reset before headers. reset reason: " word \
    "{upstream_reset_before_response_started{" under "}}"
#define AFTER(under) "upstream_reset_after_response_started{" under "}"

static const struct ending endings[] = {
    {OK_HEAD ";HE grpc-status=7 grpc-message=a%20b%zz", 7, "a%20b%zz{via_upstream}",
     "http2.tx_reset=1 upstream_rq_tx_reset=1 upstream_rq_200=1 internal.upstream_rq_200=1 "
     "upstream_rq_active=0 upstream_rq_total=1 upstream_cx_active=1 http2.streams_active=0"},
    {"HE :status=200 content-type=application/grpc grpc-status=7 grpc-message=only", 7,
     "only{via_upstream}", "upstream_rq_tx_reset=1 upstream_rq_200=1"},
    {OK_HEAD ";HE grpc-status=0", 0, "via_upstream", "upstream_rq_tx_reset=1"},
    {OK_HEAD ";HE x=y", 2, "via_upstream", ""},
    {OK_HEAD ";HE grpc-status=abc", -1, "via_upstream", ""},
    {OK_HEAD ";HE grpc-status=17 grpc-message=m", -1, "m{via_upstream}", ""},
    {OK_HEAD ";DE ", 2, "via_upstream", ""},
    {OK_HEAD ";DE 00000000056162", 2, "via_upstream", ""},
    {OK_HEAD ";D 010000000161", 13, "via_upstream", "upstream_rq_tx_reset=1 http2.tx_reset=1"},
    {OK_HEAD ";D 020000000161", 13, "via_upstream", ""},
    {OK_HEAD ";D 0000ffffff", 8, "via_upstream", ""},
    {"HE :status=404", 12, "via_upstream", "upstream_rq_404=1 upstream_rq_4xx=1"},
    {"H :status=500;DE 6f6f7073", 2, "via_upstream", "upstream_rq_500=1"},
    {"HE :status=503", 14, "via_upstream", ""},
    {"HE :status=503 grpc-status=8", 8, "via_upstream", ""},
    {"H :status=200;DE 6f6f707365", 13, "via_upstream", ""},
    {"HE :status=200", 2, "via_upstream", ""},
    {"R 0", 14, BEFORE("remote reset", "remote_reset"), "http2.rx_reset=1"},
    {"R 1", 14, BEFORE("protocol error", "protocol_error"),
     "http2.rx_reset=1 upstream_rq_502=1 upstream_rq_tx_reset=1"},
    {"R 2", 14, BEFORE("remote reset", "remote_reset"),
     "http2.rx_reset=1 upstream_rq_503=1 upstream_rq_rx_reset=1"},
    {"R 7", 14, BEFORE("remote refused stream reset", "remote_refused_stream_reset"),
     "http2.rx_reset=1 upstream_rq_503=1 upstream_rq_rx_reset=0"},
    {OK_HEAD ";R 8", 13, AFTER("remote_reset"), "upstream_rq_rx_reset=1 upstream_rq_200=1"},
    {OK_HEAD ";R 7", 13, AFTER("remote_refused_stream_reset"), "upstream_rq_rx_reset=0"},
    {OK_HEAD ";R 1", 13, AFTER("protocol_error"), "upstream_rq_tx_reset=1"},
    {"G 0 0", 14, BEFORE("remote refused stream reset", "remote_refused_stream_reset"),
     "upstream_cx_close_notify=1 upstream_cx_destroy_local=1 upstream_rq_503=1"},
    {OK_HEAD ";G 1 0;C", 13, AFTER("connection_termination"), "upstream_cx_close_notify=1"},
    {"C", 14, BEFORE("connection termination", "connection_termination"),
     "upstream_cx_destroy_remote_with_active_rq=1 upstream_cx_destroy_with_active_rq=1 "
     "upstream_rq_pending_failure_eject=1 upstream_rq_503=1 upstream_cx_destroy_remote=1"},
    {OK_HEAD ";C", 13, AFTER("connection_termination"), "upstream_rq_200=1"},
    {"X 485454502f312e3120343030204261640d0a0d0a", 14, BEFORE("protocol error", "protocol_error"),
     "upstream_cx_protocol_error=1 upstream_rq_502=1 upstream_rq_tx_reset=1 "
     "upstream_cx_destroy_local=1 upstream_cx_destroy_with_active_rq=0 http2.goaway_sent=1"},
    {OK_HEAD ";X 00000500000000000068656c6c6f", 13, AFTER("protocol_error"),
     "upstream_cx_protocol_error=1 upstream_rq_200=1 upstream_rq_tx_reset=1"},
};

static void stats_check(struct upstream *up, const struct ending *ending)
{
    char name[128];
    unsigned long long want;
    int n;

    for (const char *at = ending->stats; sscanf(at, " %63[^=]=%llu%n", name + 12, &want, &n) == 2;
         at += n) {
        memcpy(name, "cluster.xds.", 12);
        if (stat_value(up, name) != want) {
            fail_msg("script \"%s\": %s is %llu, not %llu", ending->script, name,
                     (unsigned long long)stat_value(up, name), want);
        }
    }
}

static void every_ending_is_envoys(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(endings); i++) {
        struct seen seen = {0};
        struct upstream *up;
        void *made;

        assert_int_equal(upstream_setup(&made), 0);
        up = made;
        begin(up, endings[i].script, "", "");
        open_stream(up, &seen, "xds");
        TURN_UNTIL(up, seen.closed > 0);
        for (unsigned n = 0; n < 8; n++) {
            turn(up);
        }
        if (seen.status != endings[i].status || strcmp(seen.text, endings[i].text) != 0) {
            fail_msg("script \"%s\": closed %d, %s", endings[i].script, seen.status, seen.text);
        }
        assert_int_equal(seen.closed, 1);
        stats_check(up, &endings[i]);
        end(up, &seen);
        assert_int_equal(upstream_teardown(&made), 0);
    }
}

static void messages_go_both_ways(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {0};

    begin(up, OK_HEAD ";D 0000000003616263000000;D 000568656c6c6f0000000000;P", "", "");
    open_stream(up, &seen, "xds");
    assert_int_equal(kb_grpc_stream_send(seen.stream, KB_STR("before the connection")), 0);
    TURN_UNTIL(up, seen.messages == 3 && server.pings_answered == 1 && server.settings_acks == 1);
    assert_int_equal(seen.message_bytes, 8);
    assert_int_equal(seen.opened, 1);
    assert_int_equal(seen.heads, 1);
    assert_int_equal(kb_grpc_stream_send(seen.stream, KB_STR("later")), 0);
    TURN_UNTIL(up, server.data_bytes == 5 + 21 + 5 + 5);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_rq_active"), 1);
    assert_int_equal(stat_value(up, "cluster.xds.http2.streams_active"), 1);
    assert_int_equal(stat_value(up, "cluster.xds.http2.pending_send_bytes"), 0);
    kb_grpc_stream_destroy(seen.stream);
    seen.stream = NULL;
    TURN_UNTIL(up, server.resets == 1);
    assert_int_equal(server.reset_code, 2);
    end(up, &seen);
    assert_int_equal(seen.closed, 0);
}

static void streams_share_a_connection(void **state)
{
    struct upstream *up = *state;
    struct seen a = {0}, b = {0};

    begin(up, OK_HEAD, "", "");
    open_stream(up, &a, "xds");
    open_stream(up, &b, "xds");
    TURN_UNTIL(up, a.heads == 1 && b.heads == 1);
    assert_int_equal(server.accepted, 1);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_cx_http2_total"), 1);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_rq_pending_total"), 2);
    h2_server_hang_up(&server);
    TURN_UNTIL(up, a.closed == 1 && b.closed == 1);
    assert_int_equal(b.status, 13);
    end(up, &b);
}

static void a_goaway_makes_the_next_stream_connect_anew(void **state)
{
    struct upstream *up = *state;
    struct seen a = {0}, b = {0};

    begin(up, OK_HEAD ";G 1 0", "", "");
    open_stream(up, &a, "xds");
    TURN_UNTIL(up, a.heads == 1 && stat_value(up, "cluster.xds.upstream_cx_close_notify") == 1);
    assert_int_equal(a.closed, 0);
    open_stream(up, &b, "xds");
    TURN_UNTIL(up, stat_value(up, "cluster.xds.upstream_cx_total") == 2);
    kb_grpc_stream_destroy(a.stream);
    TURN_UNTIL(up, b.heads == 1 || b.closed > 0);
    assert_int_equal(b.closed, 0);
    assert_int_equal(server.accepted, 2);
    end(up, &b);
}

static void a_stream_may_go_from_within_its_message(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {.destroy_on_message = true};

    begin(up, OK_HEAD ";D 00000000016100000000016200000000", "", "");
    open_stream(up, &seen, "xds");
    TURN_UNTIL(up, seen.messages > 0 && server.resets == 1);
    assert_int_equal(seen.messages, 1);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_rq_active"), 0);
    end(up, &seen);
}

static void nobody_there(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {0};

    begin(up, "", "", "");
    close(server.listen_fd);
    server.listen_fd = -1;
    open_stream(up, &seen, "xds");
    TURN_UNTIL(up, seen.closed == 1);
    assert_int_equal(seen.status, 14);
    assert_string_equal(seen.text,
                        BEFORE("remote connection failure",
                               "remote_connection_failure|delayed_connect_error:_Connection_"
                               "refused"));
    assert_int_equal(stat_value(up, "cluster.xds.upstream_cx_connect_fail"), 1);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_rq_pending_failure_eject"), 1);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_rq_503"), 1);
    assert_int_equal(stat_value(up, "cluster.xds.upstream_rq_pending_active"), 0);
    open_stream(up, &seen, "nowhere");
    TURN_UNTIL(up, seen.closed == 2);
    assert_string_equal(seen.text, "Cluster not available");
    end(up, &seen);
}

static void a_cluster_without_hosts_or_http2(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {0};
    struct kb_str json = kb_str_printf(&up->arena, "{'name':'empty'," OPTIONS "}", "");

    assert_int_equal(cluster_add(up, json.p), 0);
    assert_int_equal(cluster_add(up, "{'name':'old'}"), 0);
    begin(up, "", "", "");
    open_stream(up, &seen, "empty");
    TURN_UNTIL(up, seen.closed == 1);
    assert_int_equal(seen.status, 14);
    assert_string_equal(seen.text, "no healthy upstream{no_healthy_upstream}");
    assert_int_equal(stat_value(up, "cluster.empty.upstream_cx_none_healthy"), 1);
    assert_int_equal(stat_value(up, "cluster.empty.internal.upstream_rq_503"), 1);
    open_stream(up, &seen, "old");
    TURN_UNTIL(up, seen.closed == 2);
    assert_non_null(strstr(seen.text, "http2_protocol_options"));
    end(up, &seen);
}

/* The server reads nothing: what waits is bounded, and goes on when it reads. */
static void a_full_queue_refuses_and_tells(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {0};
    size_t len = 8u * 1024 * 1024;
    char *bytes = calloc(1, len);
    unsigned taken = 0;

    begin(up, OK_HEAD, "", "");
    open_stream(up, &seen, "xds");
    while (kb_grpc_stream_send(seen.stream, kb_str_make(bytes, len)) == 0) {
        taken++;
        assert_true(taken <= KB_GRPC_SEND_QUEUE_MAX / len);
    }
    assert_int_equal(kb_grpc_stream_send(seen.stream, kb_str_make(bytes, len)), KB_EAGAIN);
    assert_true(kb_grpc_stream_queued(seen.stream) <= KB_GRPC_SEND_QUEUE_MAX + taken * 5);
    /* The window of the server is 64 KiB. */
    TURN_UNTIL(up, server.data_bytes == 65535);
    assert_int_equal(seen.writable, 0);
    h2_frame_send(&server, 8, 0, 0, "\x7f\x00\x00\x00", 4);
    h2_frame_send(&server, 8, 0, 1, "\x7f\x00\x00\x00", 4);
    TURN_UNTIL(up, server.data_bytes == taken * (len + 5));
    assert_int_equal(seen.writable, 1);
    assert_int_equal(stat_value(up, "cluster.xds.http2.pending_send_bytes"), 0);
    free(bytes);
    end(up, &seen);
}

static void floods_end_the_connection(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {0};

    begin(up, OK_HEAD, "", "");
    open_stream(up, &seen, "xds");
    TURN_UNTIL(up, seen.heads == 1);
    for (unsigned i = 0; i < 1100 && seen.closed == 0; i++) {
        h2_frame_send(&server, 6, 0, 0, "pingpong", 8);
        turn(up);
    }
    TURN_UNTIL(up, seen.closed == 1);
    assert_int_equal(seen.status, 13);
    assert_string_equal(seen.text, AFTER("protocol_error"));
    open_stream(up, &seen, "xds");
    TURN_UNTIL(up, seen.heads == 2);
    h2_frame_send(&server, 0, 0, 1, NULL, 0);
    h2_frame_send(&server, 0, 0, 1, NULL, 0);
    TURN_UNTIL(up, seen.closed == 2);
    assert_int_equal(stat_value(up, "cluster.xds.http2.inbound_empty_frames_flood"), 1);
    end(up, &seen);
}

static void keepalive_ends_a_dead_connection(void **state)
{
    struct upstream *up = *state;
    struct seen seen = {0};

    begin(up, OK_HEAD,
          "'connection_keepalive':{'interval':'0.01s','timeout':'0.1s',"
          "'interval_jitter':{'value':0}}",
          "");
    open_stream(up, &seen, "xds");
    TURN_UNTIL(up, seen.heads == 1);
    /* From now on nobody answers. */
    for (unsigned i = 0; seen.closed == 0; i++) {
        kb_loop_run_once(&up->main.loop, true);
        assert_true(i < 1000);
    }
    assert_int_equal(stat_value(up, "cluster.xds.http2.keepalive_timeout"), 1);
    assert_string_equal(seen.text, AFTER("connection_termination"));
    h2_server_hang_up(&server);
    end(up, &seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ending_is_envoys),
        UPSTREAM_TEST(messages_go_both_ways),
        UPSTREAM_TEST(streams_share_a_connection),
        UPSTREAM_TEST(a_goaway_makes_the_next_stream_connect_anew),
        UPSTREAM_TEST(a_stream_may_go_from_within_its_message),
        UPSTREAM_TEST(nobody_there),
        UPSTREAM_TEST(a_cluster_without_hosts_or_http2),
        UPSTREAM_TEST(a_full_queue_refuses_and_tells),
        UPSTREAM_TEST(floods_end_the_connection),
        UPSTREAM_TEST(keepalive_ends_a_dead_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
