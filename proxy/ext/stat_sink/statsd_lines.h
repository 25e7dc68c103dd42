/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of the statsd protocol, and where they go: datagrams, or a connection to a cluster. */
#pragma once

#include "base/addr.h"
#include "base/obj.h"
#include "proxy/api/stat_sink.h"

struct kb_statsd_tcp;

/* How tags are written. */
enum kb_statsd_tags {
    KB_STATSD_TAGS_NONE,
    KB_STATSD_TAGS_DOG,      /* "a:1|c|#tag:value,..." */
    KB_STATSD_TAGS_GRAPHITE, /* "a;tag=value;...:1|c" */
};

struct kb_statsd {
    KB_OBJ;
    struct kb_str prefix; /* "envoy" */
    enum kb_statsd_tags tags;
    struct kb_addr addr; /* of datagrams */
    int fd;              /* -1: none */
    uint64_t
        datagram_bytes; /* lines are gathered up to so many; 0: each is a datagram of its own */
    struct kb_statsd_tcp *tcp; /* NULL: datagrams */
    char *bytes;               /* lines that wait, each but the last with its end */
    size_t len;
    size_t cap;
};
KB_OBJ_MAGIC(kb_statsd, 0x53544453);

struct Envoy__Config__Core__V3__Address;

/* A sink in factory->arena; `prefix` empty: "envoy". */
struct kb_statsd *kb_statsd_new(const char *prefix, struct kb_factory_context *factory);
/* Opens the socket for datagrams to the address. KB_ECONFIG after an error at the present path. */
int kb_statsd_open(struct kb_statsd *statsd, const struct Envoy__Config__Core__V3__Address *address,
                   struct kb_diag *diag) KB_MUST_USE;
/* For the vtables. */
void kb_statsd_destroy(void *sink);
void kb_statsd_sample(void *sink, const struct kb_stat_sample *sample);
void kb_statsd_end(void *sink);
void kb_statsd_close(void *sink);

/* statsd_tcp.c: the main thread's connection to a cluster, made when there is something to send. */
struct kb_statsd_tcp *kb_statsd_tcp_create(struct kb_worker *main, struct kb_str cluster);
void kb_statsd_tcp_destroy(struct kb_statsd_tcp *tcp);
/* Sends; what finds no connection, or too much before it, is dropped. */
void kb_statsd_tcp_write(struct kb_statsd_tcp *tcp, const char *bytes, size_t len);
void kb_statsd_tcp_close(struct kb_statsd_tcp *tcp);
