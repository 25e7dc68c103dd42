/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.listener.proxy_protocol: takes the addresses of the client from the header that a
 * load balancer puts in front of its bytes. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/obj.h"
#include "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/stats.h"
#include "proxy/ext/proxy_tlvs.h"
#include "proxy/network/proxy_proto.h"

typedef Envoy__Extensions__Filters__Listener__ProxyProtocol__V3__ProxyProtocol filter_message;

struct proxy_protocol {
    KB_OBJ;
    struct kb_stat_group *stats;
    struct kb_stat_named *errors; /* all versions together */
    unsigned disallowed;          /* KB_PROXY_PROTO_V1 | _V2 */
    bool allow_without;
    struct kb_proxy_tlv_choice passed; /* on to hosts */
};
KB_OBJ_MAGIC(proxy_protocol, 0x50505254);

struct reading {
    size_t needed; /* bytes before another look is worth it */
};

static unsigned disallowed_read(const filter_message *m)
{
    unsigned versions = 0;

    for (size_t i = 0; i < m->n_disallowed_versions; i++) {
        versions |=
            m->disallowed_versions[i] == ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_CONFIG__VERSION__V1
                ? KB_PROXY_PROTO_V1
                : KB_PROXY_PROTO_V2;
    }
    return versions;
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config)
{
    const filter_message *m = message;
    struct proxy_protocol *filter = KB_ARENA_NEW(factory->arena, struct proxy_protocol);
    struct kb_stat_store *store = factory->server->stats;
    bool named = m->stat_prefix != NULL && m->stat_prefix[0] != '\0';

    KB_OBJ_SET(filter, proxy_protocol);
    filter->allow_without = m->allow_requests_without_proxy_protocol;
    filter->disallowed = disallowed_read(m);
    kb_proxy_tlv_choice_read(&filter->passed, m->pass_through_tlvs);
    if (filter->disallowed == (KB_PROXY_PROTO_V1 | KB_PROXY_PROTO_V2)) {
        kb_diag_error(diag, "Proxy Protocol filter is misconfigured: all proxy protocol versions "
                            "are disallowed.");
        return KB_ECONFIG;
    }
    filter->stats =
        kb_stat_group_create(store,
                             kb_str_printf(factory->arena, "proxy_proto.%s%s",
                                           named ? m->stat_prefix : "", named ? "." : ""),
                             &kb_stat_schema_proxy_proto);
    filter->errors =
        kb_stat_named_create(store, KB_STR("downstream_cx_proxy_proto_error"), KB_STAT_COUNTER);
    *config = filter;
    return 0;
}

static void config_destroy(void *config)
{
    struct proxy_protocol *filter = KB_CAST(config, proxy_protocol);

    kb_stat_group_destroy(filter->stats);
    kb_stat_named_destroy(filter->errors);
}

static size_t max_bytes(const void *config)
{
    (void)config;
    return KB_PROXY_PROTO_MAX + 1;
}

static enum kb_listener_filter_status on_accept(void *config, void *state,
                                                struct kb_listener_socket *socket)
{
    (void)config;
    (void)state;
    (void)socket;
    return KB_LISTENER_FILTER_STOP;
}

static void addresses_take(struct kb_listener_socket *socket,
                           const struct kb_proxy_proto_header *header)
{
    struct kb_connection_info *info = &socket->conn->info;

    if (!header->has_addresses) {
        return;
    }
    if (!kb_addr_eq(&header->destination, &info->local)) {
        info->local = header->destination;
        socket->local_address_restored = true;
    }
    info->remote = header->source;
}

/* Keeps the TLVs that hosts are told. */
static void tlvs_keep(const struct proxy_protocol *filter, struct kb_connection_info *info,
                      struct kb_str tlvs)
{
    struct kb_str *kept = kb_calloc(1, sizeof(*kept) + tlvs.len);
    char *bytes = (char *)(kept + 1);

    kb_proxy_tlvs_copy(bytes, &kept->len, tlvs, &filter->passed, NULL);
    kept->p = bytes;
    free(info->proxy_tlvs);
    info->proxy_tlvs = kept;
}

