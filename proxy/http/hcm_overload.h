/* SPDX-License-Identifier: Apache-2.0 */
/* What an overloaded process asks of a worker's downstream HTTP connections. On that worker. */
#pragma once

#include "base/buf.h"
#include "base/worker.h"

struct kb_hcm;

/* The share by which reduce_timeouts shortens timers has changed: moves those that are armed. */
void kb_http_worker_timers_scale(struct kb_worker *worker);
/* Load-shed points at the codec of an open connection whose input is `in`: closes or drains the
 * connection, or aborts its request; true when nothing of `in` may be read on. Only while something
 * is overloaded. */
bool kb_hcm_dispatch_shed(struct kb_hcm *hcm, struct kb_buf *in);
/* Ends keep-alive connections without a stream. Those of the admin port stay. */
void kb_http_worker_close_idle(struct kb_worker *worker);
/* Resets the streams that hold at least so many bytes of bodies and for their filters, at most
 * `max` of them; returns how many. */
unsigned kb_http_worker_reset_large(struct kb_worker *worker, size_t bytes, unsigned max);
