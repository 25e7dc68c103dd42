/* SPDX-License-Identifier: Apache-2.0 */
/* From a CertificateValidationContext to what tls_verify.c works with. Whatever is set and not
 * understood is refused: half of a check is worse than none. */
#include "tls/tls_validation.h"

#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/list.h"
#include "base/mem.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "tls/tls_data_source.h"

#define SAN_TYPE(name) \
    ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__##name
#define CHAIN(name) \
    ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__CERTIFICATE_VALIDATION_CONTEXT__TRUST_CHAIN_VERIFICATION__##name

#define CRLS_MAX         64
#define VERIFY_DEPTH_MAX 100
#define SYSTEM_ROOTS     "/etc/ssl/certs/ca-certificates.crt"

/* ---- trusted roots ---- */

struct trust_local {
    struct kb_tls_lib *lib;
    X509_STORE *store;
};

struct kb_tls_trust {
    KB_OBJ;
    uint32_t refs;
    uint32_t local_count;
    struct kb_list link;
    struct kb_arena arena;
    struct kb_str ca_pem;
    struct kb_str crl_pem;
    struct kb_str path;
    int64_t not_after; /* of the root that expires first */
    bool allow_expired;
    bool only_leaf_crl;
    unsigned char digest[32];
    struct trust_local locals[];
};
KB_OBJ_MAGIC(kb_tls_trust, 0x544c5352);

static struct kb_list trusts; /* main thread */

static bool crls_add(struct kb_tls_trust *trust, X509_STORE *store, struct kb_tls_lib *lib)
{
    BIO *bio = BIO_new_mem_buf(trust->crl_pem.p, (int)trust->crl_pem.len);
    unsigned count = 0;
    bool good = bio != NULL;

    while (good && count < CRLS_MAX) {
        X509_CRL *crl = X509_CRL_new_ex(lib->ctx, NULL);

        if (crl == NULL || PEM_read_bio_X509_CRL(bio, &crl, NULL, NULL) == NULL) {
            X509_CRL_free(crl);
            break;
        }
        good = X509_STORE_add_crl(store, crl) == 1;
        X509_CRL_free(crl);
        count++;
    }
    ERR_clear_error();
    BIO_free(bio);
    return good && count > 0;
}

/* NULL when the texts are malformed; *crl_bad says whether it is the revocation list. */
static X509_STORE *store_create(struct kb_tls_trust *trust, struct kb_tls_lib *lib, bool *crl_bad)
{
    STACK_OF(X509) *roots = kb_tls_pem_certificates(trust->ca_pem, lib);
    X509_STORE *store = X509_STORE_new();
    unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;

    *crl_bad = false;
    if (roots == NULL || store == NULL) {
        sk_X509_pop_free(roots, X509_free);
        X509_STORE_free(store);
        return NULL;
    }
    for (int i = 0; i < sk_X509_num(roots); i++) {
        (void)X509_STORE_add_cert(store, sk_X509_value(roots, i));
    }
    sk_X509_pop_free(roots, X509_free);
    ERR_clear_error();
    if (trust->crl_pem.len > 0) {
        if (!crls_add(trust, store, lib)) {
            *crl_bad = true;
            X509_STORE_free(store);
            return NULL;
        }
        flags |= X509_V_FLAG_CRL_CHECK | (trust->only_leaf_crl ? 0 : X509_V_FLAG_CRL_CHECK_ALL);
    }
    if (trust->allow_expired) {
        flags |= X509_V_FLAG_NO_CHECK_TIME;
    }
    X509_STORE_set_flags(store, flags);
    return store;
}

X509_STORE *kb_tls_trust_store(struct kb_tls_trust *trust, struct kb_worker *worker)
{
    struct trust_local *local;
    bool crl_bad;

    if (trust == NULL) {
        return NULL;
    }
    local = &trust->locals[worker->index];
    if (KB_UNLIKELY(local->store == NULL)) {
        struct kb_tls_lib *lib = kb_tls_worker_get(worker)->lib;

        local->store = store_create(trust, lib, &crl_bad);
        local->lib = local->store != NULL ? kb_tls_lib_ref(lib) : NULL;
    }
    return local->store;
}

static void trust_digest(struct kb_tls_trust *trust, const struct kb_tls_lib *lib)
{
    char flags[2] = {trust->allow_expired, trust->only_leaf_crl};
    size_t lens[2] = {trust->ca_pem.len, trust->crl_pem.len};
    struct kb_str pieces[] = {kb_str_make(flags, sizeof(flags)),
                              kb_str_make((const char *)lens, sizeof(lens)), trust->ca_pem,
                              trust->crl_pem};

    kb_tls_sha256(lib, pieces, KB_ARRAY_LEN(pieces), trust->digest);
}

