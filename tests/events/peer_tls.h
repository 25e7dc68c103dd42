/* SPDX-License-Identifier: Apache-2.0 */
/* TLS of the far sides, by OpenSSL, between a peer's bytes and the simulated network: handshakes
 * with every kind of certificate and version, sessions taken up again, new keys, ends of every
 * kind. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct peer;
struct peer_tls;

/* Writes the certificates of the configuration to files here, once. */
void peer_tls_certs_write(void);
/* After the last peer. */
void peer_tls_dispose(void);

/* A peer that speaks TLS first; its side is the peer's. */
void peer_tls_begin(struct peer *peer);
void peer_tls_destroy(struct peer_tls *tls);
/* Something that only TLS has: new keys, another handshake, broken records. */
void peer_tls_act(struct peer *peer);
/* Makes records of what is unsent, as far as the handshake allows. */
void peer_tls_pump(struct peer *peer);
/* Bytes came: what was in them goes to `plain`. */
void peer_tls_read(struct peer *peer, const char *bytes, size_t len);
/* The last word, where the peer is polite. */
void peer_tls_end(struct peer *peer);
