/* SPDX-License-Identifier: Apache-2.0 */
/* A format string (the first line) over a request of which the second line is metadata, JSON, and
 * the other bytes are all that is known: parsing ends in a formatter or an error, every command has
 * a value or none, and a JSON line is JSON whatever the peer sent. A first line that is JSON itself
 * is a json_format. The commands are tried by name, too, with the line as their argument. */
#include "tests/fuzz/fuzz_world.h"

#include <limits.h>
#include <stdio.h>

#include "base/obj.h"
#include "proxy/access_log/formatter_internal.h"

#define INPUT_MAX  20000
#define FORMAT_MAX 4000
#define ALL        UINT_MAX
#define ALL_MAX    32 /* that many inputs of a run are tried with each command in turn */

/* The bytes up to a newline, in the arena, with a NUL behind; *rest is what comes behind. */
static struct kb_str line_take(struct kb_str *rest, struct kb_arena *arena)
{
    size_t len = 0;
    struct kb_str line;

    while (len < rest->len && rest->p[len] != '\n' && rest->p[len] != '\0') {
        len++;
    }
    line = kb_str_dup(arena, kb_str_first(*rest, len));
    *rest = kb_str_from(*rest, KB_MIN(len + 1, rest->len));
    return line;
}

static void line_check(struct kb_str line, struct kb_diag *diag)
{
    struct kb_doc doc;

    KB_ASSERT(line.len > 2 && line.p[line.len - 1] == '\n');
    KB_ASSERT(memchr(line.p, '\n', line.len - 1) == NULL);
    kb_doc_init(&doc);
    if (kb_doc_parse_json(&doc, KB_STR("line"), kb_str_first(line, line.len - 1), diag) != 0) {
        struct kb_str why = kb_diag_format(diag, diag->first);

        fprintf(stderr, "%.*s%.*s\n", KB_STR_ARG(line), KB_STR_ARG(why));
        KB_ASSERT(!"a JSON line is JSON");
    }
    KB_ASSERT(doc.root->kind == KB_DOC_MAP);
    kb_doc_dispose(&doc);
}

static void json_run(struct fuzz_world *world, const Google__Protobuf__Struct *map, bool omit)
{
    struct kb_json_formatter *formatter;
    struct kb_diag diag;

    kb_diag_init(&diag);
    formatter = kb_json_formatter_create(&world->arena, map, omit, &diag);
    KB_ASSERT((formatter == NULL) == (diag.error_count > 0));
    if (formatter != NULL) {
        line_check(kb_json_formatter_text(formatter, &world->input, &world->info, &world->arena),
                   &diag);
    }
    kb_diag_dispose(&diag);
}

/* {"FORMAT": "FORMAT", "l": ["FORMAT", {"m": "FORMAT"}]} */
static void json_of_run(struct fuzz_world *world, struct kb_str format, bool omit)
{
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Value map_value = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Value list_value = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Value *values[] = {&value, &map_value};
    Google__Protobuf__ListValue list = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    Google__Protobuf__Struct__FieldsEntry plain = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    Google__Protobuf__Struct__FieldsEntry listed = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    Google__Protobuf__Struct__FieldsEntry *inner[] = {&plain};
    Google__Protobuf__Struct__FieldsEntry *outer[] = {&plain, &listed};
    Google__Protobuf__Struct map = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct top = GOOGLE__PROTOBUF__STRUCT__INIT;

    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value.string_value = (char *)(uintptr_t)format.p;
    plain.key = (char *)(uintptr_t)format.p;
    plain.value = &value;
    map.n_fields = KB_ARRAY_LEN(inner);
    map.fields = inner;
    map_value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    map_value.struct_value = &map;
    list.n_values = KB_ARRAY_LEN(values);
    list.values = values;
    list_value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    list_value.list_value = &list;
    listed.key = (char *)(uintptr_t)"l";
    listed.value = &list_value;
    top.n_fields = KB_ARRAY_LEN(outer);
    top.fields = outer;
    json_run(world, &top, omit);
}

