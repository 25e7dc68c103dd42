/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a YAML bootstrap: reading, checking and writing never fail in another way than by an
 * error. */
#include "tests/fuzz/fuzz.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "tests/fuzz/fuzz_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *type = &envoy__config__bootstrap__v3__bootstrap__descriptor;
    struct kb_str text = kb_str_make((const char *)data, size);
    ProtobufCMessage *message = NULL;
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_doc doc;

    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("fuzz"), text, &diag) == 0) {
        message = kb_pb_from_doc(type, &doc, size % 2 ? KB_PB_UNKNOWN_ERROR : KB_PB_UNKNOWN_WARN,
                                 &arena, &diag);
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
