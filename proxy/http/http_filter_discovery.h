/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP filters whose configuration comes over xDS (config_discovery, Envoy's ECDS). For the files
 * of the connection manager only. */
#pragma once

#include "proxy/api/http_filter.h"
#include "proxy/network/filter_discovery.h"

/* For kb_filter_provider_create; ops are struct kb_http_filter_ops. */
extern const struct kb_filter_discovery_kind kb_http_filter_discovery;

/* Stands in for a filter without a configuration: answers 500 with the flag NFCF. */
extern const struct kb_http_filter_ops kb_http_filter_missing;
