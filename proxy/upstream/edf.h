/* SPDX-License-Identifier: Apache-2.0 */
/* Weighted picking by earliest deadline first, as Envoy's EdfScheduler: each pick takes the entry
 * with the earliest deadline (ties: the one queued first) and queues it again 1/weight later.
 * Entries are numbers 0..n-1. Pure. */
#pragma once

#include "base/compiler.h"

struct kb_edf_entry {
    double deadline;
    uint64_t order;
    uint32_t index;
};

struct kb_edf {
    double now;
    uint64_t next_order;
    uint32_t count;
    struct kb_edf_entry heap[]; /* smallest first */
};

/* The weight of entry `index` at this moment; greater than 0. */
typedef double (*kb_edf_weight_fn)(void *arg, uint32_t index);

/* A scheduler of n > 0 entries that looks as if `picks` picks had been made already. */
struct kb_edf *kb_edf_create(uint32_t n, uint32_t picks, kb_edf_weight_fn weight, void *arg);
void kb_edf_destroy(struct kb_edf *edf);

/* Picks, and queues the entry again with the weight that it has now. */
uint32_t kb_edf_pick(struct kb_edf *edf, kb_edf_weight_fn weight, void *arg);
