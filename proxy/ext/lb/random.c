/* SPDX-License-Identifier: Apache-2.0 */
/* Random (envoy.load_balancing_policies.random): any host with the same chance, whatever its
 * weight. */
#include "envoy/extensions/load_balancing_policies/random/v3/random.pb-c.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/lb_base.h"

extern const struct kb_lb_ops kb_lb_random;

static int random_config_create(const void *message, struct kb_factory_context *factory,
                                struct kb_diag *diag, struct kb_lb_config **config)
{
    const Envoy__Extensions__LoadBalancingPolicies__Random__V3__Random *random = message;

    (void)factory;
    (void)diag;
    *config = kb_calloc(1, sizeof(**config));
    kb_lb_config_read_locality(random->locality_lb_config, *config);
    return 0;
}

static void random_config_destroy(struct kb_lb_config *config)
{
    free(config);
}

static struct kb_host *random_pick(struct kb_lb_base *base, struct kb_lb_source *source)
{
    return source->list->hosts[kb_rand_u64(&base->lb.local->worker->rand) % source->list->count];
}

static const struct kb_lb_picks random_picks = {.pick = random_pick};

static struct kb_lb *random_create(struct kb_cluster_local *local,
                                   const struct kb_lb_config *config,
                                   const struct kb_priority_set *set)
{
    struct kb_lb_base *base = kb_calloc(1, sizeof(*base));

    kb_lb_base_init(base, &kb_lb_random, &random_picks, local, config, set,
                    kb_rand_u64(&local->worker->rand));
    return &base->lb;
}

static void random_destroy(struct kb_lb *lb)
{
    struct kb_lb_base *base = (struct kb_lb_base *)KB_CAST(lb, kb_lb);

    kb_lb_base_dispose(base);
    free(base);
}

const struct kb_lb_ops kb_lb_random = {
    .name = "envoy.load_balancing_policies.random",
    .type_url = "envoy.extensions.load_balancing_policies.random.v3.Random",
    .config_create = random_config_create,
    .config_destroy = random_config_destroy,
    .create = random_create,
    .hosts_changed = kb_lb_base_hosts_changed,
    .choose_host = kb_lb_base_choose_host,
    .destroy = random_destroy,
};
