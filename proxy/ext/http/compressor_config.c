/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration of compressors, of the older form and of that by direction, and their counters. */
#include "proxy/ext/http/compressor_config.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/filters/http/compressor/v3/compressor.pb-c.h"
#include "proto/wkt.h"

#define MIN_LENGTH_DEFAULT 30

typedef Envoy__Extensions__Filters__Http__Compressor__V3__Compressor compressor_message;
typedef Envoy__Extensions__Filters__Http__Compressor__V3__Compressor__CommonDirectionConfig
    common_message;
typedef Envoy__Extensions__Filters__Http__Compressor__V3__CompressorPerRoute route_message;

static const char *const counter_names[KB_COMPRESSOR_COUNTERS] = {
    "compressed",
    "not_compressed",
    "total_uncompressed_bytes",
    "total_compressed_bytes",
    "content_length_too_small",
    "no_accept_header",
    "header_identity",
    "header_compressor_used",
    "header_compressor_overshadowed",
    "header_wildcard",
    "header_not_valid",
    "not_compressed_etag",
};

static struct kb_str default_types[] = {
    {"text/html", 9},
    {"text/plain", 10},
    {"text/css", 8},
    {"application/javascript", 22},
    {"application/x-javascript", 24},
    {"text/javascript", 15},
    {"text/x-javascript", 17},
    {"text/ecmascript", 15},
    {"text/js", 7},
    {"text/jscript", 12},
    {"text/x-js", 9},
    {"application/ecmascript", 22},
    {"application/x-json", 18},
    {"application/xml", 15},
    {"application/json", 16},
    {"image/svg+xml", 13},
    {"text/xml", 8},
    {"application/xhtml+xml", 21},
};

static void types_read(struct kb_compressor_direction *direction, char *const *types, size_t count,
                       struct kb_arena *arena)
{
    if (count == 0) {
        direction->types = default_types;
        direction->type_count = KB_ARRAY_LEN(default_types);
        return;
    }
    direction->types = kb_arena_calloc(arena, count * sizeof(*direction->types));
    direction->type_count = count;
    for (size_t i = 0; i < count; i++) {
        direction->types[i] = kb_str_dup(arena, kb_str_from_cstr(types[i]));
    }
}

static void flag_read(struct kb_compressor_direction *direction,
                      const Envoy__Config__Core__V3__RuntimeFeatureFlag *flag,
                      struct kb_arena *arena)
{
    direction->enabled = flag == NULL || kb_wkt_bool(flag->default_value, true);
    direction->runtime_key =
        flag != NULL ? kb_str_dup(arena, kb_str_from_cstr(flag->runtime_key)) : KB_STR("");
}

/* `m` may be NULL: defaults. */
static int common_read(struct kb_compressor_direction *direction, const common_message *m,
                       const struct kb_match_build *build)
{
    int rc = 0;

    flag_read(direction, m != NULL ? m->enabled : NULL, build->arena);
    direction->min_length =
        m != NULL ? kb_wkt_u32(m->min_content_length, MIN_LENGTH_DEFAULT) : MIN_LENGTH_DEFAULT;
    types_read(direction, m != NULL ? m->content_type : NULL, m != NULL ? m->n_content_type : 0,
               build->arena);
    if (m == NULL || m->n_content_type_matcher == 0) {
        return 0;
    }
    if (m->n_content_type == 0) {
        direction->type_count = 0;
    }
    direction->matcher_count = m->n_content_type_matcher;
    direction->matchers =
        kb_arena_calloc(build->arena, direction->matcher_count * sizeof(*direction->matchers));
    for (size_t i = 0; i < direction->matcher_count; i++) {
        kb_diag_push_index(build->diag, "content_type_matcher", i);
        rc |= kb_string_matcher_init(&direction->matchers[i], m->content_type_matcher[i], build);
        kb_diag_pop(build->diag);
    }
    return rc;
}

static int response_read(struct kb_compressor_config *config, const compressor_message *m,
                         const struct kb_match_build *build)
{
    const Envoy__Extensions__Filters__Http__Compressor__V3__Compressor__ResponseDirectionConfig *r =
        m->response_direction_config;
    uint32_t *codes;
    int rc;

    if (r == NULL) { /* the older fields, of the filter itself */
        rc = common_read(&config->response, NULL, build);
        flag_read(&config->response, m->runtime_enabled, build->arena);
        config->response.min_length = kb_wkt_u32(m->content_length, MIN_LENGTH_DEFAULT);
        types_read(&config->response, m->content_type, m->n_content_type, build->arena);
        config->disable_on_etag = m->disable_on_etag_header;
        config->remove_accept_encoding = m->remove_accept_encoding_header;
        return rc;
    }
    config->disable_on_etag = r->disable_on_etag_header;
    config->weaken_etag = r->weaken_etag_on_compress;
    config->tells_status = r->status_header_enabled;
    config->remove_accept_encoding = r->remove_accept_encoding_header;
    codes =
        kb_arena_calloc(build->arena, (r->n_uncompressible_response_codes + 1) * sizeof(*codes));
    for (size_t i = 0; i < r->n_uncompressible_response_codes; i++) {
        codes[i] = r->uncompressible_response_codes[i];
    }
    config->uncompressible = codes;
    config->uncompressible_count = r->n_uncompressible_response_codes;
    kb_diag_push(build->diag, "response_direction_config");
    rc = common_read(&config->response, r->common_config, build);
    kb_diag_pop(build->diag);
    return rc;
}

