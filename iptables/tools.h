/* SPDX-License-Identifier: Apache-2.0 */
/* Which iptables: a machine may have two kinds, and rules of one do not show in the other. */
#pragma once

#include "iptables/command.h"
#include "iptables/rules.h"
#include "iptables/say.h"

/* The programs of one family. */
struct kb_tools {
    char iptables[24]; /* "iptables-nft" */
    char save[32];
    char restore[32];
    bool locks; /* iptables-legacy: it has a lock, for which it can wait */
};

/* Those of IPv4, or with `ipv6` of IPv6, that work here. `forced`: "legacy", "nft" or "". The kind
 * that has rules of an earlier run; else as Istio has it: legacy where that has any rules, else
 * nft, else what is called iptables. KB_EXIT_OK, or KB_EXIT_NO_TOOL with every reason said at
 * `level`. */
enum kb_exit kb_tools_find(struct kb_tools *tools, bool ipv6, const char *forced,
                           enum kb_say_level level);

/* iptables-save into `out`: 0, or -1 with the reason said. */
int kb_tools_save(const struct kb_tools *tools, struct kb_text *out);

/* `text` through iptables-restore --noflush: 0, or -1 with the reason said. */
int kb_tools_restore(const struct kb_tools *tools, const char *text);

/* iptables -t TABLE OPERATION CHAIN MATCH with the rule's; `operation` is "-C" or "-D". Whether it
 * succeeded. */
bool kb_tools_run_rule(const struct kb_tools *tools, const char *operation,
                       const struct kb_rule *rule);
