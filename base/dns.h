/* SPDX-License-Identifier: Apache-2.0 */
/* Name resolution with c-ares on a loop: addresses with their time to live, cancellable. Main
 * thread only. */
#pragma once

#include "base/addr.h"
#include "base/loop.h"

enum kb_dns_family {              /* Envoy cluster.v3.Cluster.DnsLookupFamily */
                     KB_DNS_AUTO, /* IPv6, and IPv4 when there is none */
                     KB_DNS_V4_ONLY,
                     KB_DNS_V6_ONLY,
                     KB_DNS_V4_PREFERRED,
                     KB_DNS_ALL, /* IPv4 and IPv6 */
};

#define KB_DNS_ADDRS_MAX 256 /* of one answer; more are dropped */

struct kb_dns_answer {
    struct kb_addr addr; /* port 0 */
    uint32_t ttl_s;
};

struct kb_dns;
struct kb_dns_query;

/* status 0 with n >= 0 answers (a name that does not exist or has no addresses gives 0, n = 0, as
 * in Envoy), or KB_ETIMEOUT, KB_EIO. `answers` is borrowed during the call; the query object is
 * gone when it returns. `text` says what c-ares said. */
typedef void (*kb_dns_cb)(void *arg, int status, const struct kb_dns_answer *answers, size_t n,
                          const char *text);

struct kb_dns_stats {       /* counted here, shown as dns.cares.* */
    uint64_t resolve_total; /* lookups ended; AUTO makes two when the first finds nothing */
    uint64_t pending_resolutions;
    uint64_t not_found;
    uint64_t get_addr_failure;
    uint64_t timeouts;
    uint64_t reinits;
};

/* Zeroed: the system's configuration. Envoy
 * extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig. */
struct kb_dns_options {
    const struct kb_addr
        *servers; /* instead of those of /etc/resolv.conf; at most KB_DNS_SERVERS_MAX */
    size_t server_count;
    bool servers_as_fallback; /* only when /etc/resolv.conf names none */
    bool use_tcp;
    bool no_search;           /* names are taken as they are */
    bool rotate;              /* take turns with the servers */
    bool reinit_on_timeout;   /* start afresh after a timeout too */
    uint32_t query_timeout_s; /* of one try; 0: 5 */
    uint32_t query_tries;     /* 0: 4 */
    uint32_t udp_max_queries; /* for one socket; 0: no limit */
};
#define KB_DNS_SERVERS_MAX 16

/* A resolver on the loop. Copies the options; NULL: all zero. KB_EIO when c-ares cannot start. */
int kb_dns_create(struct kb_loop *loop, const struct kb_dns_options *options,
                  struct kb_dns **out) KB_MUST_USE;
/* Not from within a callback of it. Every query must have ended or been cancelled. Its sockets are
 * closed when the loop has run once more. */
void kb_dns_destroy(struct kb_dns *dns);

/* Starts a lookup; the callback may come before this returns, then *query is NULL. */
void kb_dns_resolve(struct kb_dns *dns, struct kb_str name, enum kb_dns_family family, kb_dns_cb cb,
                    void *arg, struct kb_dns_query **query);
/* The callback will not be called. */
void kb_dns_cancel(struct kb_dns_query *query);

/* What was counted so far; borrowed from the resolver. */
const struct kb_dns_stats *kb_dns_stats(const struct kb_dns *dns);
