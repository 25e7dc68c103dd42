/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate chains and private keys. What is refused here is what Envoy refuses: a key that does
 * not belong to the certificate, RSA below 2048 bits, curves other than P-256 to P-521. */
#include "tls/tls_certificate.h"

#include <stdlib.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/mem.h"
#include "proto/wkt.h"
#include "proxy/api/stats.h"
#include "tls/tls_data_source.h"

#define RSA_BITS_MIN 2048
#define CHAIN_MAX    4096 /* certificates in one text; system roots are about 150 */

/* ---- PEM ---- */

STACK_OF(X509) * kb_tls_pem_certificates(struct kb_str pem, struct kb_tls_lib *lib)
{
    BIO *bio = pem.len > INT32_MAX ? NULL : BIO_new_mem_buf(pem.p, (int)pem.len);
    STACK_OF(X509) *all = sk_X509_new_null();
    bool good = bio != NULL && all != NULL;

    while (good && sk_X509_num(all) < CHAIN_MAX) {
        X509 *certificate = X509_new_ex(lib->ctx, NULL);

        if (certificate == NULL || PEM_read_bio_X509_AUX(bio, &certificate, NULL, NULL) == NULL) {
            unsigned long error = ERR_peek_last_error();

            X509_free(certificate);
            good =
                ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
            break;
        }
        good = sk_X509_push(all, certificate) > 0;
    }
    ERR_clear_error();
    BIO_free(bio);
    if (!good || sk_X509_num(all) == 0) {
        sk_X509_pop_free(all, X509_free);
        return NULL;
    }
    return all;
}

static int password_give(char *out, int size, int writing, void *arg)
{
    const struct kb_str *password = arg;

    (void)writing;
    if (size < 0 || password->len > (size_t)size) {
        return -1;
    }
    memcpy(out, password->p, password->len);
    return (int)password->len;
}

static EVP_PKEY *key_read(const struct kb_tls_certificate *certificate, struct kb_tls_lib *lib)
{
    BIO *bio = BIO_new_mem_buf(certificate->key_pem.p, (int)certificate->key_pem.len);
    struct kb_str password = certificate->password;
    EVP_PKEY *key = bio == NULL ? NULL
                                : PEM_read_bio_PrivateKey_ex(bio, NULL, password_give, &password,
                                                             lib->ctx, NULL);

    BIO_free(bio);
    return key;
}

/* ---- one worker's objects ---- */

static void local_dispose(struct kb_tls_certificate_local *local)
{
    X509_free(local->leaf);
    sk_X509_pop_free(local->chain, X509_free);
    EVP_PKEY_free(local->key);
    kb_tls_lib_unref(local->lib);
    memset(local, 0, sizeof(*local));
}

static bool local_chain_read(struct kb_tls_certificate *certificate,
                             struct kb_tls_certificate_local *local)
{
    local->chain = kb_tls_pem_certificates(certificate->chain_pem, local->lib);
    if (local->chain == NULL) {
        return false;
    }
    local->leaf = sk_X509_shift(local->chain);
    return true;
}

const struct kb_tls_certificate_local *
kb_tls_certificate_local_get(struct kb_tls_certificate *certificate, struct kb_worker *worker)
{
    struct kb_tls_certificate_local *local = &certificate->locals[worker->index];

    KB_ASSERT(worker->index < certificate->local_count);
    if (KB_LIKELY(local->key != NULL)) {
        return local;
    }
    local->lib = kb_tls_lib_ref(kb_tls_worker_get(worker)->lib);
    if (local_chain_read(certificate, local)) {
        local->key = key_read(certificate, local->lib);
    }
    ERR_clear_error();
    if (local->key == NULL) {
        local_dispose(local);
        return NULL;
    }
    return local;
}

/* ---- checks ---- */

static bool key_usable(struct kb_tls_certificate *certificate, X509 *leaf, struct kb_diag *diag)
{
    EVP_PKEY *key = X509_get0_pubkey(leaf);
    char group[32] = "";
    size_t len;

    switch (key == NULL ? EVP_PKEY_NONE : EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
        certificate->ecdsa = true;
        if (EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
            (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0 ||
             strcmp(group, "secp521r1") == 0)) {
            return true;
        }
        kb_diag_error(diag,
                      "Failed to load certificate chain from %.*s, only P-256, P-384 or P-521 "
                      "ECDSA certificates are supported",
                      KB_STR_ARG(certificate->path));
        return false;
    case EVP_PKEY_RSA:
        if (EVP_PKEY_get_bits(key) >= RSA_BITS_MIN) {
            return true;
        }
        kb_diag_error(diag,
                      "Failed to load certificate chain from %.*s, only RSA certificates with "
                      "2048-bit or larger keys are supported",
                      KB_STR_ARG(certificate->path));
        return false;
    default:
        kb_diag_error(diag,
                      "Failed to load certificate chain from %.*s, only RSA and ECDSA certificates "
                      "are supported",
                      KB_STR_ARG(certificate->path));
        return false;
    }
}

static int64_t time_of(const ASN1_TIME *time)
{
    struct tm parts;

    return ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) : 0;
}

