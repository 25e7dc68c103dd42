/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as messages. */
#include "proto/address.h"

#include "proto/wire.h"

Envoy__Config__Core__V3__Address *kb_address_message(const struct kb_addr *addr,
                                                     struct kb_arena *arena)
{
    Envoy__Config__Core__V3__Address *message;
    char text[KB_ADDR_TEXT_MAX];

    if (addr == NULL || addr->len == 0) {
        return NULL;
    }
    message = KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Address);
    envoy__config__core__v3__address__init(message);
    if (kb_addr_is_ip(addr)) {
        Envoy__Config__Core__V3__SocketAddress *socket =
            KB_ARENA_NEW(arena, Envoy__Config__Core__V3__SocketAddress);

        envoy__config__core__v3__socket_address__init(socket);
        socket->address = kb_pb_text(kb_addr_ip_text(addr, text), arena);
        socket->port_specifier_case =
            ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
        socket->port_value = kb_addr_port(addr);
        message->address_case = ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS;
        message->socket_address = socket;
    } else {
        Envoy__Config__Core__V3__Pipe *pipe = KB_ARENA_NEW(arena, Envoy__Config__Core__V3__Pipe);

        envoy__config__core__v3__pipe__init(pipe);
        pipe->path = kb_pb_text(kb_addr_text(addr, text), arena);
        message->address_case = ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE;
        message->pipe = pipe;
    }
    return message;
}
