/* SPDX-License-Identifier: Apache-2.0 */
/* Filter state matchers (Envoy Matchers::FilterStateMatcher). */
#include "proxy/matcher/filter_state_match.h"

#include "envoy/type/matcher/v3/filter_state.pb-c.h"

int kb_filter_state_matcher_init(struct kb_filter_state_matcher *matcher,
                                 const Envoy__Type__Matcher__V3__FilterStateMatcher *message,
                                 const struct kb_match_build *build)
{
    int rc;

    matcher->key = kb_filter_state_key(kb_str_from_cstr(message->key));
    if ((int)message->matcher_case !=
        ENVOY__TYPE__MATCHER__V3__FILTER_STATE_MATCHER__MATCHER_STRING_MATCH) {
        kb_diag_error(build->diag, "only string_match is supported");
        return KB_ECONFIG;
    }
    kb_diag_push(build->diag, "string_match");
    rc = kb_string_matcher_init(&matcher->string, message->string_match, build);
    kb_diag_pop(build->diag);
    return rc;
}

bool kb_filter_state_matcher_match(const struct kb_filter_state_matcher *matcher,
                                   const struct kb_stream_info *info, struct kb_arena *arena)
{
    const struct kb_filter_state_item *item = kb_filter_state_find(info, matcher->key);
    struct kb_str text;

    return item != NULL && item->type->text != NULL &&
           item->type->text(item->object, arena, &text) &&
           kb_string_matcher_match(&matcher->string, text);
}
