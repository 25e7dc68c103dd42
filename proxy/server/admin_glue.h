/* SPDX-License-Identifier: Apache-2.0 */
/* What the admin pages know of this process and may do to it. */
#pragma once

#include "proxy/admin/admin.h"
#include "proxy/server/server_internal.h"

/* Fills in all members; `server` is their argument and must outlive the admin interface. */
void kb_admin_glue_fill(struct kb_server *server, struct kb_admin_sources *sources);

/* An envoy.admin.v3.CommandLineOptions in the arena. */
const struct Envoy__Admin__V3__CommandLineOptions *
kb_options_message(const struct kb_options *options, struct kb_arena *arena);
