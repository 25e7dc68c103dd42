/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.transport_sockets.tls: configuration of both sides, and the publishing of contexts made of
 * it. A factory whose secrets are not all there has no context yet; a changed secret makes a new
 * one, and connections keep the one with which they began. */
#include <stdlib.h>

#include "base/init_manager.h"
#include "base/log.h"
#include "base/mem.h"
#include "envoy/admin/v3/certs.pb-c.h"
#include "proto/pb.h"
#include "tls/tls_certs_page.h"
#include "tls/tls_secret.h"
#include "tls/tls_socket.h"

#define VALIDATION(name) \
    ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_##name

struct tls_factory {
    KB_OBJ;
    struct kb_list link; /* in `factories` */
    struct kb_tls_settings *settings;
    struct kb_slot *slot;
    struct kb_arena arena;
    /* Of the configuration itself; the rest is in secrets. */
    struct kb_tls_certificate *certificates[KB_TLS_CERTIFICATES_MAX];
    size_t certificate_count;
    struct kb_tls_secret_watch certificate_watches[KB_TLS_CERTIFICATES_MAX];
    size_t certificate_watch_count;
    struct kb_tls_secret_watch validation_watch;
    struct kb_init_target target; /* ready when every secret is there or will not come */
    const Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext *validation;
};
KB_OBJ_MAGIC(tls_factory, 0x544c4646);

static struct kb_list factories; /* main thread */

/* ---- contexts ---- */

static bool secrets_ready(const struct tls_factory *factory)
{
    for (size_t i = 0; i < factory->certificate_watch_count; i++) {
        if (!factory->certificate_watches[i].secret->ready) {
            return false;
        }
    }
    return factory->validation_watch.secret == NULL || factory->validation_watch.secret->ready;
}

/* What the configuration says, with what the secret says merged into it. */
static struct kb_tls_validation *validation_make(struct tls_factory *factory, struct kb_diag *diag)
{
    const struct kb_tls_secret *secret = factory->validation_watch.secret;
    ProtobufCMessage *merged;
    struct kb_tls_validation *validation;
    struct kb_arena scratch;

    kb_arena_init(&scratch, NULL);
    merged =
        factory->validation != NULL
            ? kb_pb_copy(&factory->validation->base, &scratch)
            : kb_pb_new(
                  &envoy__extensions__transport_sockets__tls__v3__certificate_validation_context__descriptor,
                  &scratch);
    if (secret != NULL && kb_pb_merge(merged, &secret->validation->base, &scratch) != 0) {
        kb_diag_error(diag, "the validation context of secret '%.*s' cannot be merged",
                      KB_STR_ARG(secret->name));
        kb_arena_dispose(&scratch);
        return NULL;
    }
    validation = kb_tls_validation_create((const void *)merged, factory->settings->server, diag);
    kb_arena_dispose(&scratch);
    return validation;
}

/* Makes a context of the secrets of the moment and publishes it. */
static int context_publish(struct tls_factory *factory, struct kb_diag *diag)
{
    struct kb_tls_certificate *certificates[KB_TLS_CERTIFICATES_MAX];
    struct kb_tls_validation *validation = NULL;
    struct kb_tls_context *context;
    size_t count = 0;

    for (size_t i = 0; i < factory->certificate_count; i++) {
        certificates[count++] = factory->certificates[i];
    }
    for (size_t i = 0; i < factory->certificate_watch_count && count < KB_ARRAY_LEN(certificates);
         i++) {
        certificates[count++] = factory->certificate_watches[i].secret->certificate;
    }
    if (factory->validation != NULL || factory->validation_watch.secret != NULL) {
        validation = validation_make(factory, diag);
        if (validation == NULL) {
            return KB_ECONFIG;
        }
    }
    context = kb_tls_context_create(factory->settings, validation,
                                    factory->validation_watch.secret != NULL
                                        ? factory->validation_watch.secret->name
                                        : KB_STR(""),
                                    certificates, count);
    kb_tls_validation_unref(validation);
    kb_slot_publish(factory->slot, &context->shared);
    return 0;
}

/* Nobody needs to wait any longer for a secret. */
static void target_check(struct tls_factory *factory)
{
    for (size_t i = 0; i < factory->certificate_watch_count; i++) {
        const struct kb_tls_secret *secret = factory->certificate_watches[i].secret;

        if (!secret->ready && !secret->failed) {
            return;
        }
    }
    if (factory->validation_watch.secret == NULL || factory->validation_watch.secret->ready ||
        factory->validation_watch.secret->failed) {
        kb_init_target_ready(&factory->target);
    }
}

