/* SPDX-License-Identifier: Apache-2.0 */
/* A network without a kernel: sockets that live in this process, in place of those of base/sock.h
 * and the readiness of base/loop.h (the linker's --wrap puts them there). Nothing moves by itself:
 * what the far side does, and which ready socket the proxy hears of next, is somebody's decision.
 */
#pragma once

#include "base/loop.h"
#include "base/sock.h"

#define SIM_WINDOW_BYTES 65536 /* of what the proxy sends before the far side takes it */

/* Bytes on their way. */
struct sim_bytes {
    char *p;
    size_t len, cap;
};

void sim_bytes_add(struct sim_bytes *bytes, const void *from, size_t len);
void sim_bytes_drop(struct sim_bytes *bytes, size_t len);
void sim_bytes_dispose(struct sim_bytes *bytes);

enum sim_connect { SIM_CONNECTED, SIM_CONNECTING, SIM_REFUSED };

/* A connection between the proxy and a peer of the test. */
struct sim_conn {
    int fd;
    struct kb_io *io; /* NULL: the proxy does not watch it */
    struct kb_addr local, remote;
    enum sim_connect connect;
    int error; /* what the proxy's next call gets; 0: nothing */
    struct sim_bytes to_proxy, from_proxy;
    bool peer_fin;     /* the far side sends no more */
    bool peer_gone;    /* it has closed altogether */
    bool reset;        /* by either side: nothing arrives any more */
    bool proxy_fin;    /* the proxy sends no more */
    bool proxy_closed; /* it has closed; the memory goes when the peer has, too */
    bool linger_reset;
    void *peer; /* the test's */
};

/* Told of each connection that the proxy starts: sets `connect` and `peer`. */
extern void (*sim_connecting)(struct sim_conn *conn);

/* A client connects to the port of a listener; NULL: nobody listens there. */
struct sim_conn *sim_dial(uint16_t port, uint16_t from_port);
/* The far side: sends, ends its side, closes (what it has not taken makes that a reset), resets. */
void sim_peer_send(struct sim_conn *conn, const void *bytes, size_t len);
void sim_peer_fin(struct sim_conn *conn);
void sim_peer_close(struct sim_conn *conn);
void sim_peer_reset(struct sim_conn *conn);

/* Tells the proxy of one ready socket, the (n modulo their number)th; false when there is none. */
bool sim_poll(uint64_t n);
/* Connections that either side still has. */
size_t sim_conns_open(void);
/* Says on stderr what they are. */
void sim_conns_show(void);
