/* SPDX-License-Identifier: Apache-2.0 */
/* Absolute URLs (RFC 9112 section 3.2.2, RFC 3986) as Envoy's Http::Utility::Url takes them: of a
 * host only letters, digits, dots and hyphens, or an IPv6 address in brackets. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

/* Parts of the text that was parsed. */
struct kb_url {
    struct kb_str scheme;    /* as written, http or https */
    struct kb_str authority; /* host and port, without user information */
    struct kb_str path;      /* all behind the authority; "/" when there is nothing */
};

enum kb_url_error {
    KB_URL_OK,
    KB_URL_INVALID,
    KB_URL_SCHEME, /* another scheme than http and https */
};

/* Whether it is "host:port" or "[address]:port", as a CONNECT has it (RFC 9112 section 3.2.3). */
bool kb_url_connect_target_valid(struct kb_str text);

/* Length of the scheme at the start of an absolute URL (RFC 3986 section 3.1); 0: none. */
size_t kb_url_scheme_len(struct kb_str text);

/* Takes an absolute URL apart; *out is whole only after KB_URL_OK. No allocation. */
enum kb_url_error kb_url_parse(struct kb_str text, struct kb_url *out);
