/* SPDX-License-Identifier: Apache-2.0 */
/* The rules that are written as code agree with what they stand for as regular expressions, on
 * ordinary and on odd names; and every other default rule finds its tag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/regex.h"
#include "proxy/stats/tag_extract.h"
#include "proxy/stats/tag_rules.h"

#define ADDRESS "(?:(?:\\d{1,3}\\.\\d{1,3}\\.\\d{1,3}\\.\\d{1,3}|\\[[a-fA-F_\\d]+\\])_\\d+)"
#define PART    "[^\\.]+"

static const struct {
    const char *tag;
    const char *first;
    const char *regex;
} as_regex[] = {
    {"envoy.response_code", NULL, "_rq(_(\\d{3}))$"},
    {"envoy.response_code_class", NULL, "_rq_((\\d))xx$"},
    {"envoy.http_conn_manager_prefix", "listener", "^listener\\..*?\\.http\\.((" PART ")\\.)"},
    {"envoy.worker_id", NULL,
     "^(?:listener\\.(?:" ADDRESS "|" PART ")|server|listener_manager|thread_local_cluster_manager)"
     "\\.worker_((\\d+)\\.)"},
    {"envoy.listener_address", "listener", "^listener\\.((" ADDRESS "|" PART ")\\.)"},
};

static const char *const names[] = {
    "",
    ".",
    "cluster.a.upstream_rq_200",
    "cluster.a.upstream_rq_2000",
    "cluster.a.upstream_rq_20",
    "cluster.a.upstream_rq_2xx",
    "cluster.a.upstream_rq_xx",
    "_rq_200",
    "_rq_2xx",
    "rq_200",
    "listener.127.0.0.1_80.downstream_cx_total",
    "listener.127.0.0.1_80",
    "listener.127.0.0.1_80.",
    "listener.127.0.0.1_.x",
    "listener.1270.0.0.1_80.x",
    "listener.127.0.0.1_80x.y",
    "listener.127.0.0.1_80.worker_0.downstream_cx_total",
    "listener.127.0.0.1_80.worker_12.",
    "listener.127.0.0.1_80.worker_.x",
    "listener.127.0.0.1_80.worker_1x.x",
    "listener.127.worker_7.0.1_80.worker_1.x",
    "listener.127.0.0.1_80x.worker_1.x",
    "listener.[__1]_80.worker_3.downstream_cx_total",
    "listener.[__1]_80.http.ingress.downstream_rq_2xx",
    "listener.edge-1.worker_3.downstream_cx_total",
    "listener..worker_3.downstream_cx_total",
    "listener..x",
    "listener.x",
    "listener.admin.main_thread.downstream_cx_total",
    "listener.admin.http.admin.downstream_rq_completed",
    "listener.http.ingress.downstream_rq_completed",
    "listener..http.ingress.downstream_rq_completed",
    "listener.a.http..http.b.downstream_rq_completed",
    "listener.a.http.http.c",
    "listener.a.http.b",
    "listener.a.b.c.http.d.e.http.f.g",
    "listener_manager.worker_0.dispatcher",
    "server.worker_10.watchdog_miss",
    "server.worker_10watchdog_miss",
    "thread_local_cluster_manager.worker_0.clusters_inflated",
    "thread_local_cluster_manager.main_thread.clusters_inflated",
    "xserver.worker_0.y",
};

static const struct kb_tag_rule *rule_find(const char *tag, const char *first)
{
    for (size_t i = 0; i < kb_tag_rule_count; i++) {
        if (kb_tag_rules[i].match != NULL && strcmp(kb_tag_rules[i].tag, tag) == 0 &&
            (first == NULL) == (kb_tag_rules[i].first == NULL)) {
            return &kb_tag_rules[i];
        }
    }
    fail_msg("no rule for %s", tag);
    return NULL;
}

static void test_code_agrees_with_regular_expressions(void **state)
{
    struct kb_arena arena;

    (void)state;
    kb_arena_init(&arena, NULL);
    for (size_t i = 0; i < KB_ARRAY_LEN(as_regex); i++) {
        const struct kb_tag_rule *rule = rule_find(as_regex[i].tag, as_regex[i].first);
        struct kb_str error;
        struct kb_regex *regex =
            kb_regex_create(kb_str_from_cstr(as_regex[i].regex), &arena, &error);

        assert_non_null(regex);
        for (size_t k = 0; k < KB_ARRAY_LEN(names); k++) {
            struct kb_str name = kb_str_from_cstr(names[k]);
            struct kb_str groups[3];
            struct kb_tag_match match;
            bool want = kb_regex_partial_match_groups(regex, name, groups, 3);

            if (rule->match(name, &match) != want) {
                fail_msg("%s: %s: the regular expression says %d", rule->tag, names[k], want);
            }
            if (want &&
                (match.from != (size_t)(groups[1].p - name.p) ||
                 match.to != match.from + groups[1].len || !kb_str_eq(match.value, groups[2]))) {
                fail_msg("%s: %s: takes out [%zu, %zu)", rule->tag, names[k], match.from, match.to);
            }
        }
        kb_regex_destroy(regex);
    }
    kb_arena_dispose(&arena);
}

/* Name, what is left of it, and its tags. */
static const struct {
    const char *name;
    const char *left;
    const char *tags;
} extractions[] = {
    {"http.a.dynamodb.table.t.capacity.op.__partition_id=1234567", "http.dynamodb.table.capacity",
     "dynamo_partition_id=1234567 dynamo_operation=op dynamo_table=t http_conn_manager_prefix=a"},
    {"http.a.dynamodb.operation.op.upstream_rq_200", "http.dynamodb.operation.upstream_rq",
     "response_code=200 dynamo_operation=op http_conn_manager_prefix=a"},
    {"mongo.m.collection.c.callsite.s.query.reply_size",
     "mongo.collection.callsite.query.reply_size",
     "mongo_callsite=s mongo_collection=c mongo_prefix=m"},
    {"mongo.m.cmd.find.total", "mongo.cmd.total", "mongo_cmd=find mongo_prefix=m"},
    {"cluster.c.grpc.s.m.success", "cluster.grpc.success",
     "grpc_bridge_method=m grpc_bridge_service=s cluster_name=c"},
    {"cluster.c.grpc.s.success", "cluster.grpc.success", "grpc_bridge_service=s cluster_name=c"},
    {"http.a.user_agent.ios.downstream_cx_total", "http.user_agent.downstream_cx_total",
     "http_user_agent=ios http_conn_manager_prefix=a"},
    {"http.a.fault.x.delays_injected", "http.fault.delays_injected",
     "fault_downstream_cluster=x http_conn_manager_prefix=a"},
    {"vhost.v.vcluster.c.upstream_rq_2xx", "vhost.vcluster.upstream_rq_xx",
     "response_code_class=2 virtual_cluster=c virtual_host=v"},
    {"vhost.v.route.r.upstream_rq_total", "vhost.route.upstream_rq_total",
     "virtual_host=v route=r"},
    {"listener.127.0.0.1_80.ssl.ciphers.ECDHE-RSA", "listener.ssl.ciphers",
     "ssl_cipher=ECDHE-RSA listener_address=127.0.0.1_80"},
    {"listener.127.0.0.1_80.ssl.curves.X25519", "listener.ssl.curves",
     "ssl_curve=X25519 listener_address=127.0.0.1_80"},
    {"cluster.c.ssl.sigalgs.rsa_pss", "cluster.ssl.sigalgs", "ssl_sigalg=rsa_pss cluster_name=c"},
    {"cluster.c.ssl.versions.TLSv1.3", "cluster.ssl.versions",
     "ssl_version=TLSv1.3 cluster_name=c"},
    {"cluster.c.ssl.ciphers.AES_128", "cluster.ssl.ciphers", "cipher_suite=AES_128 cluster_name=c"},
    {"listener.l.ssl.certificate.cert.expiration_unix_time_seconds",
     "listener.ssl.certificate.expiration_unix_time_seconds",
     "tls_certificate=cert listener_address=l"},
    {"http.a.rds.my/route.conf.config_reload", "http.rds.config_reload",
     "rds_route_config=my/route.conf http_conn_manager_prefix=a"},
    {"http.a.scoped_rds.s.c.update_success", "http.scoped_rds.update_success",
     "scoped_rds_config=s.c http_conn_manager_prefix=a"},
    {"http.a.rbac.policy.p.allowed", "http.rbac.policy.allowed",
     "rbac_policy_name=p http_conn_manager_prefix=a"},
    {"http.a.rbac.pre.allowed", "http.rbac.allowed",
     "rbac_http_prefix=pre http_conn_manager_prefix=a"},
    {"pre.rbac.allowed", "rbac.allowed", "rbac_prefix=pre"},
    {"pre.http_local_rate_limit.ok", "http_local_rate_limit.ok", "local_http_ratelimit_prefix=pre"},
    {"proxy_proto.versions.v2.found", "proxy_proto.found", "proxy_protocol_version=2"},
    {"proxy_proto.p.versions.v1.found", "proxy_proto.found",
     "proxy_protocol_prefix=p proxy_protocol_version=1"},
    {"cluster.c.ext_authz.x.ok", "cluster.ext_authz.ok", "cluster_name=c ext_authz_prefix=x"},
    {"sds.s.update_success", "sds.update_success", "xds_resource_name=s"},
    {"tcp.t", "tcp.t", ""},
    {"tcp.t.a", "tcp.a", "tcp_prefix=t"},
    {"redis.r.downstream_cx_total", "redis.downstream_cx_total", "redis_prefix=r"},
};

