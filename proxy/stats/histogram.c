/* SPDX-License-Identifier: Apache-2.0 */
/* Log-linear histograms of non-negative integers with two significant decimal digits. The
 * arithmetic of quantiles and sums follows Envoy's to the last bit, because its text shows all
 * digits. */
#include "proxy/stats/histogram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/obj.h"

const double kb_histogram_quantiles[KB_HISTOGRAM_QUANTILES] = {0,    0.25, 0.5,   0.75,  0.90,
                                                               0.95, 0.99, 0.995, 0.999, 1};
const double kb_histogram_buckets[KB_HISTOGRAM_BUCKETS] = {
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6};

static const double powers_of_ten[] = {1,    10,   1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8, 1e9,
                                       1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18};

struct kb_histogram *kb_histogram_create(void)
{
    return kb_calloc(1, sizeof(struct kb_histogram));
}

void kb_histogram_destroy(struct kb_histogram *histogram)
{
    if (histogram == NULL) {
        return;
    }
    for (size_t i = 0; histogram->decades != NULL && i < KB_HISTOGRAM_DECADES; i++) {
        free(histogram->decades[i]);
    }
    free(histogram->decades);
    free(histogram);
}

static void cell_inc(uint32_t *cell)
{
    __atomic_store_n(cell, *cell + 1, __ATOMIC_RELAXED);
}

static uint32_t *decade_make(struct kb_histogram *histogram, unsigned decade)
{
    uint32_t *bins = kb_calloc(KB_HISTOGRAM_DECADE_BINS, sizeof(*bins));

    if (histogram->decades == NULL) {
        uint32_t **decades = kb_calloc(KB_HISTOGRAM_DECADES, sizeof(*decades));

        __atomic_store_n(&histogram->decades, decades, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&histogram->decades[decade], bins, __ATOMIC_RELEASE);
    return bins;
}

void kb_histogram_record(struct kb_histogram *histogram, uint64_t value)
{
    unsigned decade = 0;
    uint32_t *bins;

    if (value < 10) {
        cell_inc(&histogram->small[value]);
        return;
    }
    if (value > INT64_MAX) {
        value = INT64_MAX;
    }
    while (value >= 100) {
        value /= 10;
        decade++;
    }
    bins = histogram->decades == NULL ? NULL : histogram->decades[decade];
    if (KB_UNLIKELY(bins == NULL)) {
        bins = decade_make(histogram, decade);
    }
    cell_inc(&bins[value - 10]);
}

bool kb_histogram_has_samples(const struct kb_histogram *histogram)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(histogram->small); i++) {
        if (__atomic_load_n(&histogram->small[i], __ATOMIC_RELAXED) != 0) {
            return true;
        }
    }
    return __atomic_load_n(&histogram->decades, __ATOMIC_ACQUIRE) != NULL;
}

static uint16_t bin_key(unsigned exponent, unsigned digits)
{
    return (uint16_t)(exponent << 7 | digits);
}

/* The bin of that key, made when it is not there; *at is where the search starts and ends, as keys
 * come in order. */
static struct kb_histogram_bin *total_bin(struct kb_histogram_total *total, uint16_t key,
                                          size_t *at)
{
    while (*at < total->bin_count && total->bins[*at].key < key) {
        (*at)++;
    }
    if (*at == total->bin_count || total->bins[*at].key != key) {
        if (total->bin_count == total->bin_room) {
            total->bin_room = (uint16_t)(total->bin_room == 0 ? 4 : total->bin_room * 2);
            total->bins = kb_realloc(total->bins, total->bin_room * sizeof(*total->bins));
        }
        memmove(total->bins + *at + 1, total->bins + *at,
                (total->bin_count - *at) * sizeof(*total->bins));
        total->bins[*at] = (struct kb_histogram_bin){.key = key};
        total->bin_count++;
    }
    return &total->bins[*at];
}

static void total_take(struct kb_histogram_total *total, uint16_t key, uint32_t sum, size_t *at)
{
    struct kb_histogram_bin *bin;
    uint32_t fresh;

    while (*at < total->bin_count && total->bins[*at].key < key) {
        (*at)++;
    }
    if (sum == 0 && (*at == total->bin_count || total->bins[*at].key != key)) {
        return;
    }
    bin = total_bin(total, key, at);
    fresh = sum - bin->seen;
    bin->seen = sum;
    bin->interval = fresh;
    bin->cumulative += fresh;
}

static void total_take_decade(struct kb_histogram_total *total, unsigned decade,
                              struct kb_histogram *const *recorders, size_t n, size_t *at)
{
    uint32_t sums[KB_HISTOGRAM_DECADE_BINS] = {0};
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        const uint32_t *bins =
            recorders[i] == NULL ? NULL : kb_histogram_decade(recorders[i], decade);

