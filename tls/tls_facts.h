/* SPDX-License-Identifier: Apache-2.0 */
/* What a certificate says, for logs, headers and filters: read when somebody asks, and shared by
 * all connections of a worker that show the same certificate with the same chain. A ticket carries
 * the certificates of who was let in, so that a resumed connection knows its peer; a worker that
 * has met them before decodes nothing. For this room; on one worker. */
#pragma once

#include <openssl/x509.h>

#include "proxy/api/ssl_connection_info.h"
#include "tls/tls_lib.h"

#define KB_TLS_FACTS_BYTES_MAX                                        \
    (32 * 1024) /* of a certificate with its chain that can be shared \
                 */

struct kb_tls_facts;

/* Those of a worker: with users, and the latest without. */
struct kb_tls_facts_table *kb_tls_facts_table_create(void);
/* Frees what has no users; what has some lives on by itself. */
void kb_tls_facts_table_destroy(struct kb_tls_facts_table *table);

/* Of `leaf`, which may be NULL (then NULL), and its chain with or without the leaf. One reference
 * for the caller. */
struct kb_tls_facts *kb_tls_facts_of(struct kb_tls_worker *tls, X509 *leaf,
                                     const STACK_OF(X509) * chain);
/* The same from kb_tls_facts_bytes; NULL when they are malformed. */
struct kb_tls_facts *kb_tls_facts_from_bytes(struct kb_tls_worker *tls, struct kb_str bytes);
/* The certificates in a form of our own, with their digest; empty when they are too long. Lives as
 * long as the facts. */
struct kb_str kb_tls_facts_bytes(const struct kb_tls_facts *facts);
/* NULL is allowed. */
struct kb_tls_facts *kb_tls_facts_ref(struct kb_tls_facts *facts);
void kb_tls_facts_unref(struct kb_tls_facts *facts);

/* One of KB_SSL_PEER_*; empty where facts is NULL. */
struct kb_str kb_tls_facts_text(struct kb_tls_facts *facts, enum kb_ssl_text what);
/* Names of one of KB_SSL_PEER_*_SANS, in the certificate's order. */
const struct kb_str *kb_tls_facts_list(struct kb_tls_facts *facts, enum kb_ssl_list what,
                                       size_t *count);
/* Seconds since 1970. */
void kb_tls_facts_validity(struct kb_tls_facts *facts, int64_t *not_before, int64_t *not_after);
