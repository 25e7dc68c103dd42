/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as /server_info shows it. */
#include "envoy/admin/v3/server_info.pb-c.h"

#include "proxy/server/admin_glue.h"

static char *text(struct kb_arena *arena, struct kb_str s)
{
    return (char *)(uintptr_t)kb_str_dup(arena, s).p;
}

static Google__Protobuf__Duration *duration(struct kb_arena *arena, uint64_t ms)
{
    Google__Protobuf__Duration *message = KB_ARENA_NEW(arena, Google__Protobuf__Duration);

    google__protobuf__duration__init(message);
    message->seconds = (int64_t)(ms / 1000);
    message->nanos = (int32_t)(ms % 1000) * 1000000;
    return message;
}

static void lists_fill(Envoy__Admin__V3__CommandLineOptions *message,
                       const struct kb_options *options, struct kb_arena *arena)
{
    struct kb_str rest = options->disable_extensions;
    struct kb_str item;

    message->stats_tag = kb_arena_calloc(arena, KB_OPTIONS_STATS_TAGS_MAX * sizeof(char *));
    for (size_t i = 0; i < options->stats_tag_count; i++) {
        const struct kb_stats_tag *tag = &options->stats_tags[i];

        message->stats_tag[message->n_stats_tag++] =
            text(arena,
                 kb_str_printf(arena, "%.*s:%.*s", KB_STR_ARG(tag->name), KB_STR_ARG(tag->value)));
    }
    /* No list has more items than bytes. */
    message->disabled_extensions = kb_arena_calloc(arena, (rest.len + 1) * sizeof(char *));
    while (rest.len > 0 && kb_str_next_token(&rest, ',', &item)) {
        message->disabled_extensions[message->n_disabled_extensions++] = text(arena, item);
    }
}

static Envoy__Admin__V3__CommandLineOptions__Mode mode_of(enum kb_mode mode)
{
    switch (mode) {
    case KB_MODE_SERVE:
        return ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__MODE__Serve;
    case KB_MODE_VALIDATE:
        return ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__MODE__Validate;
    case KB_MODE_INIT_ONLY:
        return ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__MODE__InitOnly;
    }
    return ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__MODE__Serve;
}

const struct Envoy__Admin__V3__CommandLineOptions *
kb_options_message(const struct kb_options *options, struct kb_arena *arena)
{
    Envoy__Admin__V3__CommandLineOptions *message =
        KB_ARENA_NEW(arena, Envoy__Admin__V3__CommandLineOptions);

    envoy__admin__v3__command_line_options__init(message);
    message->base_id = options->base_id;
    message->use_dynamic_base_id = options->use_dynamic_base_id;
    message->skip_hot_restart_on_no_parent = options->skip_hot_restart_on_no_parent;
    message->skip_hot_restart_parent_stats = options->skip_hot_restart_parent_stats;
    message->base_id_path = text(arena, options->base_id_path);
    message->concurrency = options->concurrency;
    message->config_path = text(arena, options->config_path);
    message->config_yaml = text(arena, options->config_yaml);
    message->allow_unknown_static_fields = options->allow_unknown_static_fields;
    message->reject_unknown_dynamic_fields = options->reject_unknown_dynamic_fields;
    message->ignore_unknown_dynamic_fields = options->ignore_unknown_dynamic_fields;
    message->skip_deprecated_logs = options->skip_deprecated_logs;
    message->admin_address_path = text(arena, options->admin_address_path);
    message->local_address_ip_version =
        options->local_address_v6 ? ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__IP_VERSION__v6
                                  : ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__IP_VERSION__v4;
    message->log_level = text(arena, kb_str_from_cstr(kb_log_level_name(options->log_level)));
    message->component_log_level = text(arena, options->component_log_level);
    message->log_format = text(arena, options->log_format);
    message->log_format_escaped = options->log_format_escaped;
    message->log_path = text(arena, options->log_path);
    message->service_cluster = text(arena, options->service_cluster);
    message->service_node = text(arena, options->service_node);
    message->service_zone = text(arena, options->service_zone);
    message->file_flush_interval = duration(arena, options->file_flush_interval_ms);
    message->drain_time = duration(arena, (uint64_t)options->drain_time_s * 1000);
    message->drain_strategy =
        options->drain_immediate ? ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__DRAIN_STRATEGY__Immediate
                                 : ENVOY__ADMIN__V3__COMMAND_LINE_OPTIONS__DRAIN_STRATEGY__Gradual;
    message->parent_shutdown_time =
        duration(arena, (uint64_t)options->parent_shutdown_time_s * 1000);
    message->mode = mode_of(options->mode);
    message->disable_hot_restart = options->disable_hot_restart;
    message->enable_mutex_tracing = options->enable_mutex_tracing;
    message->restart_epoch = options->restart_epoch;
    message->cpuset_threads = options->cpuset_threads;
    message->enable_fine_grain_logging = options->enable_fine_grain_logging;
    message->socket_path = text(arena, options->socket_path);
    message->socket_mode = options->socket_mode;
    message->enable_core_dump = options->enable_core_dump;
    lists_fill(message, options, arena);
    return message;
}
