/* SPDX-License-Identifier: Apache-2.0 */
/* The usual HTTP/1 head, read in one pass: what nearly every request and response looks like, and
 * nothing else. Whatever is rare (other methods, transfer-encoding, upgrades, repeated framing
 * headers, folds, TABs, errors of any kind) is left to llhttp, which gives the verdict; of what is
 * taken here llhttp would understand the same. */
#pragma once

#include "proxy/http/h1_parse.h"

/* Headers of the head so far, Host among them. */
KB_INLINE uint32_t kb_h1_head_headers(const struct kb_h1_parser *parser)
{
    return parser->map->live + (parser->map->authority.p != NULL ? 1 : 0);
}

/* Reads a head at the front of `bytes` into the parser's map and fields. Returns its length, empty
 * line included. 0: not complete, or not of the usual form; the map then may hold a part of it, and
 * names in `bytes` may have been made lower case. */
size_t kb_h1_head_usual(struct kb_h1_parser *parser, struct kb_str bytes);
