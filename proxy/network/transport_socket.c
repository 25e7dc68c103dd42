/* SPDX-License-Identifier: Apache-2.0 */
/* From a transport_socket message to the factory of the extension that it names. */
#include "proxy/api/transport_socket.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/api/extension.h"

#define HAS_TYPED ENVOY__CONFIG__CORE__V3__TRANSPORT_SOCKET__CONFIG_TYPE_TYPED_CONFIG

/* The message of exactly the extension's own type: that of a server's side is not taken for a
 * client's. */
static int config_create(const Envoy__Config__Core__V3__TransportSocket *message,
                         const struct kb_extension *extension, struct kb_factory_context *factory,
                         struct kb_arena *scratch, struct kb_diag *diag, void **config)
{
    const struct kb_transport_socket_factory_ops *ops = extension->ops;
    const ProtobufCMessageDescriptor *type = kb_pb_type_find(kb_str_from_cstr(extension->type_url));
    const ProtobufCMessage *typed = NULL;
    int rc = KB_ECONFIG;

    KB_ASSERT(type != NULL);
    kb_diag_push(diag, "typed_config");
    typed = message->config_type_case == HAS_TYPED
                ? kb_any_unpack(message->typed_config, type, scratch, diag)
                : kb_pb_new(type, scratch);
    if (typed != NULL) {
        rc = ops->config_create(typed, factory, diag, config);
    }
    kb_diag_pop(diag);
    return rc;
}

int kb_transport_socket_factory_init(struct kb_transport_socket_factory *out,
                                     const Envoy__Config__Core__V3__TransportSocket *message,
                                     bool upstream, struct kb_factory_context *factory,
                                     struct kb_diag *diag)
{
    const struct kb_extension *extension;
    struct kb_str type = KB_STR_NULL;
    struct kb_arena scratch;
    void *config = NULL;
    int rc = KB_ECONFIG;

    *out = (struct kb_transport_socket_factory){0};
    if (message == NULL) {
        return 0;
    }
    kb_arena_init(&scratch, NULL);
    kb_diag_push(diag, "transport_socket");
    if (message->config_type_case == HAS_TYPED) {
        type = kb_any_inner_name(message->typed_config, &scratch);
    }
    extension = kb_extension_find(upstream ? KB_EXT_TRANSPORT_SOCKET_UPSTREAM
                                           : KB_EXT_TRANSPORT_SOCKET_DOWNSTREAM,
                                  type, kb_wkt_str(message->name));
    if (extension == NULL) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      message->name, KB_STR_ARG(type));
    } else {
        rc = config_create(message, extension, factory, &scratch, diag, &config);
    }
    kb_diag_pop(diag);
    kb_arena_dispose(&scratch);
    if (rc == 0 && config != NULL) {
        out->ops = extension->ops;
        out->config = config;
    }
    return rc;
}

const struct kb_proxied_client *kb_proxied_client_of(const struct kb_connection_info *info,
                                                     struct kb_arena *arena)
{
    struct kb_proxied_client *client;

    if (info == NULL || (info->unnamed_upstream && !info->proxy_header)) {
        return NULL;
    }
    client = KB_ARENA_NEW(arena, struct kb_proxied_client);
    client->source = info->remote;
    client->destination = info->local;
    if (info->proxy_tlvs != NULL) {
        client->tlvs = *info->proxy_tlvs;
    }
    return client;
}

void kb_transport_socket_factory_dispose(struct kb_transport_socket_factory *factory)
{
    if (factory->ops != NULL) {
        factory->ops->config_destroy(factory->config);
        factory->ops = NULL;
    }
}
