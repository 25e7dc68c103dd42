/* SPDX-License-Identifier: Apache-2.0 */
/* Which filter chain a connection gets (Envoy FilterChainManagerImpl). Envoy looks at one property
 * after the other and keeps only the most specific chains for each, without going back; this does
 * the same with a set of candidates, found by destination port. */
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/listener/listener_internal.h"

#define CANDIDATES_ON_STACK 128

/* ---- how well a chain fits ---- */

struct facts {
    const struct kb_connection_info *info;
    const struct kb_sniffed *sniffed; /* never NULL */
};

/* 0: the chain is not for it; else more is better. What a chain leaves open counts 1. */
typedef uint64_t (*fit_fn)(const struct kb_filter_chain_match *match, const struct facts *facts);

/* No range stands for all addresses, as Envoy's tries have it. */
static uint64_t ranges_fit(const struct kb_cidr *ranges, size_t count, const struct kb_addr *addr)
{
    uint64_t best = count == 0 ? 1 : 0;

    for (size_t i = 0; i < count; i++) {
        if (ranges[i].prefix_len == 0 && !kb_addr_is_ip(addr)) {
            best = KB_MAX(best, 1u);
        } else if (kb_cidr_contains(&ranges[i], addr)) {
            best = KB_MAX(best, 1u + ranges[i].prefix_len);
        }
    }
    return best;
}

static uint64_t destination_fit(const struct kb_filter_chain_match *match,
                                const struct facts *facts)
{
    return ranges_fit(match->prefix_ranges, match->prefix_range_count, &facts->info->local);
}

/* The exact name, then the longest suffix, then chains without names. */
static uint64_t server_name_fit(const struct kb_filter_chain_match *match,
                                const struct facts *facts)
{
    struct kb_str name = facts->sniffed->server_name;
    uint64_t best = match->server_name_count == 0 ? 1 : 0;

    for (size_t i = 0; i < match->server_name_count; i++) {
        struct kb_str wanted = match->server_names[i];

        if (kb_str_eq(wanted, name)) {
            return UINT64_MAX;
        }
        if (wanted.len > 0 && wanted.p[0] == '.' && wanted.len < name.len &&
            kb_str_eq(kb_str_from(name, name.len - wanted.len), wanted)) {
            best = KB_MAX(best, 1 + wanted.len);
        }
    }
    return best;
}

static uint64_t transport_fit(const struct kb_filter_chain_match *match, const struct facts *facts)
{
    struct kb_str found = facts->sniffed->transport_protocol;

    if (match->transport_protocol.len == 0) {
        return 1;
    }
    return kb_str_eq(match->transport_protocol, found.len > 0 ? found : KB_STR("raw_buffer")) ? 2
                                                                                              : 0;
}

/* The client's first protocol that any chain has. */
static uint64_t application_fit(const struct kb_filter_chain_match *match,
                                const struct facts *facts)
{
    size_t count = facts->sniffed->application_protocol_count;

    if (match->application_protocol_count == 0) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < match->application_protocol_count; k++) {
            if (kb_str_eq(match->application_protocols[k],
                          facts->sniffed->application_protocols[i])) {
                return 1 + count - i;
            }
        }
    }
    return 0;
}

static uint64_t direct_source_fit(const struct kb_filter_chain_match *match,
                                  const struct facts *facts)
{
    return ranges_fit(match->direct_source_ranges, match->direct_source_range_count,
                      &facts->info->direct_remote);
}

static bool is_local(const struct kb_connection_info *info)
{
    struct kb_addr a = info->remote;
    struct kb_addr b = info->local;

    kb_addr_set_port(&a, 0);
    kb_addr_set_port(&b, 0);
    return kb_addr_is_loopback(&a) || !kb_addr_is_ip(&a) || kb_addr_eq(&a, &b);
}

static uint64_t source_type_fit(const struct kb_filter_chain_match *match,
                                const struct facts *facts)
{
    if (match->source_type == 0) {
        return 1;
    }
    return (match->source_type == 1) == is_local(facts->info) ? 2 : 0;
}

static uint64_t source_fit(const struct kb_filter_chain_match *match, const struct facts *facts)
{
    return ranges_fit(match->source_ranges, match->source_range_count, &facts->info->remote);
}

