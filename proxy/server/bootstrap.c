/* SPDX-License-Identifier: Apache-2.0 */
/* From command line to a bootstrap message that can be built. A configuration that would not be
 * served as it asks is refused here, with the field and the reason. */
#include "proxy/server/bootstrap.h"

#include "base/log.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "proto/any.h"
#include "proto/pb_json.h"
#include "proxy/api/extension.h"

#define NODE_REQUIRED                                                                             \
    "node 'id' and 'cluster' are required. Set it either in 'node' config or via --service-node " \
    "and --service-cluster options."

/* The version of Envoy's API and behaviour that is implemented: what control planes look at. */
#define API_MAJOR 1
#define API_MINOR 40

static char *text_copy(struct kb_arena *arena, struct kb_str text)
{
    return (char *)(uintptr_t)kb_str_dup(arena, text).p;
}

static Google__Protobuf__Struct__FieldsEntry *metadata_entry(struct kb_arena *arena,
                                                             const char *key, struct kb_str text)
{
    Google__Protobuf__Struct__FieldsEntry *entry =
        KB_ARENA_NEW(arena, Google__Protobuf__Struct__FieldsEntry);
    Google__Protobuf__Value *value = KB_ARENA_NEW(arena, Google__Protobuf__Value);

    google__protobuf__value__init(value);
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value->string_value = text_copy(arena, text);
    google__protobuf__struct__fields_entry__init(entry);
    entry->key = text_copy(arena, kb_str_from_cstr(key));
    entry->value = value;
    return entry;
}

/* Which build this is, with Envoy's keys: the parts of kb_version_text. */
static Google__Protobuf__Struct *build_metadata(struct kb_arena *arena)
{
    static const char *const keys[] = {"revision.sha", NULL, "revision.status", "build.type",
                                       "ssl.version"};
    Google__Protobuf__Struct *metadata = KB_ARENA_NEW(arena, Google__Protobuf__Struct);
    struct kb_str rest = kb_str_from_cstr(kb_version_text());
    struct kb_str part;

    google__protobuf__struct__init(metadata);
    metadata->fields = kb_arena_calloc(arena, KB_ARRAY_LEN(keys) * sizeof(*metadata->fields));
    for (size_t i = 0; i < KB_ARRAY_LEN(keys) && kb_str_next_token(&rest, '/', &part); i++) {
        if (keys[i] != NULL) {
            metadata->fields[metadata->n_fields++] = metadata_entry(arena, keys[i], part);
        }
    }
    return metadata;
}

/* Every extension that a configuration may name. */
static void extensions_list(Envoy__Config__Core__V3__Node *node, struct kb_arena *arena)
{
    node->extensions = kb_arena_calloc(arena, kb_extension_count * sizeof(*node->extensions));
    node->n_extensions = 0;
    for (size_t i = 0; i < kb_extension_count; i++) {
        const struct kb_extension *extension = &kb_extensions[i];
        Envoy__Config__Core__V3__Extension *message =
            KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Extension);

        envoy__config__core__v3__extension__init(message);
        message->name = (char *)(uintptr_t)extension->name;
        message->category = (char *)(uintptr_t)kb_extension_category_name(extension->category);
        if (extension->type_url[0] != '\0') {
            message->type_urls = kb_arena_calloc(arena, sizeof(*message->type_urls));
            message->type_urls[message->n_type_urls++] = (char *)(uintptr_t)extension->type_url;
        }
        node->extensions[node->n_extensions++] = message;
    }
}

/* The node with what the command line says of it, as Envoy's LocalInfo. */
static Envoy__Config__Core__V3__Node *node_build(struct kb_bootstrap *bootstrap,
                                                 const struct kb_options *options)
{
    struct kb_arena *arena = &bootstrap->arena;
    Envoy__Config__Core__V3__Node *node = KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Node);
    Envoy__Config__Core__V3__BuildVersion *build =
        KB_ARENA_NEW(arena, Envoy__Config__Core__V3__BuildVersion);
    Envoy__Type__V3__SemanticVersion *version =
        KB_ARENA_NEW(arena, Envoy__Type__V3__SemanticVersion);

    envoy__config__core__v3__node__init(node);
    if (bootstrap->message->node != NULL) {
        *node = *bootstrap->message->node;
    }
    if (options->service_node.len > 0) {
        node->id = text_copy(arena, options->service_node);
    }
    if (options->service_cluster.len > 0) {
        node->cluster = text_copy(arena, options->service_cluster);
    }
    if (options->service_zone.len > 0) {
        Envoy__Config__Core__V3__Locality *locality =
            KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Locality);

        envoy__config__core__v3__locality__init(locality);
        if (node->locality != NULL) {
            *locality = *node->locality;
        }
        locality->zone = text_copy(arena, options->service_zone);
        node->locality = locality;
    }
    envoy__config__core__v3__build_version__init(build);
    envoy__type__v3__semantic_version__init(version);
    version->major_number = API_MAJOR;
    version->minor_number = API_MINOR;
    build->version = version;
    build->metadata = build_metadata(arena);
    node->user_agent_name = text_copy(arena, KB_STR("envoy"));
    node->user_agent_version_type_case =
        ENVOY__CONFIG__CORE__V3__NODE__USER_AGENT_VERSION_TYPE_USER_AGENT_BUILD_VERSION;
    node->user_agent_build_version = build;
    extensions_list(node, arena);
    return node;
}

