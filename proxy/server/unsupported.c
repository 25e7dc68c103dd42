/* SPDX-License-Identifier: Apache-2.0 */
/* Fields without implementation. A configuration of thousands of alike resources gives one line per
 * kind of field. */
#include "proxy/server/unsupported.h"

#include "base/log.h"

#define PATH_MAX_BYTES 1024

void kb_unsupported_init(struct kb_unsupported *unsupported)
{
    memset(unsupported, 0, sizeof(*unsupported));
    kb_arena_init(&unsupported->arena, NULL);
    kb_map_init(&unsupported->by_path);
    unsupported->last = &unsupported->entries;
}

void kb_unsupported_dispose(struct kb_unsupported *unsupported)
{
    kb_map_dispose(&unsupported->by_path);
    kb_arena_dispose(&unsupported->arena);
}

/* The path with what is in brackets left out; cut at `cap`. */
static struct kb_str path_kind(struct kb_str path, char *out, size_t cap)
{
    size_t len = 0;
    bool in_brackets = false;
    bool in_quotes = false;

    for (size_t i = 0; i < path.len && len + 1 < cap; i++) {
        char c = path.p[i];

        if (in_brackets && c == '"') {
            in_quotes = !in_quotes;
        }
        if (in_brackets && c == ']' && !in_quotes) {
            in_brackets = false;
        }
        if (!in_brackets) {
            out[len++] = c;
        }
        if (c == '[' && !in_quotes) {
            in_brackets = true;
        }
    }
    return kb_str_make(out, len);
}

void kb_unsupported_add(struct kb_unsupported *unsupported, struct kb_str path, struct kb_str type)
{
    char kind_bytes[PATH_MAX_BYTES];
    struct kb_str kind = path_kind(path, kind_bytes, sizeof(kind_bytes));
    struct kb_unsupported_entry *entry = kb_map_get(&unsupported->by_path, kind);

    if (entry != NULL) {
        entry->count++;
        return;
    }
    if (unsupported->by_path.len >= KB_UNSUPPORTED_MAX) {
        unsupported->more_count++;
        return;
    }
    entry = KB_ARENA_NEW(&unsupported->arena, struct kb_unsupported_entry);
    entry->path = kb_str_dup(&unsupported->arena, kind);
    entry->first = kb_str_dup(&unsupported->arena, path);
    entry->type = kb_str_dup(&unsupported->arena, type);
    entry->count = 1;
    kb_map_put(&unsupported->by_path, entry->path, entry);
    *unsupported->last = entry;
    unsupported->last = &entry->next;
    KB_LOG(
        CONFIG, WARNING,
        "%.*s is set but not implemented, and has no effect (all such fields: /kobune/unsupported)",
        KB_STR_ARG(path));
}

static void field_visited(void *arg, struct kb_str path, const ProtobufCMessageDescriptor *type,
                          const ProtobufCFieldDescriptor *field)
{
    (void)field;
    kb_unsupported_add(arg, path, kb_str_from_cstr(type->name));
}

void kb_unsupported_walk(struct kb_unsupported *unsupported, const ProtobufCMessage *message,
                         struct kb_str prefix)
{
    kb_supported_walk(message, prefix, field_visited, unsupported);
}
