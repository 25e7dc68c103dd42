/* SPDX-License-Identifier: Apache-2.0 */
/* json_format: a Struct whose texts may hold commands, to one JSON line. Built once to a row of
 * steps. Everything that is known then is written then; where missing values are kept, what remains
 * is raw text and commands alternating. Where they are omitted, the objects and lists stay steps,
 * because members, and objects left without any, may vanish. */
#include <stdlib.h>

#include "google/protobuf/struct.pb-c.h"
#include "proxy/access_log/formatter_internal.h"

#define DEPTH_MAX 40 /* objects and lists in one another */

enum step_kind { STEP_RAW, STEP_COMMANDS, STEP_OPEN_MAP, STEP_OPEN_LIST, STEP_CLOSE };

struct json_step {
    enum step_kind kind;
    struct kb_str key; /* `"key":`, or empty; STEP_RAW may hold it in `raw` instead */
    struct kb_str raw; /* STEP_RAW */
    const struct kb_formatter *formatter; /* STEP_COMMANDS */
};

struct kb_json_formatter {
    bool omit_empty;
    size_t count;
    struct json_step *steps;
};

/* ---- building ---- */

struct json_builder {
    struct kb_json_formatter *formatter;
    struct kb_arena *arena;
    struct kb_diag *diag;
    unsigned extensions;
    size_t cap; /* of formatter->steps */
    unsigned depth;
    struct kb_format_out raw; /* kept values: what is known since the last command */
    struct kb_str key;        /* omitted values: of the value that comes next */
};

static bool build_value(struct json_builder *builder, const Google__Protobuf__Value *value);

static struct json_step *step_add(struct json_builder *builder, enum step_kind kind)
{
    struct kb_json_formatter *formatter = builder->formatter;
    struct json_step *step;

    if (formatter->count == builder->cap) {
        struct json_step *old = formatter->steps;

        builder->cap = KB_MAX(builder->cap * 2, (size_t)16);
        formatter->steps =
            kb_arena_alloc(builder->arena, builder->cap * sizeof(*old), _Alignof(struct json_step));
        if (formatter->count > 0) {
            memcpy(formatter->steps, old, formatter->count * sizeof(*old));
        }
    }
    step = &formatter->steps[formatter->count++];
    memset(step, 0, sizeof(*step));
    step->kind = kind;
    step->key = builder->key;
    builder->key = KB_STR_NULL;
    return step;
}

/* Ends the raw text, if there is any. */
static void raw_flush(struct json_builder *builder)
{
    if (builder->raw.len > 0) {
        step_add(builder, STEP_RAW)->raw = kb_str_make(builder->raw.p, builder->raw.len);
        kb_format_out_init(&builder->raw, builder->arena, NULL, 0);
    }
}

/* A value that is known now, in `out`. */
static void known_add(struct json_builder *builder, const struct kb_format_out *out)
{
    if (builder->formatter->omit_empty) {
        step_add(builder, STEP_RAW)->raw = kb_str_make(out->p, out->len);
    } else {
        kb_format_out_add(&builder->raw, kb_str_make(out->p, out->len));
    }
}

static bool build_string(struct json_builder *builder, const char *text)
{
    struct kb_formatter *formatter = kb_formatter_create_extended(
        builder->arena, kb_str_from_cstr(text), builder->formatter->omit_empty, builder->extensions,
        builder->diag);

    if (formatter == NULL) {
        return false;
    }
    kb_formatter_set_json(formatter, builder->arena);
    if (!builder->formatter->omit_empty) {
        raw_flush(builder);
    }
    step_add(builder, STEP_COMMANDS)->formatter = formatter;
    return true;
}

