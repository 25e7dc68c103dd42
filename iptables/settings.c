/* SPDX-License-Identifier: Apache-2.0 */
/* Checks every value before any of it can become part of a rule, and looks at the machine. */
#include "iptables/settings.h"

#include <arpa/inet.h>
#include <grp.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iptables/text.h"

#define OWNER_GROUPS_MAX 64 /* all of them become one rule, whose matches the kernel bounds */
#define DEFAULT_UID      "1337"
#define OUTBOUND_MARK    1338 /* of what the proxy sends to its own pod; never the mark of TPROXY */

static int bad_count;

/* One bad piece: "-d: "80x" is no port..." */
static void bad(const struct kb_settings *s, const void *field, struct kb_piece piece,
                const char *what)
{
    const char *source = kb_flags_source(s, field);

    bad_count++;
    kb_say(KB_SAY_ERROR, "%s: \"%.*s\" %s", source, piece.len, piece.at, what);
}

static struct kb_piece whole(const char *text)
{
    return (struct kb_piece){text, (int)strlen(text)};
}

static bool is_number(struct kb_piece piece, uint64_t least, uint64_t most)
{
    uint64_t value;

    return kb_piece_number(piece, most, &value) == 0 && value >= least;
}

/* "80", "8000:8010" with `ranges`, or the name of a service. */
static bool is_port(struct kb_piece piece, bool ranges)
{
    char name[64];
    const char *colon = memchr(piece.at, ':', (size_t)piece.len);
    uint64_t low, high;

    if (is_number(piece, 1, 65535)) {
        return true;
    }
    if (!ranges || piece.len >= (int)sizeof(name)) {
        return false;
    }
    if (colon) {
        int len = (int)(colon - piece.at);
        return kb_piece_number((struct kb_piece){piece.at, len}, 65535, &low) == 0 &&
               kb_piece_number((struct kb_piece){colon + 1, piece.len - len - 1}, 65535, &high) ==
                   0 &&
               low <= high;
    }
    snprintf(name, sizeof(name), "%.*s", piece.len, piece.at);
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")] ||
        name[0] == '-') {
        return false;
    }
    return getservbyname(name, "tcp") != NULL;
}

static void check_port(const struct kb_settings *s, const char *const *field)
{
    if (!is_port(whole(*field), false)) {
        bad(s, field, whole(*field), "is no port: a number from 1 to 65535");
    }
}

static void check_ports(const struct kb_settings *s, const char *const *field, bool star)
{
    const char *cursor = *field;
    struct kb_piece piece;

    if (star && strcmp(*field, "*") == 0) {
        return;
    }
    while (kb_list_next(&cursor, &piece)) {
        if (!is_port(piece, true)) {
            bad(s, field, piece,
                star ? "is no port: a number from 1 to 65535, \"8000:8010\", a name of "
                       "/etc/services, or * alone"
                     : "is no port: a number from 1 to 65535, \"8000:8010\", or a name of "
                       "/etc/services");
        }
    }
}

/* A number, a span of them, or a name that is known here. */
static bool is_owner(struct kb_piece piece, bool group)
{
    char name[64];
    const char *dash = memchr(piece.at, '-', (size_t)piece.len);

    if (is_number(piece, 0, UINT32_MAX - 1)) {
        return true;
    }
    if (piece.len >= (int)sizeof(name)) {
        return false;
    }
    if (dash && dash > piece.at && dash[-1] >= '0' && dash[-1] <= '9') {
        int len = (int)(dash - piece.at);
        return is_number((struct kb_piece){piece.at, len}, 0, UINT32_MAX - 1) &&
               is_number((struct kb_piece){dash + 1, piece.len - len - 1}, 0, UINT32_MAX - 1);
    }
    snprintf(name, sizeof(name), "%.*s", piece.len, piece.at);
    if (name[strcspn(name, " \t\n\r\"'\\!")] || name[0] == '-') {
        return false;
    }
    return group ? getgrnam(name) != NULL : getpwnam(name) != NULL;
}

static void check_owners(const struct kb_settings *s, const void *field, const char *list,
                         bool group)
{
    const char *cursor = list;
    struct kb_piece piece;

    while (kb_list_next(&cursor, &piece)) {
        if (!is_owner(piece, group)) {
            bad(s, field, piece,
                group ? "is no group: a number, or a name that is known here"
                      : "is no user: a number, or a name that is known here");
        }
    }
}

