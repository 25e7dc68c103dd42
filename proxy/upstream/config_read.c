/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of durations and addresses with Envoy's reasons. */
#include "proxy/upstream/config_read.h"

uint64_t kb_config_duration_ms(const Google__Protobuf__Duration *duration, const char *field,
                               uint64_t absent, struct kb_diag *diag)
{
    if (duration == NULL) {
        return absent;
    }
    if (duration->seconds < 0 || duration->nanos < 0 || duration->nanos > 999999999) {
        kb_diag_push(diag, field);
        kb_diag_error(diag, "Invalid duration: Expected positive duration: seconds: %lld nanos: %d",
                      (long long)duration->seconds, (int)duration->nanos);
        kb_diag_pop(diag);
        return absent;
    }
    /* The largest duration of protobuf is 10,000 years, so this does not overflow; but a peer may
     * send more. */
    if ((uint64_t)duration->seconds > UINT64_MAX / 2000) {
        return UINT64_MAX / 2;
    }
    return (uint64_t)duration->seconds * 1000 + (uint64_t)duration->nanos / 1000000;
}

int kb_config_socket_address(const Envoy__Config__Core__V3__SocketAddress *message,
                             const char *hint, struct kb_addr *out, struct kb_diag *diag)
{
    if (message->resolver_name[0] != '\0') {
        kb_diag_error(diag, "Unknown address resolver: %s%s", message->resolver_name, hint);
        return KB_ECONFIG;
    }
    if (message->port_specifier_case !=
            ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE &&
        message->port_specifier_case !=
            ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER__NOT_SET) {
        kb_diag_error(diag, "IP resolver can't handle port specifier type %d%s",
                      (int)message->port_specifier_case, hint);
        return KB_ECONFIG;
    }
    if (kb_addr_from_ip(out, kb_str_from_cstr(message->address), (uint16_t)message->port_value) !=
        0) {
        kb_diag_error(diag, "malformed IP address: %s%s", message->address, hint);
        return KB_ECONFIG;
    }
    return 0;
}

int kb_config_address(const Envoy__Config__Core__V3__Address *message, const char *hint,
                      struct kb_addr *out, struct kb_diag *diag)
{
    int rc;

    if (message != NULL &&
        message->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        kb_diag_push(diag, "socket_address");
        rc = kb_config_socket_address(message->socket_address, hint, out, diag);
        kb_diag_pop(diag);
        return rc;
    }
    if (message != NULL &&
        message->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE) {
        if (kb_addr_from_path(out, kb_str_from_cstr(message->pipe->path)) != 0) {
            kb_diag_push(diag, "pipe");
            kb_diag_error(diag, "Path \"%s\" exceeds maximum UNIX domain socket path size of %zu.",
                          message->pipe->path, sizeof(out->un.sun_path));
            kb_diag_pop(diag);
            return KB_ECONFIG;
        }
        return 0;
    }
    if (message != NULL &&
        message->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS) {
        kb_diag_error(diag, "envoy_internal_address is not implemented yet");
        return KB_ECONFIG;
    }
    kb_diag_error(diag, "Address must be set%s", hint);
    return KB_ECONFIG;
}