static void test_default_rules_find_their_tags(void **state)
{
    struct kb_tag_producer *producer = kb_tag_producer_create(NULL, NULL, 0, NULL);
    struct kb_tag_result result = {0};
    struct kb_arena arena;

    (void)state;
    kb_arena_init(&arena, NULL);
    for (size_t i = 0; i < KB_ARRAY_LEN(extractions); i++) {
        struct kb_str tags = KB_STR("");

        kb_tag_extract(producer, kb_str_from_cstr(extractions[i].name), &result);
        for (size_t k = 0; k < result.tag_count; k++) {
            struct kb_str tag = result.tags[k].name;

            tag = kb_str_starts_with(tag, KB_STR("envoy.")) ? kb_str_from(tag, 6) : tag;
            tags = kb_str_printf(&arena, "%.*s%s%.*s=%.*s", KB_STR_ARG(tags), k > 0 ? " " : "",
                                 KB_STR_ARG(tag), KB_STR_ARG(result.tags[k].value));
        }
        assert_string_equal(kb_str_dup(&arena, kb_str_make(result.name, result.name_len)).p,
                            extractions[i].left);
        assert_string_equal(tags.p, extractions[i].tags);
    }
    kb_tag_result_dispose(&result);
    kb_arena_dispose(&arena);
    kb_tag_producer_destroy(producer);
}

