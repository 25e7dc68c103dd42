/* SPDX-License-Identifier: Apache-2.0 */
/* Wire format to message (protobuf.dev, "Encoding"). protobuf-c's own reader has no bound on depth
 * or memory and keeps its scratch memory in the allocator, which an arena never gives back; hence
 * this one. */
#include "proto/wire.h"

#include <string.h>

#include "proto/reflect.h"

enum {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_GROUP = 3,
    WIRE_GROUP_END = 4,
    WIRE_FIXED32 = 5
};

#define FIELDS_SEEN_MAX \
    256 /* fields of one message; the tools that make the descriptors check it */

struct reader {
    struct kb_arena *arena;
    size_t budget; /* bytes of the arena that may still be taken */
};

struct tag {
    uint32_t number;
    uint32_t wire;
    const uint8_t *raw;   /* behind the tag */
    const uint8_t *value; /* the same; behind the length for WIRE_BYTES */
    size_t len;           /* of the value */
    uint64_t varint;      /* WIRE_VARINT */
};

size_t kb_utf8_prefix(const char *p, size_t len)
{
    const uint8_t *s = (const uint8_t *)p;
    size_t i = 0;

    while (i < len) {
        uint32_t c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : 3;

        if (more == 0) {
            i++;
            continue;
        }
        if (c < 0xc2 || c > 0xf4 || len - i <= more) {
            return i;
        }
        for (size_t k = 1; k <= more; k++) {
            if ((s[i + k] & 0xc0) != 0x80) {
                return i;
            }
        }
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] >= 0xa0) ||
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] >= 0x90)) {
            return i;
        }
        i += more + 1;
    }
    return i;
}

char *kb_pb_text(struct kb_str text, struct kb_arena *arena)
{
    char *copy = kb_arena_alloc(arena, text.len + 1, 1);
    size_t at = 0;

    memcpy(copy, text.len > 0 ? text.p : "", text.len);
    copy[text.len] = '\0';
    while (at < text.len) {
        at += kb_utf8_prefix(copy + at, text.len - at);
        if (at < text.len) {
            copy[at++] = '!';
        }
    }
    for (at = 0; at < text.len; at++) { /* a C string cannot hold it */
        if (copy[at] == '\0') {
            copy[at] = '!';
        }
    }
    return copy;
}

static void *reader_alloc(struct reader *reader, size_t size)
{
    if (size > reader->budget) {
        return NULL;
    }
    reader->budget -= size;
    return kb_arena_alloc(reader->arena, size, _Alignof(max_align_t));
}

/* Text and bytes need no alignment. */
static char *reader_dup(struct reader *reader, const uint8_t *p, size_t len)
{
    char *copy;

    if (len + 1 > reader->budget) {
        return NULL;
    }
    reader->budget -= len + 1;
    copy = kb_arena_alloc(reader->arena, len + 1, 1);
    memcpy(copy, p, len);
    copy[len] = '\0';
    return copy;
}

/* Reads a varint of at most ten bytes; NULL when there is none. */
static const uint8_t *varint_read(const uint8_t *at, const uint8_t *end, uint64_t *out)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 70 && at < end; shift += 7) {
        uint8_t byte = *at++;

        value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        if (byte < 0x80) {
            *out = value;
            return at;
        }
    }
    return NULL;
}

/* Skips a group (never written by proto3, but allowed as an unknown field) to behind its end tag.
 */
static const uint8_t *group_skip(const uint8_t *at, const uint8_t *end, uint32_t number);

/* Reads one tag and finds the end of its value; NULL when malformed. */
static const uint8_t *tag_read(const uint8_t *at, const uint8_t *end, struct tag *tag)
{
    uint64_t key = 0;

    at = varint_read(at, end, &key);
    if (at == NULL || key >> 3 == 0 || key > UINT32_MAX) {
        return NULL;
    }
    tag->number = (uint32_t)(key >> 3);
    tag->wire = key & 7;
    tag->varint = 0;
    tag->raw = at;
    tag->value = at;
    switch (tag->wire) {
    case WIRE_VARINT:
        at = varint_read(at, end, &tag->varint);
        tag->len = at ? (size_t)(at - tag->value) : 0;
        return at;
    case WIRE_FIXED64:
        tag->len = 8;
        break;
    case WIRE_FIXED32:
        tag->len = 4;
        break;
    case WIRE_BYTES:
        at = varint_read(at, end, &key);
        if (at == NULL || key > (uint64_t)(end - at)) {
            return NULL;
        }
        tag->value = at;
        tag->len = (size_t)key;
        break;
    case WIRE_GROUP:
        at = group_skip(at, end, tag->number);
        tag->len = at ? (size_t)(at - tag->value) : 0;
        return at;
    default:
        return NULL;
    }
    return tag->len <= (size_t)(end - tag->value) ? tag->value + tag->len : NULL;
}

