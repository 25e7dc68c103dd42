/* SPDX-License-Identifier: Apache-2.0 */
/* HttpFilter messages to a chain of filters. */
#include "proxy/http/http_filter_chain.h"

#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/http_filter_discovery.h"

#define HCM(name) Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__##name

void kb_http_filter_chain_dispose(struct kb_hcm_filter_chain *chain)
{
    for (size_t i = 0; i < chain->count; i++) {
        if (chain->filters[i].provider != NULL) {
            kb_filter_provider_destroy(chain->filters[i].provider);
        } else if (chain->filters[i].ops->config_destroy != NULL &&
                   chain->filters[i].config != NULL) {
            /* No config: it was refused, and so is the whole. */
            chain->filters[i].ops->config_destroy(chain->filters[i].config);
        }
    }
}

static void discovery_apply(const struct kb_http_filter_chain_build *build,
                            const HCM(HttpFilter) * m, bool last)
{
    struct kb_hcm_filter *filter = &build->chain->filters[build->chain->count];

    filter->name = kb_str_dup(build->factory->arena, kb_wkt_str(m->name));
    filter->name_id = kb_filter_name_id(filter->name);
    filter->disabled = m->disabled;
    kb_diag_push(build->diag, "config_discovery");
    filter->provider = kb_filter_provider_create(&kb_http_filter_discovery, m->config_discovery,
                                                 filter->name, last, build->factory, build->diag);
    kb_diag_pop(build->diag);
    if (filter->provider != NULL) {
        build->chain->count++;
    }
}

static void unknown_report(const HCM(HttpFilter) * m, struct kb_str type, struct kb_diag *diag)
{
    if (!m->is_optional) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      m->name, KB_STR_ARG(type));
    } else if (type.len > 0 && kb_any_type(m->typed_config) != NULL) {
        /* Envoy would run it, and it may be there to keep somebody out. */
        kb_diag_error(diag,
                      "the filter '%s' with type URL '%.*s' is not implemented yet; is_optional "
                      "leaves out only filters that Envoy does not know: remove it to go on "
                      "without it",
                      m->name, KB_STR_ARG(type));
    }
}

static void filter_apply(const struct kb_http_filter_chain_build *build, const HCM(HttpFilter) * m,
                         bool last)
{
    struct kb_hcm_filter *filter = &build->chain->filters[build->chain->count];
    struct kb_arena *arena = build->factory->arena;
    struct kb_diag *diag = build->diag;
    struct kb_str type =
        m->config_type_case ==
                ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG
            ? kb_any_inner_name(m->typed_config, arena)
            : KB_STR_NULL;
    const struct kb_extension *extension =
        kb_extension_find(build->category, type, kb_wkt_str(m->name));
    const ProtobufCMessage *message;

    if (m->config_type_case ==
        ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        if (build->category != KB_EXT_HTTP_FILTER) {
            kb_diag_error(
                diag,
                "config_discovery is not implemented for upstream HTTP filters: give typed_config");
            return;
        }
        discovery_apply(build, m, last);
        return;
    }
    if (extension == NULL || type.len == 0) {
        unknown_report(m, type, diag);
        return;
    }
    filter->ops = extension->ops;
    filter->name = kb_str_dup(arena, kb_wkt_str(m->name));
    filter->name_id = kb_filter_name_id(filter->name);
    filter->disabled = m->disabled;
    build->chain->encodes |= kb_http_filter_encodes(filter->ops);
    if (filter->name_id == 0) {
        kb_diag_error(diag, "more than %d names of filters were used", KB_FILTER_NAMES_MAX);
    }
    if (filter->ops->terminal != last) {
        kb_diag_error(diag,
                      last ? "Error: non-terminal filter named %s of type %s is the last filter in "
                             "a %s filter chain.%s"
                           : "Error: terminal filter named %s of type %s must be the last filter "
                             "in a %s filter chain.%s",
                      m->name, filter->ops->name, build->kind, last ? build->hint : "");
    }
    if (filter->ops->terminal && m->disabled) {
        kb_diag_error(diag,
                      "Error: the last (terminal) filter (%s) in the chain cannot be disabled by "
                      "default.",
                      m->name);
    }
    kb_diag_push(diag, "typed_config");
    message = type.len > 0 ? kb_any_unpack(m->typed_config, NULL, arena, diag) : NULL;
    if (message != NULL || type.len == 0) {
        int rc = filter->ops->config_create(message, build->factory, diag, &filter->config);

        KB_ASSERT(rc == 0 || kb_diag_result(diag) != 0);
    }
    kb_diag_pop(diag);
    build->chain->count++;
}

void kb_http_filter_chain_build(const struct kb_http_filter_chain_build *build,
                                HCM(HttpFilter) *const *filters, size_t count, const char *field)
{
    build->chain->filters =
        kb_arena_calloc(build->factory->arena, sizeof(*build->chain->filters) * (count + 1));
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, field, i);
        filter_apply(build, filters[i], i + 1 == count);
        kb_diag_pop(build->diag);
    }
}
