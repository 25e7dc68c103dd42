/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the command line: first every flag with its text, then what the texts mean. Errors are
 * Envoy's, word for word, because scripts and people know them. */
#include "proxy/server/options.h"

#include <string.h>

#include "base/worker.h"
#include "proxy/server/memory_limit.h"
#include "proxy/server/options_internal.h"

#define DRAIN_TIME_S           600
#define PARENT_SHUTDOWN_TIME_S 900
#define FILE_FLUSH_INTERVAL_MS 10000
#define FILE_FLUSH_MIN_SIZE_KB 64
#define SOCKET_PATH            "@envoy_domain_socket"

struct parsed {
    bool set;
    struct kb_str text;
    uint32_t number;
};

struct parser {
    struct kb_options *options;
    struct parsed values[KB_OPTION_COUNT];
    const char *program;
    FILE *out;
    FILE *err;
};

/* "-c (--config-path)", or "(--mode)" for a flag without a letter. */
static void print_id(FILE *err, const struct kb_option_def *def)
{
    if (def->letter != 0) {
        fprintf(err, "-%c ", def->letter);
    }
    fprintf(err, "(--%s)", def->name);
}

static int parse_error(struct parser *parser, const struct kb_option_def *def, const char *arg,
                       const char *text, const char *value)
{
    FILE *err = parser->err;

    for (int round = 0; round < 2; round++) {
        if (round == 0) {
            fputs("PARSE ERROR: Argument: ", err);
        }
        if (def != NULL) {
            print_id(err, def);
        } else {
            fputs(arg, err);
        }
        fputs(round == 0 ? "\n             " : " -- ", err);
        fputs(text, err);
        if (value != NULL) {
            fprintf(err, " from string '%s'", value);
        }
        fputs(round == 0 ? "\n\n" : "\n", err);
        if (round == 0) {
            kb_options_print_brief_usage(err, parser->program);
        }
    }
    return KB_EINVALID;
}

static const struct kb_option_def *option_find(const char *arg)
{
    for (size_t i = 0; i < KB_OPTION_COUNT; i++) {
        const struct kb_option_def *def = &kb_option_defs[i];

        if (arg[0] != '-') {
            return NULL;
        }
        if (arg[1] == '-' && arg[2] != '\0' && strcmp(arg + 2, def->name) == 0) {
            return def;
        }
        if (def->letter != 0 && arg[1] == def->letter && arg[2] == '\0') {
            return def;
        }
    }
    return NULL;
}

static int number_parse(struct parser *parser, const struct kb_option_def *def,
                        struct parsed *value)
{
    struct kb_str text = value->text;
    uint64_t number;

    while (text.len > 0 && text.p[0] == ' ') {
        text = kb_str_from(text, 1);
    }
    if (kb_str_to_u64(text, &number) == 0 && number <= UINT32_MAX) {
        value->number = (uint32_t)number;
        return 0;
    }
    if (text.len > 0 && kb_ascii_is_digit(text.p[0]) && kb_str_find_char(text, ' ') > 0) {
        return parse_error(parser, def, NULL, "More than one valid value parsed", value->text.p);
    }
    return parse_error(parser, def, NULL, "Couldn't read argument value", value->text.p);
}

/* One of "a:b"; the name has letters and digits, the value anything but a dot. */
static int stats_tag_add(struct parser *parser, struct kb_str text)
{
    struct kb_options *options = parser->options;
    ptrdiff_t colon = kb_str_find_char(text, ':');
    struct kb_stats_tag tag;

    if (colon < 0) {
        fprintf(parser->err, "error: misformatted stats-tag '%s'\n", text.p);
        return KB_EINVALID;
    }
    tag.name = kb_str_first(text, (size_t)colon);
    tag.value = kb_str_from(text, (size_t)colon + 1);
    for (size_t i = 0; i < tag.name.len; i++) {
        char c = kb_ascii_lower(tag.name.p[i]);

        if (!kb_ascii_is_digit(c) && (c < 'a' || c > 'z')) {
            fprintf(parser->err,
                    "error: misformatted stats-tag '%s' contains invalid char in '%.*s'\n", text.p,
                    KB_STR_ARG(tag.name));
            return KB_EINVALID;
        }
    }
    if (tag.value.len == 0 || kb_str_find_char(tag.value, '.') >= 0) {
        fprintf(parser->err, "error: misformatted stats-tag '%s' contains invalid char in '%.*s'\n",
                text.p, KB_STR_ARG(tag.value));
        return KB_EINVALID;
    }
    if (options->stats_tag_count == KB_OPTIONS_STATS_TAGS_MAX) {
        fprintf(parser->err, "error: more than %d --stats-tag flags\n", KB_OPTIONS_STATS_TAGS_MAX);
        return KB_EINVALID;
    }
    options->stats_tags[options->stats_tag_count++] = tag;
    return 0;
}