static void trust_unref(struct kb_tls_trust *trust)
{
    if (trust == NULL || --trust->refs > 0) {
        return;
    }
    kb_list_unlink(&trust->link);
    for (uint32_t i = 0; i < trust->local_count; i++) {
        X509_STORE_free(trust->locals[i].store);
        kb_tls_lib_unref(trust->locals[i].lib);
    }
    kb_arena_dispose(&trust->arena);
    KB_OBJ_CLEAR(trust);
    free(trust);
}

/* The one that is there already, or this one. */
static struct kb_tls_trust *trust_share(struct kb_tls_trust *trust)
{
    if (trusts.next == NULL) {
        kb_list_init(&trusts);
    }
    KB_LIST_FOREACH (link, &trusts) {
        struct kb_tls_trust *other = KB_LIST_ENTRY(link, struct kb_tls_trust, link);

        if (memcmp(other->digest, trust->digest, sizeof(trust->digest)) == 0 &&
            other->local_count == trust->local_count) {
            other->refs++;
            trust_unref(trust);
            return other;
        }
    }
    kb_list_push_back(&trusts, &trust->link);
    return trust;
}

static int64_t first_expiry(X509_STORE *store)
{
    STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(store);
    int64_t first = INT64_MAX;

    for (int i = 0; i < sk_X509_OBJECT_num(all); i++) {
        const X509 *root = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        struct tm parts;

        if (root != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(root), &parts) == 1) {
            first = KB_MIN(first, (int64_t)timegm(&parts));
        }
    }
    return first;
}

static struct kb_tls_trust *
trust_create(const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
             struct kb_server_context *server, struct kb_diag *diag)
{
    size_t count = (size_t)server->worker_count + 1;
    struct kb_tls_trust *trust = kb_calloc(1, sizeof(*trust) + count * sizeof(trust->locals[0]));
    uint32_t errors = diag->error_count;
    bool crl_bad = false;
    Envoy__Config__Core__V3__DataSource system = ENVOY__CONFIG__CORE__V3__DATA_SOURCE__INIT;

    KB_OBJ_SET(trust, kb_tls_trust);
    trust->refs = 1;
    trust->local_count = (uint32_t)count;
    trust->allow_expired = m->allow_expired_certificate;
    trust->only_leaf_crl = m->only_verify_leaf_cert_crl;
    kb_arena_init(&trust->arena, NULL);
    system.specifier_case = ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME;
    system.filename = (char *)(uintptr_t)SYSTEM_ROOTS;
    kb_diag_push(diag, m->trusted_ca != NULL ? "trusted_ca" : "system_root_certs");
    (void)kb_tls_data_source_read(m->trusted_ca != NULL ? m->trusted_ca : &system, &trust->arena,
                                  &trust->ca_pem, diag);
    kb_diag_pop(diag);
    kb_diag_push(diag, "crl");
    (void)kb_tls_data_source_read(m->crl, &trust->arena, &trust->crl_pem, diag);
    kb_diag_pop(diag);
    trust->path = kb_str_dup(
        &trust->arena, kb_tls_data_source_path(m->trusted_ca != NULL ? m->trusted_ca : &system));
    trust_digest(trust, kb_tls_worker_get(server->main)->lib);
    if (trust->ca_pem.len == 0 || diag->error_count != errors) {
        if (diag->error_count == errors) {
            kb_diag_error(diag, "trusted_ca is empty");
        }
        trust_unref(trust);
        return NULL;
    }
    trust = trust_share(trust);
    if (trust->locals[server->main->index].store == NULL) {
        struct trust_local *local = &trust->locals[server->main->index];

        local->lib = kb_tls_lib_ref(kb_tls_worker_get(server->main)->lib);
        local->store = store_create(trust, local->lib, &crl_bad);
    }
    if (trust->locals[server->main->index].store == NULL) {
        if (crl_bad) {
            kb_diag_error(diag, "Failed to load CRL from %.*s",
                          KB_STR_ARG(kb_tls_data_source_path(m->crl)));
        } else {
            kb_diag_error(diag, "Failed to load trusted CA certificates from %.*s",
                          KB_STR_ARG(trust->path));
        }
        trust_unref(trust);
        return NULL;
    }
    trust->not_after = first_expiry(trust->locals[server->main->index].store);
    return trust;
}

