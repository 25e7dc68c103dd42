/* SPDX-License-Identifier: Apache-2.0 */
/* original_ip_detection_extensions of the connection manager: where else than in the connection's
 * address, or the default reading of x-forwarded-for, a client's address is found. */
#pragma once

#include "base/addr.h"
#include "base/diag.h"
#include "proxy/api/header_map.h"

struct kb_original_ip;
struct Envoy__Config__Core__V3__TypedExtensionConfig;

struct kb_original_ip_list {
    const struct kb_original_ip *items;
    size_t count;
};

struct kb_original_ip_result {
    bool found;
    bool trusted;           /* the address may be an internal one */
    bool append_xff;        /* the peer's address belongs to x-forwarded-for */
    unsigned reject_status; /* to be answered at once; 0: not */
    struct kb_addr addr;    /* when found */
};

/* Reads them into the arena; errors go to diag, under original_ip_detection_extensions. */
struct kb_original_ip_list
kb_original_ip_read(struct Envoy__Config__Core__V3__TypedExtensionConfig *const *messages, size_t n,
                    struct kb_arena *arena, struct kb_diag *diag);

/* Asks one after the other until one finds an address or rejects. */
void kb_original_ip_detect(const struct kb_original_ip_list *list,
                           const struct kb_header_map *request, const struct kb_addr *peer,
                           struct kb_original_ip_result *result);

/* The address `skip` entries from the right of x-forwarded-for. *single: the header has one entry.
 */
bool kb_original_ip_xff(struct kb_str xff, uint32_t skip, struct kb_addr *addr, bool *single);
