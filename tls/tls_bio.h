/* SPDX-License-Identifier: Apache-2.0 */
/* Our own BIO: OpenSSL reads what a recv brought and writes to a byte queue; it never sees a
 * descriptor. For this room. */
#pragma once

#include <openssl/bio.h>

#include "base/buf.h"

/* What stands behind one BIO; part of the socket. */
struct kb_tls_bio {
    struct kb_str input; /* what is left of the bytes received */
    struct kb_buf output;
};

/* A method, freed with BIO_meth_free; NULL when out of memory. */
BIO_METHOD *kb_tls_bio_method_create(void);
