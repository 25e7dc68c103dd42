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

static const struct {
    int reason;
    unsigned number;
    const char *name;
} words[] = {
#define X(openssl, number, name) {SSL_R_##openssl, number, name},
#include "tls/tls_failures.def"
#undef X
};

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

static void failure_set(struct kb_tls_socket *socket, unsigned long error)
{
    char reason[200];
    char text[KB_TLS_FAILURE_MAX];

    reason_text(error, reason, sizeof(reason));
    (void)snprintf(text, sizeof(text), "TLS_error:|%s%s%s:TLS_error_end", reason,
                   socket->verify_details != NULL ? ":" : "",
                   socket->verify_details != NULL ? socket->verify_details : "");
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
        if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
            ERR_GET_REASON(error) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
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
    if (socket->conn->handshaking) { /* what comes later is an end like others, as in Envoy */
        failure_set(socket, first);
    }
}
