/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets as transport socket factories use them: named, shared by all who name them, changing
 * under them. For this room. Main thread. */
#pragma once

#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
#include "proxy/api/secret.h"
#include "proxy/api/subscription.h"
#include "tls/tls_validation.h"

enum kb_tls_secret_kind { KB_TLS_SECRET_CERTIFICATE, KB_TLS_SECRET_VALIDATION };

/* Who hears of a secret's changes; part of the factory's configuration. */
struct kb_tls_secret_watch {
    struct kb_list link;
    void (*on_change)(void *arg);
    void (*on_failure)(void *arg); /* the first answer does not come, or is no good */
    void *arg;
    struct kb_tls_secret *secret; /* NULL: watches nothing */
};

struct kb_tls_secret {
    KB_OBJ;
    uint32_t refs;
    struct kb_secret_manager *manager;
    struct kb_list link; /* in the manager's list */
    struct kb_list watches;
    enum kb_tls_secret_kind kind;
    struct kb_str name;
    struct kb_str source; /* packed SdsSecretConfig: those with the same are one; empty: static */
    struct kb_arena arena;
    struct kb_arena version_arena;        /* of what it holds now */
    struct kb_subscription *subscription; /* NULL: static */
    bool started;
    bool ready;
    bool failed; /* not ready, and waited for no more */
    struct kb_tls_certificate *certificate;
    const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *validation;
};
KB_OBJ_MAGIC(kb_tls_secret, 0x544c5345);

/* The secret that the message names, with one reference; NULL after reporting. */
struct kb_tls_secret *
kb_tls_secret_find(struct kb_server_context *server, enum kb_tls_secret_kind kind,
                   const Envoy__Extensions__TransportSockets__Tls__V3__SdsSecretConfig *message,
                   struct kb_diag *diag);
/* Asks for it, if it has to be fetched and nobody did so before. */
void kb_tls_secret_start(struct kb_tls_secret *secret);
void kb_tls_secret_unref(struct kb_tls_secret *secret);
void kb_tls_secret_watch_add(struct kb_tls_secret *secret, struct kb_tls_secret_watch *watch);
void kb_tls_secret_watch_remove(struct kb_tls_secret_watch *watch);
