/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of istio-iptables: one table for reading, for the environment and for --help. */
#include "iptables/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iptables/text.h"

enum flag_kind { FLAG_TEXT, FLAG_BOOL };

struct flag {
    const char *name;
    char letter;
    enum flag_kind kind;
    size_t offset;
    const char *value; /* default of a text */
    const char *env;   /* one or two names with a comma, later ones win */
    const char *help;  /* NULL: taken, without effect, and said so */
};

#define TEXT(field) FLAG_TEXT, offsetof(struct kb_settings, field)
#define BOOL(field) FLAG_BOOL, offsetof(struct kb_settings, field)

static const struct flag flags[] = {
    {"envoy-port", 'p', TEXT(proxy_port), "15001", NULL, "port to which outbound connections go"},
    {"inbound-capture-port", 'z', TEXT(inbound_port), "15006", "INBOUND_CAPTURE_PORT",
     "port to which inbound connections go"},
    {"inbound-tunnel-port", 'e', TEXT(tunnel_port), "15008", "INBOUND_TUNNEL_PORT",
     "port of the tunnel (HBONE), never redirected"},
    {"proxy-uid", 'u', TEXT(proxy_uid), "", "PROXY_UID",
     "users whose connections are let through: the proxy's (1337, or that of ENVOY_USER)"},
    {"proxy-gid", 'g', TEXT(proxy_gid), "", "PROXY_GID", "groups likewise (as -u)"},
    {"istio-inbound-interception-mode", 'm', TEXT(mode), "", "ISTIO_INBOUND_INTERCEPTION_MODE",
     "how inbound connections get to the proxy: REDIRECT or TPROXY"},
    {"istio-inbound-ports", 'b', TEXT(inbound_ports), "", "ISTIO_INBOUND_PORTS",
     "inbound ports to redirect: * for all, a list, or none"},
    {"istio-local-exclude-ports", 'd', TEXT(inbound_excluded), "", "ISTIO_LOCAL_EXCLUDE_PORTS",
     "inbound ports to leave alone, with -b '*'"},
    {"istio-exclude-interfaces", 'c', TEXT(excluded_nics), "", "ISTIO_EXCLUDE_INTERFACES",
     "interfaces of which nothing is captured"},
    {"istio-service-cidr", 'i', TEXT(ranges), "", "ISTIO_SERVICE_CIDR",
     "destinations to redirect: * for all, a list as 10.0.0.0/8, or none"},
    {"istio-service-exclude-cidr", 'x', TEXT(ranges_excluded), "", "ISTIO_SERVICE_EXCLUDE_CIDR",
     "destinations to leave alone"},
    {"istio-outbound-ports", 'q', TEXT(outbound_ports), "", "ISTIO_OUTBOUND_PORTS",
     "outbound ports to redirect whatever -i says"},
    {"istio-local-outbound-ports-exclude", 'o', TEXT(outbound_excluded), "",
     "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", "outbound ports to leave alone"},
    {"kube-virt-interfaces", 'k', TEXT(virtual_nics), "", "KUBE_VIRT_INTERFACES",
     "interfaces whose inbound traffic, of a virtual machine, counts as outbound"},
    {"istio-inbound-tproxy-mark", 't', TEXT(mark), "1337", "ISTIO_INBOUND_TPROXY_MARK",
     "mark of the packets that TPROXY takes"},
    {"istio-inbound-tproxy-route-table", 'r', TEXT(route_table), "133",
     "ISTIO_INBOUND_TPROXY_ROUTE_TABLE", "routing table of the packets with that mark"},
    {"redirect-dns", 0, BOOL(redirect_dns), NULL, "REDIRECT_DNS,ISTIO_META_DNS_CAPTURE",
     "name look-ups go to port 15053, where Istio's agent answers them"},
    {"capture-all-dns", 0, BOOL(capture_all_dns), NULL, "CAPTURE_ALL_DNS",
     "with --redirect-dns: all of them, not only those to the servers of /etc/resolv.conf"},
    {"drop-invalid", 0, BOOL(drop_invalid), NULL, "DROP_INVALID,INVALID_DROP",
     "drop packets that belong to no connection, instead of resetting it"},
    {"dual-stack", 0, BOOL(dual_stack), NULL, "DUAL_STACK,ISTIO_DUAL_STACK",
     "rules for IPv6 also where the first address is of IPv4"},
    {"dry-run", 'n', BOOL(dry_run), NULL, "DRY_RUN", "print the rules, change nothing"},
    {"skip-rule-apply", 0, BOOL(skip_rule_apply), NULL, "SKIP_RULE_APPLY",
     "leave the rules as they are (for --run-validation alone)"},
    {"run-validation", 0, BOOL(run_validation), NULL, "RUN_VALIDATION",
     "connect and see whether the rules redirect; exit 126 if not"},
    {"iptables-probe-port", 0, TEXT(probe_port), "15002", "IPTABLES_PROBE_PORT",
     "the port to which the validation connects"},
    {"probe-timeout", 0, TEXT(probe_timeout), "5s", "PROBE_TIMEOUT",
     "how long the validation tries, as 5s or 500ms"},
    {"reconcile", 0, BOOL(reconcile), NULL, "RECONCILE",
     "replace rules of an earlier run that are not the wanted ones"},
    {"cleanup-only", 0, BOOL(cleanup_only), NULL, "CLEANUP_ONLY", "take the rules away, add none"},
    {"cleanup", 0, BOOL(cleanup_only), NULL, NULL, "the same as --cleanup-only"},
    {"force-apply", 0, BOOL(force_apply), NULL, "FORCE_APPLY",
     "hand the rules to iptables-restore whatever is there"},
    {"network-namespace", 0, TEXT(network_namespace), "", "NETWORK_NAMESPACE",
     "path of the network namespace to work in"},
    {"cni-mode", 0, BOOL(cni_mode), NULL, "CNI_MODE",
     "run from a node: the namespace's own file is the lock of iptables-legacy"},
    {"force-iptables-binary", 0, TEXT(iptables_binary), "", "FORCE_IPTABLES_BINARY",
     "legacy or nft, instead of the one that fits"},
    {"native-nftables", 0, BOOL(native_nftables), NULL, "NATIVE_NFTABLES",
     "refused: rules are made with iptables (which may be iptables-nft)"},
    {"log_output_level", 0, TEXT(log_level), "info", NULL,
     "debug, info, warn, error or none, also as default:info"},
    {"log_as_json", 0, BOOL(log_as_json), NULL, NULL, "messages as JSON, one a line"},
    {"log_caller", 0, TEXT(ignored_text), NULL, NULL, NULL},
    {"log_stacktrace_level", 0, TEXT(ignored_text), NULL, NULL, NULL},
    {"log_target", 0, TEXT(ignored_text), NULL, NULL, NULL},
    {"log_rotate", 0, TEXT(ignored_text), NULL, NULL, NULL},
    {"vklog", 0, TEXT(ignored_text), NULL, NULL, NULL},
};

