/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of the admin port and of the configuration that become names: query strings, names of
 * statistics and their tags, URI templates. The first line is the template or the query, the rest
 * the name or the path. */
#include "tests/fuzz/fuzz.h"

#include "base/diag.h"
#include "proxy/admin/query.h"
#include "proxy/router/uri_template.h"
#include "proxy/stats/tag_extract.h"

static void tags_run(struct kb_str name)
{
    static struct kb_tag_producer *producer;
    static struct kb_tag_result result;
    struct kb_diag diag;

    if (producer == NULL) {
        kb_diag_init(&diag);
        producer = kb_tag_producer_create(NULL, NULL, 0, &diag);
        kb_diag_dispose(&diag);
    }
    kb_tag_extract(producer, name, &result);
    KB_ASSERT(result.name_len <= name.len && result.tag_count <= KB_TAGS_MAX);
    for (size_t i = 0; i < result.tag_count; i++) {
        KB_ASSERT(result.tags[i].name.len > 0 && result.tags[i].value.len <= name.len);
    }
}

static void query_run(struct kb_str text, struct kb_arena *arena)
{
    struct kb_admin_query query;

    kb_admin_query_parse(&query, text, arena);
    KB_ASSERT(query.count <= KB_ADMIN_PARAMETERS_MAX);
    for (size_t i = 0; i < query.count; i++) {
        KB_ASSERT(kb_admin_query_has(&query, query.items[i].key));
        KB_ASSERT(kb_str_eq(kb_admin_query_get(&query, query.items[i].key), query.items[i].value));
    }
}

static void template_run(struct kb_str pattern, struct kb_str path, struct kb_arena *arena)
{
    struct kb_regex_list regexes = {NULL};
    struct kb_diag diag;
    struct kb_match_build build = {arena, &regexes, &diag};
    const struct kb_uri_template *uri;
    const struct kb_uri_template_rewrite *rewrite;

    kb_diag_init(&diag);
    uri = kb_uri_template_create(pattern, &build);
    KB_ASSERT((uri == NULL) == (diag.error_count > 0));
    if (uri != NULL) {
        bool matches = kb_uri_template_match(uri, path);

        rewrite = kb_uri_template_rewrite_create(pattern, uri, &build);
        if (rewrite != NULL) {
            KB_ASSERT((kb_uri_template_rewrite_path(rewrite, path, arena).p != NULL) == matches);
        }
    }
    kb_regex_list_dispose(&regexes);
    kb_diag_dispose(&diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_arena arena;
    struct kb_str first, rest;
    size_t n = 0;

    if (size > 4000) {
        return 0;
    }
    kb_arena_init(&arena, NULL);
    rest = kb_str_dup(&arena, kb_str_make((const char *)data, size));
    while (n < rest.len && rest.p[n] != '\n') {
        n++;
    }
    first = kb_str_first(rest, n);
    rest = kb_str_from(rest, KB_MIN(n + 1, rest.len));
    query_run(first, &arena);
    tags_run(rest);
    template_run(first, rest, &arena);
    kb_arena_dispose(&arena);
    return 0;
}
