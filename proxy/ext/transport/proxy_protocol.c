/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.transport_sockets.upstream_proxy_protocol: a connection to a host begins with a header of
 * the PROXY protocol that names the client, then its own transport socket takes over and this one
 * is gone. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/obj.h"
#include "base/sock.h"
#include "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/transport_socket.h"
#include "proxy/ext/proxy_tlvs.h"
#include "proxy/network/proxy_proto.h"

#define V1 ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_CONFIG__VERSION__V1

typedef Envoy__Extensions__TransportSockets__ProxyProtocol__V3__ProxyProtocolUpstreamTransport
    transport_message;
typedef Envoy__Config__Core__V3__ProxyProtocolConfig protocol_message;

struct proxy_factory {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_transport_socket_factory inner;
    struct kb_proxy_tlv_choice passed;
    struct kb_proxy_tlv_choice added_types;
    struct kb_str added; /* TLVs as they are sent */
    bool v1;
};
KB_OBJ_MAGIC(proxy_factory, 0x50585946);

/* Of a connection, until its header has left. */
struct proxy_socket {
    KB_OBJ;
    const struct proxy_factory *factory;
    const struct kb_transport_socket_ops *inner;
    void *inner_state;
    uint8_t inner_write;    /* what it said of its writing */
    bool inner_handshaking; /* it says itself when it is connected */
    bool paused;            /* nothing is read until the rest of the header has left */
    struct kb_addr source, destination;
    bool has_client;
    size_t len, sent; /* of the header; 0 until there is one */
    char *header;
    size_t tlvs_len;
    char tlvs[]; /* of the client */
};
KB_OBJ_MAGIC(proxy_socket, 0x50585953);

/* ---- the header ---- */

static void header_make(struct proxy_socket *socket, const struct kb_conn *conn)
{
    const struct proxy_factory *factory = socket->factory;
    const struct kb_addr *source = socket->has_client ? &socket->source : NULL;
    char *tlvs;
    size_t len;

    if (factory->v1) {
        /* Where nobody is known, the connection's own addresses stand in. */
        socket->header = kb_calloc(1, KB_PROXY_PROTO_V1_MAX);
        socket->len =
            source != NULL
                ? kb_proxy_proto_v1_write(socket->header, source, &socket->destination)
                : kb_proxy_proto_v1_write(socket->header, &conn->info.local, &conn->info.remote);
        return;
    }
    tlvs = kb_calloc(1, KB_PROXY_PROTO_TLVS_MAX);
    len = factory->added.len;
    memcpy(tlvs, factory->added.p, len);
    kb_proxy_tlvs_copy(tlvs, &len, kb_str_make(socket->tlvs, socket->tlvs_len), &factory->passed,
                       &factory->added_types);
    socket->header = kb_calloc(1, kb_proxy_proto_v2_size(len));
    socket->len = kb_proxy_proto_v2_write(socket->header, source, &socket->destination,
                                          kb_str_make(tlvs, len));
    free(tlvs);
}

static void socket_free(struct proxy_socket *socket)
{
    KB_OBJ_CLEAR(socket);
    free(socket->header);
    free(socket);
}

/* From here on the connection is its own transport socket's. */
static void hand_over(struct kb_conn *conn)
{
    struct proxy_socket *socket = KB_CAST(conn->transport_state, proxy_socket);

    conn->transport = socket->inner;
    conn->transport_state = socket->inner_state;
    conn->transport_write = socket->inner_write;
    socket_free(socket);
}

static void header_sent(struct kb_conn *conn)
{
    const struct proxy_socket *socket = KB_CAST(conn->transport_state, proxy_socket);
    bool handshake = socket->inner_handshaking;
    bool paused = socket->paused;

    hand_over(conn);
    if (paused) {
        kb_conn_read_disable(conn, false);
    }
    if (handshake) {
        conn->transport->on_connected(conn);
    } else {
        kb_conn_handshake_done(conn);
    }
}

/* ---- the transport socket ---- */

static void proxy_on_connected(struct kb_conn *conn)
{
    header_make(KB_CAST(conn->transport_state, proxy_socket), conn);
    conn->transport_write = KB_TRANSPORT_WRITE_WANTED;
    kb_conn_transport_written(conn);
}

/* Nothing is read before the header has left. */
static int proxy_do_read(struct kb_conn *conn)
{
    (void)conn;
    return 0;
}

static int proxy_do_write(struct kb_conn *conn, bool end_stream)
{
    struct proxy_socket *socket = KB_CAST(conn->transport_state, proxy_socket);
    struct iovec rest = {socket->header + socket->sent, socket->len - socket->sent};
    ssize_t n;

    (void)end_stream;
    if (rest.iov_len == 0) {
        return 0; /* not connected yet */
    }
    n = kb_sock_send(conn->io.fd, &rest, 1);
    if (n < 0 && n != KB_EAGAIN) {
        return (int)n;
    }
    if (n > 0) {
        socket->sent += (size_t)n;
        conn->bytes_sent += (uint64_t)n;
    }
    if (socket->sent == socket->len) {
        header_sent(conn);
    } else if (!socket->paused) {
        socket->paused = true;
        kb_conn_read_disable(conn, true);
    }
    return 0;
}

