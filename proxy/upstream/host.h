/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts: one upstream endpoint each, immutable but for its reference count and its per-worker
 * parts. */
#pragma once

#include "proxy/api/cluster.h"

struct kb_cluster_impl;

/* What a host is made of; everything is copied. */
struct kb_host_params {
    struct kb_addr addr;
    struct kb_str hostname;
    struct kb_str region, zone, sub_zone;
    struct kb_str metadata;
    const struct kb_host *like; /* shares locality and metadata with it when they are equal; NULL:
                                   nothing to share */
    struct kb_host_check check; /* zeros: checked as it is used */
    uint32_t weight;            /* 0: 1 */
    uint32_t priority;
    uint32_t health_flags;
    bool canary;
    bool is_discovered; /* and not from the cluster's own configuration */
};

/* A host with one reference; it holds the cluster (NULL in tests). It has `worker_count` worker
 * parts, and one for the main thread. */
struct kb_host *kb_host_create(struct kb_cluster_impl *cluster, const struct kb_host_params *params,
                               uint32_t worker_count);

/* Whether it is checked where, and if, these say. */
bool kb_host_same_check(const struct kb_host *host, const struct kb_host_check *check);
/* Where it is checked. */
struct kb_addr kb_host_check_addr(const struct kb_host *host);
/* Whether its address is this one. */
bool kb_host_is_at(const struct kb_host *host, const struct kb_addr *addr);
/* The bytes of a sockaddr without those at its end that are always zero; equal for equal addresses
 * that were normalised. There are many hosts: they keep no others. */
struct kb_str kb_addr_significant(const struct kb_addr *addr);
/* The same of the host's address. */
struct kb_str kb_host_addr_bytes(const struct kb_host *host);
/* The port of its address. */
uint16_t kb_host_port(const struct kb_host *host);
/* Whether it is in the locality of the params. */
bool kb_host_same_locality(const struct kb_host *host, const struct kb_host_params *params);

/* Whether both are in one locality. */
bool kb_host_same_locality_as(const struct kb_host *a, const struct kb_host *b);

/* A text with one reference; NULL for the empty one. */
struct kb_shared_text *kb_shared_text_create(struct kb_str text);
/* Any thread; NULL is allowed. */
void kb_shared_text_unref(struct kb_shared_text *text);

/* The sum over all workers, at this moment. Main thread. */
uint64_t kb_host_stat_sum(const struct kb_host *host, enum kb_host_stat stat);

#define KB_HOST_FLAGS_TEXT_MAX 192
/* "healthy" or "/failed_eds_health" and so on, as /clusters writes it, to `out`. */
struct kb_str kb_host_health_text(const struct kb_host *host, char *out);

/* Calls the pools' function for this worker's part of the host, if there is one. On the worker. */
void kb_host_notify_removed(struct kb_host *host, struct kb_worker *worker);
struct kb_server_context;
/* The host failed, or was put out: tells the pools of all workers, later. Main thread. */
void kb_host_failed(struct kb_host *host, struct kb_server_context *server);
/* As kb_host_notify_removed for a host that failed. */
void kb_host_notify_failed(struct kb_host *host, struct kb_worker *worker);
