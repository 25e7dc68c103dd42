/* SPDX-License-Identifier: Apache-2.0 */
/* Header mutations in the order in which they are configured (envoy.config.common.mutation_rules.v3
 * HeaderMutation; Envoy's HeaderMutations). */
#pragma once

#include "proxy/http/header_mutation.h"

struct kb_header_mutation_list;
struct Envoy__Config__Common__MutationRules__V3__HeaderMutation;

/* NULL when there are none. Errors are reported under `field`, and set *failed. Lives in the
 * build's arena. */
const struct kb_header_mutation_list *kb_header_mutation_list_create(
    struct Envoy__Config__Common__MutationRules__V3__HeaderMutation *const *messages, size_t n,
    const char *field, const struct kb_match_build *build, bool *failed);

/* One after the other: each sees what the ones before it did. A NULL list does nothing. New text
 * lives in headers->arena. */
void kb_header_mutation_list_apply(const struct kb_header_mutation_list *list,
                                   struct kb_header_map *headers,
                                   const struct kb_formatter_input *input,
                                   const struct kb_stream_info *info);
