/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of core_sources. */
#pragma once

#include "base/map.h"
#include "base/vec.h"
#include "proxy/admin/core_sources.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/priority_set.h"

struct kb_admin_entries {
    const struct kb_cluster_entry **items;
    size_t len;
    size_t cap;
};

/* Clusters by name, those that serve or, `warming`, all; kb_vec_dispose it. `manager` may be NULL.
 */
void kb_admin_entries_init(struct kb_admin_entries *entries,
                           const struct kb_cluster_manager *manager, bool warming);

/* google.protobuf.Timestamp, and an Any of packed bytes, in the arena. */
struct Google__Protobuf__Timestamp *kb_admin_timestamp(uint64_t wall_ns, struct kb_arena *arena);
struct Google__Protobuf__Any *kb_admin_any_of_bytes(const ProtobufCMessageDescriptor *type,
                                                    struct kb_str packed, struct kb_arena *arena);

/* Elements of a section that came from the control plane. `dynamic` may be NULL. */
void kb_admin_dynamic_routes(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                             void *visit_arg);
void kb_admin_dynamic_secrets(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                              void *visit_arg);
void kb_admin_dynamic_extensions(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                                 void *visit_arg);
/* Those that have no version which serves or warms: `shown` has the names of the others. */
void kb_admin_refused_listeners(const struct kb_admin_dynamic *dynamic, const struct kb_map *shown,
                                kb_admin_config_fn visit, void *visit_arg);
/* Why the last change of a listener was refused, as envoy.admin.v3.UpdateFailureState; NULL: it was
 * not. */
struct Envoy__Admin__V3__UpdateFailureState *
kb_admin_refused_state(const struct kb_admin_dynamic *dynamic, struct kb_str name,
                       struct kb_arena *arena);
