/* SPDX-License-Identifier: Apache-2.0 */
/* Names in certificates, and what asks for them (Envoy SubjectAltNameMatcher). For this room. */
#pragma once

#include <openssl/x509v3.h>

#include "base/diag.h"
#include "envoy/extensions/transport_sockets/tls/v3/common.pb-c.h"
#include "envoy/type/matcher/v3/string.pb-c.h"

#define KB_TLS_SANS_MAX     256 /* names of one certificate that are looked at */
#define KB_TLS_SAN_TEXT_MAX 64  /* of an address */

enum kb_tls_san_pattern {
    KB_TLS_SAN_EXACT,
    KB_TLS_SAN_PREFIX,
    KB_TLS_SAN_SUFFIX,
    KB_TLS_SAN_CONTAINS,
    KB_TLS_SAN_REGEX,
};

struct kb_tls_san_matcher {
    int type; /* GEN_DNS, GEN_URI, GEN_EMAIL, GEN_IPADD; -1: any of them */
    enum kb_tls_san_pattern pattern;
    bool ignore_case;
    struct kb_str text;
    struct kb_regex *regex;
};

/* From a StringMatcher; memory in the arena but for the regex, see dispose. KB_ECONFIG after
 * reporting. */
int kb_tls_san_matcher_init(struct kb_tls_san_matcher *matcher, int type,
                            const Envoy__Type__Matcher__V3__StringMatcher *message,
                            struct kb_arena *arena, struct kb_diag *diag) KB_MUST_USE;
void kb_tls_san_matcher_dispose(struct kb_tls_san_matcher *matcher);

/* Whether one name of a certificate is as the matcher asks. */
bool kb_tls_san_matcher_match(const struct kb_tls_san_matcher *matcher, int type,
                              struct kb_str name);

/* The text of a name: KB_STR_NULL for kinds without one. Borrowed from the name or, for addresses,
 * from `text`. */
struct kb_str kb_tls_san_text(const GENERAL_NAME *name, char text[KB_TLS_SAN_TEXT_MAX]);

/* Whether a host's name is what the certificate's pattern stands for: RFC 6125 section 6.4.3, with
 * a wildcard in the leftmost label only. */
bool kb_tls_dns_name_match(struct kb_str name, struct kb_str pattern);
