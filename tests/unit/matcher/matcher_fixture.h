/* SPDX-License-Identifier: Apache-2.0 */
/* Matchers from YAML. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/query_match.h"

struct matcher_fixture {
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_regex_list regexes;
    struct kb_match_build build;
};

static inline int matcher_setup(void **state)
{
    static struct matcher_fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    kb_header_names_init();
    kb_arena_init(&fixture.arena, NULL);
    kb_diag_init(&fixture.diag);
    fixture.build.arena = &fixture.arena;
    fixture.build.diag = &fixture.diag;
    fixture.build.regexes = &fixture.regexes;
    *state = &fixture;
    return 0;
}

static inline int matcher_teardown(void **state)
{
    struct matcher_fixture *fixture = *state;

    kb_regex_list_dispose(&fixture->regexes);
    kb_diag_dispose(&fixture->diag);
    kb_arena_dispose(&fixture->arena);
    return 0;
}

#define MATCHER_TEST(name) cmocka_unit_test_setup_teardown(name, matcher_setup, matcher_teardown)

static inline void *matcher_message(struct matcher_fixture *fixture,
                                    const ProtobufCMessageDescriptor *type, const char *yaml)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("t.yaml"), kb_str_from_cstr(yaml), &fixture->diag) == 0) {
        message = kb_pb_from_doc(type, &doc, KB_PB_UNKNOWN_ERROR, &fixture->arena, &fixture->diag);
    }
    kb_doc_dispose(&doc);
    if (message == NULL) {
        fail_msg("%s", yaml);
    }
    return message;
}
