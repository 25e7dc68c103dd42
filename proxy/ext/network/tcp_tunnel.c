/* SPDX-License-Identifier: Apache-2.0 */
/* The request with which the TCP proxy opens a tunnel: CONNECT or POST (Envoy
 * TcpProxy::TunnelingConfigHelperImpl). */
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "proto/wkt.h"
#include "proxy/ext/network/tcp_proxy.h"

typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TunnelingConfig
    tunneling_message;

struct kb_tcp_tunnel *kb_tcp_tunnel_create(const tunneling_message *m, struct kb_arena *arena,
                                           struct kb_diag *diag)
{
    struct kb_tcp_tunnel *tunnel = KB_ARENA_NEW(arena, struct kb_tcp_tunnel);
    struct kb_match_build build = {.arena = arena, .diag = diag};
    bool failed = false;

    tunnel->post = m->use_post;
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

struct kb_header_map *kb_tcp_tunnel_head(const struct kb_tcp_tunnel *tunnel,
                                         const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_header_map *head = KB_ARENA_NEW(arena, struct kb_header_map);
    struct kb_formatter_input input = {.request = head};

    kb_header_map_init(head, arena);
    head->method = tunnel->post ? KB_STR("POST") : KB_STR("CONNECT");
    head->path = tunnel->post ? tunnel->path : KB_STR_NULL;
    head->scheme = tunnel->post ? KB_STR("http") : KB_STR_NULL;
    head->authority = line_safe(
        kb_formatter_text(tunnel->hostname, &(struct kb_formatter_input){0}, info, arena), arena);
    kb_header_mutations_apply(tunnel->headers, head, &input, info);
    return head;
}
