/* SPDX-License-Identifier: Apache-2.0 */
/* The forms of HTTP/1 heads in which Envoy and llhttp disagree: which error it is, and the
 * canonical text of what Envoy accepts (bare LF line ends, TAB in the request line, obs-fold, bare
 * CR in values). Off the fast path: only called when llhttp refused. */
#pragma once

#include "proxy/http/h1_parse.h"

/* Length of the head at the front of `bytes`, its empty line included, whether lines end with CRLF
 * or LF; 0: not complete. */
size_t kb_h1_quirks_head_end(struct kb_str bytes);

/* Verdict on a request's or response's first line (without line end). KB_H1_OK: Envoy would go on.
 */
enum kb_h1_error kb_h1_quirks_first_line(struct kb_str line, bool response,
                                         const struct kb_h1_settings *settings);

/* Whether a method may begin with that character. */
bool kb_h1_quirks_method_begins(char c, const struct kb_h1_settings *settings);

/* The method of a request's head when it is one that only allow_custom_methods allows (the
 * canonical form of the head has POST in its place: both have a body only when they say so); else
 * empty. */
struct kb_str kb_h1_quirks_custom_method(struct kb_str head, bool response,
                                         const struct kb_h1_settings *settings);

/* Writes the canonical form of a complete head to `out` (room of at least 2 * head.len + 16) and
 * its length to *out_len. Returns KB_H1_OK when the result is worth another parse, or the error
 * that Envoy reports. After KB_H1_OK *framing is the error of its framing headers, which Envoy
 * reports when that parse finds nothing. */
enum kb_h1_error kb_h1_quirks_canonicalise(struct kb_str head, bool response,
                                           const struct kb_h1_settings *settings, char *out,
                                           size_t *out_len, enum kb_h1_error *framing);

/* Whether header number `index` of a canonical head has a name that is a token: Envoy looks at that
 * before it adds the header in front of it. */
bool kb_h1_quirks_name_valid(struct kb_str head, uint32_t index);
