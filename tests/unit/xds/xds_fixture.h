/* SPDX-License-Identifier: Apache-2.0 */
/* A control plane in memory: what the client says is written as lines of text, what the server says
 * is built from names and versions. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/endpoint/v3/endpoint.pb-c.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proto/any.h"
#include "xds/xds_delta.h"
#include "xds/xds_mux.h"
#include "xds/xds_sotw.h"

#define NODE_ID "node-1"

struct plane {
    struct kb_xds_transport transport;
    struct kb_loop loop;
    struct kb_rand rand;
    struct kb_arena arena;
    struct kb_xds_mux *mux;
    struct kb_xds_push_log pushes;
    Envoy__Config__Core__V3__Node node;
    bool delta;
    unsigned variant;                          /* other resources of the same names */
    bool refuse;                               /* opening fails */
    bool full;                                 /* sending says KB_EAGAIN */
    unsigned opened;                           /* streams so far */
    const struct kb_xds_stream_events *events; /* of the open stream; NULL: none */
    void *events_arg;
    char said[16384]; /* requests, one a line */
    unsigned connected, rate_limited;
    size_t pending;
    char identifier[64];
};

static struct plane plane;

static const char *short_name(const char *url)
{
    enum kb_xds_type type = kb_xds_type_by_url(url);

    return type == KB_XDS_TYPE_COUNT ? "?" : kb_xds_types[type].short_name;
}

static void say(const char *fmt, ...)
{
    size_t len = strlen(plane.said);
    va_list args;

    va_start(args, fmt);
    vsnprintf(plane.said + len, sizeof(plane.said) - len, fmt, args);
    va_end(args);
}

static void say_names(const char *key, char **names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        say("%s%s", i == 0 ? key : ",", names[i]);
    }
}

static void sotw_write(struct kb_str bytes)
{
    ProtobufCMessage *message;
    Envoy__Service__Discovery__V3__DiscoveryRequest *r;

    assert_int_equal(kb_pb_unpack(&envoy__service__discovery__v3__discovery_request__descriptor,
                                  bytes, &plane.arena, &message),
                     0);
    r = (void *)message;
    say("%s%s", short_name(r->type_url), r->node != NULL ? " node" : "");
    say(r->version_info[0] != '\0' ? " v=%s" : "%s", r->version_info);
    say(r->response_nonce[0] != '\0' ? " n=%s" : "%s", r->response_nonce);
    say_names(" ", r->resource_names, r->n_resource_names);
    if (r->error_detail != NULL) {
        say(" err=%d %s", r->error_detail->code, r->error_detail->message);
    }
    say("\n");
}

static int version_compare(const void *a, const void *b)
{
    return strcmp(
        (*(Envoy__Service__Discovery__V3__DeltaDiscoveryRequest__InitialResourceVersionsEntry *const
               *)a)
            ->key,
        (*(Envoy__Service__Discovery__V3__DeltaDiscoveryRequest__InitialResourceVersionsEntry *const
               *)b)
            ->key);
}

static void delta_write(struct kb_str bytes)
{
    ProtobufCMessage *message;
    Envoy__Service__Discovery__V3__DeltaDiscoveryRequest *r;

    assert_int_equal(
        kb_pb_unpack(&envoy__service__discovery__v3__delta_discovery_request__descriptor, bytes,
                     &plane.arena, &message),
        0);
    r = (void *)message;
    say("%s%s", short_name(r->type_url), r->node != NULL ? " node" : "");
    say(r->response_nonce[0] != '\0' ? " n=%s" : "%s", r->response_nonce);
    say_names(" +", r->resource_names_subscribe, r->n_resource_names_subscribe);
    say_names(" -", r->resource_names_unsubscribe, r->n_resource_names_unsubscribe);
    if (r->n_initial_resource_versions > 0) {
        qsort(r->initial_resource_versions, r->n_initial_resource_versions, sizeof(void *),
              version_compare);
    }
    for (size_t i = 0; i < r->n_initial_resource_versions; i++) {
        say("%s%s:%s", i == 0 ? " init=" : ",", r->initial_resource_versions[i]->key,
            r->initial_resource_versions[i]->value);
    }
    if (r->error_detail != NULL) {
        say(" err=%d %s", r->error_detail->code, r->error_detail->message);
    }
    say("\n");
}

static struct kb_xds_stream *fake_open(struct kb_xds_transport *transport, struct kb_str method,
                                       const struct kb_xds_stream_events *events, void *arg)
{
    (void)transport;
    assert_true(method.len > 0);
    plane.opened++;
    if (plane.refuse) {
        return NULL;
    }
    plane.events = events;
    plane.events_arg = arg;
    return (struct kb_xds_stream *)&plane;
}

