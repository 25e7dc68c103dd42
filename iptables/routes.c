/* SPDX-License-Identifier: Apache-2.0 */
/* Rules, routes and an address over rtnetlink: an init container need not have ip(8). */
#include "iptables/routes.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAME_RULES_MAX 16

/* One message, its header first. */
struct request {
    struct nlmsghdr header;
    union {
        struct fib_rule_hdr rule;
        struct rtmsg route;
        struct ifaddrmsg address;
        char space[192];
    } body;
};

static void request_init(struct request *r, unsigned short type, unsigned short flags, size_t body)
{
    memset(r, 0, sizeof(*r));
    r->header.nlmsg_len = (unsigned)NLMSG_LENGTH(body);
    r->header.nlmsg_type = type;
    r->header.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags);
    r->header.nlmsg_seq = 1;
}

static void request_add(struct request *r, unsigned short type, const void *value, size_t len)
{
    size_t at = NLMSG_ALIGN(r->header.nlmsg_len);
    struct rtattr attribute = {.rta_len = (unsigned short)RTA_LENGTH(len), .rta_type = type};

    memcpy((char *)r + at, &attribute, sizeof(attribute));
    memcpy((char *)r + at + RTA_LENGTH(0), value, len);
    r->header.nlmsg_len = (unsigned)(at + RTA_LENGTH(len));
}

static void request_add_u32(struct request *r, unsigned short type, unsigned value)
{
    request_add(r, type, &value, sizeof(value));
}

/* 0, or a negative errno. */
static int request_send(const struct request *r)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[512];
    } answer;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    int result = 0;

    if (fd < 0 ||
        sendto(fd, r, r->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
        result = -errno;
    } else if (recv(fd, &answer, sizeof(answer), 0) <
               (ssize_t)(sizeof(answer.header) + sizeof(answer.error))) {
        result = -EIO;
    } else if (answer.header.nlmsg_type == NLMSG_ERROR) {
        result = answer.error.error;
    }
    if (fd >= 0) {
        close(fd);
    }
    return result;
}

static int said(int result, const char *what)
{
    if (result == 0) {
        return 0;
    }
    kb_say(KB_SAY_ERROR, "%s: %s", what, strerror(-result));
    return -1;
}

/* Whether this RTM_NEWRULE message tells of our rule. */
static bool is_our_rule(const struct kb_settings *s, const struct nlmsghdr *header)
{
    const struct fib_rule_hdr *rule = NLMSG_DATA(header);
    unsigned mark = 0, table = rule->table, left = (unsigned)NLMSG_PAYLOAD(header, sizeof(*rule));

    for (const struct rtattr *at = (const struct rtattr *)(rule + 1); RTA_OK(at, left);
         at = RTA_NEXT(at, left)) {
        if (RTA_PAYLOAD(at) < sizeof(unsigned)) {
            continue;
        }
        if (at->rta_type == FRA_FWMARK) {
            memcpy(&mark, RTA_DATA(at), sizeof(mark));
        } else if (at->rta_type == FRA_TABLE) {
            memcpy(&table, RTA_DATA(at), sizeof(table));
        }
    }
    return rule->action == FR_ACT_TO_TBL && mark == s->mark_number && table == s->table_number;
}

