/* SPDX-License-Identifier: Apache-2.0 */
/* What beside iptables: for TPROXY the routing of marked packets to this machine itself; for IPv6
 * the address from which the proxy connects to its app, ::6 (of 127.0.0.0/8 every address is
 * there). */
#pragma once

#include "iptables/settings.h"

/* What the settings need and is not there yet: 0, or -1 with the reason said. */
int kb_routes_make(const struct kb_settings *settings);

/* All of it, of both families: 0 also where nothing was, or -1 with the reason said. */
int kb_routes_remove(const struct kb_settings *settings);

/* The same as commands of ip(8), in comments, on standard output. */
void kb_routes_print(const struct kb_settings *settings);
