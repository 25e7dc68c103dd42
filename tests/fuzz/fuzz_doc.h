/* SPDX-License-Identifier: Apache-2.0 */
/* Text of a configuration as a bootstrap, in JSON or YAML: reading, checking and writing never fail
 * in another way than by an error. Included once by each of the two targets. */
#pragma once

#include "tests/fuzz/fuzz.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "tests/fuzz/fuzz_message.h"

typedef int fuzz_doc_parse(struct kb_doc *doc, struct kb_str name, struct kb_str text,
                           struct kb_diag *diag);

static inline int fuzz_doc(fuzz_doc_parse *parse, struct kb_str text)
{
    const ProtobufCMessageDescriptor *type = &envoy__config__bootstrap__v3__bootstrap__descriptor;
    ProtobufCMessage *message = NULL;
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_doc doc;

    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    kb_doc_init(&doc);
    if (parse(&doc, KB_STR("fuzz"), text, &diag) == 0) {
        message = kb_pb_from_doc(
            type, &doc, text.len % 2 ? KB_PB_UNKNOWN_ERROR : KB_PB_UNKNOWN_WARN, &arena, &diag);
        (void)kb_doc_find(&doc, kb_str_first(text, 100));
    }
    KB_ASSERT((message == NULL) == (diag.error_count > 0));
    if (message != NULL) {
        fuzz_message(message, &arena, &diag);
    }
    for (const struct kb_diag_entry *entry = diag.first; entry != NULL; entry = entry->next) {
        KB_ASSERT(kb_diag_format(&diag, entry).len > 0);
    }
    kb_doc_dispose(&doc);
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    return 0;
}