/* Takes the flag at argv[*i] and its value. KB_ECANCELLED: nothing more to read; KB_ECLOSED: done,
 * exit. */
static int flag_take(struct parser *parser, int argc, char *const *argv, int *i)
{
    const struct kb_option_def *def = option_find(argv[*i]);
    enum kb_option_id id;
    struct parsed *value;

    if (def == NULL) {
        return parse_error(parser, NULL, argv[*i], "Couldn't find match for argument", NULL);
    }
    id = (enum kb_option_id)(def - kb_option_defs);
    value = &parser->values[id];
    if (id == KB_OPTION_HELP) {
        kb_options_print_usage(parser->out, parser->program);
        return KB_ECLOSED;
    }
    if (id == KB_OPTION_VERSION) {
        fprintf(parser->out, "\nkobune  version: %s\n\n", kb_version_text());
        return KB_ECLOSED;
    }
    if (value->set && def->kind != KB_OPTION_MULTI) {
        return parse_error(parser, def, NULL, "Argument already set!", NULL);
    }
    value->set = true;
    if (id == KB_OPTION_IGNORE_REST) {
        return KB_ECANCELLED;
    }
    if (def->kind == KB_OPTION_SWITCH) {
        return 0;
    }
    if (*i + 1 >= argc) {
        return parse_error(parser, def, NULL, "Missing a value for this argument!", NULL);
    }
    value->text = kb_str_from_cstr(argv[++*i]);
    if (def->kind == KB_OPTION_UINT32) {
        return number_parse(parser, def, value);
    }
    return 0;
}

static int level_parse(struct parser *parser, struct kb_str text, enum kb_log_level *level)
{
    if (kb_log_level_parse(text, level) != 0) {
        fprintf(parser->err, "error: invalid log level specified '%.*s'\n", KB_STR_ARG(text));
        return KB_EINVALID;
    }
    return 0;
}

/* Calls `apply` for each "component:level" of the list, or only checks when it is false. */
static int component_levels_parse(struct kb_str list, bool apply, FILE *err)
{
    struct kb_str item;

    if (list.len == 0) {
        return 0;
    }
    while (kb_str_next_token(&list, ',', &item)) {
        ptrdiff_t colon = kb_str_find_char(item, ':');
        enum kb_log_component component;
        enum kb_log_level level;
        struct kb_str name, level_text;

        if (colon < 0 || kb_str_find_char(kb_str_from(item, (size_t)colon + 1), ':') >= 0) {
            fprintf(err, "error: component log level not correctly specified '%.*s'\n",
                    KB_STR_ARG(item));
            return KB_EINVALID;
        }
        name = kb_str_trim(kb_str_first(item, (size_t)colon));
        level_text = kb_str_from(item, (size_t)colon + 1);
        if (kb_log_level_parse(level_text, &level) != 0) {
            fprintf(err, "error: invalid log level specified '%.*s'\n", KB_STR_ARG(level_text));
            return KB_EINVALID;
        }
        if (kb_log_component_parse(name, &component) != 0) {
            fprintf(err, "error: invalid component specified '%.*s'\n", KB_STR_ARG(name));
            return KB_EINVALID;
        }
        if (apply) {
            kb_log_levels[component] = (uint8_t)level;
        }
    }
    return 0;
}

static int log_options(struct parser *parser)
{
    struct kb_options *options = parser->options;
    const struct parsed *values = parser->values;

    options->log_level = KB_LOG_INFO;
    options->log_level_given = values[KB_OPTION_LOG_LEVEL].set;
    if (options->log_level_given) {
        KB_TRY(level_parse(parser, values[KB_OPTION_LOG_LEVEL].text, &options->log_level));
    }
    options->log_format_given = values[KB_OPTION_LOG_FORMAT].set;
    options->log_format = options->log_format_given ? values[KB_OPTION_LOG_FORMAT].text
                                                    : KB_STR(KB_LOG_FORMAT_DEFAULT);
    options->log_format_escaped = values[KB_OPTION_LOG_FORMAT_ESCAPED].set;
    options->log_path = values[KB_OPTION_LOG_PATH].text;
    options->component_log_level = values[KB_OPTION_COMPONENT_LOG_LEVEL].text;
    options->enable_fine_grain_logging = values[KB_OPTION_ENABLE_FINE_GRAIN_LOGGING].set;
    options->log_stacktrace_single_entry = values[KB_OPTION_LOG_STACKTRACE_SINGLE_ENTRY].set;
    options->skip_deprecated_logs = values[KB_OPTION_SKIP_DEPRECATED_LOGS].set;
    KB_TRY(component_levels_parse(options->component_log_level, false, parser->err));
    if (options->enable_fine_grain_logging && options->component_log_level.len > 0) {
        fputs("error: --component-log-level will not work with --enable-fine-grain-logging\n",
              parser->err);
        return KB_EINVALID;
    }
    return 0;
}