static const uint8_t *group_skip(const uint8_t *at, const uint8_t *end, uint32_t number)
{
    uint32_t open[KB_PB_DEPTH_MAX];
    size_t depth = 0;

    open[depth++] = number;
    while (depth > 0) {
        uint64_t key = 0;
        const uint8_t *behind = varint_read(at, end, &key);
        struct tag tag;

        if (behind == NULL || key > UINT32_MAX) {
            return NULL;
        }
        if ((key & 7) == WIRE_GROUP_END) {
            if (open[--depth] != key >> 3) {
                return NULL;
            }
            at = behind;
        } else if ((key & 7) == WIRE_GROUP) {
            if (depth == KB_PB_DEPTH_MAX) {
                return NULL;
            }
            open[depth++] = (uint32_t)(key >> 3);
            at = behind;
        } else {
            at = tag_read(at, end, &tag);
            if (at == NULL) {
                return NULL;
            }
        }
    }
    return at;
}

/* The wire type that a value of this type has. */
static uint32_t wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_FIXED64;
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_FIXED32;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
    default:
        return WIRE_VARINT;
    }
}

/* Stores a number of a varint or fixed value into a member or array slot. */
static void number_store(void *slot, ProtobufCType type, uint64_t varint, const uint8_t *fixed)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        memcpy(slot, fixed, 8);
        break;
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        memcpy(slot, fixed, 4);
        break;
    case PROTOBUF_C_TYPE_SINT32:
        *(uint32_t *)slot = (uint32_t)(varint >> 1) ^ (0U - (uint32_t)(varint & 1));
        break;
    case PROTOBUF_C_TYPE_SINT64:
        *(uint64_t *)slot = (varint >> 1) ^ (0ULL - (varint & 1));
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)slot = varint;
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)slot = varint != 0;
        break;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
    default:
        *(uint32_t *)slot = (uint32_t)varint;
        break;
    }
}

/* Bytes that a packed value of this type has at `at`, and its number; 0 when malformed. */
static size_t packed_next(ProtobufCType type, const uint8_t *at, const uint8_t *end,
                          uint64_t *varint)
{
    uint32_t wire = wire_of(type);
    const uint8_t *behind;

    *varint = 0;
    if (wire == WIRE_FIXED64 || wire == WIRE_FIXED32) {
        size_t size = wire == WIRE_FIXED64 ? 8 : 4;

        return (size_t)(end - at) >= size ? size : 0;
    }
    behind = varint_read(at, end, varint);
    return behind ? (size_t)(behind - at) : 0;
}

static bool is_packed(const ProtobufCFieldDescriptor *field, const struct tag *tag)
{
    return kb_reflect_repeated(field) && tag->wire == WIRE_BYTES &&
           wire_of(field->type) != WIRE_BYTES;
}

/* How many values of the field come from `at` on in this message. -1 when malformed. */
static int64_t values_ahead(const ProtobufCFieldDescriptor *field, const uint8_t *at,
                            const uint8_t *end)
{
    int64_t count = 0;

    while (at < end) {
        struct tag tag;

        at = tag_read(at, end, &tag);
        if (at == NULL) {
            return -1;
        }
        if (tag.number != field->id) {
            continue;
        }
        if (!is_packed(field, &tag)) {
            count++;
            continue;
        }
        for (size_t used = 0; used < tag.len; count++) {
            uint64_t varint;
            size_t size = packed_next(field->type, tag.value + used, tag.value + tag.len, &varint);

            if (size == 0) {
                return -1;
            }
            used += size;
        }
    }
    return count;
}

static int message_read(struct reader *reader, ProtobufCMessage *message, const uint8_t *at,
                        const uint8_t *end, unsigned depth);

static int value_read(struct reader *reader, const ProtobufCFieldDescriptor *field, void *slot,
                      const struct tag *tag, unsigned depth)
{
    char *text;

    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        ProtobufCMessage **message = slot;

        if (*message == NULL) {
            *message = reader_alloc(reader, kb_reflect_type(field)->sizeof_message);
            if (*message == NULL) {
                return KB_ELIMIT;
            }
            kb_pb_init(kb_reflect_type(field), *message);
        }
        return message_read(reader, *message, tag->value, tag->value + tag->len, depth + 1);
    }
    if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_BYTES) {
        number_store(slot, field->type, tag->varint, tag->value);
        return 0;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING &&
        (!kb_utf8_valid((const char *)tag->value, tag->len) ||
         (tag->len > 0 && memchr(tag->value, 0, tag->len) != NULL))) {
        return KB_EINVALID;
    }
    text = reader_dup(reader, tag->value, tag->len);
    if (text == NULL) {
        return KB_ELIMIT;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        *(char **)slot = text;
    } else {
        *(ProtobufCBinaryData *)slot =
            (ProtobufCBinaryData){.len = tag->len, .data = (uint8_t *)text};
    }
    return 0;
}

