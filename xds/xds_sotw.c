/* SPDX-License-Identifier: Apache-2.0 */
/* State of the world: version, nonce and error of one type. */
#include "xds/xds_sotw.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/any.h"
#include "proto/wkt.h"

#define WRAPPER_URL "type.googleapis.com/envoy.service.discovery.v3.Resource"

void kb_xds_sotw_init(struct kb_xds_sotw *sotw, enum kb_xds_type type)
{
    memset(sotw, 0, sizeof(*sotw));
    KB_OBJ_SET(sotw, kb_xds_sotw);
    kb_xds_watches_init(&sotw->watches, type);
    sotw->way = "sotw";
}

void kb_xds_sotw_dispose(struct kb_xds_sotw *sotw)
{
    kb_xds_watches_dispose(&sotw->watches);
    free(sotw->version);
    free(sotw->nonce);
    free(sotw->error);
    KB_OBJ_CLEAR(sotw);
}

void kb_xds_sotw_stream_opened(struct kb_xds_sotw *sotw)
{
    free(sotw->nonce);
    sotw->nonce = NULL;
}

static void names_fill(struct kb_xds_watches *watches,
                       Envoy__Service__Discovery__V3__DiscoveryRequest *request,
                       struct kb_arena *arena)
{
    watches->mark++;
    request->resource_names =
        kb_arena_alloc(arena, watches->names.len * sizeof(char *), _Alignof(char *));
    KB_LIST_FOREACH (link, &watches->watches) {
        struct kb_xds_name *name = KB_LIST_ENTRY(link, struct kb_xds_watch, link)->name;

        if (name != NULL && name->mark != watches->mark) {
            name->mark = watches->mark;
            request->resource_names[request->n_resource_names++] = kb_xds_text(arena, name->name);
        }
    }
}

struct kb_str kb_xds_sotw_request(struct kb_xds_sotw *sotw, Envoy__Config__Core__V3__Node *node,
                                  struct kb_arena *arena)
{
    Envoy__Service__Discovery__V3__DiscoveryRequest request;

    envoy__service__discovery__v3__discovery_request__init(&request);
    request.type_url = (char *)(uintptr_t)kb_xds_types[sotw->watches.type].url;
    request.node = node;
    if (sotw->version != NULL) {
        request.version_info = sotw->version;
    }
    if (sotw->nonce != NULL) {
        request.response_nonce = sotw->nonce;
    }
    names_fill(&sotw->watches, &request, arena);
    if (sotw->error != NULL) {
        request.error_detail = kb_xds_error_detail(kb_str_from_cstr(sotw->error), arena);
        free(sotw->error);
        sotw->error = NULL;
    }
    return kb_pb_pack(&request.base, arena);
}

/* A resource in envoy.service.discovery.v3.Resource, which can have a time to live. False after an
 * error in diag. */
static bool wrapped_decode(const struct kb_xds_sotw *sotw, const Google__Protobuf__Any *any,
                           struct kb_str version, struct kb_xds_resource *out,
                           struct kb_arena *arena, struct kb_diag *diag)
{
    const Envoy__Service__Discovery__V3__Resource *wrapper =
        KB_ANY_UNPACK(any, envoy__service__discovery__v3__resource,
                      Envoy__Service__Discovery__V3__Resource, arena, diag);

    if (wrapper == NULL) {
        return false;
    }
    out->name = kb_str_from_cstr(wrapper->name);
    out->version = version;
    out->ttl_ms = kb_wkt_duration_ms(wrapper->ttl, 0);
    if (wrapper->resource == NULL) {
        if (sotw->version != NULL && kb_str_eq(version, kb_str_from_cstr(sotw->version))) {
            return true; /* a heartbeat: no message */
        }
        kb_diag_error(diag, "resource '%s' has no body and is not a heartbeat", wrapper->name);
        return false;
    }
    out->message = kb_xds_decode_resource(sotw->watches.type, wrapper->resource, arena, diag);
    return out->message != NULL;
}

static bool resource_decode(const struct kb_xds_sotw *sotw, const Google__Protobuf__Any *any,
                            struct kb_str version, struct kb_xds_resource *out,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    const char *url = kb_xds_types[sotw->watches.type].url;

    memset(out, 0, sizeof(*out));
    if (strcmp(any->type_url, WRAPPER_URL) == 0) {
        return wrapped_decode(sotw, any, version, out, arena, diag);
    }
    if (strcmp(any->type_url, url) != 0) {
        kb_diag_error(diag, "%s does not match the message-wide type URL %s in DiscoveryResponse",
                      any->type_url, url);
        return false;
    }
    out->message = kb_xds_decode_resource(sotw->watches.type, any, arena, diag);
    if (out->message == NULL) {
        return false;
    }
    out->name = kb_xds_resource_name(sotw->watches.type, out->message);
    out->version = version;
    return true;
}

