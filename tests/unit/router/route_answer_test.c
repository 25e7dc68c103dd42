/* SPDX-License-Identifier: Apache-2.0 */
/* Redirects and direct responses. Expected results were taken from Envoy 1.40. */
#include "tests/unit/router/route_fixture.h"

#define ALL               "name: t\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n"
#define R(prefix, action) "  - {match: {prefix: " prefix "}, redirect: {" action "}}\n"
#define D(prefix, action) "  - {match: {prefix: " prefix "}, direct_response: {" action "}}\n"

/* "301 http://..." and, when the path was rewritten, the path and the original one. */
static const char *redirect_of(struct route_fixture *fixture, const char *request)
{
    struct kb_header_map *map = route_request(fixture, request);
    const struct kb_route *route = route_match(fixture, map);
    struct kb_str location;
    struct kb_str original;
    unsigned status;

    assert_non_null(route);
    assert_int_equal(route->kind, KB_ROUTE_REDIRECT);
    kb_route_rewrite_path_for_redirect(route, map, false);
    status = kb_route_redirect(route, map, &fixture->info, &location);
    original = kb_header_map_value_id(map, KB_HDR_X_ENVOY_ORIGINAL_PATH);
    return kb_str_printf(&fixture->arena, "%u %.*s%s%.*s", status, KB_STR_ARG(location),
                         original.len > 0 ? " was " : "", KB_STR_ARG(original))
        .p;
}

static void test_redirects(void **state)
{
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"GET /r1/a?b z", "301 http://z/z/a?b was /r1/a?b"},
        {"GET /r2/a/b?c z", "301 http://z/a/b/r2?c was /r2/a/b?c"},
        {"GET /r3?z z", "301 http://z/y?q=1"},
        {"GET /r4?z z", "301 http://z/noslash?z"},
        {"GET /r5/x z", "301 ftp://z/r5/x"},
        {"GET /r6/x z", "301 https://z/r6/x"},
        {"GET /r7/x z", "301 http://z:99/r7/x"},
        {"GET /r8/x z", "301 http://hr/r8/x"},
        {"GET /r9/x z", "308 http://z/r9/x"},
        {"GET /ra/x z", "301 https://z:443/ra/x"},
        {"GET /rc/x?y z", "301 http://z/rc/x"},
        {"GET /rd/x?y z", "301 http://z/rd/x?y was /rd/x?y"},
        {"GET /rf/x z", "301 http://hr:1:2/rf/x"},
        {"GET /rg/x?y z", "301 http://z/rg/x?y"},
        {"GET /p1/a?q z|x-a: v", "301 http://z/n/v?q"},
        {"GET /p1/a?q z", "301 http://z/n/?q"},
        {"GET /p2/a?q z", "301 http://z/p2/a"},
        {"GET /p2/a?q z|x-a: v", "301 http://z/v"},
        {"GET /p3/a?q z|x-a: v", "301 http://z/p?z=v"},
        {"GET /r6/x h:80", "301 https://h/r6/x"},
        {"GET /r7/x h:80", "301 http://h:99/r7/x"},
        {"GET /r5/x h:80", "301 ftp://h/r5/x"},
        {"GET /r6/x h:443", "301 https://h:443/r6/x"},
        {"GET /r6/x h:81", "301 https://h:81/r6/x"},
        {"GET /r7/x h:81", "301 http://h:99/r7/x"},
        {"GET /r6/x [::1]:80", "301 https://[::1]/r6/x"},
        {"GET /r7/x [::1]", "301 http://[::1]:99/r7/x"},
        {"GET /r6/x [::1]", "301 https://[::1]/r6/x"},
        {"GET /r7/x [::1]:99", "301 http://[::1]:99/r7/x"},
    };
    struct route_fixture *fixture = *state;

    route_table_ok(
        fixture,
        ALL R("/r1", "prefix_rewrite: /z")
            R("/r2", "regex_rewrite: {pattern: {regex: '/(r2)/(.*)'}, substitution: '/\\2/\\1'}") R(
                "/r3", "path_redirect: '/y?q=1', strip_query: true")
                R("/r4", "path_redirect: noslash") R("/r5", "scheme_redirect: ftp") R(
                    "/r6", "https_redirect: true") R("/r7", "port_redirect: 99")
                    R("/r8", "host_redirect: hr") R("/r9", "response_code: PERMANENT_REDIRECT") R(
                        "/ra", "https_redirect: true, port_redirect: 443") R("/rc",
                                                                             "strip_query: true")
                        R("/rd", "regex_rewrite: {pattern: {regex: nomatch}, substitution: x}")
                            R("/rf", "host_redirect: 'hr:1', port_redirect: 2") R(
                                "/rg", "https_redirect: false") R("/p1",
                                                                  "path_rewrite: '/n/%REQ(x-a)%'")
                                R("/p2", "path_rewrite: '%REQ(x-a)%', strip_query: true")
                                    R("/p3", "path_rewrite: '/p?z=%REQ(x-a)%', strip_query: true"));
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        const char *got = redirect_of(fixture, cases[i].request);

        if (strcmp(got, cases[i].answer) != 0) {
            fail_msg("%s\n  expected %s\n  got      %s", cases[i].request, cases[i].answer, got);
        }
    }
}

