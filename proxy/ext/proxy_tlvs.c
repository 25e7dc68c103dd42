/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing TLVs of the PROXY protocol by type. */
#include "proxy/ext/proxy_tlvs.h"

#include <string.h>

#include "envoy/config/core/v3/proxy_protocol.pb-c.h"
#include "proxy/network/proxy_proto.h"

void kb_proxy_tlv_choice_add(struct kb_proxy_tlv_choice *choice, uint32_t type)
{
    choice->types[(type & 0xff) / 8] |= (uint8_t)(1u << (type % 8));
}

void kb_proxy_tlv_choice_read(
    struct kb_proxy_tlv_choice *choice,
    const struct Envoy__Config__Core__V3__ProxyProtocolPassThroughTLVs *message)
{
    memset(choice, 0, sizeof(*choice));
    if (message == NULL) {
        return;
    }
    if (message->match_type ==
        ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_PASS_THROUGH_TLVS__PASS_TLVS_MATCH_TYPE__INCLUDE_ALL) {
        memset(choice->types, 0xff, sizeof(choice->types));
    }
    for (size_t i = 0; i < message->n_tlv_type; i++) {
        kb_proxy_tlv_choice_add(choice, message->tlv_type[i]);
    }
}

bool kb_proxy_tlv_chosen(const struct kb_proxy_tlv_choice *choice, uint8_t type)
{
    return (choice->types[type / 8] >> (type % 8) & 1) != 0;
}

void kb_proxy_tlvs_copy(char *out, size_t *len, struct kb_str tlvs,
                        const struct kb_proxy_tlv_choice *choice,
                        const struct kb_proxy_tlv_choice *except)
{
    struct kb_str value;
    uint8_t type;

    while (kb_proxy_proto_next_tlv(&tlvs, &type, &value)) {
        if (kb_proxy_tlv_chosen(choice, type) &&
            (except == NULL || !kb_proxy_tlv_chosen(except, type))) {
            (void)kb_proxy_proto_tlv_append(out, len, type, value);
        }
    }
}