int kb_bootstrap_load(struct kb_bootstrap *bootstrap, const struct kb_options *options,
                      struct kb_diag *diag)
{
    memset(bootstrap, 0, sizeof(*bootstrap));
    kb_arena_init(&bootstrap->arena, NULL);
    bootstrap->source.path = options->config_path;
    bootstrap->source.yaml = options->config_yaml;
    bootstrap->source.unknown =
        options->allow_unknown_static_fields ? KB_PB_UNKNOWN_WARN : KB_PB_UNKNOWN_ERROR;
    bootstrap->message = kb_config_load(&bootstrap->source, &bootstrap->arena, diag);
    if (bootstrap->message == NULL) {
        return KB_ECONFIG;
    }
    bootstrap->node = node_build(bootstrap, options);
    return 0;
}

void kb_bootstrap_dispose(struct kb_bootstrap *bootstrap)
{
    kb_config_source_dispose(&bootstrap->source);
    kb_arena_dispose(&bootstrap->arena);
}

static void locator_refuse(struct kb_diag *diag, const char *field)
{
    kb_diag_push(diag, field);
    kb_diag_error_hint(diag, KB_STR("use lds_config and cds_config"),
                       "xdstp:// collections are not implemented");
    kb_diag_pop(diag);
}

static void dynamic_resources_check(const struct kb_bootstrap *bootstrap, struct kb_diag *diag)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__DynamicResources *dynamic =
        bootstrap->message->dynamic_resources;

    if (dynamic == NULL) {
        return;
    }
    kb_diag_push(diag, "dynamic_resources");
    if (dynamic->lds_resources_locator[0] != '\0') {
        locator_refuse(diag, "lds_resources_locator");
    }
    if (dynamic->cds_resources_locator[0] != '\0') {
        locator_refuse(diag, "cds_resources_locator");
    }
    kb_diag_pop(diag);
    if ((dynamic->lds_config != NULL || dynamic->cds_config != NULL ||
         dynamic->ads_config != NULL) &&
        (bootstrap->node->id[0] == '\0' || bootstrap->node->cluster[0] == '\0')) {
        kb_diag_push(diag, "node");
        kb_diag_error(diag, NODE_REQUIRED);
        kb_diag_pop(diag);
    }
}

/* Settings of the process that change what it does to traffic. */
static void process_settings_check(const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                                   struct kb_diag *diag)
{
    if (message->header_prefix[0] != '\0' && strcmp(message->header_prefix, "x-envoy") != 0) {
        kb_diag_push(diag, "header_prefix");
        kb_diag_error_hint(diag, KB_STR("leave it out"),
                           "another prefix than 'x-envoy' is not implemented");
        kb_diag_pop(diag);
    }
    if (message->default_regex_engine != NULL &&
        strcmp(message->default_regex_engine->name, "envoy.regex_engines.google_re2") != 0) {
        kb_diag_push(diag, "default_regex_engine");
        kb_diag_error_hint(diag, KB_STR("the one there is: envoy.regex_engines.google_re2"),
                           "Didn't find a registered implementation for '%s'",
                           message->default_regex_engine->name);
        kb_diag_pop(diag);
    }
    if (message->stats_flush_interval != NULL &&
        message->stats_flush_case ==
            ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__STATS_FLUSH_STATS_FLUSH_ON_ADMIN) {
        kb_diag_push(diag, "stats_flush_on_admin");
        kb_diag_error(diag, "Only one of stats_flush_interval or stats_flush_on_admin should be "
                            "set!");
        kb_diag_pop(diag);
    }
}

/* What nothing of ours implements is only reported, but a type that Envoy does not know either is a
 * mistake, as in Envoy. */
static void sinks_check(const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                        struct kb_diag *diag)
{
    for (size_t i = 0; i < message->n_stats_sinks; i++) {
        const Envoy__Config__Metrics__V3__StatsSink *sink = message->stats_sinks[i];

        if (sink->config_type_case ==
            ENVOY__CONFIG__METRICS__V3__STATS_SINK__CONFIG_TYPE__NOT_SET) {
            kb_diag_push_index(diag, "stats_sinks", i);
            kb_diag_error(diag,
                          "Didn't find a registered implementation for '%s' with type URL: ''",
                          sink->name);
            kb_diag_pop(diag);
        }
    }
}

/* Extensions of the process: one that says that listeners inside of the process are allowed has
 * nothing to do by itself. */
