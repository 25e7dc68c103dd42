/* SPDX-License-Identifier: Apache-2.0 */
/* METADATA and its kin: what filters left on the stream, and what route, virtual host, cluster,
 * host and listener are configured with, which is kept packed and unpacked when a format asks for
 * it. */
#include <stdlib.h>

#include "google/protobuf/struct.pb-c.h"
#include "proxy/access_log/formatter_internal.h"
#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/route.h"

/* ---- configuration ---- */

/* "namespace:key:key" of a command with this source; `max_len` is for text only. */
static void path_make(struct kb_format_command *command, int source, struct kb_str args,
                      struct kb_arena *arena)
{
    command->param = source;
    command->metadata.path = kb_str_dup(arena, args);
    command->metadata.max_len = command->max_len;
    command->max_len = SIZE_MAX;
}

bool kb_format_make_metadata_path(struct kb_format_command *command, struct kb_str args,
                                  struct kb_arena *arena, struct kb_diag *diag)
{
    (void)diag;
    path_make(command, command->param, args, arena);
    return true;
}

bool kb_format_make_metadata(struct kb_format_command *command, struct kb_str args,
                             struct kb_arena *arena, struct kb_diag *diag)
{
    static const char *const types[] = {
        [KB_FORMAT_METADATA_DYNAMIC] = "DYNAMIC",
        [KB_FORMAT_METADATA_CLUSTER] = "CLUSTER",
        [KB_FORMAT_METADATA_ROUTE] = "ROUTE",
        [KB_FORMAT_METADATA_HOST] = "UPSTREAM_HOST",
        [KB_FORMAT_METADATA_LISTENER] = "LISTENER",
        [KB_FORMAT_METADATA_VIRTUAL_HOST] = "VIRTUAL_HOST",
    };
    struct kb_str rest = args;
    struct kb_str type = KB_STR_NULL;

    kb_str_next_token(&rest, ':', &type);
    for (size_t i = 0; i < KB_ARRAY_LEN(types); i++) {
        if (kb_str_eq(type, kb_str_from_cstr(types[i]))) {
            path_make(command, (int)i, rest.p != NULL ? rest : KB_STR(""), arena);
            return true;
        }
    }
    kb_diag_error_hint(
        diag, KB_STR("DYNAMIC, CLUSTER, ROUTE, UPSTREAM_HOST, LISTENER and VIRTUAL_HOST are"),
        "%.*s is not supported type of metadata", KB_STR_ARG(type));
    return false;
}

/* ---- values ---- */

static void json_add(struct kb_format_out *out, const Google__Protobuf__Value *value);

static int entry_order(const void *a, const void *b)
{
    const Google__Protobuf__Struct__FieldsEntry *const *one = a, *const *two = b;

    return strcmp((*one)->key, (*two)->key);
}

static void json_add_string(struct kb_format_out *out, const char *text)
{
    kb_format_out_add_char(out, '"');
    kb_format_out_add_escaped(out, kb_str_from_cstr(text));
    kb_format_out_add_char(out, '"');
}

/* The message is ours: its entries may be put in order where they stand. */
static void json_add_map(struct kb_format_out *out, const Google__Protobuf__Struct *map)
{
    if (map->n_fields > 1) {
        qsort(map->fields, map->n_fields, sizeof(map->fields[0]), entry_order);
    }
    kb_format_out_add_char(out, '{');
    for (size_t i = 0; i < map->n_fields; i++) {
        if (i > 0) {
            kb_format_out_add_char(out, ',');
        }
        json_add_string(out, map->fields[i]->key);
        kb_format_out_add_char(out, ':');
        json_add(out, map->fields[i]->value);
    }
    kb_format_out_add_char(out, '}');
}

static void json_add_list(struct kb_format_out *out, const Google__Protobuf__ListValue *list)
{
    kb_format_out_add_char(out, '[');
    for (size_t i = 0; i < list->n_values; i++) {
        if (i > 0) {
            kb_format_out_add_char(out, ',');
        }
        json_add(out, list->values[i]);
    }
    kb_format_out_add_char(out, ']');
}

/* As deep as a message can be, see KB_PB_DEPTH_MAX. */
static void json_add(struct kb_format_out *out, const Google__Protobuf__Value *value)
{
    switch (value != NULL ? value->kind_case : GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        kb_format_out_add_json_double(out, value->number_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        json_add_string(out, value->string_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        kb_format_out_add(out, value->bool_value ? KB_STR("true") : KB_STR("false"));
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        json_add_map(out, value->struct_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        json_add_list(out, value->list_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
    default:
        kb_format_out_add(out, KB_STR("null"));
        return;
    }
}

/* ---- finding ---- */

/* Packed; empty when there is none. */
static struct kb_str source_metadata(const struct kb_stream_info *info, int source)
{
    switch (source) {
    case KB_FORMAT_METADATA_CLUSTER:
        return info->upstream.cluster != NULL ? info->upstream.cluster->metadata : KB_STR("");
    case KB_FORMAT_METADATA_ROUTE:
        return info->route != NULL ? info->route->metadata : KB_STR("");
    case KB_FORMAT_METADATA_VIRTUAL_HOST:
        return info->route != NULL ? info->route->virtual_host_metadata : KB_STR("");
    case KB_FORMAT_METADATA_HOST:
        return info->upstream.host != NULL ? kb_host_metadata(info->upstream.host) : KB_STR("");
    case KB_FORMAT_METADATA_LISTENER:
        return info->connection != NULL ? info->connection->listener_metadata : KB_STR("");
    default:
        return KB_STR("");
    }
}

static void value_show(const Google__Protobuf__Value *value, struct kb_format_source *source,
                       struct kb_format_value *shown)
{
    struct kb_format_out out;

    if (value == NULL || value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET ||
        value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE) {
        return;
    }
    if (value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        kb_format_value_text(shown, kb_str_from_cstr(value->string_value));
        return;
    }
    kb_format_out_init(&out, source->arena, NULL, 0);
    json_add(&out, value);
    shown->kind = KB_FORMAT_JSON;
    shown->text = kb_str_make(out.p, out.len);
}

void kb_format_eval_metadata(const struct kb_format_command *command,
                             struct kb_format_source *source, struct kb_format_value *value)
{
    struct kb_str rest = command->metadata.path;
    struct kb_str key = KB_STR("");
    const Google__Protobuf__Struct *map;
    Google__Protobuf__Value at = GOOGLE__PROTOBUF__VALUE__INIT;
    const Google__Protobuf__Value *found = &at;

    kb_str_next_token(&rest, ':', &key);
    map = command->param == KB_FORMAT_METADATA_DYNAMIC
              ? kb_dynamic_metadata_get(kb_stream_info_metadata(source->info), key)
              : kb_packed_metadata_get(source_metadata(source->info, command->param), key,
                                       source->arena);
    if (map == NULL) {
        return;
    }
    at.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    at.struct_value = (Google__Protobuf__Struct *)(uintptr_t)map;
    while (found != NULL && rest.p != NULL && kb_str_next_token(&rest, ':', &key)) {
        found = found->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE
                    ? kb_struct_get(found->struct_value, key)
                    : NULL;
    }
    value_show(found, source, value);
    if (!source->typed && value->kind != KB_FORMAT_MISSING) {
        value->text = kb_str_first(value->text, command->metadata.max_len);
    }
}
