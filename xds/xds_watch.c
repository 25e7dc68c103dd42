/* SPDX-License-Identifier: Apache-2.0 */
/* Watches by name. A delivery first notes whom it will call, and holds them: a callback may add and
 * destroy any watch. */
#include "xds/xds_watch.h"

#include <stddef.h>
#include <stdlib.h>

#include "base/mem.h"

/* What istiod sends as the version of each resource; not allocated. */
static char no_version[] = "";

/* Names share it: a server often gives many resources one version. */
struct version {
    uint32_t refs;
    char text[];
};

static struct version *version_of(char *text)
{
    return (struct version *)(void *)(text - offsetof(struct version, text));
}

static char *version_create(struct kb_str text)
{
    struct version *version = kb_calloc(1, sizeof(*version) + text.len + 1);

    version->refs = 1;
    memcpy(version->text, text.p, text.len);
    return version->text;
}

static char *version_ref(char *version)
{
    version_of(version)->refs++;
    return version;
}

static void version_unref(char *version)
{
    if (version != NULL && version != no_version && --version_of(version)->refs == 0) {
        free(version_of(version));
    }
}

static void version_set(struct kb_xds_watches *watches, struct kb_xds_name *name,
                        struct kb_str version)
{
    if (name->version != NULL && kb_str_eq(kb_str_from_cstr(name->version), version)) {
        return;
    }
    version_unref(name->version);
    if (version.len == 0) {
        name->version = no_version;
        return;
    }
    if (watches->version == NULL || !kb_str_eq(kb_str_from_cstr(watches->version), version)) {
        version_unref(watches->version);
        watches->version = version_create(version);
    }
    name->version = version_ref(watches->version);
}

static void version_clear(struct kb_xds_name *name)
{
    version_unref(name->version);
    name->version = NULL;
    name->expires_ms = 0;
    name->content = 0;
}

void kb_xds_watches_init(struct kb_xds_watches *watches, enum kb_xds_type type)
{
    memset(watches, 0, sizeof(*watches));
    KB_OBJ_SET(watches, kb_xds_watches);
    watches->type = type;
    kb_map_init(&watches->names);
    kb_list_init(&watches->watches);
    kb_list_init(&watches->wildcards);
    kb_list_init(&watches->changes);
    watches->expires_ms = UINT64_MAX;
}

static void name_free(struct kb_xds_watches *watches, struct kb_xds_name *name)
{
    version_clear(name);
    kb_list_unlink(&name->change);
    kb_map_remove(&watches->names, name->name);
    free(name);
}

/* Frees the entry when there is nothing in it. */
static void name_drop_if_idle(struct kb_xds_watches *watches, struct kb_xds_name *name)
{
    if (!name->requested && name->version == NULL && name->expires_ms == 0 && name->content == 0 &&
        !kb_list_linked(&name->change)) {
        name_free(watches, name);
    }
}

void kb_xds_watches_dispose(struct kb_xds_watches *watches)
{
    KB_ASSERT(kb_list_empty(&watches->watches));
    KB_MAP_FOREACH (entry, &watches->names) {
        struct kb_xds_name *name = entry->value;

        version_clear(name);
        free(name);
    }
    kb_map_dispose(&watches->names);
    version_unref(watches->version);
    KB_OBJ_CLEAR(watches);
}

struct kb_xds_name *kb_xds_watches_find(const struct kb_xds_watches *watches, struct kb_str name)
{
    return kb_map_get(&watches->names, name);
}

static struct kb_xds_name *name_of(struct kb_xds_watches *watches, struct kb_str text)
{
    struct kb_xds_name *name = kb_xds_watches_find(watches, text);
    char *copy;

    if (name != NULL) {
        return name;
    }
    name = kb_calloc(1, sizeof(*name) + text.len + 1);
    copy = (char *)(name + 1);
    memcpy(copy, text.p, text.len);
    name->name = kb_str_make(copy, text.len);
    kb_list_init(&name->watches);
    kb_map_put(&watches->names, name->name, name);
    return name;
}

