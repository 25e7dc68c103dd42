/* SPDX-License-Identifier: Apache-2.0 */
/* The request with which the TCP proxy opens a tunnel: CONNECT or POST (Envoy
 * TcpProxy::TunnelingConfigHelperImpl). */
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "proto/any.h"
#include "proto/pb_json.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/filter_state.h"
#include "proxy/ext/network/tcp_proxy.h"

typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TunnelingConfig
    tunneling_message;

#define REQUEST_ID_NAMESPACE "envoy.filters.network.tcp_proxy"
#define REQUEST_ID_KEY       "tunnel_request_id"
#define REQUEST_ID_TYPE      "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
#define UUID_LEN             36

static const struct kb_filter_state_key *headers_key;
static const struct kb_filter_state_key *trailers_key;

/* ---- configuration ---- */

/* Ids are made only where the extension is configured; the one there is makes UUIDs. */
static void request_id_read(struct kb_tcp_tunnel *tunnel, const tunneling_message *m,
                            struct kb_arena *arena, struct kb_diag *diag, bool *failed)
{
    struct kb_str type;

    if (m->request_id_extension == NULL || m->request_id_extension->typed_config == NULL) {
        return;
    }
    type = kb_any_inner_name(m->request_id_extension->typed_config, arena);
    if (!kb_str_eq(type, KB_STR(REQUEST_ID_TYPE))) {
        kb_diag_push(diag, "request_id_extension");
        kb_diag_error(diag,
                      "Didn't find a registered implementation for type: '%.*s' (the one there is: "
                      "%s)",
                      KB_STR_ARG(type), REQUEST_ID_TYPE);
        kb_diag_pop(diag);
        *failed = true;
    }
    tunnel->request_id = true;
    tunnel->request_id_header = m->request_id_header[0] != '\0'
                                    ? kb_header_name_dup(arena, m->request_id_header)
                                    : kb_header_id_name(KB_HDR_X_REQUEST_ID);
    tunnel->request_id_key = m->request_id_metadata_key[0] != '\0'
                                 ? kb_str_dup(arena, kb_wkt_str(m->request_id_metadata_key))
                                 : KB_STR(REQUEST_ID_KEY);
}

static void propagate_read(struct kb_tcp_tunnel *tunnel, const tunneling_message *m)
{
    tunnel->keep_headers = m->propagate_response_headers != 0;
    tunnel->keep_trailers = m->propagate_response_trailers != 0;
    if (headers_key == NULL) {
        headers_key = kb_filter_state_key(KB_STR("envoy.tcp_proxy.propagate_response_headers"));
        trailers_key = kb_filter_state_key(KB_STR("envoy.tcp_proxy.propagate_response_trailers"));
    }
}

struct kb_tcp_tunnel *kb_tcp_tunnel_create(const tunneling_message *m, struct kb_arena *arena,
                                           struct kb_diag *diag)
{
    struct kb_tcp_tunnel *tunnel = KB_ARENA_NEW(arena, struct kb_tcp_tunnel);
    struct kb_match_build build = {.arena = arena, .diag = diag};
    bool failed = false;

    tunnel->post = m->use_post;
    propagate_read(tunnel, m);
    request_id_read(tunnel, m, arena, diag, &failed);
    tunnel->path =
        m->post_path[0] != '\0' ? kb_str_dup(arena, kb_wkt_str(m->post_path)) : KB_STR("/");
    if (!m->use_post && m->post_path[0] != '\0') {
        kb_diag_error(diag, "Can't set a post path when POST method isn't used");
        failed = true;
    }
    if (m->n_formatters > 0) {
        kb_diag_push(diag, "formatters");
        kb_diag_error(diag, "extensions of formatters are not supported yet; remove them");
        kb_diag_pop(diag);
        failed = true;
    }
    kb_diag_push(diag, "hostname");
    tunnel->hostname = kb_formatter_create(arena, kb_wkt_str(m->hostname), false, diag);
    kb_diag_pop(diag);
    tunnel->headers = kb_header_mutations_create(m->headers_to_add, m->n_headers_to_add, NULL, 0,
                                                 "", &build, &failed);
    return tunnel->hostname != NULL && !failed ? tunnel : NULL;
}

/* What a client can have a say in (its server name) must not end the line. */
static struct kb_str line_safe(struct kb_str text, struct kb_arena *arena)
{
    char *copy = NULL;

    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.p[i] >= ' ' && text.p[i] != 0x7f) {
            continue;
        }
        if (copy == NULL) {
            text = kb_str_dup(arena, text);
            copy = (char *)(uintptr_t)text.p;
        }
        copy[i] = '_';
    }
    return text;
}

