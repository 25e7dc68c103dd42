/* SPDX-License-Identifier: Apache-2.0 */
/* Incremental xDS: what is asked for, what is held, and their difference to what was said. */
#include "xds/xds_delta.h"

#include <stdlib.h>

#include "base/log.h"
#include "proto/wkt.h"

#define INITIAL_VERSION \
    Envoy__Service__Discovery__V3__DeltaDiscoveryRequest__InitialResourceVersionsEntry

#define INITIAL_VERSION_INIT \
    envoy__service__discovery__v3__delta_discovery_request__initial_resource_versions_entry__init

void kb_xds_delta_init(struct kb_xds_delta *delta, enum kb_xds_type type)
{
    memset(delta, 0, sizeof(*delta));
    KB_OBJ_SET(delta, kb_xds_delta);
    kb_xds_watches_init(&delta->watches, type);
}

void kb_xds_delta_dispose(struct kb_xds_delta *delta)
{
    kb_xds_watches_dispose(&delta->watches);
    KB_OBJ_CLEAR(delta);
}

void kb_xds_delta_stream_opened(struct kb_xds_delta *delta)
{
    kb_xds_watches_changes_clear(&delta->watches);
    delta->watches.track_changes = false;
}

bool kb_xds_delta_pending(const struct kb_xds_delta *delta)
{
    return delta->watches.track_changes ? !kb_list_empty(&delta->watches.changes)
                                        : !kb_list_empty(&delta->watches.watches);
}

static int text_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All that is wanted, and the versions of what is held. */
static void first_fill(struct kb_xds_delta *delta,
                       Envoy__Service__Discovery__V3__DeltaDiscoveryRequest *request,
                       struct kb_arena *arena)
{
    uint32_t count = delta->watches.names.len;

    request->resource_names_subscribe =
        kb_arena_alloc(arena, count * sizeof(char *), _Alignof(char *));
    request->initial_resource_versions =
        kb_arena_alloc(arena, count * sizeof(INITIAL_VERSION *), _Alignof(void *));
    KB_MAP_FOREACH (map_entry, &delta->watches.names) {
        const struct kb_xds_name *name = map_entry->value;

        if (name->requested) {
            request->resource_names_subscribe[request->n_resource_names_subscribe++] =
                kb_xds_text(arena, name->name);
        }
        if (name->version != NULL) {
            INITIAL_VERSION *entry = KB_ARENA_NEW(arena, INITIAL_VERSION);

            INITIAL_VERSION_INIT(entry);
            entry->key = kb_xds_text(arena, name->name);
            entry->value = name->version;
            request->initial_resource_versions[request->n_initial_resource_versions++] = entry;
        }
    }
    delta->watches.track_changes = true;
}

static void changes_fill(struct kb_xds_delta *delta,
                         Envoy__Service__Discovery__V3__DeltaDiscoveryRequest *request,
                         struct kb_arena *arena)
{
    uint32_t count = delta->watches.names.len;

    if (kb_list_empty(&delta->watches.changes)) {
        return;
    }
    request->resource_names_subscribe =
        kb_arena_alloc(arena, count * sizeof(char *), _Alignof(char *));
    request->resource_names_unsubscribe =
        kb_arena_alloc(arena, count * sizeof(char *), _Alignof(char *));
    KB_LIST_FOREACH (link, &delta->watches.changes) {
        const struct kb_xds_name *name = KB_LIST_ENTRY(link, struct kb_xds_name, change);

        if (name->requested) {
            request->resource_names_subscribe[request->n_resource_names_subscribe++] =
                kb_xds_text(arena, name->name);
        } else {
            request->resource_names_unsubscribe[request->n_resource_names_unsubscribe++] =
                kb_xds_text(arena, name->name);
        }
    }
    kb_xds_watches_changes_clear(&delta->watches);
}

