/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal HTTP filter of the admin port: collects a form body, hands the request to
 * proxy/admin, and sends the answer a piece at a time, so that a page of many megabytes needs the
 * memory of one piece. Envoy: AdminFilter, AdminImpl. */
#include "proxy/server/admin_filter.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/header_map.h"
#include "proxy/http/hcm.h"
#include "proxy/matcher/string_match.h"

/* A form names a few values; anything longer is not for us. */
#define FORM_MAX_BYTES    65536
#define FORM_CONTENT_TYPE KB_STR("application/x-www-form-urlencoded")

/* What the connections of the port share; heap. */
struct admin_config {
    KB_OBJ;
    struct kb_admin *admin;
    struct kb_arena arena;
    struct kb_regex_list regexes;
    struct kb_string_matcher *allowed; /* admin.allow_paths; none: every path */
    size_t allowed_count;
};
KB_OBJ_MAGIC(admin_config, 0x41444d43);

struct admin_filter {
    KB_OBJ;
    struct kb_stream *stream;
    const struct admin_config *config;
    struct kb_buf form;
    struct kb_admin_response response;
    struct kb_timer timer; /* the next piece */
    bool answering;        /* response is to be disposed */
    bool ended;            /* the last piece was given */
    bool paused;           /* the client reads slower than we write */
};
KB_OBJ_MAGIC(admin_filter, 0x41444d46);

static struct kb_loop *loop_of(struct admin_filter *filter)
{
    return &kb_stream_worker(filter->stream)->loop;
}

static void piece_send(struct kb_timer *timer)
{
    struct admin_filter *filter = KB_CONTAINER_OF(timer, struct admin_filter, timer);
    struct kb_json_out out;
    struct kb_buf data;
    bool more;

    KB_ASSERT(filter->kb_magic == (uint32_t)KB_MAGIC_admin_filter);
    kb_json_out_init(&out, 0);
    more = kb_admin_response_next(&filter->response, &out);
    kb_buf_init(&data, &kb_stream_worker(filter->stream)->slices, 0);
    kb_buf_append(&data, out.p, out.len);
    kb_json_out_dispose(&out);
    filter->ended = !more;
    if (more) {
        kb_loop_timer_arm(loop_of(filter), &filter->timer, 0);
    }
    kb_stream_encode_data(filter->stream, &data, !more);
    kb_buf_dispose(&data);
}

static void *admin_filter_create(void *config, struct kb_stream *stream)
{
    struct admin_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct admin_filter);

    KB_OBJ_SET(filter, admin_filter);
    filter->stream = stream;
    filter->config = KB_CAST(config, admin_config);
    kb_buf_init(&filter->form, &kb_stream_worker(stream)->slices, 0);
    kb_timer_init(&filter->timer, piece_send);
    return filter;
}

static bool path_allowed(const struct admin_config *config, struct kb_str path_and_query)
{
    for (size_t i = 0; i < config->allowed_count; i++) {
        if (kb_string_matcher_match(&config->allowed[i], path_and_query)) {
            return true;
        }
    }
    return config->allowed_count == 0;
}

static void refuse(struct admin_filter *filter)
{
    struct kb_arena *arena = kb_stream_arena(filter->stream);
    struct kb_str path = kb_stream_request_headers(filter->stream)->path;
    struct kb_header_map *headers = KB_ARENA_NEW(arena, struct kb_header_map);
    struct kb_str text = kb_str_printf(arena, "request to path %.*s not allowed", KB_STR_ARG(path));
    struct kb_buf body;

    kb_header_map_init(headers, arena);
    headers->status = 403;
    kb_header_map_add(headers, KB_STR("content-type"), KB_STR("text/plain; charset=UTF-8"));
    kb_header_map_add(headers, KB_STR("cache-control"), KB_STR("no-cache, max-age=0"));
    kb_header_map_add(headers, KB_STR("x-content-type-options"), KB_STR("nosniff"));
    filter->ended = true;
    kb_stream_encode_headers(filter->stream, headers, false);
    kb_buf_init(&body, &kb_stream_worker(filter->stream)->slices, 0);
    kb_buf_append(&body, text.p, text.len);
    kb_stream_encode_data(filter->stream, &body, true);
    kb_buf_dispose(&body);
}