/* What is said while nobody wants the type: an empty response is accepted without a word. */
static bool response_unwatched(struct kb_xds_sotw *sotw,
                               const Envoy__Service__Discovery__V3__DiscoveryResponse *response)
{
    if (response->n_resources == 0) {
        free(sotw->version);
        sotw->version = kb_strdup(response->version_info);
        return false;
    }
    KB_LOG(CONFIG, WARNING, "Ignoring unwatched type URL %s", response->type_url);
    return true;
}

static void update_deliver(struct kb_xds_sotw *sotw, const struct kb_xds_resource *resources,
                           size_t count, struct kb_str version, uint64_t now_ms,
                           struct kb_diag *diag)
{
    const struct kb_xds_update update = {resources, count, NULL, 0, version, true};
    size_t heartbeats = 0;

    for (size_t i = 0; i < count; i++) {
        struct kb_xds_name *name = kb_xds_watches_find(&sotw->watches, resources[i].name);

        if (resources[i].ttl_ms > 0 || (name != NULL && name->expires_ms != 0)) {
            kb_xds_watches_hold(&sotw->watches, &resources[i], now_ms);
        }
        heartbeats += resources[i].message == NULL ? 1 : 0;
    }
    if (count == 0 || heartbeats < count) {
        kb_xds_watches_deliver(&sotw->watches, &update, diag);
    }
}

/* What the response has of each name, as far as it could be read. */
static struct kb_xds_part *
response_parts(const Envoy__Service__Discovery__V3__DiscoveryResponse *response,
               const struct kb_xds_resource *resources, struct kb_arena *arena)
{
    struct kb_xds_part *parts =
        kb_arena_calloc(arena, (response->n_resources + 1) * sizeof(*parts));

    for (size_t i = 0; i < response->n_resources; i++) {
        parts[i].name = resources[i].name;
        parts[i].bytes = kb_xds_any_bytes(response->resources[i]);
    }
    return parts;
}

bool kb_xds_sotw_response(struct kb_xds_sotw *sotw,
                          const Envoy__Service__Discovery__V3__DiscoveryResponse *response,
                          uint64_t now_ms, struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str version = kb_str_from_cstr(response->version_info);
    struct kb_str refused = KB_STR_NULL;
    struct kb_xds_resource *resources;
    struct kb_xds_part *parts;
    struct kb_xds_push *push;
    bool decoded = true;
    bool all;

    free(sotw->nonce);
    sotw->nonce = kb_strdup(response->nonce);
    if (kb_list_empty(&sotw->watches.watches)) {
        return response_unwatched(sotw, response);
    }
    resources = kb_arena_alloc(arena, response->n_resources * sizeof(*resources),
                               _Alignof(struct kb_xds_resource));
    for (size_t i = 0; i < response->n_resources; i++) {
        kb_diag_push_index(diag, "resources", i);
        decoded &=
            resource_decode(sotw, response->resources[i], version, &resources[i], arena, diag);
        kb_diag_pop(diag);
    }
    all = !kb_list_empty(&sotw->watches.wildcards);
    parts = response_parts(response, resources, arena);
    push = kb_xds_watches_compare(&sotw->watches, sotw->pushes, sotw->way, parts,
                                  response->n_resources, all && decoded);
    if (decoded) {
        update_deliver(sotw, resources, response->n_resources, version, now_ms, diag);
    }
    free(sotw->error);
    sotw->error = NULL;
    if (kb_diag_result(diag) != 0) {
        refused = kb_xds_error_text(diag, arena);
        if (!sotw->owner_tells) {
            KB_LOG(CONFIG, WARNING, "gRPC config for %s rejected: %.*s", response->type_url,
                   KB_STR_ARG(refused));
        }
        sotw->error = kb_str_to_cstr(refused);
        kb_xds_watches_fail(&sotw->watches, KB_XDS_FAILURE_REJECTED);
    } else if (decoded) {
        free(sotw->version);
        sotw->version = kb_strdup(response->version_info);
        if (push != NULL) {
            kb_xds_watches_accept(&sotw->watches, parts, response->n_resources, all);
        }
    }
    kb_xds_push_end(sotw->pushes, push, version, refused);
    return true;
}