static void change_note(struct kb_xds_watches *watches, struct kb_xds_name *name)
{
    if (watches->track_changes && !kb_list_linked(&name->change)) {
        kb_list_push_back(&watches->changes, &name->change);
    }
}

struct kb_xds_watch *kb_xds_watches_add(struct kb_xds_watches *watches, struct kb_str name,
                                        const struct kb_xds_watch_callbacks *callbacks, void *arg)
{
    struct kb_xds_watch *watch = kb_calloc(1, sizeof(*watch));

    KB_OBJ_SET(watch, kb_xds_watch);
    watch->watches = watches;
    watch->callbacks = callbacks;
    watch->arg = arg;
    kb_list_push_front(&watches->watches, &watch->link);
    if (name.len == 0) {
        kb_list_push_front(&watches->wildcards, &watch->name_link);
        return watch;
    }
    watch->name = name_of(watches, name);
    kb_list_push_front(&watch->name->watches, &watch->name_link);
    if (!watch->name->requested) {
        watch->name->requested = true;
        change_note(watches, watch->name);
    }
    return watch;
}

void kb_xds_watches_remove(struct kb_xds_watch *watch)
{
    struct kb_xds_watches *watches = watch->watches;
    struct kb_xds_name *name = watch->name;

    kb_list_unlink(&watch->link);
    kb_list_unlink(&watch->name_link);
    watch->watches = NULL;
    if (name != NULL && kb_list_empty(&name->watches)) {
        name->requested = false;
        version_clear(name);
        change_note(watches, name);
        name_drop_if_idle(watches, name);
    }
    if (watch->holds == 0) {
        KB_OBJ_CLEAR(watch);
        free(watch);
    }
}

void kb_xds_watches_hold(struct kb_xds_watches *watches, const struct kb_xds_resource *resource,
                         uint64_t now_ms)
{
    struct kb_xds_name *name = kb_xds_watches_find(watches, resource->name);

    if (name == NULL || !name->requested) {
        if (kb_list_empty(&watches->wildcards)) {
            return;
        }
        name = name_of(watches, resource->name);
    }
    version_set(watches, name, resource->version);
    name->expires_ms = 0;
    if (resource->ttl_ms > 0) {
        name->expires_ms = now_ms + KB_MIN(resource->ttl_ms, UINT64_MAX - 1 - now_ms);
        watches->expires_ms = KB_MIN(watches->expires_ms, name->expires_ms);
    }
}

void kb_xds_watches_forget(struct kb_xds_watches *watches, struct kb_str text)
{
    struct kb_xds_name *name = kb_xds_watches_find(watches, text);

    if (name != NULL) {
        version_clear(name);
        name_drop_if_idle(watches, name);
    }
}

void kb_xds_watches_changes_clear(struct kb_xds_watches *watches)
{
    struct kb_list *link;

    while ((link = kb_list_pop_front(&watches->changes)) != NULL) {
        name_drop_if_idle(watches, KB_LIST_ENTRY(link, struct kb_xds_name, change));
    }
}

/* ---- What changed, for the log of pushes ---- */

/* Whether anybody hears of that name; *name is its entry, or NULL. */
static bool is_wanted(const struct kb_xds_watches *watches, struct kb_str text,
                      struct kb_xds_name **name)
{
    *name = kb_xds_watches_find(watches, text);
    return (*name != NULL && (*name)->requested) || !kb_list_empty(&watches->wildcards);
}

static void part_note(const struct kb_xds_watches *watches, struct kb_xds_part *part,
                      struct kb_xds_push *push)
{
    struct kb_xds_name *name;
    bool known;

