/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.network.local_ratelimit: closes connections beyond a rate. Envoy documents it under
 * network_filters/local_rate_limit_filter. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/obj.h"
#include "envoy/extensions/filters/network/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "proxy/api/network_filter.h"
#include "proxy/ext/common/connection_limit.h"

struct limit_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_connection_limit limit;
};
KB_OBJ_MAGIC(limit_config, 0x4e524c43);

struct limit_filter {
    KB_OBJ;
    struct limit_config *config;
    struct kb_conn *conn;
};
KB_OBJ_MAGIC(limit_filter, 0x4e524c46);

static void config_destroy(void *arg)
{
    struct limit_config *config = KB_CAST(arg, limit_config);

    kb_connection_limit_dispose(&config->limit);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Network__LocalRatelimit__V3__LocalRateLimit *m = message;
    struct kb_factory_context own = *factory;
    struct kb_connection_limit_config spec = {.stat_group = "local_rate_limit"};
    struct limit_config *config;

    if (m == NULL) {
        kb_diag_error(diag, "typed_config is required");
        return KB_ECONFIG;
    }
    spec.stat_prefix = m->stat_prefix;
    spec.share_key = m->share_key;
    spec.token_bucket = m->token_bucket;
    spec.runtime_enabled = m->runtime_enabled;
    config = kb_calloc(1, sizeof(*config));
    KB_OBJ_SET(config, limit_config);
    kb_arena_init(&config->arena, NULL);
    own.arena = &config->arena;
    if (kb_connection_limit_init(&config->limit, &spec, &own, diag) != 0) {
        config_destroy(config);
        return KB_ECONFIG;
    }
    *out = config;
    return 0;
}

static void *create(void *arg, struct kb_conn *conn)
{
    struct limit_filter *filter = kb_calloc(1, sizeof(*filter));

    KB_OBJ_SET(filter, limit_filter);
    filter->config = KB_CAST(arg, limit_config);
    filter->conn = conn;
    return filter;
}

static enum kb_network_filter_status on_new_connection(void *self)
{
    struct limit_filter *filter = KB_CAST(self, limit_filter);
    struct kb_conn *conn = filter->conn;

    if (kb_connection_limit_allows(&filter->config->limit, conn->worker)) {
        return KB_NETWORK_FILTER_CONTINUE;
    }
    conn->info.flags |= UINT32_C(1) << KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED; /* as in Envoy */
    if (conn->stream_info != NULL) {
        kb_stream_info_set_flag(conn->stream_info, KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED);
    }
    conn->info.local_close_reason = KB_STR("local_ratelimit_close_over_limit");
    kb_conn_close(conn, KB_CONN_NO_FLUSH);
    return KB_NETWORK_FILTER_STOP;
}

static enum kb_network_filter_status on_data(void *self, struct kb_buf *in, bool end_stream)
{
    (void)self;
    (void)in;
    (void)end_stream;
    return KB_NETWORK_FILTER_CONTINUE;
}

static void on_event(void *self, enum kb_conn_event event)
{
    (void)self;
    (void)event;
}

static void destroy(void *self)
{
    struct limit_filter *filter = KB_CAST(self, limit_filter);

    KB_OBJ_CLEAR(filter);
    free(filter);
}

const struct kb_network_filter_ops kb_ext_network_local_ratelimit = {
    .name = "envoy.filters.network.local_ratelimit",
    .type_url = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_event = on_event,
    .destroy = destroy,
};
