/* SPDX-License-Identifier: Apache-2.0 */
/* header_key_format of HTTP/1 options: how a codec writes the names of headers. For connection
 * managers and clusters, while they are built. */
#pragma once

#include "base/arena.h"
#include "base/diag.h"

struct kb_header_key_format {
    bool proper_case_words;
    bool preserve_case;
    bool proper_case_otherwise; /* with preserve_case; see struct kb_h1_settings */
    bool forward_reason_phrase;
};

struct Envoy__Config__Core__V3__Http1ProtocolOptions__HeaderKeyFormat;

/* `message` may be NULL: as if nothing were asked for. Errors go to diag, under
 * "header_key_format". */
void kb_header_key_format_read(
    const struct Envoy__Config__Core__V3__Http1ProtocolOptions__HeaderKeyFormat *message,
    struct kb_header_key_format *format, struct kb_arena *arena, struct kb_diag *diag);
