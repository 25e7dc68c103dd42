/* SPDX-License-Identifier: Apache-2.0 */
/* Which rules intercept what the settings say: the one place that knows Istio's chains. */
#pragma once

#include "iptables/rules.h"
#include "iptables/settings.h"

#define KB_AGENT_DNS_PORT "15053"

/* The rules for IPv4, or with `ipv6` those for IPv6, behind those that `out` has. The settings have
 * been checked, and have what the machine says. */
void kb_plan_build(const struct kb_settings *settings, bool ipv6, struct kb_rules *out);
