/* SPDX-License-Identifier: Apache-2.0 */
/* Every page over made-up sources: statuses, headers, texts as the real Envoy gave them (golden/),
 * and the actions that requests lead to. */
#include "tests/unit/admin/admin_fixture.h"

static void test_unknown_paths_and_wrong_methods(void **state)
{
    struct fixture *f = *state;
    const char *help;

    assert_answer(f, "GET", "/quitquitquit", 405, "Method GET not allowed, POST required.");
    assert_string_equal(header(f, "content-type"), "text/plain; charset=UTF-8");
    assert_string_equal(header(f, "cache-control"), "no-cache, max-age=0");
    assert_string_equal(header(f, "x-content-type-options"), "nosniff");
    help = ask(f, "GET", "/help");
    assert_string_equal(ask(f, "GET", "/clusters/"),
                        kb_str_printf(&f->arena, "invalid path. %s", help).p);
    assert_int_equal(f->response.status, 404);
    assert_string_equal(ask(f, "POST", "/ready?x"), "LIVE\n");
    assert_string_equal(f->actions.p, "");
}

/* Envoy's help, with the one page more. */
static void test_help_is_envoys(void **state)
{
    struct fixture *f = *state;
    struct kb_str got = kb_str_from_cstr(ask(f, "GET", "/help"));
    struct kb_str want = kb_str_from_cstr(golden(f, "help.txt"));
    struct kb_str line;
    struct kb_str kept = KB_STR("");
    bool ours = false;

    while (kb_str_next_token(&got, '\n', &line)) {
        ours = kb_str_starts_with(line, KB_STR("  /kobune")) ||
               (ours && kb_str_starts_with(line, KB_STR("      ")));
        if (!ours && (line.len > 0 || got.p != NULL)) {
            kept = kb_str_printf(&f->arena, "%.*s%.*s\n", KB_STR_ARG(kept), KB_STR_ARG(line));
        }
    }
    assert_string_equal(kept.p, want.p);
}

static void test_home_links_and_posts(void **state)
{
    struct fixture *f = *state;
    const char *page = ask(f, "GET", "/");

    assert_string_equal(header(f, "content-type"), "text/html; charset=UTF-8");
    assert_non_null(strstr(page, "<a href='stats/prometheus'>"));
    assert_non_null(strstr(page, "<form action='quitquitquit' method='post'>"));
    assert_null(strstr(page, "<logger_name1>"));
    assert_non_null(strstr(page, "<option>active-html</option>"));
    assert_non_null(strstr(page, "<input type=\"checkbox\" name=\"usedonly\">"));
    assert_non_null(strstr(page, "</html>"));
    assert_in_range(strlen(page), 20000, 60000);
    assert_non_null(
        strstr(header(f, "content-security-policy"), "default-src 'none'; style-src 'sha256-"));
}

static void test_state(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/ready", 200, "LIVE\n");
    f->state = "DRAINING";
    assert_answer(f, "GET", "/ready", 503, "DRAINING\n");
    assert_answer(f, "GET", "/hot_restart_version", 200, "disabled");
    assert_answer(
        f, "GET", "/memory", 200,
        "{\n \"allocated\": \"1\",\n \"heap_size\": \"2\",\n \"pageheap_unmapped\": \"3\",\n"
        " \"pageheap_free\": \"4\",\n \"total_thread_cache\": \"5\",\n"
        " \"total_physical_bytes\": \"6\"\n}\n");
    assert_string_equal(header(f, "content-type"), "application/json");
    assert_non_null(strstr(ask(f, "GET", "/server_info"), "\"hot_restart_version\": \"disabled\""));
    assert_answer(f, "GET", "/certs", 200, "{\n \"certificates\": []\n}\n");
    assert_answer(f, "GET", "/init_dump?mask=listener", 200, "{}\n");
    assert_answer(f, "GET", "/contention", 200,
                  "Mutex contention tracing is not enabled. To enable, run Envoy with flag "
                  "--enable-mutex-tracing.");
}

static void test_actions(void **state)
{
    static const char *const paths[] = {
        "/healthcheck/fail", "/healthcheck/ok",
        "/quitquitquit",     "/reopen_logs",
        "/drain_listeners",  "/drain_listeners?inboundonly&graceful",
        "/reset_counters",   "/drain_listeners?skip_exit",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(paths); i++) {
        assert_answer(f, "GET", paths[i], 405, "Method GET not allowed, POST required.");
    }
    assert_string_equal(f->actions.p, "");
    for (size_t i = 0; i < KB_ARRAY_LEN(paths); i++) {
        assert_answer(f, "POST", paths[i], 200, "OK\n");
    }
    assert_string_equal(f->actions.p, "fail;ok;quit;reopen;drain 000;drain 110;drain 001;");
}