static uint64_t source_port_fit(const struct kb_filter_chain_match *match,
                                const struct facts *facts)
{
    uint16_t port = kb_addr_port(&facts->info->remote);

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

/* Envoy's order: listener.v3.FilterChainMatch. The port comes before all of them. */
static const fit_fn dimensions[] = {
    destination_fit,   server_name_fit, transport_fit, application_fit,
    direct_source_fit, source_type_fit, source_fit,    source_port_fit,
};

/* Keeps the chains that fit best; gives how many. */
static size_t narrow(struct kb_filter_chain **chains, size_t count, fit_fn fit,
                     const struct facts *facts)
{
    uint64_t best = 1;
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t value = fit(&chains[i]->match, facts);

        if (value > best) {
            best = value;
            kept = 0;
        }
        if (value == best) {
            chains[kept++] = chains[i];
        }
    }
    return kept;
}

/* The chains with this destination port stand together; those without any come first. */
static size_t port_group(const struct kb_listener *listener, bool has_port, uint16_t port,
                         size_t *count)
{
    size_t low = 0, high = listener->chain_count, from;
    uint32_t wanted = has_port ? port + 1u : 0;

    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct kb_filter_chain_match *match = &listener->chains[mid]->match;

        if ((match->has_destination_port ? match->destination_port + 1u : 0) < wanted) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    from = low;
    while (low < listener->chain_count &&
           listener->chains[low]->match.has_destination_port == has_port &&
           (!has_port || listener->chains[low]->match.destination_port == port)) {
        low++;
    }
    *count = low - from;
    return from;
}

struct kb_filter_chain *kb_filter_chain_find(const struct kb_listener *listener,
                                             const struct kb_connection_info *info,
                                             const struct kb_sniffed *sniffed)
{
    static const struct kb_sniffed nothing;
    const struct facts facts = {info, sniffed != NULL ? sniffed : &nothing};
    struct kb_filter_chain *on_stack[CANDIDATES_ON_STACK];
    struct kb_filter_chain **chains = on_stack;
    struct kb_filter_chain *chain = listener->default_chain;
    size_t count = 0, from;

    if (listener->chain_count == 0) {
        return chain;
    }
    from = port_group(listener, kb_addr_is_ip(&info->local), kb_addr_port(&info->local), &count);
    if (count == 0 && kb_addr_is_ip(&info->local)) {
        from = port_group(listener, false, 0, &count);
    }
    if (count > CANDIDATES_ON_STACK) {
        chains = kb_malloc(count * sizeof(*chains));
    }
    memcpy(chains, listener->chains + from, count * sizeof(*chains));
    for (size_t i = 0; i < KB_ARRAY_LEN(dimensions) && count > 0; i++) {
        count = narrow(chains, count, dimensions[i], &facts);
    }
    if (count > 0) {
        chain = chains[0];
    }
    if (chains != on_stack) {
        free(chains);
    }
    return chain;
}

/* ---- chains that cannot be told apart ---- */

static bool cidr_same(const struct kb_cidr *a, const struct kb_cidr *b)
{
    return a->prefix_len == b->prefix_len && a->addr.sa.sa_family == b->addr.sa.sa_family &&
           kb_cidr_contains(a, &b->addr);
}

/* Whether two lists have a range in common; none stands for all addresses. */
static bool ranges_meet(const struct kb_cidr *a, size_t a_count, const struct kb_cidr *b,
                        size_t b_count)
{
    if (a_count == 0 || b_count == 0) {
        const struct kb_cidr *other = a_count == 0 ? b : a;
        size_t count = a_count == 0 ? b_count : a_count;
        bool all = count == 0;

        for (size_t i = 0; i < count; i++) {
            all = all || other[i].prefix_len == 0;
        }
        return all;
    }
    for (size_t i = 0; i < a_count; i++) {
        for (size_t k = 0; k < b_count; k++) {
            if (cidr_same(&a[i], &b[k])) {
                return true;
            }
        }
    }
    return false;
}

static bool texts_meet(const struct kb_str *a, size_t a_count, const struct kb_str *b,
                       size_t b_count)
{
    for (size_t i = 0; i < a_count; i++) {
        for (size_t k = 0; k < b_count; k++) {
            if (kb_str_eq(a[i], b[k])) {
                return true;
            }
        }
    }
    return a_count == 0 && b_count == 0;
}

static bool ports_meet(const struct kb_filter_chain_match *a, const struct kb_filter_chain_match *b)
{
    for (size_t i = 0; i < a->source_port_count; i++) {
        for (size_t k = 0; k < b->source_port_count; k++) {
            if (a->source_ports[i] == b->source_ports[k]) {
                return true;
            }
        }
    }
    return a->source_port_count == 0 && b->source_port_count == 0;
}

