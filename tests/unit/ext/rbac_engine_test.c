/* SPDX-License-Identifier: Apache-2.0 */
/* RBAC decisions by who the peer is, with certificates that the test makes up; and that rules which
 * are not understood refuse the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/ext/common/rbac_engine.h"

/* A peer's certificate. */
struct kb_ssl_connection_info {
    struct kb_str uris[2];
    size_t uri_count;
    struct kb_str dns;
    struct kb_str subject;
};

struct kb_str kb_ssl_text(const struct kb_ssl_connection_info *ssl, enum kb_ssl_text what)
{
    return what == KB_SSL_PEER_SUBJECT ? ssl->subject : KB_STR("");
}

const struct kb_str *kb_ssl_list(const struct kb_ssl_connection_info *ssl, enum kb_ssl_list what,
                                 size_t *count)
{
    *count = what == KB_SSL_PEER_URI_SANS ? ssl->uri_count
                                          : what == KB_SSL_PEER_DNS_SANS && ssl->dns.len > 0;
    return what == KB_SSL_PEER_URI_SANS ? ssl->uris : &ssl->dns;
}

static struct kb_arena arena;
static struct kb_diag diag;
static struct kb_regex_list regexes;

static int setup(void **state)
{
    (void)state;
    kb_header_names_init();
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    regexes.first = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kb_regex_list_dispose(&regexes);
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    return 0;
}

/* An ALLOW policy of any permission and these principals; NULL: refused. */
static const struct kb_rbac_engine *engine_of(const char *principals, bool network)
{
    static struct kb_server_context server;
    struct kb_factory_context factory = {.server = &server, .arena = &arena};
    const struct kb_match_build build = {&arena, &regexes, &diag};
    char json[1024];
    const ProtobufCMessage *message;

    snprintf(json, sizeof(json),
             "{\"policies\":{\"p\":{\"permissions\":[{\"any\":true}],\"principals\":[%s]}}}",
             principals);
    message = kb_pb_json_parse(&envoy__config__rbac__v3__rbac__descriptor, KB_STR("t"),
                               kb_str_from_cstr(json), KB_PB_UNKNOWN_ERROR, &arena, &diag);
    assert_non_null(message);
    return kb_rbac_engine_create((const void *)message, network, KB_STR(""), "", &factory, &build);
}

static bool allows(const char *principals, const struct kb_ssl_connection_info *ssl)
{
    struct kb_connection_info connection = {.ssl = ssl};
    struct kb_stream_info info = {.connection = &connection};
    struct kb_header_map headers;
    const struct kb_rbac_input input = {&headers, &info, &arena};
    const struct kb_rbac_engine *engine = engine_of(principals, false);

    assert_non_null(engine);
    kb_header_map_init(&headers, &arena);
    return kb_rbac_engine_check(engine, &input).allowed;
}

#define NAMED(match) "{\"authenticated\":{\"principal_name\":{" match "}}}"

static void test_authenticated(void **state)
{
    static const struct kb_ssl_connection_info workload = {
        .uris = {{"spiffe://td/ns/a/sa/x", 21}, {"spiffe://td/ns/b/sa/y", 21}},
        .uri_count = 2,
        .dns = {"x.test", 6},
        .subject = {"CN=x", 4}};
    static const struct kb_ssl_connection_info bare = {.subject = {"CN=bare", 7}};

    (void)state;
    assert_false(allows("{\"authenticated\":{}}", NULL));
    assert_true(allows("{\"authenticated\":{}}", &bare));
    assert_true(allows(NAMED("\"exact\":\"spiffe://td/ns/a/sa/x\""), &workload));
    assert_true(allows(NAMED("\"exact\":\"spiffe://td/ns/b/sa/y\""), &workload));
    assert_true(allows(NAMED("\"exact\":\"x.test\""), &workload));
    assert_true(allows(NAMED("\"exact\":\"CN=x\""), &workload));
    assert_true(allows(NAMED("\"exact\":\"CN=bare\""), &bare));
    assert_false(allows(NAMED("\"exact\":\"spiffe://td/ns/a/sa/x\""), &bare));
    assert_false(allows(NAMED("\"exact\":\"spiffe://td/ns/a/sa/x\""), NULL));
    assert_false(allows(NAMED("\"exact\":\"spiffe://td/ns/a/sa\""), &workload));
    assert_true(allows(NAMED("\"safe_regex\":{\"regex\":\".*/ns/b/.*\"}"), &workload));
    assert_false(allows(NAMED("\"safe_regex\":{\"regex\":\"/ns/b/\"}"), &workload));
    assert_true(allows("{\"not_id\":" NAMED("\"prefix\":\"spiffe://other\"") "}", &workload));
}

static void test_refused(void **state)
{
    (void)state;
    assert_null(
        engine_of("{\"custom\":{\"name\":\"x\",\"typed_config\":{\"@type\":\"type.googleapis."
                  "com/google.protobuf.Empty\"}}}",
                  false));
    assert_null(engine_of("{\"direct_remote_ip\":{\"address_prefix\":\"nonsense\"}}", false));
    assert_null(engine_of("{\"and_ids\":{\"ids\":[{\"any\":true},{\"header\":{\"name\":\"a\","
                          "\"present_match\":true}}]}}",
                          true));
    assert_non_null(engine_of("{\"header\":{\"name\":\"a\",\"present_match\":true}}", false));
    assert_int_equal(diag.error_count, 3);
}

static void test_no_policies(void **state)
{
    static const Envoy__Config__Rbac__V3__RBAC nothing = ENVOY__CONFIG__RBAC__V3__RBAC__INIT;
    static struct kb_server_context server;
    struct kb_factory_context factory = {.server = &server, .arena = &arena};
    const struct kb_match_build build = {&arena, &regexes, &diag};
    struct kb_connection_info connection = {.ssl = NULL};
    struct kb_stream_info info = {.connection = &connection};
    struct kb_header_map headers;
    const struct kb_rbac_input input = {&headers, &info, &arena};
    struct kb_rbac_result result;

    (void)state;
    kb_header_map_init(&headers, &arena);
    result = kb_rbac_engine_check(
        kb_rbac_engine_create(&nothing, false, KB_STR(""), "", &factory, &build), &input);
    assert_false(result.allowed);
    assert_true(
        kb_str_eq(kb_rbac_details(&result), KB_STR("rbac_access_denied_matched_policy[none]")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_authenticated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_policies, setup, teardown),
    };

    return cmocka_run_group_tests_name("rbac_engine", tests, NULL, NULL);
}