static void test_logging(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "POST", "/logging?paths=admin:xx", 400, golden(f, "logging_bad.txt"));
    assert_answer(f, "POST", "/logging?paths=admin:error,main:off", 200, golden(f, "logging.txt"));
    assert_int_equal(kb_log_levels[KB_LOG_ADMIN], KB_LOG_ERROR);
    ask(f, "POST", "/logging?level=critical&paths=");
    assert_int_equal(kb_log_levels[KB_LOG_MAIN], KB_LOG_CRITICAL);
    ask(f, "POST", "/logging?main=debug");
    assert_int_equal(kb_log_levels[KB_LOG_MAIN], KB_LOG_DEBUG);
    ask_form(f, "POST", "/logging", "level=off");
    assert_int_equal(kb_log_levels[KB_LOG_MAIN], KB_LOG_OFF);
    assert_non_null(
        strstr(ask(f, "POST", "/logging?main=debug,nosuch=info"), "error: unknown logger level"));
    assert_non_null(strstr(ask(f, "POST", "/logging?paths=main:info,nosuch:info"),
                           "error: unknown logger name"));
    assert_int_equal(kb_log_levels[KB_LOG_MAIN], KB_LOG_OFF);
    assert_non_null(strstr(ask(f, "POST", "/logging?level=warn"), "error: unknown logger level"));
    assert_non_null(
        strstr(ask(f, "POST", "/logging?a=info&b=info"), "error: invalid number of parameters"));
    assert_non_null(
        strstr(ask(f, "POST", "/logging?paths=main:"), "error: empty logger name or empty logger"));
    assert_non_null(
        strstr(ask(f, "POST", "/logging?group=main:info"), "error: group parameter requires fine"));
    assert_int_equal(f->response.status, 400);
}

static void test_runtime(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/runtime", 200,
                  "{\n \"entries\": {\n  \"a.key\": {\n   \"final_value\": \"text\",\n   "
                  "\"layer_values\": [\n"
                  "    \"text\",\n    \"\"\n   ]\n  }\n },\n \"layers\": [\n  \"static\",\n  "
                  "\"admin\"\n ]\n}\n");
    assert_answer(f, "POST", "/runtime_modify", 400,
                  "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n"
                  "       or send the parameters as form values\n"
                  "use an empty value to remove a previously added override");
    assert_answer(f, "POST", "/runtime_modify?a=b", 503, "No admin layer specified");
    f->admin_layer = true;
    assert_answer(f, "POST", "/runtime_modify?a=%22b%22&c&a=again", 200, "OK\n");
    assert_string_equal(ask_form(f, "POST", "/runtime_modify", "d=e"), "OK\n");
    assert_string_equal(f->actions.p, "a=\"b\";c=;reload;d=e;reload;");
}

static void test_clusters(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/clusters?filter=c_", 200, golden(f, "clusters.txt"));
    assert_answer(f, "GET", "/clusters?filter=c_&format=json", 200, golden(f, "clusters.json"));
    assert_string_equal(header(f, "content-type"), "application/json");
    assert_non_null(strstr(ask(f, "GET", "/clusters"), "other::eds_service_name::eds\n"));
    assert_non_null(
        strstr(ask(f, "GET", "/clusters?format=json"), "\"eds_service_name\": \"eds\""));
    assert_answer(f, "GET", "/clusters?filter=nosuch&format=json", 200, "{}\n");
    assert_answer(f, "GET", "/clusters?filter=(", 400, "Invalid re2 regex");
}

static void test_listeners(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/listeners?format=xx", 200,
                  "l1::127.0.0.1:31902\nl2::127.0.0.1:31903\n");
    assert_answer(f, "GET", "/listeners?format=json", 200, golden(f, "listeners.json"));
}

