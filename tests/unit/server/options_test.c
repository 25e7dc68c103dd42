/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: what each flag sets, and Envoy's words for each mistake. */
#include "proxy/server/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/worker.h"

#define ARGS_MAX 32

struct run {
    struct kb_options options;
    enum kb_options_outcome outcome;
    char *out;
    char *err;
};

/* Parses the arguments, the last of which is NULL. */
static struct run run_with(const char *first, ...)
{
    static char program[] = "kobune";
    char *argv[ARGS_MAX] = {program};
    struct run run;
    size_t out_len, err_len;
    int argc = 1;
    va_list args;
    FILE *out = open_memstream(&run.out, &out_len);
    FILE *err = open_memstream(&run.err, &err_len);

    va_start(args, first);
    for (const char *arg = first; arg != NULL; arg = va_arg(args, const char *)) {
        assert_true(argc < ARGS_MAX);
        argv[argc++] = (char *)(uintptr_t)arg;
    }
    va_end(args);
    run.outcome = kb_options_parse(&run.options, argc, argv, out, err);
    fclose(out);
    fclose(err);
    return run;
}

static void run_dispose(struct run *run)
{
    free(run->out);
    free(run->err);
}

static void assert_str(struct kb_str text, const char *want)
{
    assert_int_equal(text.len, strlen(want));
    assert_memory_equal(text.p, want, text.len);
}

static void test_parse_nothing_gives_defaults(void **state)
{
    struct run run = run_with(NULL);

    (void)state;
    assert_int_equal(run.outcome, KB_OPTIONS_RUN);
    assert_int_equal(run.options.mode, KB_MODE_SERVE);
    assert_int_equal(run.options.log_level, KB_LOG_INFO);
    assert_int_equal(run.options.drain_time_s, 600);
    assert_int_equal(run.options.parent_shutdown_time_s, 900);
    assert_int_equal(run.options.file_flush_interval_ms, 10000);
    assert_int_equal(run.options.file_flush_min_size_kb, 64);
    assert_false(run.options.drain_immediate);
    assert_int_equal(run.options.config_path.len, 0);
    assert_str(run.options.log_format, KB_LOG_FORMAT_DEFAULT);
    assert_true(run.options.concurrency >= 1);
    assert_string_equal(run.err, "");
    run_dispose(&run);
}

/* The command line of an Istio sidecar. */
static void test_parse_pilot_agent_flags(void **state)
{
    struct run run =
        run_with("-c", "etc/istio/proxy/envoy-rev.json", "--drain-time-s", "45", "--drain-strategy",
                 "immediate", "--local-address-ip-version", "v4", "--file-flush-interval-msec",
                 "1000", "--disable-hot-restart", "--allow-unknown-static-fields", "-l", "warning",
                 "--component-log-level", "misc:error", "--skip-deprecated-logs", "--concurrency",
                 "2", NULL);

    (void)state;
    assert_int_equal(run.outcome, KB_OPTIONS_RUN);
    assert_str(run.options.config_path, "etc/istio/proxy/envoy-rev.json");
    assert_int_equal(run.options.drain_time_s, 45);
    assert_true(run.options.drain_immediate);
    assert_int_equal(run.options.file_flush_interval_ms, 1000);
    assert_true(run.options.disable_hot_restart);
    assert_true(run.options.allow_unknown_static_fields);
    assert_true(run.options.skip_deprecated_logs);
    assert_int_equal(run.options.log_level, KB_LOG_WARNING);
    assert_int_equal(run.options.concurrency, 2);
    kb_options_apply_log(&run.options);
    assert_int_equal(kb_log_levels[KB_LOG_MISC], KB_LOG_ERROR);
    assert_int_equal(kb_log_levels[KB_LOG_HTTP], KB_LOG_WARNING);
    run_dispose(&run);
}

static void test_parse_concurrency_zero_is_one(void **state)
{
    struct run run = run_with("--concurrency", "0", NULL);

    (void)state;
    assert_int_equal(run.options.concurrency, 1);
    run_dispose(&run);
}

struct mistake {
    const char *args[6];
    const char *err; /* how standard error starts */
};

