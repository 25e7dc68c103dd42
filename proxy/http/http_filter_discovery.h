/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP filters whose configuration comes over xDS (config_discovery, Envoy's ECDS). For the files
 * of the connection manager only. */
#pragma once

#include "base/slot.h"
#include "proxy/api/http_filter.h"

struct kb_http_filter_provider;
struct Envoy__Config__Core__V3__ExtensionConfigSource;

/* One published configuration, with the filter that it is for. */
struct kb_http_filter_config {
    struct kb_shared shared;
    const struct kb_http_filter_ops *ops;
    void *config;
    struct kb_arena arena;
};

/* Subscribes to `name`; factory->init waits for the first answer unless the default configuration
 * may be used at once. `last`: it stands where the terminal filter does. NULL only after an error
 * was reported. Main thread. */
struct kb_http_filter_provider *
kb_http_filter_provider_create(const struct Envoy__Config__Core__V3__ExtensionConfigSource *source,
                               struct kb_str name, bool last, struct kb_factory_context *factory,
                               struct kb_diag *diag);
/* When no stream asks it any more; what streams hold stays until they let go. NULL is allowed. */
void kb_http_filter_provider_destroy(struct kb_http_filter_provider *provider);
/* The present configuration on this worker, or NULL: there is none. Keep `shared` as long as a
 * filter of it lives. */
struct kb_http_filter_config *
kb_http_filter_provider_get(const struct kb_http_filter_provider *provider,
                            const struct kb_worker *worker);

/* Stands in for a filter without a configuration: answers 500 with the flag NFCF. */
extern const struct kb_http_filter_ops kb_http_filter_missing;
