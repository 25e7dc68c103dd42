/* SPDX-License-Identifier: Apache-2.0 */
/* What changes the process: health check, draining, logs, counters, the end. */
#include "proxy/admin/admin_internal.h"

KB_ADMIN_HANDLER(healthcheck_fail)
{
    request->admin->sources.fail_health_check(request->admin->sources.arg, true);
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(healthcheck_ok)
{
    request->admin->sources.fail_health_check(request->admin->sources.arg, false);
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(quitquitquit)
{
    request->admin->sources.quit(request->admin->sources.arg);
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(reopen_logs)
{
    request->admin->sources.reopen_logs(request->admin->sources.arg);
    kb_admin_add(response, KB_STR("OK\n"));
}

KB_ADMIN_HANDLER(drain_listeners)
{
    const struct kb_admin_sources *sources = &request->admin->sources;

    sources->drain_listeners(sources->arg,
                             kb_admin_query_has(&request->parameters, KB_STR("inboundonly")),
                             kb_admin_query_has(&request->parameters, KB_STR("graceful")),
                             kb_admin_query_has(&request->parameters, KB_STR("skip_exit")));
    kb_admin_add(response, KB_STR("OK\n"));
}