static int fake_send(struct kb_xds_stream *stream, struct kb_str message)
{
    assert_ptr_equal(stream, &plane);
    if (plane.full) {
        return KB_EAGAIN;
    }
    if (plane.delta) {
        delta_write(message);
    } else {
        sotw_write(message);
    }
    return 0;
}

static void fake_close(struct kb_xds_stream *stream)
{
    assert_ptr_equal(stream, &plane);
    plane.events = NULL;
}

static void plane_connected(void *arg, bool connected)
{
    (void)arg;
    plane.connected = connected;
}

static void plane_identified(void *arg, struct kb_str identifier)
{
    (void)arg;
    snprintf(plane.identifier, sizeof(plane.identifier), "%.*s", KB_STR_ARG(identifier));
}

static void plane_pending(void *arg, size_t count)
{
    (void)arg;
    plane.pending = count;
}

static void plane_rate_limited(void *arg)
{
    (void)arg;
    plane.rate_limited++;
}

static void plane_warned(void *arg, struct kb_diag *diag)
{
    (void)arg;
    (void)diag;
}

static const struct kb_xds_mux_observer plane_observer = {
    plane_connected, plane_identified, plane_pending, plane_rate_limited, plane_warned};

static void plane_init(bool delta, uint32_t rate_limit_tokens)
{
    struct kb_xds_mux_options options;

    memset(&plane, 0, sizeof(plane));
    kb_clock_simulate(1000000000, 1700000000000000000);
    assert_int_equal(kb_loop_init(&plane.loop), 0);
    kb_rand_init(&plane.rand, 7);
    kb_arena_init(&plane.arena, NULL);
    envoy__config__core__v3__node__init(&plane.node);
    plane.node.id = (char *)(uintptr_t)NODE_ID;
    plane.delta = delta;
    plane.transport.open = fake_open;
    plane.transport.send = fake_send;
    plane.transport.close = fake_close;
    memset(&options, 0, sizeof(options));
    kb_xds_push_log_init(&plane.pushes);
    options.loop = &plane.loop;
    options.rand = &plane.rand;
    options.transport = &plane.transport;
    options.method = KB_STR("/s/m");
    options.delta = delta;
    options.pushes = &plane.pushes;
    options.node_on_first_message_only = true;
    options.node = &plane.node;
    options.rate_limit_tokens = rate_limit_tokens;
    options.rate_limit_per_s = 10;
    options.observer = &plane_observer;
    plane.mux = kb_xds_mux_create(&options);
}

static void plane_dispose(void)
{
    kb_xds_mux_destroy(plane.mux);
    kb_xds_push_log_dispose(&plane.pushes);
    kb_loop_dispose(&plane.loop);
    kb_arena_dispose(&plane.arena);
}

/* Time passes, and what is due happens. */
static void pass_ms(uint64_t ms)
{
    kb_clock_advance(ms * 1000000);
    plane.loop.now_ns = kb_clock_mono_ns();
    kb_timer_wheel_advance(&plane.loop.wheel, kb_loop_now_ms(&plane.loop));
}

/* What was said since the last call. */
#define assert_said(text)                        \
    do {                                         \
        assert_string_equal(plane.said, (text)); \
        plane.said[0] = '\0';                    \
    } while (0)

static Google__Protobuf__Any *any_cluster(const char *name)
{
    Envoy__Config__Cluster__V3__Cluster *cluster =
        (void *)kb_pb_new(&envoy__config__cluster__v3__cluster__descriptor, &plane.arena);
    Google__Protobuf__Any *any = kb_arena_calloc(&plane.arena, sizeof(*any));

    cluster->name = (char *)(uintptr_t)name;
    cluster->respect_dns_ttl = plane.variant != 0;
    kb_any_pack(&cluster->base, &plane.arena, any);
    return any;
}

static Google__Protobuf__Any *any_endpoints(const char *name)
{
    Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment = (void *)kb_pb_new(
        &envoy__config__endpoint__v3__cluster_load_assignment__descriptor, &plane.arena);
    Google__Protobuf__Any *any = kb_arena_calloc(&plane.arena, sizeof(*any));

    assignment->cluster_name = (char *)(uintptr_t)name;
    kb_any_pack(&assignment->base, &plane.arena, any);
    return any;
}

static Google__Protobuf__Any *any_of(enum kb_xds_type type, const char *name)
{
    return type == KB_XDS_CLUSTER ? any_cluster(name) : any_endpoints(name);
}

static void plane_message(struct kb_str bytes)
{
    assert_non_null(plane.events);
    plane.events->message(plane.events_arg, bytes);
}

