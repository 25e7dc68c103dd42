/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1 parser with all that it needs, for tests. */
#pragma once

#include "proxy/http/h1_parse.h"

struct fixture {
    struct kb_slice_source source;
    struct kb_h1_settings settings;
    struct kb_h1_parser parser;
    struct kb_buf in;
    struct kb_arena arena;
    struct kb_header_map map;
};

static inline void fixture_init(struct fixture *f, bool response)
{
    kb_header_names_init();
    kb_slice_source_init(&f->source, 8);
    f->settings = (struct kb_h1_settings){.max_head_bytes = 1024,
                                          .max_headers_count = 5,
                                          .allow_absolute_url = true,
                                          .enable_trailers = true};
    kb_h1_parser_init(&f->parser, response, &f->settings, &f->source);
    kb_buf_init(&f->in, &f->source, 0);
    kb_arena_init(&f->arena, NULL);
    kb_header_map_init(&f->map, &f->arena);
}

static inline void fixture_dispose(struct fixture *f)
{
    kb_h1_parser_dispose(&f->parser);
    kb_buf_dispose(&f->in);
    kb_arena_dispose(&f->arena);
    assert_int_equal(f->source.bytes_in_use, 0);
    kb_slice_source_dispose(&f->source);
}
