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
    bool closing; /* goes with its last secret */
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

static void manager_release(struct kb_secret_manager *manager)
{
    if (manager->closing && kb_list_empty(&manager->secrets)) {
        KB_OBJ_CLEAR(manager);
        free(manager);
    }
}

void kb_tls_secret_unref(struct kb_tls_secret *secret)
{
    if (secret == NULL || --secret->refs > 0) {
        return;
    }
    KB_ASSERT(kb_list_empty(&secret->watches));
    kb_list_unlink(&secret->link);
    if (secret->subscription != NULL) {
        kb_subscription_destroy(secret->subscription);
    }
    kb_tls_certificate_unref(secret->certificate);
    kb_arena_dispose(&secret->version_arena);
    kb_arena_dispose(&secret->arena);
    manager_release(secret->manager);
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

static struct kb_tls_secret *secret_find(const struct kb_secret_manager *manager,
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

/* ---- secrets that are fetched ---- */

static void watches_tell(struct kb_tls_secret *secret)
{
    KB_LIST_FOREACH (link, &secret->watches) {
        struct kb_tls_secret_watch *watch = KB_LIST_ENTRY(link, struct kb_tls_secret_watch, link);

        if (secret->ready) {
            watch->on_change(watch->arg);
        } else {
            watch->on_failure(watch->arg);
        }
    }
}

static bool kind_is(const struct kb_tls_secret *secret,
                    const Envoy__Extensions__TransportSockets__Tls__V3__Secret *message)
{
    return (int)message->type_case == (secret->kind == KB_TLS_SECRET_CERTIFICATE
                                           ? (int)TYPE(TLS_CERTIFICATE)
                                           : (int)TYPE(VALIDATION_CONTEXT));
}

static void secret_update(void *arg, const struct kb_resource_update *update, struct kb_diag *diag)
{
    struct kb_tls_secret *secret = KB_CAST(arg, kb_tls_secret);

    if (update->resource_count == 0 && update->removed_count == 0) {
        kb_diag_error(diag, "Missing SDS resources for %.*s in onConfigUpdate()",
                      KB_STR_ARG(secret->name));
    }
    for (size_t i = 0; i < update->resource_count; i++) {
        const struct kb_resource *resource = &update->resources[i];

        if (!kb_str_eq(resource->name, secret->name)) {
            kb_diag_error(diag, "Unexpected SDS secret (expecting %.*s): %.*s",
                          KB_STR_ARG(secret->name), KB_STR_ARG(resource->name));
        } else if (!kind_is(secret, resource->message)) {
            kb_diag_error(diag, "secret %.*s is not of the kind that its users need",
                          KB_STR_ARG(secret->name));
        } else if (secret_set(secret, resource->message, diag) == 0) {
            secret->failed = false;
            watches_tell(secret);
        }
    }
}

static void secret_failure(void *arg, enum kb_subscription_failure failure)
{
    struct kb_tls_secret *secret = KB_CAST(arg, kb_tls_secret);

    if (secret->ready || failure == KB_SUBSCRIPTION_CONNECTION) {
        return; /* what is there serves on, and a stream is opened again */
    }
    secret->failed = true;
    watches_tell(secret);
}

static const struct kb_subscription_callbacks secret_callbacks = {
    .on_update = secret_update,
    .on_failure = secret_failure,
};

void kb_tls_secret_start(struct kb_tls_secret *secret)
{
    if (secret->subscription != NULL && !secret->started) {
        secret->started = true;
        kb_subscription_start(secret->subscription);
    }
}

/* One of that name over that source: the one that is there, or a new one. */
static struct kb_tls_secret *
secret_fetched(struct kb_secret_manager *manager, enum kb_tls_secret_kind kind,
               const Envoy__Extensions__TransportSockets__Tls__V3__SdsSecretConfig *message,
               struct kb_diag *diag)
{
    struct kb_arena scratch;
    struct kb_str packed;
    struct kb_tls_secret *secret;

    kb_arena_init(&scratch, NULL);
    packed = kb_pb_pack(&message->base, &scratch);
    secret = secret_find(manager, kind, kb_wkt_str(message->name), packed);
    if (secret != NULL) {
        secret->refs++;
    } else {
        struct kb_subscription_options options = {
            .type = KB_RESOURCE_SECRET,
            .source = message->sds_config,
            .name = kb_wkt_str(message->name),
            .stat_prefix = kb_str_printf(&scratch, "sds.%s.", message->name).p,
            .callbacks = &secret_callbacks,
        };

        secret = secret_create(manager, kind, kb_wkt_str(message->name), packed);
        options.arg = secret;
        secret->subscription = kb_subscription_create(manager->server, &options, diag);
        if (secret->subscription == NULL) {
            kb_tls_secret_unref(secret);
            secret = NULL;
        }
    }
    kb_arena_dispose(&scratch);
    return secret;
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
        struct kb_tls_secret *secret = KB_LIST_ENTRY(link, struct kb_tls_secret, link);

        if (secret->subscription == NULL) {
            kb_tls_secret_unref(secret);
        }
    }
    manager->closing = true;
    manager_release(manager);
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
    if (secret_find(manager, kind, kb_wkt_str(message->name), KB_STR("")) != NULL) {
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

    if (message->sds_config != NULL && server->secrets != NULL) {
        return secret_fetched(server->secrets, kind, message, diag);
    }
    if (server->secrets != NULL) {
        secret = secret_find(server->secrets, kind, kb_wkt_str(message->name), KB_STR(""));
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
