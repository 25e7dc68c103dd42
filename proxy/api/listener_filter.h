/* SPDX-License-Identifier: Apache-2.0 */
/* Listener filters: they see an accepted connection before its filter chain is chosen, look at its
 * address or at its first bytes, and say what they found (Envoy Network::ListenerFilter). Order of
 * calls for each filter in turn: on_accept, on_data while it asks for more, dispose. On the worker
 * that accepted; everything here is configuration shared by workers but the socket and the state.
 */
#pragma once

#include "proxy/api/connection.h"
#include "proxy/api/factory_context.h"

/* What was found out about a connection before its filter chain was chosen; one piece of memory
 * with the texts behind it, which lives as long as the connection. */
struct kb_sniffed {
    struct kb_str transport_protocol;           /* "tls"; empty: nobody has detected any */
    struct kb_str server_name;                  /* in lower case; empty: none */
    const struct kb_str *application_protocols; /* in the client's order */
    size_t application_protocol_count;
    struct kb_str ja3; /* MD5 in hex; empty: not asked for */
};

/* An accepted connection while listener filters run. */
struct kb_listener_socket {
    struct kb_conn *conn; /* info.local and info.remote may be changed; `in` holds what came */
    bool local_address_restored; /* info.local is where the client wanted to go */
};

enum kb_listener_filter_status {
    KB_LISTENER_FILTER_CONTINUE, /* it is done: the next one */
    KB_LISTENER_FILTER_STOP,     /* it needs more bytes than are there */
    KB_LISTENER_FILTER_CLOSE,    /* the connection is not acceptable */
};

struct kb_listener_filter_ops {
    const char *name;
    const char *type_url;
    /* From the typed_config message. */
    int (*config_create)(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config);
    void (*config_destroy)(void *config); /* may be NULL */
    /* Bytes of state that one connection needs, given zeroed; 0: none. */
    size_t state_size;
    /* When its turn has come. STOP: on_data is called, at once when there are bytes already. */
    enum kb_listener_filter_status (*on_accept)(void *config, void *state,
                                                struct kb_listener_socket *socket);
    /* `in` has all that came and was not consumed; what the filter consumes nobody else sees, what
     * it leaves is the input of the next one, and at last of the transport socket. Called again
     * when more came. NULL for filters that never stop. */
    enum kb_listener_filter_status (*on_data)(void *config, void *state,
                                              struct kb_listener_socket *socket, struct kb_buf *in);
    /* The most that it will ever look at: with so much in `in`, STOP closes the connection. */
    size_t (*max_bytes)(const void *config);
    void (*dispose)(void *state); /* may be NULL */
};

/* Replaces conn->sniffed (NULL: nothing is known) by what `found` says, whose texts are copied;
 * sets conn->info.requested_server_name. proxy/listener/sniffed.c. */
void kb_listener_socket_set_sniffed(struct kb_listener_socket *socket,
                                    const struct kb_sniffed *found);
