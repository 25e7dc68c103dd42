/* SPDX-License-Identifier: Apache-2.0 */
/* What a control plane of Istio says of a cluster in metadata.filter_metadata["istio"]: read once,
 * so that filters need not look into packed metadata for every request. */
#include "proxy/upstream/cluster_istio.h"

#include <string.h>

#include "google/protobuf/struct.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"

/* The text stands in the cluster's packed metadata too, which lives as long as the cluster. */
static struct kb_str text_of(const Google__Protobuf__Value *value, struct kb_str packed)
{
    struct kb_str text;
    ptrdiff_t at;

    if (value == NULL || value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        return KB_STR_NULL;
    }
    text = kb_wkt_str(value->string_value);
    at = kb_str_find(packed, text);
    return at < 0 ? KB_STR("") : kb_str_make(packed.p + at, text.len);
}

static bool flag_of(const Google__Protobuf__Struct *object, struct kb_str name)
{
    const Google__Protobuf__Value *value = kb_struct_get(object, name);

    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE &&
           value->bool_value;
}

static void service_read(struct kb_cluster_istio *istio, const Google__Protobuf__Value *services,
                         struct kb_str packed)
{
    const Google__Protobuf__Value *first;
    ptrdiff_t dot;

    if (services == NULL || services->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE ||
        services->list_value->n_values == 0) {
        return;
    }
    first = services->list_value->values[0];
    if (first->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        return;
    }
    istio->has_service = true;
    istio->service_host = text_of(kb_struct_get(first->struct_value, KB_STR("host")), packed);
    istio->service_namespace =
        text_of(kb_struct_get(first->struct_value, KB_STR("namespace")), packed);
    istio->service_name = text_of(kb_struct_get(first->struct_value, KB_STR("name")), packed);
    if (istio->service_name.p == NULL && istio->service_host.p != NULL) {
        dot = kb_str_find_char(istio->service_host, '.');
        istio->service_name =
            dot < 0 ? istio->service_host : kb_str_first(istio->service_host, (size_t)dot);
    }
}

void kb_cluster_istio_read(struct kb_cluster_istio *istio, struct kb_str packed,
                           const Envoy__Config__Core__V3__Metadata *metadata)
{
    static uint64_t last;
    const Google__Protobuf__Struct *object = kb_metadata_get(metadata, KB_STR("istio"));
    const Google__Protobuf__Value *alpn = kb_struct_get(object, KB_STR("alpn_override"));

    istio->serial = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
    service_read(istio, kb_struct_get(object, KB_STR("services")), packed);
    istio->external = flag_of(object, KB_STR("external"));
    istio->disable_mx = flag_of(object, KB_STR("disable_mx"));
    istio->keeps_alpn = alpn != NULL &&
                        alpn->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE &&
                        strcmp(alpn->string_value, "false") == 0;
}
