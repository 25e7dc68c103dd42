/* SPDX-License-Identifier: Apache-2.0 */
/* What is to be intercepted: flags and environment, by the names that istio-iptables has for them,
 * and what the machine says. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "iptables/say.h"

#define KB_DNS_SERVERS_MAX 16 /* of each family; the C library reads 3 */

/* A name server as it stands in resolv.conf. */
struct kb_dns_servers {
    char at[KB_DNS_SERVERS_MAX][46];
    unsigned count;
};

/* Texts belong to argv, to the environment, or are literals. A list is as it was given, with
 * commas. */
struct kb_settings {
    const char *proxy_port;        /* 15001: where outbound connections go */
    const char *inbound_port;      /* 15006: where inbound connections go */
    const char *tunnel_port;       /* 15008: inbound, not captured */
    const char *proxy_uid;         /* whose connections are not captured; a list */
    const char *proxy_gid;         /* the same by group */
    const char *mode;              /* "REDIRECT", "TPROXY", or "" for REDIRECT */
    const char *inbound_ports;     /* "*", a list, or "" for none */
    const char *inbound_excluded;  /* a list; matters with "*" only */
    const char *excluded_nics;     /* a list of interfaces of which nothing is captured */
    const char *ranges;            /* outbound: "*", a list of CIDRs, or "" for none */
    const char *ranges_excluded;   /* a list of CIDRs */
    const char *outbound_ports;    /* a list of ports to capture whatever the ranges say */
    const char *outbound_excluded; /* a list of ports */
    const char *virtual_nics;      /* a list of interfaces whose inbound traffic is outbound */
    const char *mark;              /* 1337: of packets that TPROXY takes */
    const char *route_table;       /* 133: for packets with that mark */
    const char *probe_port;
    const char *probe_timeout;
    const char *network_namespace; /* a path, or "" for that of the process */
    const char *iptables_binary;   /* "legacy", "nft", or "" for the one that fits */
    const char *log_level;
    bool dry_run;
    bool skip_rule_apply;
    bool run_validation;
    bool redirect_dns;
    bool capture_all_dns;
    bool drop_invalid;
    bool dual_stack;
    bool cni_mode;
    bool reconcile;
    bool cleanup_only;
    bool force_apply;
    bool native_nftables;
    bool log_as_json;
    const char *ignored_text; /* flags of the logger of Istio that have no meaning here */

    /* of the environment alone */
    const char *owner_groups;          /* "*" or a list: whose outbound connections are captured */
    const char *owner_groups_excluded; /* a list; matters with "*" only */
    const char *loopback; /* 127.0.0.1/32: outbound on the loopback that is not captured */

    /* from what was given */
    unsigned probe_port_number;
    long probe_timeout_ms;
    unsigned mark_number;
    unsigned table_number;

    /* of the machine */
    char default_uid[16];
    bool ipv6;         /* rules for IPv6 too */
    bool host_is_ipv6; /* the first address is one */
    struct kb_dns_servers dns4;
    struct kb_dns_servers dns6;
};

/* How kb_flags_read() ended. */
enum kb_flags_result { KB_FLAGS_OK, KB_FLAGS_HELP, KB_FLAGS_BAD };

/* Defaults, then the environment, then the flags; each bad one is said. Sets up kb_say() as told.
 */
enum kb_flags_result kb_flags_read(struct kb_settings *settings, int argc, char **argv);

/* Where a value came from, for messages: "-d" or "ISTIO_LOCAL_EXCLUDE_PORTS" or "--dry-run".
 * `field` is the member's address in `settings`. */
const char *kb_flags_source(const struct kb_settings *settings, const void *field);

/* --help, to standard output. */
void kb_flags_help(void);

/* Every value, each bad one said: 0, or -1 if there was one. Fills the numbers. */
int kb_settings_check(struct kb_settings *settings);

/* User, addresses and name servers: KB_EXIT_OK, or another code with the reason said. */
enum kb_exit kb_settings_look(struct kb_settings *settings);

/* The name servers of a file in the form of resolv.conf: 0, or -1 with the reason said. */
int kb_settings_read_dns(struct kb_settings *settings, const char *path);

/* All of it, one message at level info. */
void kb_settings_say(const struct kb_settings *settings);
