/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners from the control plane (Envoy LdsApiImpl). Main thread. */
#pragma once

#include "base/init_manager.h"
#include "proxy/api/subscription.h"

struct kb_lds_api;
struct kb_listener_manager;

/* Makes the subscription of lds_config and adds it to server->init: the workers wait for its first
 * answer. NULL after an error in diag. */
struct kb_lds_api *kb_lds_api_create(struct kb_server_context *server,
                                     struct kb_listener_manager *listeners,
                                     const struct Envoy__Config__Core__V3__ConfigSource *source,
                                     struct kb_diag *diag);
/* Before the listener manager goes. NULL is allowed. */
void kb_lds_api_destroy(struct kb_lds_api *api);

/* Of the response that was applied last; empty: none. NULL is allowed. */
struct kb_str kb_lds_api_version(const struct kb_lds_api *api);

/* A listener that could not be taken, until the next response. */
struct kb_lds_error {
    struct kb_str name;
    struct kb_str text;
    struct kb_str message; /* the packed envoy.config.listener.v3.Listener */
    struct kb_str version;
    uint64_t wall_ns;
};

/* The i-th of the last response, or NULL past the last. */
const struct kb_lds_error *kb_lds_api_error(const struct kb_lds_api *api, size_t i);
