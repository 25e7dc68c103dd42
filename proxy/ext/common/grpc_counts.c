/* SPDX-License-Identifier: Apache-2.0 */
/* How counts of gRPC messages show in access logs (Envoy GrpcStatsObject). */
#include "proxy/ext/common/grpc_counts.h"

const struct kb_filter_state_key *kb_grpc_counts_key;

void kb_grpc_counts_init(void)
{
    kb_grpc_counts_key = kb_filter_state_key(KB_STR("envoy.filters.http.grpc_stats"));
}

static bool counts_text(const void *object, struct kb_arena *arena, struct kb_str *text)
{
    const struct kb_grpc_counts *counts = object;

    *text = kb_str_printf(arena, "%llu,%llu", (unsigned long long)counts->request_messages,
                          (unsigned long long)counts->response_messages);
    return true;
}

/* As proto3 writes JSON: what is 0 is left out. */
static bool counts_json(const void *object, struct kb_arena *arena, struct kb_str *json)
{
    const struct kb_grpc_counts *counts = object;
    struct kb_str request = KB_STR(""), response = KB_STR("");

    if (counts->request_messages > 0) {
        request = kb_str_printf(arena, "\"request_message_count\":\"%llu\"%s",
                                (unsigned long long)counts->request_messages,
                                counts->response_messages > 0 ? "," : "");
    }
    if (counts->response_messages > 0) {
        response = kb_str_printf(arena, "\"response_message_count\":\"%llu\"",
                                 (unsigned long long)counts->response_messages);
    }
    *json = kb_str_printf(arena, "{%.*s%.*s}", KB_STR_ARG(request), KB_STR_ARG(response));
    return true;
}

static bool counts_field(const void *object, struct kb_str name,
                         struct kb_filter_state_field *field)
{
    const struct kb_grpc_counts *counts = object;

    field->number = true;
    if (kb_str_eq(name, KB_STR("request_message_count"))) {
        field->value = (int64_t)counts->request_messages;
        return true;
    }
    field->value = (int64_t)counts->response_messages;
    return kb_str_eq(name, KB_STR("response_message_count"));
}

const struct kb_filter_state_type kb_grpc_counts_type = {
    .name = "grpc_stats",
    .text = counts_text,
    .json = counts_json,
    .field = counts_field,
};