static void extensions_check(const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                             struct kb_diag *diag)
{
    for (size_t i = 0; i < message->n_bootstrap_extensions; i++) {
        struct kb_str type =
            kb_any_inner_name(message->bootstrap_extensions[i]->typed_config, &diag->arena);

        if (!kb_str_eq(type, KB_STR("envoy.extensions.bootstrap.internal_listener.v3."
                                    "InternalListener"))) {
            kb_diag_push_index(diag, "bootstrap_extensions", i);
            kb_diag_warning(diag, "'%s' is not implemented, and has no effect",
                            message->bootstrap_extensions[i]->name);
            kb_diag_pop(diag);
        }
    }
}

void kb_bootstrap_check(const struct kb_bootstrap *bootstrap, const struct kb_options *options,
                        struct kb_diag *diag)
{
    (void)options;
    dynamic_resources_check(bootstrap, diag);
    process_settings_check(bootstrap->message, diag);
    sinks_check(bootstrap->message, diag);
    extensions_check(bootstrap->message, diag);
}

void kb_bootstrap_apply_log_config(const struct kb_bootstrap *bootstrap,
                                   const struct kb_options *options, struct kb_diag *diag)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__ApplicationLogConfig *config =
        bootstrap->message->application_log_config;
    struct kb_json_out json;

    if (config == NULL || config->log_format == NULL) {
        return;
    }
    kb_diag_push(diag, "application_log_config");
    kb_diag_push(diag, "log_format");
    if (options->log_format_given) {
        kb_diag_error(diag, "Only one of ApplicationLogConfig.log_format or CLI option "
                            "--log-format can be specified.");
    }
    switch (config->log_format->log_format_case) {
    case ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__APPLICATION_LOG_CONFIG__LOG_FORMAT__LOG_FORMAT_TEXT_FORMAT:
        kb_log_set_format(config->log_format->text_format, options->log_format_escaped);
        break;
    case ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__APPLICATION_LOG_CONFIG__LOG_FORMAT__LOG_FORMAT_JSON_FORMAT:
        kb_json_out_init(&json, 0);
        kb_pb_json_write(&json, &config->log_format->json_format->base, 0, 0);
        kb_json_out_add(&json, kb_str_make("", 1)); /* a NUL behind it */
        if (strstr(json.p, "%v") != NULL || strstr(json.p, "%_") != NULL) {
            kb_diag_error_hint(diag, KB_STR("write %j, which is the message escaped for JSON"),
                               "setJsonLogFormat error: INVALID_ARGUMENT: Usage of %s is "
                               "unavailable for JSON log formats",
                               strstr(json.p, "%v") != NULL ? "%v" : "%_");
        } else {
            kb_log_set_format(json.p, options->log_format_escaped);
        }
        kb_json_out_dispose(&json);
        break;
    case ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__APPLICATION_LOG_CONFIG__LOG_FORMAT__LOG_FORMAT__NOT_SET:
    default:
        break;
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

uint64_t kb_bootstrap_log_warnings(const struct kb_options *options, struct kb_diag *diag)
{
    uint64_t deprecated = 0;

    for (const struct kb_diag_entry *entry = diag->first; entry != NULL; entry = entry->next) {
        struct kb_str text;

        if (entry->level != KB_DIAG_WARNING) {
            continue;
        }
        text = kb_diag_format(diag, entry);
        if (kb_str_find(entry->text, KB_STR("deprecated")) < 0) {
            KB_LOG(CONFIG, WARNING, "Unknown field: %.*s", KB_STR_ARG(text));
            continue;
        }
        deprecated++;
        if (!options->skip_deprecated_logs) {
            KB_LOG(MISC, WARNING, "Deprecated field: %.*s", KB_STR_ARG(text));
        }
    }
    return diag->warning_count - KB_MIN(deprecated, (uint64_t)diag->warning_count);
}

void kb_bootstrap_report_errors(const struct kb_options *options, struct kb_diag *diag, FILE *err)
{
    const char *verb =
        options->mode == KB_MODE_VALIDATE ? "initializing configuration" : "initializing config";
    uint32_t shown = 0;

    for (const struct kb_diag_entry *entry = diag->first; entry != NULL; entry = entry->next) {
        struct kb_str text;

        if (entry->level != KB_DIAG_ERROR) {
            continue;
        }
        text = kb_diag_format(diag, entry);
        if (shown == 0) {
            KB_LOG(MAIN, CRITICAL, "error %s '%.*s': %.*s%s", verb,
                   KB_STR_ARG(options->config_path), KB_STR_ARG(text),
                   diag->error_count > 1 ? " (the first of several, all of which follow)" : "");
        }
        fprintf(err, "%.*s\n", KB_STR_ARG(text));
        shown++;
    }
    if (diag->error_count > shown) {
        fprintf(err, "and %u more errors\n", diag->error_count - shown);
    }
    fprintf(err, "%u error%s; nothing was started\n", diag->error_count,
            diag->error_count == 1 ? "" : "s");
}
