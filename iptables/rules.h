/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of one family, in order, and the text by which iptables-restore makes them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "iptables/text.h"

/* One rule. `match` is all that stands behind the chain: "-p tcp --dport 15008 -j RETURN". */
struct kb_rule {
    const char *table; /* literal */
    const char *chain; /* literal */
    unsigned position; /* where it is inserted, from 1; 0: behind the others */
    char *match;
};

/* Zero-initialised it is empty. */
struct kb_rules {
    struct kb_rule *at;
    size_t count;
    size_t cap;
};

/* A rule behind those that are there; the names are literals, the format gives its `match`. */
void kb_rules_append(struct kb_rules *rules, const char *table, const char *chain,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same, put before the rule that has `position` (from 1) in the chain. */
void kb_rules_insert(struct kb_rules *rules, const char *table, const char *chain,
                     unsigned position, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* The texts of all rules; it is empty then. */
void kb_rules_dispose(struct kb_rules *rules);

/* Whether the kernel has that chain by itself. */
bool kb_chain_is_builtin(const char *chain);

/* "ISTIO_...": a chain that is ours alone. `len` bytes of `chain`. */
bool kb_chain_is_ours(const char *chain, size_t len);

/* The chain to which `match` jumps; length 0 if that is a target and no chain. */
struct kb_piece kb_match_jumps_to(const char *match);

/* One line a chain of `table` that the rules need: "-N ISTIO_INBOUND", each once, in order of use.
 */
void kb_rules_add_chains(const struct kb_rules *rules, const char *table, struct kb_text *out);

/* One line a rule of `table`: "-A ISTIO_INBOUND ...". */
void kb_rules_add_lines(const struct kb_rules *rules, const char *table, struct kb_text *out);

/* The tables in the order in which they are restored; NULL behind the last. */
extern const char *const kb_tables[];

/* Whether any rule is of that table. */
bool kb_rules_has_table(const struct kb_rules *rules, const char *table);

/* All of it, for iptables-restore --noflush on tables without our chains. */
void kb_rules_restore_text(const struct kb_rules *rules, struct kb_text *out);
