/* SPDX-License-Identifier: Apache-2.0 */
/* Matcher trees of virtual hosts. Expected results were taken from Envoy 1.40 with the same trees
 * and requests. */
#include "tests/unit/router/route_fixture.h"

#define INPUT(header)                                                                              \
    "{name: i, typed_config: {'@type': "                                                           \
    "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: '" header \
    "'}}"
#define ROUTE(name, prefix)                                                                    \
    "{action: {name: r, typed_config: {'@type': "                                              \
    "type.googleapis.com/envoy.config.route.v3.Route, name: " name ", match: {prefix: " prefix \
    "}, route: {cluster: nope}}}}"
#define LIST                                                                                    \
    "{action: {name: r, typed_config: {'@type': "                                               \
    "type.googleapis.com/envoy.config.route.v3.RouteList, routes: [{name: la, match: {prefix: " \
    "/a}, route: {cluster: c}}, {name: lb, match: {prefix: /b}, route: {cluster: c}}]}}}"
#define SINGLE(header, match) \
    "{single_predicate: {input: " INPUT(header) ", value_match: {" match "}}}"
#define VHOST(name, matcher) "- {name: " name ", domains: [" name "], matcher: {" matcher "}}\n"

/* clang-format off */
static const char table[] =
    "virtual_hosts:\n"
    VHOST("exact",
          "matcher_tree: {input: " INPUT("x") ", exact_match_map: {map: {"
          "one: " ROUTE("one", "/") ", two: " ROUTE("two", "/only") ", l: " LIST "}}}, "
          "on_no_match: " ROUTE("none", "/"))
    VHOST("prefix",
          "matcher_tree: {input: " INPUT(":path") ", prefix_match_map: {map: {"
          "/a: " ROUTE("a", "/") ", /a/b: " ROUTE("ab", "/") ", "
          "/a/b/c: {matcher: {matcher_tree: {input: " INPUT("x") ", "
          "exact_match_map: {map: {'1': " ROUTE("abc1", "/") "}}}}}}}}")
    VHOST("list",
          "matcher_list: {matchers: ["
          "{predicate: {and_matcher: {predicate: ["
          SINGLE("x", "exact: '1'") ", " SINGLE("Y", "prefix: p") "]}}, "
          "on_match: " ROUTE("and", "/") "}, "
          "{predicate: {or_matcher: {predicate: ["
          SINGLE("x", "suffix: z") ", " SINGLE("y", "contains: q, ignore_case: true") "]}}, "
          "on_match: " ROUTE("or", "/") "}, "
          "{predicate: {not_matcher: " SINGLE("x", "exact: '9'") "}, "
          "on_match: " ROUTE("not", "/n") "}, "
          "{predicate: " SINGLE("x", "safe_regex: {google_re2: {}, regex: '9+'}") ", "
          "on_match: " ROUTE("re", "/") "}]}")
    VHOST("any", "on_no_match: " ROUTE("any", "/"))
    VHOST("nest",
          "matcher_tree: {input: " INPUT("x") ", exact_match_map: {map: {"
          "'1': {matcher: {matcher_tree: {input: " INPUT("y") ", "
          "exact_match_map: {map: {'2': " ROUTE("n12", "/") "}}}}}}}}, "
          "on_no_match: " ROUTE("nn", "/"))
    VHOST("empty", "");
/* clang-format on */

