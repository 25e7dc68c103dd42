/* SPDX-License-Identifier: Apache-2.0 */
/* Which rules intercept what the settings say. Their order is what they mean: the first that
 * matches decides. It is that of istio-iptables, so that whoever reads `iptables-save` in a pod
 * finds the same. */
#include "iptables/plan.h"

#include <string.h>
#include <sys/socket.h>

#define INBOUND     "ISTIO_INBOUND"     /* what others connect to */
#define IN_REDIRECT "ISTIO_IN_REDIRECT" /* to the proxy's inbound port */
#define OUTPUT      "ISTIO_OUTPUT"      /* what is connected from here */
#define OUTPUT_DNS  "ISTIO_OUTPUT_DNS"  /* name look-ups among it */
#define REDIRECT    "ISTIO_REDIRECT"    /* to the proxy's outbound port */
#define DIVERT      "ISTIO_DIVERT"      /* TPROXY: packets of connections that the proxy has */
#define TPROXY      "ISTIO_TPROXY"      /* TPROXY: to the proxy's inbound port, addresses kept */
#define DROPPED     "ISTIO_DROP"

/* On packets from the proxy to its own pod, so that TPROXY takes those and not the app's own. */
#define OUTBOUND_MARK "1338"

/* One family's rules while they are made. */
struct plan {
    const struct kb_settings *s;
    struct kb_rules *rules;
    int family;
    const char *loopback;    /* the app's own, reached without the proxy */
    const char *leaves_from; /* from where the proxy connects to its own app */
    const struct kb_dns_servers *dns;
    const char *host_bits;
    bool tproxy;
    bool loopback_captured; /* -i names the loopback: what apps send each other there is outbound
                               too */
};

static void plan_init(struct plan *p, const struct kb_settings *s, bool ipv6, struct kb_rules *out)
{
    const char *cursor = s->ranges;
    struct kb_piece piece;
    struct kb_range range;
    const char *why;

    *p = (struct plan){.s = s,
                       .rules = out,
                       .family = ipv6 ? AF_INET6 : AF_INET,
                       .tproxy = strcmp(s->mode, "TPROXY") == 0};
    p->loopback = ipv6 ? "::1/128" : s->loopback;
    p->leaves_from = ipv6 ? "::6/128" : "127.0.0.6/32";
    p->dns = ipv6 ? &s->dns6 : &s->dns4;
    p->host_bits = ipv6 ? "128" : "32";
    while (kb_list_next(&cursor, &piece)) {
        if (kb_range_parse(piece, &range, &why) == 0 && range.loopback) {
            p->loopback_captured = true;
        }
    }
}

static void add_excluded_nics(const struct plan *p, const char *table)
{
    const char *cursor = p->s->excluded_nics;
    struct kb_piece nic;

    while (kb_list_next(&cursor, &nic)) {
        kb_rules_append(p->rules, table, "PREROUTING", "-i %.*s -j RETURN", nic.len, nic.at);
        kb_rules_append(p->rules, table, "OUTPUT", "-o %.*s -j RETURN", nic.len, nic.at);
    }
}

/* What a virtual machine behind an interface of this pod receives is not for the pod's proxy. */
static void add_virtual_nics(const struct plan *p)
{
    const char *cursor = p->s->virtual_nics;
    struct kb_piece nic;

    while (kb_list_next(&cursor, &nic)) {
        kb_rules_insert(p->rules, "nat", "PREROUTING", 1, "-i %.*s -j RETURN", nic.len, nic.at);
    }
}

static void add_drop_invalid(const struct plan *p)
{
    kb_rules_append(p->rules, "mangle", "PREROUTING", "-m conntrack --ctstate INVALID -j " DROPPED);
    kb_rules_append(p->rules, "mangle", DROPPED, "-j DROP");
}

/* The ends of the ways: where connections are handed to the proxy. */
static void add_redirects(const struct plan *p)
{
    kb_rules_append(p->rules, "nat", INBOUND, "-p tcp --dport %s -j RETURN", p->s->tunnel_port);
    kb_rules_append(p->rules, "nat", REDIRECT, "-p tcp -j REDIRECT --to-ports %s",
                    p->s->proxy_port);
    kb_rules_append(p->rules, "nat", IN_REDIRECT, "-p tcp -j REDIRECT --to-ports %s",
                    p->s->inbound_port);
}

