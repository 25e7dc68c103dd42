/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of proto/ share: an arena and diagnostics for each test, and short ways to ask. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/diag.h"
#include "proto/any.h"
#include "proto/pb_json.h"

struct fixture {
    struct kb_arena arena;
    struct kb_diag diag;
};

static inline int fixture_setup(void **state)
{
    static struct fixture fixture;

    kb_arena_init(&fixture.arena, NULL);
    kb_diag_init(&fixture.diag);
    *state = &fixture;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;

    kb_diag_dispose(&fixture->diag);
    kb_arena_dispose(&fixture->arena);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

/* All that was reported so far, one line each, and forgets it. */
static inline const char *reported(struct fixture *fixture)
{
    struct kb_str all = KB_STR("");

    for (struct kb_diag_entry *entry = fixture->diag.first; entry != NULL; entry = entry->next) {
        struct kb_str line = kb_diag_format(&fixture->diag, entry);

        all = kb_str_printf(&fixture->arena, "%.*s%.*s\n", KB_STR_ARG(all), KB_STR_ARG(line));
    }
    kb_diag_dispose(&fixture->diag);
    return all.p;
}

/* YAML (of which JSON is a part, but for Envoy's rules of scalars) to message; NULL on error. */
static inline void *from_yaml(struct fixture *fixture, const ProtobufCMessageDescriptor *type,
                              const char *text)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("t.yaml"), kb_str_from_cstr(text), &fixture->diag) == 0) {
        message = kb_pb_from_doc(type, &doc, KB_PB_UNKNOWN_ERROR, &fixture->arena, &fixture->diag);
    }
    kb_doc_dispose(&doc);
    return message;
}

static inline void *from_json(struct fixture *fixture, const ProtobufCMessageDescriptor *type,
                              const char *text)
{
    return kb_pb_json_parse(type, KB_STR("t.json"), kb_str_from_cstr(text), KB_PB_UNKNOWN_ERROR,
                            &fixture->arena, &fixture->diag);
}

/* Message to JSON as a C string in the arena. */
static inline const char *to_json(struct fixture *fixture, const void *message, unsigned flags)
{
    struct kb_json_out out;
    struct kb_str copy;

    kb_json_out_init(&out, 0);
    kb_pb_json_write(&out, message, flags, 0);
    copy = kb_str_dup(&fixture->arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return copy.p;
}