/* The kernel would take a rule twice: 1 if ours is there, 0 if not, or a negative errno. */
static int has_rule(const struct kb_settings *s, int family)
{
    static char answer[65536] __attribute__((aligned(8)));
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct request r;
    int result = 0;

    request_init(&r, RTM_GETRULE, 0, sizeof(r.body.rule));
    r.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    r.body.rule.family = (unsigned char)family;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    bool more = fd >= 0 && sendto(fd, &r, r.header.nlmsg_len, 0, (struct sockaddr *)&kernel,
                                  sizeof(kernel)) >= 0;
    if (!more) {
        result = -errno;
    }
    while (more) {
        ssize_t got = recv(fd, answer, sizeof(answer), 0);
        unsigned left = got > 0 ? (unsigned)got : 0;
        more = left > 0;
        for (const struct nlmsghdr *at = (const struct nlmsghdr *)answer; NLMSG_OK(at, left);
             at = NLMSG_NEXT(at, left)) {
            if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR) {
                more = false;
            } else if (at->nlmsg_type == RTM_NEWRULE && is_our_rule(s, at)) {
                result = 1;
            }
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return result;
}

static int send_rule(const struct kb_settings *s, int family, bool make)
{
    struct request r;

    request_init(&r, make ? RTM_NEWRULE : RTM_DELRULE, make ? NLM_F_CREATE | NLM_F_EXCL : 0,
                 sizeof(r.body.rule));
    r.body.rule.family = (unsigned char)family;
    r.body.rule.action = FR_ACT_TO_TBL;
    request_add_u32(&r, FRA_FWMARK, s->mark_number);
    request_add_u32(&r, FRA_TABLE, s->table_number);
    return request_send(&r);
}

static int make_rule(const struct kb_settings *s, int family)
{
    int result = has_rule(s, family);

    return said(result == 0 ? send_rule(s, family, true) : (result < 0 ? result : 0),
                "adding the routing rule for the mark of TPROXY");
}

static int remove_rule(const struct kb_settings *s, int family)
{
    int result = 0;

    for (int i = 0; i < SAME_RULES_MAX && has_rule(s, family) == 1 && result == 0; i++) {
        result = send_rule(s, family, false);
    }
    return said(result, "removing the routing rule of TPROXY");
}

static int change_route(const struct kb_settings *s, int family, bool make)
{
    struct request r;

    request_init(&r, make ? RTM_NEWROUTE : RTM_DELROUTE, make ? NLM_F_CREATE | NLM_F_EXCL : 0,
                 sizeof(r.body.route));
    r.body.route.rtm_family = (unsigned char)family;
    r.body.route.rtm_protocol = RTPROT_BOOT;
    r.body.route.rtm_scope = RT_SCOPE_HOST;
    r.body.route.rtm_type = RTN_LOCAL;
    request_add_u32(&r, RTA_TABLE, s->table_number);
    request_add_u32(&r, RTA_OIF, if_nametoindex("lo"));
    int result = request_send(&r);
    bool fine = make ? result == -EEXIST
                     : result == -ESRCH || result == -ENOENT || result == -ENETDOWN ||
                           result == -EAFNOSUPPORT || result == -EOPNOTSUPP;
    return fine
               ? 0
               : said(result, make ? "adding the route of TPROXY" : "removing the route of TPROXY");
}

static int change_address(bool make)
{
    static const unsigned char leaves_from[16] = {[15] = 6};
    struct request r;

    request_init(&r, make ? RTM_NEWADDR : RTM_DELADDR, make ? NLM_F_CREATE | NLM_F_EXCL : 0,
                 sizeof(r.body.address));
    r.body.address.ifa_family = AF_INET6;
    r.body.address.ifa_prefixlen = 128;
    r.body.address.ifa_scope = RT_SCOPE_HOST;
    r.body.address.ifa_index = if_nametoindex("lo");
    request_add(&r, IFA_LOCAL, leaves_from, sizeof(leaves_from));
    request_add(&r, IFA_ADDRESS, leaves_from, sizeof(leaves_from));
    int result = request_send(&r);
    bool fine = make ? result == -EEXIST
                     : result == -EADDRNOTAVAIL || result == -EAFNOSUPPORT || result == -EOPNOTSUPP;
    return fine ? 0
                : said(result,
                       make ? "adding ::6 to the loopback" : "removing ::6 from the loopback");
}

static bool needs_routes(const struct kb_settings *s)
{
    return strcmp(s->mode, "TPROXY") == 0 && *s->inbound_ports;
}

int kb_routes_make(const struct kb_settings *s)
{
    int bad = s->ipv6 ? change_address(true) : 0;

    if (needs_routes(s)) {
        bad |= make_rule(s, AF_INET) | change_route(s, AF_INET, true);
        if (s->ipv6) {
            bad |= make_rule(s, AF_INET6) | change_route(s, AF_INET6, true);
        }
    }
    return bad;
}

int kb_routes_remove(const struct kb_settings *s)
{
    return remove_rule(s, AF_INET) | change_route(s, AF_INET, false) | remove_rule(s, AF_INET6) |
           change_route(s, AF_INET6, false) | change_address(false);
}

void kb_routes_print(const struct kb_settings *s)
{
    const char *verb = s->cleanup_only ? "del" : "add";

    if (s->ipv6) {
        printf("# ip -6 address %s ::6/128 dev lo\n", verb);
    }
    if (!needs_routes(s)) {
        return;
    }
    for (int six = 0; six <= (s->ipv6 ? 1 : 0); six++) {
        printf("# ip%s rule %s fwmark %s lookup %s\n", six ? " -6" : "", verb, s->mark,
               s->route_table);
        printf("# ip%s route %s local default dev lo table %s\n", six ? " -6" : "", verb,
               s->route_table);
    }
}
