/* SPDX-License-Identifier: Apache-2.0 */
/* Every page over made-up sources: statuses, headers, texts as the real Envoy gave them (golden/),
 * and the actions that requests lead to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "envoy/admin/v3/config_dump.pb-c.h"
#include "envoy/admin/v3/config_dump_shared.pb-c.h"
#include "envoy/admin/v3/server_info.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "proto/any.h"
#include "proxy/admin/admin.h"

struct fixture {
    struct kb_arena arena;
    struct kb_stat_store *stats;
    struct kb_admin *admin;
    struct kb_admin_response response;
    struct kb_str body;
    /* What the sources answer and saw. */
    const char *state;
    struct kb_str actions;
    bool admin_layer;
    bool unsupported;
};

static void action(struct fixture *f, const char *text)
{
    f->actions = kb_str_printf(&f->arena, "%.*s%s;", KB_STR_ARG(f->actions), text);
}

static const char *state_name(void *arg)
{
    return ((struct fixture *)arg)->state;
}

static const char *hot_restart_version(void *arg)
{
    (void)arg;
    return "disabled";
}

static const ProtobufCMessage *server_info(void *arg, struct kb_arena *arena)
{
    Envoy__Admin__V3__ServerInfo *info =
        (void *)kb_pb_new(&envoy__admin__v3__server_info__descriptor, arena);

    info->hot_restart_version = (char *)(uintptr_t)hot_restart_version(arg);
    return &info->base;
}

static void memory(void *arg, struct kb_admin_memory *out)
{
    (void)arg;
    *out = (struct kb_admin_memory){1, 2, 3, 4, 5, 6};
}

static void visit_clusters(void *arg, kb_admin_cluster_fn visit, void *visit_arg)
{
    struct kb_admin_host host = {
        .addr_text = KB_STR("127.0.0.1:31905"), .zone = KB_STR("z1"), .weight = 1};
    struct kb_admin_cluster cluster = {.name = KB_STR("c_up"),
                                       .observability_name = KB_STR("c_up"),
                                       .hosts = &host,
                                       .host_count = 1};

    (void)arg;
    assert_int_equal(kb_addr_from_ip(&host.addr, KB_STR("127.0.0.1"), 31905), 0);
    for (int i = 0; i < KB_PRIORITY_COUNT; i++) {
        cluster.limits[i].connections = 1024;
        cluster.limits[i].pending = 1024;
        cluster.limits[i].requests = 1024;
        cluster.limits[i].retries = 3;
    }
    visit(visit_arg, &cluster);
    cluster.name = KB_STR("other");
    cluster.host_count = 0;
    cluster.eds_service_name = KB_STR("eds");
    visit(visit_arg, &cluster);
}

static void visit_listeners(void *arg, kb_admin_listener_fn visit, void *visit_arg)
{
    struct kb_addr addrs[2];
    struct kb_admin_listener listener = {.name = KB_STR("l1"), .addrs = addrs, .addr_count = 1};

    (void)arg;
    assert_int_equal(kb_addr_from_ip(&addrs[0], KB_STR("127.0.0.1"), 31902), 0);
    visit(visit_arg, &listener);
    assert_int_equal(kb_addr_from_ip(&addrs[0], KB_STR("127.0.0.1"), 31903), 0);
    listener.name = KB_STR("l2");
    visit(visit_arg, &listener);
}

static const char cluster_yaml[] = "{name: c_up, connect_timeout: 1s, load_assignment: "
                                   "{cluster_name: c_up, endpoints: [{locality: {zone: z1},"
                                   " lb_endpoints: [{endpoint: {address: {socket_address: "
                                   "{address: 127.0.0.1, port_value: 31905}}}}]}]}}";

