/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as messages from a control plane: the first two choose the type, or a DiscoveryResponse
 * and what its Any values hold. */
#include "tests/fuzz/fuzz.h"

#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "tests/fuzz/fuzz_message.h"

static const ProtobufCMessageDescriptor *type_of(const uint8_t *data)
{
    const ProtobufCMessageDescriptor *type = kb_pb_type_at((size_t)(data[0] << 8 | data[1]));

    return type != NULL ? type : &envoy__service__discovery__v3__discovery_response__descriptor;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ProtobufCMessage *message = NULL;
    struct kb_arena arena;
    struct kb_diag diag;

    if (size < 2) {
        return 0;
    }
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    if (kb_pb_unpack(type_of(data), kb_str_make((const char *)data + 2, size - 2), &arena,
                     &message) == 0) {
        fuzz_message(message, &arena, &diag);
        if (message->descriptor == &envoy__service__discovery__v3__discovery_response__descriptor) {
            const Envoy__Service__Discovery__V3__DiscoveryResponse *response =
                (const void *)message;

            for (size_t i = 0; i < response->n_resources; i++) {
                ProtobufCMessage *resource =
                    kb_any_unpack(response->resources[i], NULL, &arena, &diag);

                if (resource != NULL) {
                    fuzz_message(resource, &arena, &diag);
                }
            }
        }
    }
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    return 0;
}