/* Reads it once on the main thread, with every reason in words. */
static bool check(struct kb_tls_certificate *certificate, struct kb_server_context *server,
                  struct kb_str key_path, struct kb_diag *diag)
{
    struct kb_tls_certificate_local *local = &certificate->locals[server->main->index];
    unsigned int len = sizeof(certificate->digest);

    local->lib = kb_tls_lib_ref(kb_tls_worker_get(server->main)->lib);
    if (!local_chain_read(certificate, local)) {
        kb_diag_error(diag, "Failed to load certificate chain from %.*s",
                      KB_STR_ARG(certificate->path));
        return false;
    }
    if (!key_usable(certificate, local->leaf, diag)) {
        return false;
    }
    local->key = key_read(certificate, local->lib);
    if (local->key == NULL) {
        kb_diag_error(diag, "Failed to load private key from %.*s, Cause: %s", KB_STR_ARG(key_path),
                      "it is not a PEM private key, or the password is wrong");
        ERR_clear_error();
        return false;
    }
    if (X509_check_private_key(local->leaf, local->key) != 1) {
        kb_diag_error(diag,
                      "Failed to load private key from %.*s, Cause: error:0b000074:X.509 "
                      "certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH: the key does not "
                      "belong to the certificate of %.*s",
                      KB_STR_ARG(key_path), KB_STR_ARG(certificate->path));
        ERR_clear_error();
        return false;
    }
    KB_ASSERT(X509_digest(local->leaf, local->lib->sha256, certificate->digest, &len) == 1);
    certificate->not_after = time_of(X509_get0_notAfter(local->leaf));
    return true;
}

/* ---- lifecycle ---- */

static bool message_read(struct kb_tls_certificate *certificate,
                         const Envoy__Extensions__TransportSockets__Tls__V3__TlsCertificate *m,
                         struct kb_diag *diag)
{
    struct kb_arena *arena = &certificate->arena;
    uint32_t errors = diag->error_count;

    if (m->pkcs12 != NULL || m->private_key_provider != NULL || m->ocsp_staple != NULL ||
        m->n_signed_certificate_timestamp > 0 || m->tls_params != NULL) {
        kb_diag_error(diag, "pkcs12, private_key_provider, ocsp_staple, "
                            "signed_certificate_timestamp and tls_params of a certificate are not "
                            "supported");
        return false;
    }
    if (m->certificate_chain == NULL || m->private_key == NULL) {
        kb_diag_error(diag,
                      "Failed to load incomplete certificate from %.*s: both certificate_chain and "
                      "private_key are needed",
                      KB_STR_ARG(kb_tls_data_source_path(m->certificate_chain)));
        return false;
    }
    kb_diag_push(diag, "certificate_chain");
    (void)kb_tls_data_source_read(m->certificate_chain, arena, &certificate->chain_pem, diag);
    kb_diag_pop(diag);
    kb_diag_push(diag, "private_key");
    (void)kb_tls_data_source_read(m->private_key, arena, &certificate->key_pem, diag);
    kb_diag_pop(diag);
    kb_diag_push(diag, "password");
    (void)kb_tls_data_source_read(m->password, arena, &certificate->password, diag);
    kb_diag_pop(diag);
    certificate->path = kb_str_dup(arena, kb_tls_data_source_path(m->certificate_chain));
    return diag->error_count == errors;
}

struct kb_tls_certificate *kb_tls_certificate_create(
    const Envoy__Extensions__TransportSockets__Tls__V3__TlsCertificate *message, struct kb_str name,
    struct kb_server_context *server, struct kb_diag *diag)
{
    size_t count = (size_t)server->worker_count + 1;
    struct kb_tls_certificate *certificate =
        kb_calloc(1, sizeof(*certificate) + count * sizeof(certificate->locals[0]));

    KB_OBJ_SET(certificate, kb_tls_certificate);
    certificate->refs = 1;
    certificate->local_count = (uint32_t)count;
    kb_arena_init(&certificate->arena, NULL);
    if (!message_read(certificate, message, diag) ||
        !check(certificate, server, kb_tls_data_source_path(message->private_key), diag)) {
        kb_tls_certificate_unref(certificate);
        return NULL;
    }
    certificate->name =
        kb_str_dup(&certificate->arena, name.len > 0 ? name : KB_STR(KB_TLS_UNNAMED_CERTIFICATE));
    return certificate;
}

struct kb_tls_certificate *kb_tls_certificate_ref(struct kb_tls_certificate *certificate)
{
    certificate->refs++;
    return certificate;
}

static void secret_wipe(struct kb_str secret)
{
    if (secret.len > 0) {
        OPENSSL_cleanse((char *)(uintptr_t)secret.p, secret.len);
    }
}

void kb_tls_certificate_unref(struct kb_tls_certificate *certificate)
{
    if (certificate == NULL || --certificate->refs > 0) {
        return;
    }
    for (uint32_t i = 0; i < certificate->local_count; i++) {
        local_dispose(&certificate->locals[i]);
    }
    secret_wipe(certificate->key_pem);
    secret_wipe(certificate->password);
    kb_arena_dispose(&certificate->arena);
    KB_OBJ_CLEAR(certificate);
    free(certificate);
}
