/* SPDX-License-Identifier: Apache-2.0 */
/* What subscriptions keep for /config_dump: the resource as it was taken last, without secrets. */
#include <stdlib.h>

#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/server/xds_glue_internal.h"

#define DATA_SOURCE(name) ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_##name
#define SECRET(name)      ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SECRET__TYPE_##name

static struct kb_str heap_copy(struct kb_str text)
{
    return kb_str_make(kb_str_to_cstr(text), text.len);
}

/* What is set stays set, as the page says "[redacted]". */
static void data_source_strip(Envoy__Config__Core__V3__DataSource *source)
{
    static const char placeholder[] = "redacted";

    if (source == NULL) {
        return;
    }
    if (source->specifier_case == DATA_SOURCE(INLINE_BYTES)) {
        source->inline_bytes.data = (uint8_t *)(uintptr_t)placeholder;
        source->inline_bytes.len = sizeof(placeholder) - 1;
    } else if (source->specifier_case == DATA_SOURCE(INLINE_STRING)) {
        source->inline_string = (char *)(uintptr_t)placeholder;
    }
}

/* Private parts never stay in memory for the sake of a page that leaves them out. */
static void secret_strip(Envoy__Extensions__TransportSockets__Tls__V3__Secret *secret)
{
    if (secret->type_case == SECRET(TLS_CERTIFICATE)) {
        data_source_strip(secret->tls_certificate->private_key);
        data_source_strip(secret->tls_certificate->password);
        secret->tls_certificate->pkcs12 = NULL;
    } else if (secret->type_case == SECRET(SESSION_TICKET_KEYS)) {
        secret->session_ticket_keys->n_keys = 0;
    } else if (secret->type_case == SECRET(GENERIC_SECRET)) {
        secret->generic_secret->secret = NULL;
        secret->generic_secret->n_secrets = 0;
    }
}

/* Clusters, listeners and endpoints are kept by their managers. */
static bool keeps_shown(const struct kb_subscription *subscription)
{
    return subscription->type == KB_XDS_ROUTE_CONFIGURATION ||
           subscription->type == KB_XDS_SECRET || subscription->type == KB_XDS_EXTENSION_CONFIG;
}

void kb_xds_shown_init(struct kb_subscription *subscription)
{
    if (keeps_shown(subscription)) {
        subscription->shown = kb_calloc(1, sizeof(*subscription->shown));
        subscription->shown->name = kb_str_from_cstr(subscription->name);
        subscription->shown->updated_wall_ns = kb_clock_wall_ns();
    }
}

static void shown_empty(struct kb_admin_resource *shown)
{
    free((char *)(uintptr_t)shown->packed.p);
    free((char *)(uintptr_t)shown->version.p);
    shown->packed = KB_STR_NULL;
    shown->version = KB_STR_NULL;
}

void kb_xds_shown_clear(struct kb_subscription *subscription)
{
    if (subscription->shown != NULL) {
        shown_empty(subscription->shown);
        free(subscription->shown);
        subscription->shown = NULL;
    }
}

void kb_xds_shown_keep(struct kb_subscription *subscription, const struct kb_resource *resource)
{
    const ProtobufCMessage *message = resource->message;
    struct kb_arena arena;

    if (subscription->shown == NULL) {
        return;
    }
    kb_arena_init(&arena, NULL);
    if (subscription->type == KB_XDS_SECRET) {
        ProtobufCMessage *copy = kb_pb_copy(message, &arena);

        secret_strip((void *)copy);
        message = copy;
    }
    shown_empty(subscription->shown);
    subscription->shown->packed = heap_copy(kb_pb_pack(message, &arena));
    subscription->shown->version = heap_copy(resource->version);
    subscription->shown->updated_wall_ns = resource->received_wall_ns;
    kb_arena_dispose(&arena);
}

const struct kb_xds_push_log *kb_xds_glue_pushes(const struct kb_xds_glue *glue)
{
    return &glue->pushes;
}

void kb_xds_glue_visit(struct kb_xds_glue *glue, enum kb_resource_type type,
                       kb_admin_resource_fn visit, void *visit_arg)
{
    struct kb_map seen;

    kb_map_init(&seen);
    KB_LIST_FOREACH (link, &glue->subscriptions) {
        struct kb_subscription *subscription = KB_LIST_ENTRY(link, struct kb_subscription, link);

        if (subscription->type == kb_xds_type_of[type] && subscription->name[0] != '\0' &&
            subscription->shown != NULL &&
            kb_map_put(&seen, subscription->shown->name, subscription) == NULL) {
            visit(visit_arg, subscription->shown);
        }
    }
    kb_map_dispose(&seen);
}
