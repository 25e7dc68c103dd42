/* SPDX-License-Identifier: Apache-2.0 */
/* Which encoding an answer gets: what the client accepts, and what the chain's compressors offer.
 */
#pragma once

#include "base/str.h"

#define KB_COMPRESSORS_MAX 8 /* that one stream looks at */

enum kb_encoding_reason {
    KB_ENCODING_NOT_VALID,
    KB_ENCODING_IDENTITY,
    KB_ENCODING_WILDCARD,
    KB_ENCODING_COMPRESSOR,
};

struct kb_encoding_choice {
    struct kb_str encoding; /* "identity", or one of those offered */
    enum kb_encoding_reason reason;
};

struct kb_encoding_offer {
    struct kb_str encoding;
    bool first; /* among equally good ones rather this */
};

/* `offered` in the order of registration, without repetitions; it is changed. `accepted` is the
 * value of Accept-Encoding. Among equally good ones the client's last that is offered as `first` is
 * taken, or else its first. */
struct kb_encoding_choice kb_encoding_choose(struct kb_encoding_offer *offered, size_t count,
                                             struct kb_str accepted);
