/* SPDX-License-Identifier: Apache-2.0 */
/* Finds loops that do not turn: every thread's own timer notices when it comes late, and the main
 * thread looks whether a worker has stopped altogether. Counts under "main_thread.", "workers." and
 * "server.<thread>.". Envoy: guarddog. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "proxy/api/factory_context.h"

#define KB_WATCHDOG_MISS_MS     200
#define KB_WATCHDOG_MEGAMISS_MS 1000

struct kb_watchdog;

/* Starts watching the main thread and every worker of `server`. `message` (bootstrap.watchdogs) may
 * be NULL. Before the workers run. */
struct kb_watchdog *kb_watchdog_create(struct kb_server_context *server,
                                       const Envoy__Config__Bootstrap__V3__Watchdogs *message);
/* After the workers ended and before their loops are disposed. NULL is allowed. */
void kb_watchdog_destroy(struct kb_watchdog *watchdog);
