/* SPDX-License-Identifier: Apache-2.0 */
/* A bucket is a point in time: tokens are what has come since, at most `max`. */
#include "proxy/ext/common/token_bucket.h"

#include "base/diag.h"
#include "envoy/type/v3/token_bucket.pb-c.h"
#include "proto/wkt.h"

#define WAIT_MAX_MS 1e18
#define NEARLY      1e-6 /* a token that a rounded division left short is one */

void kb_token_rate_read(struct kb_token_rate *rate,
                        const struct Envoy__Type__V3__TokenBucket *message, const char *what,
                        struct kb_diag *diag)
{
    uint64_t interval_ms = kb_wkt_duration_ms(message->fill_interval, 0);

    if (interval_ms < KB_TOKEN_FILL_INTERVAL_MIN_MS) {
        if (message->max_tokens > 0) {
            kb_diag_error(diag, "%s fill timer must be >= 50ms", what);
        }
        interval_ms = KB_TOKEN_FILL_INTERVAL_MIN_MS;
    }
    rate->max = message->max_tokens;
    rate->per_ns = (double)kb_wkt_u32(message->tokens_per_fill, 1) / ((double)interval_ms * 1e6);
}

void kb_token_bucket_init(struct kb_token_bucket *bucket, const struct kb_token_rate *rate,
                          uint64_t now_ns)
{
    bucket->rate = *rate;
    bucket->empty_ns = (double)now_ns - (double)rate->max / rate->per_ns;
}

static double tokens_at(const struct kb_token_bucket *bucket, double empty_ns, uint64_t now_ns)
{
    double passed_ns = KB_MAX((double)now_ns - empty_ns, 0.0);

    return KB_MIN(passed_ns * bucket->rate.per_ns, (double)bucket->rate.max);
}

static double empty_load(const struct kb_token_bucket *bucket)
{
    double empty_ns;

    __atomic_load(&bucket->empty_ns, &empty_ns, __ATOMIC_RELAXED);
    return empty_ns;
}

/* So many tokens are there now; false, and *before as it is, when somebody was faster. */
static bool tokens_store(struct kb_token_bucket *bucket, double *before, uint64_t now_ns,
                         double tokens)
{
    double after = (double)now_ns - tokens / bucket->rate.per_ns;

    return __atomic_compare_exchange(&bucket->empty_ns, before, &after, true, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED);
}

static double tokens_now(const struct kb_token_bucket *bucket, uint64_t now_ns)
{
    return tokens_at(bucket, empty_load(bucket), now_ns);
}

bool kb_token_bucket_take(struct kb_token_bucket *bucket, uint64_t now_ns, double tokens)
{
    double before = empty_load(bucket);
    double present;

    if (!(tokens > 0)) {
        return false;
    }
    do {
        present = tokens_at(bucket, before, now_ns);
        if (present + NEARLY < tokens) {
            return false;
        }
    } while (!tokens_store(bucket, &before, now_ns, KB_MAX(present - tokens, 0.0)));
    return true;
}

void kb_token_bucket_give(struct kb_token_bucket *bucket, uint64_t now_ns, double tokens)
{
    double before = empty_load(bucket);
    double present, after;

    do {
        present = tokens_at(bucket, before, now_ns);
        after = KB_MIN(present + tokens, (double)bucket->rate.max);
        if (!(after > present)) {
            return;
        }
    } while (!tokens_store(bucket, &before, now_ns, after));
}

uint64_t kb_token_bucket_left(const struct kb_token_bucket *bucket, uint64_t now_ns)
{
    return (uint64_t)(tokens_now(bucket, now_ns) + NEARLY);
}

uint64_t kb_token_bucket_wait_s(const struct kb_token_bucket *bucket, uint64_t now_ns)
{
    double tokens = tokens_now(bucket, now_ns);
    uint64_t wait_ms;

    if (tokens + NEARLY >= 1) {
        return 0;
    }
    wait_ms = (uint64_t)KB_MIN((1 - tokens) / bucket->rate.per_ns / 1e6, WAIT_MAX_MS);
    return (wait_ms + 999) / 1000;
}
