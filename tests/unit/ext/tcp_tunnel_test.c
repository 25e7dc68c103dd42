/* SPDX-License-Identifier: Apache-2.0 */
/* The request that opens a tunnel of tcp_proxy: its head, and the configurations that are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/api/filter_state.h"
#include "proxy/ext/network/tcp_proxy.h"

struct fixture {
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_stream_info info;
    struct kb_connection_info connection;
};

static int setup(void **state)
{
    static struct fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    kb_header_names_init();
    kb_arena_init(&fixture.arena, NULL);
    kb_diag_init(&fixture.diag);
    fixture.info.connection = &fixture.connection;
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    kb_diag_dispose(&fixture->diag);
    kb_arena_dispose(&fixture->arena);
    return 0;
}

static struct kb_tcp_tunnel *tunnel_of(struct fixture *fixture, const char *yaml)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("t.yaml"), kb_str_from_cstr(yaml), &fixture->diag) == 0) {
        message = kb_pb_from_doc(
            &envoy__extensions__filters__network__tcp_proxy__v3__tcp_proxy__tunneling_config__descriptor,
            &doc, KB_PB_UNKNOWN_ERROR, &fixture->arena, &fixture->diag);
    }
    kb_doc_dispose(&doc);
    assert_non_null(message);
    return kb_tcp_tunnel_create((const void *)message, &fixture->arena, &fixture->diag);
}

static void head_is(struct fixture *fixture, const char *yaml, const char *expected)
{
    struct kb_tcp_tunnel *tunnel = tunnel_of(fixture, yaml);
    struct kb_header_map *head;
    struct kb_str text;

    assert_non_null(tunnel);
    head = kb_tcp_tunnel_head(tunnel, &fixture->info, NULL, &fixture->arena);
    text = kb_str_printf(&fixture->arena, "%.*s %.*s %.*s", KB_STR_ARG(head->method),
                         KB_STR_ARG(head->authority), KB_STR_ARG(head->path));
    for (size_t i = 0; i < head->count; i++) {
        text = kb_str_printf(&fixture->arena, "%.*s %.*s=%.*s", KB_STR_ARG(text),
                             KB_STR_ARG(head->items[i].name), KB_STR_ARG(head->items[i].value));
    }
    assert_string_equal(text.p, expected);
}

static void refused(struct fixture *fixture, const char *yaml, const char *why)
{
    assert_null(tunnel_of(fixture, yaml));
    assert_non_null(fixture->diag.first);
    assert_non_null(strstr(fixture->diag.first->text.p, why));
    kb_diag_dispose(&fixture->diag);
    kb_diag_init(&fixture->diag);
}

static void test_heads(void **state)
{
    struct fixture *fixture = *state;

    fixture->connection.requested_server_name = KB_STR("sni.test");
    head_is(fixture, "{hostname: 'a.test:443'}", "CONNECT a.test:443 ");
    head_is(fixture, "{hostname: '%REQUESTED_SERVER_NAME%:443'}", "CONNECT sni.test:443 ");
    head_is(fixture, "{hostname: a, use_post: true}", "POST a /");
    head_is(fixture, "{hostname: a, use_post: true, post_path: '/b?c'}", "POST a /b?c");
    head_is(fixture,
            "{hostname: a, headers_to_add: [{header: {key: X-A, value: b}}, {header: {key: x-n, "
            "value: '%REQUESTED_SERVER_NAME%'}}]}",
            "CONNECT a  x-a=b x-n=sni.test");
}

/* What the log shows of the object under this key; "" when there is none. */
static const char *kept(struct fixture *fixture, const char *key)
{
    const struct kb_filter_state_item *item =
        kb_filter_state_find(&fixture->info, kb_filter_state_key(kb_str_from_cstr(key)));
    struct kb_str json = KB_STR("");

    if (item != NULL) {
        assert_true(item->type->json(item->object, &fixture->arena, &json));
    }
    return json.p;
}

static void test_answers_are_kept(void **state)
{
    struct fixture *fixture = *state;
    struct kb_tcp_tunnel *tunnel = tunnel_of(
        fixture,
        "{hostname: a, propagate_response_headers: true, propagate_response_trailers: true}");
    struct kb_tcp_tunnel *other = tunnel_of(fixture, "{hostname: a}");
    struct kb_header_map map;

    kb_header_map_init(&map, &fixture->arena);
    kb_header_map_add(&map, KB_STR("x-t"), KB_STR("a\"b"));
    kb_tcp_tunnel_trailers_keep(other, &map, &fixture->info, &fixture->arena);
    assert_string_equal(kept(fixture, "envoy.tcp_proxy.propagate_response_trailers"), "");
    kb_tcp_tunnel_trailers_keep(tunnel, &map, &fixture->info, &fixture->arena);
    map.status = 200;
    kb_tcp_tunnel_headers_keep(tunnel, &map, &fixture->info, &fixture->arena);
    assert_string_equal(kept(fixture, "envoy.tcp_proxy.propagate_response_trailers"),
                        "{\"headers\":[{\"key\":\"x-t\",\"value\":\"a\\\"b\"}]}");
    assert_string_equal(kept(fixture, "envoy.tcp_proxy.propagate_response_headers"),
                        "{\"headers\":[{\"key\":\":status\",\"value\":\"200\"},{\"key\":\"x-t\","
                        "\"value\":\"a\\\"b\"}]}");
}

static void test_no_value_ends_the_line(void **state)
{
    struct fixture *fixture = *state;

    fixture->connection.requested_server_name = KB_STR("a\r\nx-b: c");
    head_is(fixture, "{hostname: '%REQUESTED_SERVER_NAME%:1'}", "CONNECT a__x-b__c:1 ");
    fixture->connection.termination_details = KB_STR("a\r\nx-b: c\x7f\t");
    head_is(fixture, "{hostname: '%CONNECTION_TERMINATION_DETAILS%:1'}", "CONNECT a__x-b: c__:1 ");
}

static void test_refused(void **state)
{
    struct fixture *fixture = *state;

    refused(fixture, "{hostname: a, post_path: /b}",
            "Can't set a post path when POST method isn't used");
    refused(fixture, "{hostname: '%NOPE%'}", "Not supported field in StreamInfo: NOPE");
    refused(fixture, "{hostname: a, headers_to_add: [{header: {key: host, value: b}}]}",
            ":-prefixed or host headers may not be modified");
    refused(fixture, "{hostname: a, headers_to_add: [{header: {key: ':path', value: b}}]}",
            ":-prefixed or host headers may not be modified");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_heads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_value_ends_the_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
