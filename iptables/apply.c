/* SPDX-License-Identifier: Apache-2.0 */
/* Compares what is there with what is wanted, and changes each table in one step: a table of
 * iptables is replaced at its COMMIT, so no connection ever meets half of it. */
#include "iptables/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iptables/plan.h"
#include "iptables/routes.h"
#include "iptables/state.h"
#include "iptables/tools.h"

#define CLEANUP_ROUNDS 16 /* the same rule may be there more than once */

/* One family and what is known of it. */
struct family {
    const char *name;
    bool used; /* its tools are there and it has rules to make or to remove */
    struct kb_tools tools;
    struct kb_rules wanted;
    struct kb_state found;
    struct kb_text difference; /* the first one, as words; empty if all is as wanted */
};

static size_t count_rules(const struct kb_rules *rules, const char *table, const char *chain)
{
    size_t count = 0;

    for (size_t i = 0; i < rules->count; i++) {
        count += strcmp(rules->at[i].table, table) == 0 && strcmp(rules->at[i].chain, chain) == 0;
    }
    return count;
}

/* The first difference; the order of the rules of a chain is not looked at, as Istio does. */
static void family_compare(struct family *f)
{
    for (size_t i = 0; i < f->wanted.count; i++) {
        const struct kb_rule *rule = &f->wanted.at[i];
        if (kb_chain_is_builtin(rule->chain)) {
            continue;
        }
        const struct kb_chain *chain = kb_state_chain(&f->found, rule->table, rule->chain);
        size_t wanted = count_rules(&f->wanted, rule->table, rule->chain);
        if (!chain) {
            kb_text_add(&f->difference, "table %s has no chain %s", rule->table, rule->chain);
            return;
        }
        if (chain->rules != wanted) {
            kb_text_add(&f->difference, "chain %s of table %s has %zu rules, not %zu", rule->chain,
                        rule->table, chain->rules, wanted);
            return;
        }
    }
    for (size_t i = 0; i < f->found.chain_count; i++) {
        const struct kb_chain *chain = &f->found.chains[i];
        if (count_rules(&f->wanted, chain->table, chain->name) == 0) {
            kb_text_add(&f->difference, "table %s has a chain %s, which is not wanted",
                        chain->table, chain->name);
            return;
        }
    }
    for (size_t i = 0; i < f->wanted.count; i++) {
        const struct kb_rule *rule = &f->wanted.at[i];
        if (!kb_tools_run_rule(&f->tools, "-C", rule)) {
            kb_text_add(&f->difference, "chain %s of table %s has not the rule \"%s\"", rule->chain,
                        rule->table, rule->match);
            return;
        }
    }
}

static int family_look(struct family *f)
{
    struct kb_text saved = {0};

    kb_state_dispose(&f->found);
    int result = kb_tools_save(&f->tools, &saved);
    if (result == 0) {
        kb_state_read(&f->found, kb_text_str(&saved));
    }
    kb_text_dispose(&saved);
    return result;
}

/* The lines that take away what is ours in a table. Rules of the kernel's chains that jump nowhere
 * of ours
 * (-c, TPROXY) are known only from the plan. */
static void family_undo_lines(const struct family *f, const char *table, struct kb_text *out)
{
    for (size_t i = 0; i < f->found.jumps.count; i++) {
        const struct kb_rule *rule = &f->found.jumps.at[i];
        if (strcmp(rule->table, table) == 0) {
            kb_text_add(out, "-D %s %s\n", rule->chain, rule->match);
        }
    }
    for (size_t i = 0; i < f->wanted.count; i++) {
        const struct kb_rule *rule = &f->wanted.at[i];
        if (strcmp(rule->table, table) == 0 && kb_chain_is_builtin(rule->chain) &&
            !kb_match_jumps_to(rule->match).len && kb_tools_run_rule(&f->tools, "-C", rule)) {
            kb_text_add(out, "-D %s %s\n", rule->chain, rule->match);
        }
    }
    static const char *const operations[] = {"-F", "-X"};
    for (size_t n = 0; n < 2; n++) {
        for (size_t i = 0; i < f->found.chain_count; i++) {
            const struct kb_chain *chain = &f->found.chains[i];
            if (strcmp(chain->table, table) == 0) {
                kb_text_add(out, "%s %s\n", operations[n], chain->name);
            }
        }
    }
}

