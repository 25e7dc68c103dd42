/* SPDX-License-Identifier: Apache-2.0 */
/* The admin port: a listener on the main thread whose connection manager has one filter, which
 * answers from proxy/admin. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "proxy/admin/admin.h"
#include "proxy/listener/listener.h"

/* The listener of bootstrap.admin; NULL after an error was reported at the present path (that of
 * admin). `admin` must outlive it. The caller hands it to kb_listener_manager_add_admin. */
struct kb_listener *kb_admin_listener_create(struct kb_server_context *server,
                                             struct kb_admin *admin,
                                             const Envoy__Config__Bootstrap__V3__Admin *message,
                                             struct kb_diag *diag);
