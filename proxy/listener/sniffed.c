/* SPDX-License-Identifier: Apache-2.0 */
/* What listener filters found out about a connection, in one piece of memory. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/listener_filter.h"

static struct kb_str text_put(char **at, struct kb_str text)
{
    struct kb_str copy = {*at, text.len};

    memcpy(*at, text.p != NULL ? text.p : "", text.len);
    *at += text.len;
    return copy;
}

void kb_listener_socket_set_sniffed(struct kb_listener_socket *socket,
                                    const struct kb_sniffed *found)
{
    struct kb_conn *conn = socket->conn;
    size_t count = found->application_protocol_count;
    size_t text_len = found->transport_protocol.len + found->server_name.len + found->ja3.len;
    struct kb_sniffed *sniffed;
    struct kb_str *protocols;
    char *at;

    for (size_t i = 0; i < count; i++) {
        text_len += found->application_protocols[i].len;
    }
    sniffed = kb_malloc(sizeof(*sniffed) + count * sizeof(struct kb_str) + text_len);
    protocols = (struct kb_str *)(sniffed + 1);
    at = (char *)(protocols + count);
    sniffed->transport_protocol = text_put(&at, found->transport_protocol);
    sniffed->server_name = text_put(&at, found->server_name);
    sniffed->ja3 = text_put(&at, found->ja3);
    for (size_t i = 0; i < count; i++) {
        protocols[i] = text_put(&at, found->application_protocols[i]);
    }
    sniffed->application_protocols = protocols;
    sniffed->application_protocol_count = count;
    free(conn->sniffed); /* after the copy: `found` may point into it */
    conn->sniffed = sniffed;
    conn->info.requested_server_name = sniffed->server_name;
}
