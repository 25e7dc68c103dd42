/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics that are made with their labels, by workers, when a request first needs them. Those
 * that were made wait behind a lock for the main thread, which takes them into the order of names
 * before it shows or merges anything. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/stats/stat_internal.h"

/* NAME.tag.value.tag.value; an empty value is left out together with its dot, as in Envoy. */
static size_t name_len(struct kb_str name, const struct kb_tag *tags, size_t count)
{
    size_t len = name.len;

    for (size_t i = 0; i < count; i++) {
        len += 1 + tags[i].name.len + (tags[i].value.len > 0 ? 1 + tags[i].value.len : 0);
    }
    return len;
}

static char *text_put(char *at, struct kb_str text)
{
    memcpy(at, text.p, text.len);
    return at + text.len;
}

/* Writes the full name to `out` and, unless NULL, where its parts are. */
static void name_put(char *out, struct kb_str name, const struct kb_tag *tags, size_t count,
                     struct kb_stat_tag_span *spans)
{
    char *at = text_put(out, name);

    for (size_t i = 0; i < count; i++) {
        *at++ = '.';
        if (spans != NULL) {
            spans[i].name_at = (uint16_t)(at - out);
            spans[i].name_len = (uint16_t)tags[i].name.len;
        }
        at = text_put(at, tags[i].name);
        if (tags[i].value.len > 0) {
            *at++ = '.';
        }
        if (spans != NULL) {
            spans[i].value_at = (uint16_t)(at - out);
            spans[i].value_len = (uint16_t)tags[i].value.len;
        }
        if (tags[i].value.len > 0) {
            at = text_put(at, tags[i].value);
        }
    }
}

/* The one of this name, or a new one; with the lock held. */
static struct kb_stat_named *tagged_find(struct kb_stat_store *store, struct kb_str name,
                                         const struct kb_tag *tags, size_t count, size_t len,
                                         enum kb_stat_kind kind)
{
    struct kb_stat_named *named = kb_stat_named_new(store, len, kind);
    struct kb_stat_named *known;

    named->tags = count > 0 ? kb_malloc(count * sizeof(*named->tags)) : NULL;
    named->tag_count = (uint16_t)count;
    named->own_len = (uint16_t)name.len;
    name_put(named->name, name, tags, count, named->tags);
    known = kb_map_get(&store->tagged, kb_str_make(named->name, len));
    if (known != NULL) {
        kb_stat_named_free(named);
        return known;
    }
    if (store->tagged.len >= KB_STAT_TAGGED_MAX) {
        kb_stat_named_free(named);
        return NULL;
    }
    kb_map_put(&store->tagged, kb_str_make(named->name, len), named);
    kb_list_push_back(&store->tagged_new, &named->scope.link);
    return named;
}

struct kb_stat_named *kb_stat_tagged_get(struct kb_stat_store *store, struct kb_str name,
                                         const struct kb_tag *tags, size_t count,
                                         enum kb_stat_kind kind)
{
    size_t len = name_len(name, tags, count);
    struct kb_stat_named *named = NULL;

    if (len <= UINT16_MAX) {
        pthread_mutex_lock(&store->tagged_lock);
        named = tagged_find(store, name, tags, count, len, kind);
        pthread_mutex_unlock(&store->tagged_lock);
    }
    if (named == NULL && !__atomic_exchange_n(&store->tagged_refused, true, __ATOMIC_RELAXED)) {
        KB_LOG(MISC, WARNING,
               "there are %d sets of labels of '%.*s' and the like already: further ones are not "
               "counted; peers with ever new names or hosts make them",
               KB_STAT_TAGGED_MAX, KB_STR_ARG(name));
    }
    return named;
}

void kb_stat_store_take_tagged(struct kb_stat_store *store)
{
    struct kb_list *link;

    pthread_mutex_lock(&store->tagged_lock);
    while ((link = kb_list_pop_front(&store->tagged_new)) != NULL) {
        kb_stat_scope_add(store, KB_LIST_ENTRY(link, struct kb_stat_scope, link));
    }
    pthread_mutex_unlock(&store->tagged_lock);
}

bool kb_stat_scope_tags(const struct kb_stat_scope *scope, struct kb_tag_result *result)
{
    const struct kb_stat_named *named;

    if (scope->type != KB_STAT_SCOPE_NAMED) {
        return false;
    }
    named = KB_CONTAINER_OF(scope, struct kb_stat_named, scope);
    if (named->tags == NULL) {
        return false;
    }
    result->tag_count = KB_MIN(named->tag_count, KB_TAGS_MAX);
    for (size_t i = 0; i < result->tag_count; i++) {
        const struct kb_stat_tag_span *span = &named->tags[i];

        result->tags[i] =
            (struct kb_tag){kb_str_make(named->name + span->name_at, span->name_len),
                            kb_str_make(named->name + span->value_at, span->value_len)};
    }
    if (result->name_room < named->own_len) {
        result->name_room = named->own_len + 64U;
        result->name = kb_realloc(result->name, result->name_room);
    }
    memcpy(result->name, named->name, named->own_len);
    result->name_len = named->own_len;
    return true;
}
