/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameters as Envoy reads them: '+' is not a space. */
#include "proxy/admin/query.h"

static int hex_digit(char c)
{
    char lower = kb_ascii_lower(c);

    if (kb_ascii_is_digit(c)) {
        return c - '0';
    }
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static struct kb_str decode(struct kb_str text, struct kb_arena *arena)
{
    char *out = kb_arena_alloc(arena, text.len + 1, 1);
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] == '%' && i + 2 < text.len && hex_digit(text.p[i + 1]) >= 0 &&
            hex_digit(text.p[i + 2]) >= 0) {
            out[len++] = (char)(hex_digit(text.p[i + 1]) * 16 + hex_digit(text.p[i + 2]));
            i += 2;
        } else {
            out[len++] = text.p[i];
        }
    }
    out[len] = '\0';
    return kb_str_make(out, len);
}

void kb_admin_query_parse(struct kb_admin_query *query, struct kb_str text, struct kb_arena *arena)
{
    struct kb_str token;

    query->items =
        kb_arena_alloc(arena, KB_ADMIN_PARAMETERS_MAX * sizeof(*query->items), sizeof(void *));
    query->count = 0;
    while (query->count < KB_ADMIN_PARAMETERS_MAX && text.len > 0 &&
           kb_str_next_token(&text, '&', &token)) {
        ptrdiff_t equals = kb_str_find_char(token, '=');
        struct kb_str key = decode(equals < 0 ? token : kb_str_first(token, (size_t)equals), arena);

        if (kb_admin_query_has(query, key)) {
            continue;
        }
        query->items[query->count++] = (struct kb_admin_parameter){
            key, equals < 0 ? kb_str_make("", 0)
                            : decode(kb_str_from(token, (size_t)equals + 1), arena)};
    }
}

static const struct kb_admin_parameter *find(const struct kb_admin_query *query, struct kb_str key)
{
    for (size_t i = 0; i < query->count; i++) {
        if (kb_str_eq(query->items[i].key, key)) {
            return &query->items[i];
        }
    }
    return NULL;
}

bool kb_admin_query_has(const struct kb_admin_query *query, struct kb_str key)
{
    return find(query, key) != NULL;
}

struct kb_str kb_admin_query_get(const struct kb_admin_query *query, struct kb_str key)
{
    const struct kb_admin_parameter *parameter = find(query, key);

    return parameter == NULL ? KB_STR_NULL : parameter->value;
}
