/* SPDX-License-Identifier: Apache-2.0 */
/* The profilers: Kobune has none, and answers as an Envoy that was built without. */
#include "proxy/admin/admin_internal.h"

/* Whether the only parameter is enable=y or enable=n; answers otherwise. */
static bool enable_read(const struct kb_admin_request *request, struct kb_admin_response *response,
                        bool *enable)
{
    struct kb_str value = kb_admin_query_get(&request->parameters, KB_STR("enable"));

    *enable = kb_str_eq(value, KB_STR("y"));
    if (request->parameters.count == 1 && (*enable || kb_str_eq(value, KB_STR("n")))) {
        return true;
    }
    kb_admin_answer(response, 400, KB_STR("?enable=<y|n>\n"));
    return false;
}

KB_ADMIN_HANDLER(cpuprofiler)
{
    bool enable;

    if (!enable_read(request, response, &enable)) {
        return;
    }
    if (enable) {
        kb_admin_answer(response, 500, KB_STR("failure to start the profiler"));
        return;
    }
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(heapprofiler)
{
    (void)request;
    kb_admin_answer(response, 501, KB_STR("The current build does not support heap profiler"));
}

KB_ADMIN_HANDLER(allocprofiler)
{
    bool enable;

    if (!enable_read(request, response, &enable)) {
        return;
    }
    kb_admin_answer(response, 400,
                    KB_STR("Allocation profile is not implemented in current build"));
}

KB_ADMIN_HANDLER(heap_dump)
{
    (void)request;
    kb_admin_answer(response, 501, KB_STR("Heap profile is not implemented in current build"));
}
