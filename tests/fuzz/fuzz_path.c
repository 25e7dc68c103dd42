/* SPDX-License-Identifier: Apache-2.0 */
/* Any path under every option of normalisation, which the first byte chooses. Promises: a normal
 * form is its own, begins with a slash, and has no segment that is a dot or two, escaped or not;
 * the query stays as it was; nothing grows without bound. */
#include "tests/fuzz/fuzz.h"

#include "base/obj.h"
#include "proxy/http/path.h"

#define INPUT_MAX 4000

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = kb_ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Dots that the segment is made of, whichever way they are written; 0: it has something else. */
static unsigned dots_of(struct kb_str segment)
{
    unsigned dots = 0;

    for (size_t i = 0; i < segment.len; i++, dots++) {
        if (segment.p[i] == '%' && i + 2 < segment.len &&
            hex_value(segment.p[i + 1]) * 16 + hex_value(segment.p[i + 2]) == '.') {
            i += 2;
        } else if (segment.p[i] != '.') {
            return 0;
        }
    }
    return dots;
}

static void segments_check(struct kb_str path)
{
    struct kb_str segment;

    KB_ASSERT(path.len > 0 && path.p[0] == '/');
    while (kb_str_next_token(&path, '/', &segment)) {
        unsigned dots = dots_of(segment);

        KB_ASSERT(dots != 1 && dots != 2);
    }
}

static struct kb_str path_of(struct kb_str target, struct kb_str *query)
{
    size_t len = 0;

    while (len < target.len && target.p[len] != '?' && target.p[len] != '#') {
        len++;
    }
    *query = kb_str_from(target, len);
    return kb_str_first(target, len);
}

static void canonical_check(struct kb_str path, struct kb_arena *arena)
{
    char *once = kb_arena_alloc(arena, path.len * 3 + 1, 1);
    char *twice = kb_arena_alloc(arena, path.len * 9 + 1, 1);
    size_t once_len, twice_len;

    if (kb_path_canonical(path, once, &once_len) != 0) {
        return;
    }
    KB_ASSERT(once_len <= path.len * 3);
    segments_check(kb_str_make(once, once_len));
    KB_ASSERT(kb_path_canonical(kb_str_make(once, once_len), twice, &twice_len) == 0);
    KB_ASSERT(kb_str_eq(kb_str_make(once, once_len), kb_str_make(twice, twice_len)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_header_map headers;
    struct kb_hcm_config config;
    struct kb_str location = KB_STR_NULL;
    struct kb_str target, before, after;
    struct kb_arena arena;

    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    kb_header_names_init();
    kb_arena_init(&arena, NULL);
    kb_header_map_init(&headers, &arena);
    memset(&config, 0, sizeof(config));
    config.normalize_path = (data[0] & 1) != 0;
    config.merge_slashes = (data[0] & 2) != 0;
    config.escaped_slashes = (enum kb_escaped_slashes)(data[0] >> 2 & 3);
    target = kb_str_dup(&arena, kb_str_make((const char *)data + 1, size - 1));
    canonical_check(path_of(target, &before), &arena);
    headers.path = target;
    if (target.len > 0 && target.p[0] == '/' &&
        kb_path_normalise(&config, &headers, &location) == KB_PATH_OK) {
        struct kb_str path = path_of(headers.path, &after);

        if (before.len == 0 ||
            before.p[0] == '?') { /* what a fragment is left to is another option */
            KB_ASSERT(kb_str_eq(before, after));
        }
        KB_ASSERT(headers.path.len <= target.len * 3);
        if (config.normalize_path) {
            segments_check(path);
        }
    }
    kb_arena_dispose(&arena);
    return 0;
}