struct kb_str kb_tls_trust_ca_pem(const struct kb_tls_trust *trust)
{
    return trust->ca_pem;
}

int64_t kb_tls_trust_not_after(const struct kb_tls_trust *trust)
{
    return trust->not_after;
}

struct kb_str kb_tls_trust_path(const struct kb_tls_trust *trust)
{
    return trust->path;
}

/* ---- names ---- */

static void
typed_read(const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
           struct kb_tls_validation *validation, struct kb_diag *diag)
{
    validation->matchers = kb_arena_calloc(&validation->arena, m->n_match_typed_subject_alt_names *
                                                                   sizeof(*validation->matchers));
    for (size_t i = 0; i < m->n_match_typed_subject_alt_names; i++) {
        const Envoy__Extensions__TransportSockets__Tls__V3__SubjectAltNameMatcher *typed =
            m->match_typed_subject_alt_names[i];
        int type = (int)typed->san_type == SAN_TYPE(DNS)          ? GEN_DNS
                   : (int)typed->san_type == SAN_TYPE(URI)        ? GEN_URI
                   : (int)typed->san_type == SAN_TYPE(EMAIL)      ? GEN_EMAIL
                   : (int)typed->san_type == SAN_TYPE(IP_ADDRESS) ? GEN_IPADD
                                                                  : -2;

        kb_diag_push_index(diag, "match_typed_subject_alt_names", i);
        if (type == -2 || typed->matcher == NULL) {
            kb_diag_error(diag, "san_type is DNS, URI, EMAIL or IP_ADDRESS, with a matcher; other "
                                "kinds are not supported");
        } else if (kb_tls_san_matcher_init(&validation->matchers[validation->matcher_count], type,
                                           typed->matcher, &validation->arena, diag) == 0) {
            validation->matcher_count++;
        }
        kb_diag_pop(diag);
    }
}

/* The deprecated form: of whatever kind. The typed form wins when both are there, as in Envoy. */
static void
untyped_read(const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
             struct kb_tls_validation *validation, struct kb_diag *diag)
{
    validation->matchers = kb_arena_calloc(&validation->arena, m->n_match_subject_alt_names *
                                                                   sizeof(*validation->matchers));
    for (size_t i = 0; i < m->n_match_subject_alt_names; i++) {
        kb_diag_push_index(diag, "match_subject_alt_names", i);
        if (kb_tls_san_matcher_init(&validation->matchers[validation->matcher_count], -1,
                                    m->match_subject_alt_names[i], &validation->arena, diag) == 0) {
            validation->matcher_count++;
        }
        kb_diag_pop(diag);
    }
}

/* ---- pins ---- */

