/* SPDX-License-Identifier: Apache-2.0 */
/* METADATA of a stream on its way past the filters: none of them looks at it, but while one holds
 * the headers back, what came behind them waits as well. */
#include "proxy/http/hcm_internal.h"
#include "proxy/http/metadata_blocks.h"

/* In the stream's arena. */
struct kb_stream_metadata {
    struct kb_buf request; /* blocks that wait */
    struct kb_buf answer;
};

static struct kb_stream_metadata *metadata_get(struct kb_stream *stream)
{
    if (stream->metadata == NULL) {
        stream->metadata = KB_ARENA_NEW(&stream->arena, struct kb_stream_metadata);
        kb_buf_init(&stream->metadata->request, &stream->hcm->worker->slices, 0);
        kb_buf_init(&stream->metadata->answer, &stream->hcm->worker->slices, 0);
    }
    return stream->metadata;
}

void kb_stream_metadata_dispose(struct kb_stream *stream)
{
    if (stream->metadata != NULL) {
        kb_buf_dispose(&stream->metadata->request);
        kb_buf_dispose(&stream->metadata->answer);
        stream->metadata = NULL;
    }
}

static void hold(struct kb_stream *stream, struct kb_buf *blocks, struct kb_buf *block)
{
    if (!kb_metadata_blocks_push(blocks, block)) {
        kb_stream_cut_off(stream);
    }
}

/* ---- the request's ---- */

static bool request_held(const struct kb_stream *stream)
{
    for (size_t i = 0; i < stream->filter_count; i++) {
        if (stream->filters[i].headers_stopped) {
            return true;
        }
    }
    return false;
}

static void request_pass(struct kb_stream *stream, struct kb_buf *block)
{
    const struct kb_stream_filter *last = &stream->filters[stream->filter_count - 1];

    if (last->ops->decode_metadata != NULL) {
        last->ops->decode_metadata(last->self, block);
    }
}

static bool request_over(const struct kb_stream *stream)
{
    return stream->ended || stream->local_complete || stream->replied_here ||
           stream->filter_count == 0;
}

void kb_stream_decode_metadata(struct kb_stream *stream, struct kb_buf *block)
{
    kb_stream_touch(stream);
    if (request_over(stream)) {
        return;
    }
    if (request_held(stream)) {
        hold(stream, &metadata_get(stream)->request, block);
    } else {
        request_pass(stream, block);
    }
}

void kb_stream_metadata_release(struct kb_stream *stream)
{
    struct kb_buf block;

    kb_buf_init(&block, &stream->hcm->worker->slices, 0);
    while (stream->metadata != NULL && !request_over(stream) && !request_held(stream) &&
           kb_metadata_blocks_pop(&stream->metadata->request, &block)) {
        request_pass(stream, &block);
        kb_buf_dispose(&block);
    }
}

/* ---- the answer's ---- */

static bool answer_held(const struct kb_stream *stream)
{
    for (size_t i = 0; stream->encoding != NULL && i < stream->filter_count; i++) {
        if (stream->filters[i].encode_stopped && stream->filters[i].encode_stop_all) {
            return true;
        }
    }
    return false;
}

void kb_stream_encode_metadata(struct kb_stream *stream, struct kb_buf *block)
{
    if (stream->ended || stream->encoder == NULL) {
        return;
    }
    kb_stream_touch(stream);
    if (answer_held(stream)) {
        hold(stream, &metadata_get(stream)->answer, block);
    } else {
        stream->encoder_ops->encode_metadata(stream->encoder, block);
    }
}

void kb_stream_metadata_answer_release(struct kb_stream *stream)
{
    struct kb_buf block;

    kb_buf_init(&block, &stream->hcm->worker->slices, 0);
    while (stream->metadata != NULL && !stream->ended && stream->encoder != NULL &&
           kb_metadata_blocks_pop(&stream->metadata->answer, &block)) {
        stream->encoder_ops->encode_metadata(stream->encoder, &block);
        kb_buf_dispose(&block);
    }
}
