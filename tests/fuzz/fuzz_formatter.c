/* SPDX-License-Identifier: Apache-2.0 */
/* A format string (the first line, or up to a zero byte) over a request whose path, header and
 * names are the other bytes: parsing ends in a formatter or an error, and a JSON line is JSON
 * whatever the peer sent. */
#include "tests/fuzz/fuzz.h"

#include "base/obj.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/doc.h"
#include "proxy/api/formatter.h"

/* The input up to a newline or zero byte, in the arena; *rest is what comes behind. */
static struct kb_str line_take(struct kb_str input, struct kb_arena *arena, struct kb_str *rest)
{
    size_t len = 0;

    while (len < input.len && input.p[len] != '\n' && input.p[len] != '\0') {
        len++;
    }
    *rest = kb_str_from(input, len + 1);
    return kb_str_dup(arena, kb_str_first(input, len));
}

static struct kb_str without_nul(struct kb_str text, struct kb_arena *arena)
{
    struct kb_str copy = kb_str_dup(arena, text);

    for (size_t i = 0; i < copy.len; i++) {
        if (copy.p[i] == '\0') {
            ((char *)(uintptr_t)copy.p)[i] = '?'; /* no header can hold one */
        }
    }
    return copy;
}

static void json_run(struct kb_str format, bool omit, const struct kb_formatter_input *input,
                     const struct kb_stream_info *info, struct kb_arena *arena,
                     struct kb_diag *diag)
{
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Struct__FieldsEntry entry = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    Google__Protobuf__Struct__FieldsEntry *entries[] = {&entry};
    Google__Protobuf__Struct map = GOOGLE__PROTOBUF__STRUCT__INIT;
    struct kb_json_formatter *formatter;
    struct kb_doc doc;
    struct kb_str line;

    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value.string_value = (char *)(uintptr_t)format.p;
    entry.key = (char *)(uintptr_t)format.p;
    entry.value = &value;
    map.n_fields = 1;
    map.fields = entries;
    formatter = kb_json_formatter_create(arena, &map, omit, diag);
    if (formatter == NULL) {
        return;
    }
    line = kb_json_formatter_text(formatter, input, info, arena);
    KB_ASSERT(line.len > 2 && line.p[line.len - 1] == '\n');
    kb_doc_init(&doc);
    KB_ASSERT(kb_doc_parse_json(&doc, KB_STR("line"), kb_str_first(line, line.len - 1), diag) == 0);
    KB_ASSERT(doc.root->kind == KB_DOC_MAP && doc.root->len <= 1);
    kb_doc_dispose(&doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_connection_info connection = {.id = 7};
    struct kb_stream_info info = {.connection = &connection, .start_ns = 5, .end_ns = 90000000};
    struct kb_formatter_input input = {.access_log_type = "DownstreamEnd"};
    struct kb_header_map request, response;
    struct kb_formatter *formatter;
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_str format, peer;

    kb_header_names_init();
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    format = line_take(kb_str_make((const char *)data, size), &arena, &peer);
    peer = without_nul(peer, &arena);
    kb_header_map_init(&request, &arena);
    kb_header_map_init(&response, &arena);
    request.path = peer;
    request.method = kb_str_first(peer, 4);
    kb_header_map_add(&request, KB_STR("x-a"), peer);
    kb_header_map_add_id(&request, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc"));
    kb_header_map_add_id(&response, KB_HDR_GRPC_STATUS, kb_str_first(peer, 12));
    response.status = 200;
    input.request = &request;
    input.response = &response;
    info.wall_start_ns = size * UINT64_C(12345678987654321);
    info.response_code_details = peer;
    connection.requested_server_name = peer;
    formatter = kb_formatter_create(&arena, format, size % 2 == 0, &diag);
    KB_ASSERT((formatter == NULL) == (diag.error_count > 0));
    if (formatter != NULL) {
        struct kb_str text = kb_formatter_text(formatter, &input, &info, &arena);

        KB_ASSERT(text.len == 0 || text.p != NULL);
        json_run(format, size % 2 == 0, &input, &info, &arena, &diag);
    }
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    return 0;
}