/* A pattern that RE2 refuses and C++'s own library takes, as in Envoy. */
static void test_rules_may_look_ahead(void **state)
{
    Envoy__Config__Metrics__V3__TagSpecifier specifier =
        ENVOY__CONFIG__METRICS__V3__TAG_SPECIFIER__INIT;
    Envoy__Config__Metrics__V3__TagSpecifier *list = &specifier;
    Envoy__Config__Metrics__V3__StatsConfig config = ENVOY__CONFIG__METRICS__V3__STATS_CONFIG__INIT;
    Google__Protobuf__BoolValue no = GOOGLE__PROTOBUF__BOOL_VALUE__INIT;
    struct kb_tag_result result = {0};
    struct kb_tag_producer *producer;
    struct kb_diag diag;

    (void)state;
    kb_diag_init(&diag);
    config.use_all_default_tags = &no;
    config.stats_tags = &list;
    config.n_stats_tags = 1;
    specifier.tag_name = (char *)(uintptr_t)"prefix";
    specifier.tag_value_case = ENVOY__CONFIG__METRICS__V3__TAG_SPECIFIER__TAG_VALUE_REGEX;
    specifier.regex = (char *)(uintptr_t)"^listener(?=\\.).*?\\.http\\.(((?:[_.[:digit:]]*))\\.)";
    producer = kb_tag_producer_create(&config, NULL, 0, &diag);
    assert_int_equal(diag.error_count, 0);
    kb_tag_extract(producer, KB_STR("listener.a.http.0.1_2.rq"), &result);
    assert_int_equal(result.tag_count, 1);
    assert_true(kb_str_eq(result.tags[0].value, KB_STR("0.1_2")));
    assert_true(kb_str_eq(kb_str_make(result.name, result.name_len), KB_STR("listener.a.http.rq")));
    kb_tag_extract(producer, KB_STR("listener_manager.a.http.0.1_2.rq"), &result);
    assert_int_equal(result.tag_count, 0);
    kb_tag_producer_destroy(producer);
    specifier.regex = (char *)(uintptr_t)"^a(?=b";
    producer = kb_tag_producer_create(&config, NULL, 0, &diag);
    assert_int_equal(diag.error_count, 1);
    kb_tag_producer_destroy(producer);
    kb_tag_result_dispose(&result);
    kb_diag_dispose(&diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_code_agrees_with_regular_expressions),
        cmocka_unit_test(test_default_rules_find_their_tags),
        cmocka_unit_test(test_rules_may_look_ahead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
