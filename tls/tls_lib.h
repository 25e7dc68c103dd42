/* SPDX-License-Identifier: Apache-2.0 */
/* One OpenSSL library context for each worker, so that workers share none of its locks; made when
 * the first TLS context needs it. For this room. */
#pragma once

#include <openssl/provider.h>
#include <openssl/ssl.h>

#include "base/worker.h"

/* A worker's library context. Objects made in it hold it, because they may outlive the worker. */
struct kb_tls_lib {
    OSSL_LIB_CTX *ctx;
    OSSL_PROVIDER *provider;     /* OpenSSL's own */
    OSSL_PROVIDER *own_provider; /* tls_provider.c */
    BIO_METHOD *bio_method;      /* tls_bio.c */
    EVP_MD *sha256;
    EVP_CIPHER *ticket_cipher; /* AES-256-CBC */
    uint32_t refs;             /* atomic */
};

struct kb_tls_facts_table;

#define KB_TLS_TICKETS_SEEN 128

/* What a worker keeps for its TLS connections. */
struct kb_tls_worker {
    struct kb_tls_lib *lib;
    char *input;   /* KB_TLS_INPUT_BYTES: what one recv brought, on its way into OpenSSL */
    char *scratch; /* KB_TLS_RECORD_BYTES: small pieces that leave in one record */
    struct kb_tls_facts_table *facts;           /* tls_facts.c */
    uint64_t tickets_seen[KB_TLS_TICKETS_SEEN]; /* by their session's number: tls_ticket.c */
};

#define KB_TLS_RECORD_BYTES 16384
#define KB_TLS_INPUT_BYTES  (KB_TLS_RECORD_BYTES + 2048) /* one record and what is around it */

/* This worker's part, made at first use. On the worker. */
struct kb_tls_worker *kb_tls_worker_get(struct kb_worker *worker);

/* Any thread. */
struct kb_tls_lib *kb_tls_lib_ref(struct kb_tls_lib *lib);
/* SHA-256 of the pieces one after the other. */
void kb_tls_sha256(const struct kb_tls_lib *lib, const struct kb_str *pieces, size_t count,
                   unsigned char out[32]);
/* Any thread. NULL is allowed. */
void kb_tls_lib_unref(struct kb_tls_lib *lib);