/* A response of resources by name, "a b" or "". */
static KB_UNUSED void sotw_send(enum kb_xds_type type, const char *version, const char *nonce,
                                const char *names)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse response;
    Google__Protobuf__Any *resources[16];
    struct kb_str rest = kb_str_from_cstr(names), name;

    envoy__service__discovery__v3__discovery_response__init(&response);
    response.version_info = (char *)(uintptr_t)version;
    response.nonce = (char *)(uintptr_t)nonce;
    response.type_url = (char *)(uintptr_t)kb_xds_types[type].url;
    response.resources = resources;
    while (rest.len > 0 && kb_str_next_token(&rest, ' ', &name)) {
        resources[response.n_resources++] = any_of(type, kb_str_dup(&plane.arena, name).p);
    }
    plane_message(kb_pb_pack(&response.base, &plane.arena));
}

/* "a:v1 b:v2" added, "c d" removed; "a:v1!" has no body. */
static KB_UNUSED void delta_send(enum kb_xds_type type, const char *nonce, const char *added,
                                 const char *removed)
{
    Envoy__Service__Discovery__V3__DeltaDiscoveryResponse response;
    Envoy__Service__Discovery__V3__Resource *resources[16];
    char *gone[16];
    struct kb_str rest = kb_str_from_cstr(added), token, name;

    envoy__service__discovery__v3__delta_discovery_response__init(&response);
    response.nonce = (char *)(uintptr_t)nonce;
    response.system_version_info = (char *)(uintptr_t)"s1";
    response.type_url = (char *)(uintptr_t)kb_xds_types[type].url;
    response.resources = resources;
    response.removed_resources = gone;
    while (rest.len > 0 && kb_str_next_token(&rest, ' ', &token)) {
        Envoy__Service__Discovery__V3__Resource *resource =
            (void *)kb_pb_new(&envoy__service__discovery__v3__resource__descriptor, &plane.arena);
        bool body = !kb_str_ends_with(token, KB_STR("!"));

        token.len -= body ? 0 : 1;
        kb_str_next_token(&token, ':', &name);
        resource->name = kb_xds_text(&plane.arena, name);
        resource->version = kb_xds_text(&plane.arena, token);
        resource->resource = body ? any_of(type, resource->name) : NULL;
        resources[response.n_resources++] = resource;
    }
    rest = kb_str_from_cstr(removed);
    while (rest.len > 0 && kb_str_next_token(&rest, ' ', &name)) {
        gone[response.n_removed_resources++] = kb_xds_text(&plane.arena, name);
    }
    plane_message(kb_pb_pack(&response.base, &plane.arena));
}

/* The server ends the stream. */
static void plane_cut(void)
{
    assert_non_null(plane.events);
    plane.events->closed(plane.events_arg, 14, KB_STR("cut"));
}

/* Somebody who wants resources and notes what comes. */
struct listener {
    struct kb_xds_watch *watch;
    char heard[1024];
    unsigned rejected, failed;
    const char *refuse;                      /* a name that is bad */
    void (*then)(struct listener *listener); /* done while an update is delivered */
};

static void listener_update(void *arg, const struct kb_xds_update *update, struct kb_diag *diag)
{
    struct listener *listener = arg;
    size_t len = strlen(listener->heard);

    for (size_t i = 0; i < update->resource_count; i++) {
        const struct kb_xds_resource *resource = &update->resources[i];

        len += (size_t)snprintf(listener->heard + len, sizeof(listener->heard) - len,
                                resource->message != NULL ? "%.*s@%.*s " : "%.*s=%.*s ",
                                KB_STR_ARG(resource->name), KB_STR_ARG(resource->version));
        if (listener->refuse != NULL &&
            kb_str_eq(resource->name, kb_str_from_cstr(listener->refuse))) {
            kb_diag_error(diag, "%s is bad", listener->refuse);
        }
    }
    for (size_t i = 0; i < update->removed_count; i++) {
        len += (size_t)snprintf(listener->heard + len, sizeof(listener->heard) - len, "-%.*s ",
                                KB_STR_ARG(update->removed[i]));
    }
    snprintf(listener->heard + len, sizeof(listener->heard) - len, "| ");
    if (listener->then != NULL) {
        void (*then)(struct listener *) = listener->then;

        listener->then = NULL;
        then(listener);
    }
}

static void listener_failure(void *arg, enum kb_xds_failure failure)
{
    struct listener *listener = arg;

    if (failure == KB_XDS_FAILURE_REJECTED) {
        listener->rejected++;
    } else {
        listener->failed++;
    }
}

static const struct kb_xds_watch_callbacks listener_callbacks = {listener_update, listener_failure};

static void listen_for(struct listener *listener, enum kb_xds_type type, const char *name)
{
    listener->watch =
        kb_xds_mux_watch(plane.mux, type, kb_str_from_cstr(name), &listener_callbacks, listener);
}

static void listener_end(struct listener *listener)
{
    if (listener->watch != NULL) {
        kb_xds_mux_unwatch(plane.mux, listener->watch);
        listener->watch = NULL;
    }
}

#define assert_heard(listener, text)                    \
    do {                                                \
        assert_string_equal((listener)->heard, (text)); \
        (listener)->heard[0] = '\0';                    \
    } while (0)
