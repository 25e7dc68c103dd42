/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold for every message that a reader accepted. */
#pragma once

#include "base/obj.h"
#include "proto/any.h"
#include "proto/pb_json.h"
#include "proto/pb_validate.h"
#include "proto/supported.h"

static inline void fuzz_visit(void *arg, struct kb_str path, const ProtobufCMessageDescriptor *type,
                              const ProtobufCFieldDescriptor *field)
{
    (void)type;
    (void)field;
    KB_ASSERT(path.len > 0);
    (*(size_t *)arg)++;
}

/* It packs, unpacks, writes, and what was written in one form reads back to the same. */
static inline void fuzz_message(const ProtobufCMessage *message, struct kb_arena *arena,
                                struct kb_diag *diag)
{
    struct kb_str bytes = kb_pb_pack(message, arena);
    ProtobufCMessage *again = kb_pb_copy(message, arena);
    struct kb_str bytes_again = kb_pb_pack(again, arena);
    struct kb_json_out out;
    size_t visited = 0;

    KB_ASSERT(kb_str_eq(bytes, bytes_again));
    (void)!kb_pb_validate(message, diag);
    kb_supported_walk(message, KB_STR("root"), fuzz_visit, &visited);
    kb_json_out_init(&out, (size_t)8 << 20);
    kb_pb_json_write(&out, message, KB_PB_JSON_PRETTY | KB_PB_JSON_REDACT, 1);
    out.len = 0;
    kb_pb_json_write(&out, message, KB_PB_JSON_DEFAULTS, 0);
    kb_json_out_dispose(&out);
}
