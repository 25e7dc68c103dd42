/* SPDX-License-Identifier: Apache-2.0 */
/* Histograms whose bins, quantiles and sums agree with Envoy's (circllhist): a bin holds the values
 * with the same two leading decimal digits. A worker records into a kb_histogram of its own; the
 * main thread merges the recorders of all workers into a kb_histogram_total at every flush, and
 * shows that. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define KB_HISTOGRAM_DECADES     18 /* 10..99, 100..999, and so on up to INT64_MAX */
#define KB_HISTOGRAM_DECADE_BINS 90
#define KB_HISTOGRAM_QUANTILES   10
#define KB_HISTOGRAM_BUCKETS     19 /* of Envoy's default upper bounds */

/* P0 P25 P50 P75 P90 P95 P99 P99.5 P99.9 P100, as fractions. */
extern const double kb_histogram_quantiles[KB_HISTOGRAM_QUANTILES];
/* 0.5 to 3600000. */
extern const double kb_histogram_buckets[KB_HISTOGRAM_BUCKETS];

/* Counts wrap; the main thread takes differences, so no flush may see more than 2^32 samples of one
 * bin. */
struct kb_histogram {
    uint32_t small[10]; /* 0..9 */
    /* [KB_HISTOGRAM_DECADES], of KB_HISTOGRAM_DECADE_BINS each; both made at the first sample: most
     * histograms never see one above 9. */
    uint32_t **decades;
};

/* The bins of a decade, or NULL. Any thread. */
KB_INLINE const uint32_t *kb_histogram_decade(const struct kb_histogram *histogram, unsigned decade)
{
    uint32_t **decades = __atomic_load_n(&histogram->decades, __ATOMIC_ACQUIRE);

    return decades == NULL ? NULL : __atomic_load_n(&decades[decade], __ATOMIC_ACQUIRE);
}

struct kb_histogram_bin {
    uint16_t key;  /* 0: the value 0; else exponent << 7 | two leading digits */
    uint32_t seen; /* recorders' sum at the last merge, modulo 2^32 */
    uint32_t interval;
    uint64_t cumulative;
};

/* All samples of one histogram up to the last merge. Zero-initialise. Main thread. */
struct kb_histogram_total {
    struct kb_histogram_bin *bins; /* by key */
    uint16_t bin_count;
    uint16_t bin_room;
    bool merged; /* has ever had a sample */
};

enum kb_histogram_period {
    KB_HISTOGRAM_INTERVAL, /* samples between the last two merges */
    KB_HISTOGRAM_CUMULATIVE,
};

/* An empty recorder; kb_histogram_destroy takes NULL too. */
struct kb_histogram *kb_histogram_create(void);
void kb_histogram_destroy(struct kb_histogram *histogram);

/* Counts a sample. On the recorder's thread. Allocates only at the first sample of a decade. */
void kb_histogram_record(struct kb_histogram *histogram, uint64_t value);

/* Takes the new samples of the recorders (NULL entries are skipped) into the total; the interval
 * becomes what came since the merge before. The recorders may be written meanwhile. */
void kb_histogram_merge(struct kb_histogram_total *total, struct kb_histogram *const *recorders,
                        size_t n);
/* True when a recorder has a sample. */
bool kb_histogram_has_samples(const struct kb_histogram *histogram);
void kb_histogram_total_dispose(struct kb_histogram_total *total);

/* Samples. */
uint64_t kb_histogram_count(const struct kb_histogram_total *total,
                            enum kb_histogram_period period);
/* Every sample counts as the point of its bin that has the least relative error, as in Envoy. */
double kb_histogram_sum(const struct kb_histogram_total *total, enum kb_histogram_period period);
/* Samples in bins that begin at or below `bound`. */
uint64_t kb_histogram_count_below(const struct kb_histogram_total *total,
                                  enum kb_histogram_period period, double bound);
/* The value at each of kb_histogram_quantiles; NAN when there are no samples. */
void kb_histogram_quantile_values(const struct kb_histogram_total *total,
                                  enum kb_histogram_period period,
                                  double out[KB_HISTOGRAM_QUANTILES]);

/* Lower bound and width of a bin, and its count in the period. */
double kb_histogram_bin_bound(const struct kb_histogram_bin *bin);
double kb_histogram_bin_width(const struct kb_histogram_bin *bin);
uint64_t kb_histogram_bin_count(const struct kb_histogram_bin *bin,
                                enum kb_histogram_period period);
