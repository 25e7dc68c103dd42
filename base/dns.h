/* SPDX-License-Identifier: Apache-2.0 */
/* Name resolution with c-ares on a loop: addresses with their time to live, cancellable. Main thread only. */
#pragma once

#include "base/addr.h"
#include "base/loop.h"

enum kb_dns_family { /* Envoy cluster.v3.Cluster.DnsLookupFamily */
    KB_DNS_AUTO,     /* IPv6, and IPv4 when there is none */
    KB_DNS_V4_ONLY,
    KB_DNS_V6_ONLY,
    KB_DNS_V4_PREFERRED,
    KB_DNS_ALL,
};

#define KB_DNS_ADDRS_MAX 256 /* of one answer; more are dropped */

struct kb_dns_answer {
    struct kb_addr addr; /* port 0 */
    uint32_t ttl_s;
};

struct kb_dns;
struct kb_dns_query;

/* status 0 with n >= 0 answers (a name without addresses gives 0, n = 0), or KB_ENOTFOUND, KB_ETIMEOUT, KB_EIO.
 * `answers` is borrowed during the call; the query object is gone when it returns. `text` says what c-ares said. */
typedef void (*kb_dns_cb)(void *arg, int status, const struct kb_dns_answer *answers, size_t n, const char *text);

struct kb_dns_stats { /* counted here, shown as dns.cares.* */
    uint64_t resolve_total;
    uint64_t pending_resolutions;
    uint64_t not_found;
    uint64_t get_addr_failure;
    uint64_t timeouts;
    uint64_t reinits;
};

/* A resolver on the loop with the system's configuration (/etc/resolv.conf, /etc/hosts) or, when `servers` has an
 * entry, with those. KB_EIO when c-ares cannot start. */
int kb_dns_create(struct kb_loop *loop, const struct kb_addr *servers, size_t server_count, struct kb_dns **out)
    KB_MUST_USE;
/* Every query must have ended or been cancelled. */
void kb_dns_destroy(struct kb_dns *dns);

/* Starts a lookup; the callback may come before this returns, then *query is NULL. */
void kb_dns_resolve(struct kb_dns *dns, struct kb_str name, enum kb_dns_family family, kb_dns_cb cb, void *arg,
                    struct kb_dns_query **query);
/* The callback will not be called. */
void kb_dns_cancel(struct kb_dns_query *query);

const struct kb_dns_stats *kb_dns_stats(const struct kb_dns *dns);