static void format_run(struct fuzz_world *world, struct kb_str format, bool omit)
{
    struct kb_formatter *formatter;
    struct kb_diag diag;

    kb_diag_init(&diag);
    formatter = kb_formatter_create(&world->arena, format, omit, &diag);
    KB_ASSERT((formatter == NULL) == (diag.error_count > 0));
    if (formatter != NULL) {
        struct kb_str text =
            kb_formatter_text(formatter, &world->input, &world->info, &world->arena);

        KB_ASSERT(text.len == 0 || text.p != NULL);
        json_of_run(world, format, omit);
    }
    kb_diag_dispose(&diag);
}

/* "%NAME%" and with arguments: the line, and what one of the kinds takes, or (ALL) each. */
static void command_run(struct fuzz_world *world, const char *name, struct kb_str line,
                        unsigned which, bool omit)
{
    static const char *const arguments[] = {"%%%s%%",
                                            "%%%s(X-A)%%",
                                            "%%%s(x-b?X-A):3%%",
                                            "%%%s(n:a:b)%%",
                                            "%%%s(n)%%",
                                            "%%%s(ROUTE:n:a)%%",
                                            "%%%s(DYNAMIC:n):7%%",
                                            "%%%s(k:PLAIN):2%%",
                                            "%%%s(k)%%",
                                            "%%%s(k:FIELD:f)%%",
                                            "%%%s(UPSTREAM_HOST:n)%%",
                                            "%%%s(WQ:ORIG_OR_PATH)%%",
                                            "%%%s(q)%%",
                                            "%%%s(SNAKE_STRING)%%",
                                            "%%%s(%%s.%%3f %%E*S)%%",
                                            "%%%s(16)%%",
                                            "%%%s(DS_RX_BEG:DS_TX_END:ns)%%",
                                            "%%%s(HOST_FIRST)%%"};
    char *text = kb_arena_alloc(&world->arena, line.len + 100, 1);
    int len;

    for (size_t i = 0; i < KB_ARRAY_LEN(arguments); i++) {
        if (which != ALL && i != which % KB_ARRAY_LEN(arguments)) {
            continue;
        }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        len = snprintf(text, 100, arguments[i], name);
#pragma GCC diagnostic pop
        format_run(world, kb_str_dup(&world->arena, kb_str_make(text, (size_t)len)), omit);
    }
    len = snprintf(text, line.len + 100, "%%%s(%.*s)%%", name, KB_STR_ARG(line));
    format_run(world, kb_str_make(text, (size_t)len), omit);
}

/* One, and at the beginning of a run all: then a file that broke something does so alone, too. */
static void commands_run(struct fuzz_world *world, struct kb_str line, unsigned which, bool omit)
{
    static unsigned runs;
    bool all = runs++ < ALL_MAX;
    size_t count = 0;

    while (kb_format_command_name(count) != NULL) {
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        if (all || i == which % 256 % count) {
            command_run(world, kb_format_command_name(i), line, all ? ALL : which / 256, omit);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_world world;
    const Google__Protobuf__Struct *map;
    struct kb_str rest = kb_str_make((const char *)data, size);
    struct kb_str format, metadata;
    unsigned which;

    if (size > INPUT_MAX) {
        return 0;
    }
    memset(&world, 0, sizeof(world));
    kb_header_names_init();
    kb_arena_init(&world.arena, NULL);
    format = kb_str_first(line_take(&rest, &world.arena), FORMAT_MAX);
    ((char *)(uintptr_t)format.p)[format.len] = '\0';
    metadata = line_take(&rest, &world.arena);
    world.bytes = (struct fuzz_bytes){(const uint8_t *)rest.p, rest.len};
    which = fuzz_byte(&world.bytes);
    which += fuzz_byte(&world.bytes) * 256U;
    fuzz_world_make(&world, metadata);
    format_run(&world, format, size % 2 == 0);
    map = fuzz_struct(&world.arena, format);
    if (map != NULL) {
        json_run(&world, map, size % 2 == 0);
    }
    commands_run(&world, format, which, size % 2 == 0);
    kb_filter_state_dispose(&world.info.filter_state, &world.arena);
    kb_filter_state_dispose(&world.info.upstream.filter_state, &world.arena);
    kb_arena_dispose(&world.arena);
    return 0;
}
