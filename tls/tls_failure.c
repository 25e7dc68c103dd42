/* SPDX-License-Identifier: Apache-2.0 */
/* Why a TLS connection failed, in the words of Envoy, whose library is BoringSSL:
 * "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end". */
#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>

#include "base/log.h"
#include "base/mem.h"
#include "tls/tls_socket.h"

#define BORINGSSL_LIB_SSL 16u /* ERR_LIB_SSL there */

static const char protocol_version_alert[] = {
    21, 3, 1, 0, 2, SSL3_AL_FATAL, SSL_AD_PROTOCOL_VERSION};

static const struct {
    int reason;
    unsigned number;
    const char *name;
} words[] = {
#define X(openssl, number, name) {SSL_R_##openssl, number, name},
#include "tls/tls_failures.def"
#undef X
};

/* What BoringSSL adds when the server refuses the ClientHello itself. */
static const char hello_refused[] =
    "|268435610:SSL routines:OPENSSL_internal:HANDSHAKE_FAILURE_ON_CLIENT_HELLO";

/* "268435581:SSL routines:OPENSSL_internal:NAME" */
static void reason_text(unsigned long error, char *out, size_t cap)
{
    int reason = ERR_GET_REASON(error);
    const char *text;
    size_t len;

    for (size_t i = 0; ERR_GET_LIB(error) == ERR_LIB_SSL && i < KB_ARRAY_LEN(words); i++) {
        if (words[i].reason == reason) {
            (void)snprintf(out, cap, "%u:SSL routines:OPENSSL_internal:%s",
                           BORINGSSL_LIB_SSL << 24 | words[i].number, words[i].name);
            return;
        }
    }
    /* Without a counterpart: OpenSSL's own words in BoringSSL's form. */
    text = ERR_reason_error_string(error);
    len = (size_t)snprintf(out, cap, "%u:SSL routines:OPENSSL_internal:",
                           BORINGSSL_LIB_SSL << 24 | (unsigned)reason % 0xfff);
    for (; text != NULL && *text != '\0' && len + 1 < cap; text++) {
        out[len++] = (char)(*text == ' '                   ? '_'
                            : *text >= 'a' && *text <= 'z' ? *text - 'a' + 'A'
                                                           : *text);
    }
    out[KB_MIN(len, cap - 1)] = '\0';
}

/* BoringSSL looks at the curve of our first key before it looks for a cipher (TLS 1.2 only; 1.3 has
 * its own reasons). */
static bool curve_is_unknown_to_client(struct kb_tls_socket *socket)
{
    EVP_PKEY *key = SSL_get_privatekey(socket->ssl);
    int groups[64];
    char name[32] = "";
    size_t len;
    int count;

    if (key == NULL || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
        EVP_PKEY_get_group_name(key, name, sizeof(name), &len) != 1) {
        return false;
    }
    count = (int)SSL_get1_groups(socket->ssl, NULL);
    if (count > (int)KB_ARRAY_LEN(groups)) {
        return false;
    }
    count = (int)SSL_get1_groups(socket->ssl, groups);
    for (int i = 0; i < count; i++) {
        if (groups[i] == OBJ_sn2nid(name)) {
            return false;
        }
    }
    return true;
}

static bool is_reason(unsigned long error, int reason)
{
    return ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == reason;
}

static unsigned long as_boringssl(struct kb_tls_socket *socket, unsigned long error)
{
    if (is_reason(error, SSL_R_NO_SHARED_CIPHER) && socket->context->settings->downstream &&
        SSL_version(socket->ssl) < TLS1_3_VERSION && curve_is_unknown_to_client(socket)) {
        return ERR_PACK(ERR_LIB_SSL, 0, SSL_R_WRONG_CURVE);
    }
    return error;
}

static void failure_set(struct kb_tls_socket *socket, unsigned long error)
{
    char reason[200];
    char text[KB_TLS_FAILURE_MAX];
    const char *details = socket->verify_details;
    const char *at_hello = "";

    error = as_boringssl(socket, error);
    if (is_reason(error, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)) {
        details = "peer did not provide required client certificate";
    }
    reason_text(error, reason, sizeof(reason));
    if (is_reason(error, SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE) &&
        SSL_get_state(socket->ssl) == TLS_ST_CW_CLNT_HELLO) {
        details = NULL;
        at_hello = hello_refused;
    }
    (void)snprintf(text, sizeof(text), "TLS_error:|%s%s%s%s:TLS_error_end", reason, at_hello,
                   details != NULL ? ":" : "", details != NULL ? details : "");
    free(socket->failure);
    socket->failure = kb_strdup(text);
    socket->conn->info.transport_failure_reason = kb_str_from_cstr(socket->failure);
    KB_LOG(CONNECTION, DEBUG, "[C%llu] %s", (unsigned long long)socket->conn->info.id, text);
}

void kb_tls_failure_take(struct kb_tls_socket *socket)
{
    struct kb_stat_block *stats = socket->local->stats;
    unsigned long first = 0, error;
    bool counted = socket->verify_failed;

    while ((error = ERR_get_error()) != 0) {
        first = first == 0 ? error : first;
        if (is_reason(error, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)) {
            kb_stat_inc(stats, KB_STAT_SSL_FAIL_VERIFY_NO_CERT);
            counted = true;
        }
    }
    if (first == 0) {
        return; /* the peer went away without a word */
    }
    if (!counted) {
        kb_stat_inc(stats, KB_STAT_SSL_CONNECTION_ERROR);
    }
    if (is_reason(first, SSL_R_WRONG_VERSION_NUMBER) && socket->conn->handshaking &&
        socket->context->settings->downstream && socket->bio.output.len == 0) {
        /* OpenSSL has no word for who does not speak TLS; BoringSSL has this one. */
        kb_buf_append(&socket->bio.output, protocol_version_alert, sizeof(protocol_version_alert));
    }
    if (socket->conn->handshaking) { /* what comes later is an end like others, as in Envoy */
        failure_set(socket, first);
    }
}
