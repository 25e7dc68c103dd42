/* SPDX-License-Identifier: Apache-2.0 */
/* Which filter chain a connection gets. Envoy looks at one property after the other and keeps only
 * the most specific chains for each, without going back; this does the same with a set of
 * candidates. */
#include "proxy/listener/listener.h"

#define CHAINS_MAX 1024

struct candidates {
    struct kb_filter_chain *chains[CHAINS_MAX];
    size_t count;
};

/* How well a chain's property fits: 0 it does not, 1 it says nothing, more is better. */
typedef unsigned (*fit_fn)(const struct kb_filter_chain_match *match,
                           const struct kb_connection_info *info);

static unsigned ranges_fit(const struct kb_cidr *ranges, size_t count, const struct kb_addr *addr)
{
    unsigned best = 0;

    if (count == 0) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (kb_cidr_contains(&ranges[i], addr)) {
            best = KB_MAX(best, 2u + ranges[i].prefix_len);
        }
    }
    return best;
}

static unsigned destination_port_fit(const struct kb_filter_chain_match *match,
                                     const struct kb_connection_info *info)
{
    if (!match->has_destination_port) {
        return 1;
    }
    return match->destination_port == kb_addr_port(&info->local) ? 2 : 0;
}

static unsigned destination_fit(const struct kb_filter_chain_match *match,
                                const struct kb_connection_info *info)
{
    return ranges_fit(match->prefix_ranges, match->prefix_range_count, &info->local);
}

static unsigned server_name_fit(const struct kb_filter_chain_match *match,
                                const struct kb_connection_info *info)
{
    (void)info;
    return match->wants_server_name ? 0 : 1;
}

static unsigned transport_fit(const struct kb_filter_chain_match *match,
                              const struct kb_connection_info *info)
{
    if (match->transport_protocol.len == 0) {
        return 1;
    }
    return kb_str_eq(match->transport_protocol, info->tls ? KB_STR("tls") : KB_STR("raw_buffer"))
               ? 2
               : 0;
}

static unsigned application_fit(const struct kb_filter_chain_match *match,
                                const struct kb_connection_info *info)
{
    (void)info;
    return match->wants_application_protocol ? 0 : 1;
}

static unsigned direct_source_fit(const struct kb_filter_chain_match *match,
                                  const struct kb_connection_info *info)
{
    return ranges_fit(match->direct_source_ranges, match->direct_source_range_count,
                      &info->direct_remote);
}

static bool is_local(const struct kb_connection_info *info)
{
    struct kb_addr a = info->remote;
    struct kb_addr b = info->local;

    kb_addr_set_port(&a, 0);
    kb_addr_set_port(&b, 0);
    return kb_addr_is_loopback(&a) || !kb_addr_is_ip(&a) || kb_addr_eq(&a, &b);
}

static unsigned source_type_fit(const struct kb_filter_chain_match *match,
                                const struct kb_connection_info *info)
{
    if (match->source_type == 0) {
        return 1;
    }
    return (match->source_type == 1) == is_local(info) ? 2 : 0;
}

static unsigned source_fit(const struct kb_filter_chain_match *match,
                           const struct kb_connection_info *info)
{
    return ranges_fit(match->source_ranges, match->source_range_count, &info->remote);
}

static unsigned source_port_fit(const struct kb_filter_chain_match *match,
                                const struct kb_connection_info *info)
{
    uint16_t port = kb_addr_port(&info->remote);

    if (match->source_port_count == 0) {
        return 1;
    }
    for (size_t i = 0; i < match->source_port_count; i++) {
        if (match->source_ports[i] == port) {
            return 2;
        }
    }
    return 0;
}

/* Envoy's order: listener.v3.FilterChainMatch. */
static const fit_fn dimensions[] = {
    destination_port_fit, destination_fit, server_name_fit, transport_fit,   application_fit,
    direct_source_fit,    source_type_fit, source_fit,      source_port_fit,
};

/* Keeps the chains that fit best. */
static void narrow(struct candidates *c, fit_fn fit, const struct kb_connection_info *info)
{
    unsigned best = 1;
    size_t kept = 0;

    for (size_t i = 0; i < c->count; i++) {
        best = KB_MAX(best, fit(&c->chains[i]->match, info));
    }
    for (size_t i = 0; i < c->count; i++) {
        if (fit(&c->chains[i]->match, info) == best) {
            c->chains[kept++] = c->chains[i];
        }
    }
    c->count = kept;
}

struct kb_filter_chain *kb_filter_chain_find(const struct kb_listener *listener,
                                             const struct kb_connection_info *info)
{
    struct candidates c;

    c.count = 0;
    for (size_t i = 0; i < listener->chain_count && c.count < CHAINS_MAX; i++) {
        c.chains[c.count++] = &listener->chains[i];
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(dimensions) && c.count > 0; i++) {
        narrow(&c, dimensions[i], info);
    }
    return c.count > 0 ? c.chains[0] : listener->default_chain;
}
