/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile HTTP/2 client: its bytes go into a server session whose streams are answered in ways
 * that their paths choose. The first byte gives the length of pieces, the second whether the client
 * reads. Every stream hears of its end once, headers stay within their limit, windows, memory and
 * statistics add up, and what waits to be sent stays bounded. */
#include <stdlib.h>
#include <string.h>

#include "base/worker.h"
#include "proxy/http/h2_server_session.h"
#include "proxy/stats/stat_store.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS_MAX  256
#define HEADER_BYTES 2000
#define HEADER_COUNT 20
#define OUT_MAX      (64u * 1024)
#define BODY_BYTES   (32u * 1024)

struct user {
    struct kb_h2_server_stream *stream;
    struct kb_arena arena;
    struct kb_header_map headers;
    struct kb_header_map response;
    struct kb_stream_info info;
    unsigned heads, ends;
    bool above;
    bool disabled;
    bool used;
    bool gone;
};

static struct kb_slice_source slices;
static struct kb_h2_mem mem;
static struct kb_stat_block *stats;
static struct user users[STREAMS_MAX];
static unsigned user_count;

static void check(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void on_stream(void *session_owner, struct kb_h2_server_stream *stream,
                      struct kb_h2_server_request *request)
{
    struct user *user = &users[user_count % STREAMS_MAX];

    (void)session_owner;
    if (user->used) {
        return; /* nobody takes it */
    }
    user_count++;
    user->used = true;
    user->stream = stream;
    kb_arena_init(&user->arena, NULL);
    kb_header_map_init(&user->headers, &user->arena);
    kb_header_map_init(&user->response, &user->arena);
    request->owner = user;
    request->headers = &user->headers;
    request->info = &user->info;
}

static void body_send(struct user *user, bool end)
{
    struct kb_buf body;

    kb_buf_init(&body, &slices, 0);
    memset(kb_buf_reserve(&body, BODY_BYTES), 'b', BODY_BYTES);
    kb_buf_commit(&body, BODY_BYTES);
    kb_h2_server_stream_data(user->stream, &body, end);
    check(body.len == 0);
}

static void user_close(struct user *user)
{
    user->gone = true;
    kb_h2_server_stream_close(user->stream, 2);
}

static void answer(struct user *user, char way)
{
    user->response.status = 200;
    switch (way) {
    case 'a': /* headers alone */
        kb_h2_server_stream_headers(user->stream, &user->response, true);
        break;
    case 'b': /* and a body, as much as may wait */
        kb_h2_server_stream_headers(user->stream, &user->response, false);
        while (!user->above) {
            body_send(user, false);
        }
        break;
    case 'c': /* with trailers */
        kb_h2_server_stream_headers(user->stream, &user->response, false);
        body_send(user, false);
        kb_h2_server_stream_trailers(user->stream, &user->headers);
        break;
    case 'd':
        user_close(user);
        break;
    case 'e':
        kb_h2_server_stream_1xx(user->stream, &user->response);
        kb_h2_server_stream_headers(user->stream, &user->response, false);
        body_send(user, true);
        break;
    case 'f':
        user->disabled = true;
        kb_h2_server_stream_read_disable(user->stream, true);
        break;
    default: /* later, or never */
        break;
    }
}

static void on_headers(void *owner, bool end_stream)
{
    struct user *user = owner;

    (void)end_stream;
    check(++user->heads == 1 && user->ends == 0 && !user->gone);
    check(kb_header_map_bytes(&user->headers) <= HEADER_BYTES + 100);
    answer(user, user->headers.path.len > 1 ? user->headers.path.p[1] : '?');
}

static void on_data(void *owner, struct kb_buf *data, bool end_stream)
{
    struct user *user = owner;

    check(user->heads == 1 && user->ends == 0 && !user->gone && (data->len > 0 || end_stream));
    kb_buf_consume(data, data->len);
    if (user->disabled) {
        user->disabled = false;
        kb_h2_server_stream_read_disable(user->stream, false);
    }
}

static void on_trailers(void *owner, struct kb_header_map *trailers)
{
    struct user *user = owner;

    check(user->heads == 1 && user->ends == 0 && !user->gone);
    check(kb_header_map_bytes(trailers) <= HEADER_BYTES + 100);
}

/* It comes back, whenever it came. */
static void on_metadata(void *owner, struct kb_buf *block)
{
    struct user *user = owner;

    check(user->heads == 1 && user->ends == 0 && !user->gone && block->len > 0);
    kb_h2_server_stream_metadata(user->stream, block);
    check(block->len == 0);
}

static void on_progress(void *owner)
{
    check(!((struct user *)owner)->gone);
}

static void on_sent(void *owner)
{
    struct user *user = owner;

    check(++user->ends == 1 && !user->gone);
    user->gone = true;
}

static void on_above_high(void *owner)
{
    struct user *user = owner;

    check(!user->above && !user->gone);
    user->above = true;
}

static void on_below_low(void *owner)
{
    struct user *user = owner;

    check(user->above && !user->gone);
    user->above = false;
    body_send(user, true);
}

static void on_reset(void *owner, enum kb_reset_reason reason, struct kb_str details)
{
    struct user *user = owner;

    (void)details;
    check(++user->ends == 1 && !user->gone && reason < KB_RESET_COUNT);
    user->gone = true;
}

static void on_ping_ack(void *session_owner)
{
    (void)session_owner;
}

static const struct kb_h2_server_callbacks callbacks = {
    .on_stream = on_stream,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_metadata = on_metadata,
    .on_progress = on_progress,
    .on_sent = on_sent,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
    .on_reset = on_reset,
    .on_ping_ack = on_ping_ack,
};

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

static void users_dispose(void)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        if (users[i].used) {
            kb_arena_dispose(&users[i].arena);
        }
    }
    memset(users, 0, sizeof(users));
    user_count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_h2_server_settings settings = {.max_header_bytes = HEADER_BYTES,
                                             .max_header_count = HEADER_COUNT};
    struct kb_h2_server_session *session;
    struct kb_buf in, out;
    size_t piece = size > 0 ? (size_t)data[0] % 64 + 1 : 1;
    bool reads = size > 1 && (data[1] & 1) != 0;
    bool fine = true;

    once();
    kb_h2_options_read(&settings.options, NULL, NULL, NULL);
    settings.options.allow_connect = true;
    settings.options.allow_metadata = size > 1 && (data[1] & 4) == 0;
    settings.options.guard.metadata = settings.options.allow_metadata;
    settings.options.max_metadata_bytes = 10000;
    settings.options.stream_error_on_invalid_message = size > 1 && (data[1] & 2) != 0;
    kb_buf_init(&in, &slices, 0);
    kb_buf_init(&out, &slices, 0);
    session = kb_h2_server_session_create(&settings, &callbacks, NULL, &slices, &mem, stats);
    for (size_t at = 2; at < size && fine; at += piece) {
        kb_buf_append(&in, data + at, size - at < piece ? size - at : piece);
        fine = kb_h2_server_session_receive(session, &in, at) &&
               kb_h2_server_session_send(session, &out, OUT_MAX);
        check(in.len == 0 && out.len < OUT_MAX + 20000);
        if (reads) {
            kb_h2_server_session_written(session, out.len);
            kb_buf_dispose(&out);
        }
    }
    check(fine == (kb_h2_server_session_fault(session)->error == 0));
    kb_h2_server_session_destroy(session);
    check(stats->cells[KB_STAT_HTTP2_STREAMS_ACTIVE] == 0);
    check(stats->cells[KB_STAT_HTTP2_PENDING_SEND_BYTES] == 0);
    check(stats->cells[KB_STAT_HTTP2_OUTBOUND_FRAMES_ACTIVE] == 0);
    check(mem.bytes_in_use == 0);
    kb_buf_dispose(&out);
    kb_buf_dispose(&in);
    users_dispose();
    check(slices.bytes_in_use == 0);
    return 0;
}
