/* SPDX-License-Identifier: Apache-2.0 */
/* How a peer's certificate is checked (Envoy DefaultCertValidator): trusted roots and revocation
 * lists, names, pins. Built on the main thread, used by every worker. For this room. */
#pragma once

#include "tls/tls_certificate.h"
#include "tls/tls_san.h"

/* Trusted roots and revocation lists; equal ones are one object, whoever uses them. */
struct kb_tls_trust;

struct kb_tls_validation {
    KB_OBJ;
    uint32_t refs; /* main thread */
    struct kb_arena arena;
    struct kb_tls_trust *trust; /* NULL: no trusted_ca */
    struct kb_tls_san_matcher *matchers;
    size_t matcher_count;
    unsigned char (*hashes)[32]; /* verify_certificate_hash */
    size_t hash_count;
    unsigned char (*spkis)[32]; /* verify_certificate_spki */
    size_t spki_count;
    int max_verify_depth; /* -1: OpenSSL's */
    bool accept_untrusted;
    bool suppress_client_ca_list;
    unsigned char digest[32]; /* of all that decides who gets in */
};
KB_OBJ_MAGIC(kb_tls_validation, 0x544c5356);

/* NULL after reporting: also for every field that would be ignored otherwise. */
struct kb_tls_validation *kb_tls_validation_create(
    const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *message,
    struct kb_server_context *server, struct kb_diag *diag);
struct kb_tls_validation *kb_tls_validation_ref(struct kb_tls_validation *validation);
/* Main thread; NULL is allowed. */
void kb_tls_validation_unref(struct kb_tls_validation *validation);

/* Whether the peer is asked for a certificate, and looked at. */
bool kb_tls_validation_verifies(const struct kb_tls_validation *validation);
/* This worker's roots, or NULL when there are none. On the worker. */
X509_STORE *kb_tls_trust_store(struct kb_tls_trust *trust, struct kb_worker *worker);
/* The text of the roots' names that a server sends to its clients; borrowed. */
struct kb_str kb_tls_trust_ca_pem(const struct kb_tls_trust *trust);
/* When the first of the roots expires, in seconds since 1970. */
int64_t kb_tls_trust_not_after(const struct kb_tls_trust *trust);
/* Where the roots came from, for /certs. */
struct kb_str kb_tls_trust_path(const struct kb_tls_trust *trust);
