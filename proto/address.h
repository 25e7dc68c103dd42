/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as messages (envoy.config.core.v3.Address): for pages, logs and events. */
#pragma once

#include "base/addr.h"
#include "base/arena.h"
#include "envoy/config/core/v3/address.pb-c.h"

/* An IP address as socket_address, a unix one as pipe; in the arena. NULL for no address (NULL, or
 * a length of 0). What is not UTF-8 in a path is as kb_pb_text makes it. */
Envoy__Config__Core__V3__Address *kb_address_message(const struct kb_addr *addr,
                                                     struct kb_arena *arena);