/* What is there goes, and with `make` what is wanted comes, in one step a table. */
static void family_replace_text(const struct family *f, bool make, struct kb_text *out)
{
    for (const char *const *table = kb_tables; *table; table++) {
        struct kb_text lines = {0};
        family_undo_lines(f, *table, &lines);
        if (make) {
            kb_rules_add_chains(&f->wanted, *table, &lines);
            kb_rules_add_lines(&f->wanted, *table, &lines);
        }
        if (lines.len) {
            kb_text_add(out, "*%s\n%sCOMMIT\n", *table, lines.at);
        }
        kb_text_dispose(&lines);
    }
}

static int family_make(struct family *f)
{
    struct kb_text text = {0};

    family_replace_text(f, true, &text);
    int result = kb_tools_restore(&f->tools, kb_text_str(&text));
    kb_text_dispose(&text);
    return result;
}

/* Nothing of ours is left behind: 0, or -1 with the reason said. */
static int family_remove(struct family *f)
{
    for (int round = 0; round < CLEANUP_ROUNDS; round++) {
        struct kb_text text = {0};
        if (family_look(f) != 0) {
            return -1;
        }
        family_replace_text(f, false, &text);
        bool done = text.len == 0;
        int result = done ? 0 : kb_tools_restore(&f->tools, text.at);
        kb_text_dispose(&text);
        if (result != 0) {
            return -1;
        }
        if (done) {
            kb_say(KB_SAY_INFO, "%s: %s", f->name,
                   round ? "the rules are gone" : "no rules to remove");
            return 0;
        }
    }
    kb_say(KB_SAY_ERROR,
           "%s: the rules come back as they are removed: does something else make them?", f->name);
    return -1;
}

static void family_dispose(struct family *f)
{
    kb_rules_dispose(&f->wanted);
    kb_state_dispose(&f->found);
    kb_text_dispose(&f->difference);
}

static bool may_administer_network(void)
{
    char line[256];
    unsigned long long effective = 0;
    FILE *file = fopen("/proc/self/status", "re");

    if (!file) {
        return true; /* iptables will say it */
    }
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, "CapEff:", 7) == 0) {
            effective = strtoull(line + 7, NULL, 16);
        }
    }
    fclose(file);
    return effective & (1ull << 12); /* CAP_NET_ADMIN */
}

static enum kb_exit find_tools(struct family families[2], const struct kb_settings *s)
{
    if (!may_administer_network()) {
        kb_say(KB_SAY_ERROR, "rules need CAP_NET_ADMIN, which this process does not have: run it "
                             "as root, or give an init "
                             "container the capabilities NET_ADMIN and NET_RAW");
        return KB_EXIT_NO_RIGHTS;
    }
    for (int i = 0; i < 2; i++) {
        struct family *f = &families[i];
        bool needed = i == 0 || s->ipv6;
        if (!needed && !s->cleanup_only) {
            continue;
        }
        enum kb_exit found = kb_tools_find(&f->tools, i == 1, s->iptables_binary,
                                           needed ? KB_SAY_ERROR : KB_SAY_DEBUG);
        if (found != KB_EXIT_OK && needed) {
            return found;
        }
        f->used = found == KB_EXIT_OK;
    }
    return KB_EXIT_OK;
}

static enum kb_exit remove_all(struct family families[2], const struct kb_settings *s)
{
    int bad = 0;

    for (int i = 0; i < 2; i++) {
        bad |= families[i].used ? family_remove(&families[i]) : 0;
    }
    bad |= kb_routes_remove(s);
    return bad ? KB_EXIT_FAILED : KB_EXIT_OK;
}

/* Rules of an earlier run are there and others are wanted. */
static enum kb_exit decide_on_others(const struct family families[2], const struct kb_settings *s)
{
    for (int i = 0; i < 2; i++) {
        const struct family *f = &families[i];
        if (f->used && f->difference.len && !kb_state_is_empty(&f->found)) {
            kb_say(s->reconcile ? KB_SAY_INFO : KB_SAY_ERROR,
                   "%s: rules of an earlier run are not the wanted ones: %s", f->name,
                   f->difference.at);
        }
    }
    if (s->reconcile) {
        kb_say(KB_SAY_INFO, "they are replaced");
        return KB_EXIT_OK;
    }
    kb_say(KB_SAY_ERROR,
           "nothing was changed: --reconcile replaces them, --cleanup-only removes them");
    return KB_EXIT_FAILED;
}

