/* SPDX-License-Identifier: Apache-2.0 */
/* What iptables-save says is there, as far as it is ours. */
#pragma once

#include "iptables/rules.h"

struct kb_chain {
    char table[16];
    char name[32];
    size_t rules; /* how many it has */
};

/* Zero-initialised it is empty. */
struct kb_state {
    struct kb_chain *chains; /* ISTIO_... only */
    size_t chain_count;
    struct kb_rules
        jumps; /* rules of the kernel's chains that jump to one of ours, as they were written */
};

/* Lines that are not understood are not ours. */
void kb_state_read(struct kb_state *state, const char *saved);
void kb_state_dispose(struct kb_state *state);

static inline bool kb_state_is_empty(const struct kb_state *state)
{
    return state->chain_count == 0 && state->jumps.count == 0;
}

/* NULL if there is no such chain. */
const struct kb_chain *kb_state_chain(const struct kb_state *state, const char *table,
                                      const char *name);