/* Inbound connections to one port (a piece of a list), or to all with an empty one. */
static void add_inbound_port(const struct plan *p, struct kb_piece port)
{
    const char *dport = port.len ? " --dport " : "";

    if (p->tproxy) {
        kb_rules_append(p->rules, "mangle", INBOUND,
                        "-p tcp%s%.*s -m conntrack --ctstate RELATED,ESTABLISHED -j " DIVERT, dport,
                        port.len, port.at);
        kb_rules_append(p->rules, "mangle", INBOUND, "-p tcp%s%.*s -j " TPROXY, dport, port.len,
                        port.at);
    } else {
        kb_rules_append(p->rules, "nat", INBOUND, "-p tcp%s%.*s -j " IN_REDIRECT, dport, port.len,
                        port.at);
    }
}

static void add_inbound(const struct plan *p)
{
    const struct kb_settings *s = p->s;
    const char *table = p->tproxy ? "mangle" : "nat";
    const char *cursor = s->inbound_ports;
    struct kb_piece port;

    if (!*s->inbound_ports) {
        return;
    }
    if (p->tproxy) {
        kb_rules_append(p->rules, "mangle", DIVERT, "-j MARK --set-mark %s", s->mark);
        kb_rules_append(p->rules, "mangle", DIVERT, "-j ACCEPT");
        kb_rules_append(p->rules, "mangle", TPROXY,
                        "! -d %s -p tcp -j TPROXY --tproxy-mark %s/0xffffffff --on-port %s",
                        p->loopback, s->mark, s->inbound_port);
    }
    kb_rules_append(p->rules, table, "PREROUTING", "-p tcp -j " INBOUND);
    if (strcmp(s->inbound_ports, "*") == 0) {
        const char *excluded = s->inbound_excluded;
        while (kb_list_next(&excluded, &port)) {
            kb_rules_append(p->rules, table, INBOUND, "-p tcp --dport %.*s -j RETURN", port.len,
                            port.at);
        }
        add_inbound_port(p, (struct kb_piece){.at = ""});
        return;
    }
    while (kb_list_next(&cursor, &port)) {
        add_inbound_port(p, port);
    }
}

static void add_outbound_excluded(const struct plan *p)
{
    const char *cursor = p->s->outbound_excluded;
    struct kb_piece port;

    while (kb_list_next(&cursor, &port)) {
        kb_rules_append(p->rules, "nat", OUTPUT, "-p tcp --dport %.*s -j RETURN", port.len,
                        port.at);
        kb_rules_append(p->rules, "nat", OUTPUT, "-p udp --dport %.*s -j RETURN", port.len,
                        port.at);
    }
}

/* The proxy's own connections, told by their owner: `option` is --uid-owner or --gid-owner. */
static void add_owner(const struct plan *p, const char *option, struct kb_piece owner)
{
    const struct kb_settings *s = p->s;
    bool by_user = strcmp(option, "--uid-owner") == 0;

    /* An app that calls its own pod by a service: app, proxy outbound, proxy inbound, app. Look-ups
     * that go out of the proxy's container are not for its inbound side; groups have no such rule.
     */
    if (s->redirect_dns && by_user) {
        kb_rules_append(
            p->rules, "nat", OUTPUT,
            "-o lo ! -d %s -p tcp -m multiport ! --dports 53,%s -m owner %s %.*s -j " IN_REDIRECT,
            p->loopback, s->tunnel_port, option, owner.len, owner.at);
    } else {
        kb_rules_append(p->rules, "nat", OUTPUT,
                        "-o lo ! -d %s -p tcp ! --dport %s -m owner %s %.*s -j " IN_REDIRECT,
                        p->loopback, s->tunnel_port, option, owner.len, owner.at);
    }
    /* An app that calls its own pod by address. A name server there is still asked through the
     * agent. */
    if (!p->loopback_captured) {
        kb_rules_append(p->rules, "nat", OUTPUT, "-o lo%s -m owner ! %s %.*s -j RETURN",
                        s->redirect_dns ? " -p tcp ! --dport 53" : "", option, owner.len, owner.at);
    }
    /* what the proxy sends to others has been through the proxy */
    kb_rules_append(p->rules, "nat", OUTPUT, "-m owner %s %.*s -j RETURN", option, owner.len,
                    owner.at);
}

static void add_owners(const struct plan *p)
{
    const char *uids = p->s->proxy_uid, *gids = p->s->proxy_gid;
    struct kb_piece owner;

    while (kb_list_next(&uids, &owner)) {
        add_owner(p, "--uid-owner", owner);
    }
    while (kb_list_next(&gids, &owner)) {
        add_owner(p, "--gid-owner", owner);
    }
}

