/* SPDX-License-Identifier: Apache-2.0 */
/* Filters whose configuration comes over xDS (config_discovery, Envoy's ECDS): HTTP filters and
 * network filters alike. */
#pragma once

#include "base/slot.h"
#include "proxy/api/extension.h"
#include "proxy/api/factory_context.h"

/* What is different for each kind of filter; `ops` are those of the extension. */
struct kb_filter_discovery_kind {
    enum kb_extension_category category;
    const char *stats;  /* "http_filter" */
    const char *chain;  /* "http": in errors */
    bool needs_default; /* apply_default_config_without_warming only with a default_config */
    bool (*terminal)(const void *ops);
    int (*config_create)(const void *ops, const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config);
    void (*config_destroy)(const void *ops, void *config);
};

struct kb_filter_provider;
struct Envoy__Config__Core__V3__ExtensionConfigSource;

/* One published configuration, with the filter that it is for. */
struct kb_filter_config {
    struct kb_shared shared;
    const struct kb_filter_discovery_kind *kind;
    const void *ops;
    void *config;
    struct kb_arena arena;
};

/* Subscribes to `name`; factory->init waits for the first answer unless the default configuration
 * may be used at once. `last`: it stands where the terminal filter does. NULL only after an error
 * was reported. Main thread. */
struct kb_filter_provider *
kb_filter_provider_create(const struct kb_filter_discovery_kind *kind,
                          const struct Envoy__Config__Core__V3__ExtensionConfigSource *source,
                          struct kb_str name, bool last, struct kb_factory_context *factory,
                          struct kb_diag *diag);
/* When nobody asks it any more; what streams and connections hold stays until they let go. NULL is
 * allowed. */
void kb_filter_provider_destroy(struct kb_filter_provider *provider);
/* The present configuration on this worker, or NULL: there is none. Keep `shared` as long as a
 * filter of it lives. */
struct kb_filter_config *kb_filter_provider_get(const struct kb_filter_provider *provider,
                                                const struct kb_worker *worker);
