/* SPDX-License-Identifier: Apache-2.0 */
/* What iptables-save says is there, as far as it is ours. */
#include "iptables/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iptables/say.h"

/* The literal of a name that lives as long as the program; NULL if it is none of them. */
static const char *literal_of(const char *const *names, const char *text, size_t len)
{
    for (; *names; names++) {
        if (strlen(*names) == len && memcmp(*names, text, len) == 0) {
            return *names;
        }
    }
    return NULL;
}

static struct kb_chain *chain_of(struct kb_state *state, const char *table, const char *name,
                                 size_t len)
{
    for (size_t i = 0; i < state->chain_count; i++) {
        struct kb_chain *chain = &state->chains[i];
        if (strcmp(chain->table, table) == 0 && strlen(chain->name) == len &&
            memcmp(chain->name, name, len) == 0) {
            return chain;
        }
    }
    if (len >= sizeof(state->chains->name)) {
        return NULL;
    }
    struct kb_chain *chains = reallocarray(state->chains, state->chain_count + 1, sizeof(*chains));
    if (!chains) {
        kb_say_no_memory();
    }
    state->chains = chains;
    struct kb_chain *chain = &chains[state->chain_count++];
    *chain = (struct kb_chain){0};
    snprintf(chain->table, sizeof(chain->table), "%s", table);
    memcpy(chain->name, name, len);
    return chain;
}

/* "-A CHAIN MATCH" without the "-A ". */
static void read_rule(struct kb_state *state, const char *table, const char *line, size_t len)
{
    static const char *const builtin[] = {"INPUT",      "OUTPUT",      "FORWARD",
                                          "PREROUTING", "POSTROUTING", NULL};
    const char *space = memchr(line, ' ', len);
    size_t name_len = space ? (size_t)(space - line) : len;

    if (kb_chain_is_ours(line, name_len)) {
        struct kb_chain *chain = chain_of(state, table, line, name_len);
        if (chain) {
            chain->rules++;
        }
        return;
    }
    const char *chain = literal_of(builtin, line, name_len);
    if (!chain || !space) {
        return;
    }
    char *match = strndup(space + 1, len - name_len - 1);
    if (!match) {
        kb_say_no_memory();
    }
    if (kb_match_jumps_to(match).len) {
        kb_rules_append(&state->jumps, table, chain, "%s", match);
    }
    free(match);
}

void kb_state_read(struct kb_state *state, const char *saved)
{
    const char *table = NULL;

    while (*saved) {
        size_t len = strcspn(saved, "\n");
        if (saved[0] == '*') {
            table = literal_of(kb_tables, saved + 1, len - 1);
        } else if (table && saved[0] == ':' && kb_chain_is_ours(saved + 1, len - 1)) {
            chain_of(state, table, saved + 1, strcspn(saved + 1, " \n"));
        } else if (table && len > 3 && memcmp(saved, "-A ", 3) == 0) {
            read_rule(state, table, saved + 3, len - 3);
        }
        saved += len + (saved[len] == '\n');
    }
}

void kb_state_dispose(struct kb_state *state)
{
    free(state->chains);
    kb_rules_dispose(&state->jumps);
    *state = (struct kb_state){0};
}

const struct kb_chain *kb_state_chain(const struct kb_state *state, const char *table,
                                      const char *name)
{
    for (size_t i = 0; i < state->chain_count; i++) {
        if (strcmp(state->chains[i].table, table) == 0 &&
            strcmp(state->chains[i].name, name) == 0) {
            return &state->chains[i];
        }
    }
    return NULL;
}