static void add_owner_groups(const struct plan *p)
{
    const char *cursor = p->s->owner_groups_excluded;
    struct kb_piece group;
    struct kb_text others = {0};

    if (strcmp(p->s->owner_groups, "*") == 0) {
        while (kb_list_next(&cursor, &group)) {
            kb_rules_append(p->rules, "nat", OUTPUT, "-m owner --gid-owner %.*s -j RETURN",
                            group.len, group.at);
        }
        return;
    }
    cursor = p->s->owner_groups;
    while (kb_list_next(&cursor, &group)) {
        kb_text_add(&others, "-m owner ! --gid-owner %.*s ", group.len, group.at);
    }
    kb_rules_append(p->rules, "nat", OUTPUT, "%s-j RETURN", kb_text_str(&others));
    kb_text_dispose(&others);
}

static void add_dns_redirect(const struct plan *p)
{
    static const char *const protocols[] = {"tcp", "udp"};

    if (!p->s->capture_all_dns && !p->dns->count) {
        return;
    }
    kb_rules_append(p->rules, "nat", OUTPUT, "-j " OUTPUT_DNS);
    for (size_t i = 0; i < 2; i++) {
        if (p->s->capture_all_dns) {
            kb_rules_append(p->rules, "nat", OUTPUT_DNS,
                            "-p %s --dport 53 -j REDIRECT --to-ports " KB_AGENT_DNS_PORT,
                            protocols[i]);
            continue;
        }
        for (unsigned n = 0; n < p->dns->count; n++) {
            kb_rules_append(p->rules, "nat", OUTPUT_DNS,
                            "-p %s --dport 53 -d %s/%s -j REDIRECT --to-ports " KB_AGENT_DNS_PORT,
                            protocols[i], p->dns->at[n], p->host_bits);
        }
    }
}

static void add_dns_zones_of(const struct plan *p, const char *option, const char *owners)
{
    struct kb_piece owner;

    while (kb_list_next(&owners, &owner)) {
        kb_rules_append(p->rules, "raw", OUTPUT_DNS,
                        "-p udp --dport 53 -m owner %s %.*s -j CT --zone 1", option, owner.len,
                        owner.at);
        kb_rules_append(p->rules, "raw", OUTPUT_DNS,
                        "-p udp --sport " KB_AGENT_DNS_PORT " -m owner %s %.*s -j CT --zone 2",
                        option, owner.len, owner.at);
    }
}

/* Look-ups of apps (zone 2) and those that the agent makes for them (zone 1) may have the same
 * addresses and ports; without zones of their own the kernel would take them for one. */
static void add_dns_zones(const struct plan *p)
{
    kb_rules_append(p->rules, "raw", "OUTPUT", "-j " OUTPUT_DNS);
    add_dns_zones_of(p, "--uid-owner", p->s->proxy_uid);
    add_dns_zones_of(p, "--gid-owner", p->s->proxy_gid);
    if (p->s->capture_all_dns) {
        kb_rules_append(p->rules, "raw", "PREROUTING", "-j " INBOUND);
        kb_rules_append(p->rules, "raw", OUTPUT_DNS, "-p udp --dport 53 -j CT --zone 2");
        kb_rules_append(p->rules, "raw", INBOUND, "-p udp --sport 53 -j CT --zone 1");
        return;
    }
    if (p->dns->count) {
        kb_rules_append(p->rules, "raw", "PREROUTING", "-j " INBOUND);
    }
    for (unsigned n = 0; n < p->dns->count; n++) {
        kb_rules_append(p->rules, "raw", OUTPUT_DNS, "-p udp --dport 53 -d %s/%s -j CT --zone 2",
                        p->dns->at[n], p->host_bits);
        kb_rules_append(p->rules, "raw", INBOUND, "-p udp --sport 53 -s %s/%s -j CT --zone 1",
                        p->dns->at[n], p->host_bits);
    }
}