#define FLAGS (sizeof(flags) / sizeof(flags[0]))

/* Where each value came from; NULL is the default. */
static const char *sources[FLAGS];

static const char **text_of(struct kb_settings *settings, const struct flag *flag)
{
    return (const char **)((char *)settings + flag->offset);
}

static bool *bool_of(struct kb_settings *settings, const struct flag *flag)
{
    return (bool *)((char *)settings + flag->offset);
}

const char *kb_flags_source(const struct kb_settings *settings, const void *field)
{
    const struct flag *found = NULL;

    for (size_t i = 0; i < FLAGS; i++) {
        if ((const char *)settings + flags[i].offset == field) {
            if (sources[i]) {
                return sources[i];
            }
            found = found ? found : &flags[i];
        }
    }
    return found ? found->name : "";
}

/* The words that Go's flag libraries take. */
static int bool_parse(const char *text, bool *out)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return -1;
}

/* Istio's reading: what is no boolean has no effect. Here that is said. */
static void read_variable(struct kb_settings *settings, size_t i, const char *name)
{
    const char *value = getenv(name);
    bool given;

    if (!value) {
        return;
    }
    if (flags[i].kind == FLAG_TEXT) {
        *text_of(settings, &flags[i]) = value;
    } else if (bool_parse(value, &given) == 0) {
        *bool_of(settings, &flags[i]) = given;
    } else {
        if (*value) {
            kb_say(KB_SAY_WARN,
                   "%s of the environment is \"%s\": neither true nor false, so it has no effect",
                   name, value);
        }
        return;
    }
    sources[i] = name;
}

