/* SPDX-License-Identifier: Apache-2.0 */
/* /kobune/pushes: the last responses of control planes (and files in their place), newest first:
 * what they changed, and why one was refused. */
#include <time.h>

#include "proxy/admin/admin_internal.h"

struct pushes_write {
    struct kb_admin_response *response;
    bool any;
};

static const char *const changes[KB_ADMIN_CHANGE_COUNT] = {
    [KB_ADMIN_ADDED] = "added",
    [KB_ADMIN_CHANGED] = "changed",
    [KB_ADMIN_REMOVED] = "removed",
    [KB_ADMIN_UNCHANGED] = "unchanged",
};

static void time_add(struct kb_admin_response *response, uint64_t wall_ns)
{
    time_t seconds = (time_t)(wall_ns / 1000000000);
    struct tm tm;
    char text[32];

    gmtime_r(&seconds, &tm);
    kb_admin_add(response,
                 kb_str_make(text, strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm)));
    kb_admin_printf(response, ".%03uZ", (unsigned)(wall_ns / 1000000 % 1000));
}

/* Control characters of names and reasons would break lines, or a terminal. */
static void line_text_add(struct kb_admin_response *response, struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];

        kb_admin_add(response, c < 0x20 || c == 0x7f ? KB_STR(" ") : kb_str_make(&text.p[i], 1));
    }
}

static void text_write(void *arg, const struct kb_admin_push *push)
{
    struct pushes_write *write = arg;
    struct kb_admin_response *response = write->response;

    time_add(response, push->wall_ns);
    kb_admin_printf(response, " %s %s version=", push->type, push->way);
    line_text_add(response, push->version);
    for (int i = 0; i < KB_ADMIN_CHANGE_COUNT; i++) {
        if (push->counts[i] > 0) {
            kb_admin_printf(response, " %s=%llu", changes[i], (unsigned long long)push->counts[i]);
        }
    }
    kb_admin_add(response, push->error.p == NULL ? KB_STR(" accepted\n") : KB_STR(" REFUSED: "));
    if (push->error.p != NULL) {
        line_text_add(response, push->error);
        kb_admin_add(response, KB_STR("\n"));
    }
    for (size_t i = 0; i < push->name_count; i++) {
        kb_admin_printf(response, "  %s ", changes[push->names[i].change]);
        line_text_add(response, push->names[i].name);
        kb_admin_add(response, KB_STR("\n"));
    }
    write->any = true;
}

static void member_add(struct kb_admin_response *response, const char *key, struct kb_str value)
{
    kb_admin_printf(response, ",\n   \"%s\": ", key);
    kb_json_out_add_quoted(&response->body, value);
}

static void changes_json_write(struct kb_admin_response *response, const struct kb_admin_push *push,
                               enum kb_admin_change change)
{
    bool any = false;

    kb_admin_printf(response, ",\n   \"%s\": {\"count\": %llu, \"names\": [", changes[change],
                    (unsigned long long)push->counts[change]);
    for (size_t i = 0; i < push->name_count; i++) {
        if (push->names[i].change == change) {
            kb_admin_add(response, any ? KB_STR(", ") : KB_STR(""));
            kb_json_out_add_quoted(&response->body, push->names[i].name);
            any = true;
        }
    }
    kb_admin_add(response, KB_STR("]}"));
}

static void json_write(void *arg, const struct kb_admin_push *push)
{
    struct pushes_write *write = arg;
    struct kb_admin_response *response = write->response;

    kb_admin_add(response,
                 write->any ? KB_STR(",\n  {\n   \"time\": \"") : KB_STR("\n  {\n   \"time\": \""));
    time_add(response, push->wall_ns);
    kb_admin_add(response, KB_STR("\""));
    member_add(response, "type", kb_str_from_cstr(push->type));
    member_add(response, "way", kb_str_from_cstr(push->way));
    member_add(response, "version", push->version);
    kb_admin_printf(response, ",\n   \"accepted\": %s", push->error.p == NULL ? "true" : "false");
    if (push->error.p != NULL) {
        member_add(response, "error", push->error);
    }
    for (int i = 0; i < KB_ADMIN_CHANGE_COUNT; i++) {
        changes_json_write(response, push, (enum kb_admin_change)i);
    }
    kb_admin_add(response, KB_STR("\n  }"));
    write->any = true;
}

KB_ADMIN_HANDLER(pushes)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    bool json = kb_str_eq(kb_admin_query_get(&request->query, KB_STR("format")), KB_STR("json"));
    struct pushes_write write = {.response = response};

    if (json) {
        kb_admin_set_content_type(response, KB_ADMIN_JSON);
        kb_admin_add(response, KB_STR("{\n \"pushes\": ["));
    }
    if (sources->visit_pushes != NULL) {
        sources->visit_pushes(sources->arg, json ? json_write : text_write, &write);
    }
    if (json) {
        kb_admin_add(response, write.any ? KB_STR("\n ]\n}\n") : KB_STR("]\n}\n"));
    } else if (!write.any) {
        kb_admin_add(response, KB_STR("no control plane has sent anything\n"));
    }
}