static bool matches_meet(const struct kb_filter_chain_match *a,
                         const struct kb_filter_chain_match *b)
{
    return a->source_type == b->source_type &&
           kb_str_eq(a->transport_protocol, b->transport_protocol) &&
           texts_meet(a->server_names, a->server_name_count, b->server_names,
                      b->server_name_count) &&
           texts_meet(a->application_protocols, a->application_protocol_count,
                      b->application_protocols, b->application_protocol_count) &&
           ranges_meet(a->prefix_ranges, a->prefix_range_count, b->prefix_ranges,
                       b->prefix_range_count) &&
           ranges_meet(a->direct_source_ranges, a->direct_source_range_count,
                       b->direct_source_ranges, b->direct_source_range_count) &&
           ranges_meet(a->source_ranges, a->source_range_count, b->source_ranges,
                       b->source_range_count) &&
           ports_meet(a, b);
}

/* A value that stands twice in one list of a chain. */
static bool match_repeats(const struct kb_filter_chain_match *match)
{
    for (size_t i = 1; i < match->source_port_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (match->source_ports[i] == match->source_ports[k]) {
                return true;
            }
        }
    }
    for (size_t i = 1; i < match->server_name_count; i++) {
        if (texts_meet(match->server_names, i, &match->server_names[i], 1)) {
            return true;
        }
    }
    for (size_t i = 1; i < match->application_protocol_count; i++) {
        if (texts_meet(match->application_protocols, i, &match->application_protocols[i], 1)) {
            return true;
        }
    }
    return false;
}

static uint32_t port_order(const struct kb_filter_chain *chain)
{
    return chain->match.has_destination_port ? chain->match.destination_port + 1u : 0;
}

static int port_compare(const void *a, const void *b)
{
    uint32_t x = port_order(*(struct kb_filter_chain *const *)a);
    uint32_t y = port_order(*(struct kb_filter_chain *const *)b);

    return x < y ? -1 : x > y;
}

/* Chains whose match is the same message, by its JSON. */
static bool same_messages_check(struct kb_listener *listener,
                                const Envoy__Config__Listener__V3__Listener *m, struct kb_str addr,
                                struct kb_diag *diag)
{
    struct kb_arena arena;
    struct kb_map seen;
    bool found = false;

    kb_arena_init(&arena, NULL);
    kb_map_init(&seen);
    for (size_t i = 0; i < m->n_filter_chains && !found; i++) {
        const Envoy__Config__Listener__V3__FilterChainMatch *match =
            m->filter_chains[i]->filter_chain_match;
        struct kb_json_out json;
        struct kb_str text;
        const struct kb_filter_chain *before;

        kb_json_out_init(&json, 4096);
        if (match != NULL) {
            kb_pb_json_write(&json, &match->base, 0, 0);
        }
        text = json.len > 0 ? kb_str_dup(&arena, kb_str_make(json.p, json.len)) : KB_STR("{}");
        kb_json_out_dispose(&json);
        before = kb_map_put(&seen, text, listener->chains[i]);
        if (before != NULL) {
            found = true;
            kb_diag_push_index(diag, "filter_chains", i);
            kb_diag_error(diag,
                          "error adding listener '%.*s': filter chain '%.*s' has the same matching "
                          "rules defined as '%.*s'. duplicate matcher is: %.*s",
                          KB_STR_ARG(addr), KB_STR_ARG(listener->chains[i]->name),
                          KB_STR_ARG(before->name), KB_STR_ARG(text));
            kb_diag_pop(diag);
        }
    }
    kb_map_dispose(&seen);
    kb_arena_dispose(&arena);
    return found;
}

static bool overlaps(const struct kb_listener *listener)
{
    for (size_t i = 0; i < listener->chain_count; i++) {
        const struct kb_filter_chain *chain = listener->chains[i];

        if (match_repeats(&chain->match)) {
            return true;
        }
        for (size_t k = i; k-- > 0 && port_order(listener->chains[k]) == port_order(chain);) {
            if (matches_meet(&chain->match, &listener->chains[k]->match)) {
                return true;
            }
        }
    }
    return false;
}

void kb_filter_chains_index(struct kb_listener *listener,
                            const struct Envoy__Config__Listener__V3__Listener *m,
                            struct kb_diag *diag)
{
    char text[KB_ADDR_TEXT_MAX];
    struct kb_str addr = kb_addr_text(&listener->addrs[0].addr, text);

    if (listener->chain_count < 2 && m->n_filter_chains < 1) {
        return;
    }
    if (same_messages_check(listener, m, addr, diag)) {
        return;
    }
    qsort(listener->chains, listener->chain_count, sizeof(struct kb_filter_chain *), port_compare);
    if (overlaps(listener)) {
        kb_diag_error(diag,
                      "error adding listener '%.*s': multiple filter chains with overlapping "
                      "matching rules are defined",
                      KB_STR_ARG(addr));
    }
}