static void read_environment(struct kb_settings *settings)
{
    for (size_t i = 0; i < FLAGS; i++) {
        const char *names = flags[i].env;
        if (!names) {
            continue;
        }
        const char *comma = strchr(names, ',');
        if (!comma) {
            read_variable(settings, i, names);
            continue;
        }
        static char first[FLAGS][32];
        snprintf(first[i], sizeof(first[i]), "%.*s", (int)(comma - names), names);
        read_variable(settings, i, first[i]);
        read_variable(settings, i, comma + 1);
    }
    const char *value = getenv("ISTIO_OUTBOUND_OWNER_GROUPS");
    settings->owner_groups = value ? value : "*";
    value = getenv("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE");
    settings->owner_groups_excluded = value ? value : "";
    value = getenv("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR");
    settings->loopback = value ? value : "127.0.0.1/32";
}

static int set_flag(struct kb_settings *settings, size_t i, const char *value, const char *as_given)
{
    if (!flags[i].help) {
        kb_say(KB_SAY_WARN, "%s is a flag of Istio's logger and has no effect here", as_given);
        return 0;
    }
    if (flags[i].kind == FLAG_TEXT) {
        *text_of(settings, &flags[i]) = value;
    } else if (bool_parse(value ? value : "true", bool_of(settings, &flags[i])) != 0) {
        kb_say(KB_SAY_ERROR, "%s is \"%s\": it takes true or false", as_given, value);
        return -1;
    }
    sources[i] = as_given;
    return 0;
}

/* argv[*at] is "--name" or "--name=value". */
static int read_long(struct kb_settings *settings, int argc, char **argv, int *at)
{
    static char given[FLAGS][48];
    const char *arg = argv[*at] + 2;
    size_t len = strcspn(arg, "=");
    const char *value = arg[len] ? arg + len + 1 : NULL;

    for (size_t i = 0; i < FLAGS; i++) {
        if (strlen(flags[i].name) != len || memcmp(flags[i].name, arg, len) != 0) {
            continue;
        }
        snprintf(given[i], sizeof(given[i]), "--%s", flags[i].name);
        if (!value && flags[i].kind == FLAG_TEXT) {
            if (*at + 1 >= argc) {
                kb_say(KB_SAY_ERROR, "%s needs a value", given[i]);
                return -1;
            }
            value = argv[++*at];
        }
        return set_flag(settings, i, value, given[i]);
    }
    kb_say(KB_SAY_ERROR, "no flag is named --%.*s: see --help", (int)len, arg);
    return -1;
}

/* argv[*at] is "-n", "-p", "-p15001", "-p=15001", or letters of booleans in a row. */
static int read_letters(struct kb_settings *settings, int argc, char **argv, int *at)
{
    static char given[FLAGS][4];

    for (const char *letter = argv[*at] + 1; *letter; letter++) {
        size_t i = 0;
        while (i < FLAGS && flags[i].letter != *letter) {
            i++;
        }
        if (i == FLAGS) {
            kb_say(KB_SAY_ERROR, "no flag is named -%c (in \"%s\"): see --help", *letter,
                   argv[*at]);
            return -1;
        }
        snprintf(given[i], sizeof(given[i]), "-%c", *letter);
        const char *value = letter[1] == '=' ? letter + 2 : NULL;
        if (flags[i].kind == FLAG_TEXT && !value) {
            if (letter[1]) {
                value = letter + 1;
            } else if (*at + 1 < argc) {
                value = argv[++*at];
            } else {
                kb_say(KB_SAY_ERROR, "%s needs a value", given[i]);
                return -1;
            }
        }
        if (set_flag(settings, i, value, given[i]) != 0) {
            return -1;
        }
        if (value) {
            return 0;
        }
    }
    return 0;
}

