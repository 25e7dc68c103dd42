/* SPDX-License-Identifier: Apache-2.0 */
/* istio.alpn: by the HTTP version that is going to be spoken with the upstream, its connections
 * offer other application protocols than their transport socket says, so that the peer's proxy
 * knows that another proxy calls. */
#include <stdlib.h>

#include "base/mem.h"
#include "istio/alpn.pb-c.h"
#include "proxy/api/cluster.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/transport_socket.h"

typedef Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig config_message;
typedef Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig__AlpnOverride
    override_message;

enum { UPSTREAM_HTTP10, UPSTREAM_HTTP11, UPSTREAM_HTTP2, UPSTREAM_COUNT };

struct alpn_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_transport_socket_options options[UPSTREAM_COUNT]; /* alpn_count 0: as it is */
};
KB_OBJ_MAGIC(alpn_config, 0x414c504e);

static void override_read(struct alpn_config *config, const override_message *m,
                          struct kb_diag *diag)
{
    struct kb_transport_socket_options *options;
    struct kb_str *names;

    if ((unsigned)m->upstream_protocol >= UPSTREAM_COUNT) {
        kb_diag_error(diag, "upstream_protocol: %d is none of HTTP10, HTTP11 and HTTP2",
                      (int)m->upstream_protocol);
        return;
    }
    names = kb_arena_calloc(&config->arena, (m->n_alpn_override + 1) * sizeof(*names));
    for (size_t i = 0; i < m->n_alpn_override; i++) {
        names[i] = kb_str_dup(&config->arena, kb_str_from_cstr(m->alpn_override[i]));
        if (names[i].len == 0 || names[i].len > 255) {
            kb_diag_error(diag, "alpn_override: a name of 1 to 255 bytes is needed, not '%s'",
                          m->alpn_override[i]);
        }
    }
    options = &config->options[m->upstream_protocol];
    options->alpn = names;
    options->alpn_count = m->n_alpn_override;
}

static void config_destroy(void *arg)
{
    struct alpn_config *config = KB_CAST(arg, alpn_config);

    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const config_message *m = message;
    struct alpn_config *config = kb_calloc(1, sizeof(*config));
    uint32_t errors = diag->error_count;

    (void)factory;
    KB_OBJ_SET(config, alpn_config);
    kb_arena_init(&config->arena, NULL);
    for (size_t i = 0; i < m->n_alpn_override; i++) {
        kb_diag_push_index(diag, "alpn_override", i);
        override_read(config, m->alpn_override[i], diag);
        kb_diag_pop(diag);
    }
    if (diag->error_count != errors) {
        config_destroy(config);
        return KB_ECONFIG;
    }
    *out = config;
    return 0;
}

/* Nothing is kept for a stream but what it belongs to. */
struct alpn {
    KB_OBJ;
    const struct alpn_config *config;
    struct kb_stream *stream;
};
KB_OBJ_MAGIC(alpn, 0x414c5046);

static void *create(void *config, struct kb_stream *stream)
{
    struct alpn *filter = kb_arena_alloc(kb_stream_arena(stream), sizeof(*filter), sizeof(void *));

    KB_OBJ_SET(filter, alpn);
    filter->config = KB_CAST(config, alpn_config);
    filter->stream = stream;
    return filter;
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    const struct alpn *filter = KB_CAST(arg, alpn);
    struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    const struct kb_cluster *cluster = kb_stream_route_cluster(filter->stream);
    const struct kb_transport_socket_options *options;

    (void)headers;
    (void)end_stream;
    if (cluster == NULL || cluster->istio.keeps_alpn) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    options = &filter->config
                   ->options[kb_cluster_speaks_http2(cluster, info->protocol) ? UPSTREAM_HTTP2
                                                                              : UPSTREAM_HTTP11];
    if (options->alpn_count > 0 && info->transport_options != NULL) {
        struct kb_transport_socket_options *both =
            KB_ARENA_NEW(kb_stream_arena(filter->stream), struct kb_transport_socket_options);

        *both = *info->transport_options;
        both->alpn = options->alpn;
        both->alpn_count = options->alpn_count;
        info->transport_options = both;
    } else if (options->alpn_count > 0) {
        info->transport_options = options;
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_alpn = {
    .name = "istio.alpn",
    .type_url = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
};
