/* SPDX-License-Identifier: Apache-2.0 */
/* local_reply_config of a connection manager: how answers of the proxy itself are changed.
 * Implemented in proxy/ext/http/local_reply.c. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/formatter.h"

struct kb_local_reply_config;
struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig;

/* In the factory's arena; NULL only after an error was reported. Dispose before the arena. */
struct kb_local_reply_config *kb_local_reply_config_create(
    const struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig
        *message,
    struct kb_factory_context *factory, struct kb_diag *diag);
void kb_local_reply_config_dispose(struct kb_local_reply_config *config);

/* Applies the first mapper whose filter matches (status, headers, body), then the body format.
 * `input->response` are the reply's headers; new text lives in headers->arena. */
void kb_local_reply_rewrite(const struct kb_local_reply_config *config,
                            struct kb_header_map *headers, struct kb_formatter_input *input,
                            struct kb_stream_info *info, unsigned *status, struct kb_str *body,
                            struct kb_str *content_type);