/* "info", "default:info" or "all:info"; other scopes are those of other programs of Istio's. */
static int setup_log(const struct kb_settings *settings)
{
    static const char *const words[] = {"debug", "info", "warn", "error", "none"};
    enum kb_say_level level = KB_SAY_INFO;
    const char *cursor = settings->log_level;
    struct kb_piece piece;
    int result = 0;

    while (kb_list_next(&cursor, &piece)) {
        const char *colon = memchr(piece.at, ':', (size_t)piece.len);
        struct kb_piece scope = {piece.at, colon ? (int)(colon - piece.at) : 0};
        int skip = colon ? scope.len + 1 : 0;
        struct kb_piece word = {piece.at + skip, piece.len - skip};
        if (colon && !kb_piece_is(scope, "default") && !kb_piece_is(scope, "all")) {
            continue;
        }
        size_t i = 0;
        while (i < 5 && !kb_piece_is(word, words[i]) && !(i == 4 && kb_piece_is(word, "fatal"))) {
            i++;
        }
        if (i == 5) {
            kb_say(KB_SAY_ERROR,
                   "--log_output_level: \"%.*s\" is none of debug, info, warn, error, fatal, none",
                   word.len, word.at);
            result = -1;
            continue;
        }
        level = (enum kb_say_level)i;
    }
    kb_say_setup(level, settings->log_as_json);
    return result;
}

enum kb_flags_result kb_flags_read(struct kb_settings *settings, int argc, char **argv)
{
    int bad = 0;

    *settings = (struct kb_settings){0};
    for (size_t i = 0; i < FLAGS; i++) {
        sources[i] = NULL;
        if (flags[i].kind == FLAG_TEXT) {
            *text_of(settings, &flags[i]) = flags[i].value;
        }
    }
    read_environment(settings);
    for (int at = 1; at < argc; at++) {
        const char *arg = argv[at];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            return KB_FLAGS_HELP;
        }
        if (strncmp(arg, "--", 2) == 0 && arg[2]) {
            bad |= read_long(settings, argc, argv, &at);
        } else if (arg[0] == '-' && arg[1] && arg[1] != '-') {
            bad |= read_letters(settings, argc, argv, &at);
        } else if (at != 1 || strcmp(arg, "istio-iptables") != 0) {
            /* the first word may be the name under which an injected init container calls it */
            kb_say(KB_SAY_ERROR, "\"%s\" belongs to no flag: see --help", arg);
            bad = -1;
        }
    }
    bad |= setup_log(settings);
    return bad ? KB_FLAGS_BAD : KB_FLAGS_OK;
}

void kb_flags_help(void)
{
    puts("usage: kobune-iptables [FLAG...]\n"
         "\n"
         "Makes the iptables rules by which the connections of a pod go through its sidecar: the "
         "chains and\n"
         "rules of istio-iptables, by the same flags. It needs CAP_NET_ADMIN (and CAP_NET_RAW for\n"
         "iptables-legacy). A second run finds the rules and leaves them alone.\n");
    for (size_t i = 0; i < FLAGS; i++) {
        const struct flag *flag = &flags[i];
        if (!flag->help) {
            continue;
        }
        char letter[8] = "    ", usual[32] = "";
        if (flag->letter) {
            snprintf(letter, sizeof(letter), "-%c, ", flag->letter);
        }
        if (flag->kind == FLAG_TEXT && flag->value && *flag->value) {
            snprintf(usual, sizeof(usual), " (%s)", flag->value);
        }
        printf("  %s--%s%s\n        %s%s%s%s\n", letter, flag->name,
               flag->kind == FLAG_TEXT ? " VALUE" : "", flag->help, usual,
               flag->env ? "; environment: " : "", flag->env ? flag->env : "");
    }
    puts("\n"
         "Lists have commas. Further variables: ISTIO_OUTBOUND_OWNER_GROUPS (*) and\n"
         "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE, groups whose outbound connections are captured or "
         "not;\n"
         "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR (127.0.0.1/32), outbound on the loopback that is not.\n"
         "\n"
         "Exit codes: 0 done; 1 not applied; 2 a bad flag or value; 3 no usable iptables; 4 not "
         "the rights;\n"
         "126 the validation found that nothing is redirected.");
}