        if (bins == NULL) {
            continue;
        }
        any = true;
        for (size_t k = 0; k < KB_HISTOGRAM_DECADE_BINS; k++) {
            sums[k] += __atomic_load_n(&bins[k], __ATOMIC_RELAXED);
        }
    }
    for (unsigned k = 0; any && k < KB_HISTOGRAM_DECADE_BINS; k++) {
        total_take(total, bin_key(decade + 1, k + 10), sums[k], at);
    }
}

void kb_histogram_merge(struct kb_histogram_total *total, struct kb_histogram *const *recorders,
                        size_t n)
{
    size_t at = 0;

    for (unsigned value = 0; value < 10; value++) {
        uint32_t sum = 0;

        for (size_t i = 0; i < n; i++) {
            if (recorders[i] != NULL) {
                sum += __atomic_load_n(&recorders[i]->small[value], __ATOMIC_RELAXED);
            }
        }
        total_take(total, bin_key(0, value * 10), sum, &at);
    }
    for (unsigned decade = 0; decade < KB_HISTOGRAM_DECADES; decade++) {
        total_take_decade(total, decade, recorders, n, &at);
    }
    total->merged = total->merged || total->bin_count > 0;
}

void kb_histogram_total_dispose(struct kb_histogram_total *total)
{
    free(total->bins);
    *total = (struct kb_histogram_total){0};
}

static unsigned bin_exponent(const struct kb_histogram_bin *bin)
{
    return bin->key >> 7;
}

double kb_histogram_bin_bound(const struct kb_histogram_bin *bin)
{
    /* Divided first and multiplied then: the order of operations shows in the last digit. */
    return (double)(bin->key & 127) / 10.0 * powers_of_ten[bin_exponent(bin)];
}

double kb_histogram_bin_width(const struct kb_histogram_bin *bin)
{
    return bin->key == 0 ? 0 : powers_of_ten[bin_exponent(bin)] / 10.0;
}

uint64_t kb_histogram_bin_count(const struct kb_histogram_bin *bin, enum kb_histogram_period period)
{
    return period == KB_HISTOGRAM_INTERVAL ? bin->interval : bin->cumulative;
}

uint64_t kb_histogram_count(const struct kb_histogram_total *total, enum kb_histogram_period period)
{
    uint64_t count = 0;

    for (size_t i = 0; i < total->bin_count; i++) {
        count += kb_histogram_bin_count(&total->bins[i], period);
    }
    return count;
}

/* Where relative error is the same towards both ends of the bin. */
static double bin_midpoint(const struct kb_histogram_bin *bin)
{
    double bottom = kb_histogram_bin_bound(bin);
    double width = kb_histogram_bin_width(bin);

    if (bin->key == 0) {
        return 0;
    }
    return bottom + width * (bottom / (bottom + (bottom + width)));
}

double kb_histogram_sum(const struct kb_histogram_total *total, enum kb_histogram_period period)
{
    double sum = 0;

    for (size_t i = 0; i < total->bin_count; i++) {
        sum +=
            bin_midpoint(&total->bins[i]) * (double)kb_histogram_bin_count(&total->bins[i], period);
    }
    return sum;
}

uint64_t kb_histogram_count_below(const struct kb_histogram_total *total,
                                  enum kb_histogram_period period, double bound)
{
    uint64_t count = 0;

    for (size_t i = 0; i < total->bin_count && kb_histogram_bin_bound(&total->bins[i]) <= bound;
         i++) {
        count += kb_histogram_bin_count(&total->bins[i], period);
    }
    return count;
}

/* The k-th of n samples of a bin stands where the k-th of n uniformly spread ones is expected. */
static double bin_position(const struct kb_histogram_bin *bin, double k, uint64_t n)
{
    return kb_histogram_bin_bound(bin) +
           KB_MAX(k, 1) / (double)(n + 1) * kb_histogram_bin_width(bin);
}

void kb_histogram_quantile_values(const struct kb_histogram_total *total,
                                  enum kb_histogram_period period,
                                  double out[KB_HISTOGRAM_QUANTILES])
{
    double all = (double)kb_histogram_count(total, period);
    double below = 0;
    double upto = 0;
    size_t next = 0; /* bin after the present one */
    const struct kb_histogram_bin *bin = NULL;

    for (size_t i = 0; i < KB_HISTOGRAM_QUANTILES; i++) {
        double wanted = all * kb_histogram_quantiles[i];

        if (all == 0) {
            out[i] = NAN;
            continue;
        }
        while (bin == NULL || upto < wanted) {
            KB_ASSERT(next < total->bin_count);
            if (kb_histogram_bin_count(&total->bins[next], period) > 0) {
                bin = &total->bins[next];
                below = upto;
                upto = below + (double)kb_histogram_bin_count(bin, period);
            }
            next++;
        }
        out[i] = bin_position(bin, ceil(wanted - below), kb_histogram_bin_count(bin, period));
    }
}