static bool build_scalar(struct json_builder *builder, const Google__Protobuf__Value *value)
{
    struct kb_format_out out;

    kb_format_out_init(&out, builder->arena, NULL, 0);
    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        kb_format_out_add_json_double(&out, value->number_value);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        kb_format_out_add(&out, value->bool_value ? KB_STR("true") : KB_STR("false"));
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        if (kb_str_find_char(kb_str_from_cstr(value->string_value), '%') >= 0) {
            return build_string(builder, value->string_value);
        }
        kb_format_out_add_char(&out, '"');
        kb_format_out_add_escaped(&out, kb_str_from_cstr(value->string_value));
        kb_format_out_add_char(&out, '"');
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
    default:
        if (builder->formatter->omit_empty) {
            builder->key = KB_STR_NULL;
            return true;
        }
        kb_format_out_add(&out, KB_STR("null"));
        break;
    }
    known_add(builder, &out);
    return true;
}

static void open_add(struct json_builder *builder, bool map)
{
    if (builder->formatter->omit_empty) {
        step_add(builder, map ? STEP_OPEN_MAP : STEP_OPEN_LIST);
    } else {
        kb_format_out_add_char(&builder->raw, map ? '{' : '[');
    }
}

static void close_add(struct json_builder *builder, bool map)
{
    if (builder->formatter->omit_empty) {
        step_add(builder, STEP_CLOSE);
    } else {
        kb_format_out_add_char(&builder->raw, map ? '}' : ']');
    }
}

/* Comma and key in front of a member or element. */
static void member_start(struct json_builder *builder, const char *key, size_t index)
{
    struct kb_format_out out;

    if (!builder->formatter->omit_empty && index > 0) {
        kb_format_out_add_char(&builder->raw, ',');
    }
    if (key == NULL) {
        return;
    }
    kb_format_out_init(&out, builder->arena, NULL, 0);
    kb_format_out_add_char(&out, '"');
    kb_format_out_add_escaped(&out, kb_str_from_cstr(key));
    kb_format_out_add(&out, KB_STR("\":"));
    if (builder->formatter->omit_empty) {
        builder->key = kb_str_make(out.p, out.len);
    } else {
        kb_format_out_add(&builder->raw, kb_str_make(out.p, out.len));
    }
}

static int entry_order(const void *a, const void *b)
{
    const Google__Protobuf__Struct__FieldsEntry *const *one = a, *const *two = b;

    return strcmp((*one)->key, (*two)->key);
}

static bool build_map(struct json_builder *builder, const Google__Protobuf__Struct *map)
{
    Google__Protobuf__Struct__FieldsEntry **sorted =
        kb_arena_calloc(builder->arena, (map->n_fields + 1) * sizeof(*sorted));
    bool ok = true;

    if (map->n_fields > 0) {
        memcpy(sorted, map->fields, map->n_fields * sizeof(*sorted));
        qsort(sorted, map->n_fields, sizeof(*sorted), entry_order);
    }
    open_add(builder, true);
    for (size_t i = 0; i < map->n_fields; i++) {
        kb_diag_push_key(builder->diag, kb_str_from_cstr(sorted[i]->key));
        member_start(builder, sorted[i]->key, i);
        ok = build_value(builder, sorted[i]->value) && ok;
        kb_diag_pop(builder->diag);
    }
    close_add(builder, true);
    return ok;
}

static bool build_list(struct json_builder *builder, const Google__Protobuf__ListValue *list)
{
    bool ok = true;

    open_add(builder, false);
    for (size_t i = 0; list != NULL && i < list->n_values; i++) {
        kb_diag_push_index(builder->diag, "values", i);
        member_start(builder, NULL, i);
        ok = build_value(builder, list->values[i]) && ok;
        kb_diag_pop(builder->diag);
    }
    close_add(builder, false);
    return ok;
}

static bool build_value(struct json_builder *builder, const Google__Protobuf__Value *value)
{
    static const Google__Protobuf__Value null_value = GOOGLE__PROTOBUF__VALUE__INIT;
    bool ok;

    value = value != NULL ? value : &null_value;
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE &&
        value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        return build_scalar(builder, value);
    }
    if (builder->depth == DEPTH_MAX) {
        kb_diag_error(builder->diag,
                      "JSON format is nested too deeply, at most %d objects and lists", DEPTH_MAX);
        return false;
    }
    builder->depth++;
    ok = value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE
             ? build_map(builder, value->struct_value)
             : build_list(builder, value->list_value);
    builder->depth--;
    return ok;
}