struct kb_str kb_xds_delta_request(struct kb_xds_delta *delta, Envoy__Config__Core__V3__Node *node,
                                   const struct kb_xds_ack *ack, struct kb_arena *arena)
{
    Envoy__Service__Discovery__V3__DeltaDiscoveryRequest request;

    envoy__service__discovery__v3__delta_discovery_request__init(&request);
    request.type_url = (char *)(uintptr_t)kb_xds_types[delta->watches.type].url;
    request.node = node;
    if (delta->watches.track_changes) {
        changes_fill(delta, &request, arena);
    } else {
        first_fill(delta, &request, arena);
    }
    if (request.n_resource_names_subscribe > 1) {
        qsort(request.resource_names_subscribe, request.n_resource_names_subscribe, sizeof(char *),
              text_compare);
    }
    if (request.n_resource_names_unsubscribe > 1) {
        qsort(request.resource_names_unsubscribe, request.n_resource_names_unsubscribe,
              sizeof(char *), text_compare);
    }
    if (ack != NULL) {
        request.response_nonce = (char *)(uintptr_t)ack->nonce;
        if (ack->error != NULL) {
            request.error_detail = kb_xds_error_detail(kb_str_from_cstr(ack->error), arena);
        }
    }
    return kb_pb_pack(&request.base, arena);
}

static bool is_heartbeat(const struct kb_xds_delta *delta,
                         const Envoy__Service__Discovery__V3__Resource *resource)
{
    const struct kb_xds_name *name;

    if (resource->resource != NULL) {
        return false;
    }
    name = kb_xds_watches_find(&delta->watches, kb_str_from_cstr(resource->name));
    return name != NULL && name->version != NULL && strcmp(name->version, resource->version) == 0;
}

/* What is there of one response, before anybody hears of it. */
struct parts {
    struct kb_xds_resource *resources; /* those with a body */
    size_t count;
    struct kb_str *removed;
    size_t removed_count;
    struct kb_map seen;
};

static void resource_decode(const struct kb_xds_delta *delta,
                            const Envoy__Service__Discovery__V3__Resource *resource,
                            struct parts *parts, struct kb_arena *arena, struct kb_diag *diag)
{
    const char *url = kb_xds_types[delta->watches.type].url;
    struct kb_str key = kb_str_from_cstr(resource->name);
    struct kb_xds_resource *out = &parts->resources[parts->count];
    const struct kb_xds_name *name;

    if (kb_map_put(&parts->seen, key, parts) != NULL) {
        kb_diag_error(diag, "duplicate name %s found among added/updated resources",
                      resource->name);
        return;
    }
    if (is_heartbeat(delta, resource) || (resource->resource == NULL && resource->n_aliases > 0)) {
        return;
    }
    if (resource->resource == NULL || strcmp(resource->resource->type_url, url) != 0) {
        kb_diag_error(diag,
                      "type URL %s embedded in an individual Any does not match the message-wide "
                      "type URL %s in DeltaDiscoveryResponse",
                      resource->resource == NULL ? "" : resource->resource->type_url, url);
        return;
    }
    name = kb_xds_watches_find(&delta->watches, key);
    if (kb_list_empty(&delta->watches.wildcards) && (name == NULL || !name->requested)) {
        return; /* nobody asked */
    }
    out->message = kb_xds_decode_resource(delta->watches.type, resource->resource, arena, diag);
    if (out->message == NULL) {
        return;
    }
    out->name = key;
    out->version = kb_str_from_cstr(resource->version);
    out->ttl_ms = kb_wkt_duration_ms(resource->ttl, 0);
    parts->count++;
}

static void response_decode(const struct kb_xds_delta *delta,
                            const Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *response,
                            struct parts *parts, struct kb_arena *arena, struct kb_diag *diag)
{
    parts->resources = kb_arena_calloc(arena, response->n_resources * sizeof(*parts->resources));
    parts->removed = kb_arena_alloc(arena, response->n_removed_resources * sizeof(struct kb_str),
                                    _Alignof(struct kb_str));
    for (size_t i = 0; i < response->n_resources; i++) {
        kb_diag_push_index(diag, "resources", i);
        resource_decode(delta, response->resources[i], parts, arena, diag);
        kb_diag_pop(diag);
    }
    for (size_t i = 0; i < response->n_removed_resources; i++) {
        struct kb_str name = kb_str_from_cstr(response->removed_resources[i]);

        if (kb_map_put(&parts->seen, name, parts) != NULL) {
            kb_diag_push_index(diag, "removed_resources", i);
            kb_diag_error(diag, "duplicate name %s found in the union of added+removed resources",
                          response->removed_resources[i]);
            kb_diag_pop(diag);
        }
        parts->removed[parts->removed_count++] = name;
    }
}

