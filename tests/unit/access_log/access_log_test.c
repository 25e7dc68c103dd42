/* SPDX-License-Identifier: Apache-2.0 */
/* AccessLog messages to loggers: filters, formats of the file, stdout and stderr loggers, errors.
 * What is logged goes to a file that is read back. */
#include "tests/unit/access_log/fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/worker.h"
#include "envoy/config/accesslog/v3/accesslog.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/access_log/log_file.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/runtime.h"

struct rig {
    struct fixture f;
    struct kb_server_context server;
    struct kb_worker worker, main;
    struct kb_factory_context factory;
    struct kb_access_log_list *list;
    char path[80];
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    int fd;

    fixture_init(&r->f);
    snprintf(r->path, sizeof(r->path), "%s/kb_access_XXXXXX",
             getenv("TMPDIR") != NULL && strlen(getenv("TMPDIR")) < 40 ? getenv("TMPDIR") : ".");
    fd = mkstemp(r->path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(kb_worker_init(&r->worker, 0), 0);
    assert_int_equal(kb_worker_init(&r->main, 1), 0);
    r->server.workers = &r->worker;
    r->server.worker_count = 1;
    r->server.main = &r->main;
    r->server.file_flush_min_bytes = 65536;
    r->factory.server = &r->server;
    r->factory.arena = &r->f.arena;
    r->f.info.worker = &r->worker;
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    kb_access_log_list_destroy(r->list);
    kb_log_file_dispose_all();
    kb_worker_dispose(&r->worker);
    kb_worker_dispose(&r->main);
    fixture_dispose(&r->f);
    unlink(r->path);
    free(r);
    return 0;
}

/* One AccessLog from JSON; PATH in it stands for the path of the file. */
static bool build(struct rig *r, const char *json)
{
    struct kb_str text = kb_str_from_cstr(json);
    ptrdiff_t at = kb_str_find(text, KB_STR("PATH"));
    Envoy__Config__Accesslog__V3__AccessLog *message;

    if (at >= 0) {
        text = kb_str_printf(&r->f.arena, "%.*s%s%s", (int)at, json, r->path, json + at + 4);
    }
    message =
        (void *)kb_pb_json_parse(&envoy__config__accesslog__v3__access_log__descriptor, KB_STR(""),
                                 text, KB_PB_UNKNOWN_ERROR, &r->f.arena, &r->f.diag);
    if (message == NULL) {
        return false;
    }
    kb_access_log_list_destroy(r->list);
    r->list = kb_access_log_list_create(&message, 1, &r->factory, &r->f.diag);
    return r->list != NULL;
}

static void log_one(struct rig *r)
{
    kb_access_log_list_log(r->list, &r->f.input, &r->f.info, &r->f.arena);
}

/* What was written since the last time. */
static struct kb_str written(struct rig *r)
{
    char *text = kb_arena_alloc(&r->f.arena, 65536, 1);
    int fd;
    ssize_t n;