/* Destinations that stay and that go, in this order. */
static void add_destinations(const struct plan *p)
{
    const char *excluded = p->s->ranges_excluded, *ports = p->s->outbound_ports,
               *ranges = p->s->ranges, *nics;
    bool all = strcmp(ranges, "*") == 0;
    struct kb_piece piece, nic;
    struct kb_range range;
    const char *why;

    kb_rules_append(p->rules, "nat", OUTPUT, "-d %s -j RETURN", p->loopback);
    while (kb_list_next(&excluded, &piece)) {
        if (kb_range_parse(piece, &range, &why) == 0 && range.family == p->family) {
            kb_rules_append(p->rules, "nat", OUTPUT, "-d %s -j RETURN", range.text);
        }
    }
    while (kb_list_next(&ports, &piece)) {
        kb_rules_append(p->rules, "nat", OUTPUT, "-p tcp --dport %.*s -j " REDIRECT, piece.len,
                        piece.at);
    }
    if (all) {
        kb_rules_append(p->rules, "nat", OUTPUT, "-j " REDIRECT);
        nics = p->s->virtual_nics;
        while (kb_list_next(&nics, &nic)) {
            kb_rules_insert(p->rules, "nat", "PREROUTING", 1, "-i %.*s -j " REDIRECT, nic.len,
                            nic.at);
        }
        return;
    }
    while (kb_list_next(&ranges, &piece)) {
        if (kb_range_parse(piece, &range, &why) != 0 || range.family != p->family) {
            continue;
        }
        nics = p->s->virtual_nics;
        while (kb_list_next(&nics, &nic)) {
            kb_rules_insert(p->rules, "nat", "PREROUTING", 1, "-i %.*s -d %s -j " REDIRECT, nic.len,
                            nic.at, range.text);
        }
        kb_rules_append(p->rules, "nat", OUTPUT, "-d %s -j " REDIRECT, range.text);
    }
}

static void add_outbound(const struct plan *p)
{
    kb_rules_append(p->rules, "nat", "OUTPUT", "-j " OUTPUT);
    add_outbound_excluded(p);
    kb_rules_append(p->rules, "nat", OUTPUT, "-o lo -s %s -j RETURN", p->leaves_from);
    add_owners(p);
    add_owner_groups(p);
    if (p->s->redirect_dns) {
        add_dns_redirect(p);
        add_dns_zones(p);
    }
    add_destinations(p);
}

static void add_outbound_marks(const struct plan *p, const char *option, const char *owners)
{
    struct kb_piece owner;

    while (kb_list_next(&owners, &owner)) {
        kb_rules_append(p->rules, "mangle", "OUTPUT",
                        "! -d %s -p tcp -o lo -m owner %s %.*s -j MARK --set-mark " OUTBOUND_MARK,
                        p->loopback, option, owner.len, owner.at);
    }
}

/* The proxy connects to the app from the client's address, with the mark (original_src): the app's
 * answers have to come back to the proxy, and what is marked must not be taken once more. */
static void add_tproxy_marks(const struct plan *p)
{
    const char *mark = p->s->mark;

    kb_rules_append(p->rules, "mangle", "PREROUTING",
                    "-p tcp -m mark --mark %s -j CONNMARK --save-mark", mark);
    kb_rules_append(p->rules, "mangle", "OUTPUT", "-p tcp -o lo -m mark --mark %s -j RETURN", mark);
    add_outbound_marks(p, "--uid-owner", p->s->proxy_uid);
    add_outbound_marks(p, "--gid-owner", p->s->proxy_gid);
    kb_rules_append(p->rules, "mangle", "OUTPUT",
                    "-p tcp -m connmark --mark %s -j CONNMARK --restore-mark", mark);
    kb_rules_insert(p->rules, "mangle", INBOUND, 1, "-p tcp -m mark --mark %s -j RETURN", mark);
    kb_rules_insert(p->rules, "mangle", INBOUND, 2, "-p tcp -s %s -i lo -j RETURN", p->leaves_from);
    kb_rules_insert(p->rules, "mangle", INBOUND, 3,
                    "-p tcp -i lo -m mark ! --mark " OUTBOUND_MARK " -j RETURN");
}

void kb_plan_build(const struct kb_settings *s, bool ipv6, struct kb_rules *out)
{
    struct plan p;

    plan_init(&p, s, ipv6, out);
    add_excluded_nics(&p, "nat");
    if (p.tproxy) {
        add_excluded_nics(&p, "mangle");
    }
    add_virtual_nics(&p);
    if (s->drop_invalid) {
        add_drop_invalid(&p);
    }
    add_redirects(&p);
    add_inbound(&p);
    add_outbound(&p);
    if (p.tproxy) {
        add_tproxy_marks(&p);
    }
}