static void answer(struct admin_filter *filter)
{
    struct kb_stream *stream = filter->stream;
    struct kb_arena *arena = kb_stream_arena(stream);
    const struct kb_header_map *request = kb_stream_request_headers(stream);
    struct kb_header_map *headers = KB_ARENA_NEW(arena, struct kb_header_map);

    if (!path_allowed(filter->config, request->path)) {
        refuse(filter);
        return;
    }
    kb_admin_handle(filter->config->admin, request->method, request->path,
                    kb_buf_pullup(&filter->form, filter->form.len), &filter->response);
    filter->answering = true;
    kb_header_map_init(headers, arena);
    headers->status = (uint16_t)filter->response.status;
    for (size_t i = 0; i < filter->response.header_count; i++) {
        kb_header_map_add(headers, kb_str_from_cstr(filter->response.headers[i].name),
                          kb_str_dup(arena, kb_str_from_cstr(filter->response.headers[i].value)));
    }
    kb_stream_encode_headers(stream, headers, false);
    /* The first piece belongs to this event: /quitquitquit is answered before the loop ends. A
     * stream that has ended meanwhile goes after the event. */
    piece_send(&filter->timer);
}

static enum kb_filter_headers_status
admin_filter_decode_headers(void *self, struct kb_header_map *headers, bool end_stream)
{
    struct admin_filter *filter = KB_CAST(self, admin_filter);

    (void)headers;
    if (end_stream) {
        answer(filter);
    }
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static bool is_form(struct admin_filter *filter)
{
    struct kb_str type =
        kb_header_map_value(kb_stream_request_headers(filter->stream), KB_STR("content-type"));

    return kb_str_istarts_with(type, FORM_CONTENT_TYPE);
}

static enum kb_filter_data_status admin_filter_decode_data(void *self, struct kb_buf *data,
                                                           bool end_stream)
{
    struct admin_filter *filter = KB_CAST(self, admin_filter);

    if (filter->answering) {
        return KB_FILTER_DATA_STOP_NO_BUFFER;
    }
    if (is_form(filter)) {
        if (filter->form.len + data->len > FORM_MAX_BYTES) {
            kb_stream_send_local_reply(filter->stream, 413, KB_STR("Payload Too Large"),
                                       KB_STR("request_payload_too_large"), NULL, NULL);
            return KB_FILTER_DATA_STOP_NO_BUFFER;
        }
        kb_buf_move(&filter->form, data);
    }
    if (end_stream) {
        answer(filter);
    }
    return KB_FILTER_DATA_STOP_NO_BUFFER;
}

static enum kb_filter_trailers_status admin_filter_decode_trailers(void *self,
                                                                   struct kb_header_map *trailers)
{
    struct admin_filter *filter = KB_CAST(self, admin_filter);

    (void)trailers;
    if (!filter->answering) {
        answer(filter);
    }
    return KB_FILTER_TRAILERS_STOP;
}

static void admin_filter_on_above_high(void *self)
{
    struct admin_filter *filter = KB_CAST(self, admin_filter);

    filter->paused = true;
    kb_loop_timer_cancel(loop_of(filter), &filter->timer);
}

static void admin_filter_on_below_low(void *self)
{
    struct admin_filter *filter = KB_CAST(self, admin_filter);

    filter->paused = false;
    if (filter->answering && !filter->ended) {
        kb_loop_timer_arm(loop_of(filter), &filter->timer, 0);
    }
}

static void admin_filter_on_destroy(void *self)
{
    struct admin_filter *filter = KB_CAST(self, admin_filter);

    kb_loop_timer_cancel(loop_of(filter), &filter->timer);
    kb_buf_dispose(&filter->form);
    if (filter->answering) {
        kb_admin_response_dispose(&filter->response);
    }
    KB_OBJ_CLEAR(filter);
}

static struct admin_config *config_create(struct kb_admin *admin,
                                          const Envoy__Config__Bootstrap__V3__Admin *message,
                                          struct kb_diag *diag)
{
    struct admin_config *config = kb_calloc(1, sizeof(*config));
    struct kb_match_build build = {&config->arena, &config->regexes, diag};

    KB_OBJ_SET(config, admin_config);
    config->admin = admin;
    kb_arena_init(&config->arena, NULL);
    config->allowed =
        kb_arena_calloc(&config->arena, (message->n_allow_paths + 1) * sizeof(*config->allowed));
    for (size_t i = 0; i < message->n_allow_paths; i++) {
        kb_diag_push_index(diag, "allow_paths", i);
        if (kb_string_matcher_init(&config->allowed[i], message->allow_paths[i], &build) == 0) {
            config->allowed_count = i + 1;
        }
        kb_diag_pop(diag);
    }
    return config;
}

static void config_destroy(void *arg)
{
    struct admin_config *config = KB_CAST(arg, admin_config);

    kb_regex_list_dispose(&config->regexes);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

static const struct kb_http_filter_ops admin_filter_ops = {
    .name = "envoy.admin",
    .type_url = "",
    .terminal = true,
    .config_destroy = config_destroy,
    .create = admin_filter_create,
    .decode_headers = admin_filter_decode_headers,
    .decode_data = admin_filter_decode_data,
    .decode_trailers = admin_filter_decode_trailers,
    .on_destroy = admin_filter_on_destroy,
    .on_above_high = admin_filter_on_above_high,
    .on_below_low = admin_filter_on_below_low,
};

/* What Envoy's AdminImpl answers as the configuration of its connection manager. */
static struct kb_hcm_config *hcm_config_create(struct kb_server_context *server,
                                               struct kb_admin *admin,
                                               const Envoy__Config__Bootstrap__V3__Admin *message,
                                               struct kb_diag *diag)
{
    struct kb_hcm_config *config =
        kb_hcm_config_create_default(server, KB_STR("admin"), "listener.admin.");
    struct kb_factory_context factory = {
        .server = server,
        .arena = &config->arena,
        .stat_prefix = "listener.admin.",
        .listener_name = KB_STR("admin"),
    };
    struct kb_hcm_filter *filter = KB_ARENA_NEW(&config->arena, struct kb_hcm_filter);

    filter->ops = &admin_filter_ops;
    filter->config = config_create(admin, message, diag);
    filter->name = KB_STR("envoy.admin");
    config->chain = (struct kb_hcm_filter_chain){.filters = filter, .count = 1};
    config->use_remote_address = true;
    config->generate_request_id = false;
    config->normalize_path = true;
    config->merge_slashes = true;
    config->h1.allow_absolute_url = false;
    config->idle_timeout_ms = 0;
    config->stream_idle_timeout_ms = 0;
    config->delayed_close_ms = 0;
    config->never_drains = true;
    kb_stat_group_hide_for_admin(config->http_stats);
    kb_stat_group_hide_for_admin(config->listener_stats);
    config->access_log =
        kb_access_log_list_create(message->access_log, message->n_access_log, &factory, diag);
    return config;
}

static int address_read(const Envoy__Config__Core__V3__Address *address, struct kb_addr *addr,
                        struct kb_diag *diag)
{
    const Envoy__Config__Core__V3__SocketAddress *socket;

    if (address->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE) {
        if (kb_addr_from_path(addr, kb_str_from_cstr(address->pipe->path)) != 0) {
            kb_diag_error(diag, "Path \"%s\" exceeds maximum UNIX domain socket path size",
                          address->pipe->path);
            return KB_ECONFIG;
        }
        return 0;
    }
    if (address->address_case != ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        kb_diag_error(diag, "the admin interface needs a socket_address or a pipe");
        return KB_ECONFIG;
    }
    socket = address->socket_address;
    if (socket->port_specifier_case !=
        ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE) {
        kb_diag_error(diag, "the admin interface needs a port_value");
        return KB_ECONFIG;
    }
    if (kb_addr_from_ip(addr, kb_str_from_cstr(socket->address), (uint16_t)socket->port_value) !=
        0) {
        kb_diag_error(diag, "malformed IP address: %s", socket->address);
        return KB_ECONFIG;
    }
    return 0;
}

struct kb_listener *kb_admin_listener_create(struct kb_server_context *server,
                                             struct kb_admin *admin,
                                             const Envoy__Config__Bootstrap__V3__Admin *message,
                                             struct kb_diag *diag)
{
    struct kb_hcm_config *config;
    struct kb_listener *listener;
    struct kb_addr addr;
    uint32_t errors_before = diag->error_count;
    int rc;

    kb_diag_push(diag, "address");
    rc = address_read(message->address, &addr, diag);
    kb_diag_pop(diag);
    if (rc != 0) {
        return NULL;
    }
    config = hcm_config_create(server, admin, message, diag);
    if (diag->error_count != errors_before) {
        kb_hcm_config_destroy(config);
        return NULL;
    }
    listener =
        kb_listener_create_admin(server, &addr, &kb_ext_network_http_connection_manager, config);
    kb_stat_group_hide_for_admin(listener->stats);
    return listener;
}
