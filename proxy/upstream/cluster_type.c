/* SPDX-License-Identifier: Apache-2.0 */
/* Which cluster type a message asks for, with Envoy's reason when there is none. */
#include "proxy/upstream/cluster_type.h"

#include "proto/any.h"

const struct kb_extension *kb_cluster_type_find(const Envoy__Config__Cluster__V3__Cluster *message,
                                                struct kb_arena *arena, struct kb_diag *diag)
{
    static const char *const names[] = {"envoy.cluster.static", "envoy.cluster.strict_dns",
                                        "envoy.cluster.logical_dns", "envoy.cluster.eds",
                                        "envoy.cluster.original_dst"};
    const struct kb_extension *found = NULL;
    struct kb_str type_url = KB_STR("");
    const char *name;

    if (message->cluster_discovery_type_case ==
        ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE) {
        name = message->cluster_type->name;
        kb_diag_push(diag, "cluster_type");
        if (message->cluster_type->typed_config != NULL) {
            type_url = kb_any_inner_name(message->cluster_type->typed_config, arena);
        }
        found = kb_extension_find(KB_EXT_CLUSTER, type_url,
                                  type_url.len > 0 ? KB_STR("") : kb_str_from_cstr(name));
        if (found == NULL && type_url.len > 0) {
            kb_diag_error(
                diag, "Didn't find a registered cluster factory implementation for type: '%.*s'",
                KB_STR_ARG(type_url));
        } else if (found == NULL) {
            kb_diag_error(diag,
                          "Didn't find a registered cluster factory implementation for name: '%s'",
                          name);
        }
    } else {
        unsigned type = message->cluster_discovery_type_case ==
                                ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE
                            ? (unsigned)message->type
                            : 0;

        kb_diag_push(diag, "type");
        found = type < KB_ARRAY_LEN(names)
                    ? kb_extension_find(KB_EXT_CLUSTER, KB_STR(""), kb_str_from_cstr(names[type]))
                    : NULL;
        if (found == NULL) {
            kb_diag_error(diag,
                          "Didn't find a registered cluster factory implementation for name: '%s'",
                          type < KB_ARRAY_LEN(names) ? names[type] : "");
        }
    }
    kb_diag_pop(diag);
    return found;
}