static int mode_options(struct parser *parser)
{
    struct kb_options *options = parser->options;
    const struct parsed *mode = &parser->values[KB_OPTION_MODE];
    const struct parsed *ip_version = &parser->values[KB_OPTION_LOCAL_ADDRESS_IP_VERSION];
    const struct parsed *strategy = &parser->values[KB_OPTION_DRAIN_STRATEGY];

    if (!mode->set || kb_str_eq(mode->text, KB_STR("serve"))) {
        options->mode = KB_MODE_SERVE;
    } else if (kb_str_eq(mode->text, KB_STR("validate"))) {
        options->mode = KB_MODE_VALIDATE;
    } else if (kb_str_eq(mode->text, KB_STR("init_only"))) {
        options->mode = KB_MODE_INIT_ONLY;
    } else {
        fprintf(parser->err, "error: unknown mode '%s'\n", mode->text.p);
        return KB_EINVALID;
    }
    options->local_address_v6 = ip_version->set && kb_str_eq(ip_version->text, KB_STR("v6"));
    if (ip_version->set && !options->local_address_v6 &&
        !kb_str_eq(ip_version->text, KB_STR("v4"))) {
        fprintf(parser->err, "error: unknown IP address version '%s'\n", ip_version->text.p);
        return KB_EINVALID;
    }
    options->drain_immediate = strategy->set && kb_str_eq(strategy->text, KB_STR("immediate"));
    if (strategy->set && !options->drain_immediate &&
        !kb_str_eq(strategy->text, KB_STR("gradual"))) {
        fprintf(parser->err, "error: unknown drain-strategy '%s'\n", strategy->text.p);
        return KB_EINVALID;
    }
    return 0;
}

static int restart_options(struct parser *parser)
{
    struct kb_options *options = parser->options;
    const struct parsed *values = parser->values;

    options->base_id = values[KB_OPTION_BASE_ID].number;
    options->base_id_path = values[KB_OPTION_BASE_ID_PATH].text;
    options->use_dynamic_base_id = values[KB_OPTION_USE_DYNAMIC_BASE_ID].set;
    options->restart_epoch = values[KB_OPTION_RESTART_EPOCH].number;
    options->disable_hot_restart = values[KB_OPTION_DISABLE_HOT_RESTART].set;
    options->skip_hot_restart_on_no_parent = values[KB_OPTION_SKIP_HOT_RESTART_ON_NO_PARENT].set;
    options->skip_hot_restart_parent_stats = values[KB_OPTION_SKIP_HOT_RESTART_PARENT_STATS].set;
    options->socket_path = values[KB_OPTION_SOCKET_PATH].set ? values[KB_OPTION_SOCKET_PATH].text
                                                             : KB_STR(SOCKET_PATH);
    if (options->use_dynamic_base_id && options->restart_epoch > 0) {
        fprintf(parser->err, "error: cannot use --restart-epoch=%u with --use-dynamic-base-id\n",
                options->restart_epoch);
        return KB_EINVALID;
    }
    if (options->restart_epoch > 0 && !options->disable_hot_restart &&
        !options->skip_hot_restart_on_no_parent) {
        fprintf(parser->err,
                "error: --restart-epoch=%u asks for a hot restart, which is not supported; give "
                "--disable-hot-restart "
                "or --skip-hot-restart-on-no-parent to start all the same\n",
                options->restart_epoch);
        return KB_EINVALID;
    }
    return 0;
}

static uint32_t number_or(const struct parsed *value, uint32_t otherwise)
{
    return value->set ? value->number : otherwise;
}

static int worker_options(struct parser *parser)
{
    struct kb_options *options = parser->options;
    const struct parsed *concurrency = &parser->values[KB_OPTION_CONCURRENCY];

    options->concurrency = concurrency->set ? KB_MAX(concurrency->number, 1U) : kb_cpu_count();
    if (options->concurrency > KB_WORKERS_MAX) {
        if (concurrency->set) {
            fprintf(
                parser->err,
                "error: --concurrency %u is more than the %d worker threads that are possible\n",
                options->concurrency, KB_WORKERS_MAX);
            return KB_EINVALID;
        }
        options->concurrency = KB_WORKERS_MAX;
    }
    return 0;
}

