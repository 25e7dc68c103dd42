/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of one family, in order, and the text by which iptables-restore makes them. */
#include "iptables/rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iptables/say.h"

const char *const kb_tables[] = {"filter", "mangle", "nat", "raw", NULL};

static void rules_add(struct kb_rules *rules, struct kb_rule rule, const char *format, va_list args)
{
    if (rules->count == rules->cap) {
        size_t cap = rules->cap ? rules->cap * 2 : 32;
        struct kb_rule *at = reallocarray(rules->at, cap, sizeof(*at));
        if (!at) {
            kb_say_no_memory();
        }
        rules->at = at;
        rules->cap = cap;
    }
    if (vasprintf(&rule.match, format, args) < 0) {
        kb_say_no_memory();
    }
    rules->at[rules->count++] = rule;
}

void kb_rules_append(struct kb_rules *rules, const char *table, const char *chain,
                     const char *format, ...)
{
    va_list args;

    va_start(args, format);
    rules_add(rules, (struct kb_rule){.table = table, .chain = chain}, format, args);
    va_end(args);
}

void kb_rules_insert(struct kb_rules *rules, const char *table, const char *chain,
                     unsigned position, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    rules_add(rules, (struct kb_rule){.table = table, .chain = chain, .position = position}, format,
              args);
    va_end(args);
}

void kb_rules_dispose(struct kb_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++) {
        free(rules->at[i].match);
    }
    free(rules->at);
    *rules = (struct kb_rules){0};
}

bool kb_chain_is_builtin(const char *chain)
{
    static const char *const names[] = {"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(chain, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool kb_chain_is_ours(const char *chain, size_t len)
{
    static const char prefix[] = "ISTIO_";

    return len > sizeof(prefix) - 1 && memcmp(chain, prefix, sizeof(prefix) - 1) == 0;
}

struct kb_piece kb_match_jumps_to(const char *match)
{
    const char *jump = strncmp(match, "-j ", 3) == 0 ? match : strstr(match, " -j ");

    if (!jump) {
        return (struct kb_piece){0};
    }
    const char *name = jump + (*jump == ' ' ? 4 : 3);
    size_t len = strcspn(name, " \n");
    return (struct kb_piece){name, kb_chain_is_ours(name, len) ? (int)len : 0};
}

static void add_chain(struct kb_text *out, size_t from, struct kb_piece chain)
{
    char line[64];

    snprintf(line, sizeof(line), "-N %.*s\n", chain.len, chain.at);
    if (!strstr(kb_text_str(out) + from, line)) {
        kb_text_add(out, "%s", line);
    }
}

void kb_rules_add_chains(const struct kb_rules *rules, const char *table, struct kb_text *out)
{
    size_t from = out->len;

    for (size_t i = 0; i < rules->count; i++) {
        const struct kb_rule *rule = &rules->at[i];
        if (strcmp(rule->table, table) == 0 && !kb_chain_is_builtin(rule->chain)) {
            add_chain(out, from, (struct kb_piece){rule->chain, (int)strlen(rule->chain)});
        }
    }
    /* a chain to which something jumps has to be there, even without rules */
    for (size_t i = 0; i < rules->count; i++) {
        const struct kb_rule *rule = &rules->at[i];
        struct kb_piece target = kb_match_jumps_to(rule->match);
        if (strcmp(rule->table, table) == 0 && target.len) {
            add_chain(out, from, target);
        }
    }
}

void kb_rules_add_lines(const struct kb_rules *rules, const char *table, struct kb_text *out)
{
    for (size_t i = 0; i < rules->count; i++) {
        const struct kb_rule *rule = &rules->at[i];
        if (strcmp(rule->table, table) != 0) {
            continue;
        }
        if (rule->position) {
            kb_text_add(out, "-I %s %u %s\n", rule->chain, rule->position, rule->match);
        } else {
            kb_text_add(out, "-A %s %s\n", rule->chain, rule->match);
        }
    }
}

bool kb_rules_has_table(const struct kb_rules *rules, const char *table)
{
    for (size_t i = 0; i < rules->count; i++) {
        if (strcmp(rules->at[i].table, table) == 0) {
            return true;
        }
    }
    return false;
}

void kb_rules_restore_text(const struct kb_rules *rules, struct kb_text *out)
{
    for (const char *const *table = kb_tables; *table; table++) {
        if (!kb_rules_has_table(rules, *table)) {
            continue;
        }
        kb_text_add(out, "*%s\n", *table);
        kb_rules_add_chains(rules, *table, out);
        kb_rules_add_lines(rules, *table, out);
        kb_text_add(out, "COMMIT\n");
    }
}