static void secret_failed(void *arg)
{
    target_check(KB_CAST(arg, tls_factory));
}

static void secrets_start(struct kb_init_target *target)
{
    struct tls_factory *factory = KB_CONTAINER_OF(target, struct tls_factory, target);

    for (size_t i = 0; i < factory->certificate_watch_count; i++) {
        kb_tls_secret_start(factory->certificate_watches[i].secret);
    }
    if (factory->validation_watch.secret != NULL) {
        kb_tls_secret_start(factory->validation_watch.secret);
    }
    target_check(factory);
}

static void secret_changed(void *arg)
{
    struct tls_factory *factory = KB_CAST(arg, tls_factory);
    struct kb_server_context *server = factory->settings->server;
    struct kb_diag diag;

    kb_stat_inc(kb_stat_group_block(factory->settings->factory_stats, server->main->index),
                KB_STAT_SSL_SOCKET_FACTORY_SSL_CONTEXT_UPDATE_BY_SDS);
    if (!secrets_ready(factory)) {
        target_check(factory);
        return;
    }
    kb_diag_init(&diag);
    if (context_publish(factory, &diag) != 0) {
        KB_LOG(CONFIG, WARNING, "a changed secret cannot be used, the one before serves on: %.*s",
               KB_STR_ARG(diag.first != NULL ? kb_diag_format(&diag, diag.first) : KB_STR("")));
    }
    kb_diag_dispose(&diag);
    target_check(factory);
}

/* ---- configuration ---- */

static void watch_begin(struct tls_factory *factory, struct kb_tls_secret_watch *watch,
                        enum kb_tls_secret_kind kind,
                        const Envoy__Extensions__TransportSockets__Tls__V3__SdsSecretConfig *m,
                        struct kb_diag *diag)
{
    struct kb_tls_secret *secret = kb_tls_secret_find(factory->settings->server, kind, m, diag);

    if (secret != NULL) {
        watch->on_change = secret_changed;
        watch->on_failure = secret_failed;
        watch->arg = factory;
        kb_tls_secret_watch_add(secret, watch);
        if (secret->ready && secret->subscription != NULL) { /* Envoy counts what is there */
            kb_stat_inc(kb_stat_group_block(factory->settings->factory_stats,
                                            factory->settings->server->main->index),
                        KB_STAT_SSL_SOCKET_FACTORY_SSL_CONTEXT_UPDATE_BY_SDS);
        }
    }
}

static void
certificates_read(struct tls_factory *factory,
                  const Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext *m,
                  struct kb_diag *diag)
{
    size_t total = m->n_tls_certificates + m->n_tls_certificate_sds_secret_configs;

    if (m->tls_certificate_provider_instance != NULL ||
        m->tls_certificate_certificate_provider != NULL ||
        m->tls_certificate_certificate_provider_instance != NULL) {
        kb_diag_error(diag, "certificate providers are not supported");
    }
    if (total > KB_TLS_CERTIFICATES_MAX) {
        kb_diag_error(diag, "more than %d certificates in one context", KB_TLS_CERTIFICATES_MAX);
        return;
    }
    if (m->n_tls_certificates > 0 && m->n_tls_certificate_sds_secret_configs > 0) {
        kb_diag_error(diag, "SDS and non-SDS TLS certificates may not be mixed in server contexts");
        return;
    }
    if (!factory->settings->downstream && total > 1) {
        kb_diag_error(diag, "Multiple TLS certificates are not supported for client contexts");
        return;
    }
    for (size_t i = 0; i < m->n_tls_certificates; i++) {
        struct kb_tls_certificate *certificate;

        kb_diag_push_index(diag, "tls_certificates", i);
        certificate = kb_tls_certificate_create(m->tls_certificates[i], KB_STR(""),
                                                factory->settings->server, diag);
        kb_diag_pop(diag);
        if (certificate != NULL) {
            factory->certificates[factory->certificate_count++] = certificate;
        }
    }
    for (size_t i = 0; i < m->n_tls_certificate_sds_secret_configs; i++) {
        kb_diag_push_index(diag, "tls_certificate_sds_secret_configs", i);
        watch_begin(factory, &factory->certificate_watches[factory->certificate_watch_count],
                    KB_TLS_SECRET_CERTIFICATE, m->tls_certificate_sds_secret_configs[i], diag);
        kb_diag_pop(diag);
        factory->certificate_watch_count +=
            factory->certificate_watches[factory->certificate_watch_count].secret != NULL;
    }
    if (factory->settings->downstream && total == 0) {
        kb_diag_error(diag, "No TLS certificates found for server context");
    }
}

