/* SPDX-License-Identifier: Apache-2.0 */
/* All that this process owns, for the files of proxy/server. */
#pragma once

#include "base/file_watch.h"
#include "base/init_manager.h"
#include "proxy/admin/admin.h"
#include "proxy/admin/core_sources.h"
#include "proxy/listener/listener_manager.h"
#include "proxy/server/bootstrap.h"
#include "proxy/server/cds_api.h"
#include "proxy/server/lds_api.h"
#include "proxy/server/lifecycle.h"
#include "proxy/server/overload.h"
#include "proxy/server/runtime.h"
#include "proxy/server/server_stats.h"
#include "proxy/server/unsupported.h"
#include "proxy/server/watchdog.h"
#include "proxy/server/xds_glue.h"

struct kb_server {
    KB_OBJ;
    const struct kb_options *options;
    struct kb_server_context context;
    struct kb_bootstrap bootstrap;
    struct kb_diag diag;
    struct kb_worker main;
    struct kb_lifecycle lifecycle;
    struct kb_unsupported unsupported;
    struct kb_listener_manager *listeners;
    struct kb_admin *admin;
    struct kb_listener *admin_listener; /* until the listener manager has it */
    struct kb_server_stats *stats;
    struct kb_watchdog *watchdog;
    struct kb_overload *overload;
    struct kb_init_manager init; /* what the workers wait for */
    struct kb_cds_api *cds;      /* NULL: no cds_config */
    struct kb_lds_api *lds;
    struct kb_admin_dynamic admin_dynamic;
    struct kb_deferred xds_start;
    int exit_code;
    bool main_ready; /* the main worker can be disposed */
};
KB_OBJ_MAGIC(kb_server, 0x53525652);

/* ---- server_build.c ---- */

/* Makes all of it from server->bootstrap. Errors are in server->diag; what was made until then is
 * there, and taken down by kb_server_dispose. */
void kb_server_build(struct kb_server *server);
/* When no thread of it runs any more; after kb_server_build, whole or not, or without it. */
void kb_server_dispose(struct kb_server *server);