static void counters_create(struct kb_compressor_direction *direction,
                            const struct kb_compressor_config *config, const char *what,
                            size_t count, struct kb_factory_context *factory)
{
    for (size_t i = 0; i < count; i++) {
        direction->counters[i] = kb_stat_named_create(
            factory->server->stats,
            kb_str_printf(factory->arena, "%.*scompressor.%.*s%s%.*s.%s%s",
                          KB_STR_ARG(factory->http_stat_prefix), KB_STR_ARG(config->library.name),
                          config->library.name.len > 0 ? "." : "", KB_STR_ARG(config->library.stat),
                          i < KB_COMPRESSOR_REQUEST_COUNTERS ? what : "", counter_names[i]),
            KB_STAT_COUNTER);
    }
}

int kb_compressor_config_create(const void *message, struct kb_factory_context *factory,
                                struct kb_diag *diag, void **out)
{
    const compressor_message *m = message;
    struct kb_compressor_config *config = KB_ARENA_NEW(factory->arena, struct kb_compressor_config);
    const struct kb_match_build build = {factory->arena, &config->regexes, diag};
    int rc;

    KB_OBJ_SET(config, kb_compressor_config);
    config->runtime = factory->server->runtime;
    config->key = kb_filter_state_key(KB_STR("envoy.filters.http.compressor.offers"));
    kb_diag_push(diag, "compressor_library");
    if (m->compressor_library == NULL || m->compressor_library->typed_config == NULL) {
        kb_diag_error(diag, "value is required");
        rc = KB_ECONFIG;
    } else {
        rc = kb_compression_library_read(&config->library, m->compressor_library, true,
                                         factory->arena, diag);
    }
    kb_diag_pop(diag);
    config->choose_first = m->choose_first;
    config->compresses_requests = m->request_direction_config != NULL;
    rc |= common_read(
        &config->request,
        config->compresses_requests ? m->request_direction_config->common_config : NULL, &build);
    rc |= response_read(config, m, &build);
    if (rc != 0) {
        kb_regex_list_dispose(&config->regexes);
        return KB_ECONFIG;
    }
    counters_create(&config->request, config, "request.", KB_COMPRESSOR_REQUEST_COUNTERS, factory);
    counters_create(&config->response, config,
                    m->response_direction_config != NULL ? "response." : "", KB_COMPRESSOR_COUNTERS,
                    factory);
    *out = config;
    return 0;
}

void kb_compressor_config_destroy(void *arg)
{
    struct kb_compressor_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, kb_compressor_config);
    for (size_t i = 0; i < KB_COMPRESSOR_COUNTERS; i++) {
        kb_stat_named_destroy(config->request.counters[i]);
        kb_stat_named_destroy(config->response.counters[i]);
    }
    kb_regex_list_dispose(&config->regexes);
}

static int route_library_read(struct kb_compressor_route *route,
                              const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                              struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_compression_library *library =
        KB_ARENA_NEW(factory->arena, struct kb_compression_library);
    int rc;

    kb_diag_push(diag, "overrides.compressor_library");
    if (message->typed_config == NULL) {
        kb_diag_error(diag, "value is required");
        rc = KB_ECONFIG;
    } else {
        rc = kb_compression_library_read(library, message, true, factory->arena, diag);
    }
    kb_diag_pop(diag);
    route->library = library;
    return rc;
}

int kb_compressor_route_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const route_message *m = message;
    struct kb_compressor_route *route = KB_ARENA_NEW(factory->arena, struct kb_compressor_route);
    const Envoy__Extensions__Filters__Http__Compressor__V3__ResponseDirectionOverrides *response;

    KB_OBJ_SET(route, kb_compressor_route);
    route->remove_accept_encoding = -1;
    *out = route;
    if (m->override_case ==
        ENVOY__EXTENSIONS__FILTERS__HTTP__COMPRESSOR__V3__COMPRESSOR_PER_ROUTE__OVERRIDE_DISABLED) {
        route->disabled = true;
        return 0;
    }
    if (m->overrides == NULL) {
        return 0;
    }
    if (m->overrides->compressor_library != NULL) {
        KB_TRY(route_library_read(route, m->overrides->compressor_library, factory, diag));
    }
    response = m->overrides->response_direction_config;
    if (response != NULL) {
        route->enabled = true;
        if (response->remove_accept_encoding_header != NULL) {
            route->remove_accept_encoding = response->remove_accept_encoding_header->value != 0;
        }
    }
    return 0;
}
