/* SPDX-License-Identifier: Apache-2.0 */
/* The Router message, and its strict_check_headers. */
#include <stdlib.h>

#include "base/mem.h"
#include "envoy/extensions/filters/http/router/v3/router.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/access_logger.h"
#include "proxy/http/upstream_http_filters.h"
#include "proxy/router/router.h"

typedef Envoy__Extensions__Filters__Http__Router__V3__Router router_message;

enum strict_kind { STRICT_INTEGER, STRICT_RETRY_ON, STRICT_RETRY_GRPC_ON };

static const struct {
    enum kb_header_id id;
    enum strict_kind kind;
} strict_headers[] = {
    {KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, STRICT_INTEGER},
    {KB_HDR_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS, STRICT_INTEGER},
    {KB_HDR_X_ENVOY_MAX_RETRIES, STRICT_INTEGER},
    {KB_HDR_X_ENVOY_RETRY_ON, STRICT_RETRY_ON},
    {KB_HDR_X_ENVOY_RETRY_GRPC_ON, STRICT_RETRY_GRPC_ON},
};

_Static_assert(KB_ARRAY_LEN(strict_headers) ==
                   KB_ARRAY_LEN(((struct kb_router_config *)0)->strict_checks),
               "room for each of them");

int kb_router_number(struct kb_str value, uint64_t *number)
{
    if (value.len > 1 && value.p[0] == '+') {
        value = kb_str_make(value.p + 1, value.len - 1);
    }
    return kb_str_to_u64(value, number);
}

static bool strict_valid(enum strict_kind kind, struct kb_str value)
{
    unsigned unknown = 0;
    uint64_t number;

    switch (kind) {
    case STRICT_INTEGER:
        return kb_router_number(value, &number) == 0;
    case STRICT_RETRY_ON:
    case STRICT_RETRY_GRPC_ON:
        (void)kb_retry_on_parse(value, kind == STRICT_RETRY_GRPC_ON, &unknown);
        break;
    }
    return unknown == 0;
}

bool kb_router_header_invalid(const struct kb_router *router, struct kb_str *name,
                              struct kb_str *value)
{
    for (unsigned i = 0; i < router->config->strict_check_count; i++) {
        enum kb_header_id id = strict_headers[router->config->strict_checks[i]].id;
        const struct kb_header *header = kb_header_map_get_id(router->request, id);

        if (header != NULL &&
            !strict_valid(strict_headers[router->config->strict_checks[i]].kind, header->value)) {
            *name = kb_header_id_name(id);
            *value = header->value;
            return true;
        }
    }
    return false;
}

static void strict_check_add(struct kb_router_config *config, uint8_t check)
{
    for (unsigned i = 0; i < config->strict_check_count; i++) {
        if (config->strict_checks[i] == check) {
            return;
        }
    }
    config->strict_checks[config->strict_check_count++] = check;
}

static void strict_checks_read(struct kb_router_config *config, const router_message *m)
{
    for (size_t n = 0; n < m->n_strict_check_headers; n++) {
        struct kb_str name = kb_wkt_str(m->strict_check_headers[n]);

        for (uint8_t i = 0; i < KB_ARRAY_LEN(strict_headers); i++) {
            if (kb_str_eq(name, kb_header_id_name(strict_headers[i].id))) {
                strict_check_add(config, i);
            }
        }
    }
}

static void upstream_log_read(struct kb_router_config *config, const router_message *m,
                              struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_factory_context inner = *factory;

    if (m->upstream_log_options != NULL) {
        config->upstream_log_on_ready =
            m->upstream_log_options->flush_upstream_log_on_upstream_stream;
        config->upstream_log_interval_ms =
            kb_wkt_duration_ms(m->upstream_log_options->upstream_log_flush_interval, 0);
    }
    if (m->n_upstream_log > 0) {
        inner.arena = &config->arena;
        config->upstream_log =
            kb_access_log_list_create(m->upstream_log, m->n_upstream_log, &inner, diag);
    }
}

int kb_router_config_create(const void *message, struct kb_factory_context *factory,
                            struct kb_diag *diag, void **out)
{
    const router_message *m = message;
    struct kb_router_config *config = kb_calloc(1, sizeof(*config));
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(config, kb_router_config);
    kb_arena_init(&config->arena, NULL);
    config->server = factory->server;
    config->dynamic_stats = true;
    *out = config;
    if (m == NULL) {
        return 0;
    }
    config->dynamic_stats = kb_wkt_bool(m->dynamic_stats, true);
    config->suppress_envoy_headers = m->suppress_envoy_headers;
    config->respect_expected_rq_timeout = m->respect_expected_rq_timeout;
    config->suppress_grpc_codes = m->suppress_grpc_request_failure_code_stats;
    strict_checks_read(config, m);
    upstream_log_read(config, m, factory, diag);
    config->http_filters = kb_upstream_http_chain_create(
        m->upstream_http_filters, m->n_upstream_http_filters, false, factory, diag);
    if (diag->error_count != errors) {
        kb_router_config_destroy(config);
        *out = NULL;
        return KB_ECONFIG;
    }
    return 0;
}

void kb_router_config_destroy(void *arg)
{
    struct kb_router_config *config = KB_CAST(arg, kb_router_config);

    if (config->upstream_log != NULL) {
        kb_access_log_list_destroy(config->upstream_log);
    }
    kb_upstream_http_chain_destroy(config->http_filters);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}
