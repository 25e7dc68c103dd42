/* SPDX-License-Identifier: Apache-2.0 */
/* The resolver against a small server: families and their fallback, what counts as an answer,
 * timeouts, cancelling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/dns.h"
#include "tests/unit/support/fake_dns.h"

struct fixture {
    struct kb_loop loop;
    struct fake_dns server;
    struct kb_dns *dns;
    struct kb_dns_query *query;
    bool done;
    int status;
    size_t count;
    char addrs[8][KB_ADDR_TEXT_MAX];
    uint32_t ttl_s;
};

static int setup(void **state)
{
    static struct fixture fixture;
    struct kb_dns_options options = {.server_count = 1, .query_timeout_s = 1, .query_tries = 1};

    memset(&fixture, 0, sizeof(fixture));
    fake_dns_start(&fixture.server);
    options.servers = &fixture.server.addr;
    assert_int_equal(kb_loop_init(&fixture.loop), 0);
    assert_int_equal(kb_dns_create(&fixture.loop, &options, &fixture.dns), 0);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    kb_dns_destroy(fixture->dns);
    kb_loop_dispose(&fixture->loop);
    fake_dns_stop(&fixture->server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void on_answer(void *arg, int status, const struct kb_dns_answer *answers, size_t n,
                      const char *text)
{
    struct fixture *fixture = arg;

    assert_non_null(text);
    assert_false(fixture->done);
    fixture->done = true;
    fixture->status = status;
    fixture->count = n;
    for (size_t i = 0; i < n && i < 8; i++) {
        struct kb_str ip = kb_addr_ip_text(&answers[i].addr, fixture->addrs[i]);

        fixture->addrs[i][ip.len] = '\0';
        fixture->ttl_s = answers[i].ttl_s;
    }
}

static void resolve(struct fixture *fixture, const char *name, enum kb_dns_family family)
{
    fixture->done = false;
    fixture->count = 0;
    kb_dns_resolve(fixture->dns, kb_str_from_cstr(name), family, on_answer, fixture,
                   &fixture->query);
    assert_true(fixture->done == (fixture->query == NULL));
    while (!fixture->done) {
        kb_loop_run_once(&fixture->loop, true);
    }
}

static void addresses_come_with_their_ttl(void **state)
{
    struct fixture *fixture = *state;

    resolve(fixture, "four.test", KB_DNS_V4_ONLY);
    assert_int_equal(fixture->status, 0);
    assert_int_equal(fixture->count, 3);
    assert_string_equal(fixture->addrs[0], "10.0.0.1");
    assert_string_equal(fixture->addrs[1], "10.0.0.2");
    assert_int_equal(fixture->ttl_s, 30);
    assert_int_equal(kb_dns_stats(fixture->dns)->resolve_total, 1);
    assert_int_equal(kb_dns_stats(fixture->dns)->pending_resolutions, 0);
}

static void families_fall_back_as_envoys(void **state)
{
    struct fixture *fixture = *state;

    resolve(fixture, "six.test", KB_DNS_AUTO);
    assert_int_equal(fixture->count, 1);
    assert_string_equal(fixture->addrs[0], "fd00::1");
    assert_int_equal(kb_dns_stats(fixture->dns)->resolve_total, 1);
    resolve(fixture, "six.test", KB_DNS_V4_PREFERRED);
    assert_string_equal(fixture->addrs[0], "10.0.0.9");
    assert_int_equal(fixture->count, 1);
    resolve(fixture, "six.test", KB_DNS_ALL);
    assert_int_equal(fixture->count, 2);
    assert_string_equal(fixture->addrs[0], "10.0.0.9");
    assert_string_equal(fixture->addrs[1], "fd00::1");
    assert_int_equal(kb_dns_stats(fixture->dns)->resolve_total, 3);
    resolve(fixture, "four.test", KB_DNS_AUTO); /* no IPv6: asks for IPv4 then */
    assert_int_equal(fixture->count, 3);
    assert_int_equal(kb_dns_stats(fixture->dns)->resolve_total, 5);
    assert_int_equal(kb_dns_stats(fixture->dns)->not_found, 1);
    resolve(fixture, "four.test", KB_DNS_V6_ONLY);
    assert_int_equal(fixture->status, 0);
    assert_int_equal(fixture->count, 0);
}

