/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of resources, collected by name. */
#include "proxy/server/resource_errors.h"

#include "xds/xds_decode.h"

void kb_resource_errors_init(struct kb_resource_errors *errors, struct kb_arena *arena)
{
    errors->arena = arena;
    errors->first = NULL;
    errors->last = &errors->first;
    errors->count = 0;
}

void kb_resource_errors_add(struct kb_resource_errors *errors, struct kb_str name,
                            struct kb_str text)
{
    struct kb_resource_error *error = KB_ARENA_NEW(errors->arena, struct kb_resource_error);

    error->name = name;
    error->text = text;
    *errors->last = error;
    errors->last = &error->next;
    errors->count++;
}

struct kb_str kb_resource_errors_take(struct kb_resource_errors *errors, struct kb_str name,
                                      const struct kb_diag *reported, struct kb_diag *diag)
{
    struct kb_str text;

    for (const struct kb_diag_entry *entry = reported->first; entry != NULL; entry = entry->next) {
        if (entry->level == KB_DIAG_WARNING) {
            kb_diag_warning(diag, "%.*s: %.*s: %.*s", KB_STR_ARG(name), KB_STR_ARG(entry->path),
                            KB_STR_ARG(entry->text));
        }
    }
    if (kb_diag_result(reported) == 0) {
        return KB_STR_NULL;
    }
    text = kb_xds_error_text(reported, errors->arena);
    kb_resource_errors_add(errors, kb_str_dup(errors->arena, name), text);
    return text;
}

struct kb_str kb_resource_errors_text(const struct kb_resource_errors *errors,
                                      const char *separator)
{
    struct kb_str separator_str = kb_str_from_cstr(separator);
    size_t len = 0;
    char *out;

    for (const struct kb_resource_error *error = errors->first; error != NULL;
         error = error->next) {
        len += error->name.len + 2 + error->text.len + separator_str.len;
    }
    out = kb_arena_alloc(errors->arena, len + 1, 1);
    len = 0;
    for (const struct kb_resource_error *error = errors->first; error != NULL;
         error = error->next) {
        const struct kb_str parts[] = {error->name, KB_STR(": "), error->text,
                                       error->next != NULL ? separator_str : KB_STR("")};

        for (size_t i = 0; i < KB_ARRAY_LEN(parts); i++) {
            if (parts[i].len > 0) {
                memcpy(out + len, parts[i].p, parts[i].len);
                len += parts[i].len;
            }
        }
    }
    return kb_str_make(out, len);
}
