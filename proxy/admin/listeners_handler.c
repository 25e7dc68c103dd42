/* SPDX-License-Identifier: Apache-2.0 */
/* /listeners: names and addresses. */
#include "envoy/admin/v3/listeners.pb-c.h"
#include "proto/address.h"
#include "proxy/admin/admin_internal.h"

#define NEW(type, lower, arena) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

struct listeners_write {
    struct kb_admin_response *response;
    bool any;
};

static void text_write(void *arg, const struct kb_admin_listener *listener)
{
    const struct listeners_write *write = arg;
    char text[KB_ADDR_TEXT_MAX];

    for (size_t i = 0; i < listener->addr_count; i++) {
        kb_admin_add(write->response, listener->name);
        kb_admin_add(write->response, KB_STR("::"));
        kb_admin_add(write->response, kb_addr_text(&listener->addrs[i], text));
        kb_admin_add(write->response, KB_STR("\n"));
    }
}

static void json_write(void *arg, const struct kb_admin_listener *listener)
{
    struct listeners_write *write = arg;
    Envoy__Admin__V3__ListenerStatus *status;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    status = NEW(Envoy__Admin__V3__ListenerStatus, envoy__admin__v3__listener_status, &arena);
    status->name = kb_admin_text(listener->name, &arena);
    status->additional_local_addresses = kb_arena_alloc(
        &arena, (listener->addr_count + 1) * sizeof(*status->additional_local_addresses),
        sizeof(void *));
    for (size_t i = 0; i < listener->addr_count; i++) {
        Envoy__Config__Core__V3__Address *address = kb_address_message(&listener->addrs[i], &arena);

        if (i == 0) {
            status->local_address = address;
        } else {
            status->additional_local_addresses[status->n_additional_local_addresses++] = address;
        }
    }
    kb_admin_add(write->response,
                 write->any ? KB_STR(",\n  ") : KB_STR("{\n \"listener_statuses\": [\n  "));
    kb_pb_json_write(&write->response->body, &status->base, KB_PB_JSON_PRETTY, 2);
    write->any = true;
    kb_arena_dispose(&arena);
}

KB_ADMIN_HANDLER(listeners)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    bool json = kb_str_eq(kb_admin_query_get(&request->query, KB_STR("format")), KB_STR("json"));
    struct listeners_write write = {.response = response};

    if (sources->visit_listeners != NULL) {
        sources->visit_listeners(sources->arg, json ? json_write : text_write, &write);
    }
    if (json) {
        kb_admin_set_content_type(response, KB_ADMIN_JSON);
        kb_admin_add(response, write.any ? KB_STR("\n ]\n}\n") : KB_STR("{}\n"));
    }
}
