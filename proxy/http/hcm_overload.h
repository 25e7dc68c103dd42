/* SPDX-License-Identifier: Apache-2.0 */
/* What an overloaded process asks of a worker's downstream HTTP connections. On that worker. */
#pragma once

#include "base/worker.h"

/* The share by which reduce_timeouts shortens timers has changed: moves those that are armed. */
void kb_http_worker_timers_scale(struct kb_worker *worker);
/* Ends keep-alive connections without a stream. Those of the admin port stay. */
void kb_http_worker_close_idle(struct kb_worker *worker);
/* Resets the streams that hold at least so many bytes of bodies, at most `max` of them; returns how
 * many. */
unsigned kb_http_worker_reset_large(struct kb_worker *worker, size_t bytes, unsigned max);
