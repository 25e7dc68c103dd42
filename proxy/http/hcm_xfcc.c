/* SPDX-License-Identifier: Apache-2.0 */
/* x-forwarded-client-cert (Envoy ConnectionManagerUtility::mutateXfccRequestHeader): what a mutual
 * TLS connection says of its client, for those behind. */
#include "proxy/api/ssl_connection_info.h"
#include "proxy/http/hcm_internal.h"

/* An element under construction; a piece is "KEY=" and a value, in quotes or not. */
struct element {
    struct kb_str *pieces;
    size_t count;
    size_t cap;
    size_t bytes;
};

static void piece_add(struct element *element, struct kb_str piece)
{
    KB_ASSERT(element->count < element->cap);
    element->pieces[element->count++] = piece;
    element->bytes += piece.len;
}

static void pair_add(struct element *element, struct kb_str key, struct kb_str value, bool quoted)
{
    if (element->count > 0) {
        piece_add(element, KB_STR(";"));
    }
    piece_add(element, key);
    piece_add(element, quoted ? KB_STR("=\"") : KB_STR("="));
    piece_add(element, value);
    if (quoted) {
        piece_add(element, KB_STR("\""));
    }
}

static void list_add(struct element *element, struct kb_str key, const struct kb_str *values,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pair_add(element, key, values[i], false);
    }
}

#define PIECES_OF_PAIR 5
#define SINGLE_PAIRS   5 /* Hash, Cert, Chain, Subject, an empty URI */

static struct kb_str element_make(struct kb_stream *stream,
                                  const struct kb_ssl_connection_info *ssl)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    size_t by_count, uri_count, dns_count, at = 0;
    const struct kb_str *by = kb_ssl_list(ssl, KB_SSL_LOCAL_URI_SANS, &by_count);
    const struct kb_str *uris = kb_ssl_list(ssl, KB_SSL_PEER_URI_SANS, &uri_count);
    const struct kb_str *dns = kb_ssl_list(ssl, KB_SSL_PEER_DNS_SANS, &dns_count);
    struct element element = {.cap = (by_count + uri_count + dns_count + SINGLE_PAIRS) *
                                     PIECES_OF_PAIR};
    struct kb_str digest = kb_ssl_text(ssl, KB_SSL_PEER_SHA256);
    char *out;

    element.pieces =
        kb_arena_alloc(&stream->arena, element.cap * sizeof(struct kb_str), sizeof(void *));
    list_add(&element, KB_STR("By"), by, by_count);
    if (digest.len > 0) {
        pair_add(&element, KB_STR("Hash"), digest, false);
    }
    if (config->client_cert_details.cert) {
        pair_add(&element, KB_STR("Cert"), kb_ssl_text(ssl, KB_SSL_PEER_PEM_ENCODED), true);
    }
    if (config->client_cert_details.chain) {
        pair_add(&element, KB_STR("Chain"), kb_ssl_text(ssl, KB_SSL_PEER_CHAIN_ENCODED), true);
    }
    if (config->client_cert_details.subject) {
        pair_add(&element, KB_STR("Subject"), kb_ssl_text(ssl, KB_SSL_PEER_SUBJECT), true);
    }
    if (config->client_cert_details.uri) {
        list_add(&element, KB_STR("URI"), uris, uri_count);
        if (uri_count == 0) {
            pair_add(&element, KB_STR("URI"), KB_STR(""),
                     false); /* the key is there all the same */
        }
    }
    if (config->client_cert_details.dns) {
        list_add(&element, KB_STR("DNS"), dns, dns_count);
    }
    out = kb_arena_alloc(&stream->arena, element.bytes + 1, 1);
    for (size_t i = 0; i < element.count; i++) {
        if (element.pieces[i].len > 0) {
            memcpy(out + at, element.pieces[i].p, element.pieces[i].len);
            at += element.pieces[i].len;
        }
    }
    return kb_str_make(out, at);
}

void kb_hcm_client_cert_forward(struct kb_stream *stream)
{
    const struct kb_ssl_connection_info *ssl = stream->hcm->conn->info.ssl;
    enum kb_forward_client_cert mode = stream->hcm->config->forward_client_cert;
    struct kb_header_map *map = &stream->request;
    struct kb_str before, element;

    if (mode == KB_FORWARD_CLIENT_CERT_ALWAYS_FORWARD_ONLY) {
        return;
    }
    if (mode == KB_FORWARD_CLIENT_CERT_SANITIZE || !kb_ssl_peer_presented(ssl)) {
        kb_header_map_remove_id(map, KB_HDR_X_FORWARDED_CLIENT_CERT);
        return;
    }
    if (mode == KB_FORWARD_CLIENT_CERT_FORWARD_ONLY) {
        return;
    }
    element = element_make(stream, ssl);
    before = kb_header_map_value_id(map, KB_HDR_X_FORWARDED_CLIENT_CERT);
    if (mode == KB_FORWARD_CLIENT_CERT_APPEND_FORWARD && before.len > 0) {
        element =
            kb_str_printf(&stream->arena, "%.*s,%.*s", KB_STR_ARG(before), KB_STR_ARG(element));
    }
    kb_header_map_set_id(map, KB_HDR_X_FORWARDED_CLIENT_CERT, element);
}
