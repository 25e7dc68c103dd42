/* SPDX-License-Identifier: Apache-2.0 */
/* Accept-Encoding as Envoy's compressor filter reads it (RFC 9110 section 12.5.3). */
#include "proxy/ext/http/compressor_choice.h"

#define TOKENS_MAX 64 /* of what stands behind nothing is known */

struct wanted {
    struct kb_str encoding;
    double quality;
};

/* One token with its "q"; false: it cannot be read. */
static bool token_read(struct kb_str token, struct wanted *wanted)
{
    ptrdiff_t semicolon = kb_str_find_char(token, ';');
    struct kb_str parameter;
    ptrdiff_t equals;

    wanted->quality = 1;
    wanted->encoding = kb_str_trim(semicolon >= 0 ? kb_str_first(token, (size_t)semicolon) : token);
    if (semicolon < 0) {
        return true;
    }
    parameter = kb_str_from(token, (size_t)semicolon + 1);
    equals = kb_str_find_char(parameter, '=');
    if (equals < 0 ||
        !kb_str_ieq(kb_str_trim(kb_str_first(parameter, (size_t)equals)), KB_STR("q"))) {
        return true;
    }
    return kb_str_to_double(kb_str_trim(kb_str_from(parameter, (size_t)equals + 1)),
                            &wanted->quality) == 0;
}

static const struct kb_encoding_offer *offer_find(const struct kb_encoding_offer *offered,
                                                  size_t count, struct kb_str encoding)
{
    for (size_t i = 0; i < count; i++) {
        if (kb_str_eq(offered[i].encoding, encoding)) {
            return &offered[i];
        }
    }
    return NULL;
}

static void refuse(struct kb_encoding_offer *offered, size_t *count, struct kb_str encoding)
{
    size_t kept = 0;

    for (size_t i = 0; i < *count; i++) {
        if (!kb_str_eq(offered[i].encoding, encoding)) {
            offered[kept++] = offered[i];
        }
    }
    *count = kept;
}

struct kb_encoding_choice kb_encoding_choose(struct kb_encoding_offer *offered, size_t count,
                                             struct kb_str accepted)
{
    const struct kb_encoding_choice none = {KB_STR("identity"), KB_ENCODING_NOT_VALID};
    struct wanted wanted[TOKENS_MAX];
    struct wanted best = {KB_STR("identity"), 0};
    size_t wanted_count = 0;
    struct kb_str token;

    while (accepted.len > 0 && wanted_count < TOKENS_MAX &&
           kb_str_next_token(&accepted, ',', &token)) {
        if (token.len == 0 || !token_read(token, &wanted[wanted_count])) {
            continue;
        }
        if (wanted[wanted_count].quality <= 0) {
            refuse(offered, &count, wanted[wanted_count].encoding);
        }
        wanted_count++;
    }
    if (wanted_count == 0 || count == 0) {
        return none;
    }
    for (size_t i = 0; i < wanted_count; i++) {
        const struct kb_encoding_offer *offer = offer_find(offered, count, wanted[i].encoding);
        bool possible = offer != NULL || kb_str_eq(wanted[i].encoding, KB_STR("identity")) ||
                        kb_str_eq(wanted[i].encoding, KB_STR("*"));

        if (possible && (wanted[i].quality > best.quality ||
                         (offer != NULL && offer->first && wanted[i].quality >= best.quality))) {
            best = wanted[i];
        }
    }
    if (best.quality <= 0) {
        return none;
    }
    if (kb_str_eq(best.encoding, KB_STR("identity"))) {
        return (struct kb_encoding_choice){KB_STR("identity"), KB_ENCODING_IDENTITY};
    }
    if (kb_str_eq(best.encoding, KB_STR("*"))) {
        return (struct kb_encoding_choice){offered[0].encoding, KB_ENCODING_WILDCARD};
    }
    return (struct kb_encoding_choice){best.encoding, KB_ENCODING_COMPRESSOR};
}
