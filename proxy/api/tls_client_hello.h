/* SPDX-License-Identifier: Apache-2.0 */
/* What a client says first on a TLS connection (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2),
 * read without consuming it: for listener filters. Bytes in, slices out; no state, no I/O.
 * Implemented in tls/tls_client_hello.c. */
#pragma once

#include <stdint.h>

#include "base/str.h"

#define KB_CLIENT_HELLO_MAX 16384 /* bytes of the handshake message; Envoy's default limit too */

enum kb_client_hello_result {
    KB_CLIENT_HELLO_MORE,      /* so far a ClientHello, and more bytes are needed */
    KB_CLIENT_HELLO_DONE,      /* `hello` is filled */
    KB_CLIENT_HELLO_NOT_TLS,   /* these bytes do not begin with a well-formed ClientHello */
    KB_CLIENT_HELLO_TOO_LARGE, /* the message is longer than the limit */
};

/* Slices point into the bytes given, or into `scratch` when the message came in several records. */
struct kb_client_hello {
    uint16_t legacy_version;
    uint16_t max_version;        /* the highest of supported_versions, else legacy_version */
    struct kb_str server_name;   /* as sent; empty: none */
    struct kb_str alpn;          /* ProtocolNameList; see kb_client_hello_next_alpn */
    struct kb_str cipher_suites; /* two bytes each */
    struct kb_str extensions;    /* (type, length, bytes)*; see kb_client_hello_next_extension */
    size_t wire_bytes;           /* from the first byte up to the end of the message */
};

/* Looks at all bytes received so far, from the first on. `scratch` holds KB_CLIENT_HELLO_MAX bytes
 * and is used when the message spans records. `limit`: longest message accepted, at most
 * KB_CLIENT_HELLO_MAX. Costs nothing but a walk over record headers until the message is whole. */
enum kb_client_hello_result kb_client_hello_parse(struct kb_str bytes, size_t limit, char *scratch,
                                                  struct kb_client_hello *hello);

/* Takes the next protocol name off *alpn; false at its end. The list was checked by the parser. */
bool kb_client_hello_next_alpn(struct kb_str *alpn, struct kb_str *name);
/* Takes the next extension off *extensions; false at its end. */
bool kb_client_hello_next_extension(struct kb_str *extensions, uint16_t *type,
                                    struct kb_str *bytes);
