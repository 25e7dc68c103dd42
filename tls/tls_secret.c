/* SPDX-License-Identifier: Apache-2.0 */
/* The secret manager. A secret lives as long as somebody uses it, those of the bootstrap as long as
 * the process. */
#include "tls/tls_secret.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proto/pb.h"
#include "proto/wkt.h"

#define TYPE(name) ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SECRET__TYPE_##name

struct kb_secret_manager {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_list secrets;
};
KB_OBJ_MAGIC(kb_secret_manager, 0x53454352);

/* ---- one secret ---- */

static struct kb_tls_secret *secret_create(struct kb_secret_manager *manager,
                                           enum kb_tls_secret_kind kind, struct kb_str name,
                                           struct kb_str source)
{
    struct kb_tls_secret *secret = kb_calloc(1, sizeof(*secret));

    KB_OBJ_SET(secret, kb_tls_secret);
    secret->refs = 1;
    secret->manager = manager;
    secret->kind = kind;
    kb_arena_init(&secret->arena, NULL);
    kb_arena_init(&secret->version_arena, NULL);
    secret->name = kb_str_dup(&secret->arena, name);
    secret->source = kb_str_dup(&secret->arena, source);
    kb_list_init(&secret->watches);
    kb_list_push_back(&manager->secrets, &secret->link);
    return secret;
}

void kb_tls_secret_unref(struct kb_tls_secret *secret)
{
    if (secret == NULL || --secret->refs > 0) {
        return;
    }
    KB_ASSERT(kb_list_empty(&secret->watches));
    kb_list_unlink(&secret->link);
    kb_tls_certificate_unref(secret->certificate);
    kb_arena_dispose(&secret->version_arena);
    kb_arena_dispose(&secret->arena);
    KB_OBJ_CLEAR(secret);
    free(secret);
}

/* Takes over what a message holds; what was there before stays when it is not good. */
static int secret_set(struct kb_tls_secret *secret,
                      const Envoy__Extensions__TransportSockets__Tls__V3__Secret *message,
                      struct kb_diag *diag)
{
    struct kb_server_context *server = secret->manager->server;

    if (secret->kind == KB_TLS_SECRET_CERTIFICATE) {
        struct kb_tls_certificate *certificate;

        kb_diag_push(diag, "tls_certificate");
        certificate =
            kb_tls_certificate_create(message->tls_certificate, secret->name, server, diag);
        kb_diag_pop(diag);
        if (certificate == NULL) {
            return KB_ECONFIG;
        }
        kb_tls_certificate_unref(secret->certificate);
        secret->certificate = certificate;
    } else {
        struct kb_tls_validation *tried;

        kb_diag_push(diag, "validation_context");
        tried = kb_tls_validation_create(message->validation_context, server, diag);
        kb_diag_pop(diag);
        if (tried == NULL) {
            return KB_ECONFIG;
        }
        kb_tls_validation_unref(tried);
        kb_arena_dispose(&secret->version_arena);
        secret->validation =
            (const void *)kb_pb_copy(&message->validation_context->base, &secret->version_arena);
    }
    secret->ready = true;
    return 0;
}

void kb_tls_secret_watch_add(struct kb_tls_secret *secret, struct kb_tls_secret_watch *watch)
{
    watch->secret = secret;
    kb_list_push_back(&secret->watches, &watch->link);
}

void kb_tls_secret_watch_remove(struct kb_tls_secret_watch *watch)
{
    if (watch->secret != NULL) {
        kb_list_unlink(&watch->link);
        watch->secret = NULL;
    }
}

/* ---- the manager ---- */

struct kb_secret_manager *kb_secret_manager_create(struct kb_server_context *server)
{
    struct kb_secret_manager *manager = kb_calloc(1, sizeof(*manager));

    KB_OBJ_SET(manager, kb_secret_manager);
    manager->server = server;
    kb_list_init(&manager->secrets);
    return manager;
}

void kb_secret_manager_destroy(struct kb_secret_manager *manager)
{
    if (manager == NULL) {
        return;
    }
    KB_LIST_FOREACH (link, &manager->secrets) {
        kb_tls_secret_unref(KB_LIST_ENTRY(link, struct kb_tls_secret, link));
    }
    KB_ASSERT(kb_list_empty(&manager->secrets));
    KB_OBJ_CLEAR(manager);
    free(manager);
}

static struct kb_tls_secret *find(const struct kb_secret_manager *manager,
                                  enum kb_tls_secret_kind kind, struct kb_str name,
                                  struct kb_str source)
{
    KB_LIST_FOREACH (link, &manager->secrets) {
        struct kb_tls_secret *secret = KB_LIST_ENTRY(link, struct kb_tls_secret, link);

        if (secret->kind == kind && kb_str_eq(secret->name, name) &&
            kb_str_eq(secret->source, source)) {
            return secret;
        }
    }
    return NULL;
}

int kb_secret_manager_add_static(
    struct kb_secret_manager *manager,
    const Envoy__Extensions__TransportSockets__Tls__V3__Secret *message, struct kb_diag *diag)
{
    enum kb_tls_secret_kind kind;
    struct kb_tls_secret *secret;

    switch ((int)message->type_case) {
    case TYPE(TLS_CERTIFICATE):
        kind = KB_TLS_SECRET_CERTIFICATE;
        break;
    case TYPE(VALIDATION_CONTEXT):
        kind = KB_TLS_SECRET_VALIDATION;
        break;
    case TYPE(SESSION_TICKET_KEYS):
    case TYPE(GENERIC_SECRET):
        return 0; /* nothing that is supported refers to them */
    default:
        kb_diag_error(diag, "Secret type not implemented");
        return KB_ECONFIG;
    }
    if (find(manager, kind, kb_wkt_str(message->name), KB_STR("")) != NULL) {
        kb_diag_error(diag, "Duplicate static %s secret name %s",
                      kind == KB_TLS_SECRET_CERTIFICATE ? "TlsCertificate"
                                                        : "CertificateValidationContext",
                      message->name);
        return KB_ECONFIG;
    }
    secret = secret_create(manager, kind, kb_wkt_str(message->name), KB_STR(""));
    return secret_set(secret, message, diag);
}

struct kb_tls_secret *
kb_tls_secret_find(struct kb_server_context *server, enum kb_tls_secret_kind kind,
                   const Envoy__Extensions__TransportSockets__Tls__V3__SdsSecretConfig *message,
                   struct kb_diag *diag)
{
    struct kb_tls_secret *secret = NULL;

    if (message->sds_config != NULL) {
        kb_diag_error(diag, "secrets over sds_config are not supported yet");
        return NULL;
    }
    if (server->secrets != NULL) {
        secret = find(server->secrets, kind, kb_wkt_str(message->name), KB_STR(""));
    }
    if (secret == NULL) {
        kb_diag_error(diag,
                      kind == KB_TLS_SECRET_CERTIFICATE
                          ? "Unknown static secret: %s"
                          : "Unknown static certificate validation context: %s",
                      message->name);
        return NULL;
    }
    secret->refs++;
    return secret;
}
