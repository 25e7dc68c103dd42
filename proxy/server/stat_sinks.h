/* SPDX-License-Identifier: Apache-2.0 */
/* The stats_sinks of the bootstrap: made at start, fed at every flush. Main thread. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "proxy/api/factory_context.h"

/* Makes those that there are; reports mistakes. */
void kb_stat_sinks_configure(struct kb_server_context *server,
                             const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                             struct kb_diag *diag);
/* Whether there is one. */
bool kb_stat_sinks_any(void);
/* Their connections end; on the main thread, before its connections are closed. */
void kb_stat_sinks_close(void);
/* Before the store goes. */
void kb_stat_sinks_dispose(void);
