/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as messages. */
#pragma once

#include "base/addr.h"
#include "base/arena.h"
#include "envoy/config/core/v3/address.pb-c.h"

/* An IP address as socket_address, a unix one as pipe; in the arena. */
Envoy__Config__Core__V3__Address *kb_admin_address(const struct kb_addr *addr,
                                                   struct kb_arena *arena);
