/* SPDX-License-Identifier: Apache-2.0 */
/* Header mutations on any headers. Lines up to an empty one are mutations ("+name: value" with
 * formatter commands, whose first letter chooses what happens to a header that exists; "-name";
 * "*prefix" for all of a kind), those behind it headers. Promises: what is removed is gone, names
 * stay lower case, and clean values stay clean. */
#include "tests/fuzz/fuzz.h"

#include "base/obj.h"
#include "envoy/config/common/mutation_rules/v3/mutation_rules.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/type/matcher/v3/string.pb-c.h"
#include "proxy/http/header_mutation_list.h"

#define STEPS_MAX    12
#define HEADERS_MAX  40
#define INPUT_MAX    6000
#define ACTION(name) ENVOY__CONFIG__COMMON__MUTATION_RULES__V3__HEADER_MUTATION__ACTION_##name

typedef Envoy__Config__Common__MutationRules__V3__HeaderMutation mutation_message;

struct step {
    mutation_message message;
    Envoy__Config__Core__V3__HeaderValueOption option;
    Envoy__Config__Core__V3__HeaderValue header;
    Envoy__Config__Common__MutationRules__V3__HeaderMutation__RemoveOnMatch on_match;
    Envoy__Type__Matcher__V3__StringMatcher matcher;
};

/* As names and values are when the parser has let them through. */
static char *text_clean(struct kb_arena *arena, struct kb_str text, bool name)
{
    char *copy = (char *)(uintptr_t)kb_str_dup(arena, text).p;

    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)copy[i];

        if (c == '\0' || c == '\r' || c == '\n' || c == 0x7f || (c < 0x20 && c != '\t')) {
            copy[i] = '?';
        } else if (name) {
            copy[i] = c <= ' ' || c == ':' || c > 0x7e ? '-' : kb_ascii_lower(copy[i]);
        }
    }
    return copy;
}

static void value_split(struct kb_str line, struct kb_str *name, struct kb_str *value)
{
    ptrdiff_t colon = kb_str_find_char(line, ':');

    *name = colon >= 0 ? kb_str_first(line, (size_t)colon) : line;
    *value = colon >= 0 ? kb_str_trim(kb_str_from(line, (size_t)colon + 1)) : KB_STR("");
}

/* False for a line that is none. */
static bool step_read(struct step *step, struct kb_str line, struct kb_arena *arena)
{
    struct kb_str name, value;

    if (line.len < 2) {
        return false;
    }
    value_split(kb_str_from(line, 1), &name, &value);
    envoy__config__common__mutation_rules__v3__header_mutation__init(&step->message);
    if (line.p[0] == '+') {
        envoy__config__core__v3__header_value_option__init(&step->option);
        envoy__config__core__v3__header_value__init(&step->header);
        step->header.key = text_clean(arena, name, true);
        step->header.value = text_clean(arena, value, false);
        step->option.header = &step->header;
        step->option.append_action =
            (Envoy__Config__Core__V3__HeaderValueOption__HeaderAppendAction)((unsigned char)
                                                                                 line.p[1] %
                                                                             4);
        step->option.keep_empty_value = value.len % 2 == 0;
        step->message.action_case = ACTION(APPEND);
        step->message.append = &step->option;
    } else if (line.p[0] == '-') {
        step->message.action_case = ACTION(REMOVE);
        step->message.remove = text_clean(arena, name, true);
    } else if (line.p[0] == '*') {
        envoy__config__common__mutation_rules__v3__header_mutation__remove_on_match__init(
            &step->on_match);
        envoy__type__matcher__v3__string_matcher__init(&step->matcher);
        step->matcher.match_pattern_case =
            ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX;
        step->matcher.prefix = text_clean(arena, name, true);
        step->on_match.key_matcher = &step->matcher;
        step->message.action_case = ACTION(REMOVE_ON_MATCH);
        step->message.remove_on_match = &step->on_match;
    } else {
        return false;
    }
    return true;
}

static void headers_read(struct kb_header_map *map, struct kb_str *rest, struct kb_arena *arena)
{
    struct kb_str line, name, value;

    while (map->count < HEADERS_MAX && kb_str_next_token(rest, '\n', &line)) {
        value_split(line, &name, &value);
        name = kb_str_trim(name);
        if (name.len > 0) {
            kb_header_map_append(map, kb_str_from_cstr(text_clean(arena, name, true)),
                                 kb_str_from_cstr(text_clean(arena, value, false)));
        }
    }
}

static void headers_check(const struct kb_header_map *map)
{
    uint32_t live = 0;

    KB_HEADER_FOREACH(header, map)
    {
        live++;
        KB_ASSERT(header->name.len > 0);
        for (size_t i = 0; i < header->name.len; i++) {
            KB_ASSERT(kb_ascii_lower(header->name.p[i]) == header->name.p[i]);
        }
        KB_ASSERT(kb_str_find_char(header->value, '\n') < 0);
        KB_ASSERT(kb_str_find_char(header->value, '\r') < 0);
        KB_ASSERT(kb_str_find_char(header->value, '\0') < 0);
    }
    KB_ASSERT(live == map->live);
}

/* What the last step took away is not there. */
static void removed_check(const struct step *step, const struct kb_header_map *map)
{
    KB_HEADER_FOREACH(header, map)
    {
        if (step->message.action_case == ACTION(REMOVE)) {
            KB_ASSERT(!kb_str_eq(header->name, kb_str_from_cstr(step->message.remove)));
        } else if (step->message.action_case == ACTION(REMOVE_ON_MATCH)) {
            KB_ASSERT(!kb_str_starts_with(header->name, kb_str_from_cstr(step->matcher.prefix)));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_connection_info connection = {.id = 7};
    struct kb_stream_info info = {.connection = &connection, .protocol = KB_PROTOCOL_HTTP11};
    struct kb_formatter_input input = {.access_log_type = "DownstreamEnd"};
    struct step steps[STEPS_MAX];
    mutation_message *messages[STEPS_MAX];
    const struct kb_header_mutation_list *list;
    struct kb_regex_list regexes = {NULL};
    struct kb_header_map map;
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_str rest, line;
    bool failed = false;
    size_t count = 0;

    if (size > INPUT_MAX) {
        return 0;
    }
    kb_header_names_init();
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    kb_header_map_init(&map, &arena);
    rest = kb_str_dup(&arena, kb_str_make((const char *)data, size));
    while (count < STEPS_MAX && kb_str_next_token(&rest, '\n', &line) && line.len > 0) {
        if (step_read(&steps[count], line, &arena)) {
            messages[count] = &steps[count].message;
            count++;
        }
    }
    headers_read(&map, &rest, &arena);
    map.method = KB_STR("GET");
    map.path = KB_STR("/p?q=1");
    map.authority = KB_STR("a.test");
    input.request = &map;
    list = kb_header_mutation_list_create(
        messages, count, "mutations",
        &(const struct kb_match_build){.arena = &arena, .regexes = &regexes, .diag = &diag},
        &failed);
    KB_ASSERT(failed == (diag.error_count > 0));
    if (!failed) {
        kb_header_mutation_list_apply(list, &map, &input, &info);
        headers_check(&map);
        if (count > 0) {
            removed_check(&steps[count - 1], &map);
        }
    }
    kb_regex_list_dispose(&regexes);
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    return 0;
}