static void check_nics(const struct kb_settings *s, const char *const *field)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@:";
    const char *cursor = *field;
    struct kb_piece piece;

    while (kb_list_next(&cursor, &piece)) {
        int i = 0;
        while (i < piece.len &&
               (strchr(allowed, piece.at[i]) || (i + 1 == piece.len && piece.at[i] == '+'))) {
            i++;
        }
        if (i < piece.len || piece.len >= IFNAMSIZ || piece.at[0] == '-') {
            bad(s, field, piece,
                "is no interface: at most 15 letters, digits or ._-@: (a + at the end stands for "
                "any rest)");
        }
    }
}

static void check_ranges(const struct kb_settings *s, const char *const *field, bool star)
{
    const char *cursor = *field;
    struct kb_piece piece;
    struct kb_range range;
    const char *why;

    if (star && strcmp(*field, "*") == 0) {
        return;
    }
    while (kb_list_next(&cursor, &piece)) {
        if (kb_piece_is(piece, "*")) {
            bad(s, field, piece,
                star ? "cannot stand in a list: either * alone, or ranges"
                     : "would leave everything alone: give ranges as 10.0.0.0/8");
        } else if (kb_range_parse(piece, &range, &why) != 0) {
            bad(s, field, piece, why);
        }
    }
}

static void check_loopback(const struct kb_settings *s)
{
    struct kb_range range;
    const char *why;

    if (kb_range_parse(whole(s->loopback), &range, &why) == 0) {
        if (range.family == AF_INET && range.loopback && range.bits >= 8) {
            return;
        }
        why = "is no part of 127.0.0.0/8";
    }
    bad_count++;
    kb_say(KB_SAY_ERROR, "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR: \"%s\" %s", s->loopback, why);
}

static void check_groups(const struct kb_settings *s)
{
    const char *cursor = s->owner_groups;
    const char *name = strcmp(s->owner_groups, "*") == 0 ? "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
                                                         : "ISTIO_OUTBOUND_OWNER_GROUPS";
    struct kb_piece piece;
    unsigned count = 0;

    if (strcmp(s->owner_groups, "*") == 0) {
        cursor = s->owner_groups_excluded;
    }
    while (kb_list_next(&cursor, &piece)) {
        count++;
        if (!is_owner(piece, true)) {
            bad_count++;
            kb_say(KB_SAY_ERROR, "%s: \"%.*s\" is no group: a number, or a name that is known here",
                   name, piece.len, piece.at);
        }
    }
    if (strcmp(s->owner_groups, "*") != 0 && count > OWNER_GROUPS_MAX) {
        bad_count++;
        kb_say(KB_SAY_ERROR, "%s: %u groups; at most %d fit into a rule", name, count,
               OWNER_GROUPS_MAX);
    }
}

/* A duration as Go writes it: "5s", "1m30s", "500ms". */
static int duration_parse(const char *text, long *out_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"us", 1e-3}, {"ns", 1e-6}, {"h", 3600e3}, {"m", 60e3}, {"s", 1e3}};
    double total = 0;

    if (!*text) {
        return -1;
    }
    while (*text) {
        char *end;
        if (*text < '0' || *text > '9') {
            return -1;
        }
        double number = strtod(text, &end);
        size_t i = 0;
        while (i < 6 && strncmp(end, units[i].unit, strlen(units[i].unit)) != 0) {
            i++;
        }
        if (i == 6 || !(number < 1e9)) {
            return -1;
        }
        total += number * units[i].ms;
        text = end + strlen(units[i].unit);
    }
    if (total < 1 || total > 3600e3) {
        return -1;
    }
    *out_ms = (long)total;
    return 0;
}

static void check_numbers(struct kb_settings *s)
{
    uint64_t value = 0;

    if (kb_piece_number(whole(s->mark), UINT32_MAX, &value) != 0 || value == 0) {
        bad(s, &s->mark, whole(s->mark), "is no mark: a number from 1 to 4294967295");
    } else if (value == OUTBOUND_MARK) {
        bad(s, &s->mark, whole(s->mark),
            "is the mark of what the proxy sends to its own pod: choose another");
    }
    s->mark_number = (unsigned)value;
    if (kb_piece_number(whole(s->route_table), UINT32_MAX, &value) != 0 || value == 0 ||
        (value >= 253 && value <= 255)) {
        bad(s, &s->route_table, whole(s->route_table),
            "is no table for this: a number that is not 0 and none of the system's own, 253 to "
            "255");
    }
    s->table_number = (unsigned)value;
    if (kb_piece_number(whole(s->probe_port), 65535, &value) != 0 || value == 0) {
        bad(s, &s->probe_port, whole(s->probe_port), "is no port: a number from 1 to 65535");
    }
    s->probe_port_number = (unsigned)value;
    if (duration_parse(s->probe_timeout, &s->probe_timeout_ms) != 0) {
        bad(s, &s->probe_timeout, whole(s->probe_timeout),
            "is no time from 1ms to 1h, as 5s or 500ms");
    }
}

