/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of core_sources. */
#pragma once

#include "base/vec.h"
#include "proxy/admin/core_sources.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/priority_set.h"

struct kb_admin_entries {
    const struct kb_cluster_entry **items;
    size_t len;
    size_t cap;
};

/* All clusters by name; kb_vec_dispose it. `manager` may be NULL. */
void kb_admin_entries_init(struct kb_admin_entries *entries,
                           const struct kb_cluster_manager *manager);

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
void kb_admin_refused_listeners(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                                void *visit_arg);
