/* SPDX-License-Identifier: Apache-2.0 */
/* What a stream was, as a message: the entries that access log services get (Envoy
 * GrpcCommon::Utility). https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/data/accesslog/v3 */
#pragma once

#include "envoy/data/accesslog/v3/accesslog.pb-c.h"
#include "proxy/access_log/custom_tag.h"
#include "proxy/api/filter_state.h"

/* What is put into an entry beyond what every entry has. Immutable; in its logger's arena. */
struct kb_log_entry_config {
    const struct kb_custom_tag *tags;
    size_t tag_count;
    const struct kb_filter_state_key *const *states;
    size_t state_count;
    const struct kb_str *request_headers; /* lower case */
    size_t request_header_count;
    const struct kb_str *response_headers;
    size_t response_header_count;
    const struct kb_str *response_trailers;
    size_t response_trailer_count;
};

/* The entry of an HTTP stream, or of a TCP connection, in the arena; it borrows nothing. On the
 * stream's worker. */
Envoy__Data__Accesslog__V3__HTTPAccessLogEntry *
kb_log_entry_http(const struct kb_log_entry_config *config, const struct kb_formatter_input *input,
                  const struct kb_stream_info *info, struct kb_arena *arena);
Envoy__Data__Accesslog__V3__TCPAccessLogEntry *
kb_log_entry_tcp(const struct kb_log_entry_config *config, const struct kb_formatter_input *input,
                 const struct kb_stream_info *info, struct kb_arena *arena);

/* The part that both kinds have, and its TLS properties; for proxy/access_log/log_entry.c. */
Envoy__Data__Accesslog__V3__AccessLogCommon *
kb_log_entry_common(const struct kb_log_entry_config *config,
                    const struct kb_formatter_input *input, const struct kb_stream_info *info,
                    struct kb_arena *arena);
Envoy__Data__Accesslog__V3__TLSProperties *kb_log_entry_tls(const struct kb_stream_info *info,
                                                            struct kb_arena *arena);