static void check_words(const struct kb_settings *s)
{
    if (*s->mode && strcmp(s->mode, "REDIRECT") != 0 && strcmp(s->mode, "TPROXY") != 0) {
        bad(s, &s->mode, whole(s->mode), "is no mode: REDIRECT or TPROXY");
    }
    if (*s->iptables_binary && strcmp(s->iptables_binary, "legacy") != 0 &&
        strcmp(s->iptables_binary, "nft") != 0) {
        bad(s, &s->iptables_binary, whole(s->iptables_binary), "is no iptables: legacy or nft");
    }
    if (s->native_nftables) {
        bad(s, &s->native_nftables, whole("true"),
            "asks for rules without iptables, which this program does not make; iptables-nft "
            "writes nftables too");
    }
    if (s->cni_mode && !*s->network_namespace) {
        bad(s, &s->cni_mode, whole("true"), "needs --network-namespace");
    }
    if (s->capture_all_dns && !s->redirect_dns) {
        kb_say(KB_SAY_WARN, "%s has no effect without --redirect-dns",
               kb_flags_source(s, &s->capture_all_dns));
    }
    if (*s->inbound_excluded && strcmp(s->inbound_ports, "*") != 0) {
        kb_say(KB_SAY_WARN, "%s has no effect without -b '*'",
               kb_flags_source(s, &s->inbound_excluded));
    }
}

int kb_settings_check(struct kb_settings *s)
{
    bad_count = 0;
    check_port(s, &s->proxy_port);
    check_port(s, &s->inbound_port);
    check_port(s, &s->tunnel_port);
    check_ports(s, &s->inbound_ports, true);
    check_ports(s, &s->inbound_excluded, false);
    check_ports(s, &s->outbound_ports, false);
    check_ports(s, &s->outbound_excluded, false);
    check_owners(s, &s->proxy_uid, s->proxy_uid, false);
    check_owners(s, &s->proxy_gid, s->proxy_gid, true);
    check_nics(s, &s->excluded_nics);
    check_nics(s, &s->virtual_nics);
    check_ranges(s, &s->ranges, true);
    check_ranges(s, &s->ranges_excluded, false);
    check_numbers(s);
    check_words(s);
    check_loopback(s);
    check_groups(s);
    return bad_count ? -1 : 0;
}

/* Addresses that a pod has for others: not the loopback's, none of the link. */
static bool is_own_address(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        uint32_t value = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
        return value >> 24 != 127 && value >> 16 != 0xa9fe;
    }
    if (address->sa_family == AF_INET6) {
        const struct in6_addr *value = &((const struct sockaddr_in6 *)address)->sin6_addr;
        /* what an earlier run added, see routes.h */
        static const struct in6_addr leaves_from = {{{[15] = 6}}};
        return !IN6_IS_ADDR_LOOPBACK(value) && !IN6_IS_ADDR_LINKLOCAL(value) &&
               memcmp(value, &leaves_from, 16) != 0;
    }
    return false;
}

/* Istio's rule: IPv6 where the first address is one; with dual stack, where any is. */
static enum kb_exit look_at_addresses(struct kb_settings *s)
{
    struct ifaddrs *all;
    bool any4 = false, any6 = false;

    if (getifaddrs(&all) != 0) {
        kb_say(KB_SAY_ERROR, "the addresses of this machine cannot be read: %m");
        return KB_EXIT_FAILED;
    }
    for (const struct ifaddrs *at = all; at; at = at->ifa_next) {
        if (at->ifa_addr && is_own_address(at->ifa_addr)) {
            any4 |= at->ifa_addr->sa_family == AF_INET;
            any6 |= at->ifa_addr->sa_family == AF_INET6;
        }
    }
    freeifaddrs(all);
    s->ipv6 = any6 && (s->dual_stack || !any4);
    s->host_is_ipv6 = any6 && !any4;
    if (!any4 && !any6) {
        if (!s->dry_run && !s->cleanup_only) {
            kb_say(KB_SAY_ERROR, "no address here but those of the loopback and of links: run it "
                                 "when the pod has its address");
            return KB_EXIT_FAILED;
        }
        kb_say(KB_SAY_WARN,
               "no address here but those of the loopback and of links: rules for IPv4 only");
    }
    return KB_EXIT_OK;
}

