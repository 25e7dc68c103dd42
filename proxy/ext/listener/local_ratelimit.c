/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.listener.local_ratelimit: closes connections beyond a rate before anything is made
 * for them. Envoy documents it under listener_filters/local_rate_limit_filter. */
#include "base/obj.h"
#include "envoy/extensions/filters/listener/local_ratelimit/v3/local_ratelimit.pb-c.h"
#include "proxy/api/listener_filter.h"
#include "proxy/ext/common/connection_limit.h"

struct accept_limit {
    KB_OBJ;
    struct kb_connection_limit limit;
};
KB_OBJ_MAGIC(accept_limit, 0x4c4c5243);

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Listener__LocalRatelimit__V3__LocalRateLimit *m = message;
    const struct kb_connection_limit_config spec = {
        .stat_group = "listener_local_ratelimit",
        .stat_prefix = m->stat_prefix,
        .share_key = "",
        .token_bucket = m->token_bucket,
        .runtime_enabled = m->runtime_enabled,
    };
    struct accept_limit *config = KB_ARENA_NEW(factory->arena, struct accept_limit);

    KB_OBJ_SET(config, accept_limit);
    *out = config;
    return kb_connection_limit_init(&config->limit, &spec, factory, diag);
}

static void config_destroy(void *arg)
{
    kb_connection_limit_dispose(&KB_CAST(arg, accept_limit)->limit);
}

static enum kb_listener_filter_status on_accept(void *arg, void *state,
                                                struct kb_listener_socket *socket)
{
    struct accept_limit *config = KB_CAST(arg, accept_limit);

    (void)state;
    return kb_connection_limit_allows(&config->limit, socket->conn->worker)
               ? KB_LISTENER_FILTER_CONTINUE
               : KB_LISTENER_FILTER_CLOSE;
}

const struct kb_listener_filter_ops kb_ext_listener_local_ratelimit = {
    .name = "envoy.filters.listener.local_ratelimit",
    .type_url = "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .on_accept = on_accept,
};
