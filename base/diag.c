/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostics of configuration: a stack of where we are, and a list of what was found there. */
#include "base/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void kb_diag_init(struct kb_diag *diag)
{
    memset(diag, 0, sizeof(*diag));
    kb_arena_init(&diag->arena, NULL);
    diag->last = &diag->first;
}

void kb_diag_dispose(struct kb_diag *diag)
{
    kb_arena_dispose(&diag->arena);
    kb_diag_init(diag);
}

void kb_diag_set_locate(struct kb_diag *diag, kb_diag_locate_fn locate, void *arg)
{
    diag->locate = locate;
    diag->locate_arg = arg;
}

static void stack_push(struct kb_diag *diag, struct kb_str name, int64_t index, bool is_key)
{
    if (diag->depth < KB_DIAG_DEPTH_MAX) {
        diag->stack[diag->depth].name = name;
        diag->stack[diag->depth].index = index;
        diag->stack[diag->depth].is_key = is_key;
    }
    diag->depth++;
}

void kb_diag_push(struct kb_diag *diag, const char *name)
{
    stack_push(diag, kb_str_from_cstr(name), -1, false);
}

void kb_diag_push_index(struct kb_diag *diag, const char *name, size_t index)
{
    stack_push(diag, kb_str_from_cstr(name), (int64_t)index, false);
}

void kb_diag_push_key(struct kb_diag *diag, struct kb_str key)
{
    stack_push(diag, key, -1, true);
}

void kb_diag_pop(struct kb_diag *diag)
{
    KB_ASSERT(diag->depth > 0);
    diag->depth--;
}

/* Appends the path to `out` (NULL: only counts) and returns its length. */
static size_t path_write(const struct kb_diag *diag, char *out, size_t cap)
{
    size_t depth = KB_MIN(diag->depth, (uint32_t)KB_DIAG_DEPTH_MAX);
    size_t len = 0;

    for (size_t i = 0; i <= depth; i++) {
        char *at = out ? out + len : NULL;
        size_t room = out ? cap - len : 0;
        struct kb_str name;

        if (i == depth) {
            len += diag->depth > KB_DIAG_DEPTH_MAX ? (size_t)snprintf(at, room, "...") : 0;
            break;
        }
        name = diag->stack[i].name;
        if (diag->stack[i].is_key) {
            len += (size_t)snprintf(at, room, "[\"%.*s\"]", KB_STR_ARG(name));
        } else if (diag->stack[i].index >= 0) {
            len += (size_t)snprintf(at, room, "%s%.*s[%lld]", len ? "." : "", KB_STR_ARG(name),
                                    (long long)diag->stack[i].index);
        } else {
            len += (size_t)snprintf(at, room, "%s%.*s", len ? "." : "", KB_STR_ARG(name));
        }
    }
    return len;
}

struct kb_str kb_diag_path(struct kb_diag *diag)
{
    size_t len = path_write(diag, NULL, 0);
    char *text = kb_arena_alloc(&diag->arena, len + 1, 1);

    text[0] = '\0';
    path_write(diag, text, len + 1);
    return kb_str_make(text, len);
}

static struct kb_str text_vprintf(struct kb_arena *arena, const char *fmt, va_list args)
{
    va_list again;
    char *text;
    int len;

    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (len < 0) {
        return KB_STR("(message could not be formatted)");
    }
    text = kb_arena_alloc(arena, (size_t)len + 1, 1);
    vsnprintf(text, (size_t)len + 1, fmt, args);
    return kb_str_make(text, (size_t)len);
}

/* Counts, and makes an entry unless there are too many already; NULL then. */
static struct kb_diag_entry *entry_new(struct kb_diag *diag, enum kb_diag_level level,
                                       const char *fmt, va_list args)
{
    struct kb_diag_entry *entry;
    uint32_t *count = level == KB_DIAG_ERROR ? &diag->error_count : &diag->warning_count;

    (*count)++;
    if (*count > KB_DIAG_ENTRIES_MAX) {
        return NULL;
    }
    entry = KB_ARENA_NEW(&diag->arena, struct kb_diag_entry);
    entry->level = level;
    entry->text = text_vprintf(&diag->arena, fmt, args);
    *diag->last = entry;
    diag->last = &entry->next;
    return entry;
}

/* Puts path and place of the present field into the entry. */
static void entry_place(struct kb_diag *diag, struct kb_diag_entry *entry)
{
    struct kb_str file = KB_STR_NULL;

    entry->path = kb_diag_path(diag);
    if (diag->locate != NULL &&
        diag->locate(diag->locate_arg, entry->path, &file, &entry->line, &entry->column)) {
        entry->file = kb_str_dup(&diag->arena, file);
    }
}

void kb_diag_error(struct kb_diag *diag, const char *fmt, ...)
{
    struct kb_diag_entry *entry;
    va_list args;

    va_start(args, fmt);
    entry = entry_new(diag, KB_DIAG_ERROR, fmt, args);
    va_end(args);
    if (entry != NULL) {
        entry_place(diag, entry);
    }
}

void kb_diag_error_hint(struct kb_diag *diag, struct kb_str hint, const char *fmt, ...)
{
    struct kb_diag_entry *entry;
    va_list args;

    va_start(args, fmt);
    entry = entry_new(diag, KB_DIAG_ERROR, fmt, args);
    va_end(args);
    if (entry != NULL) {
        entry_place(diag, entry);
        entry->hint = kb_str_dup(&diag->arena, hint);
    }
}

void kb_diag_warning(struct kb_diag *diag, const char *fmt, ...)
{
    struct kb_diag_entry *entry;
    va_list args;

    va_start(args, fmt);
    entry = entry_new(diag, KB_DIAG_WARNING, fmt, args);
    va_end(args);
    if (entry != NULL) {
        entry_place(diag, entry);
    }
}

void kb_diag_error_at(struct kb_diag *diag, struct kb_str file, uint32_t line, uint32_t column,
                      const char *fmt, ...)
{
    struct kb_diag_entry *entry;
    va_list args;

    va_start(args, fmt);
    entry = entry_new(diag, KB_DIAG_ERROR, fmt, args);
    va_end(args);
    if (entry != NULL) {
        entry->path = kb_diag_path(diag);
        entry->file = kb_str_dup(&diag->arena, file);
        entry->line = line;
        entry->column = column;
    }
}

int kb_diag_result(const struct kb_diag *diag)
{
    return diag->error_count == 0 ? 0 : KB_ECONFIG;
}

struct kb_str kb_diag_format(struct kb_diag *diag, const struct kb_diag_entry *entry)
{
    const char *level = entry->level == KB_DIAG_ERROR ? "error" : "warning";
    struct kb_str place = KB_STR_NULL;

    if (entry->file.len > 0 && entry->line > 0) {
        place = kb_str_printf(&diag->arena, "%.*s:%u:%u: ", KB_STR_ARG(entry->file), entry->line,
                              entry->column);
    } else if (entry->file.len > 0) {
        place = kb_str_printf(&diag->arena, "%.*s: ", KB_STR_ARG(entry->file));
    }
    return kb_str_printf(&diag->arena, "%.*s%s: %.*s%s%.*s%s%.*s%s", KB_STR_ARG(place), level,
                         KB_STR_ARG(entry->path), entry->path.len ? ": " : "",
                         KB_STR_ARG(entry->text), entry->hint.len ? " (" : "",
                         KB_STR_ARG(entry->hint), entry->hint.len ? ")" : "");
}