static int hex_value(char c)
{
    c = kb_ascii_lower(c);
    return kb_ascii_is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 64 digits, or 95 characters with colons in between. */
static bool hash_parse(const char *text, unsigned char out[32])
{
    size_t len = strlen(text);
    size_t step = len == 95 ? 3 : 2;

    if (len != 64 && len != 95) {
        return false;
    }
    for (size_t i = 0; i < 32; i++) {
        int high = hex_value(text[i * step]), low = hex_value(text[i * step + 1]);

        if (high < 0 || low < 0 || (step == 3 && i < 31 && text[i * step + 2] != ':')) {
            return false;
        }
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* Base64 of 32 bytes: 44 characters, of which the last is '='. */
static bool spki_parse(const char *text, unsigned char out[32])
{
    unsigned char decoded[33];

    if (strlen(text) != 44 || text[43] != '=' || text[42] == '=' ||
        EVP_DecodeBlock(decoded, (const unsigned char *)text, 44) != 33) {
        return false;
    }
    memcpy(out, decoded, 32);
    return true;
}

static void
pins_read(const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
          struct kb_tls_validation *validation, struct kb_diag *diag)
{
    validation->hashes =
        kb_arena_calloc(&validation->arena, (m->n_verify_certificate_hash + 1) * 32);
    validation->spkis =
        kb_arena_calloc(&validation->arena, (m->n_verify_certificate_spki + 1) * 32);
    for (size_t i = 0; i < m->n_verify_certificate_hash; i++) {
        if (!hash_parse(m->verify_certificate_hash[i],
                        validation->hashes[validation->hash_count++])) {
            kb_diag_error(diag, "Invalid hex-encoded SHA-256 %s", m->verify_certificate_hash[i]);
        }
    }
    for (size_t i = 0; i < m->n_verify_certificate_spki; i++) {
        if (!spki_parse(m->verify_certificate_spki[i],
                        validation->spkis[validation->spki_count++])) {
            kb_diag_error(diag, "Invalid base64-encoded SHA-256 %s", m->verify_certificate_spki[i]);
        }
    }
}

/* ---- lifecycle ---- */

static void unsupported_check(
    const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
    struct kb_diag *diag)
{
    if (kb_wkt_bool(m->require_signed_certificate_timestamp, false)) {
        kb_diag_error(diag, "require_signed_certificate_timestamp is not supported");
    }
    if (m->ca_certificate_provider_instance != NULL || m->custom_validator_config != NULL) {
        kb_diag_error(diag, "ca_certificate_provider_instance and custom_validator_config are not "
                            "supported");
    }
    if (m->max_verify_depth != NULL && m->max_verify_depth->value > VERIFY_DEPTH_MAX) {
        kb_diag_error(diag, "max_verify_depth: value must be less than or equal to %d",
                      VERIFY_DEPTH_MAX);
    }
}

static void
trust_read(const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
           struct kb_tls_validation *validation, struct kb_server_context *server,
           struct kb_diag *diag)
{
    if (m->trusted_ca != NULL || m->system_root_certs != NULL) {
        validation->trust = trust_create(m, server, diag);
        return;
    }
    if (m->crl != NULL) {
        kb_diag_error(diag, "Failed to load CRL from %.*s without trusted CA",
                      KB_STR_ARG(kb_tls_data_source_path(m->crl)));
    }
    if (validation->matcher_count > 0) {
        kb_diag_error(diag, "SAN-based verification of peer certificates without trusted CA is "
                            "insecure and not allowed");
    }
    if (m->allow_expired_certificate) {
        kb_diag_error(diag, "Certificate validity period is always ignored without trusted CA");
    }
}

static void
digest_make(const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *m,
            struct kb_tls_validation *validation, const struct kb_tls_lib *lib)
{
    struct kb_arena scratch;
    struct kb_str pieces[2] = {KB_STR(""), KB_STR("")};

    kb_arena_init(&scratch, NULL);
    pieces[0] = kb_pb_pack(&m->base, &scratch);
    if (validation->trust != NULL) {
        pieces[1] =
            kb_str_make((const char *)validation->trust->digest, sizeof(validation->trust->digest));
    }
    kb_tls_sha256(lib, pieces, KB_ARRAY_LEN(pieces), validation->digest);
    kb_arena_dispose(&scratch);
}

struct kb_tls_validation *kb_tls_validation_create(
    const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *message,
    struct kb_server_context *server, struct kb_diag *diag)
{
    struct kb_tls_validation *validation = kb_calloc(1, sizeof(*validation));
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(validation, kb_tls_validation);
    validation->refs = 1;
    validation->accept_untrusted =
        (int)message->trust_chain_verification == CHAIN(ACCEPT_UNTRUSTED);
    validation->suppress_client_ca_list = message->suppress_client_ca_list;
    validation->max_verify_depth =
        message->max_verify_depth != NULL ? (int)message->max_verify_depth->value : -1;
    kb_arena_init(&validation->arena, NULL);
    unsupported_check(message, diag);
    if (message->n_match_typed_subject_alt_names > 0) {
        typed_read(message, validation, diag);
    } else if (message->n_match_subject_alt_names > 0) {
        untyped_read(message, validation, diag);
    }
    pins_read(message, validation, diag);
    trust_read(message, validation, server, diag);
    digest_make(message, validation, kb_tls_worker_get(server->main)->lib);
    if (diag->error_count != errors) {
        kb_tls_validation_unref(validation);
        return NULL;
    }
    return validation;
}

struct kb_tls_validation *kb_tls_validation_ref(struct kb_tls_validation *validation)
{
    validation->refs++;
    return validation;
}

void kb_tls_validation_unref(struct kb_tls_validation *validation)
{
    if (validation == NULL || --validation->refs > 0) {
        return;
    }
    for (size_t i = 0; i < validation->matcher_count; i++) {
        kb_tls_san_matcher_dispose(&validation->matchers[i]);
    }
    trust_unref(validation->trust);
    kb_arena_dispose(&validation->arena);
    KB_OBJ_CLEAR(validation);
    free(validation);
}

bool kb_tls_validation_verifies(const struct kb_tls_validation *validation)
{
    return validation != NULL && (validation->trust != NULL || validation->matcher_count > 0 ||
                                  validation->hash_count > 0 || validation->spki_count > 0 ||
                                  validation->accept_untrusted);
}