static const struct mistake mistakes[] = {
    {{"--bogus"},
     "PARSE ERROR: Argument: --bogus\n             Couldn't find match for argument\n\nBrief "
     "USAGE: \n"},
    {{"--concurrency=2"},
     "PARSE ERROR: Argument: --concurrency=2\n             Couldn't find match for argument\n"},
    {{"stray"}, "PARSE ERROR: Argument: stray\n             Couldn't find match for argument\n"},
    {{"-c"},
     "PARSE ERROR: Argument: -c (--config-path)\n             Missing a value for this "
     "argument!\n"},
    {{"-c", "a", "--config-path", "b"},
     "PARSE ERROR: Argument: -c (--config-path)\n             Argument already set!\n"},
    {{"--mode", "serve", "--mode", "serve"},
     "PARSE ERROR: Argument: (--mode)\n             Argument already set!\n"},
    {{"--concurrency", "abc"},
     "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from "
     "string 'abc'\n"},
    {{"--concurrency", "99999999999"},
     "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from "
     "string '99999999999'\n"},
    {{"--concurrency", "3 4"},
     "PARSE ERROR: Argument: (--concurrency)\n             More than one valid value parsed from "
     "string '3 4'\n"},
    {{"--concurrency", "257"}, "error: --concurrency 257 is more than"},
    {{"-l", "bogus"}, "error: invalid log level specified 'bogus'\n"},
    {{"-l", ""}, "error: invalid log level specified ''\n"},
    {{"--mode", "foo"}, "error: unknown mode 'foo'\n"},
    {{"--component-log-level", "foo:info"}, "error: invalid component specified 'foo'\n"},
    {{"--component-log-level", "http"},
     "error: component log level not correctly specified 'http'\n"},
    {{"--component-log-level", "http:info,"},
     "error: component log level not correctly specified ''\n"},
    {{"--component-log-level", "http:info:debug"},
     "error: component log level not correctly specified 'http:info:debug'\n"},
    {{"--component-log-level", "http:bogus"}, "error: invalid log level specified 'bogus'\n"},
    {{"--enable-fine-grain-logging", "--component-log-level", "http:info"},
     "error: --component-log-level will not work with --enable-fine-grain-logging\n"},
    {{"--local-address-ip-version", "v5"}, "error: unknown IP address version 'v5'\n"},
    {{"--drain-strategy", "x"}, "error: unknown drain-strategy 'x'\n"},
    {{"--stats-tag", "a"}, "error: misformatted stats-tag 'a'\n"},
    {{"--stats-tag", "a b:c"},
     "error: misformatted stats-tag 'a b:c' contains invalid char in 'a b'\n"},
    {{"--stats-tag", "a:b.c"},
     "error: misformatted stats-tag 'a:b.c' contains invalid char in 'b.c'\n"},
    {{"--stats-tag", "a:"}, "error: misformatted stats-tag 'a:' contains invalid char in ''\n"},
    {{"--use-dynamic-base-id", "--restart-epoch", "1"},
     "error: cannot use --restart-epoch=1 with --use-dynamic-base-id\n"},
    {{"--restart-epoch", "1"}, "error: --restart-epoch=1 asks for a hot restart"},
};

static void test_parse_mistake_is_named_as_envoy_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(mistakes); i++) {
        const char *const *args = mistakes[i].args;
        struct run run = run_with(args[0], args[1], args[2], args[3], args[4], args[5], NULL);

        assert_int_equal(run.outcome, KB_OPTIONS_BAD);
        if (strncmp(run.err, mistakes[i].err, strlen(mistakes[i].err)) != 0) {
            fail_msg("want: %s\ngot: %s", mistakes[i].err, run.err);
        }
        assert_string_equal(run.out, "");
        run_dispose(&run);
    }
}

static void test_parse_error_ends_with_the_reason(void **state)
{
    struct run run = run_with("-c", NULL);
    const char *end = "For complete USAGE and HELP type: \n   kobune --help\n\n"
                      "-c (--config-path) -- Missing a value for this argument!\n";

    (void)state;
    assert_true(strlen(run.err) > strlen(end));
    assert_string_equal(run.err + strlen(run.err) - strlen(end), end);
    run_dispose(&run);
}

static void test_parse_values_may_look_like_flags(void **state)
{
    struct run run = run_with("--service-node", "--mode", "--", "--bogus", NULL);

    (void)state;
    assert_int_equal(run.outcome, KB_OPTIONS_RUN);
    assert_str(run.options.service_node, "--mode");
    run_dispose(&run);
}

static void test_parse_stats_tags_are_collected(void **state)
{
    struct run run = run_with("--stats-tag", "a:b", "--stats-tag", "c1:d:e", NULL);

    (void)state;
    assert_int_equal(run.options.stats_tag_count, 2);
    assert_str(run.options.stats_tags[0].name, "a");
    assert_str(run.options.stats_tags[1].name, "c1");
    assert_str(run.options.stats_tags[1].value, "d:e");
    run_dispose(&run);
}