static void add_server(struct kb_settings *s, const char *text, const char *path)
{
    unsigned char raw[16];
    bool is6 = strchr(text, ':') != NULL;
    struct kb_dns_servers *servers = is6 ? &s->dns6 : &s->dns4;

    if (inet_pton(is6 ? AF_INET6 : AF_INET, text, raw) != 1) {
        kb_say(KB_SAY_WARN,
               "%s: nameserver \"%s\" is no address that a rule can have; look-ups there are not "
               "captured",
               path, text);
    } else if (servers->count == KB_DNS_SERVERS_MAX) {
        kb_say(KB_SAY_WARN,
               "%s: nameserver \"%s\" is one too many; look-ups there are not captured", path,
               text);
    } else {
        /* an address that inet_pton() takes fits */
        memcpy(servers->at[servers->count++], text, strnlen(text, sizeof(servers->at[0]) - 1));
    }
}

int kb_settings_read_dns(struct kb_settings *s, const char *path)
{
    char line[1024], word[64], value[256];
    FILE *file = fopen(path, "re");

    if (!file) {
        kb_say(KB_SAY_ERROR,
               "%s: %m (--redirect-dns takes the servers from there; --capture-all-dns needs none)",
               path);
        return -1;
    }
    while (fgets(line, sizeof(line), file)) {
        if (line[0] != '#' && line[0] != ';' && sscanf(line, "%63s %255s", word, value) == 2 &&
            strcmp(word, "nameserver") == 0) {
            add_server(s, value, path);
        }
    }
    fclose(file);
    if (!s->dns4.count && !s->dns6.count) {
        kb_say(KB_SAY_WARN,
               "%s names no server and --capture-all-dns is not set: look-ups are not captured",
               path);
        s->redirect_dns = false;
    }
    return 0;
}

enum kb_exit kb_settings_look(struct kb_settings *s)
{
    if (!*s->proxy_uid) {
        const char *name = getenv("ENVOY_USER");
        const struct passwd *user = getpwnam(name ? name : "istio-proxy");
        if (user) {
            snprintf(s->default_uid, sizeof(s->default_uid), "%u", (unsigned)user->pw_uid);
        } else {
            snprintf(s->default_uid, sizeof(s->default_uid), DEFAULT_UID);
        }
        s->proxy_uid = s->default_uid;
    }
    if (!*s->proxy_gid) {
        s->proxy_gid = s->proxy_uid;
    }
    if (s->redirect_dns && !s->capture_all_dns &&
        kb_settings_read_dns(s, "/etc/resolv.conf") != 0) {
        return KB_EXIT_FAILED;
    }
    return look_at_addresses(s);
}

void kb_settings_say(const struct kb_settings *s)
{
    struct kb_text servers = {0};

    for (unsigned i = 0; i < s->dns4.count; i++) {
        kb_text_add(&servers, " %s", s->dns4.at[i]);
    }
    for (unsigned i = 0; i < s->dns6.count; i++) {
        kb_text_add(&servers, " %s", s->dns6.at[i]);
    }
    kb_say(KB_SAY_INFO,
           "%s to %s (inbound) and %s (outbound), not of users %s, groups %s, not port %s; inbound "
           "ports \"%s\" but \"%s\"; "
           "outbound to \"%s\" but \"%s\", ports \"%s\" but \"%s\"; name look-ups: %s%s; IPv6: %s",
           *s->mode ? s->mode : "REDIRECT", s->inbound_port, s->proxy_port, s->proxy_uid,
           s->proxy_gid, s->tunnel_port, s->inbound_ports, s->inbound_excluded, s->ranges,
           s->ranges_excluded, s->outbound_ports, s->outbound_excluded,
           !s->redirect_dns ? "not captured"
                            : (s->capture_all_dns ? "all captured" : "captured to"),
           kb_text_str(&servers), s->ipv6 ? "yes" : "no");
    kb_text_dispose(&servers);
}
