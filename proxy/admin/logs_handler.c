/* SPDX-License-Identifier: Apache-2.0 */
/* /logging: levels of the log's components. */
#include "base/log.h"
#include "proxy/admin/admin_internal.h"

struct change {
    enum kb_log_component component;
    enum kb_log_level level;
};

static const char unknown_level[] = "unknown logger level";
static const char unknown_name[] = "unknown logger name";

/* Only the names that /logging itself prints: "warn" is for the command line. */
static bool level_parse(struct kb_str text, enum kb_log_level *level)
{
    return kb_log_level_parse(text, level) == 0 &&
           kb_str_eq(text, kb_str_from_cstr(kb_log_level_name(*level)));
}

static void changes_apply(const struct change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        KB_LOG(ADMIN, INFO, "change log level: name='%s' level='%s'",
               kb_log_component_name(changes[i].component), kb_log_level_name(changes[i].level));
        __atomic_store_n(&kb_log_levels[changes[i].component], (uint8_t)changes[i].level,
                         __ATOMIC_RELAXED);
    }
}

/* "name:level,name:level"; returns what is wrong, or NULL. Nothing is changed when something is
 * wrong. */
static const char *paths_change(struct kb_str paths)
{
    struct change changes[KB_LOG_COMPONENT_COUNT];
    size_t count = 0;
    bool name_unknown = false;
    struct kb_str pair;

    while (paths.len > 0 && kb_str_next_token(&paths, ',', &pair)) {
        ptrdiff_t colon = kb_str_find_char(pair, ':');
        struct kb_str name = kb_str_trim(colon < 0 ? pair : kb_str_first(pair, (size_t)colon));
        struct kb_str level_text =
            kb_str_trim(colon < 0 ? KB_STR_NULL : kb_str_from(pair, (size_t)colon + 1));
        struct change change;

        if (kb_str_trim(pair).len == 0) {
            continue;
        }
        if (name.len == 0 || level_text.len == 0) {
            return "empty logger name or empty logger level";
        }
        if (!level_parse(level_text, &change.level)) {
            return unknown_level;
        }
        if (kb_log_component_parse(name, &change.component) != 0) {
            name_unknown = true;
        } else if (count < KB_ARRAY_LEN(changes)) {
            changes[count++] = change;
        }
    }
    if (name_unknown) {
        return unknown_name;
    }
    changes_apply(changes, count);
    return NULL;
}

/* name=level */
static const char *one_change(const struct kb_admin_parameter *parameter)
{
    struct change change;

    if (!level_parse(parameter->value, &change.level)) {
        return unknown_level;
    }
    if (kb_log_component_parse(parameter->key, &change.component) != 0) {
        return unknown_name;
    }
    changes_apply(&change, 1);
    return NULL;
}

static const char *level_change(const struct kb_admin_query *query)
{
    const struct kb_admin_parameter *only = NULL;
    enum kb_log_level level;

    for (size_t i = 0; i < query->count; i++) {
        /* Forms send every field, the empty ones too. */
        if (query->items[i].value.len > 0) {
            if (only != NULL) {
                return "invalid number of parameters";
            }
            only = &query->items[i];
        }
    }
    if (only == NULL) {
        return NULL;
    }
    if (kb_str_eq(only->key, KB_STR("level"))) {
        if (!level_parse(only->value, &level)) {
            return unknown_level;
        }
        kb_log_set_level(level);
        return NULL;
    }
    if (kb_str_eq(only->key, KB_STR("group"))) {
        return "group parameter requires fine-grain logging to be enabled";
    }
    if (kb_str_eq(only->key, KB_STR("paths"))) {
        return paths_change(only->value);
    }
    return one_change(only);
}

KB_ADMIN_HANDLER(logging)
{
    const char *wrong = level_change(&request->parameters);

    if (wrong != NULL) {
        response->status = 400;
        kb_admin_printf(
            response,
            "error: %s\n\n"
            "usage: /logging?<name>=<level> (change single level)\n"
            "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n"
            "usage: /logging?level=<level> (change all levels)\n"
            "usage: /logging?group=<group_name>:<level> (change group of loggers)\n"
            "levels: ",
            wrong);
        for (int level = KB_LOG_TRACE; level <= KB_LOG_OFF; level++) {
            kb_admin_printf(response, "%s ", kb_log_level_name((enum kb_log_level)level));
        }
        kb_admin_add(response, KB_STR("\n"));
    }
    kb_admin_add(response, KB_STR("active loggers:\n"));
    for (int i = 0; i < KB_LOG_COMPONENT_COUNT; i++) {
        kb_admin_printf(response, "  %s: %s\n", kb_log_component_name((enum kb_log_component)i),
                        kb_log_level_name((enum kb_log_level)kb_log_levels[i]));
    }
    kb_admin_add(response, KB_STR("\n"));
}