    kb_access_log_flush_all();
    fd = open(r->path, O_RDWR);
    n = read(fd, text, 65536);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    return kb_str_make(text, n > 0 ? (size_t)n : 0);
}

static void expect_written(struct rig *r, const char *expected)
{
    struct kb_str text = written(r);

    if (!kb_str_eq(text, kb_str_from_cstr(expected))) {
        fail_msg("got \"%.*s\", not \"%s\"", KB_STR_ARG(text), expected);
    }
}

#define FILE_LOG(rest)                                                   \
    "{\"name\":\"f\",\"typed_config\":{\"@type\":\"type.googleapis.com/" \
    "envoy.extensions.access_loggers.file.v3."                           \
    "FileAccessLog\",\"path\":\"PATH\"" rest "}}"
#define TEXT_LOG(format) \
    FILE_LOG(",\"log_format\":{\"text_format_source\":{\"inline_string\":\"" format "\"}}")

static void test_formats_of_the_file_logger(void **state)
{
    static const struct {
        const char *json, *expected;
    } list[] = {
        {TEXT_LOG("%DURATION%|%TRACE_ID%\\n"), "12|-\n"},
        {FILE_LOG(",\"format\":\"%PROTOCOL%\\n\""), "HTTP/1.1\n"},
        {FILE_LOG(",\"json_format\":{\"b\":\"%DURATION%\",\"a\":\"%TRACE_ID%\"}"),
         "{\"a\":null,\"b\":12}\n"},
        {FILE_LOG(",\"typed_json_format\":{\"b\":\"%DURATION%\"}"), "{\"b\":12}\n"},
        {FILE_LOG(
             ",\"log_format\":{\"json_format\":{\"b\":\"%TRACE_ID%\"},\"omit_empty_values\":true}"),
         "{}\n"},
        {FILE_LOG(",\"log_format\":{\"text_format\":\"[%TRACE_ID%]\",\"omit_empty_values\":true}"),
         "[]"},
        {FILE_LOG(
             ",\"log_format\":{\"text_format_source\":{\"inline_bytes\":\"JVBST1RPQ09MJQ==\"}}"),
         "HTTP/1.1"},
        {FILE_LOG(",\"log_format\":{\"text_format_source\":{\"environment_variable\":\"KB_TEST_"
                  "FORMAT\"}}"),
         "200!"},
        {FILE_LOG(
             ",\"log_format\":{\"text_format_source\":{\"inline_string\":\"%REQ_WITHOUT_QUERY(:"
             "path)%\"},"
             "\"formatters\":[{\"name\":\"q\",\"typed_config\":{\"@type\":\"type.googleapis.com/"
             "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery\"}}]}"),
         "/ok/a"},
    };
    struct rig *r = *state;
    struct kb_str text;

    setenv("KB_TEST_FORMAT", "%RESPONSE_CODE%!", 1);
    for (size_t i = 0; i < KB_ARRAY_LEN(list); i++) {
        if (!build(r, list[i].json)) {
            fail_msg("%s: %.*s", list[i].json, KB_STR_ARG(r->f.diag.first->text));
        }
        assert_false(kb_access_log_list_empty(r->list));
        log_one(r);
        expect_written(r, list[i].expected);
    }
    assert_true(build(r, FILE_LOG(",\"format\":\"\"")));
    log_one(r);
    text = written(r);
    assert_true(kb_str_starts_with(text, KB_STR("[2026-11-22T01:18:50.675Z] \"GET /ok/a?")));
    assert_true(kb_str_ends_with(text, KB_STR("\"ex.com:80\" \"127.0.0.1:21401\"\n")));
    assert_true(build(r, FILE_LOG("")));
    log_one(r);
    assert_true(kb_str_eq(written(r), text));
}

/* Logs with this filter when `expected`. */
static void filtered(struct rig *r, const char *filter, bool expected)
{
    struct kb_str json =
        kb_str_printf(&r->f.arena,
                      "{\"name\":\"f\",\"filter\":%s,\"typed_config\":{\"@type\":\"type.googleapis."
                      "com/envoy.extensions."
                      "access_loggers.file.v3.FileAccessLog\",\"path\":\"PATH\",\"format\":\"x\"}}",
                      filter);

    if (!build(r, json.p)) {
        fail_msg("%s: %.*s", filter, KB_STR_ARG(r->f.diag.first->text));
    }
    log_one(r);
    if ((written(r).len == 1) != expected) {
        fail_msg("%s %s", filter, expected ? "did not log" : "logged");
    }
}

#define COMPARE(kind, op, value)                                                                  \
    "{\"" kind "_filter\":{\"comparison\":{\"op\":\"" op "\",\"value\":{\"default_value\":" value \
    ","                                                                                           \
    "\"runtime_key\":\"k\"}}}}"

static void test_comparison_filters(void **state)
{
    struct rig *r = *state;

    filtered(r, COMPARE("status_code", "EQ", "200"), true);
    filtered(r, COMPARE("status_code", "EQ", "201"), false);
    filtered(r, COMPARE("status_code", "NE", "201"), true);
    filtered(r, COMPARE("status_code", "GE", "200"), true);
    filtered(r, COMPARE("status_code", "GE", "201"), false);
    filtered(r, COMPARE("status_code", "LE", "199"), false);
    filtered(r, COMPARE("status_code", "LE", "200"), true);
    filtered(r, COMPARE("duration", "GE", "12"), true);
    filtered(r, COMPARE("duration", "GE", "13"), false);
    r->f.info.response_code = 0;
    filtered(r, COMPARE("status_code", "EQ", "0"), true);
}

static bool feature(const struct kb_runtime *runtime, struct kb_str key, uint32_t numerator,
                    uint32_t denominator, uint64_t random)
{
    (void)runtime;
    return kb_str_eq(key, KB_STR("always")) || random % denominator < numerator;
}

static uint64_t number(const struct kb_runtime *runtime, struct kb_str key, uint64_t absent)
{
    (void)runtime;
    return kb_str_eq(key, KB_STR("k")) ? 200 : absent;
}

static void test_runtime_overrides(void **state)
{
    static const struct kb_runtime_ops ops = {.feature_enabled = feature, .get_u64 = number};
    struct kb_runtime runtime = {.ops = &ops, .first_letters = UINT32_MAX};
    struct rig *r = *state;

    filtered(r, "{\"runtime_filter\":{\"runtime_key\":\"always\"}}", false);
    r->server.runtime = &runtime;
    filtered(r, COMPARE("status_code", "EQ", "7"), true);
    filtered(r, "{\"runtime_filter\":{\"runtime_key\":\"always\"}}", true);
}

static void test_runtime_filter_samples_by_request_id(void **state)
{
    struct rig *r = *state;

    r->f.info.request_id = KB_STR("00000031-cfae-40de-b0bc-54f1b670b12f"); /* 49 */
    filtered(r,
             "{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":50}}}",
             true);
    filtered(r,
             "{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":49}}}",
             false);
    filtered(r,
             "{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":50,"
             "\"denominator\":"
             "\"TEN_THOUSAND\"}}}",
             true);
    filtered(r,
             "{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":100},"
             "\"use_independent_randomness\":true}}",
             true);
    r->f.info.request_id = KB_STR("none");
    filtered(r,
             "{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":100}}}",
             true);
    filtered(r,
             "{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":0}}}",
             false);
}

