/* SPDX-License-Identifier: Apache-2.0 */
/* The access loggers of one connection manager, TCP proxy, listener or admin port: AccessLog
 * messages to loggers, each behind its filter. */
#include "envoy/config/accesslog/v3/accesslog.pb-c.h"
#include "proto/any.h"
#include "proxy/access_log/access_log_filter.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/extension.h"

struct log_entry {
    const struct kb_access_logger_ops *ops;
    void *logger;
    const struct kb_log_filter *filter; /* NULL: every stream */
};

struct kb_access_log_list {
    size_t count;
    struct log_entry *entries;
    struct kb_regex_list regexes;
};

static const struct kb_access_logger_ops *
ops_find(const Envoy__Config__Accesslog__V3__AccessLog *message,
         const Google__Protobuf__Any *config, struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str type = config != NULL ? kb_any_inner_name(config, arena) : KB_STR("");
    const struct kb_extension *extension =
        type.len > 0
            ? kb_extension_find(KB_EXT_ACCESS_LOGGER, type, kb_str_from_cstr(message->name))
            : NULL;

    if (extension == NULL) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      message->name, KB_STR_ARG(type));
        return NULL;
    }
    return extension->ops;
}

static bool entry_init(struct log_entry *entry,
                       const Envoy__Config__Accesslog__V3__AccessLog *message,
                       struct kb_factory_context *factory, const struct kb_match_build *build)
{
    struct kb_diag *diag = build->diag;
    const Google__Protobuf__Any *config =
        message->config_type_case ==
                ENVOY__CONFIG__ACCESSLOG__V3__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG
            ? message->typed_config
            : NULL;
    const struct kb_access_logger_ops *ops;
    ProtobufCMessage *unpacked;
    bool ok = true;

    if (message->filter != NULL) {
        kb_diag_push(diag, "filter");
        entry->filter = kb_log_filter_create(message->filter, factory, build);
        kb_diag_pop(diag);
        ok = entry->filter != NULL;
    }
    kb_diag_push(diag, "typed_config");
    ops = ops_find(message, config, factory->arena, diag);
    unpacked = ops != NULL ? kb_any_unpack(config, kb_pb_type_find(kb_str_from_cstr(ops->type_url)),
                                           factory->arena, diag)
                           : NULL;
    if (unpacked != NULL && ok && ops->create(unpacked, factory, diag, &entry->logger) == 0) {
        entry->ops = ops;
    }
    kb_diag_pop(diag);
    return entry->ops != NULL;
}

struct kb_access_log_list *
kb_access_log_list_create(struct Envoy__Config__Accesslog__V3__AccessLog *const *messages, size_t n,
                          struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_access_log_list *list = KB_ARENA_NEW(factory->arena, struct kb_access_log_list);
    struct kb_match_build build = {
        .arena = factory->arena, .regexes = &list->regexes, .diag = diag};
    bool ok = true;

    list->entries = kb_arena_calloc(factory->arena, (n + 1) * sizeof(struct log_entry));
    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, "access_log", i);
        if (entry_init(&list->entries[list->count], messages[i], factory, &build)) {
            list->count++;
        } else {
            ok = false;
        }
        kb_diag_pop(diag);
    }
    if (!ok) {
        kb_access_log_list_destroy(list);
        return NULL;
    }
    return list;
}

void kb_access_log_list_destroy(struct kb_access_log_list *list)
{
    if (list == NULL) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        list->entries[i].ops->destroy(list->entries[i].logger);
    }
    list->count = 0;
    kb_regex_list_dispose(&list->regexes);
}

bool kb_access_log_list_empty(const struct kb_access_log_list *list)
{
    return list->count == 0;
}

void kb_access_log_list_log(const struct kb_access_log_list *list,
                            const struct kb_formatter_input *input,
                            const struct kb_stream_info *info, struct kb_arena *arena)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct log_entry *entry = &list->entries[i];

        if (entry->filter == NULL || kb_log_filter_evaluate(entry->filter, input, info)) {
            entry->ops->log(entry->logger, input, info, arena);
        }
    }
}
