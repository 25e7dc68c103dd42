/* SPDX-License-Identifier: Apache-2.0 */
/* istio.metadata_exchange of connections: when TLS agreed on its application protocol, both proxies
 * tell who they are before the first byte of the application. Downstream it stands first in the
 * chain, upstream in the cluster. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "istio/metadata_exchange.pb-c.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/peer_preface.h"

typedef Envoy__Tcp__Metadataexchange__Config__MetadataExchange config_message;

enum exchange_stat {
    ALPN_NOT_FOUND,
    ALPN_FOUND,
    INITIAL_HEADER_NOT_FOUND,
    HEADER_NOT_FOUND,
    METADATA_ADDED,
    STAT_COUNT
};

static const char *const stat_names[STAT_COUNT] = {
    [ALPN_NOT_FOUND] = "metadata_exchange.alpn_protocol_not_found",
    [ALPN_FOUND] = "metadata_exchange.alpn_protocol_found",
    [INITIAL_HEADER_NOT_FOUND] = "metadata_exchange.initial_header_not_found",
    [HEADER_NOT_FOUND] = "metadata_exchange.header_not_found",
    [METADATA_ADDED] = "metadata_exchange.metadata_added",
};

struct exchange_config {
    KB_OBJ;
    struct kb_arena arena;
    bool downstream;
    struct kb_str protocol;
    struct kb_str preface;
    struct kb_workload_labels labels;
    struct kb_stat_named *stats[STAT_COUNT];
};
KB_OBJ_MAGIC(exchange_config, 0x4d584346);

enum exchange_state {
    EXCHANGE_START, /* TLS has not agreed on a protocol yet */
    EXCHANGE_HEAD,  /* told; waits for the peer's head */
    EXCHANGE_BODY,
    EXCHANGE_DONE,
};

struct exchange {
    KB_OBJ;
    const struct exchange_config *config;
    struct kb_conn *conn;
    enum exchange_state state;
    uint32_t body_len;
};
KB_OBJ_MAGIC(exchange, 0x4d584354);

static const struct kb_str not_found = {"1", 1};

/* ---- configuration ---- */

static int config_create(const void *message, struct kb_factory_context *factory, bool downstream,
                         void **out)
{
    const config_message *m = message;
    struct exchange_config *config = kb_calloc(1, sizeof(*config));

    kb_workload_keys_init();
    KB_OBJ_SET(config, exchange_config);
    kb_arena_init(&config->arena, NULL);
    config->downstream = downstream;
    config->protocol = kb_str_dup(&config->arena, kb_str_from_cstr(m->protocol));
    kb_workload_labels_read(&config->labels, m->additional_labels, m->n_additional_labels,
                            &config->arena);
    config->preface = kb_peer_preface_write(factory->server, &config->labels, &config->arena);
    for (size_t i = 0; i < STAT_COUNT; i++) {
        config->stats[i] = kb_stat_named_create(factory->server->stats,
                                                kb_str_from_cstr(stat_names[i]), KB_STAT_COUNTER);
    }
    *out = config;
    return 0;
}

static int downstream_config_create(const void *message, struct kb_factory_context *factory,
                                    struct kb_diag *diag, void **config)
{
    (void)diag;
    return config_create(message, factory, true, config);
}

static int upstream_config_create(const void *message, struct kb_factory_context *factory,
                                  struct kb_diag *diag, void **config)
{
    (void)diag;
    return config_create(message, factory, false, config);
}