static void test_trees(void **state)
{
    static const struct {
        const char *request, *route;
    } cases[] = {
        {"GET / exact", "none"},
        {"GET / exact|x: one", "one"},
        {"GET / exact|x: two", ""},
        {"GET /only exact|x: two", "two"},
        {"GET / exact|x: l", ""},
        {"GET /a exact|x: l", "la"},
        {"GET /b exact|x: l", "lb"},
        {"GET / exact|x: one|x: two", "none"},
        {"GET / exact|x: zzz", "none"},
        {"GET / prefix", ""},
        {"GET /a prefix", "a"},
        {"GET /ab prefix", "a"},
        {"GET /a?q prefix", "a"},
        {"GET /a/b prefix", "ab"},
        {"GET /a/b/x prefix", "ab"},
        {"GET /a/b/c prefix", "ab"},
        {"GET /a/b/c prefix|x: 1", "abc1"},
        {"GET /a/b/cc prefix|x: 1", "abc1"},
        {"GET /b prefix|x: 1", ""},
        {"GET / list", ""},
        {"GET /n list", "not"},
        {"GET / list|x: 1|y: pp", "and"},
        {"GET / list|x: az", "or"},
        {"GET / list|y: aQa", "or"},
        {"GET / list|x: 9", "re"},
        {"GET / list|x: 99", ""},
        {"GET /n list|x: 99", "not"},
        {"GET / list|x: 9|y: q", "or"},
        {"GET / any", "any"},
        {"GET / nest", "nn"},
        {"GET / nest|x: 1", "nn"},
        {"GET / nest|x: 1|y: 2", "n12"},
        {"GET / empty", ""},
    };
    struct route_fixture *fixture = *state;

    route_table_ok(fixture, table); /* clusters in trees are not checked */
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        const char *got = route_name_for(fixture, cases[i].request);

        if (strcmp(got, cases[i].route) != 0) {
            fail_msg("%s: route '%s' expected, got '%s'", cases[i].request, cases[i].route, got);
        }
    }
}

static void test_errors(void **state)
{
    static const struct {
        const char *matcher, *text;
    } cases[] = {
        {"on_no_match: {keep_matching: true, matcher: {}}",
         "keep_matching is not supported in this context"},
        {"on_no_match: {action: {name: u, typed_config: {'@type': "
         "type.googleapis.com/google.protobuf.Struct}}}",
         "Didn't find a registered implementation for 'u' with type URL: 'google.protobuf.Struct'"},
        {"matcher_tree: {input: {name: u, typed_config: {'@type': "
         "type.googleapis.com/envoy.type.matcher.v3.HttpResponseHeaderMatchInput, header_name: "
         "x}}, "
         "exact_match_map: {map: {a: " ROUTE("a", "/") "}}}",
         "Route table can only match on request headers, saw "
         "type.googleapis.com/envoy.type.matcher.v3.HttpResponseHeaderMatchInput"},
        {"matcher_tree: {input: " INPUT("x") ", custom_match: {name: u, typed_config: {'@type': "
                                             "type.googleapis.com/google.protobuf.Struct}}}",
         "Didn't find a registered implementation for 'u' with type URL: 'google.protobuf.Struct'"},
        {"matcher_list: {matchers: [{predicate: " SINGLE(
             "x", "safe_regex: {google_re2: {}, regex: '('}") ", on_match: " ROUTE("a", "/") "}]}",
         "missing ): ("},
        {"on_no_match: {action: {name: r, typed_config: {'@type': "
         "type.googleapis.com/envoy.config.route.v3.Route, "
         "match: {safe_regex: {regex: '['}}, route: {cluster: c}}}}",
         "missing ]: ["},
    };
    struct route_fixture *fixture = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct kb_str yaml = kb_str_printf(
            &fixture->arena, "virtual_hosts:\n- {name: v, domains: ['*'], matcher: {%s}}\n",
            cases[i].matcher);
        const char *reported;

        assert_null(route_table(fixture, yaml.p));
        reported = route_reported(fixture);
        if (strstr(reported, "virtual_hosts[0].matcher") != reported ||
            strstr(reported, cases[i].text) == NULL) {
            fail_msg("%s\n  expected %s\n  got      %s", cases[i].matcher, cases[i].text, reported);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_trees),
        ROUTE_TEST(test_errors),
    };

    return cmocka_run_group_tests_name("route_tree", tests, NULL, NULL);
}