/* The recorded time differs, everything else is the same. */
static void assert_equal_but_time(struct fixture *f, const char *got, const char *want)
{
    struct kb_str a = kb_str_from_cstr(got);
    struct kb_str b = kb_str_from_cstr(want);
    struct kb_str line;
    struct kb_str other;

    while (kb_str_next_token(&a, '\n', &line)) {
        assert_true(kb_str_next_token(&b, '\n', &other));
        if (kb_str_find(line, KB_STR("last_updated")) < 0) {
            assert_string_equal(kb_str_dup(&f->arena, line).p, kb_str_dup(&f->arena, other).p);
        }
    }
    assert_null(b.p);
}

static void test_config_dump_resources(void **state)
{
    struct fixture *f = *state;

    assert_equal_but_time(f, ask(f, "GET", "/config_dump?resource=static_clusters&name_regex=c_.*"),
                          golden(f, "static_cluster.json"));
    assert_non_null(strstr(f->body.p, "\"last_updated\": \"1970-01-01T00:00:01.500Z\""));
    assert_answer(f, "GET", "/config_dump?resource=static_clusters&name_regex=_", 200, "{}\n");
    assert_answer(f, "GET", "/config_dump?resource=dynamic_active_clusters", 200, "{}\n");
    assert_answer(
        f, "GET", "/config_dump?resource=static_clusters&name_regex=other&mask=cluster.name", 200,
        "{\n \"configs\": [\n  {\n"
        "   \"@type\": \"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster\",\n"
        "   \"cluster\": {\n"
        "    \"@type\": \"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\n"
        "    \"name\": \"other\"\n   }\n  }\n ]\n}\n");
    assert_answer(
        f, "GET", "/config_dump?resource=static_clusters&mask=nosuch", 400,
        "FieldMask goo.gle/debugstr    \npaths: \"nosuch\"\n could not be successfully used.");
    assert_answer(f, "GET", "/config_dump?resource=static_clusters&mask=cluster.nosuch", 400,
                  "FieldMask goo.gle/debugstr    \npaths: \"cluster.nosuch\"\n could not be "
                  "successfully used.");
    assert_answer(f, "GET", "/config_dump?resource=bootstrap", 400,
                  "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field");
    assert_string_equal(header(f, "content-type"), "text/plain");
    assert_int_equal(f->response.header_count, 4);
    assert_answer(f, "GET", "/config_dump?resource=nosuch", 404, "nosuch not found in config dump");
    assert_answer(f, "GET", "/config_dump?name_regex=*", 400,
                  "INVALID_ARGUMENT: Error while parsing name_regex from *: no argument for "
                  "repetition operator: *");
    assert_answer(f, "GET", "/config_dump?resource=static_endpoint_configs", 404,
                  "static_endpoint_configs not found in config dump");
    assert_answer(f, "GET", "/config_dump?resource=static_endpoint_configs&include_eds", 200,
                  "{}\n");
}

static void test_config_dump_of_everything(void **state)
{
    struct fixture *f = *state;
    const char *dump = ask(f, "GET", "/config_dump");
    const char *at = dump;
    static const char *const order[] = {
        "{\n \"configs\": [\n  {\n   \"@type\": "
        "\"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump\",\n",
        "\n  },\n  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.ClustersConfigDump\",\n"
        "   \"static_clusters\": [\n    {\n     \"cluster\": {",
        "\n    },\n    {\n     \"cluster\": {",
        "\n    }\n   ]\n  },\n"
        "  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.ListenersConfigDump\"\n  },\n"
        "  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump\"\n  },\n"
        "  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.RoutesConfigDump\"\n  },\n"
        "  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.SecretsConfigDump\",\n"
        "   \"static_secrets\": [\n    {\n     \"name\": \"s\",",
        "\n    }\n   ]\n  }\n ]\n}\n",
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(order); i++) {
        at = strstr(at, order[i]);
        if (at == NULL) {
            fail_msg("not found after the one before: %s\nin: %s", order[i], dump);
        }
    }
    assert_null(strstr(dump, "hush"));
    assert_non_null(strstr(dump, "[redacted]"));
    assert_null(strstr(ask(f, "GET", "/config_dump?name_regex=nothing"), "static_clusters"));
    assert_non_null(strstr(f->body.p, "\"id\": \"n1\""));
}

static void test_config_dump_masks(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/config_dump?mask=bootstrap.node.id,bootstrap.node.locality", 200,
                  golden(f, "masked.json"));
    assert_answer(f, "GET", "/config_dump?mask=nosuch", 400,
                  "FieldMask nosuch could not be successfully applied to any configs.");
    assert_answer(
        f, "GET", "/config_dump?mask=static_clusters.cluster", 400,
        "FieldMask static_clusters.cluster could not be successfully applied to any configs.");
    assert_non_null(
        strstr(ask(f, "GET", "/config_dump?mask=static_clusters"), "\"name\": \"other\""));
    assert_null(strstr(f->body.p, "BootstrapConfigDump"));
}

