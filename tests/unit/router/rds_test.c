/* SPDX-License-Identifier: Apache-2.0 */
/* Route tables over xDS: who shares a subscription, who waits for it, what an update changes and
 * what it leaves alone. */
#include "../upstream/upstream_fixture.h"

#include <stdio.h>

#include "../support/fake_subscription.h"
#include "base/init_manager.h"
#include "base/slot.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proxy/api/route.h"

typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__Rds rds_message;

static void *message_of(struct upstream *up, const ProtobufCMessageDescriptor *descriptor,
                        const char *json)
{
    struct kb_str text = kb_str_dup(&up->arena, kb_str_from_cstr(json));
    ProtobufCMessage *message;

    for (size_t i = 0; i < text.len; i++) {
        char *c = (char *)(uintptr_t)&text.p[i];

        *c = *c == '\'' ? '"' : *c;
    }
    message =
        kb_pb_json_parse(descriptor, KB_STR(""), text, KB_PB_UNKNOWN_ERROR, &up->arena, &up->diag);
    assert_non_null(message);
    return message;
}

static struct kb_route_provider *provider(struct upstream *up, struct kb_init_manager *init,
                                          const char *name, const char *stat_prefix)
{
    struct kb_factory_context factory = {.server = &up->server, .init = init};
    struct kb_str json =
        kb_str_printf(&up->arena, "{'route_config_name':'%s','config_source':{'ads':{}}}", name);
    rds_message *message = message_of(
        up, &envoy__extensions__filters__network__http_connection_manager__v3__rds__descriptor,
        json.p);

    return kb_route_provider_create(message, kb_str_from_cstr(stat_prefix), &factory, &up->diag);
}

/* One virtual host "v" with a route to `cluster`. */
static void *table(struct upstream *up, const char *name, const char *cluster)
{
    struct kb_str json = kb_str_printf(
        &up->arena,
        "{'name':'%s','virtual_hosts':[{'name':'v','domains':['*'],'routes':[{'name':'to %s',"
        "'match':{'prefix':'/'},'route':{'cluster':'%s'}}]}]}",
        name, cluster, cluster);

    return message_of(up, &envoy__config__route__v3__route_configuration__descriptor, json.p);
}

/* The name of the route that a request gets on this worker. */
static struct kb_str route_name(const struct kb_route_config *config)
{
    static struct kb_stream_info info;
    static struct kb_connection_info connection;
    struct kb_arena arena;
    struct kb_header_map headers;
    const struct kb_route *route;

    kb_arena_init(&arena, NULL);
    kb_header_map_init(&headers, &arena);
    headers.method = KB_STR("GET");
    headers.path = KB_STR("/");
    headers.authority = KB_STR("a");
    kb_header_map_add_id(&headers, KB_HDR_X_FORWARDED_PROTO, KB_STR("http"));
    info.connection = &connection;
    route = kb_route_config_match(config, &headers, &info, 0);
    kb_arena_dispose(&arena);
    return route != NULL ? route->name : KB_STR("none");
}

static void route_check(struct upstream *up, const struct kb_route_provider *p, const char *want)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        struct kb_shared *hold;
        const struct kb_route_config *config = kb_route_provider_acquire(p, &up->workers[i], &hold);

        if (want == NULL) {
            assert_null(config);
            continue;
        }
        assert_non_null(config);
        assert_memory_equal(route_name(config).p, want, strlen(want));
        kb_shared_unref(hold, &up->workers[i]);
    }
}

static void done(void *arg)
{
    ++*(unsigned *)arg;
}

static void listeners_wait_for_the_first_answer(void **state)
{
    struct upstream *up = *state;
    struct kb_init_manager first, second, third;
    unsigned ready = 0;
    struct kb_route_provider *a, *b, *c;

    kb_init_manager_init(&first);
    kb_init_manager_init(&second);
    kb_init_manager_init(&third);
    a = provider(up, &first, "rc", "ing");
    b = provider(up, &second, "rc", "other");
    assert_int_equal(fake_subscription_count, 1);
    assert_string_equal(fake_subscriptions[0]->stat_prefix, "http.ing.rds.rc.");
    assert_false(fake_subscriptions[0]->started);
    kb_init_manager_start(&first, done, &ready);
    assert_true(fake_subscriptions[0]->started);
    kb_init_manager_start(&second, done, &ready);
    assert_int_equal(ready, 0);
    route_check(up, a, NULL);
    fake_answer(fake_subscriptions[0], "rc", "1", table(up, "rc", "x"), &up->diag);
    assert_int_equal(ready, 2);
    workers_turn(up);
    route_check(up, a, "to x");
    route_check(up, b, "to x");
    /* Who comes later finds it. */
    c = provider(up, &third, "rc", "ing");
    kb_init_manager_start(&third, done, &ready);
    assert_int_equal(ready, 3);
    route_check(up, c, "to x");
    kb_route_provider_destroy(a);
    kb_route_provider_destroy(b);
    assert_int_equal(fake_subscription_count, 1);
    kb_route_provider_destroy(c);
    assert_int_equal(fake_subscription_count, 0);
    assert_null(up->server.rds);
    workers_turn(up);
    workers_turn(up);
}

