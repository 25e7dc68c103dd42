/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.header_mutation: headers and trailers that the filter's configuration changes,
 * then those that routes, virtual hosts and the table change. */
#include "envoy/extensions/filters/http/header_mutation/v3/header_mutation.pb-c.h"

#include "proxy/api/http_filter.h"
#include "proxy/ext/http/query_mutation.h"
#include "proxy/http/header_mutation_list.h"

typedef Envoy__Extensions__Filters__Http__HeaderMutation__V3__Mutations mutations_message;

struct mutations {
    KB_OBJ;
    struct kb_regex_list regexes;
    const struct kb_header_mutation_list *request;
    const struct kb_query_mutations *query; /* behind `request` of the same level */
    const struct kb_header_mutation_list *request_trailers;
    const struct kb_header_mutation_list *response;
    const struct kb_header_mutation_list *response_trailers;
    bool most_specific_wins; /* of the filter's own */
};
KB_OBJ_MAGIC(mutations, 0x484d5554);

struct header_mutation {
    const struct mutations *config;
    struct kb_stream *stream;
    const struct kb_header_map *response;                   /* NULL: none yet */
    const struct mutations *levels[KB_ROUTE_CONFIG_LEVELS]; /* the most specific first */
    size_t level_count;
    bool levels_known;
};

/* ---- configuration ---- */

static int mutations_create(const mutations_message *m, struct kb_factory_context *factory,
                            struct kb_diag *diag, void **out)
{
    struct mutations *mutations = KB_ARENA_NEW(factory->arena, struct mutations);
    const struct kb_match_build build = {factory->arena, &mutations->regexes, diag};
    bool failed = false;

    KB_OBJ_SET(mutations, mutations);
    *out = mutations;
    if (m == NULL) {
        return 0;
    }
    kb_diag_push(diag, "mutations");
#define LIST(field) kb_header_mutation_list_create(m->field, m->n_##field, #field, &build, &failed)
    mutations->request = LIST(request_mutations);
    mutations->request_trailers = LIST(request_trailers_mutations);
    mutations->response = LIST(response_mutations);
    mutations->response_trailers = LIST(response_trailers_mutations);
#undef LIST
    mutations->query =
        kb_query_mutations_create(m->query_parameter_mutations, m->n_query_parameter_mutations,
                                  "query_parameter_mutations", &build, &failed);
    kb_diag_pop(diag);
    if (failed) {
        kb_regex_list_dispose(&mutations->regexes);
        *out = NULL;
        return KB_ECONFIG;
    }
    return 0;
}

static void mutations_destroy(void *arg)
{
    if (arg != NULL) {
        kb_regex_list_dispose(&KB_CAST(arg, mutations)->regexes);
    }
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__HeaderMutation__V3__HeaderMutation *m = message;

    KB_TRY(mutations_create(m->mutations, factory, diag, out));
    KB_CAST(*out, mutations)->most_specific_wins = m->most_specific_header_mutations_wins;
    return 0;
}

static int route_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__HeaderMutation__V3__HeaderMutationPerRoute *m = message;

    return mutations_create(m->mutations, factory, diag, out);
}

/* ---- streams ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct header_mutation *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct header_mutation);

    filter->config = KB_CAST(config, mutations);
    filter->stream = stream;
    return filter;
}

/* Applies the list at this place of each level: what comes last wins. */
static void apply(struct header_mutation *filter, struct kb_header_map *headers, size_t offset)
{
    struct kb_stream *stream = filter->stream;
    const struct kb_formatter_input input = {.request = kb_stream_request_headers(stream),
                                             .response = filter->response,
                                             .response_trailers =
                                                 kb_stream_response_trailers(stream)};
    const struct kb_stream_info *info = kb_stream_stream_info(stream);

    if (!filter->levels_known) {
        filter->levels_known = true;
        filter->level_count =
            kb_stream_route_configs(stream, filter, (const void **)filter->levels);
    }
    for (size_t i = 0; i <= filter->level_count; i++) {
        const struct mutations *level =
            i == 0 ? filter->config
                   : filter->levels[filter->config->most_specific_wins ? filter->level_count - i
                                                                       : i - 1];
        const struct kb_header_mutation_list *const *list =
            (const void *)((const char *)(const void *)level + offset);

        kb_header_mutation_list_apply(*list, headers, &input, info);
        if (offset == offsetof(struct mutations, request)) {
            kb_query_mutations_apply(level->query, headers, &input, info);
        }
    }
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    (void)end_stream;
    apply(arg, headers, offsetof(struct mutations, request));
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_trailers_status decode_trailers(void *arg, struct kb_header_map *trailers)
{
    apply(arg, trailers, offsetof(struct mutations, request_trailers));
    return KB_FILTER_TRAILERS_CONTINUE;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct header_mutation *filter = arg;

    (void)end_stream;
    filter->response = headers; /* of an attempt: not the stream's yet */
    apply(filter, headers, offsetof(struct mutations, response));
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_trailers_status encode_trailers(void *arg, struct kb_header_map *trailers)
{
    apply(arg, trailers, offsetof(struct mutations, response_trailers));
    return KB_FILTER_TRAILERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_header_mutation = {
    .name = "envoy.filters.http.header_mutation",
    .type_url = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    .route_type_url = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    .config_create = config_create,
    .config_destroy = mutations_destroy,
    .route_config_create = route_config_create,
    .route_config_destroy = mutations_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .encode_trailers = encode_trailers,
};