/* Makes room for all values of the field that are still to come in this message. */
static int repeated_reserve(struct reader *reader, ProtobufCMessage *message,
                            const ProtobufCFieldDescriptor *field, const uint8_t *at,
                            const uint8_t *end)
{
    size_t count = *kb_reflect_count(message, field);
    size_t size = kb_reflect_size(field->type);
    int64_t more = values_ahead(field, at, end);
    char **items = kb_reflect_member(message, field);
    char *grown;

    if (more < 0) {
        return KB_EINVALID;
    }
    if (more == 0) {
        return 0;
    }
    grown = reader_alloc(reader, (count + (size_t)more) * size);
    if (grown == NULL) {
        return KB_ELIMIT;
    }
    if (count > 0) {
        memcpy(grown, *items, count * size);
    }
    *items = grown;
    return 0;
}

static int repeated_read(struct reader *reader, ProtobufCMessage *message,
                         const ProtobufCFieldDescriptor *field, const struct tag *tag,
                         unsigned depth)
{
    size_t *count = kb_reflect_count(message, field);
    size_t size = kb_reflect_size(field->type);
    char *items = *(char **)kb_reflect_member(message, field);

    if (!is_packed(field, tag)) {
        char *slot = items + *count * size;

        memset(slot, 0, size);
        KB_TRY(value_read(reader, field, slot, tag, depth));
        (*count)++;
        return 0;
    }
    for (size_t used = 0; used < tag->len;) {
        uint64_t varint;
        size_t len = packed_next(field->type, tag->value + used, tag->value + tag->len, &varint);

        number_store(items + *count * size, field->type, varint, tag->value + used);
        (*count)++;
        used += len;
    }
    return 0;
}

static int singular_read(struct reader *reader, ProtobufCMessage *message,
                         const ProtobufCFieldDescriptor *field, const struct tag *tag,
                         unsigned depth)
{
    void *slot = kb_reflect_member(message, field);

    if (kb_reflect_in_oneof(field)) {
        uint32_t *chosen = kb_reflect_case(message, field);

        if (*chosen != field->id) {
            memset(slot, 0, kb_reflect_size(field->type));
            *chosen = field->id;
        }
    }
    return value_read(reader, field, slot, tag, depth);
}

static int unknown_keep(struct reader *reader, ProtobufCMessage *message, const struct tag *tag)
{
    ProtobufCMessageUnknownField *kept;

    if (message->n_unknown_fields >= KB_PB_UNKNOWN_MAX) {
        return 0;
    }
    if (message->unknown_fields == NULL) {
        message->unknown_fields = reader_alloc(reader, KB_PB_UNKNOWN_MAX * sizeof(*kept));
        if (message->unknown_fields == NULL) {
            return KB_ELIMIT;
        }
    }
    kept = &message->unknown_fields[message->n_unknown_fields];
    *kept = (ProtobufCMessageUnknownField){.tag = tag->number,
                                           .wire_type = (ProtobufCWireType)tag->wire};
    kept->len = (size_t)(tag->value - tag->raw) + tag->len;
    kept->data = (uint8_t *)reader_dup(reader, tag->raw, kept->len);
    if (kept->data == NULL) {
        return KB_ELIMIT;
    }
    message->n_unknown_fields++;
    return 0;
}

static int message_read(struct reader *reader, ProtobufCMessage *message, const uint8_t *at,
                        const uint8_t *end, unsigned depth)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    uint64_t seen[FIELDS_SEEN_MAX / 64] = {0};

    if (depth > KB_PB_DEPTH_MAX) {
        return KB_EDEPTH;
    }
    KB_ASSERT(type->n_fields <= FIELDS_SEEN_MAX);
    while (at < end) {
        const ProtobufCFieldDescriptor *field;
        struct tag tag;
        const uint8_t *behind = tag_read(at, end, &tag);

        if (behind == NULL) {
            return KB_EINVALID;
        }
        field = kb_pb_field_by_number(type, tag.number);
        if (field == NULL || (tag.wire != wire_of(field->type) && !is_packed(field, &tag))) {
            KB_TRY(unknown_keep(reader, message, &tag));
        } else if (kb_reflect_repeated(field)) {
            size_t i = (size_t)(field - type->fields);

            if ((seen[i / 64] & (1ULL << (i % 64))) == 0) {
                seen[i / 64] |= 1ULL << (i % 64);
                KB_TRY(repeated_reserve(reader, message, field, at, end));
            }
            KB_TRY(repeated_read(reader, message, field, &tag, depth));
        } else {
            KB_TRY(singular_read(reader, message, field, &tag, depth));
        }
        at = behind;
    }
    return 0;
}

int kb_wire_unpack_into(ProtobufCMessage *message, struct kb_str bytes, struct kb_arena *arena)
{
    struct reader reader = {.arena = arena,
                            .budget = KB_PB_GROWTH_FREE + bytes.len * KB_PB_GROWTH_MAX};
    const uint8_t *at = (const uint8_t *)bytes.p;

    if (bytes.len == 0) {
        return 0;
    }
    return message_read(&reader, message, at, at + bytes.len, 1);
}
