/* SPDX-License-Identifier: Apache-2.0 */
/* Earliest deadline first over a binary heap. Picking replaces the top and sifts it down, so it
 * takes no memory. */
#include "proxy/upstream/edf.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

/* Added to the weights at the start: entries whose deadlines would be equal come smallest weight
 * first, in every round, as in Envoy, however many picks went before. */
#define WEIGHT_EPSILON 1e-13

static bool entry_before(const struct kb_edf_entry *a, const struct kb_edf_entry *b)
{
    return a->deadline < b->deadline || (a->deadline == b->deadline && a->order < b->order);
}

static void heap_sift_down(struct kb_edf *edf, uint32_t at)
{
    struct kb_edf_entry moved = edf->heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= edf->count) {
            break;
        }
        if (child + 1 < edf->count && entry_before(&edf->heap[child + 1], &edf->heap[child])) {
            child++;
        }
        if (!entry_before(&edf->heap[child], &moved)) {
            break;
        }
        edf->heap[at] = edf->heap[child];
        at = child;
    }
    edf->heap[at] = moved;
}

struct kb_edf *kb_edf_create(uint32_t n, uint32_t picks, kb_edf_weight_fn weight, void *arg)
{
    struct kb_edf *edf = kb_calloc(1, sizeof(*edf) + n * sizeof(edf->heap[0]));
    double weight_sum = 0;
    uint32_t picked = 0;

    for (uint32_t i = 0; i < n; i++) {
        weight_sum += weight(arg, i) + WEIGHT_EPSILON;
    }
    edf->count = n;
    /* Of `picks` picks each entry gets at least the whole part of its share, which needs no queue;
     * the few that are left are picked one by one. */
    for (uint32_t i = 0; i < n; i++) {
        double w = weight(arg, i) + WEIGHT_EPSILON;
        double share = floor((double)picks * w / weight_sum);

        edf->heap[i].deadline = (share + 1) / w;
        edf->heap[i].order = edf->next_order++;
        edf->heap[i].index = i;
        edf->now = fmax(edf->now, share / w);
        picked += (uint32_t)share;
    }
    for (uint32_t i = n / 2; i-- > 0;) {
        heap_sift_down(edf, i);
    }
    for (uint32_t i = 0; picked < picks && i < n; i++, picked++) {
        kb_edf_pick(edf, weight, arg);
    }
    return edf;
}

void kb_edf_destroy(struct kb_edf *edf)
{
    free(edf);
}

uint32_t kb_edf_pick(struct kb_edf *edf, kb_edf_weight_fn weight, void *arg)
{
    uint32_t index = edf->heap[0].index;

    edf->now = edf->heap[0].deadline;
    edf->heap[0].deadline = edf->now + 1.0 / weight(arg, index);
    edf->heap[0].order = edf->next_order++;
    heap_sift_down(edf, 0);
    return index;
}
