/* SPDX-License-Identifier: Apache-2.0 */
/* What kind of HTTP a connection begins with, by its first line. Pure. */
#pragma once

#include "base/str.h"

/* Beyond the first line the verdict looks at no more than these bytes. */
#define KB_FIRST_LINE_SEEN 256

enum kb_first_line {
    KB_FIRST_LINE_MORE,   /* it may be HTTP */
    KB_FIRST_LINE_HTTP2,  /* the connection preface of RFC 9113 section 3.4 */
    KB_FIRST_LINE_HTTP11, /* a request line that ends with HTTP/1.1 */
    KB_FIRST_LINE_HTTP10, /* one with another version, or without any */
    KB_FIRST_LINE_OTHER,
};

/* `bytes` came so far, at least the first KB_FIRST_LINE_SEEN of them; the first line is `line_len`
 * of them long with its '\n', 0: it has not ended. */
enum kb_first_line kb_first_line_parse(struct kb_str bytes, size_t line_len);
