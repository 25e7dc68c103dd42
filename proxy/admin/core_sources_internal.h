/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of core_sources. */
#pragma once

#include "base/vec.h"
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