struct kb_json_formatter *
kb_json_formatter_create_extended(struct kb_arena *arena,
                                  const struct Google__Protobuf__Struct *format, bool omit_empty,
                                  unsigned extensions, struct kb_diag *diag)
{
    struct json_builder builder = {
        .arena = arena, .diag = diag, .extensions = extensions, .depth = 1};

    builder.formatter = KB_ARENA_NEW(arena, struct kb_json_formatter);
    builder.formatter->omit_empty = omit_empty;
    kb_format_out_init(&builder.raw, arena, NULL, 0);
    if (!build_map(&builder, format)) {
        return NULL;
    }
    raw_flush(&builder);
    return builder.formatter;
}

struct kb_json_formatter *kb_json_formatter_create(struct kb_arena *arena,
                                                   const struct Google__Protobuf__Struct *format,
                                                   bool omit_empty, struct kb_diag *diag)
{
    return kb_json_formatter_create_extended(arena, format, omit_empty, 0, diag);
}

/* ---- writing ---- */

/* An object or list that is being written. */
struct json_level {
    size_t start; /* length of the text before its comma, key and bracket */
    bool map;
    bool filled; /* has a member or element */
};

/* Comma and key; returns where the text ended before. */
static size_t level_member(struct json_level *level, struct kb_str key, struct kb_format_out *out)
{
    size_t start = out->len;

    if (level != NULL && level->filled) {
        kb_format_out_add_char(out, ',');
    }
    kb_format_out_add(out, key);
    return start;
}

static void append_omitting(const struct kb_json_formatter *formatter,
                            struct kb_format_source *source, struct kb_format_out *out)
{
    struct json_level levels[DEPTH_MAX + 1];
    unsigned depth = 0;

    for (size_t i = 0; i < formatter->count; i++) {
        const struct json_step *step = &formatter->steps[i];
        struct json_level *level = depth > 0 ? &levels[depth - 1] : NULL;
        size_t start = step->kind != STEP_CLOSE ? level_member(level, step->key, out) : 0;

        switch (step->kind) {
        case STEP_RAW:
            kb_format_out_add(out, step->raw);
            level->filled = true;
            break;
        case STEP_COMMANDS:
            if (kb_formatter_append_json(step->formatter, source, true, out)) {
                level->filled = true;
            } else {
                out->len = start;
            }
            break;
        case STEP_OPEN_MAP:
        case STEP_OPEN_LIST:
            levels[depth++] =
                (struct json_level){.start = start, .map = step->kind == STEP_OPEN_MAP};
            kb_format_out_add_char(out, step->kind == STEP_OPEN_MAP ? '{' : '[');
            break;
        case STEP_CLOSE:
            depth--;
            if (level->map && !level->filled && depth > 0) {
                out->len = level->start;
                break;
            }
            kb_format_out_add_char(out, level->map ? '}' : ']');
            if (depth > 0) {
                levels[depth - 1].filled = true;
            }
            break;
        }
    }
}

void kb_json_formatter_append(const struct kb_json_formatter *formatter,
                              struct kb_format_source *source, struct kb_format_out *out)
{
    if (formatter->omit_empty) {
        append_omitting(formatter, source, out);
    } else {
        for (size_t i = 0; i < formatter->count; i++) {
            const struct json_step *step = &formatter->steps[i];

            if (step->kind == STEP_RAW) {
                kb_format_out_add(out, step->raw);
            } else {
                kb_formatter_append_json(step->formatter, source, false, out);
            }
        }
    }
    kb_format_out_add_char(out, '\n');
}

struct kb_str kb_json_formatter_text(const struct kb_json_formatter *formatter,
                                     const struct kb_formatter_input *input,
                                     const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_format_source source;
    struct kb_format_out out;

    source.input = input;
    source.info = info;
    source.arena = arena;
    source.typed = false;
    kb_format_out_init(&out, arena, NULL, 0);
    kb_json_formatter_append(formatter, &source, &out);
    return kb_str_make(out.p, out.len);
}
