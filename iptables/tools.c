/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the iptables that fits, and calling it. */
#include "iptables/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_WAIT "--wait=30"

/* A rule that no packet ever matches (protocol 255 is reserved): can this program make rules here?
 */
static bool makes_rules(const struct kb_tools *tools, struct kb_text *why)
{
    const char *argv[] = {tools->iptables,
                          "-t",
                          "nat",
                          "-A",
                          "INPUT",
                          "-p",
                          "255",
                          "-j",
                          "RETURN",
                          tools->locks ? LOCK_WAIT : NULL,
                          NULL};
    struct kb_command_output output;

    int code = kb_command_run(argv, NULL, &output);
    bool works = code == 0 && !strstr(kb_text_str(&output.err), "does not exist");
    if (!works) {
        kb_text_add(why, "\n  %s cannot make a rule (is its kernel module there?): %s",
                    tools->iptables, kb_text_str(&output.err));
    }
    kb_command_output_dispose(&output);
    if (works) {
        argv[3] = "-D";
        kb_command_run(argv, NULL, &output);
        kb_command_output_dispose(&output);
    }
    return works;
}

/* What one kind of iptables is like here. */
struct kind {
    struct kb_tools tools;
    bool installed;
    bool has_rules;
    bool has_ours;
};

static void kind_look(struct kind *kind, const char *name, struct kb_text *why)
{
    char path[4096];
    struct kb_command_output output;
    struct kb_tools *tools = &kind->tools;

    *kind = (struct kind){0};
    snprintf(tools->iptables, sizeof(tools->iptables), "%s", name);
    snprintf(tools->save, sizeof(tools->save), "%s-save", name);
    snprintf(tools->restore, sizeof(tools->restore), "%s-restore", name);
    if (!kb_command_find(name, path, sizeof(path)) ||
        !kb_command_find(tools->save, path, sizeof(path)) ||
        !kb_command_find(tools->restore, path, sizeof(path))) {
        kb_text_add(why, "\n  %s, %s or %s is not installed", name, tools->save, tools->restore);
        return;
    }
    int code = kb_command_run((const char *const[]){tools->save, NULL}, NULL, &output);
    if (code != 0) {
        kb_text_add(why, "\n  %s ended with %d: %s", tools->save, code, kb_text_str(&output.err));
    }
    kind->installed = code == 0;
    kind->has_rules = strstr(kb_text_str(&output.out), "\n-A ") != NULL;
    kind->has_ours = strstr(kb_text_str(&output.out), "\n:ISTIO_") != NULL;
    kb_command_output_dispose(&output);
    if (kind->installed) {
        kb_command_run((const char *const[]){name, "--version", NULL}, NULL, &output);
        tools->locks = !strstr(kb_text_str(&output.out), "nf_tables");
        kb_command_output_dispose(&output);
    }
}

enum kb_exit kb_tools_find(struct kb_tools *tools, bool ipv6, const char *forced,
                           enum kb_say_level level)
{
    enum { LEGACY, NFT, PLAIN, KINDS };
    static const char *const suffixes[KINDS] = {"-legacy", "-nft", ""};
    struct kind kinds[KINDS];
    struct kb_text why = {0};

    for (int i = 0; i < KINDS; i++) {
        char name[sizeof(tools->iptables)];
        kinds[i] = (struct kind){0};
        if (!*forced || (i != PLAIN && strcmp(suffixes[i] + 1, forced) == 0)) {
            snprintf(name, sizeof(name), "%s%s", ipv6 ? "ip6tables" : "iptables", suffixes[i]);
            kind_look(&kinds[i], name, &why);
        }
    }
    bool legacy_first =
        *forced || kinds[LEGACY].has_ours || (kinds[LEGACY].has_rules && !kinds[NFT].has_ours);
    const struct kind *order[] = {legacy_first ? &kinds[LEGACY] : &kinds[NFT], &kinds[NFT],
                                  &kinds[PLAIN], &kinds[LEGACY]};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (order[i]->installed && makes_rules(&order[i]->tools, &why)) {
            *tools = order[i]->tools;
            kb_say(KB_SAY_DEBUG, "rules are made with %s%s", tools->iptables, kb_text_str(&why));
            kb_text_dispose(&why);
            return KB_EXIT_OK;
        }
    }
    kb_say(level, "no usable %s%s%s:%s", ipv6 ? "ip6tables" : "iptables",
           *forced ? " of the kind " : "", forced, kb_text_str(&why));
    kb_text_dispose(&why);
    return KB_EXIT_NO_TOOL;
}

int kb_tools_save(const struct kb_tools *tools, struct kb_text *out)
{
    struct kb_command_output output;
    int code = kb_command_run((const char *const[]){tools->save, NULL}, NULL, &output);

    if (code == 0) {
        kb_text_add_bytes(out, kb_text_str(&output.out), output.out.len);
    } else {
        kb_say(KB_SAY_ERROR, "%s ended with %d: %s", tools->save, code, kb_text_str(&output.err));
    }
    kb_command_output_dispose(&output);
    return code == 0 ? 0 : -1;
}

int kb_tools_restore(const struct kb_tools *tools, const char *text)
{
    const char *argv[] = {tools->restore, "--noflush", tools->locks ? LOCK_WAIT : NULL, NULL};
    struct kb_command_output output;

    kb_say(KB_SAY_INFO, "%s --noflush with\n%.*s", tools->restore, (int)strlen(text) - 1, text);
    int code = kb_command_run(argv, text, &output);
    if (code != 0) {
        kb_say(KB_SAY_ERROR, "%s ended with %d: %s", tools->restore, code,
               kb_text_str(&output.err));
    } else if (output.err.len) {
        kb_say(KB_SAY_DEBUG, "%s says: %s", tools->restore, output.err.at);
    }
    kb_command_output_dispose(&output);
    return code == 0 ? 0 : -1;
}

bool kb_tools_run_rule(const struct kb_tools *tools, const char *operation,
                       const struct kb_rule *rule)
{
    const char *argv[KB_COMMAND_ARGS_MAX + 8] = {tools->iptables, "-t", rule->table, operation,
                                                 rule->chain};
    struct kb_command_output output;
    size_t count = 5;
    char *words = strdup(rule->match), *rest = words, *word;

    if (!words) {
        kb_say_no_memory();
    }
    while ((word = strsep(&rest, " ")) && count < KB_COMMAND_ARGS_MAX) {
        if (*word) {
            argv[count++] = word;
        }
    }
    if (tools->locks) {
        argv[count++] = LOCK_WAIT;
    }
    int code = kb_command_run(argv, NULL, &output);
    if (code != 0) {
        kb_say(KB_SAY_DEBUG, "%s -t %s %s %s %s: %s", tools->iptables, rule->table, operation,
               rule->chain, rule->match, kb_text_str(&output.err));
    }
    kb_command_output_dispose(&output);
    free(words);
    return code == 0;
}
