/* SPDX-License-Identifier: Apache-2.0 */
/* Building of a chain of HTTP filters, the connection manager's or that of attempts. Main thread.
 */
#pragma once

#include "proxy/api/extension.h"
#include "proxy/http/hcm.h"

struct kb_http_filter_chain_build {
    struct kb_hcm_filter_chain *chain;
    enum kb_extension_category category;
    const char *kind; /* "http", as errors say it */
    const char *hint; /* said when the last filter is not terminal; may be empty */
    struct kb_factory_context *factory; /* its arena lives as long as the chain */
    struct kb_diag *diag;
};

struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpFilter;
/* Errors are reported at `field` [i]. */
void kb_http_filter_chain_build(
    const struct kb_http_filter_chain_build *build,
    struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpFilter *const
        *filters,
    size_t count, const char *field);
/* Frees what the filters have, also after errors; not the chain. */
void kb_http_filter_chain_dispose(struct kb_hcm_filter_chain *chain);
