/* SPDX-License-Identifier: Apache-2.0 */
/* Labels of hosts that retries leave out: packed values, compared as bytes. */
#include "proxy/router/retry_host_metadata.h"

#include "envoy/extensions/retry/host/omit_host_metadata/v3/omit_host_metadata_config.pb-c.h"

#include "proto/pb.h"
#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/metadata_criteria.h"

typedef Envoy__Extensions__Retry__Host__OmitHostMetadata__V3__OmitHostMetadataConfig omit_message;

struct label {
    struct kb_str name, value;
};

struct kb_host_labels {
    size_t count;
    struct label labels[];
};

const struct kb_host_labels *kb_host_labels_create(const Google__Protobuf__Any *config,
                                                   struct kb_arena *arena, struct kb_diag *diag)
{
    const omit_message *m = KB_ANY_UNPACK(
        config, envoy__extensions__retry__host__omit_host_metadata__v3__omit_host_metadata_config,
        omit_message, arena, diag);
    const Google__Protobuf__Struct *space =
        m != NULL ? kb_metadata_get(m->metadata_match, KB_STR(KB_METADATA_LB)) : NULL;
    size_t count = space != NULL ? space->n_fields : 0;
    struct kb_host_labels *labels;

    if (m == NULL) {
        return NULL;
    }
    labels = kb_arena_calloc(arena, sizeof(*labels) + count * sizeof(labels->labels[0]));
    labels->count = count;
    for (size_t i = 0; i < count; i++) {
        labels->labels[i].name = kb_str_dup(arena, kb_str_from_cstr(space->fields[i]->key));
        if (space->fields[i]->value != NULL) { /* one without is an empty message */
            labels->labels[i].value = kb_pb_pack(&space->fields[i]->value->base, arena);
        }
    }
    return labels;
}

static bool value_fits(const struct label *label, const Google__Protobuf__Value *value,
                       struct kb_arena *arena)
{
    if (value == NULL) {
        return false;
    }
    if (kb_str_eq(kb_pb_pack(&value->base, arena), label->value)) {
        return true;
    }
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        return false;
    }
    for (size_t i = 0; i < value->list_value->n_values; i++) { /* one of a list is enough */
        if (kb_str_eq(kb_pb_pack(&value->list_value->values[i]->base, arena), label->value)) {
            return true;
        }
    }
    return false;
}

bool kb_host_labels_match(const struct kb_host_labels *labels, const struct kb_host *host,
                          struct kb_pool *blocks)
{
    const Google__Protobuf__Struct *space;
    struct kb_arena arena;
    bool fits = true;

    kb_arena_init(&arena, blocks);
    space = kb_packed_metadata_get(kb_host_metadata(host), KB_STR(KB_METADATA_LB), &arena);
    for (size_t i = 0; i < labels->count && fits; i++) {
        fits = value_fits(&labels->labels[i], kb_struct_get(space, labels->labels[i].name), &arena);
    }
    kb_arena_dispose(&arena);
    return fits;
}
