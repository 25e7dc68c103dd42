/* SPDX-License-Identifier: Apache-2.0 */
/* "did you mean": the known name that is nearest to a mistyped one. */
#pragma once

#include "base/str.h"

struct kb_suggest {
    struct kb_str given;
    struct kb_str best; /* empty while nothing is near enough */
    uint32_t distance;
};

/* Names longer than KB_SUGGEST_NAME_MAX are never near. */
#define KB_SUGGEST_NAME_MAX 160

/* Starts the search for the name nearest to `given`, which is borrowed. */
void kb_suggest_init(struct kb_suggest *suggest, struct kb_str given);

/* Offers one known name, borrowed. Near is: at most a third of the letters differ (two neighbours
 * exchanged count once); case and '-' for '_' do not count. */
void kb_suggest_offer(struct kb_suggest *suggest, struct kb_str known);
