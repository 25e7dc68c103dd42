/* SPDX-License-Identifier: Apache-2.0 */
/* What makes transport sockets: configuration of a filter chain's or a cluster's transport_socket,
 * and the socket of one connection (struct kb_transport_socket_ops of connection.h). The registry's
 * categories KB_EXT_TRANSPORT_SOCKET_DOWNSTREAM and _UPSTREAM hold these. */
#pragma once

#include "proxy/api/connection.h"
#include "proxy/api/factory_context.h"

/* The client for whom an upstream connection is made, as the PROXY protocol tells it. */
struct kb_proxied_client {
    struct kb_addr source;
    struct kb_addr destination;
    struct kb_str tlvs; /* that its own header had and that are passed on; not compared */
};

/* The client of a downstream connection, in `arena`; its TLVs are those of the connection. NULL
 * where nobody is to be told of it. */
const struct kb_proxied_client *kb_proxied_client_of(const struct kb_connection_info *info,
                                                     struct kb_arena *arena);

/* What the data path wants of one upstream connection beyond the configuration (Envoy
 * TransportSocketOptions). Connections with different options never share a pool. */
struct kb_transport_socket_options {
    struct kb_str server_name; /* auto_sni and the like; empty: as configured */
    const struct kb_str *alpn; /* instead of the configured list; NULL: as configured */
    size_t alpn_count;
    const struct kb_str *verify_sans; /* auto_san_validation; any must match; NULL: as configured */
    size_t verify_san_count;
    const struct kb_sock_foreign_source *source; /* connects from there; NULL: as configured */
    const struct kb_proxied_client *client;      /* NULL: nobody that anybody is told of */
    uint64_t connection_id; /* of the client's connection that alone may have it; 0: any may */
    bool of_request;        /* what a client says is in it: there may be any number; not compared */
};

struct kb_transport_socket_factory_ops {
    const char *name; /* "envoy.transport_sockets.tls" */
    const char *type_url;
    bool secure;       /* %DOWNSTREAM_TLS..%, x-forwarded-proto https, filter chain match "tls" */
    bool names_client; /* it is to get options->client */
    /* From the typed_config message. Where secrets have to be fetched, adds an init target to
     * factory->init. Main thread. */
    int (*config_create)(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config);
    /* When no connection uses it. Main thread. */
    void (*config_destroy)(void *config);
    /* Puts the transport socket on a connection that was just created, before its first event; sets
     * conn->transport, conn->transport_state and conn->info.ssl. `options` may be NULL and is
     * borrowed. With its secrets missing the connection fails later, as with Envoy's
     * NotReadySslSocket. On the connection's worker.
     * Listener filters may have read from the descriptor already: what is in conn->in at this
     * moment is the first input of the transport socket, which takes it out (kb_buf_move) and reads
     * it before the descriptor. do_read is then called without the descriptor being readable. */
    void (*create)(void *config, struct kb_conn *conn,
                   const struct kb_transport_socket_options *options);
    /* ALPN names that this configuration offers, for choosing a codec before connecting; may be
     * NULL. */
    const struct kb_str *(*alpn)(const void *config, size_t *count);
    /* The transport socket that this one begins for, which decides what is secure; NULL: itself. */
    const struct kb_transport_socket_factory *(*inner)(const void *config);
};

/* A configured transport socket: what filter chains and clusters hold. */
struct kb_transport_socket_factory {
    const struct kb_transport_socket_factory_ops *ops; /* NULL: raw */
    void *config;
};

struct Envoy__Config__Core__V3__TransportSocket;

/* From a transport_socket message (NULL: raw) of a filter chain or, with `upstream`, of a cluster.
 * factory->stat_prefix is "listener.X." or "cluster.X.". KB_ECONFIG after reporting at the present
 * path; then `*out` is raw. Raw ones have ops NULL, whatever the message calls them. Implemented in
 * proxy/network/transport_socket.c. Main thread. */
int kb_transport_socket_factory_init(struct kb_transport_socket_factory *out,
                                     const struct Envoy__Config__Core__V3__TransportSocket *message,
                                     bool upstream, struct kb_factory_context *factory,
                                     struct kb_diag *diag);
/* When no connection uses it. Main thread. */
void kb_transport_socket_factory_dispose(struct kb_transport_socket_factory *factory);

/* Puts it on a new connection; see `create` above. */
KB_INLINE void kb_transport_socket_factory_create(const struct kb_transport_socket_factory *factory,
                                                  struct kb_conn *conn,
                                                  const struct kb_transport_socket_options *options)
{
    if (factory->ops != NULL) {
        factory->ops->create(factory->config, conn, options);
    }
}

KB_INLINE bool kb_transport_socket_factory_secure(const struct kb_transport_socket_factory *factory)
{
    while (factory->ops != NULL && factory->ops->inner != NULL) {
        factory = factory->ops->inner(factory->config);
    }
    return factory->ops != NULL && factory->ops->secure;
}
