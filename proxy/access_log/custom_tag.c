/* SPDX-License-Identifier: Apache-2.0 */
/* Custom tags: each is a format string, but for those whose value is known beforehand. */
#include "proxy/access_log/custom_tag.h"

#include <stdlib.h>

#include "envoy/type/metadata/v3/metadata.pb-c.h"
#include "envoy/type/tracing/v3/custom_tag.pb-c.h"
#include "proto/wkt.h"

#define TAG(NAME)  ENVOY__TYPE__TRACING__V3__CUSTOM_TAG__TYPE_##NAME
#define KIND(NAME) ENVOY__TYPE__METADATA__V3__METADATA_KIND__KIND_##NAME

static struct kb_str environment_value(const Envoy__Type__Tracing__V3__CustomTag__Environment *from,
                                       struct kb_arena *arena)
{
    const char *text = getenv(from->name);

    return kb_str_dup(arena, kb_str_from_cstr(text != NULL ? text : from->default_value));
}

/* "%METADATA(ROUTE:ns:key:key)%" */
static struct kb_str metadata_format(const Envoy__Type__Tracing__V3__CustomTag__Metadata *from,
                                     struct kb_arena *arena)
{
    const Envoy__Type__Metadata__V3__MetadataKey *key = from->metadata_key;
    const char *kind = "DYNAMIC";
    struct kb_str path;

    if (from->kind != NULL && from->kind->kind_case == KIND(ROUTE)) {
        kind = "ROUTE";
    } else if (from->kind != NULL && from->kind->kind_case == KIND(CLUSTER)) {
        kind = "CLUSTER";
    } else if (from->kind != NULL && from->kind->kind_case == KIND(HOST)) {
        kind = "UPSTREAM_HOST";
    }
    path = kb_str_printf(arena, "%%METADATA(%s:%s", kind, key != NULL ? key->key : "");
    for (size_t i = 0; key != NULL && i < key->n_path; i++) {
        path = kb_str_printf(arena, "%.*s:%s", KB_STR_ARG(path), kb_wkt_str(key->path[i]->key).p);
    }
    return kb_str_printf(arena, "%.*s)%%", KB_STR_ARG(path));
}

/* The format of the tag's value; p NULL: tag->text is the value. */
static struct kb_str tag_format(struct kb_custom_tag *tag,
                                const Envoy__Type__Tracing__V3__CustomTag *message,
                                struct kb_arena *arena)
{
    switch (message->type_case) {
    case TAG(LITERAL):
        tag->text = kb_str_dup(arena, kb_wkt_str(message->literal->value));
        return KB_STR_NULL;
    case TAG(ENVIRONMENT):
        tag->text = environment_value(message->environment, arena);
        return KB_STR_NULL;
    case TAG(REQUEST_HEADER):
        tag->text = kb_str_dup(arena, kb_wkt_str(message->request_header->default_value));
        return kb_str_printf(arena, "%%REQ(%s)%%", message->request_header->name);
    case TAG(METADATA):
        tag->text = kb_str_dup(arena, kb_wkt_str(message->metadata->default_value));
        return metadata_format(message->metadata, arena);
    case TAG(VALUE):
        return kb_str_dup(arena, kb_wkt_str(message->value));
    case TAG(_NOT_SET):
    default:
        return KB_STR_NULL;
    }
}

static bool tag_init(struct kb_custom_tag *tag, const Envoy__Type__Tracing__V3__CustomTag *message,
                     struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str format;

    tag->name = kb_str_dup(arena, kb_wkt_str(message->tag));
    format = tag_format(tag, message, arena);
    if (format.p != NULL) {
        tag->formatter = kb_formatter_create(arena, format, true, diag);
        return tag->formatter != NULL;
    }
    return true;
}

const struct kb_custom_tag *
kb_custom_tags_create(struct Envoy__Type__Tracing__V3__CustomTag *const *messages, size_t count,
                      struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_custom_tag *tags = kb_arena_calloc(arena, (count + 1) * sizeof(*tags));
    bool ok = true;

    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(diag, "custom_tags", i);
        ok &= tag_init(&tags[i], messages[i], arena, diag);
        kb_diag_pop(diag);
    }
    return ok ? tags : NULL;
}

struct kb_str kb_custom_tag_value(const struct kb_custom_tag *tag,
                                  const struct kb_formatter_input *input,
                                  const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_str text =
        tag->formatter != NULL ? kb_formatter_text(tag->formatter, input, info, arena) : tag->text;

    return text.len > 0 ? text : tag->text;
}
