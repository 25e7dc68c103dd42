/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile HTTP/2 server: its bytes go into a client session with three gRPC streams, in pieces
 * whose length the first byte gives; some have their answers in an arena, one sends trailers. Every
 * stream hears of its end exactly once, windows and statistics add up, and what waits to be sent
 * stays bounded. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/worker.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/h2_client_session.h"
#include "proxy/stats/stat_store.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS     3
#define MESSAGE_MAX 65536

struct user {
    struct kb_h2_stream *stream;
    struct kb_grpc_frame_reader reader;
    unsigned heads, ends;
    bool closed;
};

static struct kb_slice_source slices;
static struct kb_stat_block *stats;
static struct kb_h2_mem mem;

static void check(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void user_close(struct user *user)
{
    if (!user->closed) {
        user->closed = true;
        kb_h2_stream_close(user->stream, 2);
    }
}

static void on_1xx(void *owner, struct kb_header_map *headers)
{
    struct user *user = owner;

    check(user->heads == 0 && user->ends == 0);
    check(headers->status >= 100 && headers->status < 200);
}

static void on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct user *user = owner;

    (void)end_stream;
    check(++user->heads == 1 && user->ends == 0);
    check(headers->status >= 200 && headers->status <= 999);
    check(kb_header_map_bytes(headers) <= 2000);
}

static bool on_message(void *arg, struct kb_str message)
{
    (void)arg;
    check(message.len <= MESSAGE_MAX);
    return true;
}

static void on_data(void *owner, const char *bytes, size_t len)
{
    struct user *user = owner;

    check(user->heads == 1 && user->ends == 0 && len > 0);
    if (kb_grpc_frame_read(&user->reader, bytes, len, on_message, user) != 0) {
        user_close(user);
        return;
    }
    kb_h2_stream_consume(user->stream, len);
}

static void on_end(void *owner, struct kb_header_map *trailers)
{
    struct user *user = owner;

    (void)trailers;
    check(++user->ends == 1 && user->heads == 1);
    user_close(user);
}

/* It goes back, wherever the request stands. */
static void on_metadata(void *owner, struct kb_buf *block)
{
    struct user *user = owner;

    check(user->ends == 0 && !user->closed && block->len > 0);
    kb_h2_stream_send_metadata(user->stream, block);
    check(block->len == 0);
}

static void on_reset(void *owner, enum kb_reset_reason reason)
{
    struct user *user = owner;

    check(++user->ends == 1 && reason < KB_RESET_COUNT);
    user_close(user);
}

static void on_below_low(void *owner)
{
    (void)owner;
}

static const struct kb_h2_stream_callbacks stream_callbacks = {
    .on_1xx = on_1xx,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_end = on_end,
    .on_metadata = on_metadata,
    .on_reset = on_reset,
    .on_below_low = on_below_low,
};
static const struct kb_h2_session_callbacks session_callbacks = {.on_goaway = NULL};

static void once(void)
{
    struct kb_stat_store *store;

    if (stats != NULL) {
        return;
    }
    kb_header_names_init();
    kb_slice_source_init(&slices, 16);
    kb_h2_mem_init(&mem);
    store = kb_stat_store_create(0);
    stats = kb_stat_group_block(
        kb_stat_group_create(store, KB_STR("http2."), &kb_stat_schema_http2), 0);
}

static void user_open(struct user *user, struct kb_h2_session *session, struct kb_arena *arena,
                      struct kb_arena *answers, bool trailers)
{
    struct kb_header_map headers;
    struct kb_buf data;

    kb_header_map_init(&headers, arena);
    headers.method = KB_STR("POST");
    headers.path = KB_STR("/a.B/C");
    headers.authority = KB_STR("a");
    headers.scheme = KB_STR("http");
    kb_grpc_frame_reader_init(&user->reader, MESSAGE_MAX);
    user->stream = kb_h2_stream_open(session, &headers, false, &stream_callbacks, user, answers);
    check(user->stream != NULL);
    kb_buf_init(&data, &slices, 0);
    kb_grpc_frame_write(&data, KB_STR("hello"));
    kb_h2_stream_send(user->stream, &data, false);
    if (trailers) {
        kb_header_map_init(&headers, arena);
        kb_header_map_add(&headers, KB_STR("x-t"), KB_STR("v"));
        kb_h2_stream_send_trailers(user->stream, &headers);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct kb_h2_settings settings = {.max_header_bytes = 2000,
                                            .max_header_count = 20,
                                            .allow_metadata = true,
                                            .max_metadata_bytes = 10000};
    struct user users[STREAMS] = {{0}};
    struct kb_h2_session *session;
    struct kb_arena arena;
    struct kb_buf out;
    size_t piece = size > 0 ? (size_t)data[0] % 64 + 1 : 1;
    int rc = 0;

    once();
    kb_arena_init(&arena, NULL);
    kb_buf_init(&out, &slices, 0);
    session = kb_h2_session_create(&settings, &session_callbacks, NULL, &slices, &mem, stats);
    for (unsigned i = 0; i < STREAMS; i++) {
        user_open(&users[i], session, &arena, i > 0 ? &arena : NULL, i == 2);
    }
    for (size_t at = 1; at < size && rc == 0; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        char *copy = kb_malloc(n);

        memcpy(copy, data + at, n);
        rc = kb_h2_session_receive(session, copy, n, at);
        free(copy);
        if (rc == 0) {
            rc = kb_h2_session_send(session, &out, 1 << 20);
        }
        check(out.len < (1u << 20) + 65536);
    }
    kb_h2_session_destroy(session, KB_RESET_CONNECTION_TERMINATION);
    for (unsigned i = 0; i < STREAMS; i++) {
        check(users[i].closed && users[i].ends <= 1);
        kb_grpc_frame_reader_dispose(&users[i].reader);
    }
    check(stats->cells[KB_STAT_HTTP2_STREAMS_ACTIVE] == 0);
    check(stats->cells[KB_STAT_HTTP2_PENDING_SEND_BYTES] == 0);
    check(mem.bytes_in_use == 0);
    kb_buf_dispose(&out);
    kb_arena_dispose(&arena);
    return 0;
}
