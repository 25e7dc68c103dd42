/* SPDX-License-Identifier: Apache-2.0 */
/* Finding an extension in the table that the build makes from meson.build. */
#include "proxy/api/extension.h"

#include "base/obj.h"

#define EXTENSIONS_MAX 256

static const char *const categories[] = {
    [KB_EXT_NETWORK_FILTER] = "envoy.filters.network",
    [KB_EXT_UPSTREAM_NETWORK_FILTER] = "envoy.filters.upstream_network",
    [KB_EXT_HTTP_FILTER] = "envoy.filters.http",
    [KB_EXT_UPSTREAM_HTTP_FILTER] = "envoy.filters.http.upstream",
    [KB_EXT_LISTENER_FILTER] = "envoy.filters.listener",
    [KB_EXT_TRANSPORT_SOCKET_DOWNSTREAM] = "envoy.transport_sockets.downstream",
    [KB_EXT_TRANSPORT_SOCKET_UPSTREAM] = "envoy.transport_sockets.upstream",
    [KB_EXT_ACCESS_LOGGER] = "envoy.access_loggers",
    [KB_EXT_LB] = "envoy.load_balancing_policies",
    [KB_EXT_CLUSTER] = "envoy.clusters",
    [KB_EXT_STAT_SINK] = "envoy.stats_sinks",
};

static bool disabled[EXTENSIONS_MAX];

const char *kb_extension_category_name(enum kb_extension_category category)
{
    return categories[category];
}

int kb_extension_disable(struct kb_str category_and_name)
{
    ptrdiff_t slash = kb_str_find_char(category_and_name, '/');
    struct kb_str category, name;
    bool found = false;

    KB_ASSERT(kb_extension_count <= EXTENSIONS_MAX);
    if (slash < 0) {
        return KB_EINVALID;
    }
    category = kb_str_first(category_and_name, (size_t)slash);
    name = kb_str_from(category_and_name, (size_t)slash + 1);
    for (size_t i = 0; i < kb_extension_count; i++) {
        if (kb_str_eq(kb_str_from_cstr(kb_extensions[i].name), name) &&
            kb_str_eq(kb_str_from_cstr(categories[kb_extensions[i].category]), category)) {
            disabled[i] = true;
            found = true;
        }
    }
    return found ? 0 : KB_ENOTFOUND;
}

const struct kb_extension *kb_extension_find(enum kb_extension_category category,
                                             struct kb_str type_url, struct kb_str name)
{
    for (size_t i = 0; type_url.len > 0 && i < kb_extension_count; i++) {
        if (!disabled[i] && kb_extensions[i].category == category &&
            kb_str_eq(kb_str_from_cstr(kb_extensions[i].type_url), type_url)) {
            return &kb_extensions[i];
        }
    }
    for (size_t i = 0; name.len > 0 && i < kb_extension_count; i++) {
        if (!disabled[i] && kb_extensions[i].category == category &&
            kb_str_eq(kb_str_from_cstr(kb_extensions[i].name), name)) {
            return &kb_extensions[i];
        }
    }
    return NULL;
}