static void request_id_set(const struct kb_tcp_tunnel *tunnel, struct kb_conn *conn,
                           struct kb_header_map *head, struct kb_arena *arena)
{
    char *text = kb_arena_alloc(arena, UUID_LEN, 1);

    kb_rand_uuid4(&conn->worker->rand, text);
    kb_header_map_set(head, tunnel->request_id_header, kb_str_make(text, UUID_LEN));
    kb_dynamic_metadata_set_text(&conn->info.dynamic_metadata, NULL, KB_STR(REQUEST_ID_NAMESPACE),
                                 tunnel->request_id_key, kb_str_make(text, UUID_LEN));
}

struct kb_header_map *kb_tcp_tunnel_head(const struct kb_tcp_tunnel *tunnel,
                                         const struct kb_stream_info *info, struct kb_conn *conn,
                                         struct kb_arena *arena)
{
    struct kb_header_map *head = KB_ARENA_NEW(arena, struct kb_header_map);
    struct kb_formatter_input input = {.request = head};

    kb_header_map_init(head, arena);
    head->method = tunnel->post ? KB_STR("POST") : KB_STR("CONNECT");
    head->path = tunnel->post ? tunnel->path : KB_STR_NULL;
    head->scheme = tunnel->post ? KB_STR("http") : KB_STR_NULL;
    head->authority = line_safe(
        kb_formatter_text(tunnel->hostname, &(struct kb_formatter_input){0}, info, arena), arena);
    if (tunnel->request_id) {
        request_id_set(tunnel, conn, head, arena);
    }
    kb_header_mutations_apply(tunnel->headers, head, &input, info);
    return head;
}

/* ---- what the answer says ---- */

static void json_pair(struct kb_json_out *out, bool first, struct kb_str name, struct kb_str value)
{
    kb_json_out_add(out, first ? KB_STR("{\"key\":") : KB_STR(",{\"key\":"));
    kb_json_out_add_quoted(out, name);
    kb_json_out_add(out, KB_STR(",\"value\":"));
    kb_json_out_add_quoted(out, value);
    kb_json_out_add(out, KB_STR("}"));
}

/* As the message envoy.config.core.v3.HeaderMap. */
static bool map_json(const void *object, struct kb_arena *arena, struct kb_str *json)
{
    const struct kb_header_map *map = object;
    struct kb_json_out out = {0};
    bool first = true;
    char status[20];

    kb_json_out_add(&out, KB_STR("{\"headers\":["));
    if (map->status != 0) {
        json_pair(&out, true, KB_STR(":status"),
                  kb_str_make(status, kb_u64_to_str(map->status, status)));
        first = false;
    }
    KB_HEADER_FOREACH(h, map)
    {
        json_pair(&out, first, h->name, h->value);
        first = false;
    }
    kb_json_out_add(&out, KB_STR("]}"));
    *json = kb_str_dup(arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return true;
}

static const struct kb_filter_state_type map_type = {.name = "header map", .json = map_json};

static void map_keep(const struct kb_filter_state_key *key, const struct kb_header_map *from,
                     struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_header_map *map = KB_ARENA_NEW(arena, struct kb_header_map);
    struct kb_filter_state_item item = {.key = key, .type = &map_type, .object = map};

    kb_header_map_init(map, arena);
    map->status = from->status;
    KB_HEADER_FOREACH(h, from)
    {
        kb_header_map_append_id(map, h->id, kb_str_dup(arena, h->name),
                                kb_str_dup(arena, h->value));
    }
    if (kb_filter_state_put(&info->filter_state, arena, &item) != 0) {
        return; /* another filter's, which is read-only */
    }
}

void kb_tcp_tunnel_headers_keep(const struct kb_tcp_tunnel *tunnel,
                                const struct kb_header_map *headers, struct kb_stream_info *info,
                                struct kb_arena *arena)
{
    if (tunnel->keep_headers) {
        map_keep(headers_key, headers, info, arena);
    }
}

void kb_tcp_tunnel_trailers_keep(const struct kb_tcp_tunnel *tunnel,
                                 const struct kb_header_map *trailers, struct kb_stream_info *info,
                                 struct kb_arena *arena)
{
    if (tunnel->keep_trailers) {
        map_keep(trailers_key, trailers, info, arena);
    }
}