    if (!is_wanted(watches, part->name, &name)) {
        return;
    }
    known = name != NULL && name->content != 0;
    if (name != NULL) {
        name->mark = watches->mark;
    }
    if (part->bytes.p == NULL) {
        kb_xds_push_note(push, KB_XDS_REMOVED, part->name);
        return;
    }
    part->content = kb_map_hash(part->bytes) | 1;
    kb_xds_push_note(push,
                     !known                           ? KB_XDS_ADDED
                     : name->content == part->content ? KB_XDS_UNCHANGED
                                                      : KB_XDS_CHANGED,
                     part->name);
}

struct kb_xds_push *kb_xds_watches_compare(struct kb_xds_watches *watches,
                                           const struct kb_xds_push_log *log, const char *way,
                                           struct kb_xds_part *parts, size_t count, bool all)
{
    struct kb_xds_push *push = kb_xds_push_begin(log, watches->type, way);

    if (push == NULL) {
        return NULL;
    }
    watches->mark++;
    for (size_t i = 0; i < count; i++) {
        part_note(watches, &parts[i], push);
    }
    if (all) {
        KB_MAP_FOREACH (entry, &watches->names) {
            const struct kb_xds_name *name = entry->value;

            if (name->content != 0 && name->mark != watches->mark) {
                kb_xds_push_note(push, KB_XDS_REMOVED, name->name);
            }
        }
    }
    return push;
}

/* Forgets the content of names that were not marked. */
static void unmarked_clear(struct kb_xds_watches *watches)
{
    struct kb_xds_name **gone = kb_calloc(watches->names.len + 1, sizeof(*gone));
    size_t count = 0;

    KB_MAP_FOREACH (entry, &watches->names) {
        struct kb_xds_name *name = entry->value;

        if (name->content != 0 && name->mark != watches->mark) {
            gone[count++] = name;
        }
    }
    for (size_t i = 0; i < count; i++) {
        gone[i]->content = 0;
        name_drop_if_idle(watches, gone[i]);
    }
    free(gone);
}

void kb_xds_watches_accept(struct kb_xds_watches *watches, const struct kb_xds_part *parts,
                           size_t count, bool all)
{
    watches->mark++;
    for (size_t i = 0; i < count; i++) {
        struct kb_xds_name *name;

        if (!is_wanted(watches, parts[i].name, &name)) {
            continue;
        }
        if (name == NULL && parts[i].content != 0) {
            name = name_of(watches, parts[i].name);
        }
        if (name != NULL) {
            name->content = parts[i].content;
            name->mark = watches->mark;
            name_drop_if_idle(watches, name);
        }
    }
    if (all) {
        unmarked_clear(watches);
    }
}

/* ---- Deliveries ---- */

/* A call that a delivery is going to make. */
struct call {
    struct kb_xds_watch *watch;
    const struct kb_xds_resource *resources;
    const struct kb_str *removed;
    size_t resource_count;
    size_t removed_count;
};

struct calls {
    struct call *items;
    size_t len;
    size_t cap;
};

static struct call *call_add(struct calls *calls, struct kb_xds_watch *watch)
{
    struct call *call;

    if (calls->len == calls->cap) {
        calls->cap = KB_MAX(calls->cap * 2, (size_t)16);
        calls->items = kb_realloc(calls->items, calls->cap * sizeof(calls->items[0]));
    }
    call = &calls->items[calls->len++];
    memset(call, 0, sizeof(*call));
    call->watch = watch;
    watch->holds++;
    return call;
}

