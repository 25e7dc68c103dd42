/* SPDX-License-Identifier: Apache-2.0 */
/* Round robin (envoy.load_balancing_policies.round_robin): in turn, from a random start for each
 * worker; by weight when weights differ. */
#include "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.pb-c.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/lb_base.h"

extern const struct kb_lb_ops kb_lb_round_robin;

static int round_robin_config_create(const void *message, struct kb_factory_context *factory,
                                     struct kb_diag *diag, struct kb_lb_config **config)
{
    const Envoy__Extensions__LoadBalancingPolicies__RoundRobin__V3__RoundRobin *round_robin =
        message;

    (void)factory;
    *config = kb_calloc(1, sizeof(**config));
    kb_lb_config_read_locality(round_robin->locality_lb_config, *config);
    kb_lb_config_read_slow_start(round_robin->slow_start_config, *config, diag);
    return 0;
}

static struct kb_host *round_robin_pick(struct kb_lb_base *base, struct kb_lb_source *source)
{
    (void)base;
    return source->list->hosts[source->next++ % source->list->count];
}

static double round_robin_weight(const struct kb_lb_base *base, const struct kb_host *host)
{
    (void)base;
    return kb_host_weight(host);
}

static const struct kb_lb_picks round_robin_picks = {.pick = round_robin_pick,
                                                     .weight = round_robin_weight};

static struct kb_lb *round_robin_create(struct kb_cluster_local *local,
                                        const struct kb_lb_config *config,
                                        const struct kb_priority_set *set)
{
    struct kb_lb_base *base = kb_calloc(1, sizeof(*base));

    /* Far from the end of 64 bits: the turn does not jump when the counter wraps. */
    kb_lb_base_init(base, &kb_lb_round_robin, &round_robin_picks, local, config, set,
                    kb_rand_u64(&local->worker->rand) & UINT32_MAX);
    return &base->lb;
}

static void round_robin_destroy(struct kb_lb *lb)
{
    struct kb_lb_base *base = (struct kb_lb_base *)KB_CAST(lb, kb_lb);

    kb_lb_base_dispose(base);
    free(base);
}

const struct kb_lb_ops kb_lb_round_robin = {
    .name = "envoy.load_balancing_policies.round_robin",
    .type_url = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    .config_create = round_robin_config_create,
    .config_destroy = kb_lb_config_destroy,
    .create = round_robin_create,
    .hosts_changed = kb_lb_base_hosts_changed,
    .choose_host = kb_lb_base_choose_host,
    .destroy = round_robin_destroy,
};