static void test_and_or(void **state)
{
    struct rig *r = *state;

    filtered(r,
             "{\"and_filter\":{\"filters\":[" COMPARE("status_code", "EQ", "200") "," COMPARE(
                 "duration", "GE", "13") "]}}",
             false);
    filtered(r,
             "{\"or_filter\":{\"filters\":[" COMPARE("status_code", "EQ", "200") "," COMPARE(
                 "duration", "GE", "13") "]}}",
             true);
    filtered(r,
             "{\"and_filter\":{\"filters\":[{\"not_health_check_filter\":{}}," COMPARE(
                 "duration", "GE", "12") "]}}",
             true);
    filtered(r,
             "{\"or_filter\":{\"filters\":[{\"traceable_filter\":{}}," COMPARE("duration", "GE",
                                                                               "13") "]}}",
             false);
}

static void test_other_filters(void **state)
{
    struct rig *r = *state;

    filtered(r, "{\"not_health_check_filter\":{}}", true);
    r->f.info.health_check = true;
    filtered(r, "{\"not_health_check_filter\":{}}", false);
    filtered(r, "{\"traceable_filter\":{}}", false);
    filtered(r, "{\"response_flag_filter\":{}}", false);
    kb_stream_info_set_flag(&r->f.info, KB_RF_NO_ROUTE_FOUND);
    filtered(r, "{\"response_flag_filter\":{}}", true);
    filtered(r, "{\"response_flag_filter\":{\"flags\":[\"UH\",\"NR\"]}}", true);
    filtered(r, "{\"response_flag_filter\":{\"flags\":[\"UH\"]}}", false);
    filtered(r, "{\"log_type_filter\":{\"types\":[\"DownstreamEnd\"]}}", true);
    filtered(r, "{\"log_type_filter\":{\"types\":[\"DownstreamEnd\"],\"exclude\":true}}", false);
    filtered(r, "{\"log_type_filter\":{\"types\":[\"TcpConnectionEnd\"]}}", false);
    filtered(
        r,
        "{\"header_filter\":{\"header\":{\"name\":\"x-a\",\"string_match\":{\"exact\":\"A1\"}}}}",
        true);
    filtered(
        r,
        "{\"header_filter\":{\"header\":{\"name\":\"x-a\",\"string_match\":{\"prefix\":\"B\"}}}}",
        false);
    filtered(r, "{\"metadata_filter\":{}}", true);
    filtered(r, "{\"metadata_filter\":{\"match_if_key_not_found\":false}}", false);
    filtered(r, "{\"grpc_status_filter\":{\"statuses\":[\"UNKNOWN\"]}}", true);
    kb_header_map_add_id(&r->f.response, KB_HDR_GRPC_STATUS, KB_STR("0"));
    filtered(r, "{\"grpc_status_filter\":{\"statuses\":[\"OK\",\"CANCELED\"]}}", true);
    filtered(r, "{\"grpc_status_filter\":{\"statuses\":[\"OK\"],\"exclude\":true}}", false);
    filtered(r, "{\"grpc_status_filter\":{\"statuses\":[\"INTERNAL\"]}}", false);
}

