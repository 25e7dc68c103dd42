/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.transport_sockets.raw_buffer, named in a configuration: the transport socket that every
 * connection has from the start. */
#include "proxy/api/transport_socket.h"

extern const struct kb_transport_socket_factory_ops kb_ext_transport_raw_buffer;

static int raw_config_create(const void *message, struct kb_factory_context *factory,
                             struct kb_diag *diag, void **config)
{
    (void)message;
    (void)factory;
    (void)diag;
    *config = NULL;
    return 0;
}

static void raw_config_destroy(void *config)
{
    (void)config;
}

static void raw_create(void *config, struct kb_conn *conn,
                       const struct kb_transport_socket_options *options)
{
    (void)config;
    (void)conn;
    (void)options;
}

const struct kb_transport_socket_factory_ops kb_ext_transport_raw_buffer = {
    .name = "envoy.transport_sockets.raw_buffer",
    .type_url = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    .config_create = raw_config_create,
    .config_destroy = raw_config_destroy,
    .create = raw_create,
};