static void names_without_addresses_are_an_answer(void **state)
{
    struct fixture *fixture = *state;

    resolve(fixture, "nx.test", KB_DNS_AUTO);
    assert_int_equal(fixture->status, 0);
    assert_int_equal(fixture->count, 0);
    resolve(fixture, "nodata.test", KB_DNS_V4_ONLY);
    assert_int_equal(fixture->status, 0);
    assert_int_equal(fixture->count, 0);
    assert_int_equal(kb_dns_stats(fixture->dns)->not_found, 3);
    resolve(fixture, "", KB_DNS_AUTO);
    assert_int_equal(fixture->status, 0);
    assert_int_equal(fixture->count, 0);
}

static void server_failures_are_failures_and_start_afresh(void **state)
{
    struct fixture *fixture = *state;

    resolve(fixture, "servfail.test", KB_DNS_AUTO);
    assert_int_equal(fixture->status, KB_EIO);
    assert_int_equal(kb_dns_stats(fixture->dns)->get_addr_failure, 2);
    assert_int_equal(kb_dns_stats(fixture->dns)->reinits, 0);
    resolve(fixture, "four.test", KB_DNS_V4_ONLY);
    assert_int_equal(kb_dns_stats(fixture->dns)->reinits, 1);
    assert_int_equal(fixture->count, 3);
}

static void silence_is_a_timeout(void **state)
{
    struct fixture *fixture = *state;

    resolve(fixture, "drop.test", KB_DNS_V4_ONLY);
    assert_int_equal(fixture->status, KB_ETIMEOUT);
    assert_int_equal(kb_dns_stats(fixture->dns)->timeouts, 1);
    assert_int_equal(kb_dns_stats(fixture->dns)->get_addr_failure, 0);
}

static void literals_and_localhost_need_no_server(void **state)
{
    struct fixture *fixture = *state;

    resolve(fixture, "127.0.0.1", KB_DNS_AUTO);
    assert_int_equal(fixture->count, 1);
    assert_string_equal(fixture->addrs[0], "127.0.0.1");
    assert_int_equal(kb_dns_stats(fixture->dns)->resolve_total, 1);
    resolve(fixture, "::1", KB_DNS_AUTO);
    assert_string_equal(fixture->addrs[0], "::1");
    resolve(fixture, "127.0.0.1", KB_DNS_V6_ONLY); /* as Envoy */
    assert_string_equal(fixture->addrs[0], "127.0.0.1");
    resolve(fixture, "::1", KB_DNS_V4_ONLY);
    assert_int_equal(fixture->status, KB_EIO);
    resolve(fixture, "::1", KB_DNS_V4_PREFERRED);
    assert_string_equal(fixture->addrs[0], "::1");
    assert_int_equal(kb_dns_stats(fixture->dns)->get_addr_failure, 2);
    resolve(fixture, "localhost", KB_DNS_V4_ONLY);
    assert_string_equal(fixture->addrs[0], "127.0.0.1");
    resolve(fixture, "localhost", KB_DNS_ALL);
    assert_int_equal(fixture->count, 2);
    resolve(fixture, "a.LocalHost", KB_DNS_ALL);
    assert_int_equal(fixture->count, 2);
    assert_int_equal(fixture->server.a_questions + fixture->server.aaaa_questions, 0);
}

static void names_that_cannot_be_are_failures(void **state)
{
    static const char *const names[] = {
        "bad host", "a\nb", "\xff.test",
        "a23456789012345678901234567890123456789012345678901234567890bcde.test"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        resolve(fixture, names[i], KB_DNS_AUTO);
        assert_int_equal(fixture->status, KB_EIO);
    }
    assert_int_equal(kb_dns_stats(fixture->dns)->get_addr_failure, 8);
    assert_int_equal(fixture->server.a_questions + fixture->server.aaaa_questions, 0);
}

static void cancelled_queries_are_silent(void **state)
{
    struct fixture *fixture = *state;

    kb_dns_resolve(fixture->dns, KB_STR("drop.test"), KB_DNS_AUTO, on_answer, fixture,
                   &fixture->query);
    assert_non_null(fixture->query);
    kb_dns_cancel(fixture->query);
    kb_dns_resolve(fixture->dns, KB_STR("four.test"), KB_DNS_AUTO, on_answer, fixture,
                   &fixture->query);
    kb_dns_cancel(fixture->query);
    resolve(fixture, "six.test", KB_DNS_AUTO);
    assert_string_equal(fixture->addrs[0], "fd00::1");
    /* The first one still waits for an answer when the resolver goes. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(addresses_come_with_their_ttl),
        TEST(families_fall_back_as_envoys),
        TEST(names_without_addresses_are_an_answer),
        TEST(server_failures_are_failures_and_start_afresh),
        TEST(silence_is_a_timeout),
        TEST(literals_and_localhost_need_no_server),
        TEST(names_that_cannot_be_are_failures),
        TEST(cancelled_queries_are_silent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