static void calls_collect(struct kb_xds_watches *watches, const struct kb_xds_update *update,
                          struct calls *calls)
{
    KB_LIST_FOREACH (link, &watches->wildcards) {
        struct call *call = call_add(calls, KB_LIST_ENTRY(link, struct kb_xds_watch, name_link));

        call->resources = update->resources;
        call->resource_count = update->resource_count;
        call->removed = update->removed;
        call->removed_count = update->removed_count;
    }
    for (size_t i = 0; i < update->resource_count; i++) {
        struct kb_xds_name *name = kb_xds_watches_find(watches, update->resources[i].name);

        if (name == NULL || name->mark == watches->mark || update->resources[i].message == NULL) {
            continue; /* nobody asked, the second of one name, a heartbeat */
        }
        name->mark = watches->mark;
        KB_LIST_FOREACH (link, &name->watches) {
            struct call *call =
                call_add(calls, KB_LIST_ENTRY(link, struct kb_xds_watch, name_link));

            call->resources = &update->resources[i];
            call->resource_count = 1;
        }
    }
    for (size_t i = 0; i < update->removed_count; i++) {
        struct kb_xds_name *name = kb_xds_watches_find(watches, update->removed[i]);

        if (name == NULL || name->mark == watches->mark) {
            continue;
        }
        name->mark = watches->mark;
        KB_LIST_FOREACH (link, &name->watches) {
            struct call *call =
                call_add(calls, KB_LIST_ENTRY(link, struct kb_xds_watch, name_link));

            call->removed = &update->removed[i];
            call->removed_count = 1;
        }
    }
}

static void watch_release(struct kb_xds_watch *watch)
{
    if (--watch->holds == 0 && watch->watches == NULL) {
        KB_OBJ_CLEAR(watch);
        free(watch);
    }
}

void kb_xds_watches_deliver(struct kb_xds_watches *watches, const struct kb_xds_update *update,
                            struct kb_diag *diag)
{
    struct calls calls = {NULL, 0, 0};

    watches->mark++;
    calls_collect(watches, update, &calls);
    for (size_t i = 0; i < calls.len; i++) {
        const struct call *call = &calls.items[i];
        struct kb_xds_update part = *update;

        part.resources = call->resources;
        part.resource_count = call->resource_count;
        part.removed = call->removed;
        part.removed_count = call->removed_count;
        if (call->watch->watches != NULL) {
            call->watch->callbacks->on_update(call->watch->arg, &part, diag);
        }
        watch_release(call->watch);
    }
    free(calls.items);
}

void kb_xds_watches_fail(struct kb_xds_watches *watches, enum kb_xds_failure failure)
{
    struct calls calls = {NULL, 0, 0};

    KB_LIST_FOREACH (link, &watches->watches) {
        call_add(&calls, KB_LIST_ENTRY(link, struct kb_xds_watch, link));
    }
    for (size_t i = 0; i < calls.len; i++) {
        struct kb_xds_watch *watch = calls.items[i].watch;

        if (watch->watches != NULL && watch->callbacks->on_failure != NULL) {
            watch->callbacks->on_failure(watch->arg, failure);
        }
        watch_release(watch);
    }
    free(calls.items);
}

void kb_xds_watches_expire(struct kb_xds_watches *watches, uint64_t now_ms)
{
    struct kb_xds_update update;
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_str *removed;

    if (now_ms < watches->expires_ms) {
        return;
    }
    kb_arena_init(&arena, NULL);
    removed =
        kb_arena_alloc(&arena, watches->names.len * sizeof(*removed), _Alignof(struct kb_str));
    memset(&update, 0, sizeof(update));
    update.removed = removed;
    watches->expires_ms = UINT64_MAX;
    KB_MAP_FOREACH (entry, &watches->names) {
        struct kb_xds_name *name = entry->value;

        if (name->expires_ms != 0 && name->expires_ms <= now_ms) {
            removed[update.removed_count++] = kb_str_dup(&arena, name->name);
        } else if (name->expires_ms != 0) {
            watches->expires_ms = KB_MIN(watches->expires_ms, name->expires_ms);
        }
    }
    for (size_t i = 0; i < update.removed_count; i++) {
        kb_xds_watches_forget(watches, removed[i]);
    }
    kb_diag_init(&diag);
    if (update.removed_count > 0) {
        kb_xds_watches_deliver(watches, &update, &diag);
    }
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
}