static void config_destroy(void *arg)
{
    struct exchange_config *config = KB_CAST(arg, exchange_config);

    for (size_t i = 0; i < STAT_COUNT; i++) {
        kb_stat_named_destroy(config->stats[i]);
    }
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

/* ---- connections ---- */

static void *create(void *config, struct kb_conn *conn)
{
    struct exchange *exchange = kb_calloc(1, sizeof(*exchange));

    KB_OBJ_SET(exchange, exchange);
    exchange->config = KB_CAST(config, exchange_config);
    exchange->conn = conn;
    exchange->state = EXCHANGE_START;
    return exchange;
}

static void destroy(void *filter)
{
    struct exchange *exchange = KB_CAST(filter, exchange);

    KB_OBJ_CLEAR(exchange);
    free(exchange);
}

static void count(const struct exchange *exchange, enum exchange_stat stat)
{
    kb_stat_named_add(exchange->config->stats[stat], exchange->conn->worker->index, 1);
}

static void state_put(struct exchange *exchange, const struct kb_filter_state_item *item)
{
    if (kb_filter_state_put_connection(&exchange->conn->info, item) != 0) {
        KB_LOG(CONNECTION, DEBUG, "[Tags: \"ConnectionId\":\"%llu\"] the peer is known already",
               (unsigned long long)exchange->conn->info.id);
    }
}

/* Nobody will tell: nothing is waited for. */
static void peer_unknown(struct exchange *exchange)
{
    struct kb_filter_state_item item = {
        .key = kb_workload_not_found_key, .type = &kb_filter_state_string, .object = &not_found};

    exchange->state = EXCHANGE_DONE;
    state_put(exchange, &item);
}

/* Puts the preface in front of what waits to be sent, of which nothing has left yet. */
static void preface_send(struct exchange *exchange)
{
    struct kb_conn *conn = exchange->conn;
    struct kb_buf waiting;

    kb_buf_init(&waiting, conn->out.source, 0);
    kb_buf_move(&waiting, &conn->out);
    kb_buf_append(&conn->out, exchange->config->preface.p, exchange->config->preface.len);
    kb_buf_move(&conn->out, &waiting);
    kb_buf_dispose(&waiting);
    kb_conn_written(conn);
    conn->filters_sent += exchange->config->preface.len;
    count(exchange, METADATA_ADDED);
}

/* The protocol is known: TLS is up, or there is none. */
static void begin(struct exchange *exchange)
{
    const struct kb_ssl_connection_info *ssl = exchange->conn->info.ssl;

    if (ssl == NULL || !kb_str_eq(kb_ssl_text(ssl, KB_SSL_ALPN), exchange->config->protocol)) {
        count(exchange, ALPN_NOT_FOUND);
        peer_unknown(exchange);
        return;
    }
    count(exchange, ALPN_FOUND);
    exchange->state = EXCHANGE_HEAD;
    preface_send(exchange);
}

/* False: more has to come. */
static bool head_read(struct exchange *exchange, struct kb_buf *in)
{
    unsigned char head[KB_PEER_PREFACE_HEAD];

    if (in->len < sizeof(head)) {
        count(exchange, INITIAL_HEADER_NOT_FOUND);
        return false;
    }
    kb_buf_peek(in, head, sizeof(head));
    if (!kb_peer_preface_head(head, &exchange->body_len)) {
        count(exchange, INITIAL_HEADER_NOT_FOUND);
        KB_LOG(CONNECTION, WARNING,
               "[Tags: \"ConnectionId\":\"%llu\"] the peer agreed on %.*s and did not say who it "
               "is: it lacks the metadata exchange filter",
               (unsigned long long)exchange->conn->info.id, KB_STR_ARG(exchange->config->protocol));
        peer_unknown(exchange);
        return true;
    }
    kb_buf_consume(in, sizeof(head));
    exchange->conn->filters_received += sizeof(head);
    exchange->state = EXCHANGE_BODY;
    return true;
}

static bool body_read(struct exchange *exchange, struct kb_buf *in)
{
    struct kb_workload *peer;
    struct kb_filter_state_item item = {.type = &kb_workload_state_type};
    struct kb_str body;

    if (in->len < exchange->body_len) {
        return false;
    }
    /* Behind it the first bytes of the application may stand already. */
    body = kb_str_make(kb_buf_pullup(in, exchange->body_len).p, exchange->body_len);
    if (kb_peer_preface_read(body, &exchange->config->labels, &peer) != 0) {
        count(exchange, HEADER_NOT_FOUND);
        peer_unknown(exchange);
        return true;
    }
    kb_buf_consume(in, exchange->body_len);
    exchange->conn->filters_received += exchange->body_len;
    if (peer == NULL) {
        peer_unknown(exchange);
        return true;
    }
    exchange->state = EXCHANGE_DONE;
    item.key = exchange->config->downstream ? kb_workload_downstream_key : kb_workload_upstream_key;
    item.object = peer;
    state_put(exchange, &item);
    kb_workload_unref(peer);
    return true;
}

static enum kb_network_filter_status on_data(void *filter, struct kb_buf *in, bool end_stream)
{
    struct exchange *exchange = KB_CAST(filter, exchange);

    if (KB_LIKELY(exchange->state == EXCHANGE_DONE)) {
        return KB_NETWORK_FILTER_CONTINUE;
    }
    if (exchange->state == EXCHANGE_START) {
        begin(exchange);
    }
    if (exchange->state == EXCHANGE_HEAD && !head_read(exchange, in) && !end_stream) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (exchange->state == EXCHANGE_BODY && exchange->body_len > KB_PEER_PREFACE_MAX) {
        count(exchange, HEADER_NOT_FOUND);
        exchange->state = EXCHANGE_DONE;
        kb_conn_close(exchange->conn, KB_CONN_NO_FLUSH);
        return KB_NETWORK_FILTER_STOP;
    }
    if (exchange->state == EXCHANGE_BODY && !body_read(exchange, in) && !end_stream) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (exchange->state != EXCHANGE_DONE) {
        peer_unknown(exchange); /* the peer ended before it had said all */
    }
    return in->len > 0 || end_stream ? KB_NETWORK_FILTER_CONTINUE : KB_NETWORK_FILTER_STOP;
}

static void on_event(void *filter, enum kb_conn_event event)
{
    struct exchange *exchange = KB_CAST(filter, exchange);

    if (event == KB_CONN_CONNECTED && exchange->state == EXCHANGE_START) {
        begin(exchange);
    }
}

const struct kb_network_filter_ops kb_ext_network_metadata_exchange = {
    .name = "envoy.filters.network.metadata_exchange",
    .type_url = "envoy.tcp.metadataexchange.config.MetadataExchange",
    .config_create = downstream_config_create,
    .config_destroy = config_destroy,
    .create = create,
    .on_data = on_data,
    .on_event = on_event,
    .destroy = destroy,
};

const struct kb_network_filter_ops kb_ext_upstream_metadata_exchange = {
    .name = "envoy.filters.network.upstream.metadata_exchange",
    .type_url = "envoy.tcp.metadataexchange.config.MetadataExchange",
    .config_create = upstream_config_create,
    .config_destroy = config_destroy,
    .create = create,
    .on_data = on_data,
    .on_event = on_event,
    .destroy = destroy,
};