static void combined_read(
    struct tls_factory *factory,
    const Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext__CombinedCertificateValidationContext
        *m,
    struct kb_diag *diag)
{
    kb_diag_push(diag, "combined_validation_context");
    if (m->validation_context_certificate_provider != NULL ||
        m->validation_context_certificate_provider_instance != NULL) {
        kb_diag_error(diag, "certificate providers are not supported");
    }
    if (m->default_validation_context != NULL) {
        factory->validation =
            (const void *)kb_pb_copy(&m->default_validation_context->base, &factory->arena);
    }
    if (m->validation_context_sds_secret_config != NULL) {
        kb_diag_push(diag, "validation_context_sds_secret_config");
        watch_begin(factory, &factory->validation_watch, KB_TLS_SECRET_VALIDATION,
                    m->validation_context_sds_secret_config, diag);
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
}

static void validation_read(struct tls_factory *factory,
                            const Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext *m,
                            struct kb_diag *diag)
{
    switch ((int)m->validation_context_type_case) {
    case VALIDATION(_NOT_SET):
        break;
    case VALIDATION(VALIDATION_CONTEXT):
        factory->validation =
            (const void *)kb_pb_copy(&m->validation_context->base, &factory->arena);
        break;
    case VALIDATION(VALIDATION_CONTEXT_SDS_SECRET_CONFIG):
        kb_diag_push(diag, "validation_context_sds_secret_config");
        watch_begin(factory, &factory->validation_watch, KB_TLS_SECRET_VALIDATION,
                    m->validation_context_sds_secret_config, diag);
        kb_diag_pop(diag);
        break;
    case VALIDATION(COMBINED_VALIDATION_CONTEXT):
        combined_read(factory, m->combined_validation_context, diag);
        break;
    default:
        kb_diag_error(diag, "certificate providers are not supported");
        break;
    }
}

static void factory_destroy(void *config)
{
    struct tls_factory *factory = KB_CAST(config, tls_factory);

    kb_list_unlink(&factory->link);
    kb_init_target_dispose(&factory->target);
    for (size_t i = 0; i < factory->certificate_watch_count; i++) {
        struct kb_tls_secret *secret = factory->certificate_watches[i].secret;

        kb_tls_secret_watch_remove(&factory->certificate_watches[i]);
        kb_tls_secret_unref(secret);
    }
    if (factory->validation_watch.secret != NULL) {
        struct kb_tls_secret *secret = factory->validation_watch.secret;

        kb_tls_secret_watch_remove(&factory->validation_watch);
        kb_tls_secret_unref(secret);
    }
    for (size_t i = 0; i < factory->certificate_count; i++) {
        kb_tls_certificate_unref(factory->certificates[i]);
    }
    kb_slot_destroy(factory->slot);
    kb_tls_settings_unref(factory->settings);
    kb_arena_dispose(&factory->arena);
    KB_OBJ_CLEAR(factory);
    free(factory);
}

/* The secrets for /init_dump, a line for each. */
static const char *secrets_text(struct tls_factory *factory)
{
    struct kb_str text = KB_STR("");
    size_t count = factory->certificate_watch_count;

    for (size_t i = 0; i <= count; i++) {
        const struct kb_tls_secret *secret =
            i < count ? factory->certificate_watches[i].secret : factory->validation_watch.secret;

        if (secret != NULL) {
            text =
                kb_str_printf(&factory->arena, "%.*s%sshared target SdsApi %.*s", KB_STR_ARG(text),
                              text.len > 0 ? "\n" : "", KB_STR_ARG(secret->name));
        }
    }
    return text.p;
}

static int factory_create(struct kb_tls_settings *settings,
                          const Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext *m,
                          struct kb_factory_context *context, struct kb_diag *diag, uint32_t errors,
                          void **config)
{
    struct tls_factory *factory = kb_calloc(1, sizeof(*factory));
    struct kb_server_context *server = context->server;

    KB_OBJ_SET(factory, tls_factory);
    factory->settings = settings;
    if (factories.next == NULL) {
        kb_list_init(&factories);
    }
    kb_list_push_back(&factories, &factory->link);
    kb_arena_init(&factory->arena, NULL);
    kb_init_target_init(&factory->target, "SDS secrets", secrets_start);
    factory->slot = kb_slot_create(server->main, server->workers, server->worker_count);
    kb_diag_push(diag, "common_tls_context");
    if (m != NULL) {
        certificates_read(factory, m, diag);
        validation_read(factory, m, diag);
    } else if (settings->downstream) {
        kb_diag_error(diag, "No TLS certificates found for server context");
    }
    if (diag->error_count == errors && secrets_ready(factory)) {
        (void)context_publish(factory, diag); /* reported */
    }
    kb_diag_pop(diag);
    if (diag->error_count != errors) {
        factory_destroy(factory);
        return KB_ECONFIG;
    }
    if (!secrets_ready(factory)) {
        factory->target.name = secrets_text(factory);
        kb_init_manager_add(context->init, &factory->target);
    }
    *config = factory;
    return 0;
}

static int downstream_create(const void *message, struct kb_factory_context *factory,
                             struct kb_diag *diag, void **config)
{
    const Envoy__Extensions__TransportSockets__Tls__V3__DownstreamTlsContext *m = message;
    uint32_t errors = diag->error_count;

