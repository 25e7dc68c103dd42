/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1 messages from bytes, both directions, without I/O: heads are parsed when they are
 * complete, in place; bodies are handed on by reference. llhttp gives the verdict (RFC 9112) with
 * every lenient flag off; proxy/http/h1_quirks.c rewrites the few forms that Envoy accepts and
 * llhttp does not. */
#pragma once

#include "base/buf.h"
#include "proxy/api/header_map.h"

enum kb_h1_error {
    KB_H1_OK,
#define X(id, status, details) KB_H1_##id,
#include "proxy/http/h1_errors.def"
#undef X
    KB_H1_ERROR_COUNT
};

/* The HTTP status that answers a request with this error, and its %RESPONSE_CODE_DETAILS%. */
unsigned kb_h1_error_status(enum kb_h1_error error);
/* "http1.codec_error" */
struct kb_str kb_h1_error_details(enum kb_h1_error error);

enum kb_h1_underscores {
    KB_H1_UNDERSCORES_ALLOW,
    KB_H1_UNDERSCORES_REJECT,
    KB_H1_UNDERSCORES_DROP
};

/* Limits and options; immutable, owned by configuration. */
struct kb_h1_settings {
    uint32_t max_head_bytes; /* request or status line and headers */
    uint32_t max_headers_count;
    enum kb_h1_underscores underscores;
    bool accept_http_10;
    bool enable_trailers;
    bool allow_chunked_length; /* CL with chunked: the length is ignored */
    bool allow_custom_methods; /* any token is a method */
    bool allow_absolute_url;
    bool proper_case_words;     /* when encoding */
    bool preserve_case;         /* remember how names were spelled, for who writes the message on */
    bool proper_case_otherwise; /* with it: names that the message does not have */
    bool forward_reason_phrase; /* with it: of responses */
    bool send_fully_qualified_url;
    const struct kb_string_matcher *ignored_upgrades; /* ignore_http_11_upgrade */
    uint32_t ignored_upgrade_count;
    bool validate_scheme; /* no https:// URL on a plain connection */
};

enum kb_h1_event {
    KB_H1_NEED_MORE, /* nothing more in the bytes there are */
    KB_H1_HEAD, /* a head was parsed: see the fields below; call kb_h1_parse again for the rest */
    KB_H1_BODY, /* `body` has bytes; take them */
    KB_H1_COMPLETE, /* the message ended; trailers, if any, are in `trailers` */
    KB_H1_ERROR,    /* `error` says why; nothing more can be parsed */
};

#define KB_H1_LLHTTP_BYTES 104

struct kb_h1_parser {
    KB_OBJ;
    bool response;
    uint8_t state;
    bool head_response_expected; /* set by the client codec: the answer to HEAD has no body */
    bool head_complete, message_complete;
    bool counted; /* a usual head: body_left says when the message ends, llhttp sees none of it */
    bool dropped_underscores; /* set once a header was dropped; the codec counts and clears */
    enum kb_h1_error error;
    const struct kb_h1_settings *settings;
    uint32_t scanned; /* bytes of an incomplete head that were searched already */
    bool first_line_checked;
    /* The head being parsed. */
    struct kb_header_map *map;
    struct kb_slice *head_slice; /* holds the head's strings; take a reference to keep them */
    uint32_t head_bytes;
    uint32_t header_bytes; /* of the header lines alone, and of trailers that are passed on, as
                              Envoy counts them: name, value and three each */
    uint32_t header_count;
    uint32_t head_header_count; /* header lines of the head */
    struct kb_str field;
    struct kb_str value;
    size_t field_cap,
        value_cap; /* trailers are collected in the arena, as they may come in pieces */
    size_t trailer_bytes;
    uint32_t chunk_line_bytes; /* that moved nothing, since there was data last */
    struct kb_str url;
    uint8_t http_minor;
    bool chunked;
    bool keep_alive;
    bool upgrade;
    bool has_content_length;
    bool until_close; /* a response without length: ends with the connection */
    uint64_t content_length;
    uint64_t body_left;
    struct kb_buf body;
    struct kb_header_map *trailers; /* NULL: none came */
    struct kb_arena *arena;
    uint64_t parsed_bytes; /* wire bytes of this message so far */
    _Alignas(8) char llhttp[KB_H1_LLHTTP_BYTES];
};
KB_OBJ_MAGIC(kb_h1_parser, 0x48315052);

/* A parser of requests or responses on caller's storage; `source` gives slices for bodies. */
void kb_h1_parser_init(struct kb_h1_parser *parser, bool response,
                       const struct kb_h1_settings *settings, struct kb_slice_source *source);
void kb_h1_parser_dispose(struct kb_h1_parser *parser);

/* True when `in` holds at least one byte of a further message (leading empty lines of requests are
 * dropped from `in`), so that the caller should make a stream and call kb_h1_parser_begin. */
bool kb_h1_parser_has_input(struct kb_h1_parser *parser, struct kb_buf *in);

/* Where the next message's headers go; map and arena live until kb_h1_parser_next. */
void kb_h1_parser_begin(struct kb_h1_parser *parser, struct kb_header_map *map,
                        struct kb_arena *arena);

/* Parses on; consumes what was understood. */
enum kb_h1_event kb_h1_parse(struct kb_h1_parser *parser, struct kb_buf *in);

/* The peer ended its stream: KB_H1_COMPLETE when that ends a response without length,
 * KB_H1_NEED_MORE between messages, else KB_H1_ERROR. */
enum kb_h1_event kb_h1_parse_eof(struct kb_h1_parser *parser);

/* Forgets the finished message; ready for the next. */
void kb_h1_parser_next(struct kb_h1_parser *parser);

/* Inside a message: between begin and COMPLETE. */
bool kb_h1_parser_in_message(const struct kb_h1_parser *parser);
