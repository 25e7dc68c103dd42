/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing and keeping struct kb_transport_socket_options. For conn_pool.c. */
#pragma once

#include "base/arena.h"
#include "proxy/api/transport_socket.h"

/* Whether connections made with `a` serve for `b`; neither of them is the other's pointer. */
bool kb_pool_options_equal(const struct kb_transport_socket_options *a,
                           const struct kb_transport_socket_options *b) KB_NOINLINE;
/* A copy in the arena, texts included. */
const struct kb_transport_socket_options *
kb_pool_options_copy(const struct kb_transport_socket_options *options, struct kb_arena *arena);