static void test_errors(void **state)
{
    static const struct {
        const char *json, *text;
    } list[] = {
        {"{\"name\":\"nope\"}",
         "Didn't find a registered implementation for 'nope' with type URL: ''"},
        {"{\"name\":\"envoy.access_loggers.file\"}",
         "Didn't find a registered implementation for 'envoy.access_loggers.file' with type URL: "
         "''"},
        {"{\"name\":\"nope\",\"typed_config\":{\"@type\":\"type.googleapis.com/"
         "envoy.config.core.v3.Address\"}}",
         "Didn't find a registered implementation for 'nope' with type URL: "
         "'envoy.config.core.v3.Address'"},
        {TEXT_LOG("%NOPE%"), "Not supported field in StreamInfo: NOPE"},
        {FILE_LOG(",\"json_format\":{\"a\":\"%NOPE%\"}"),
         "Not supported field in StreamInfo: NOPE"},
        {FILE_LOG(",\"log_format\":{\"text_format_source\":{\"environment_variable\":\"KB_TEST_"
                  "NONE\"}}"),
         "Environment variable doesn't exist: KB_TEST_NONE"},
        {"{\"name\":\"f\",\"filter\":{\"extension_filter\":{\"name\":\"x\"}},\"typed_config\":{\"@"
         "type\":"
         "\"type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog\"}}",
         "Didn't find a registered implementation for 'x' with type URL: ''"},
    };
    struct rig *r = *state;
    struct kb_diag_entry *entry;

    for (size_t i = 0; i < KB_ARRAY_LEN(list); i++) {
        kb_diag_dispose(&r->f.diag);
        kb_diag_init(&r->f.diag);
        assert_false(build(r, list[i].json));
        r->list = NULL;
        assert_int_equal(r->f.diag.error_count, 1);
        entry = r->f.diag.first;
        while (entry->level != KB_DIAG_ERROR) { /* deprecated fields are warned of */
            entry = entry->next;
        }
        if (!kb_str_eq(entry->text, kb_str_from_cstr(list[i].text))) {
            fail_msg("%s: %.*s", list[i].json, KB_STR_ARG(entry->text));
        }
    }
    assert_false(
        build(r, FILE_LOG(",\"log_format\":{\"text_format_source\":{\"filename\":\"none/x\"}}")));
    r->list = NULL;
}

static void test_stdout_and_stderr(void **state)
{
    struct rig *r = *state;
    int kept = dup(STDOUT_FILENO);
    int fd = open(r->path, O_WRONLY | O_APPEND);
    bool ok;

    dup2(fd, STDOUT_FILENO);
    ok = build(r, "{\"name\":\"s\",\"typed_config\":{\"@type\":\"type.googleapis.com/"
                  "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog\",\"log_format\":{"
                  "\"text_format_source\":"
                  "{\"inline_string\":\"out %PROTOCOL%\\n\"}}}}");
    log_one(r);
    kb_access_log_flush_all();
    dup2(kept, STDOUT_FILENO);
    close(kept);
    close(fd);
    assert_true(ok);
    expect_written(r, "out HTTP/1.1\n");
    assert_true(build(r, "{\"name\":\"s\",\"typed_config\":{\"@type\":\"type.googleapis.com/"
                         "envoy.extensions.access_loggers.stream.v3.StderrAccessLog\"}}"));
}

static void test_empty_list(void **state)
{
    struct rig *r = *state;

    r->list = kb_access_log_list_create(NULL, 0, &r->factory, &r->f.diag);
    assert_non_null(r->list);
    assert_true(kb_access_log_list_empty(r->list));
    log_one(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_formats_of_the_file_logger, setup, teardown),
        cmocka_unit_test_setup_teardown(test_comparison_filters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_runtime_overrides, setup, teardown),
        cmocka_unit_test_setup_teardown(test_runtime_filter_samples_by_request_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_and_or, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_filters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stdout_and_stderr, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_list, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
