/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.set_filter_state: texts made of a request that stay with it for others to
 * read, or say how its host is connected to with TLS. */
#include "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.pb-c.h"

#include "envoy/config/core/v3/substitution_format_string.pb-c.h"
#include "envoy/extensions/filters/common/set_filter_state/v3/value.pb-c.h"
#include "proto/wkt.h"
#include "proxy/access_log/log_format.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/formatter.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/transport_socket.h"

typedef Envoy__Extensions__Filters__Common__SetFilterState__V3__FilterStateValue value_message;

/* What objects are to others. */
enum state_kind {
    STATE_TEXT,
    STATE_HASHABLE_TEXT,
    STATE_SERVER_NAME, /* for TLS to the host */
    STATE_SUBJECT_NAMES,
    STATE_PROTOCOLS,
};

struct state_value {
    const struct kb_filter_state_key *key;
    enum state_kind kind;
    bool is_heard; /* it has the name by which others look for it */
    struct kb_log_format format;
    uint8_t sharing;
    bool read_only;
    bool skip_if_empty;
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

static bool option_text(const void *object, struct kb_arena *arena, struct kb_str *text)
{
    (void)arena;
    *text = *(const struct kb_str *)object;
    return true;
}

static const struct kb_filter_state_type server_name_type = {
    .name = "envoy.network.upstream_server_name",
    .text = option_text,
};
static const struct kb_filter_state_type subject_names_type = {
    .name = "envoy.network.upstream_subject_alt_names",
    .text = option_text,
};
static const struct kb_filter_state_type protocols_type = {
    .name = "envoy.network.application_protocols",
};

static const struct {
    struct kb_str name;
    const struct kb_filter_state_type *type;
} factories[] = {
    [STATE_TEXT] = {KB_STR("envoy.string"), &kb_filter_state_string},
    [STATE_HASHABLE_TEXT] = {KB_STR("envoy.hashable_string"), &kb_filter_state_hashable_string},
    [STATE_SERVER_NAME] = {KB_STR("envoy.network.upstream_server_name"), &server_name_type},
    [STATE_SUBJECT_NAMES] = {KB_STR("envoy.network.upstream_subject_alt_names"),
                             &subject_names_type},
    [STATE_PROTOCOLS] = {KB_STR("envoy.network.application_protocols"), &protocols_type},
};

/* What kind of object the name stands for. */
static enum state_kind factory_find(const char *name, struct kb_diag *diag)
{
    static const char *const elsewhere[] = {
        "envoy.tcp_proxy.cluster",
        "envoy.tcp_proxy.disable_tunneling",
        "envoy.tcp_proxy.per_connection_idle_timeout_ms",
        "envoy.network.ip",
        "envoy.network.transport_socket.original_dst_address",
        "envoy.filters.listener.original_dst.local_ip",
        "envoy.filters.listener.original_dst.remote_ip",
        "envoy.ratelimit.hits_addend",
        "envoy.upstream.dynamic_host",
        "envoy.upstream.dynamic_port",
    };
    struct kb_str text = kb_str_from_cstr(name);

    for (size_t i = 0; i < KB_ARRAY_LEN(factories); i++) {
        if (kb_str_eq(text, factories[i].name)) {
            return (enum state_kind)i;
        }
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(elsewhere); i++) {
        if (kb_str_eq(text, kb_str_from_cstr(elsewhere[i]))) {
            kb_diag_error(diag,
                          "'%s' is not implemented; give a key of your own and factory_key "
                          "envoy.string for a text that others read",
                          name);
            return STATE_TEXT;
        }
    }
    kb_diag_error(diag, "'%s' does not have an object factory", name);
    return STATE_TEXT;
}

static int value_read(struct state_value *value, const value_message *m, struct kb_arena *arena,
                      struct kb_diag *diag)
{
    const char *key = m->object_key != NULL ? m->object_key : "";

    value->kind = factory_find(m->factory_key[0] != '\0' ? m->factory_key : key, diag);
    value->is_heard = value->kind >= STATE_SERVER_NAME &&
                      kb_str_eq(kb_str_from_cstr(key), factories[value->kind].name);
    value->key = kb_filter_state_key(kb_str_from_cstr(key));
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

/* The parts between commas, as they are. */
static const struct kb_str *text_split(struct kb_str text, struct kb_arena *arena, size_t *count)
{
    size_t parts = 1;
    struct kb_str *out;
    ptrdiff_t comma;

    for (size_t i = 0; i < text.len; i++) {
        parts += text.p[i] == ',';
    }
    out = kb_arena_calloc(arena, parts * sizeof(*out));
    *count = parts;
    for (size_t i = 0; i < parts; i++) {
        comma = kb_str_find_char(text, ',');
        out[i] = comma < 0 ? text : kb_str_first(text, (size_t)comma);
        text = comma < 0 ? KB_STR("") : kb_str_from(text, (size_t)comma + 1);
    }
    return out;
}

/* Says so to whoever connects to the host for this request. */
static void transport_option_set(struct kb_stream *stream, enum state_kind kind, struct kb_str text)
{
    struct kb_arena *arena = kb_stream_arena(stream);
    struct kb_stream_info *info = kb_stream_stream_info(stream);
    struct kb_transport_socket_options *options =
        KB_ARENA_NEW(arena, struct kb_transport_socket_options);

    if (info->transport_options != NULL) {
        *options = *info->transport_options;
    }
    options->of_request = true;
    if (kind == STATE_SERVER_NAME) {
        options->server_name = text;
    } else if (kind == STATE_SUBJECT_NAMES) {
        options->verify_sans = text_split(text, arena, &options->verify_san_count);
    } else {
        options->alpn = text_split(text, arena, &options->alpn_count);
    }
    info->transport_options = options;
}

static void value_put(const struct set_filter_state *filter, const struct state_value *value,
                      const struct kb_formatter_input *input)
{
    struct kb_arena *arena = kb_stream_arena(filter->stream);
    struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    struct kb_str *text = KB_ARENA_NEW(arena, struct kb_str);
    struct kb_filter_state_item item = {.key = value->key,
                                        .type = factories[value->kind].type,
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
    if (value->is_heard) {
        transport_option_set(filter->stream, value->kind, *text);
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
