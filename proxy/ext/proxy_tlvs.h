/* SPDX-License-Identifier: Apache-2.0 */
/* Which TLVs of the PROXY protocol are passed on (pass_through_tlvs), of the listener filter that
 * reads them and of the transport socket that writes them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct Envoy__Config__Core__V3__ProxyProtocolPassThroughTLVs;

struct kb_proxy_tlv_choice {
    uint8_t types[32]; /* one bit each */
};

/* From the message; NULL: none. */
void kb_proxy_tlv_choice_read(
    struct kb_proxy_tlv_choice *choice,
    const struct Envoy__Config__Core__V3__ProxyProtocolPassThroughTLVs *message);
void kb_proxy_tlv_choice_add(struct kb_proxy_tlv_choice *choice, uint32_t type);
bool kb_proxy_tlv_chosen(const struct kb_proxy_tlv_choice *choice, uint8_t type);
/* Appends those of `tlvs` that are chosen and not in `except` (may be NULL) to `*len` bytes of
 * `out`, which has room for KB_PROXY_PROTO_TLVS_MAX; what does not fit is left out. */
void kb_proxy_tlvs_copy(char *out, size_t *len, struct kb_str tlvs,
                        const struct kb_proxy_tlv_choice *choice,
                        const struct kb_proxy_tlv_choice *except);
