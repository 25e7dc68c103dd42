/* SPDX-License-Identifier: Apache-2.0 */
/* /ready, /server_info, /memory, /certs, /init_dump, /hot_restart_version, /contention: what the
 * process is and how it does. */
#include "envoy/admin/v3/certs.pb-c.h"
#include "envoy/admin/v3/init_dump.pb-c.h"
#include "envoy/admin/v3/memory.pb-c.h"
#include "proxy/admin/admin_internal.h"

KB_ADMIN_HANDLER(ready)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    const char *state = sources->state_name(sources->arg);

    response->status = strcmp(state, "LIVE") == 0 ? 200 : 503;
    kb_admin_printf(response, "%s\n", state);
}

KB_ADMIN_HANDLER(server_info)
{
    const struct kb_admin_sources *sources = &request->admin->sources;

    kb_admin_answer_message(response, sources->server_info(sources->arg, request->arena),
                            KB_PB_JSON_DEFAULTS);
    if (sources->from_config_cache != NULL && sources->from_config_cache(sources->arg)) {
        KB_ASSERT(response->body.len >= 3);
        response->body.len -= 3; /* "\n}\n" */
        kb_admin_add(response, KB_STR(",\n \"kobune_config_cache\": \"serving\"\n}\n"));
    }
}

KB_ADMIN_HANDLER(memory)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    struct kb_admin_memory memory = {0};
    Envoy__Admin__V3__Memory message;

    sources->memory(sources->arg, &memory);
    kb_pb_init(&envoy__admin__v3__memory__descriptor, &message.base);
    message.allocated = memory.allocated;
    message.heap_size = memory.heap_size;
    message.pageheap_unmapped = memory.pageheap_unmapped;
    message.pageheap_free = memory.pageheap_free;
    message.total_thread_cache = memory.total_thread_cache;
    message.total_physical_bytes = memory.total_physical_bytes;
    kb_admin_answer_message(response, &message.base, KB_PB_JSON_DEFAULTS);
}

KB_ADMIN_HANDLER(memory_tcmalloc)
{
    (void)request;
    kb_admin_answer(response, 501, KB_STR("The current build does not use TCMalloc; see /memory"));
}

KB_ADMIN_HANDLER(certs)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    const ProtobufCMessage *message = NULL;
    Envoy__Admin__V3__Certificates none;

    if (sources->certificates != NULL) {
        message = sources->certificates(sources->arg, request->arena);
    }
    if (message == NULL) {
        kb_pb_init(&envoy__admin__v3__certificates__descriptor, &none.base);
        message = &none.base;
    }
    kb_admin_answer_message(response, message, KB_PB_JSON_DEFAULTS);
}

KB_ADMIN_HANDLER(init_dump)
{
    const struct kb_admin_sources *sources = &request->admin->sources;
    struct kb_str mask = kb_admin_query_get(&request->parameters, KB_STR("mask"));
    const ProtobufCMessage *message = NULL;
    Envoy__Admin__V3__UnreadyTargetsDumps none;

    if (sources->unready_targets != NULL &&
        (mask.len == 0 || kb_str_eq(mask, KB_STR("listener")))) {
        message = sources->unready_targets(sources->arg, request->arena);
    }
    if (message == NULL) {
        kb_pb_init(&envoy__admin__v3__unready_targets_dumps__descriptor, &none.base);
        message = &none.base;
    }
    kb_admin_answer_message(response, message, 0);
}

KB_ADMIN_HANDLER(hot_restart_version)
{
    const struct kb_admin_sources *sources = &request->admin->sources;

    kb_admin_printf(response, "%s", sources->hot_restart_version(sources->arg));
}

KB_ADMIN_HANDLER(contention)
{
    (void)request;
    kb_admin_add(response,
                 KB_STR("Mutex contention tracing is not enabled. To enable, run Envoy with flag "
                        "--enable-mutex-tracing."));
}