static void failures_end_the_wait_but_a_lost_connection_does_not(void **state)
{
    struct upstream *up = *state;
    const enum kb_subscription_failure ending[] = {KB_SUBSCRIPTION_FETCH_TIMEOUT,
                                                   KB_SUBSCRIPTION_REJECTED};

    for (size_t i = 0; i < KB_ARRAY_LEN(ending); i++) {
        struct kb_init_manager init;
        unsigned ready = 0;
        struct kb_route_provider *p;

        kb_init_manager_init(&init);
        p = provider(up, &init, "rc", "ing");
        kb_init_manager_start(&init, done, &ready);
        fake_failure(fake_subscriptions[0], KB_SUBSCRIPTION_CONNECTION);
        assert_int_equal(ready, 0);
        fake_failure(fake_subscriptions[0], ending[i]);
        assert_int_equal(ready, 1);
        route_check(up, p, NULL);
        kb_route_provider_destroy(p);
    }
}

static void streams_keep_their_table(void **state)
{
    struct upstream *up = *state;
    struct kb_route_provider *p = provider(up, NULL, "rc", "ing");
    const struct kb_route_config *held;
    struct kb_shared *hold;

    fake_answer(fake_subscriptions[0], "rc", "1", table(up, "rc", "x"), &up->diag);
    workers_turn(up);
    held = kb_route_provider_acquire(p, &up->workers[1], &hold);
    fake_answer(fake_subscriptions[0], "rc", "2", table(up, "rc", "y"), &up->diag);
    workers_turn(up);
    route_check(up, p, "to y");
    assert_memory_equal(route_name(held).p, "to x", 4);
    kb_route_provider_destroy(p);
    workers_turn(up);
    assert_memory_equal(route_name(held).p, "to x", 4);
    kb_shared_unref(hold, &up->workers[1]);
    workers_turn(up);
}

static void what_is_wrong_is_said_and_nothing_changes(void **state)
{
    struct upstream *up = *state;
    struct kb_route_provider *p = provider(up, NULL, "rc", "ing");

    fake_answer(fake_subscriptions[0], "rc", "1", table(up, "rc", "x"), &up->diag);
    fake_answer(fake_subscriptions[0], "other", "2", table(up, "other", "x"), &up->diag);
    assert_string_equal(reported(up), ": Unexpected RDS configuration (expecting rc): other\n");
    fake_answer(fake_subscriptions[0], "rc", "3",
                message_of(up, &envoy__config__route__v3__route_configuration__descriptor,
                           "{'name':'rc','virtual_hosts':[{'name':'v','domains':['*']},{'name':"
                           "'w','domains':['*']}]}"),
                &up->diag);
    assert_string_equal(reported(up), "virtual_hosts[1].domains[0]: Only a single wildcard domain "
                                      "is permitted in route rc\n");
    assert_int_equal(stat_value(up, "http.ing.rds.rc.config_reload"), 1);
    fake_answer(fake_subscriptions[0], "rc", "4", NULL, &up->diag);
    assert_int_equal(stat_value(up, "http.ing.rds.rc.update_empty"), 1);
    fake_removal(fake_subscriptions[0], "rc", &up->diag);
    /* The same again is no reload. */
    fake_answer(fake_subscriptions[0], "rc", "5", table(up, "rc", "x"), &up->diag);
    assert_int_equal(stat_value(up, "http.ing.rds.rc.config_reload"), 1);
    fake_answer(fake_subscriptions[0], "rc", "6", table(up, "rc", "z"), &up->diag);
    assert_int_equal(stat_value(up, "http.ing.rds.rc.config_reload"), 2);
    assert_string_equal(reported(up), "");
    workers_turn(up);
    route_check(up, p, "to z");
    kb_route_provider_destroy(p);
    workers_turn(up);
}

static void a_source_that_is_none(void **state)
{
    struct upstream *up = *state;

    fake_subscription_refused = true;
    assert_null(provider(up, NULL, "rc", "ing"));
    fake_subscription_refused = false;
    assert_string_equal(reported(up), "config_source: no such source\n");
    assert_null(up->server.rds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(listeners_wait_for_the_first_answer),
        UPSTREAM_TEST(failures_end_the_wait_but_a_lost_connection_does_not),
        UPSTREAM_TEST(streams_keep_their_table),
        UPSTREAM_TEST(what_is_wrong_is_said_and_nothing_changes),
        UPSTREAM_TEST(a_source_that_is_none),
    };

    kb_header_names_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
