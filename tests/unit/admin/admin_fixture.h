/* SPDX-License-Identifier: Apache-2.0 */
/* An admin with made-up sources behind it, and how to ask it. */
#pragma once

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
    bool pushes;
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
    struct kb_admin_host host = {.addr_text = KB_STR("127.0.0.1:31905"),
                                 .zone = KB_STR("z1"),
                                 .weight = 1,
                                 .success_rate = {-1, -1}};
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

static void visit_pushes(void *arg, kb_admin_push_fn visit, void *visit_arg)
{
    static const struct kb_admin_push_name names[] = {{KB_ADMIN_ADDED, KB_STR("c<1>\n")},
                                                      {KB_ADMIN_REMOVED, KB_STR("c2")}};
    static const struct kb_admin_push pushes[] = {
        {.wall_ns = 1700000000123000000,
         .type = "CDS",
         .way = "delta",
         .version = KB_STR("v2"),
         .counts = {1, 0, 7, 2},
         .names = names,
         .name_count = 2},
        {.type = "LDS", .way = "sotw", .version = KB_STR(""), .error = KB_STR("no\ngood")}};

    if (((struct fixture *)arg)->pushes) {
        visit(visit_arg, &pushes[0]);
        visit(visit_arg, &pushes[1]);
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
        .visit_pushes = visit_pushes,
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
