/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as messages, for pages that show them. */
#include "proxy/admin/address_message.h"

#include "proto/pb.h"
#include "proxy/admin/admin_internal.h"

#define NEW(type, lower, arena) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

Envoy__Config__Core__V3__Address *kb_admin_address(const struct kb_addr *addr,
                                                   struct kb_arena *arena)
{
    Envoy__Config__Core__V3__Address *message =
        NEW(Envoy__Config__Core__V3__Address, envoy__config__core__v3__address, arena);
    char text[KB_ADDR_TEXT_MAX];

    if (kb_addr_is_ip(addr)) {
        Envoy__Config__Core__V3__SocketAddress *socket = NEW(
            Envoy__Config__Core__V3__SocketAddress, envoy__config__core__v3__socket_address, arena);

        socket->address = kb_admin_text(kb_addr_ip_text(addr, text), arena);
        socket->port_specifier_case =
            ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
        socket->port_value = kb_addr_port(addr);
        message->address_case = ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS;
        message->socket_address = socket;
    } else {
        Envoy__Config__Core__V3__Pipe *pipe =
            NEW(Envoy__Config__Core__V3__Pipe, envoy__config__core__v3__pipe, arena);

        pipe->path = kb_admin_text(kb_addr_text(addr, text), arena);
        message->address_case = ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE;
        message->pipe = pipe;
    }
    return message;
}