static void plain_options(struct parser *parser)
{
    struct kb_options *options = parser->options;
    const struct parsed *values = parser->values;

    options->config_path = values[KB_OPTION_CONFIG_PATH].text;
    options->config_yaml = values[KB_OPTION_CONFIG_YAML].text;
    options->config_cache = values[KB_OPTION_CONFIG_CACHE].text;
    options->service_node = values[KB_OPTION_SERVICE_NODE].text;
    options->service_cluster = values[KB_OPTION_SERVICE_CLUSTER].text;
    options->service_zone = values[KB_OPTION_SERVICE_ZONE].text;
    options->admin_address_path = values[KB_OPTION_ADMIN_ADDRESS_PATH].text;
    options->disable_extensions = values[KB_OPTION_DISABLE_EXTENSIONS].text;
    options->drain_time_s = number_or(&values[KB_OPTION_DRAIN_TIME_S], DRAIN_TIME_S);
    options->parent_shutdown_time_s =
        number_or(&values[KB_OPTION_PARENT_SHUTDOWN_TIME_S], PARENT_SHUTDOWN_TIME_S);
    options->file_flush_interval_ms =
        number_or(&values[KB_OPTION_FILE_FLUSH_INTERVAL_MSEC], FILE_FLUSH_INTERVAL_MS);
    options->file_flush_min_size_kb =
        number_or(&values[KB_OPTION_FILE_FLUSH_MIN_SIZE_KB], FILE_FLUSH_MIN_SIZE_KB);
    options->allow_unknown_fields = values[KB_OPTION_ALLOW_UNKNOWN_FIELDS].set;
    options->allow_unknown_static_fields =
        values[KB_OPTION_ALLOW_UNKNOWN_STATIC_FIELDS].set || options->allow_unknown_fields;
    options->reject_unknown_dynamic_fields = values[KB_OPTION_REJECT_UNKNOWN_DYNAMIC_FIELDS].set;
    options->ignore_unknown_dynamic_fields = values[KB_OPTION_IGNORE_UNKNOWN_DYNAMIC_FIELDS].set;
    options->enable_core_dump = values[KB_OPTION_ENABLE_CORE_DUMP].set;
    options->enable_mutex_tracing = values[KB_OPTION_ENABLE_MUTEX_TRACING].set;
    options->max_memory = values[KB_OPTION_MAX_MEMORY].text;
    options->cpuset_threads = values[KB_OPTION_CPUSET_THREADS].set;
}

static int max_memory_check(struct parser *parser)
{
    struct kb_str text = parser->options->max_memory;
    struct kb_memory_size size;

    if (text.len == 0 || kb_memory_size_parse(text, &size) == 0) {
        return 0;
    }
    fprintf(parser->err,
            "error: invalid --max-memory '%s': a number of bytes such as 536870912, 512Mi or 1G, a "
            "share of the cgroup's limit such as 80%%, or 0\n",
            text.p);
    return KB_EINVALID;
}

enum kb_options_outcome kb_options_parse(struct kb_options *options, int argc, char *const *argv,
                                         FILE *out, FILE *err)
{
    struct parser parser = {
        .options = options, .program = argc > 0 ? argv[0] : "kobune", .out = out, .err = err};
    int rc = 0;

    memset(options, 0, sizeof(*options));
    for (int i = 1; i < argc && rc == 0; i++) {
        rc = flag_take(&parser, argc, argv, &i);
        if (rc == 0 && parser.values[KB_OPTION_STATS_TAG].text.p != NULL) {
            rc = stats_tag_add(&parser, parser.values[KB_OPTION_STATS_TAG].text);
            parser.values[KB_OPTION_STATS_TAG].text = KB_STR_NULL;
        }
    }
    if (rc == KB_ECLOSED) {
        return KB_OPTIONS_DONE;
    }
    if (rc != 0 && rc != KB_ECANCELLED) {
        return KB_OPTIONS_BAD;
    }
    if (log_options(&parser) != 0 || mode_options(&parser) != 0) {
        return KB_OPTIONS_BAD;
    }
    if (parser.values[KB_OPTION_HOT_RESTART_VERSION].set) {
        fputs("disabled", err);
        return KB_OPTIONS_DONE;
    }
    if (restart_options(&parser) != 0 || worker_options(&parser) != 0) {
        return KB_OPTIONS_BAD;
    }
    plain_options(&parser);
    return max_memory_check(&parser) == 0 ? KB_OPTIONS_RUN : KB_OPTIONS_BAD;
}

void kb_options_apply_log(const struct kb_options *options)
{
    kb_log_set_level(options->log_level);
    /* Was checked by kb_options_parse, so that nothing is printed here. */
    if (KB_BUG_IF(component_levels_parse(options->component_log_level, true, stderr) != 0)) {
        return;
    }
    kb_log_set_format(options->log_format.p, options->log_format_escaped);
}
