/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.listener.original_src: upstream connections come from the client's own address, so
 * that the host sees it. Answers find their way back by the mark (iptables, TPROXY).
 * Envoy documents it under listener_filters/original_src_filter. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/obj.h"
#include "base/sock.h"
#include "envoy/extensions/filters/listener/original_src/v3/original_src.pb-c.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/transport_socket.h"

struct original_src {
    KB_OBJ;
    uint32_t mark; /* 0: none */
};
KB_OBJ_MAGIC(original_src, 0x4f535243);

/* One piece of memory of a connection. */
struct wanted {
    struct kb_transport_socket_options options;
    struct kb_sock_foreign_source source;
};

/* bind_port has no effect in Envoy either: the port is any. */
static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config)
{
    const Envoy__Extensions__Filters__Listener__OriginalSrc__V3__OriginalSrc *m = message;
    struct original_src *filter = KB_ARENA_NEW(factory->arena, struct original_src);

    (void)diag;
    KB_OBJ_SET(filter, original_src);
    filter->mark = m->mark;
    *config = filter;
    return 0;
}

static enum kb_listener_filter_status on_accept(void *config, void *state,
                                                struct kb_listener_socket *socket)
{
    const struct original_src *filter = KB_CAST(config, original_src);
    struct kb_conn *conn = socket->conn;
    struct wanted *wanted;

    (void)state;
    if (!kb_addr_is_ip(&conn->info.remote)) {
        return KB_LISTENER_FILTER_CONTINUE;
    }
    wanted = kb_calloc(1, sizeof(*wanted));
    wanted->source.addr = conn->info.remote;
    kb_addr_set_port(&wanted->source.addr, 0);
    wanted->source.mark = filter->mark;
    wanted->options.source = &wanted->source;
    free(conn->upstream_options); /* the last such filter counts */
    conn->upstream_options = &wanted->options;
    return KB_LISTENER_FILTER_CONTINUE;
}

const struct kb_listener_filter_ops kb_ext_listener_original_src = {
    .name = "envoy.filters.listener.original_src",
    .type_url = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
    .config_create = config_create,
    .on_accept = on_accept,
};