static void test_stats_parameters(void **state)
{
    struct fixture *f = *state;

    kb_stat_named_set(kb_stat_named_create(f->stats, KB_STR("x.used"), KB_STAT_GAUGE), 0, 5);
    kb_stat_named_create(f->stats, KB_STR("x.unused"), KB_STAT_COUNTER);
    kb_stat_text_set(f->stats, KB_STR("x.text"), KB_STR("a\"b"));
    assert_answer(f, "GET", "/stats", 200, "x.text: \"a\"b\"\nx.unused: 0\nx.used: 5\n");
    assert_answer(f, "GET", "/stats?usedonly=false&type=Gauges", 200, "x.used: 5\n");
    assert_answer(f, "GET", "/stats?filter=un&format=text", 200, "x.unused: 0\n");
    assert_answer(f, "GET", "/stats?filter=un&invert_filter&type=Counters", 200, "");
    assert_answer(f, "GET", "/stats?hidden=only", 200, "");
    assert_answer(f, "GET", "/stats?format=json", 200,
                  "{\"stats\":[{\"name\":\"x.text\",\"value\":\"a\\\"b\"},{\"name\":\"x.unused\","
                  "\"value\":0},"
                  "{\"name\":\"x.used\",\"value\":5}]}");
    assert_string_equal(header(f, "content-type"), "application/json");
    assert_answer(f, "GET", "/stats/prometheus?text_readouts&filter=x.(text|used)", 200,
                  "# TYPE envoy_x_used gauge\nenvoy_x_used{} 5\n"
                  "# TYPE envoy_x_text gauge\nenvoy_x_text{text_value=\"a\\\"b\"} 0\n");
    assert_answer(f, "GET", "/stats?format=prometheus&usedonly", 200,
                  "# TYPE envoy_x_used gauge\nenvoy_x_used{} 5\n");
    assert_non_null(strstr(ask(f, "GET", "/stats?format=html"), "<pre>\nx.text: \"a\"b\"\n"));
    assert_answer(f, "GET", "/stats?filter=(&format=xx", 400, "Invalid re2 regex: missing ): (");
    assert_answer(
        f, "GET", "/stats?histogram_buckets=x", 400,
        "usage: "
        "/stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n");
    assert_answer(f, "GET", "/stats?type=x", 400, "invalid &type= param");
    assert_answer(f, "GET", "/stats?hidden=x", 400,
                  "usage: /stats?hidden=(include|only|exclude)\n\n");
    assert_answer(f, "GET", "/stats?format=x", 400,
                  "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n");
    assert_answer(f, "GET", "/stats/prometheus?histogram_buckets=detailed", 400,
                  "unsupported prometheus histogram bucket mode");
    assert_answer(
        f, "GET", "/stats/recentlookups", 200,
        "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 0\n");
    assert_answer(f, "POST", "/stats/recentlookups/enable", 200, "OK\n");
    assert_answer(f, "GET", "/stats/recentlookups", 200, "   Count Lookup\n\ntotal: 0\n");
}

static void test_profilers(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "POST", "/cpuprofiler", 400, "?enable=<y|n>\n");
    assert_answer(f, "POST", "/cpuprofiler?enable=y", 500, "failure to start the profiler");
    assert_answer(f, "POST", "/cpuprofiler?enable=n", 200, "OK\n");
    assert_answer(f, "POST", "/heapprofiler?enable=y", 501,
                  "The current build does not support heap profiler");
    assert_answer(f, "POST", "/allocprofiler?enable=y&x=1", 400, "?enable=<y|n>\n");
}

