/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding of responses. */
#include "xds/xds_decode.h"

#include "proto/any.h"

#define TRUNCATED "...(truncated)"

Envoy__Service__Discovery__V3__DiscoveryResponse *kb_xds_decode_sotw(struct kb_str bytes,
                                                                     struct kb_arena *arena)
{
    ProtobufCMessage *message = NULL;

    if (kb_pb_unpack(&envoy__service__discovery__v3__discovery_response__descriptor, bytes, arena,
                     &message) != 0) {
        return NULL;
    }
    return (Envoy__Service__Discovery__V3__DiscoveryResponse *)(void *)message;
}

Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *kb_xds_decode_delta(struct kb_str bytes,
                                                                           struct kb_arena *arena)
{
    ProtobufCMessage *message = NULL;

    if (kb_pb_unpack(&envoy__service__discovery__v3__delta_discovery_response__descriptor, bytes,
                     arena, &message) != 0) {
        return NULL;
    }
    return (Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *)(void *)message;
}

const ProtobufCMessage *kb_xds_decode_resource(enum kb_xds_type type,
                                               const Google__Protobuf__Any *any,
                                               struct kb_arena *arena, struct kb_diag *diag)
{
    return kb_any_unpack(any, kb_xds_types[type].message, arena, diag);
}

char *kb_xds_text(struct kb_arena *arena, struct kb_str text)
{
    return (char *)(uintptr_t)kb_str_dup(arena, text).p;
}

/* Adds what still has room; false: it has not. */
static bool text_add(char *out, size_t *len, struct kb_str part)
{
    size_t n = KB_MIN(part.len, KB_XDS_ERROR_TEXT_MAX - *len);

    if (n > 0) {
        memcpy(out + *len, part.p, n);
        *len += n;
    }
    return n == part.len;
}

struct kb_str kb_xds_error_text(const struct kb_diag *diag, struct kb_arena *arena)
{
    char *out = kb_arena_alloc(arena, KB_XDS_ERROR_TEXT_MAX + sizeof(TRUNCATED), 1);
    size_t len = 0;
    bool fits = true;

    for (const struct kb_diag_entry *entry = diag->first; entry != NULL && fits;
         entry = entry->next) {
        if (entry->level != KB_DIAG_ERROR) {
            continue;
        }
        fits = (len == 0 || text_add(out, &len, KB_STR("; "))) && text_add(out, &len, entry->text);
        if (fits && entry->path.len > 0) {
            fits = text_add(out, &len, KB_STR(" (")) && text_add(out, &len, entry->path) &&
                   text_add(out, &len, KB_STR(")"));
        }
    }
    if (!fits) {
        while (len > 0 && (out[len - 1] & 0xc0) == 0x80) { /* no half of a character */
            len--;
        }
        len -= len > 0 && (out[len - 1] & 0xc0) == 0xc0 ? 1 : 0;
        memcpy(out + len, TRUNCATED, sizeof(TRUNCATED) - 1);
        len += sizeof(TRUNCATED) - 1;
    }
    out[len] = '\0';
    return kb_str_make(out, len);
}

Google__Rpc__Status *kb_xds_error_detail(struct kb_str text, struct kb_arena *arena)
{
    Google__Rpc__Status *status =
        (Google__Rpc__Status *)(void *)kb_pb_new(&google__rpc__status__descriptor, arena);

    status->code = KB_XDS_INTERNAL;
    status->message = kb_xds_text(arena, text);
    return status;
}
