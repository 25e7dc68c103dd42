/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of METADATA (see proxy/api/codec.h) that wait, one behind the other in one byte queue. */
#pragma once

#include "base/buf.h"

/* So much of one stream's may wait at one place. */
#define KB_METADATA_WAITING_MAX (1024u * 1024)

/* Moves the block behind those that wait. False: there are too many. */
KB_INLINE bool kb_metadata_blocks_push(struct kb_buf *blocks, struct kb_buf *block)
{
    uint32_t len = (uint32_t)block->len;

    if (blocks->len + block->len > KB_METADATA_WAITING_MAX) {
        return false;
    }
    kb_buf_append(blocks, &len, sizeof(len));
    kb_buf_move(blocks, block);
    return true;
}

/* Moves the first block to `block`, which is empty. False: none waits. */
KB_INLINE bool kb_metadata_blocks_pop(struct kb_buf *blocks, struct kb_buf *block)
{
    uint32_t len;

    if (blocks->len == 0) {
        return false;
    }
    (void)kb_buf_peek(blocks, &len, sizeof(len));
    kb_buf_consume(blocks, sizeof(len));
    kb_buf_move_first(block, blocks, len);
    return true;
}