static void test_require_tls(void **state)
{
    struct route_fixture *fixture = *state;
    struct kb_header_map *map;

    route_table_ok(fixture,
                   "response_headers_to_add: [{header: {key: x-o, value: t}}]\nvirtual_hosts:\n"
                   "- {name: a, domains: [all.test], require_tls: ALL}\n"
                   "- {name: e, domains: [ext.test], require_tls: EXTERNAL_ONLY}\n");
    assert_string_equal(redirect_of(fixture, "GET /zz?a=1 All.test"),
                        "301 https://All.test/zz?a=1");
    assert_string_equal(redirect_of(fixture, "GET /zz ext.test"), "301 https://ext.test/zz");
    assert_null(
        route_match(fixture, route_request(fixture, "GET / ext.test|x-envoy-internal: true")));
    assert_null(
        route_match(fixture, route_request(fixture, "GET / all.test|x-forwarded-proto: https")));
    map = route_request(fixture, "GET / all.test|x-envoy-internal: true");
    assert_true(kb_route_requires_tls(route_match(fixture, map), map, true));
    kb_route_finalize_response(route_match(fixture, map), NULL, map, map, &fixture->info);
    assert_null(kb_header_map_get(map, KB_STR("x-o")));
}

/* "201 http://... body". */
static const char *direct_of(struct route_fixture *fixture, const char *request)
{
    struct kb_header_map *map = route_request(fixture, request);
    const struct kb_route *route = route_match(fixture, map);
    struct kb_str location;
    struct kb_str body;
    struct kb_str type;
    unsigned status;

    assert_non_null(route);
    assert_int_equal(route->kind, KB_ROUTE_DIRECT_RESPONSE);
    status = kb_route_direct_response(route, map, &body, &location);
    body = kb_str_trim(kb_route_direct_body(route, map, &fixture->info, &type));
    if (body.len > 0 && body.p[body.len - 1] == '\n') {
        body.len--;
    }
    return kb_str_printf(&fixture->arena, "%u %.*s %.*s %.*s", status, KB_STR_ARG(location),
                         KB_STR_ARG(type), KB_STR_ARG(body))
        .p;
}

static void test_direct_responses(void **state)
{
    struct route_fixture *fixture = *state;

    route_table_ok(
        fixture,
        ALL D("/da", "status: 200, body: {inline_string: exact}") D("/db", "status: 201")
            D("/dc", "status: 302, body: {inline_bytes: eHk=}")
                D("/dd", "status: 200, body: {inline_string: B}, body_format: {text_format: "
                         "'<%LOCAL_REPLY_BODY%|%REQ(x-a)%|%PROTOCOL%>', content_type: text/html}")
                    D("/de", "status: 200, body_format: {json_format: {a: '%RESPONSE_CODE%', b: "
                             "'%REQ(x-a)%'}}"));
    assert_string_equal(direct_of(fixture, "GET /da z"), "200   exact");
    assert_string_equal(direct_of(fixture, "GET /db/a?b z"), "201 http://z/db/a?b  ");
    assert_string_equal(direct_of(fixture, "GET /dc z:80"), "302 http://z:80/dc  xy");
    assert_string_equal(direct_of(fixture, "GET /dd z|x-a: v"), "200  text/html <B|v|HTTP/1.1>");
    assert_string_equal(direct_of(fixture, "GET /de z|x-a: v"),
                        "200  application/json {\"a\":0,\"b\":\"v\"}");
    assert_string_equal(direct_of(fixture, "GET /de z"),
                        "200  application/json {\"a\":0,\"b\":null}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_redirects),
        ROUTE_TEST(test_require_tls),
        ROUTE_TEST(test_direct_responses),
    };

    return cmocka_run_group_tests_name("route_answer", tests, NULL, NULL);
}
