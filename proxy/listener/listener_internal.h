/* SPDX-License-Identifier: Apache-2.0 */
/* What only the files of this room call. */
#pragma once

#include "proxy/listener/listener.h"

/* Chains and listeners whose memory is not given back yet. Main thread. */
uint32_t kb_filter_chains_alive(void);

/* A connection or socket of this part is there, or gone. On its worker. */
void kb_listener_worker_count(struct kb_listener_worker *lw);
void kb_listener_worker_uncount(struct kb_listener_worker *lw);
/* Gives up one of workers_holding; any thread. */
void kb_active_listener_release(struct kb_active_listener *active);
