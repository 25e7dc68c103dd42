/* SPDX-License-Identifier: Apache-2.0 */
/* How local_reply_config changes a local reply; between local_reply.c and local_reply_config.c. */
#pragma once

#include "proxy/http/local_reply.h"

/* Applies the first mapper whose filter matches, then the body format. */
void kb_local_reply_rewrite(struct kb_stream *stream, struct kb_header_map *headers, unsigned *status,
                            struct kb_str *body, struct kb_str *content_type);
