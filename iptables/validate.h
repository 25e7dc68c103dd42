/* SPDX-License-Identifier: Apache-2.0 */
/* --run-validation: does a connection as the proxy would make it come back to the proxy's ports? */
#pragma once

#include "iptables/say.h"
#include "iptables/settings.h"

/* Listens on the proxy's two ports of the loopback and connects to another port of 127.0.0.6 (::6)
 * until that arrives with the port it was for, or the time is over. KB_EXIT_OK, or
 * KB_EXIT_NOT_VALID with the reason said. The proxy must not run yet; as root it connects as the
 * proxy's user, otherwise as it is. */
enum kb_exit kb_validate(const struct kb_settings *settings);
