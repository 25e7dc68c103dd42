/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.set_filter_state: texts made of a request that stay with it for others to
 * read. */
#include "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.pb-c.h"

#include "envoy/config/core/v3/substitution_format_string.pb-c.h"
#include "envoy/extensions/filters/common/set_filter_state/v3/value.pb-c.h"
#include "proto/wkt.h"
#include "proxy/access_log/log_format.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/formatter.h"
#include "proxy/api/http_filter.h"

typedef Envoy__Extensions__Filters__Common__SetFilterState__V3__FilterStateValue value_message;

struct state_value {
    const struct kb_filter_state_key *key;
    struct kb_log_format format;
    uint8_t sharing;
    bool read_only;
    bool skip_if_empty;
    bool hashable;
};

struct set_filter_state_config {
    KB_OBJ;
    bool clear_route_cache;
    size_t count;
    struct state_value values[];
};
KB_OBJ_MAGIC(set_filter_state_config, 0x53465354);

struct set_filter_state {
    const struct set_filter_state_config *config;
    struct kb_stream *stream;
};

/* ---- configuration ---- */

/* What kind of object the name stands for: those that are a text to whoever reads them. */
static void factory_check(const char *name, struct kb_diag *diag)
{
    static const char *const elsewhere[] = {
        "envoy.tcp_proxy.cluster",
        "envoy.tcp_proxy.disable_tunneling",
        "envoy.tcp_proxy.per_connection_idle_timeout_ms",
        "envoy.network.upstream_server_name",
        "envoy.network.upstream_subject_alt_names",
        "envoy.network.application_protocols",
        "envoy.network.ip",
        "envoy.network.transport_socket.original_dst_address",
        "envoy.filters.listener.original_dst.local_ip",
        "envoy.filters.listener.original_dst.remote_ip",
        "envoy.ratelimit.hits_addend",
        "envoy.upstream.dynamic_host",
        "envoy.upstream.dynamic_port",
    };
    struct kb_str text = kb_str_from_cstr(name);

    if (kb_str_eq(text, KB_STR("envoy.string")) ||
        kb_str_eq(text, KB_STR("envoy.hashable_string"))) {
        return;
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(elsewhere); i++) {
        if (kb_str_eq(text, kb_str_from_cstr(elsewhere[i]))) {
            kb_diag_error(diag,
                          "'%s' is not implemented; give a key of your own and factory_key "
                          "envoy.string for a text that others read",
                          name);
            return;
        }
    }
    kb_diag_error(diag, "'%s' does not have an object factory", name);
}

static int value_read(struct state_value *value, const value_message *m, struct kb_arena *arena,
                      struct kb_diag *diag)
{
    const char *key = m->object_key != NULL ? m->object_key : "";

    factory_check(m->factory_key[0] != '\0' ? m->factory_key : key, diag);
    value->key = kb_filter_state_key(kb_str_from_cstr(key));
    value->hashable = kb_str_eq(kb_str_from_cstr(m->factory_key[0] != '\0' ? m->factory_key : key),
                                KB_STR("envoy.hashable_string"));
    value->read_only = m->read_only;
    value->skip_if_empty = m->skip_if_empty;
    value->sharing = (uint8_t)m->shared_with_upstream; /* the same numbers */
    kb_diag_push(diag, "format_string");
    if (m->format_string == NULL) {
        kb_diag_error(diag, "value is required");
    } else if (!kb_log_format_init(&value->format, m->format_string, arena, diag)) {
        kb_diag_pop(diag);
        return KB_ECONFIG;
    }
    kb_diag_pop(diag);
    return 0;
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__SetFilterState__V3__Config *m = message;
    struct set_filter_state_config *config = kb_arena_calloc(
        factory->arena, sizeof(*config) + m->n_on_request_headers * sizeof(struct state_value));
    int rc = 0;

    KB_OBJ_SET(config, set_filter_state_config);
    config->clear_route_cache = m->clear_route_cache;
    for (size_t i = 0; i < m->n_on_request_headers; i++) {
        kb_diag_push_index(diag, "on_request_headers", i);
        rc |= value_read(&config->values[config->count++], m->on_request_headers[i], factory->arena,
                         diag);
        kb_diag_pop(diag);
    }
    *out = config;
    return rc == 0 ? 0 : KB_ECONFIG;
}

/* ---- streams ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct set_filter_state *filter =
        KB_ARENA_NEW(kb_stream_arena(stream), struct set_filter_state);

    filter->config = KB_CAST(config, set_filter_state_config);
    filter->stream = stream;
    return filter;
}

static void value_put(const struct set_filter_state *filter, const struct state_value *value,
                      const struct kb_formatter_input *input)
{
    struct kb_arena *arena = kb_stream_arena(filter->stream);
    struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    struct kb_str *text = KB_ARENA_NEW(arena, struct kb_str);
    struct kb_filter_state_item item = {.key = value->key,
                                        .type = value->hashable ? &kb_filter_state_hashable_string
                                                                : &kb_filter_state_string,
                                        .object = text,
                                        .read_only = value->read_only,
                                        .sharing = value->sharing};

    *text = value->format.text != NULL
                ? kb_formatter_text(value->format.text, input, info, arena)
                : kb_json_formatter_text(value->format.json, input, info, arena);
    if (text->len == 0 && value->skip_if_empty) {
        return;
    }
    if (kb_filter_state_put_stream(info, arena, &item) != 0) {
        return; /* what stands there is read-only */
    }
}

static void values_put(const struct set_filter_state *filter,
                       const struct set_filter_state_config *config,
                       const struct kb_header_map *headers)
{
    const struct kb_formatter_input input = {.request = headers};

    for (size_t i = 0; i < config->count; i++) {
        value_put(filter, &config->values[i], &input);
    }
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct set_filter_state *filter = arg;
    const struct set_filter_state_config *levels[KB_ROUTE_CONFIG_LEVELS];
    size_t count = kb_stream_route_configs(filter->stream, filter, (const void **)levels);
    bool clears = filter->config->clear_route_cache;

    (void)end_stream;
    values_put(filter, filter->config, headers);
    for (size_t i = count; i > 0; i--) {
        values_put(filter, levels[i - 1], headers);
        clears |= levels[i - 1]->clear_route_cache;
    }
    if (clears) {
        kb_stream_clear_route_cache(filter->stream);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_set_filter_state = {
    .name = "envoy.filters.http.set_filter_state",
    .type_url = "envoy.extensions.filters.http.set_filter_state.v3.Config",
    .config_create = config_create,
    .route_config_create = config_create,
    .create = create,
    .decode_headers = decode_headers,
};
