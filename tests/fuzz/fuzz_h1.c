/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as HTTP/1 messages, requests or responses. Promise checked besides memory safety: how
 * the bytes are cut into pieces never changes what is understood, and a request that is passed on
 * is understood alike (fuzz_h1_forward.h). The first byte chooses direction,
 * options and the cut. */
#include "tests/fuzz/fuzz.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/obj.h"
#include "tests/fuzz/fuzz_h1_forward.h"

#define INPUT_MAX    20000
#define MESSAGES_MAX 20

/* What was understood, folded into one number. */
struct digest {
    uint64_t hash;
    enum kb_h1_error error;
};

static void fold(struct digest *digest, struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        digest->hash = (digest->hash ^ (unsigned char)text.p[i]) * UINT64_C(0x100000001b3);
    }
    digest->hash = (digest->hash ^ 0x100) * UINT64_C(0x100000001b3);
}

static void fold_headers(struct digest *digest, const struct kb_header_map *map)
{
    fold(digest, map->method);
    fold(digest, map->authority);
    digest->hash += map->status;
    KB_HEADER_FOREACH(header, map)
    {
        fold(digest, header->name);
        fold(digest, header->value);
    }
}

static void fold_framing(struct digest *digest, const struct kb_h1_parser *parser)
{
    char text[160];
    int len = snprintf(text, sizeof(text), "%u %d %d %d %d %d %d %" PRIu64 " %u %u %u",
                       parser->http_minor, parser->chunked, parser->keep_alive, parser->upgrade,
                       parser->has_content_length, parser->until_close, parser->message_complete,
                       parser->has_content_length ? parser->content_length : 0,
                       parser->header_bytes, parser->head_header_count, parser->head_bytes);

    fold(digest, kb_str_make(text, (size_t)len));
}

static void fold_body(struct digest *digest, struct kb_buf *body)
{
    while (body->len > 0) {
        struct kb_str piece = kb_buf_first(body);

        for (size_t i = 0; i < piece.len; i++) {
            digest->hash = (digest->hash ^ (unsigned char)piece.p[i]) * UINT64_C(0x100000001b3);
        }
        kb_buf_consume(body, piece.len);
    }
}

struct run {
    struct kb_h1_parser parser;
    struct kb_buf in;
    struct kb_arena arena;
    struct kb_header_map map;
    struct digest digest;
    unsigned messages;
    bool failed;
};

/* Parses what is there; false when nothing more can come. */
static bool run_on(struct run *run)
{
    while (!run->failed && run->messages < MESSAGES_MAX) {
        if (!kb_h1_parser_in_message(&run->parser)) {
            if (!kb_h1_parser_has_input(&run->parser, &run->in)) {
                return true;
            }
            kb_header_map_init(&run->map, &run->arena);
            kb_h1_parser_begin(&run->parser, &run->map, &run->arena);
        }
        switch (kb_h1_parse(&run->parser, &run->in)) {
        case KB_H1_NEED_MORE:
            return true;
        case KB_H1_HEAD:
            if (!run->parser.response && run->parser.http_minor == 0 &&
                !run->parser.settings->accept_http_10) {
                /* The codec's verdict; of a head in pieces it comes from the parser already. */
                run->digest.error = KB_H1_LOW_VERSION;
                run->failed = true;
                break;
            }
            fold(&run->digest, run->parser.url);
            fold_headers(&run->digest, &run->map);
            fold_framing(&run->digest, &run->parser);
            if (!run->parser.response) {
                fuzz_h1_forward(&run->parser, &run->map, run->in.source);
            }
            break;
        case KB_H1_BODY:
            fold_body(&run->digest, &run->parser.body);
            break;
        case KB_H1_COMPLETE:
            if (run->parser.trailers != NULL) {
                fold_headers(&run->digest, run->parser.trailers);
            }
            kb_h1_parser_next(&run->parser);
            run->messages++;
            break;
        case KB_H1_ERROR:
            KB_ASSERT(run->parser.error != KB_H1_OK);
            run->digest.error = run->parser.error;
            run->failed = true;
            break;
        }
    }
    return false;
}

static struct digest parse(const uint8_t *data, size_t size, uint8_t choice, size_t piece)
{
    struct kb_h1_settings settings = {
        .max_head_bytes = 60 * 1024,
        .max_headers_count = 100,
        .underscores = (enum kb_h1_underscores)(choice >> 1 & 1 ? KB_H1_UNDERSCORES_DROP
                                                                : KB_H1_UNDERSCORES_ALLOW),
        .accept_http_10 = (choice & 4) != 0,
        .enable_trailers = (choice & 8) != 0,
        .allow_chunked_length = (choice & 16) != 0,
        .allow_absolute_url = true,
    };
    struct kb_slice_source source;
    struct run run = {.digest = {.hash = 1}};

    kb_slice_source_init(&source, 16);
    kb_h1_parser_init(&run.parser, (choice & 1) != 0, &settings, &source);
    kb_buf_init(&run.in, &source, 0);
    kb_arena_init(&run.arena, NULL);
    for (size_t at = 0; at < size; at += piece) {
        kb_buf_append(&run.in, data + at, KB_MIN(piece, size - at));
        if (!run_on(&run)) {
            break;
        }
    }
    if (!run.failed && kb_h1_parse_eof(&run.parser) == KB_H1_ERROR) {
        run.digest.error = run.parser.error;
    }
    fold_body(&run.digest, &run.parser.body);
    kb_h1_parser_dispose(&run.parser);
    kb_buf_dispose(&run.in);
    kb_arena_dispose(&run.arena);
    KB_ASSERT(source.bytes_in_use == 0);
    kb_slice_source_dispose(&source);
    return run.digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t pieces[] = {1, 7, 1000};
    struct digest whole;

    if (size < 2 || size > INPUT_MAX) {
        return 0;
    }
    kb_header_names_init();
    whole = parse(data + 1, size - 1, data[0], size);
    for (size_t i = 0; i < KB_ARRAY_LEN(pieces); i++) {
        struct digest cut = parse(data + 1, size - 1, data[0], pieces[i]);

        /* Which of several errors is named may depend on the cut; whether there is one may not. */
        KB_ASSERT((cut.error == KB_H1_OK) == (whole.error == KB_H1_OK));
        KB_ASSERT(whole.error != KB_H1_OK || cut.hash == whole.hash);
    }
    return 0;
}
