/* SPDX-License-Identifier: Apache-2.0 */
/* AccessLogFilter: which streams a logger logs. Immutable after creation, shared by workers. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/formatter.h"
#include "proxy/matcher/match_build.h"

struct kb_log_filter;
struct Envoy__Config__Accesslog__V3__AccessLogFilter;

/* In build->arena; NULL after errors were reported at the present path. Main thread. */
struct kb_log_filter *
kb_log_filter_create(const struct Envoy__Config__Accesslog__V3__AccessLogFilter *message,
                     struct kb_factory_context *factory, const struct kb_match_build *build);
/* Whether the stream is to be logged. On its worker. */
bool kb_log_filter_evaluate(const struct kb_log_filter *filter,
                            const struct kb_formatter_input *input,
                            const struct kb_stream_info *info);