    return factory_create(kb_tls_settings_create_downstream(m, factory, diag),
                          m->common_tls_context, factory, diag, errors, config);
}

static int upstream_create(const void *message, struct kb_factory_context *factory,
                           struct kb_diag *diag, void **config)
{
    const Envoy__Extensions__TransportSockets__Tls__V3__UpstreamTlsContext *m = message;
    uint32_t errors = diag->error_count;

    return factory_create(kb_tls_settings_create_upstream(m, factory, diag), m->common_tls_context,
                          factory, diag, errors, config);
}

/* ---- /certs ---- */

const ProtobufCMessage *kb_secrets_certs_page(struct kb_server_context *server,
                                              struct kb_arena *arena)
{
    Envoy__Admin__V3__Certificates *page =
        (void *)kb_pb_new(&envoy__admin__v3__certificates__descriptor, arena);
    size_t count = 0;

    if (factories.next == NULL) {
        return &page->base;
    }
    KB_LIST_FOREACH (link, &factories) {
        (void)link;
        count++;
    }
    page->certificates = kb_arena_calloc(arena, (count + 1) * sizeof(*page->certificates));
    KB_LIST_FOREACH (link, &factories) {
        struct tls_factory *factory = KB_LIST_ENTRY(link, struct tls_factory, link);
        struct kb_shared *shared = kb_slot_get(factory->slot, server->main);

        if (shared != NULL) {
            kb_tls_certs_page_add(page, KB_CONTAINER_OF(shared, struct kb_tls_context, shared),
                                  server->main, arena);
        }
    }
    return &page->base;
}

/* ---- connections ---- */

static void socket_create(void *config, struct kb_conn *conn,
                          const struct kb_transport_socket_options *options)
{
    struct tls_factory *factory = KB_CAST(config, tls_factory);
    struct kb_shared *shared = kb_slot_get(factory->slot, conn->worker);
    struct kb_tls_settings *settings = factory->settings;

    if (shared == NULL) {
        kb_stat_inc(kb_stat_group_block(settings->factory_stats, conn->worker->index),
                    settings->downstream
                        ? KB_STAT_SSL_SOCKET_FACTORY_DOWNSTREAM_CONTEXT_SECRETS_NOT_READY
                        : KB_STAT_SSL_SOCKET_FACTORY_UPSTREAM_CONTEXT_SECRETS_NOT_READY);
    }
    kb_tls_socket_create(
        conn, shared == NULL ? NULL : KB_CONTAINER_OF(shared, struct kb_tls_context, shared),
        options);
}

static const struct kb_str *alpn_offered(const void *config, size_t *count)
{
    const struct tls_factory *factory = config;

    *count = factory->settings->alpn_count;
    return factory->settings->alpn_names;
}

extern const struct kb_transport_socket_factory_ops kb_tls_downstream_factory_ops;
const struct kb_transport_socket_factory_ops kb_tls_downstream_factory_ops = {
    .name = "envoy.transport_sockets.tls",
    .type_url = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    .secure = true,
    .config_create = downstream_create,
    .config_destroy = factory_destroy,
    .create = socket_create,
    .alpn = alpn_offered,
};

extern const struct kb_transport_socket_factory_ops kb_tls_upstream_factory_ops;
const struct kb_transport_socket_factory_ops kb_tls_upstream_factory_ops = {
    .name = "envoy.transport_sockets.tls",
    .type_url = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    .secure = true,
    .config_create = upstream_create,
    .config_destroy = factory_destroy,
    .create = socket_create,
    .alpn = alpn_offered,
};
