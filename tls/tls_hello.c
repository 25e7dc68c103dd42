/* SPDX-License-Identifier: Apache-2.0 */
/* What a server decides by the ClientHello: whether a name is asked for, the protocol, and whose
 * order of ciphers counts. BoringSSL knows ciphers that are equally good, "[A|B]", among which the
 * client's order decides; OpenSSL does not, so that such a client gets a list of its own. */
#include <stdio.h>

#include "tls/tls_socket.h"

#define LIST_MAX 2048

int kb_tls_alpn_select(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    const struct kb_tls_context *context = arg;
    unsigned char *chosen = NULL;

    (void)ssl;
    /* In the order of the configuration; no protocol in common is no error. */
    if (SSL_select_next_proto(&chosen, out_len, context->settings->alpn,
                              (unsigned)context->settings->alpn_len, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* server_name of the ClientHello, RFC 6066 section 3; empty when there is none. */
static struct kb_str hello_server_name(SSL *ssl)
{
    const unsigned char *bytes;
    size_t len, name_len;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &len) != 1 || len < 5 ||
        bytes[2] != TLSEXT_NAMETYPE_host_name) {
        return KB_STR_NULL;
    }
    name_len = (size_t)bytes[3] << 8 | bytes[4];
    if (name_len == 0 || name_len > len - 5) {
        return KB_STR_NULL;
    }
    return kb_str_make((const char *)bytes + 5, name_len);
}

/* Where the client has this cipher in its list; behind all when it has not. */
static size_t position(const unsigned char *ciphers, size_t len, uint16_t id)
{
    for (size_t i = 0; i + 1 < len; i += 2) {
        if ((ciphers[i] << 8 | ciphers[i + 1]) == id) {
            return i;
        }
    }
    return len;
}

/* The order of `ciphers` for this client, as indices; true when it is another one than there. */
static bool order_find(const struct kb_tls_cipher *ciphers, size_t count,
                       const unsigned char *offered, size_t len, uint8_t *order)
{
    bool changed = false;

    for (size_t i = 0; i < count; i++) {
        size_t at = i;

        order[i] = (uint8_t)i;
        while (at > 0 && ciphers[order[at - 1]].group == ciphers[i].group &&
               position(offered, len, ciphers[order[at - 1]].id) >
                   position(offered, len, ciphers[i].id)) {
            order[at] = order[at - 1];
            order[--at] = (uint8_t)i;
            changed = true;
        }
    }
    return changed;
}

/* Sets the client's list when its order differs from ours where it counts. */
static bool ciphers_adapt(SSL *ssl, const struct kb_tls_settings *settings)
{
    uint8_t order[KB_TLS_CIPHERS_MAX];
    const unsigned char *offered;
    size_t len = SSL_client_hello_get0_ciphers(ssl, &offered);
    char list[LIST_MAX];
    size_t used = 0;

    if (!order_find(settings->cipher_table, settings->cipher_count, offered, len, order)) {
        return true;
    }
    for (size_t i = 0; i < settings->cipher_count; i++) {
        int n = snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ":" : "",
                         settings->cipher_table[order[i]].name);

        if (n < 0 || used + (size_t)n >= sizeof(list)) {
            return true; /* longer than any that is configured: ours will do */
        }
        used += (size_t)n;
    }
    return SSL_set_cipher_list(ssl, list) == 1;
}

static bool offers_tls13(SSL *ssl)
{
    const unsigned char *bytes;
    size_t len;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &bytes, &len) == 1) {
        for (size_t i = 1; i + 1 < len; i += 2) {
            if (bytes[i] == 3 && bytes[i + 1] == 4) {
                return true;
            }
        }
    }
    return false;
}

int kb_tls_client_hello_check(SSL *ssl, int *alert, void *arg)
{
    const struct kb_tls_context *context = arg;
    const struct kb_tls_settings *settings = context->settings;

    if (settings->require_sni && hello_server_name(ssl).len == 0) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (settings->max_version >= TLS1_3_VERSION && offers_tls13(ssl)) {
        /* TLS 1.3's suites are equally good. */
        SSL_clear_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
    } else if (settings->equal_preference && !ciphers_adapt(ssl, settings)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}
