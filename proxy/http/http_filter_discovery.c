/* SPDX-License-Identifier: Apache-2.0 */
/* What is special to HTTP filters from a control plane: a stream whose filter has no configuration
 * is answered with 500. */
#include "proxy/http/http_filter_discovery.h"

#include "proxy/api/extension.h"

static bool http_terminal(const void *ops)
{
    return ((const struct kb_http_filter_ops *)ops)->terminal;
}

static int http_config_create(const void *ops, const void *message,
                              struct kb_factory_context *factory, struct kb_diag *diag,
                              void **config)
{
    return ((const struct kb_http_filter_ops *)ops)->config_create(message, factory, diag, config);
}

static void http_config_destroy(const void *ops, void *config)
{
    if (((const struct kb_http_filter_ops *)ops)->config_destroy != NULL) {
        ((const struct kb_http_filter_ops *)ops)->config_destroy(config);
    }
}

const struct kb_filter_discovery_kind kb_http_filter_discovery = {
    .category = KB_EXT_HTTP_FILTER,
    .stats = "http_filter",
    .chain = "http",
    .needs_default = true,
    .terminal = http_terminal,
    .config_create = http_config_create,
    .config_destroy = http_config_destroy,
};

/* ---- the filter that is missing ---- */

static void *missing_create(void *config, struct kb_stream *stream)
{
    (void)config;
    return stream;
}

static enum kb_filter_headers_status missing_headers(void *filter, struct kb_header_map *headers,
                                                     bool end_stream)
{
    struct kb_stream *stream = filter;

    (void)headers;
    (void)end_stream;
    kb_stream_info_set_flag(kb_stream_stream_info(stream), KB_RF_NO_FILTER_CONFIG_FOUND);
    /* with details that are there and empty, as Envoy's */
    kb_stream_send_local_reply(stream, 500, KB_STR_NULL, KB_STR(""), NULL, NULL);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static enum kb_filter_data_status missing_data(void *filter, struct kb_buf *data, bool end_stream)
{
    (void)filter;
    (void)data;
    (void)end_stream;
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status missing_trailers(void *filter, struct kb_header_map *trailers)
{
    (void)filter;
    (void)trailers;
    return KB_FILTER_TRAILERS_CONTINUE;
}

const struct kb_http_filter_ops kb_http_filter_missing = {
    .name = "envoy.filters.http.missing_config",
    .create = missing_create,
    .decode_headers = missing_headers,
    .decode_data = missing_data,
    .decode_trailers = missing_trailers,
};
