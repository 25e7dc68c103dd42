/* SPDX-License-Identifier: Apache-2.0 */
/* A bucket of tokens for connections, by itself or shared by all limits of one key (Envoy
 * SharedRateLimitSingleton). */
#include "proxy/ext/common/connection_limit.h"

#include <stdlib.h>

#include "base/list.h"
#include "base/mem.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/type/v3/token_bucket.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/stats.h"

struct kb_shared_bucket {
    struct kb_list link; /* in `shared`; unlinked: nobody else's */
    char *key;
    uint64_t interval_ms;
    uint32_t refs;
    struct kb_token_bucket bucket;
};

/* Of the main thread: the buckets that have a key. */
static struct kb_list shared = {&shared, &shared};

static bool rate_eq(const struct kb_token_rate *a, const struct kb_token_rate *b)
{
    return a->max == b->max && !(a->per_ns < b->per_ns) && !(b->per_ns < a->per_ns);
}

/* Buckets of the same key differ when any field of theirs does. */
static struct kb_shared_bucket *bucket_find(const char *key, const struct kb_token_rate *rate,
                                            uint64_t interval_ms)
{
    for (struct kb_list *link = shared.next; link != &shared; link = link->next) {
        struct kb_shared_bucket *found = KB_LIST_ENTRY(link, struct kb_shared_bucket, link);

        if (kb_str_eq(kb_str_from_cstr(found->key), kb_str_from_cstr(key)) &&
            found->interval_ms == interval_ms && rate_eq(&found->bucket.rate, rate)) {
            return found;
        }
    }
    return NULL;
}

static struct kb_shared_bucket *bucket_take(const char *key, const struct kb_token_rate *rate,
                                            uint64_t interval_ms, uint64_t now_ns)
{
    struct kb_shared_bucket *bucket = key[0] != '\0' ? bucket_find(key, rate, interval_ms) : NULL;

    if (bucket == NULL) {
        bucket = kb_calloc(1, sizeof(*bucket));
        bucket->interval_ms = interval_ms;
        kb_token_bucket_init(&bucket->bucket, rate, now_ns);
        if (key[0] != '\0') {
            bucket->key = kb_strdup(key);
            kb_list_push_back(&shared, &bucket->link);
        }
    }
    bucket->refs++;
    return bucket;
}

int kb_connection_limit_init(struct kb_connection_limit *limit,
                             const struct kb_connection_limit_config *config,
                             struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_server_context *server = factory->server;
    uint32_t errors = diag->error_count;
    struct kb_token_rate rate;

    kb_diag_push(diag, "token_bucket");
    if (config->token_bucket == NULL) {
        kb_diag_error(diag, "value is required");
    } else {
        kb_token_rate_read(&rate, config->token_bucket, "local rate limit token bucket", diag);
    }
    kb_diag_pop(diag);
    if (diag->error_count > errors) {
        return KB_ECONFIG;
    }
    limit->runtime = server->runtime;
    limit->enabled = config->runtime_enabled == NULL ||
                     kb_wkt_bool(config->runtime_enabled->default_value, true);
    limit->runtime_key =
        config->runtime_enabled != NULL
            ? kb_str_dup(factory->arena, kb_str_from_cstr(config->runtime_enabled->runtime_key))
            : KB_STR("");
    limit->rate_limited =
        kb_stat_named_create(server->stats,
                             kb_str_printf(factory->arena, "%s.%s.rate_limited", config->stat_group,
                                           config->stat_prefix),
                             KB_STAT_COUNTER);
    limit->bucket = bucket_take(config->share_key, &rate,
                                kb_wkt_duration_ms(config->token_bucket->fill_interval, 0),
                                kb_loop_now_ns(&server->main->loop));
    return 0;
}

void kb_connection_limit_dispose(struct kb_connection_limit *limit)
{
    kb_stat_named_destroy(limit->rate_limited);
    if (limit->bucket != NULL && --limit->bucket->refs == 0) {
        kb_list_unlink(&limit->bucket->link);
        free(limit->bucket->key);
        free(limit->bucket);
    }
    limit->bucket = NULL;
}

bool kb_connection_limit_allows(struct kb_connection_limit *limit, const struct kb_worker *worker)
{
    if (!kb_runtime_get_bool(limit->runtime, limit->runtime_key, limit->enabled) ||
        kb_token_bucket_take(&limit->bucket->bucket, kb_loop_now_ns(&worker->loop), 1)) {
        return true;
    }
    kb_stat_named_add(limit->rate_limited, worker->index, 1);
    return false;
}
