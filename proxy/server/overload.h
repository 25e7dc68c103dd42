/* SPDX-License-Identifier: Apache-2.0 */
/* The overload manager of the bootstrap, and the ceiling of memory: looks at resources every
 * refresh_interval, and tells the workers what not to do (proxy/api/overload.h). Main thread. */
#pragma once

#include "envoy/config/overload/v3/overload.pb-c.h"

#include "base/diag.h"
#include "proxy/api/factory_context.h"

struct kb_overload;

/* `message` may be NULL; max_memory 0: no ceiling. Errors are in diag; never NULL. */
struct kb_overload *kb_overload_create(struct kb_server_context *server,
                                       const Envoy__Config__Overload__V3__OverloadManager *message,
                                       uint64_t max_memory, struct kb_diag *diag);
/* When the workers ended. NULL is allowed. */
void kb_overload_destroy(struct kb_overload *overload);
/* Begins to look. */
void kb_overload_start(struct kb_overload *overload);