static void proxy_close(struct kb_conn *conn)
{
    hand_over(conn);
    conn->transport->close(conn);
}

static const struct kb_transport_socket_ops socket_ops = {
    .name = "envoy.transport_sockets.upstream_proxy_protocol",
    .do_read = proxy_do_read,
    .do_write = proxy_do_write,
    .on_connected = proxy_on_connected,
    .close = proxy_close,
};

/* ---- configuration ---- */

static int added_read(struct proxy_factory *factory, const protocol_message *m,
                      struct kb_diag *diag)
{
    char *tlvs = kb_calloc(1, KB_PROXY_PROTO_TLVS_MAX);
    size_t len = 0;
    int rc = 0;

    for (size_t i = 0; i < m->n_added_tlvs; i++) {
        const Envoy__Config__Core__V3__TlvEntry *entry = m->added_tlvs[i];
        struct kb_str value = kb_str_make((const char *)entry->value.data, entry->value.len);

        kb_diag_push_index(diag, "added_tlvs", i);
        if (entry->format_string != NULL) {
            kb_diag_error(diag, "format_string is not supported yet; use value");
            rc = KB_ECONFIG;
        } else if (!kb_proxy_proto_tlv_append(tlvs, &len, (uint8_t)entry->type, value)) {
            kb_diag_error(diag, "the TLVs are longer than a header of the PROXY protocol may be");
            rc = KB_ECONFIG;
        }
        kb_diag_pop(diag);
        kb_proxy_tlv_choice_add(&factory->added_types, entry->type);
    }
    factory->added = kb_str_dup(&factory->arena, kb_str_make(tlvs, len));
    free(tlvs);
    return rc;
}

static void factory_destroy(void *config)
{
    struct proxy_factory *factory = KB_CAST(config, proxy_factory);

    kb_transport_socket_factory_dispose(&factory->inner);
    kb_arena_dispose(&factory->arena);
    KB_OBJ_CLEAR(factory);
    free(factory);
}

static int factory_create(const void *message, struct kb_factory_context *context,
                          struct kb_diag *diag, void **config)
{
    static const protocol_message defaults = ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_CONFIG__INIT;
    const transport_message *m = message;
    const protocol_message *protocol = m->config != NULL ? m->config : &defaults;
    struct proxy_factory *factory = kb_calloc(1, sizeof(*factory));
    int rc;

    KB_OBJ_SET(factory, proxy_factory);
    kb_arena_init(&factory->arena, NULL);
    factory->v1 = protocol->version == V1;
    kb_proxy_tlv_choice_read(&factory->passed, protocol->pass_through_tlvs);
    kb_diag_push(diag, "config");
    rc = added_read(factory, protocol, diag);
    kb_diag_pop(diag);
    if (kb_transport_socket_factory_init(&factory->inner, m->transport_socket, true, context,
                                         diag) != 0) {
        rc = KB_ECONFIG;
    }
    if (rc != 0) {
        factory_destroy(factory);
        return rc;
    }
    *config = factory;
    return 0;
}

static void socket_create(void *config, struct kb_conn *conn,
                          const struct kb_transport_socket_options *options)
{
    struct proxy_factory *factory = KB_CAST(config, proxy_factory);
    const struct kb_proxied_client *client = options != NULL ? options->client : NULL;
    size_t tlvs_len = client != NULL ? client->tlvs.len : 0;
    struct proxy_socket *socket = kb_calloc(1, sizeof(*socket) + tlvs_len);

    KB_OBJ_SET(socket, proxy_socket);
    socket->factory = factory;
    if (client != NULL) {
        socket->has_client = true;
        socket->source = client->source;
        socket->destination = client->destination;
        socket->tlvs_len = tlvs_len;
        if (tlvs_len > 0) {
            memcpy(socket->tlvs, client->tlvs.p, tlvs_len);
        }
    }
    kb_transport_socket_factory_create(&factory->inner, conn, options);
    socket->inner = conn->transport;
    socket->inner_state = conn->transport_state;
    socket->inner_write = conn->transport_write;
    conn->transport = &socket_ops;
    conn->transport_state = socket;
    conn->transport_write = KB_TRANSPORT_WRITE_HELD;
    socket->inner_handshaking = conn->handshaking;
    conn->handshaking = true;
}

static const struct kb_str *factory_alpn(const void *config, size_t *count)
{
    const struct proxy_factory *factory = config;

    *count = 0;
    return factory->inner.ops != NULL && factory->inner.ops->alpn != NULL
               ? factory->inner.ops->alpn(factory->inner.config, count)
               : NULL;
}

static const struct kb_transport_socket_factory *factory_inner(const void *config)
{
    const struct proxy_factory *factory = config;

    return &factory->inner;
}

const struct kb_transport_socket_factory_ops kb_ext_transport_proxy_protocol = {
    .name = "envoy.transport_sockets.upstream_proxy_protocol",
    .type_url =
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
    .names_client = true,
    .config_create = factory_create,
    .config_destroy = factory_destroy,
    .create = socket_create,
    .alpn = factory_alpn,
    .inner = factory_inner,
};
