/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as what a peer says of itself: before a connection's bytes, and in a header. Promise
 * checked besides memory safety: what was understood can be told again and is understood alike. */
#include "tests/fuzz/fuzz.h"

#include "base/obj.h"
#include "proxy/ext/common/peer_preface.h"

static void told_again(const struct kb_workload *peer)
{
    struct kb_workload *again;
    struct kb_arena arena;
    struct kb_str text, other;

    kb_arena_init(&arena, NULL);
    again = kb_workload_from_base64(kb_workload_to_base64(peer, &arena), NULL);
    if (again != NULL) {
        KB_ASSERT(kb_workload_state_type.text(peer, &arena, &text));
        KB_ASSERT(kb_workload_state_type.text(again, &arena, &other));
        KB_ASSERT(kb_str_eq(peer->name, again->name) && kb_str_eq(peer->app, again->app));
        KB_ASSERT(kb_workload_state_type.json(again, &arena, &text));
        kb_workload_unref(again);
    }
    kb_arena_dispose(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_str bytes = kb_str_make((const char *)data, size);
    struct kb_workload *peer;
    uint32_t len;

    if (size >= KB_PEER_PREFACE_HEAD && kb_peer_preface_head(data, &len) &&
        len <= size - KB_PEER_PREFACE_HEAD &&
        kb_peer_preface_read(kb_str_make(bytes.p + KB_PEER_PREFACE_HEAD, len), NULL, &peer) == 0 &&
        peer != NULL) {
        told_again(peer);
        kb_workload_unref(peer);
    }
    peer = kb_workload_from_base64(bytes, NULL);
    if (peer != NULL) {
        told_again(peer);
        kb_workload_unref(peer);
    }
    return 0;
}
