/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of TLS contexts. The lists of ciphers, curves and signature algorithms come in
 * BoringSSL's words and leave in OpenSSL's; a word that is not known is an error, never dropped. */
#include "tls/tls_settings.h"

#include <stdlib.h>

#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "base/mem.h"
#include "proto/wkt.h"
#include "tls/tls_data_source.h"
#include "tls/tls_lib.h"

#define VERSION(name) \
    ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__TLS_PARAMETERS__TLS_PROTOCOL__##name
#define STAPLE(name) \
    ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__##name
#define TICKETS(name) \
    ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_##name

#define SESSION_TIMEOUT_DEFAULT_S 7200
#define ALPN_MAX                  65535

/* Envoy's own lists (a build without FIPS). */
#define CIPHERS_DEFAULT                                            \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:" \
    "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305:"     \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#define GROUPS_DEFAULT "X25519:P-256"

static const struct kb_tls_cipher ciphers_default[] = {
    {0xc02b, 0, "ECDHE-ECDSA-AES128-GCM-SHA256"}, {0xcca9, 0, "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {0xc02f, 1, "ECDHE-RSA-AES128-GCM-SHA256"},   {0xcca8, 1, "ECDHE-RSA-CHACHA20-POLY1305"},
    {0xc02c, 2, "ECDHE-ECDSA-AES256-GCM-SHA384"}, {0xc030, 3, "ECDHE-RSA-AES256-GCM-SHA384"},
};

/* Whatever BoringSSL has and Envoy's users may name; the second name is OpenSSL's. */
static const struct {
    const char *name;
    const char *openssl;
} curves[] = {
    {"X25519", "X25519"},   {"P-256", "P-256"},     {"P-384", "P-384"},
    {"P-521", "P-521"},     {"secp256r1", "P-256"}, {"prime256v1", "P-256"},
    {"secp384r1", "P-384"}, {"secp521r1", "P-521"}, {"x25519", "X25519"},
};

static const char *const signature_algorithms[] = {
    "rsa_pkcs1_sha1",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
    "ecdsa_sha1",
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_rsae_sha512",
    "ed25519",
};

/* OpenSSL 3.0's own words for those that it does not know by the RFC's. */
static const struct {
    const char *name;
    const char *openssl;
} algorithm_words[] = {
    {"rsa_pkcs1_sha1", "RSA+SHA1"},     {"rsa_pkcs1_sha256", "RSA+SHA256"},
    {"rsa_pkcs1_sha384", "RSA+SHA384"}, {"rsa_pkcs1_sha512", "RSA+SHA512"},
    {"ecdsa_sha1", "ECDSA+SHA1"},
};

/* ---- lists ---- */

/* Appends "A" or ":A". */
static void list_add(struct kb_arena *arena, struct kb_str *list, struct kb_str word)
{
    *list = list->len == 0 ? kb_str_dup(arena, word)
                           : kb_str_printf(arena, "%.*s:%.*s", KB_STR_ARG(*list), KB_STR_ARG(word));
}

/* OpenSSL's name of one cipher, or empty. */
static struct kb_str cipher_name(struct kb_str word, struct kb_tls_settings *settings, SSL_CTX *ctx)
{
    const char *text = kb_str_dup(&settings->arena, word).p;
    const char *name = OPENSSL_cipher_name(text);

    if (name != NULL && strcmp(name, "(NONE)") != 0) {
        text = name;
    }
    /* Names only: neither OpenSSL's list commands nor its groups of ciphers. */
    if (word.len == 0 || strpbrk(text, "!+@=,; ") != NULL || strchr(text, '-') == NULL ||
        text[0] == '-' || SSL_CTX_set_cipher_list(ctx, text) != 1) {
        return KB_STR("");
    }
    return kb_str_from_cstr(text);
}

static bool group_read(struct kb_str *entry, struct kb_tls_settings *settings)
{
    if (entry->len >= 2 && entry->p[0] == '[' && entry->p[entry->len - 1] == ']') {
        *entry = kb_str_make(entry->p + 1, entry->len - 2);
        settings->equal_preference = true;
        return true;
    }
    return false;
}

/* Of the only cipher of `ctx`; those of TLS 1.3 stand before it. */
static uint16_t cipher_id(SSL_CTX *ctx)
{
    STACK_OF(SSL_CIPHER) *all = SSL_CTX_get_ciphers(ctx);

    return SSL_CIPHER_get_protocol_id(sk_SSL_CIPHER_value(all, sk_SSL_CIPHER_num(all) - 1));
}

static void ciphers_read(char **names, size_t count, struct kb_tls_settings *settings,
                         struct kb_diag *diag)
{
    struct kb_tls_cipher *table =
        kb_arena_calloc(&settings->arena, KB_TLS_CIPHERS_MAX * sizeof(*table));
    size_t known = 0;
    unsigned groups = 0;
    SSL_CTX *ctx =
        SSL_CTX_new_ex(kb_tls_worker_get(settings->server->main)->lib->ctx, NULL, TLS_method());
    struct kb_str list = KB_STR_NULL, rejected = KB_STR_NULL, all = KB_STR_NULL;

    KB_ASSERT(ctx != NULL);
    SSL_CTX_set_security_level(ctx, 0);
    for (size_t i = 0; i < count; i++) {
        struct kb_str entry = kb_wkt_str(names[i]);
        struct kb_str rest = entry, word;
        bool group = group_read(&rest, settings);

        list_add(&settings->arena, &all, entry);
        while (kb_str_next_token(&rest, group ? '|' : ':', &word)) {
            struct kb_str name = cipher_name(word, settings, ctx);

            list_add(&settings->arena, name.len > 0 ? &list : &rejected,
                     name.len > 0 ? name : word);
            if (name.len > 0 && known < KB_TLS_CIPHERS_MAX) {
                table[known++] = (struct kb_tls_cipher){cipher_id(ctx), (uint8_t)groups,
                                                        kb_str_dup(&settings->arena, name).p};
                groups += !group;
            }
        }
        groups += group;
    }
    SSL_CTX_free(ctx);
    settings->cipher_table = table;
    settings->cipher_count = known;
    settings->ciphers = list.p;
    if (rejected.len > 0 || list.len == 0) {
        struct kb_str names_shown = KB_STR_NULL, rest = rejected, word;

        while (rejected.len > 0 && kb_str_next_token(&rest, ':', &word)) {
            names_shown = names_shown.len == 0
                              ? word
                              : kb_str_printf(&settings->arena, "%.*s, %.*s",
                                              KB_STR_ARG(names_shown), KB_STR_ARG(word));
        }
        kb_diag_error(diag,
                      "Failed to initialize cipher suites %.*s. The following ciphers were "
                      "rejected when tried individually: %.*s",
                      KB_STR_ARG(all), KB_STR_ARG(names_shown));
    }
}

static void curves_read(char **names, size_t count, struct kb_tls_settings *settings,
                        struct kb_diag *diag)
{
    struct kb_str list = KB_STR_NULL, all = KB_STR_NULL;
    bool known = true;

    for (size_t i = 0; i < count; i++) {
        struct kb_str rest = kb_wkt_str(names[i]), word;

        list_add(&settings->arena, &all, rest);
        while (kb_str_next_token(&rest, ':', &word)) {
            const char *found = NULL;

            for (size_t k = 0; k < KB_ARRAY_LEN(curves); k++) {
                found =
                    kb_str_eq(word, kb_str_from_cstr(curves[k].name)) ? curves[k].openssl : found;
            }
            known = known && found != NULL;
            if (found != NULL) {
                list_add(&settings->arena, &list, kb_str_from_cstr(found));
            }
        }
    }
    settings->groups = list.p;
    if (!known) {
        kb_diag_error(diag, "Failed to initialize ECDH curves %.*s", KB_STR_ARG(all));
    }
}

static void algorithms_read(char **names, size_t count, struct kb_tls_settings *settings,
                            struct kb_diag *diag)
{
    struct kb_str list = KB_STR_NULL;

    for (size_t i = 0; i < count; i++) {
        const char *word = NULL;

        for (size_t k = 0; k < KB_ARRAY_LEN(signature_algorithms); k++) {
            word = strcmp(names[i], signature_algorithms[k]) == 0 ? names[i] : word;
        }
        for (size_t k = 0; word != NULL && k < KB_ARRAY_LEN(algorithm_words); k++) {
            word =
                strcmp(names[i], algorithm_words[k].name) == 0 ? algorithm_words[k].openssl : word;
        }
        if (word == NULL) {
            kb_diag_error(diag, "Failed to initialize TLS signature algorithms: unknown '%s'",
                          names[i]);
        } else {
            list_add(&settings->arena, &list, kb_str_from_cstr(word));
        }
    }
    settings->signature_algorithms = list.p;
}

static int version_number(int version, int automatic)
{
    switch (version) {
    case VERSION(TLSv1_0):
        return TLS1_VERSION;
    case VERSION(TLSv1_1):
        return TLS1_1_VERSION;
    case VERSION(TLSv1_2):
        return TLS1_2_VERSION;
    case VERSION(TLSv1_3):
        return TLS1_3_VERSION;
    default:
        return automatic;
    }
}

static void params_read(const Envoy__Extensions__TransportSockets__Tls__V3__TlsParameters *m,
                        struct kb_tls_settings *settings, struct kb_diag *diag)
{
    settings->min_version = TLS1_2_VERSION;
    settings->max_version = settings->downstream ? TLS1_3_VERSION : TLS1_2_VERSION;
    settings->ciphers = CIPHERS_DEFAULT;
    settings->cipher_table = ciphers_default;
    settings->cipher_count = KB_ARRAY_LEN(ciphers_default);
    settings->equal_preference = true;
    settings->groups = GROUPS_DEFAULT;
    if (m == NULL) {
        return;
    }
    kb_diag_push(diag, "tls_params");
    settings->min_version =
        version_number((int)m->tls_minimum_protocol_version, settings->min_version);
    settings->max_version =
        version_number((int)m->tls_maximum_protocol_version, settings->max_version);
    if (m->n_cipher_suites > 0) {
        settings->equal_preference = false;
        ciphers_read(m->cipher_suites, m->n_cipher_suites, settings, diag);
    }
    if (m->n_ecdh_curves > 0) {
        curves_read(m->ecdh_curves, m->n_ecdh_curves, settings, diag);
    }
    if (m->n_signature_algorithms > 0) {
        algorithms_read(m->signature_algorithms, m->n_signature_algorithms, settings, diag);
    }
    if (m->n_compliance_policies > 0) {
        kb_diag_error(diag, "compliance_policies is not supported: set versions, cipher_suites and "
                            "ecdh_curves instead");
    }
    kb_diag_pop(diag);
}

static size_t alpn_put(unsigned char *at, struct kb_str name)
{
    at[0] = (unsigned char)name.len;
    memcpy(at + 1, name.p, name.len);
    return name.len + 1;
}

static void alpn_read(char **names, size_t count, struct kb_tls_settings *settings,
                      struct kb_diag *diag)
{
    size_t len = 0;

    settings->alpn_names = kb_arena_calloc(&settings->arena, (count + 1) * sizeof(struct kb_str));
    for (size_t i = 0; i < count; i++) {
        struct kb_str rest = kb_wkt_str(names[i]);

        settings->alpn_names[i] = kb_str_dup(&settings->arena, rest);
        len += 1 + rest.len;
        if (rest.len == 0 || rest.len > 255 || len > ALPN_MAX) {
            kb_diag_error(diag, "Invalid ALPN protocol string: '%s'", names[i]);
            return;
        }
    }
    settings->alpn_count = count;
    settings->alpn_len = len;
    settings->alpn = len > 0 ? kb_arena_calloc(&settings->arena, len) : NULL;
    len = 0;
    for (size_t i = 0; i < count; i++) {
        len += alpn_put(settings->alpn + len, settings->alpn_names[i]);
    }
}

/* ---- resumption ---- */

static void
ticket_keys_read(const Envoy__Extensions__TransportSockets__Tls__V3__TlsSessionTicketKeys *m,
                 struct kb_tls_settings *settings, struct kb_diag *diag)
{
    struct kb_arena scratch;

    kb_arena_init(&scratch, NULL);
    for (size_t i = 0; i < m->n_keys && i < KB_TLS_TICKET_KEYS_MAX; i++) {
        struct kb_str key = KB_STR_NULL;

        kb_diag_push_index(diag, "keys", i);
        if (kb_tls_data_source_read(m->keys[i], &scratch, &key, diag) == 0) {
            if (key.len != KB_TLS_TICKET_KEY_BYTES) {
                kb_diag_error(diag,
                              "Incorrect TLS session ticket key length. Length %zu, expected "
                              "length %d.",
                              key.len, KB_TLS_TICKET_KEY_BYTES);
            } else {
                memcpy(settings->ticket_keys[settings->ticket_key_count++], key.p, key.len);
            }
            OPENSSL_cleanse((char *)(uintptr_t)key.p, key.len);
        }
        kb_diag_pop(diag);
    }
    if (m->n_keys > KB_TLS_TICKET_KEYS_MAX) {
        kb_diag_error(diag, "more than %d session ticket keys", KB_TLS_TICKET_KEYS_MAX);
    }
    kb_arena_dispose(&scratch);
}

static void
resumption_read(const Envoy__Extensions__TransportSockets__Tls__V3__DownstreamTlsContext *m,
                struct kb_tls_settings *settings, struct kb_diag *diag)
{
    settings->stateful_resumption = !m->disable_stateful_session_resumption;
    settings->stateless_resumption = true;
    settings->session_timeout_s = m->session_timeout != NULL
                                      ? (uint32_t)KB_MIN(m->session_timeout->seconds, UINT32_MAX)
                                      : SESSION_TIMEOUT_DEFAULT_S;
    switch ((int)m->session_ticket_keys_type_case) {
    case TICKETS(SESSION_TICKET_KEYS):
        kb_diag_push(diag, "session_ticket_keys");
        ticket_keys_read(m->session_ticket_keys, settings, diag);
        kb_diag_pop(diag);
        break;
    case TICKETS(SESSION_TICKET_KEYS_SDS_SECRET_CONFIG):
        kb_diag_error(diag, "session_ticket_keys_sds_secret_config is not supported: use "
                            "session_ticket_keys");
        break;
    case TICKETS(DISABLE_STATELESS_SESSION_RESUMPTION):
        settings->stateless_resumption = !m->disable_stateless_session_resumption;
        break;
    default:
        break;
    }
    if (settings->ticket_key_count == 0) {
        /* One key for all workers, so that a ticket of one is good at another. */
        settings->ticket_key_count = 1;
        KB_ASSERT(RAND_priv_bytes_ex(kb_tls_worker_get(settings->server->main)->lib->ctx,
                                     settings->ticket_keys[0], KB_TLS_TICKET_KEY_BYTES, 0) == 1);
    }
}

/* ---- lifecycle ---- */

static void common_read(const Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext *m,
                        struct kb_tls_settings *settings, struct kb_diag *diag)
{
    kb_diag_push(diag, "common_tls_context");
    params_read(m != NULL ? m->tls_params : NULL, settings, diag);
    if (m != NULL) {
        alpn_read(m->alpn_protocols, m->n_alpn_protocols, settings, diag);
        if (m->custom_handshaker != NULL || m->key_log != NULL ||
            m->custom_tls_certificate_selector != NULL) {
            kb_diag_error(diag, "custom_handshaker, key_log and custom_tls_certificate_selector "
                                "are not supported");
        }
    }
    kb_diag_pop(diag);
}

static struct kb_tls_settings *settings_new(struct kb_factory_context *factory, bool downstream)
{
    struct kb_tls_settings *settings = kb_calloc(1, sizeof(*settings));
    const char *prefix = factory->stat_prefix != NULL ? factory->stat_prefix : "";
    const char *side = downstream ? "server" : "client";

    KB_OBJ_SET(settings, kb_tls_settings);
    settings->refs = 1;
    settings->downstream = downstream;
    settings->server = factory->server;
    kb_arena_init(&settings->arena, NULL);
    settings->stats_prefix = kb_str_printf(&settings->arena, "%sssl.", prefix);
    settings->stats =
        kb_stat_group_create(factory->server->stats, settings->stats_prefix, &kb_stat_schema_ssl);
    settings->factory_stats = kb_stat_group_create(
        factory->server->stats,
        kb_str_printf(&settings->arena, "%s%s_ssl_socket_factory.", prefix, side),
        &kb_stat_schema_ssl_socket_factory);
    return settings;
}

struct kb_tls_settings *kb_tls_settings_create_downstream(
    const Envoy__Extensions__TransportSockets__Tls__V3__DownstreamTlsContext *message,
    struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_tls_settings *settings = settings_new(factory, true);

    common_read(message->common_tls_context, settings, diag);
    settings->require_client_certificate = kb_wkt_bool(message->require_client_certificate, false);
    settings->require_sni = kb_wkt_bool(message->require_sni, false);
    settings->prefer_client_ciphers = message->prefer_client_ciphers;
    resumption_read(message, settings, diag);
    if ((int)message->ocsp_staple_policy != STAPLE(LENIENT_STAPLING)) {
        kb_diag_error(diag, "ocsp_staple_policy other than LENIENT_STAPLING is not supported");
    }
    return settings;
}

struct kb_tls_settings *kb_tls_settings_create_upstream(
    const Envoy__Extensions__TransportSockets__Tls__V3__UpstreamTlsContext *message,
    struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_tls_settings *settings = settings_new(factory, false);

    common_read(message->common_tls_context, settings, diag);
    settings->server_name = kb_str_dup(&settings->arena, kb_wkt_str(message->sni));
    settings->allow_renegotiation = message->allow_renegotiation;
    settings->enforce_rsa_key_usage = kb_wkt_bool(message->enforce_rsa_key_usage, true);
    settings->max_session_keys =
        KB_MIN(kb_wkt_u32(message->max_session_keys, KB_TLS_SESSION_KEYS_DEFAULT),
               (uint32_t)KB_TLS_SESSION_KEYS_MAX);
    if (message->auto_host_sni || message->auto_sni_san_validation) {
        kb_diag_error(diag, "auto_host_sni and auto_sni_san_validation are not supported yet");
    }
    return settings;
}

struct kb_tls_settings *kb_tls_settings_ref(struct kb_tls_settings *settings)
{
    settings->refs++;
    return settings;
}

void kb_tls_settings_unref(struct kb_tls_settings *settings)
{
    if (settings == NULL || --settings->refs > 0) {
        return;
    }
    OPENSSL_cleanse(settings->ticket_keys, sizeof(settings->ticket_keys));
    kb_stat_group_destroy(settings->stats);
    kb_stat_group_destroy(settings->factory_stats);
    kb_arena_dispose(&settings->arena);
    KB_OBJ_CLEAR(settings);
    free(settings);
}
