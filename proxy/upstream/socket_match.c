/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing by labels. They are kept packed and read when a host is made or its metadata changes,
 * which is seldom. */
#include "proxy/upstream/socket_match.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proto/pb.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/upstream/metadata_criteria.h"

#define METADATA_NAME "envoy.transport_socket_match"

static void match_read(struct kb_socket_match *match,
                       const Envoy__Config__Cluster__V3__Cluster__TransportSocketMatch *message,
                       struct kb_str stat_prefix, const struct kb_factory_context *factory,
                       struct kb_diag *diag)
{
    struct kb_factory_context own = *factory;
    struct kb_str labels =
        message->match == NULL ? KB_STR("") : kb_pb_pack(&message->match->base, factory->arena);
    char *copy = kb_malloc(KB_MAX(labels.len, 1));

    memcpy(copy, labels.p, labels.len);
    match->labels = kb_str_make(copy, labels.len);
    own.stat_prefix = kb_str_dup(factory->arena, stat_prefix).p;
    if (message->transport_socket == NULL) {
        kb_diag_error(diag, "field: \"transport_socket\", reason: is required");
    } else if (kb_transport_socket_factory_init(&match->socket, message->transport_socket, true,
                                                &own, diag) != 0) {
        match->socket.ops = NULL; /* reported */
    }
    match->count = kb_stat_named_create(factory->server->stats,
                                        kb_str_printf(factory->arena, "%.*s%s.total_match_count",
                                                      KB_STR_ARG(stat_prefix), message->name),
                                        KB_STAT_COUNTER);
}

void kb_socket_matches_read(const Envoy__Config__Cluster__V3__Cluster *message,
                            struct kb_cluster *cluster, struct kb_str stat_prefix,
                            const struct kb_factory_context *factory, struct kb_diag *diag)
{
    size_t count = KB_MIN(message->n_transport_socket_matches, UINT16_MAX - 1);

    if (message->transport_socket_matcher != NULL) {
        kb_diag_push(diag, "transport_socket_matcher");
        kb_diag_error(diag, "choosing a transport socket by a matcher is not implemented yet; "
                            "accepting it could send in plain text what should be encrypted");
        kb_diag_pop(diag);
    }
    if (count == 0) {
        return;
    }
    cluster->socket_matches = kb_calloc(count, sizeof(cluster->socket_matches[0]));
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(diag, "transport_socket_matches", i);
        match_read(&cluster->socket_matches[cluster->socket_match_count++],
                   message->transport_socket_matches[i], stat_prefix, factory, diag);
        kb_diag_pop(diag);
    }
}

void kb_socket_matches_dispose(struct kb_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->socket_match_count; i++) {
        struct kb_socket_match *match = &cluster->socket_matches[i];

        kb_transport_socket_factory_dispose(&match->socket);
        kb_stat_named_destroy(match->count);
        free((void *)(uintptr_t)match->labels.p);
    }
    free(cluster->socket_matches);
}

static const Google__Protobuf__Struct *struct_unpack(struct kb_str packed, struct kb_arena *arena)
{
    ProtobufCMessage *message;

    return kb_pb_unpack(&google__protobuf__struct__descriptor, packed, arena, &message) == 0
               ? (const Google__Protobuf__Struct *)(const void *)message
               : NULL;
}

static bool labels_match(const Google__Protobuf__Struct *labels,
                         const Google__Protobuf__Struct *present, struct kb_arena *arena)
{
    for (size_t i = 0; i < labels->n_fields; i++) {
        const Google__Protobuf__Value *wanted = labels->fields[i]->value;
        const Google__Protobuf__Value *found =
            present == NULL ? NULL
                            : kb_struct_get(present, kb_str_from_cstr(labels->fields[i]->key));

        if (found == NULL || wanted == NULL ||
            !kb_str_eq(kb_pb_pack(&found->base, arena), kb_pb_pack(&wanted->base, arena))) {
            return false;
        }
    }
    return true;
}

uint16_t kb_socket_match_find_for(const struct kb_cluster *cluster,
                                  const Google__Protobuf__Struct *present, struct kb_arena *arena)
{
    uint32_t found = 0;

    for (uint32_t i = 0; found == 0 && i < cluster->socket_match_count; i++) {
        const Google__Protobuf__Struct *labels =
            struct_unpack(cluster->socket_matches[i].labels, arena);

        found = labels != NULL && labels_match(labels, present, arena) ? i + 1 : 0;
    }
    return (uint16_t)found;
}

uint16_t kb_socket_match_find(const struct kb_cluster *cluster, struct kb_str metadata)
{
    struct kb_arena arena;
    uint16_t found;

    if (cluster->socket_match_count == 0) {
        return 0;
    }
    kb_arena_init(&arena, NULL);
    found = kb_socket_match_find_for(
        cluster, kb_packed_metadata_get(metadata, KB_STR(METADATA_NAME), &arena), &arena);
    kb_arena_dispose(&arena);
    return found;
}