/* What must be done, as far as it has to be known before anything is changed. */
static enum kb_exit look_and_decide(struct family families[2], const struct kb_settings *s,
                                    bool *needed)
{
    bool residue = false, difference = false;

    for (int i = 0; i < 2; i++) {
        struct family *f = &families[i];
        if (!f->used) {
            continue;
        }
        if (family_look(f) != 0) {
            return KB_EXIT_FAILED;
        }
        family_compare(f);
        residue |= !kb_state_is_empty(&f->found);
        difference |= f->difference.len > 0;
    }
    *needed = difference || s->force_apply;
    if (residue && difference && !s->force_apply) {
        return decide_on_others(families, s);
    }
    if (residue && s->force_apply) {
        kb_say(KB_SAY_WARN, "rules of an earlier run are here; iptables-restore gets the wanted "
                            "ones all the same (--force-apply)");
    } else {
        kb_say(KB_SAY_INFO, "%s",
               residue ? "the wanted rules are here already: nothing to do"
                       : "no rules of an earlier run are here");
    }
    return KB_EXIT_OK;
}

/* Both families, or none of them where there was none before. */
static enum kb_exit make_all(struct family families[2], const struct kb_settings *s)
{
    bool clean = kb_state_is_empty(&families[0].found) && kb_state_is_empty(&families[1].found);

    for (int i = 0; i < 2; i++) {
        struct family *f = &families[i];
        if (!f->used) {
            continue;
        }
        if (s->force_apply) {
            kb_state_dispose(&f->found);
        }
        if (family_make(f) == 0) {
            continue;
        }
        if (clean) {
            kb_say(KB_SAY_WARN, "what was made of it is taken back");
            for (int n = 0; n <= i; n++) {
                family_remove(&families[n]);
            }
        } else {
            kb_say(
                KB_SAY_WARN,
                "tables before that are changed, the others are as they were: see iptables-save");
        }
        return KB_EXIT_FAILED;
    }
    kb_say(KB_SAY_INFO, "the rules are made");
    return KB_EXIT_OK;
}

static void families_init(struct family families[2], const struct kb_settings *s)
{
    families[0] = (struct family){.name = "IPv4"};
    families[1] = (struct family){.name = "IPv6"};
    kb_plan_build(s, false, &families[0].wanted);
    if (s->ipv6 || s->cleanup_only) {
        kb_plan_build(s, true, &families[1].wanted);
    }
}

enum kb_exit kb_apply(const struct kb_settings *s)
{
    struct family families[2];
    bool needed = false;

    families_init(families, s);
    enum kb_exit result = find_tools(families, s);
    if (result == KB_EXIT_OK && s->cleanup_only) {
        result = remove_all(families, s);
    } else if (result == KB_EXIT_OK) {
        result = look_and_decide(families, s, &needed);
        if (result == KB_EXIT_OK && needed) {
            result = make_all(families, s);
        }
        if (result == KB_EXIT_OK && kb_routes_make(s) != 0) {
            result = KB_EXIT_FAILED;
        }
    }
    family_dispose(&families[0]);
    family_dispose(&families[1]);
    return result;
}

/* The last rule first, so that nothing jumps to a chain that goes. */
static void print_removal(const struct kb_rules *rules)
{
    for (const char *const *table = kb_tables; *table; table++) {
        struct kb_text chains = {0};
        if (!kb_rules_has_table(rules, *table)) {
            continue;
        }
        printf("*%s\n", *table);
        for (size_t i = rules->count; i-- > 0;) {
            const struct kb_rule *rule = &rules->at[i];
            if (strcmp(rule->table, *table) == 0 && kb_chain_is_builtin(rule->chain)) {
                printf("-D %s %s\n", rule->chain, rule->match);
            }
        }
        kb_rules_add_chains(rules, *table, &chains);
        for (const char *operation = "-F"; operation;
             operation = operation[1] == 'F' ? "-X" : NULL) {
            for (const char *line = kb_text_str(&chains); *line; line += strcspn(line, "\n") + 1) {
                printf("%s%.*s\n", operation, (int)strcspn(line, "\n") - 2, line + 2);
            }
        }
        puts("COMMIT");
        kb_text_dispose(&chains);
    }
}

void kb_apply_print(const struct kb_settings *s)
{
    struct family families[2];

    families_init(families, s);
    for (int i = 0; i < 2; i++) {
        struct family *f = &families[i];
        struct kb_text text = {0};
        if (i == 1 && !s->ipv6) {
            break;
        }
        printf("# %s --noflush\n", i ? "ip6tables-restore" : "iptables-restore");
        if (s->cleanup_only) {
            print_removal(&f->wanted);
        } else {
            kb_rules_restore_text(&f->wanted, &text);
            fputs(kb_text_str(&text), stdout);
        }
        kb_text_dispose(&text);
    }
    kb_routes_print(s);
    family_dispose(&families[0]);
    family_dispose(&families[1]);
}
