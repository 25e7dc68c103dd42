/* SPDX-License-Identifier: Apache-2.0 */
/* One stream to a control plane, shared by all types that come over it (ADS), or of one type alone:
 * order of requests, answers that wait while a type is paused, and coming back after the stream
 * ended (Envoy GrpcMuxImpl and NewGrpcMuxImpl). Main thread. */
#pragma once

#include "base/loop.h"
#include "base/rand.h"
#include "xds/xds_transport.h"
#include "xds/xds_watch.h"

struct kb_xds_mux;
struct Envoy__Config__Core__V3__Node;

#define KB_XDS_BACKOFF_BASE_MS 500
#define KB_XDS_BACKOFF_MAX_MS  30000
/* Answers that wait for paused types; a server that sends more without waiting loses the stream. */
#define KB_XDS_ACKS_MAX        10000

/* What goes on, for statistics. None may be NULL. */
struct kb_xds_mux_observer {
    void (*connected)(void *arg, bool connected);
    /* DiscoveryResponse.control_plane.identifier; borrowed. */
    void (*identified)(void *arg, struct kb_str identifier);
    /* Requests that wait for tokens or for the transport. */
    void (*pending_requests)(void *arg, size_t count);
    void (*rate_limited)(void *arg);
    /* What a response had besides errors: unknown and deprecated fields. */
    void (*warned)(void *arg, struct kb_diag *diag);
};

struct kb_xds_mux_options {
    struct kb_loop *loop;
    struct kb_rand *rand;
    struct kb_xds_transport *transport;
    struct kb_str method; /* copied */
    bool delta;
    bool node_on_first_message_only;
    bool unknown_fields_refused;                /* --reject-unknown-dynamic-fields */
    struct Envoy__Config__Core__V3__Node *node; /* borrowed, for ever */
    uint64_t backoff_base_ms;                   /* 0: KB_XDS_BACKOFF_BASE_MS */
    uint64_t backoff_max_ms;                    /* 0: KB_XDS_BACKOFF_MAX_MS */
    uint32_t rate_limit_tokens;                 /* rate_limit_settings.max_tokens; 0: no limit */
    double rate_limit_per_s;
    struct kb_xds_push_log *pushes; /* where responses are noted; NULL: nowhere */
    const struct kb_xds_mux_observer *observer;
    void *arg;
};

/* Never NULL. Opens nothing yet. */
struct kb_xds_mux *kb_xds_mux_create(const struct kb_xds_mux_options *options);
/* When every watch was removed. NULL is allowed. */
void kb_xds_mux_destroy(struct kb_xds_mux *mux);
/* Opens the stream, and from then on keeps one open. Harmless when repeated. */
void kb_xds_mux_start(struct kb_xds_mux *mux);
/* Closes the stream for good: the process ends. */
void kb_xds_mux_stop(struct kb_xds_mux *mux);

/* Asks for one name, or for all of the type with an empty one; said at once when the type is not
 * paused. */
struct kb_xds_watch *kb_xds_mux_watch(struct kb_xds_mux *mux, enum kb_xds_type type,
                                      struct kb_str name,
                                      const struct kb_xds_watch_callbacks *callbacks, void *arg);
void kb_xds_mux_unwatch(struct kb_xds_mux *mux, struct kb_xds_watch *watch);

/* Between them nothing of the type is said, answers neither; counted. */
void kb_xds_mux_pause(struct kb_xds_mux *mux, enum kb_xds_type type);
void kb_xds_mux_resume(struct kb_xds_mux *mux, enum kb_xds_type type);

/* Whether it speaks the incremental protocol. */
bool kb_xds_mux_is_delta(const struct kb_xds_mux *mux);
