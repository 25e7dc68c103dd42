/* SPDX-License-Identifier: Apache-2.0 */
/* Which of several certificates a client gets: that of the name that it asks for, exactly before by
 * wildcard, of a kind of key that it can check; else the first. */
#include <openssl/err.h>
#include <openssl/objects.h>

#include "base/log.h"
#include "tls/tls_socket.h"

enum fit { FIT_NONE, FIT_WILDCARD, FIT_EXACT };

static enum fit name_fit(struct kb_str asked, struct kb_str name)
{
    if (kb_str_ieq(asked, name)) {
        return FIT_EXACT;
    }
    return kb_tls_dns_name_match(asked, name) ? FIT_WILDCARD : FIT_NONE;
}

/* By its DNS names; by its common name when it has none. */
static enum fit certificate_fit(X509 *leaf, struct kb_str asked)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int count = KB_MIN(sk_GENERAL_NAME_num(names), KB_TLS_SANS_MAX);
    enum fit best = FIT_NONE;
    bool any = false;

    for (int i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char address[KB_TLS_SAN_TEXT_MAX];

        if (name->type == GEN_DNS) {
            enum fit fit = name_fit(asked, kb_tls_san_text(name, address));

            any = true;
            best = KB_MAX(best, fit);
        }
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
    if (!any) {
        char common[256];
        int len = X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, common,
                                            sizeof(common));

        best = len > 0 ? name_fit(asked, kb_str_make(common, (size_t)len)) : FIT_NONE;
    }
    return best;
}

/* Whether the client can check signatures of ECDSA keys. */
static bool client_takes_ecdsa(SSL *ssl)
{
    int count = SSL_get_sigalgs(ssl, -1, NULL, NULL, NULL, NULL, NULL);

    for (int i = 0; i < count; i++) {
        int sign = NID_undef;

        if (SSL_get_sigalgs(ssl, i, &sign, NULL, NULL, NULL, NULL) > 0 && sign == EVP_PKEY_EC) {
            return true;
        }
    }
    return false;
}

int kb_tls_certificate_select(SSL *ssl, void *arg)
{
    struct kb_tls_context *context = arg;
    struct kb_tls_socket *socket = KB_CAST(SSL_get_app_data(ssl), kb_tls_socket);
    struct kb_worker *worker = socket->conn->worker;
    struct kb_str asked = kb_str_from_cstr(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    bool ecdsa = client_takes_ecdsa(ssl);
    const struct kb_tls_certificate_local *chosen = NULL;
    int best = -1;

    for (size_t i = 0; i < context->certificate_count; i++) {
        const struct kb_tls_certificate_local *local =
            kb_tls_certificate_local_get(context->certificates[i], worker);
        int score;

        if (local == NULL || (context->certificates[i]->ecdsa && !ecdsa)) {
            continue;
        }
        score = 2 * (asked.len > 0 ? (int)certificate_fit(local->leaf, asked) : 0);
        score += score > 0 && context->certificates[i]->ecdsa;
        if (score > best) {
            best = score;
            chosen = local;
        }
    }
    if (chosen == NULL) {
        chosen = kb_tls_certificate_local_get(context->certificates[0], worker);
    }
    return chosen != NULL &&
                   SSL_use_cert_and_key(ssl, chosen->leaf, chosen->key, chosen->chain, 1) == 1
               ? 1
               : 0;
}
