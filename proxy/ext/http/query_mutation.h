/* SPDX-License-Identifier: Apache-2.0 */
/* Changes to the parameters of a request's query (envoy.config.core.v3.KeyValueMutation). For
 * header_mutation. */
#pragma once

#include "proxy/api/formatter.h"
#include "proxy/matcher/match_build.h"

struct kb_query_mutations;
struct Envoy__Config__Core__V3__KeyValueMutation;

/* NULL when there are none. Errors are reported under `field`, and set *failed. Lives in the
 * build's arena. */
const struct kb_query_mutations *
kb_query_mutations_create(struct Envoy__Config__Core__V3__KeyValueMutation *const *messages,
                          size_t count, const char *field, const struct kb_match_build *build,
                          bool *failed);

/* Writes the query anew: parameters by name, those of one name in their order, percent-decoded but
 * for what would not be a path. A NULL list does nothing. */
void kb_query_mutations_apply(const struct kb_query_mutations *mutations,
                              struct kb_header_map *headers, const struct kb_formatter_input *input,
                              const struct kb_stream_info *info);
