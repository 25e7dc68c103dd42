/* SPDX-License-Identifier: Apache-2.0 */
/* What a DownstreamTlsContext or UpstreamTlsContext says apart from its secrets: read once, then
 * immutable, kept by the factory and by every context made of it. For this room. */
#pragma once

#include "envoy/extensions/transport_sockets/tls/v3/tls.pb-c.h"
#include "proxy/api/factory_context.h"
#include "proxy/api/stats.h"

#define KB_TLS_TICKET_KEY_BYTES     80
#define KB_TLS_TICKET_KEYS_MAX      16
#define KB_TLS_SESSION_KEYS_MAX     1024 /* upstream sessions kept, whatever is configured */
#define KB_TLS_SESSION_KEYS_DEFAULT 1

#define KB_TLS_CIPHERS_MAX 64

/* One of TLS 1.2 and below. */
struct kb_tls_cipher {
    uint16_t id;
    uint8_t group; /* those with the same number are equally good: "[A|B]" */
    const char *name;
};

struct kb_tls_settings {
    KB_OBJ;
    uint32_t refs; /* main thread */
    struct kb_arena arena;
    struct kb_server_context *server;
    struct kb_str stats_prefix;          /* "listener.X.ssl." or "cluster.X.ssl." */
    struct kb_stat_group *stats;         /* of that prefix */
    struct kb_stat_group *factory_stats; /* "listener.X.server_ssl_socket_factory." ... */
    bool downstream;
    /* OpenSSL's version numbers and lists. */
    int min_version, max_version;
    const char *ciphers;
    bool equal_preference; /* the list has [A|B] */
    const struct kb_tls_cipher *cipher_table;
    size_t cipher_count;
    const char *groups;
    const char *signature_algorithms; /* NULL: as the library likes */
    unsigned char *alpn;              /* wire form; NULL: none */
    size_t alpn_len;
    struct kb_str *alpn_names;
    size_t alpn_count;
    struct kb_str server_name; /* upstream: sni */
    bool require_client_certificate;
    bool require_sni;
    bool prefer_client_ciphers;
    bool allow_renegotiation;
    bool enforce_rsa_key_usage;
    bool stateless_resumption;
    bool stateful_resumption;
    uint32_t session_timeout_s;
    uint32_t max_session_keys;
    unsigned char ticket_keys[KB_TLS_TICKET_KEYS_MAX][KB_TLS_TICKET_KEY_BYTES];
    size_t ticket_key_count;
};
KB_OBJ_MAGIC(kb_tls_settings, 0x544c5353);

/* From the messages; errors go to diag, all of them, and the object is usable all the same. */
struct kb_tls_settings *kb_tls_settings_create_downstream(
    const Envoy__Extensions__TransportSockets__Tls__V3__DownstreamTlsContext *message,
    struct kb_factory_context *factory, struct kb_diag *diag);
struct kb_tls_settings *kb_tls_settings_create_upstream(
    const Envoy__Extensions__TransportSockets__Tls__V3__UpstreamTlsContext *message,
    struct kb_factory_context *factory, struct kb_diag *diag);

/* Main thread. */
struct kb_tls_settings *kb_tls_settings_ref(struct kb_tls_settings *settings);
void kb_tls_settings_unref(struct kb_tls_settings *settings);
