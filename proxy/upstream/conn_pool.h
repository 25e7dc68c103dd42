/* SPDX-License-Identifier: Apache-2.0 */
/* Connection pools; requests come in through proxy/api/codec.h. */
#pragma once

#include "proxy/api/codec.h"

/* For kb_host_set_removed_cb: closes the host's idle connections; busy ones end with their request,
 * then the pool goes. */
void kb_conn_pools_host_removed(struct kb_worker *worker, struct kb_host_local *local);
/* For kb_host_set_failed_cb. */
void kb_conn_pools_host_failed(struct kb_worker *worker, struct kb_host_local *local);