static enum kb_listener_filter_status refuse(const struct proxy_protocol *filter, uint32_t worker)
{
    kb_stat_named_add(filter->errors, worker, 1);
    return KB_LISTENER_FILTER_CLOSE;
}

static enum kb_listener_filter_status done(const struct proxy_protocol *filter,
                                           struct kb_stat_block *stats,
                                           struct kb_listener_socket *socket, struct kb_buf *in,
                                           const struct kb_proxy_proto_header *header)
{
    bool v1 = header->version == KB_PROXY_PROTO_V1;

    kb_stat_inc(stats, v1 ? KB_STAT_PROXY_PROTO_V1_FOUND : KB_STAT_PROXY_PROTO_V2_FOUND);
    if ((filter->disallowed & header->version) != 0) {
        kb_stat_inc(stats,
                    v1 ? KB_STAT_PROXY_PROTO_V1_DISALLOWED : KB_STAT_PROXY_PROTO_V2_DISALLOWED);
        return KB_LISTENER_FILTER_CLOSE;
    }
    addresses_take(socket, header);
    socket->conn->info.proxy_header = true;
    if (header->tlvs.len > 0) {
        tlvs_keep(filter, &socket->conn->info, header->tlvs);
    }
    kb_buf_consume(in, header->len);
    return KB_LISTENER_FILTER_CONTINUE;
}

/* What to look at: as much as the parser asked for last time, in one piece. */
static struct kb_str bytes_get(const struct reading *reading, struct kb_buf *in)
{
    size_t wanted = KB_MAX(reading->needed, (size_t)KB_PROXY_PROTO_V1_MAX);

    return kb_buf_pullup(in, KB_MIN(in->len, wanted));
}

static enum kb_listener_filter_status on_data(void *config, void *state,
                                              struct kb_listener_socket *socket, struct kb_buf *in)
{
    struct proxy_protocol *filter = KB_CAST(config, proxy_protocol);
    uint32_t worker = socket->conn->worker->index;
    struct kb_stat_block *stats = kb_stat_group_block(filter->stats, worker);
    struct reading *reading = state;
    unsigned versions = KB_PROXY_PROTO_V1 | KB_PROXY_PROTO_V2;
    struct kb_proxy_proto_header header;
    enum kb_proxy_proto_result result;

    if (filter->allow_without) {
        versions &= ~filter->disallowed;
    }
    do {
        if (in->len < reading->needed) {
            return KB_LISTENER_FILTER_STOP;
        }
        result = kb_proxy_proto_parse(bytes_get(reading, in), versions, &header);
        reading->needed = header.needed;
    } while (result == KB_PROXY_PROTO_MORE);
    switch (result) {
    case KB_PROXY_PROTO_MORE:
        break;
    case KB_PROXY_PROTO_DONE:
        return done(filter, stats, socket, in, &header);
    case KB_PROXY_PROTO_NOT_FOUND:
        if (filter->allow_without) {
            kb_stat_inc(stats, KB_STAT_PROXY_PROTO_NOT_FOUND_ALLOWED);
            return KB_LISTENER_FILTER_CONTINUE;
        }
        kb_stat_inc(stats, KB_STAT_PROXY_PROTO_NOT_FOUND_DISALLOWED);
        return refuse(filter, worker);
    case KB_PROXY_PROTO_BAD:
        kb_stat_inc(stats, header.version == KB_PROXY_PROTO_V1 ? KB_STAT_PROXY_PROTO_V1_ERROR
                                                               : KB_STAT_PROXY_PROTO_V2_ERROR);
        return refuse(filter, worker);
    }
    return KB_LISTENER_FILTER_STOP;
}

const struct kb_listener_filter_ops kb_ext_listener_proxy_protocol = {
    .name = "envoy.filters.listener.proxy_protocol",
    .type_url = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .state_size = sizeof(struct reading),
    .on_accept = on_accept,
    .on_data = on_data,
    .max_bytes = max_bytes,
};
