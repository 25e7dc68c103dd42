/* SPDX-License-Identifier: Apache-2.0 */
/* early_header_mutation_extensions of the connection manager: what is changed of a request before
 * the proxy draws any conclusion from its headers. */
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.pb-c.h"
#include "proto/any.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/header_mutation_list.h"

#define MUTATION_TYPE \
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

struct kb_early_mutations {
    size_t count;
    const struct kb_header_mutation_list *lists[];
};

static const struct kb_header_mutation_list *
list_create(struct kb_hcm_config *config,
            const Envoy__Config__Core__V3__TypedExtensionConfig *message, struct kb_diag *diag)
{
    const Envoy__Extensions__Http__EarlyHeaderMutation__HeaderMutation__V3__HeaderMutation *m;
    const struct kb_match_build build = {&config->arena, &config->regexes, diag};
    const struct kb_header_mutation_list *list = NULL;
    struct kb_str type = message->typed_config != NULL
                             ? kb_any_inner_name(message->typed_config, &config->arena)
                             : KB_STR("");
    bool failed = false;

    if (!kb_str_eq(type, KB_STR(MUTATION_TYPE))) {
        kb_diag_error(diag, "Early header mutation extension not found: '%s' (type: '%.*s')",
                      message->name, KB_STR_ARG(type));
        return NULL;
    }
    kb_diag_push(diag, "typed_config");
    m = KB_ANY_UNPACK(
        message->typed_config,
        envoy__extensions__http__early_header_mutation__header_mutation__v3__header_mutation,
        Envoy__Extensions__Http__EarlyHeaderMutation__HeaderMutation__V3__HeaderMutation,
        &config->arena, diag);
    if (m != NULL) {
        list = kb_header_mutation_list_create(m->mutations, m->n_mutations, "mutations", &build,
                                              &failed);
    }
    kb_diag_pop(diag);
    return list;
}

void kb_early_mutations_apply_config(
    struct kb_hcm_config *config,
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *m,
    struct kb_diag *diag)
{
    size_t n = m->n_early_header_mutation_extensions;
    struct kb_early_mutations *mutations;

    if (n == 0) {
        return;
    }
    mutations = kb_arena_calloc(&config->arena, sizeof(*mutations) + n * sizeof(*mutations->lists));
    mutations->count = n;
    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, "early_header_mutation_extensions", i);
        mutations->lists[i] = list_create(config, m->early_header_mutation_extensions[i], diag);
        kb_diag_pop(diag);
    }
    config->early_mutations = mutations;
}

void kb_early_mutations_apply(const struct kb_early_mutations *mutations, struct kb_stream *stream)
{
    const struct kb_formatter_input input = {.request = &stream->request};

    for (size_t i = 0; i < mutations->count; i++) {
        kb_header_mutation_list_apply(mutations->lists[i], &stream->request, &input, &stream->info);
    }
}
