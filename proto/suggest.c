/* SPDX-License-Identifier: Apache-2.0 */
/* Nearest name by edit distance (optimal string alignment), three rows at a time. */
#include "proto/suggest.h"

static char letter(struct kb_str s, size_t i)
{
    return s.p[i] == '-' ? '_' : kb_ascii_lower(s.p[i]);
}

void kb_suggest_init(struct kb_suggest *suggest, struct kb_str given)
{
    suggest->given = given;
    suggest->best = KB_STR_NULL;
    suggest->distance = given.len < 4 ? 1 : (uint32_t)KB_MIN(given.len / 3, 100);
}

static uint32_t distance(struct kb_str a, struct kb_str b)
{
    uint32_t rows[3][KB_SUGGEST_NAME_MAX + 1];

    for (size_t j = 0; j <= b.len; j++) {
        rows[0][j] = (uint32_t)j;
    }
    for (size_t i = 1; i <= a.len; i++) {
        uint32_t *row = rows[i % 3];
        const uint32_t *above = rows[(i - 1) % 3];

        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= b.len; j++) {
            uint32_t change = above[j - 1] + (letter(a, i - 1) != letter(b, j - 1));

            row[j] = KB_MIN(KB_MIN(above[j] + 1, row[j - 1] + 1), change);
            if (i > 1 && j > 1 && letter(a, i - 1) == letter(b, j - 2) &&
                letter(a, i - 2) == letter(b, j - 1)) {
                row[j] = KB_MIN(row[j], rows[(i - 2) % 3][j - 2] + 1);
            }
        }
    }
    return rows[a.len % 3][b.len];
}

void kb_suggest_offer(struct kb_suggest *suggest, struct kb_str known)
{
    size_t apart = suggest->given.len > known.len ? suggest->given.len - known.len
                                                  : known.len - suggest->given.len;
    uint32_t found;

    if (suggest->given.len == 0 || known.len == 0 || suggest->given.len > KB_SUGGEST_NAME_MAX ||
        known.len > KB_SUGGEST_NAME_MAX || apart > suggest->distance) {
        return;
    }
    found = distance(suggest->given, known);
    if (found < suggest->distance || (found == suggest->distance && suggest->best.len == 0)) {
        suggest->best = known;
        suggest->distance = found;
    }
}