static ProtobufCMessage *from_yaml(struct kb_arena *arena, const ProtobufCMessageDescriptor *type,
                                   const char *text)
{
    struct kb_doc doc;
    struct kb_diag diag;
    ProtobufCMessage *message;

    kb_doc_init(&doc);
    kb_diag_init(&diag);
    assert_int_equal(kb_doc_parse_yaml(&doc, KB_STR("test"), kb_str_from_cstr(text), &diag), 0);
    message = kb_pb_from_doc(type, &doc, KB_PB_UNKNOWN_ERROR, arena, &diag);
    assert_non_null(message);
    kb_diag_dispose(&diag);
    kb_doc_dispose(&doc);
    return message;
}

static void cluster_visit(struct fixture *f, kb_admin_config_fn visit, void *visit_arg,
                          const char *name)
{
    Envoy__Config__Cluster__V3__Cluster *cluster = (void *)from_yaml(
        &f->arena, &envoy__config__cluster__v3__cluster__descriptor, cluster_yaml);
    Envoy__Admin__V3__ClustersConfigDump__StaticCluster *element = (void *)kb_pb_new(
        &envoy__admin__v3__clusters_config_dump__static_cluster__descriptor, &f->arena);
    Google__Protobuf__Any any;
    Google__Protobuf__Timestamp when;

    cluster->name = (char *)(uintptr_t)name;
    kb_any_pack(&cluster->base, &f->arena, &any);
    kb_pb_init(&google__protobuf__timestamp__descriptor, &when.base);
    when.seconds = 1;
    when.nanos = 500000000;
    element->cluster = &any;
    element->last_updated = &when;
    visit(visit_arg, "static_clusters", kb_str_from_cstr(name), &element->base);
}

static void visit_configs(void *arg, enum kb_admin_section section, kb_admin_config_fn visit,
                          void *visit_arg)
{
    if (section == KB_ADMIN_BOOTSTRAP) {
        struct fixture *f = arg;

        visit(visit_arg, NULL, KB_STR(""),
              from_yaml(&f->arena, &envoy__admin__v3__bootstrap_config_dump__descriptor,
                        "{bootstrap: {node: {id: n1, cluster: c1, locality: {zone: z1}}},"
                        " last_updated: '1970-01-01T00:00:02Z'}"));
    } else if (section == KB_ADMIN_CLUSTERS) {
        cluster_visit(arg, visit, visit_arg, "c_up");
        cluster_visit(arg, visit, visit_arg, "other");
    } else if (section == KB_ADMIN_SECRETS) {
        struct fixture *f = arg;

        visit(visit_arg, "static_secrets", KB_STR("s"),
              from_yaml(
                  &f->arena, &envoy__admin__v3__secrets_config_dump__static_secret__descriptor,
                  "{name: s, secret: {'@type': "
                  "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: s,"
                  " tls_certificate: {private_key: {inline_string: hush}}}}"));
    }
}

static void visit_unsupported(void *arg, kb_admin_unsupported_fn visit, void *visit_arg)
{
    static const struct kb_admin_unsupported entry = {
        .path = KB_STR("a.b[].c"), .first = KB_STR("a.b[3].c"), .type = KB_STR("x.Y"), .count = 7};

    if (((struct fixture *)arg)->unsupported) {
        visit(visit_arg, &entry);
        visit(visit_arg, &entry);
    }
}

static size_t runtime_layer_count(void *arg)
{
    (void)arg;
    return 2;
}

static struct kb_str runtime_layer_name(void *arg, size_t layer)
{
    (void)arg;
    return layer == 0 ? KB_STR("static") : KB_STR("admin");
}

static void visit_runtime(void *arg, kb_admin_runtime_fn visit, void *visit_arg)
{
    const struct kb_str values[] = {KB_STR("text"), KB_STR("")};

    (void)arg;
    visit(visit_arg, KB_STR("a.key"), values, KB_STR("text"));
}