static void test_help_and_version_print_and_end(void **state)
{
    struct run help = run_with("--help", "--bogus", NULL);
    struct run version = run_with("--version", NULL);
    struct run hot = run_with("--hot-restart-version", NULL);

    (void)state;
    assert_int_equal(help.outcome, KB_OPTIONS_DONE);
    assert_non_null(strstr(help.out, "\nUSAGE: \n\n   kobune  [--stats-tag <string>] ..."));
    assert_non_null(strstr(help.out, "   -c <string>,  --config-path <string>\n     Path of"));
    assert_non_null(strstr(help.out, "   --,  --ignore_rest\n"));
    assert_int_equal(version.outcome, KB_OPTIONS_DONE);
    assert_int_equal(strncmp(version.out, "\nkobune  version: ", 18), 0);
    assert_string_equal(hot.err, "disabled");
    assert_int_equal(hot.outcome, KB_OPTIONS_DONE);
    run_dispose(&help);
    run_dispose(&version);
    run_dispose(&hot);
}

static void test_help_lines_fit_75_columns(void **state)
{
    struct run help = run_with("-h", NULL);
    size_t column = 0;

    (void)state;
    for (const char *at = help.out; *at != '\0'; at++) {
        column = *at == '\n' ? 0 : column + 1;
        assert_true(column <= 76); /* a comma may stand behind the last word */
    }
    run_dispose(&help);
}

/* A directory that looks like the root of a machine with these files. */
struct fake_root {
    char path[64];
};

static void fake_file(const struct fake_root *root, const char *path, const char *text)
{
    char full[256];
    FILE *file;

    snprintf(full, sizeof(full), "%s%s", root->path, path);
    for (char *at = full + 1; *at != '\0'; at++) {
        if (*at == '/') {
            *at = '\0';
            mkdir(full, 0700);
            *at = '/';
        }
    }
    file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int root_setup(void **state)
{
    static struct fake_root root;

    snprintf(root.path, sizeof(root.path), "%s", "/tmp/kobune-options-XXXXXX");
    assert_non_null(mkdtemp(root.path));
    *state = &root;
    return 0;
}

static int root_teardown(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf '%s'", ((struct fake_root *)*state)->path);
    return system(command);
}

static void test_cgroup_v2_limit_is_the_least_above(void **state)
{
    struct fake_root *root = *state;

    fake_file(root, "/proc/self/cgroup", "0::/kubepods/pod1/c1\n");
    fake_file(root, "/proc/self/mountinfo",
              "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    fake_file(root, "/sys/fs/cgroup/kubepods/pod1/c1/cpu.max", "max 100000\n");
    assert_int_equal(kb_cpu_cgroup_limit(root->path), UINT32_MAX);
    fake_file(root, "/sys/fs/cgroup/kubepods/pod1/cpu.max", "250000 100000\n");
    assert_int_equal(kb_cpu_cgroup_limit(root->path), 2);
    fake_file(root, "/sys/fs/cgroup/kubepods/pod1/c1/cpu.max", "50000 100000\n");
    assert_int_equal(kb_cpu_cgroup_limit(root->path), 1);
}

static void test_cgroup_v1_limit_in_a_container(void **state)
{
    struct fake_root *root = *state;

    fake_file(root, "/proc/self/cgroup", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n");
    fake_file(
        root, "/proc/self/mountinfo",
        "31 30 0:27 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "32 30 0:28 /docker/x /sys/fs/cgroup/cpu ro shared:9 - cgroup cgroup rw,cpu,cpuacct\n");
    fake_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    fake_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(kb_cpu_cgroup_limit(root->path), UINT32_MAX);
    fake_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "399999\n");
    assert_int_equal(kb_cpu_cgroup_limit(root->path), 3);
}

static void test_cgroup_without_files_has_no_limit(void **state)
{
    struct fake_root *root = *state;

    assert_int_equal(kb_cpu_cgroup_limit(root->path), UINT32_MAX);
    fake_file(root, "/proc/self/cgroup", "garbage\n:::\n");
    fake_file(root, "/proc/self/mountinfo", "\n- \n");
    assert_int_equal(kb_cpu_cgroup_limit(root->path), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_nothing_gives_defaults),
        cmocka_unit_test(test_parse_pilot_agent_flags),
        cmocka_unit_test(test_parse_concurrency_zero_is_one),
        cmocka_unit_test(test_parse_mistake_is_named_as_envoy_does),
        cmocka_unit_test(test_parse_error_ends_with_the_reason),
        cmocka_unit_test(test_parse_values_may_look_like_flags),
        cmocka_unit_test(test_parse_stats_tags_are_collected),
        cmocka_unit_test(test_help_and_version_print_and_end),
        cmocka_unit_test(test_help_lines_fit_75_columns),
        cmocka_unit_test_setup_teardown(test_cgroup_v2_limit_is_the_least_above, root_setup,
                                        root_teardown),
        cmocka_unit_test_setup_teardown(test_cgroup_v1_limit_in_a_container, root_setup,
                                        root_teardown),
        cmocka_unit_test_setup_teardown(test_cgroup_without_files_has_no_limit, root_setup,
                                        root_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
