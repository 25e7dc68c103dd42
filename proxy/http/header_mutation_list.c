/* SPDX-License-Identifier: Apache-2.0 */
/* Header mutations that are applied one after the other. */
#include "proxy/http/header_mutation_list.h"

#include "envoy/config/common/mutation_rules/v3/mutation_rules.pb-c.h"
#include "proxy/matcher/string_match.h"

#define ACTION(name) ENVOY__CONFIG__COMMON__MUTATION_RULES__V3__HEADER_MUTATION__ACTION_##name

typedef Envoy__Config__Common__MutationRules__V3__HeaderMutation mutation_message;

struct mutation_step {
    const struct kb_header_mutations *change; /* NULL: removes by name */
    struct kb_string_matcher remove_names;
};

struct kb_header_mutation_list {
    size_t count;
    struct mutation_step steps[];
};

static void step_create(struct mutation_step *step, const mutation_message *message,
                        const struct kb_match_build *build, bool *failed)
{
    int rc = KB_ECONFIG;

    switch (message->action_case) {
    case ACTION(APPEND):
        step->change =
            kb_header_mutations_create(&message->append, 1, NULL, 0, "request", build, failed);
        return;
    case ACTION(REMOVE):
        step->change =
            kb_header_mutations_create(NULL, 0, &message->remove, 1, "request", build, failed);
        return;
    case ACTION(REMOVE_ON_MATCH):
        kb_diag_push(build->diag, "remove_on_match");
        kb_diag_push(build->diag, "key_matcher");
        if (message->remove_on_match->key_matcher == NULL) {
            kb_diag_error(build->diag, "value is required");
        } else {
            rc = kb_string_matcher_init(&step->remove_names, message->remove_on_match->key_matcher,
                                        build);
        }
        kb_diag_pop(build->diag);
        kb_diag_pop(build->diag);
        break;
    case ACTION(_NOT_SET):
    default:
        kb_diag_error(build->diag, "action: is required");
        break;
    }
    *failed |= rc != 0;
}

const struct kb_header_mutation_list *
kb_header_mutation_list_create(mutation_message *const *messages, size_t n, const char *field,
                               const struct kb_match_build *build, bool *failed)
{
    struct kb_header_mutation_list *list;

    if (n == 0) {
        return NULL;
    }
    list = kb_arena_calloc(build->arena, sizeof(*list) + n * sizeof(list->steps[0]));
    list->count = n;
    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(build->diag, field, i);
        step_create(&list->steps[i], messages[i], build, failed);
        kb_diag_pop(build->diag);
    }
    return list;
}

static void matching_remove(const struct kb_string_matcher *matcher, struct kb_header_map *headers)
{
    KB_HEADER_FOREACH(header, headers)
    {
        if (kb_string_matcher_match(matcher, header->name)) {
            kb_header_map_remove(headers, header->name);
        }
    }
}

void kb_header_mutation_list_apply(const struct kb_header_mutation_list *list,
                                   struct kb_header_map *headers,
                                   const struct kb_formatter_input *input,
                                   const struct kb_stream_info *info)
{
    for (size_t i = 0; list != NULL && i < list->count; i++) {
        if (list->steps[i].change != NULL) {
            kb_header_mutations_apply(list->steps[i].change, headers, input, info);
        } else {
            matching_remove(&list->steps[i].remove_names, headers);
        }
    }
}
