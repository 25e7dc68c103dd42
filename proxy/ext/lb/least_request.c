/* SPDX-License-Identifier: Apache-2.0 */
/* Least request (envoy.load_balancing_policies.least_request): the best of a few random hosts, or
 * of all, by active requests; by weight and active requests together when weights differ. Active
 * requests are those of all workers. */
#include "envoy/extensions/load_balancing_policies/least_request/v3/least_request.pb-c.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/runtime.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/lb_base.h"

#define CHOICE_COUNT_DEFAULT        2
#define ACTIVE_REQUEST_BIAS_DEFAULT 1.0

typedef Envoy__Extensions__LoadBalancingPolicies__LeastRequest__V3__LeastRequest LeastRequest;

struct least_request_config {
    struct kb_lb_config head;
    uint32_t choice_count;
    bool full_scan;
    double active_request_bias;
    struct kb_str bias_key; /* of runtime, on the heap; empty: none */
};

extern const struct kb_lb_ops kb_lb_least_request;

static const struct least_request_config *config_of(const struct kb_lb_base *base)
{
    return (const struct least_request_config *)base->config;
}

static int least_request_config_create(const void *message, struct kb_factory_context *factory,
                                       struct kb_diag *diag, struct kb_lb_config **out)
{
    const LeastRequest *least_request = message;
    struct least_request_config *config = kb_calloc(1, sizeof(*config));

    (void)factory;
    config->choice_count = least_request->choice_count == NULL ? CHOICE_COUNT_DEFAULT
                                                               : least_request->choice_count->value;
    config->active_request_bias = least_request->active_request_bias == NULL
                                      ? ACTIVE_REQUEST_BIAS_DEFAULT
                                      : least_request->active_request_bias->default_value;
    config->bias_key = kb_lb_runtime_key(least_request->active_request_bias == NULL
                                             ? ""
                                             : least_request->active_request_bias->runtime_key);
    config->full_scan =
        least_request->selection_method ==
            ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__LEAST_REQUEST__V3__LEAST_REQUEST__SELECTION_METHOD__FULL_SCAN ||
        (least_request->enable_full_scan != NULL && least_request->enable_full_scan->value != 0);
    kb_lb_config_read_locality(least_request->locality_lb_config, &config->head);
    kb_lb_config_read_slow_start(least_request->slow_start_config, &config->head, diag);
    *out = &config->head;
    return 0;
}

static void least_request_config_destroy(struct kb_lb_config *config)
{
    struct kb_str key = ((struct least_request_config *)config)->bias_key;

    if (key.len > 0) {
        free((void *)(uintptr_t)key.p);
    }
    kb_lb_config_destroy(config);
}

static struct kb_host *pick_best_of_all(struct kb_lb_base *base, const struct kb_host_list *list)
{
    struct kb_host *best = list->hosts[0];
    uint64_t least = kb_host_stat_sum(best, KB_HOST_RQ_ACTIVE);
    uint64_t ties = 1;

    for (uint32_t i = 1; i < list->count; i++) {
        uint64_t active = kb_host_stat_sum(list->hosts[i], KB_HOST_RQ_ACTIVE);

        if (active < least) {
            best = list->hosts[i];
            least = active;
            ties = 1;
        } else if (active == least && kb_rand_u64(&base->lb.local->worker->rand) % ++ties == 0) {
            best = list->hosts[i]; /* each of the tied has the same chance in the end */
        }
    }
    return best;
}

static struct kb_host *least_request_pick(struct kb_lb_base *base, struct kb_lb_source *source)
{
    const struct kb_host_list *list = source->list;
    struct kb_rand *rand = &base->lb.local->worker->rand;
    struct kb_host *best;
    uint64_t least;

    if (list->count == 1) {
        return list->hosts[0];
    }
    if (config_of(base)->full_scan) {
        return pick_best_of_all(base, list);
    }
    best = list->hosts[kb_rand_u64(rand) % list->count];
    least = kb_host_stat_sum(best, KB_HOST_RQ_ACTIVE);
    for (uint32_t i = 1; i < config_of(base)->choice_count; i++) {
        struct kb_host *host = list->hosts[kb_rand_u64(rand) % list->count];
        uint64_t active = kb_host_stat_sum(host, KB_HOST_RQ_ACTIVE);

        if (active < least) {
            best = host;
            least = active;
        }
    }
    return best;
}

static double least_request_weight(const struct kb_lb_base *base, const struct kb_host *host)
{
    double bias = kb_runtime_get_double(kb_lb_base_runtime(base), config_of(base)->bias_key,
                                        config_of(base)->active_request_bias);
    double active = (double)kb_host_stat_sum(host, KB_HOST_RQ_ACTIVE) + 1;

    if (bias == 1.0 || !(bias >= 0)) {
        return kb_host_weight(host) / active;
    }
    return bias == 0.0 ? kb_host_weight(host) : kb_host_weight(host) / pow(active, bias);
}

static const struct kb_lb_picks least_request_picks = {.pick = least_request_pick,
                                                       .weight = least_request_weight};

static struct kb_lb *least_request_create(struct kb_cluster_local *local,
                                          const struct kb_lb_config *config,
                                          const struct kb_priority_set *set)
{
    struct kb_lb_base *base = kb_calloc(1, sizeof(*base));

    kb_lb_base_init(base, &kb_lb_least_request, &least_request_picks, local, config, set,
                    kb_rand_u64(&local->worker->rand));
    return &base->lb;
}

static void least_request_destroy(struct kb_lb *lb)
{
    struct kb_lb_base *base = (struct kb_lb_base *)KB_CAST(lb, kb_lb);

    kb_lb_base_dispose(base);
    free(base);
}

const struct kb_lb_ops kb_lb_least_request = {
    .name = "envoy.load_balancing_policies.least_request",
    .type_url = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    .config_create = least_request_config_create,
    .config_destroy = least_request_config_destroy,
    .create = least_request_create,
    .hosts_changed = kb_lb_base_hosts_changed,
    .choose_host = kb_lb_base_choose_host,
    .destroy = least_request_destroy,
};