/* Versions and times to live of what was accepted, heartbeats too. */
static void versions_hold(struct kb_xds_delta *delta,
                          const Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *response,
                          uint64_t now_ms)
{
    for (size_t i = 0; i < response->n_resources; i++) {
        const Envoy__Service__Discovery__V3__Resource *resource = response->resources[i];
        struct kb_xds_resource held = {kb_str_from_cstr(resource->name),
                                       kb_str_from_cstr(resource->version), NULL,
                                       kb_wkt_duration_ms(resource->ttl, 0)};

        kb_xds_watches_hold(&delta->watches, &held, now_ms);
    }
    for (size_t i = 0; i < response->n_removed_resources; i++) {
        kb_xds_watches_forget(&delta->watches, kb_str_from_cstr(response->removed_resources[i]));
    }
}

/* What the response has of each name. */
static struct kb_xds_part *
response_parts(const Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *response,
               struct kb_arena *arena, size_t *count)
{
    struct kb_xds_part *parts = kb_arena_calloc(
        arena, (response->n_resources + response->n_removed_resources + 1) * sizeof(*parts));

    *count = 0;
    for (size_t i = 0; i < response->n_resources; i++) {
        const Envoy__Service__Discovery__V3__Resource *resource = response->resources[i];

        if (resource->resource != NULL) {
            parts[*count].name = kb_str_from_cstr(resource->name);
            parts[(*count)++].bytes = kb_xds_any_bytes(resource->resource);
        }
    }
    for (size_t i = 0; i < response->n_removed_resources; i++) {
        parts[(*count)++].name = kb_str_from_cstr(response->removed_resources[i]);
    }
    return parts;
}

void kb_xds_delta_response(struct kb_xds_delta *delta,
                           const Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *response,
                           uint64_t now_ms, struct kb_arena *arena, struct kb_diag *diag,
                           struct kb_xds_ack *ack)
{
    size_t count;
    struct kb_xds_part *noted = response_parts(response, arena, &count);
    struct kb_xds_push *push =
        kb_xds_watches_compare(&delta->watches, delta->pushes, "delta", noted, count, false);
    struct parts parts;

    memset(&parts, 0, sizeof(parts));
    kb_map_init(&parts.seen);
    ack->nonce = kb_xds_text(arena, kb_str_from_cstr(response->nonce));
    ack->error = NULL;
    response_decode(delta, response, &parts, arena, diag);
    if (kb_diag_result(diag) == 0) {
        const struct kb_xds_update update = {parts.resources,
                                             parts.count,
                                             parts.removed,
                                             parts.removed_count,
                                             kb_str_from_cstr(response->system_version_info),
                                             false};

        kb_xds_watches_deliver(&delta->watches, &update, diag);
    }
    kb_map_dispose(&parts.seen);
    if (kb_diag_result(diag) == 0) {
        versions_hold(delta, response, now_ms);
        if (push != NULL) {
            kb_xds_watches_accept(&delta->watches, noted, count, false);
        }
    } else {
        ack->error = kb_xds_error_text(diag, arena).p;
    }
    kb_xds_push_end(delta->pushes, push, kb_str_from_cstr(response->system_version_info),
                    ack->error != NULL ? kb_str_from_cstr(ack->error) : KB_STR_NULL);
    if (ack->error == NULL) {
        return;
    }
    KB_LOG(CONFIG, WARNING, "delta config for %s rejected: %s", response->type_url, ack->error);
    kb_xds_watches_fail(&delta->watches, KB_XDS_FAILURE_REJECTED);
}
