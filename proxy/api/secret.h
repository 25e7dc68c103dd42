/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets: certificates with their keys, and what peers are checked against (Envoy SecretManager).
 * Those of the bootstrap are known by name from the start; others come over subscriptions. What is
 * in them is seen by tls/ only. Implemented in tls/tls_secret.c. Main thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "proxy/api/factory_context.h"

struct kb_secret_manager;
struct Envoy__Extensions__TransportSockets__Tls__V3__Secret;

/* For the process; goes into server->secrets. Touches OpenSSL only when a secret is added. */
struct kb_secret_manager *kb_secret_manager_create(struct kb_server_context *server);
/* When no transport socket factory is left. NULL is allowed. */
void kb_secret_manager_destroy(struct kb_secret_manager *manager);
/* A secret of the bootstrap's static_resources; copies what it keeps. KB_ECONFIG after reporting.
 */
int kb_secret_manager_add_static(
    struct kb_secret_manager *manager,
    const struct Envoy__Extensions__TransportSockets__Tls__V3__Secret *secret,
    struct kb_diag *diag) KB_MUST_USE;
/* The certificates in use as an envoy.admin.v3.Certificates message, in the arena: for /certs. */
const ProtobufCMessage *kb_secrets_certs_page(struct kb_server_context *server,
                                              struct kb_arena *arena);
