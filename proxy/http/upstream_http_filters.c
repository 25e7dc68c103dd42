/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the HTTP filters of an attempt, all of which go on at once. */
#include "proxy/http/upstream_http_filters.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/http_filter_chain.h"

struct kb_upstream_http_chain {
    struct kb_arena arena;
    struct kb_hcm_filter_chain chain;
};

struct kb_upstream_http_filters {
    struct kb_upstream_http_filters *next; /* of another attempt of the stream */
    struct kb_stream *stream;
    size_t count;
    struct kb_upstream_http_filter filters[];
};

/* ---- configuration ---- */

static int codec_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **config)
{
    (void)message;
    (void)factory;
    (void)diag;
    *config = NULL;
    return 0;
}

/* Stands for the connection to the upstream, where the chain ends. */
const struct kb_http_filter_ops kb_ext_http_upstream_codec = {
    .name = "envoy.filters.http.upstream_codec",
    .type_url = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    .terminal = true,
    .config_create = codec_config_create,
};

struct kb_upstream_http_chain *kb_upstream_http_chain_create(
    struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpFilter *const
        *messages,
    size_t count, bool cluster, const struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_upstream_http_chain *chain;
    struct kb_factory_context inner = *factory;
    uint32_t errors = diag->error_count;

    if (count == 0) {
        return NULL;
    }
    chain = kb_calloc(1, sizeof(*chain));
    kb_arena_init(&chain->arena, NULL);
    inner.arena = &chain->arena;
    kb_http_filter_chain_build(
        &(struct kb_http_filter_chain_build){
            &chain->chain, KB_EXT_UPSTREAM_HTTP_FILTER,
            cluster ? "upstream http" : "router upstream http",
            " When upstream_http_filters are specified, they must explicitly end with an "
            "UpstreamCodec filter.",
            &inner, diag},
        messages, count, cluster ? "http_filters" : "upstream_http_filters");
    if (diag->error_count != errors) {
        kb_upstream_http_chain_destroy(chain);
        return NULL;
    }
    return chain;
}

void kb_upstream_http_chain_destroy(struct kb_upstream_http_chain *chain)
{
    if (chain == NULL) {
        return;
    }
    kb_http_filter_chain_dispose(&chain->chain);
    kb_arena_dispose(&chain->arena);
    free(chain);
}

/* ---- attempts ---- */

struct kb_upstream_http_filters *
kb_upstream_http_filters_create(const struct kb_upstream_http_chain *chain,
                                struct kb_stream *stream)
{
    struct kb_upstream_http_filters *filters = kb_arena_calloc(
        &stream->arena, sizeof(*filters) + chain->chain.count * sizeof(filters->filters[0]));

    filters->stream = stream;
    filters->next = stream->upstream_filters;
    stream->upstream_filters = filters;
    for (size_t i = 0; i < chain->chain.count; i++) {
        const struct kb_hcm_filter *from = &chain->chain.filters[i];

        if (!from->ops->terminal && !kb_stream_filter_off(stream, from)) {
            filters->filters[filters->count++] = (struct kb_upstream_http_filter){
                from->ops, from->ops->create(from->config, stream), from->name_id};
        }
    }
    return filters;
}

uint32_t kb_upstream_http_filter_name_id(const struct kb_upstream_http_filters *filters,
                                         const void *self)
{
    for (; filters != NULL; filters = filters->next) {
        for (size_t i = 0; i < filters->count; i++) {
            if (filters->filters[i].self == self) {
                return filters->filters[i].name_id;
            }
        }
    }
    return 0;
}

void kb_upstream_http_filters_decode_headers(struct kb_upstream_http_filters *filters,
                                             struct kb_header_map *headers, bool end_stream)
{
    for (size_t i = 0; i < filters->count; i++) {
        const struct kb_upstream_http_filter *filter = &filters->filters[i];

        if (filter->ops->decode_headers != NULL) {
            (void)filter->ops->decode_headers(filter->self, headers, end_stream);
        }
    }
}

void kb_upstream_http_filters_decode_trailers(struct kb_upstream_http_filters *filters,
                                              struct kb_header_map *trailers)
{
    for (size_t i = 0; i < filters->count; i++) {
        const struct kb_upstream_http_filter *filter = &filters->filters[i];

        if (filter->ops->decode_trailers != NULL) {
            (void)filter->ops->decode_trailers(filter->self, trailers);
        }
    }
}

void kb_upstream_http_filters_encode_headers(struct kb_upstream_http_filters *filters,
                                             struct kb_header_map *headers, bool end_stream)
{
    for (size_t i = filters->count; i-- > 0;) {
        const struct kb_upstream_http_filter *filter = &filters->filters[i];

        if (filter->ops->encode_headers != NULL) {
            (void)filter->ops->encode_headers(filter->self, headers, end_stream);
        }
    }
}

void kb_upstream_http_filters_encode_trailers(struct kb_upstream_http_filters *filters,
                                              struct kb_header_map *trailers)
{
    for (size_t i = filters->count; i-- > 0;) {
        const struct kb_upstream_http_filter *filter = &filters->filters[i];

        if (filter->ops->encode_trailers != NULL) {
            (void)filter->ops->encode_trailers(filter->self, trailers);
        }
    }
}

void kb_upstream_http_filters_destroy(struct kb_upstream_http_filters *filters)
{
    struct kb_upstream_http_filters **at = &filters->stream->upstream_filters;

    while (*at != NULL && *at != filters) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = filters->next;
    }
    for (size_t i = 0; i < filters->count; i++) {
        if (filters->filters[i].ops->on_destroy != NULL) {
            filters->filters[i].ops->on_destroy(filters->filters[i].self);
        }
    }
    filters->count = 0;
}
