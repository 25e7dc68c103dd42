/* SPDX-License-Identifier: Apache-2.0 */
/* /kobune/unsupported: fields of the configuration that are set and that Kobune does not implement,
 * one for each kind of place, with how often and where first. Nothing is ignored silently. */
#include "proxy/admin/admin_internal.h"

struct list_write {
    struct kb_admin_response *response;
    bool any;
};

static void text_write(void *arg, const struct kb_admin_unsupported *unsupported)
{
    struct list_write *write = arg;

    kb_admin_printf(write->response, "%llu ", (unsigned long long)unsupported->count);
    kb_admin_add(write->response, unsupported->path);
    kb_admin_printf(write->response, " (%.*s; first at ", KB_STR_ARG(unsupported->type));
    kb_admin_add(write->response, unsupported->first);
    kb_admin_add(write->response, KB_STR(")\n"));
    write->any = true;
}

static void json_write(void *arg, const struct kb_admin_unsupported *unsupported)
{
    struct list_write *write = arg;
    struct kb_json_out *out = &write->response->body;

    kb_json_out_add(out,
                    write->any ? KB_STR(",\n  {\n   \"path\": ") : KB_STR("\n  {\n   \"path\": "));
    kb_json_out_add_quoted(out, unsupported->path);
    kb_json_out_add(out, KB_STR(",\n   \"type\": "));
    kb_json_out_add_quoted(out, unsupported->type);
    kb_json_out_add(out, KB_STR(",\n   \"first\": "));
    kb_json_out_add_quoted(out, unsupported->first);
    kb_admin_printf(write->response, ",\n   \"count\": %llu\n  }",
                    (unsigned long long)unsupported->count);
    write->any = true;
}

KB_ADMIN_HANDLER(unsupported)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    bool json = kb_str_eq(kb_admin_query_get(&request->query, KB_STR("format")), KB_STR("json"));
    struct list_write write = {.response = response};

    if (json) {
        kb_admin_set_content_type(response, KB_ADMIN_JSON);
        kb_admin_add(response, KB_STR("{\n \"unsupported\": ["));
    }
    if (sources->visit_unsupported != NULL) {
        sources->visit_unsupported(sources->arg, json ? json_write : text_write, &write);
    }
    if (json) {
        kb_admin_add(response, write.any ? KB_STR("\n ]\n}\n") : KB_STR("]\n}\n"));
    } else if (!write.any) {
        kb_admin_add(response, KB_STR("every field of the configuration is implemented\n"));
    }
}
