/* SPDX-License-Identifier: Apache-2.0 */
/* Header lines of a message on their way from the parser (h1_parse.c) to its header map. */
#pragma once

#include "proxy/http/h1_parse.h"

/* A header line of the head: lower case in place, then into parser->map. 0, or -1 with the reason
 * in parser->error. */
int kb_h1_field_add(struct kb_h1_parser *parser, struct kb_str name, struct kb_str value);

/* Appends a piece of a trailer to `whole`, which grows in the arena by doubling; the same results.
 */
int kb_h1_trailer_piece(struct kb_h1_parser *parser, struct kb_str *whole, size_t *cap,
                        struct kb_str piece);
/* A trailer that is complete; the same results. */
int kb_h1_trailer_add(struct kb_h1_parser *parser, struct kb_str name, struct kb_str value);