static void test_pushes(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/kobune/pushes", 200, "no control plane has sent anything\n");
    assert_answer(f, "GET", "/kobune/pushes?format=json", 200, "{\n \"pushes\": []\n}\n");
    f->pushes = true;
    assert_answer(f, "GET", "/kobune/pushes", 200,
                  "2023-11-14T22:13:20.123Z CDS delta version=v2 added=1 removed=7 unchanged=2"
                  " accepted\n  added c<1> \n  removed c2\n"
                  "1970-01-01T00:00:00.000Z LDS sotw version= REFUSED: no good\n");
    assert_answer(f, "GET", "/kobune/pushes?format=json", 200,
                  "{\n \"pushes\": [\n  {\n   \"time\": \"2023-11-14T22:13:20.123Z\",\n"
                  "   \"type\": \"CDS\",\n   \"way\": \"delta\",\n   \"version\": \"v2\",\n"
                  "   \"accepted\": true,\n   \"added\": {\"count\": 1, \"names\": "
                  "[\"c\\u003c1\\u003e\\n\"]},\n"
                  "   \"changed\": {\"count\": 0, \"names\": []},\n"
                  "   \"removed\": {\"count\": 7, \"names\": [\"c2\"]},\n"
                  "   \"unchanged\": {\"count\": 2, \"names\": []}\n  },\n"
                  "  {\n   \"time\": \"1970-01-01T00:00:00.000Z\",\n   \"type\": \"LDS\",\n"
                  "   \"way\": \"sotw\",\n   \"version\": \"\",\n   \"accepted\": false,\n"
                  "   \"error\": \"no\\ngood\",\n   \"added\": {\"count\": 0, \"names\": []},\n"
                  "   \"changed\": {\"count\": 0, \"names\": []},\n"
                  "   \"removed\": {\"count\": 0, \"names\": []},\n"
                  "   \"unchanged\": {\"count\": 0, \"names\": []}\n  }\n ]\n}\n");
}

static void test_live(void **state)
{
    struct fixture *f = *state;
    struct kb_stat_group *cluster =
        kb_stat_group_create(f->stats, KB_STR("cluster.<b>\"."), &kb_stat_schema_cluster);
    struct kb_stat_group *idle =
        kb_stat_group_create(f->stats, KB_STR("cluster.idle."), &kb_stat_schema_cluster);
    struct kb_stat_block *block = kb_stat_group_block(cluster, 0);

    assert_non_null(strstr(ask(f, "GET", "/kobune/live"), "\"live\": []\n}\n"));
    kb_stat_inc(block, KB_STAT_CLUSTER_UPSTREAM_CX_TOTAL);
    kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 200);
    kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 503);
    kb_stat_code_inc(block, KB_STAT_CODE_CANARY, 503);
    kb_stat_code_time(block, KB_STAT_CODE_PLAIN, 12);
    kb_stat_store_flush(f->stats);
    assert_non_null(
        strstr(ask(f, "GET", "/kobune/live"),
               "\"live\": [\n  {\"kind\": \"cluster\", \"name\": \"cluster.\\u003cb\\u003e\\\"\","
               " \"connections\": 1, \"connections_active\": 0, \"requests\": 2,"
               " \"requests_active\": 0, \"errors\": 1, \"times_ms\": [[12, 1, 1]]}\n ]\n}\n"));
    assert_string_equal(header(f, "content-type"), "application/json");
    kb_stat_group_destroy(cluster);
    kb_stat_group_destroy(idle);
}

static void test_unsupported(void **state)
{
    struct fixture *f = *state;

    assert_answer(f, "GET", "/kobune/unsupported", 200,
                  "every field of the configuration is implemented\n");
    assert_answer(f, "GET", "/kobune/unsupported?format=json", 200, "{\n \"unsupported\": []\n}\n");
    f->unsupported = true;
    assert_answer(f, "GET", "/kobune/unsupported", 200,
                  "7 a.b[].c (x.Y; first at a.b[3].c)\n7 a.b[].c (x.Y; first at a.b[3].c)\n");
    assert_non_null(strstr(ask(f, "GET", "/kobune/unsupported?format=json"),
                           "[\n  {\n   \"path\": \"a.b[].c\",\n   \"type\": \"x.Y\",\n"
                           "   \"first\": \"a.b[3].c\",\n   \"count\": 7\n  },\n  {\n"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unknown_paths_and_wrong_methods),
        TEST(test_help_is_envoys),
        TEST(test_home_links_and_posts),
        TEST(test_state),
        TEST(test_actions),
        TEST(test_logging),
        TEST(test_runtime),
        TEST(test_clusters),
        TEST(test_listeners),
        TEST(test_config_dump_resources),
        TEST(test_config_dump_of_everything),
        TEST(test_config_dump_masks),
        TEST(test_stats_parameters),
        TEST(test_profilers),
        TEST(test_pushes),
        TEST(test_live),
        TEST(test_unsupported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
