/* SPDX-License-Identifier: Apache-2.0 */
/* Network filters whose configuration comes over xDS (config_discovery). */
#pragma once

#include "proxy/api/network_filter.h"
#include "proxy/network/filter_discovery.h"

/* For kb_filter_provider_create; ops are struct kb_network_filter_ops. */
extern const struct kb_filter_discovery_kind kb_network_filter_discovery;
/* Stands in the chain for the filter that is discovered, which may be of another type for each
 * connection; its configuration is the provider, which goes with it. */
extern const struct kb_network_filter_ops kb_network_filter_discovered;
