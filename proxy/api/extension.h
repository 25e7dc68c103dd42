/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of extensions: one table, made from proxy/ext/meson.build. Lookup is by the
 * configuration's type URL, then by name, as in Envoy. */
#pragma once

#include "base/str.h"

enum kb_extension_category {
    KB_EXT_NETWORK_FILTER,
    KB_EXT_UPSTREAM_NETWORK_FILTER,
    KB_EXT_HTTP_FILTER,
    KB_EXT_UPSTREAM_HTTP_FILTER, /* of attempts; proxy/http/upstream_http_filters.h */
    KB_EXT_LISTENER_FILTER,
    KB_EXT_TRANSPORT_SOCKET_DOWNSTREAM,
    KB_EXT_TRANSPORT_SOCKET_UPSTREAM,
    KB_EXT_ACCESS_LOGGER,
    KB_EXT_LB,
    KB_EXT_CLUSTER,
    KB_EXT_STAT_SINK,
};

struct kb_extension {
    enum kb_extension_category category;
    const char *name;     /* "envoy.filters.http.router" */
    const char *type_url; /* "envoy.extensions.filters.http.router.v3.Router" */
    const void *ops;      /* the category's vtable */
};

/* All extensions of the binary. */
extern const struct kb_extension kb_extensions[];
extern const size_t kb_extension_count;

/* The extension, or NULL. `type_url` without "type.googleapis.com/"; may be empty. */
const struct kb_extension *kb_extension_find(enum kb_extension_category category,
                                             struct kb_str type_url, struct kb_str name);

/* Envoy's name of the category ("envoy.filters.http"). */
const char *kb_extension_category_name(enum kb_extension_category category);

/* Takes an extension out of use (--disable-extensions):
 * "envoy.filters.http/envoy.filters.http.router". KB_EINVALID: not of that form; KB_ENOTFOUND:
 * there is none. Main thread, before anything is built. */
int kb_extension_disable(struct kb_str category_and_name) KB_MUST_USE;
