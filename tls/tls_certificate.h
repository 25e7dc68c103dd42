/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate chains with their keys, and bundles of trusted roots: kept as text, made into
 * OpenSSL's objects by each worker for itself, and shared by every context that uses the same
 * secret. For this room. */
#pragma once

#include "envoy/extensions/transport_sockets/tls/v3/common.pb-c.h"
#include "proxy/api/factory_context.h"
#include "tls/tls_lib.h"

/* Envoy's names of certificates that no secret names. */
#define KB_TLS_UNNAMED_CERTIFICATE "unnamed_cert_e3b0c442"
#define KB_TLS_UNNAMED_ROOTS       "unnamed_ca_cert_e3b0c442"
#define KB_TLS_NO_ROOTS            "unnamed_ca_cert"

/* A certificate as one worker has it. */
struct kb_tls_certificate_local {
    struct kb_tls_lib *lib;
    X509 *leaf;
    STACK_OF(X509) * chain; /* without the leaf; may be NULL */
    EVP_PKEY *key;
};

struct kb_tls_certificate {
    KB_OBJ;
    uint32_t refs; /* main thread */
    uint32_t local_count;
    struct kb_arena arena;
    struct kb_str name; /* for statistics: the secret's, or KB_TLS_UNNAMED_CERTIFICATE */
    struct kb_str path; /* for /certs: where the chain came from */
    struct kb_str chain_pem;
    struct kb_str key_pem;
    struct kb_str password;
    unsigned char digest[32]; /* SHA-256 of the leaf */
    int64_t not_after;        /* seconds since 1970 */
    bool ecdsa;
    struct kb_tls_certificate_local locals[]; /* by worker index; the last is the main thread's */
};
KB_OBJ_MAGIC(kb_tls_certificate, 0x544c5343);

/* Reads and checks; NULL after reporting. `name`: of the secret; empty: it stands inline. */
struct kb_tls_certificate *kb_tls_certificate_create(
    const Envoy__Extensions__TransportSockets__Tls__V3__TlsCertificate *message, struct kb_str name,
    struct kb_server_context *server, struct kb_diag *diag);
struct kb_tls_certificate *kb_tls_certificate_ref(struct kb_tls_certificate *certificate);
/* Main thread; NULL is allowed. */
void kb_tls_certificate_unref(struct kb_tls_certificate *certificate);
/* This worker's objects; NULL when OpenSSL runs out of memory. On the worker. */
const struct kb_tls_certificate_local *
kb_tls_certificate_local_get(struct kb_tls_certificate *certificate, struct kb_worker *worker);

/* Every certificate that is in the text, in order, or NULL when there is none or one is malformed.
 * Free it with sk_X509_pop_free. */
STACK_OF(X509) * kb_tls_pem_certificates(struct kb_str pem, struct kb_tls_lib *lib);