static int runtime_set(void *arg, struct kb_str key, struct kb_str value)
{
    struct fixture *f = arg;

    if (!f->admin_layer) {
        return KB_ENOTFOUND;
    }
    action(f, kb_str_printf(&f->arena, "%.*s=%.*s", KB_STR_ARG(key), KB_STR_ARG(value)).p);
    return 0;
}

static void runtime_reload(void *arg)
{
    action(arg, "reload");
}

static void fail_health_check(void *arg, bool fail)
{
    action(arg, fail ? "fail" : "ok");
}

static void drain_listeners(void *arg, bool inbound_only, bool graceful, bool skip_exit)
{
    struct fixture *f = arg;

    action(f, kb_str_printf(&f->arena, "drain %d%d%d", inbound_only, graceful, skip_exit).p);
}

static void reopen_logs(void *arg)
{
    action(arg, "reopen");
}

static void quit(void *arg)
{
    action(arg, "quit");
}

static int setup(void **state)
{
    static struct fixture f;
    const struct kb_admin_sources sources = {
        .arg = &f,
        .state_name = state_name,
        .hot_restart_version = hot_restart_version,
        .server_info = server_info,
        .memory = memory,
        .visit_clusters = visit_clusters,
        .visit_listeners = visit_listeners,
        .visit_configs = visit_configs,
        .visit_unsupported = visit_unsupported,
        .runtime_layer_count = runtime_layer_count,
        .runtime_layer_name = runtime_layer_name,
        .visit_runtime = visit_runtime,
        .runtime_set = runtime_set,
        .runtime_reload = runtime_reload,
        .fail_health_check = fail_health_check,
        .drain_listeners = drain_listeners,
        .reopen_logs = reopen_logs,
        .quit = quit,
    };

    f = (struct fixture){.state = "LIVE", .actions = KB_STR("")};
    kb_arena_init(&f.arena, NULL);
    f.stats = kb_stat_store_create(1);
    f.admin = kb_admin_create(&sources, f.stats);
    kb_log_set_level(KB_LOG_INFO);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    kb_admin_destroy(f->admin);
    kb_stat_store_destroy(f->stats);
    kb_arena_dispose(&f->arena);
    return 0;
}

/* Asks; the response's status and headers stay in f->response, the whole body in f->body. */
static const char *ask_form(struct fixture *f, const char *method, const char *path,
                            const char *form)
{
    struct kb_json_out out;

    kb_json_out_init(&out, 0);
    kb_admin_handle(f->admin, kb_str_from_cstr(method), kb_str_from_cstr(path),
                    kb_str_from_cstr(form), &f->response);
    while (kb_admin_response_next(&f->response, &out)) {
    }
    f->body = kb_str_dup(&f->arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    /* Only the body's memory ends here: status and headers are still looked at. */
    if (f->response.end != NULL) {
        f->response.end(f->response.arg);
        f->response.end = NULL;
    }
    return f->body.p;
}

static const char *ask(struct fixture *f, const char *method, const char *path)
{
    return ask_form(f, method, path, "");
}

static void assert_answer(struct fixture *f, const char *method, const char *path, unsigned status,
                          const char *body)
{
    assert_string_equal(ask(f, method, path), body);
    assert_int_equal(f->response.status, status);
}

static const char *golden(struct fixture *f, const char *name)
{
    struct kb_str path =
        kb_str_printf(&f->arena, "%s/tests/unit/admin/golden/%s", KB_SOURCE_ROOT, name);
    FILE *file = fopen(path.p, "rb");
    char *text = kb_arena_calloc(&f->arena, 200000);

    assert_non_null(file);
    assert_in_range(fread(text, 1, 199999, file), 1, 199998);
    fclose(file);
    return text;
}

static const char *header(const struct fixture *f, const char *name)
{
    for (size_t i = 0; i < f->response.header_count; i++) {
        if (strcmp(f->response.headers[i].name, name) == 0) {
            return f->response.headers[i].value;
        }
    }
    return "";
}

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
        TEST(test_unsupported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
