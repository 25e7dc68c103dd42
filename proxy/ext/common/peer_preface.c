/* SPDX-License-Identifier: Apache-2.0 */
/* The preface of metadata exchange: written once per configuration, read from a peer's bytes. */
#include "proxy/ext/common/peer_preface.h"

#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/any.h"
#include "proto/pb.h"
#include "proxy/api/dynamic_metadata.h"

#define MAGIC       UINT32_C(0x3D230467)
#define METADATA    "x-envoy-peer-metadata"
#define METADATA_ID "x-envoy-peer-metadata-id"

static void u32_put(char *at, uint32_t value)
{
    at[0] = (char)(value >> 24);
    at[1] = (char)(value >> 16);
    at[2] = (char)(value >> 8);
    at[3] = (char)value;
}

static uint32_t u32_get(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

struct kb_str kb_peer_preface_write(const struct kb_server_context *server,
                                    const struct kb_workload_labels *labels, struct kb_arena *arena)
{
    struct kb_workload *self = kb_workload_from_struct(server->node_metadata, labels);
    Google__Protobuf__Struct told = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entries[2] = {
        GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT, GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT};
    Google__Protobuf__Struct__FieldsEntry *fields[2] = {&entries[0], &entries[1]};
    Google__Protobuf__Value values[2] = {GOOGLE__PROTOBUF__VALUE__INIT,
                                         GOOGLE__PROTOBUF__VALUE__INIT};
    Google__Protobuf__Any any;
    struct kb_str packed;
    char *out;

    values[0].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    values[0].struct_value = kb_workload_to_struct(self, arena);
    values[1].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    values[1].string_value = (char *)(uintptr_t)kb_str_dup(arena, server->node_id).p;
    entries[0].key = (char *)(uintptr_t)METADATA;
    entries[0].value = &values[0];
    entries[1].key = (char *)(uintptr_t)METADATA_ID;
    entries[1].value = &values[1];
    told.fields = fields;
    told.n_fields = server->node_id.len > 0 ? 2 : 1;
    kb_any_pack(&told.base, arena, &any);
    packed = kb_pb_pack(&any.base, arena);
    kb_workload_unref(self);
    out = kb_arena_alloc(arena, KB_PEER_PREFACE_HEAD + packed.len, 1);
    u32_put(out, MAGIC);
    u32_put(out + 4, (uint32_t)packed.len);
    memcpy(out + KB_PEER_PREFACE_HEAD, packed.p, packed.len);
    return kb_str_make(out, KB_PEER_PREFACE_HEAD + packed.len);
}

bool kb_peer_preface_head(const unsigned char head[KB_PEER_PREFACE_HEAD], uint32_t *len)
{
    *len = u32_get(head + 4);
    return u32_get(head) == MAGIC;
}

static struct kb_workload *peer_of(const Google__Protobuf__Any *any,
                                   const struct kb_workload_labels *labels, struct kb_arena *arena)
{
    const Google__Protobuf__Struct *told = (const void *)kb_any_peek(any, arena);
    const Google__Protobuf__Value *value;

    if (told == NULL || told->base.descriptor != &google__protobuf__struct__descriptor) {
        return NULL;
    }
    value = kb_struct_get(told, KB_STR(METADATA));
    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE
               ? kb_workload_from_struct(value->struct_value, labels)
               : NULL;
}

int kb_peer_preface_read(struct kb_str bytes, const struct kb_workload_labels *labels,
                         struct kb_workload **peer)
{
    ProtobufCMessage *message;
    struct kb_arena arena;
    int rc;

    *peer = NULL;
    kb_arena_init(&arena, NULL);
    rc = kb_pb_unpack(&google__protobuf__any__descriptor, bytes, &arena, &message);
    if (rc == 0) {
        *peer = peer_of((const Google__Protobuf__Any *)(void *)message, labels, &arena);
    }
    kb_arena_dispose(&arena);
    return rc == 0 ? 0 : KB_EINVALID;
}
