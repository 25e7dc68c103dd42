/* SPDX-License-Identifier: Apache-2.0 */
/* /runtime and /runtime_modify. */
#include "proxy/admin/admin_internal.h"

struct entries_write {
    struct kb_json_out *out;
    size_t layer_count;
    bool any;
};

static void entry_write(void *arg, struct kb_str key, const struct kb_str *layer_values,
                        struct kb_str final_value)
{
    struct entries_write *write = arg;

    kb_json_out_add(write->out, write->any ? KB_STR(",\n  ") : KB_STR("\n  "));
    kb_json_out_add_quoted(write->out, key);
    kb_json_out_add(write->out, KB_STR(": {\n   \"final_value\": "));
    kb_json_out_add_quoted(write->out, final_value);
    kb_json_out_add(write->out, KB_STR(",\n   \"layer_values\": ["));
    for (size_t i = 0; i < write->layer_count; i++) {
        kb_json_out_add(write->out, i == 0 ? KB_STR("\n    ") : KB_STR(",\n    "));
        kb_json_out_add_quoted(write->out, layer_values[i]);
    }
    kb_json_out_add(write->out, KB_STR("\n   ]\n  }"));
    write->any = true;
}

KB_ADMIN_HANDLER(runtime)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    struct entries_write write = {.out = &response->body};

    kb_admin_set_content_type(response, KB_ADMIN_JSON);
    kb_admin_add(response, KB_STR("{\n \"entries\": {"));
    if (sources->visit_runtime != NULL) {
        write.layer_count = sources->runtime_layer_count(sources->arg);
        sources->visit_runtime(sources->arg, entry_write, &write);
    }
    kb_admin_add(response,
                 write.any ? KB_STR("\n },\n \"layers\": [") : KB_STR("},\n \"layers\": ["));
    for (size_t i = 0; i < write.layer_count; i++) {
        kb_admin_add(response, i == 0 ? KB_STR("\n  ") : KB_STR(",\n  "));
        kb_json_out_add_quoted(&response->body, sources->runtime_layer_name(sources->arg, i));
    }
    kb_admin_add(response, write.layer_count > 0 ? KB_STR("\n ]\n}\n") : KB_STR("]\n}\n"));
}

KB_ADMIN_HANDLER(runtime_modify)
{
    const struct kb_admin_sources *sources = &request->admin->sources;

    if (request->parameters.count == 0) {
        kb_admin_answer(response, 400,
                        KB_STR("usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n"
                               "       or send the parameters as form values\n"
                               "use an empty value to remove a previously added override"));
        return;
    }
    for (size_t i = 0; i < request->parameters.count; i++) {
        if (sources->runtime_set == NULL ||
            sources->runtime_set(sources->arg, request->parameters.items[i].key,
                                 request->parameters.items[i].value) != 0) {
            kb_admin_answer(response, 503, KB_STR("No admin layer specified"));
            return;
        }
    }
    sources->runtime_reload(sources->arg);
    kb_admin_add(response, KB_STR("OK\n"));
}
