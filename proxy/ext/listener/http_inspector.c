/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.listener.http_inspector: whether a plain connection begins with HTTP, and which
 * version, by its first line. What counts as a first line is what Envoy's parser (Balsa) takes for
 * one. Nothing is consumed. */
#include <string.h>

#include "base/log.h"
#include "base/obj.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/stats.h"
#include "proxy/ext/listener/first_line.h"

#define INSPECT_MAX 65536

struct http_inspector {
    KB_OBJ;
    struct kb_stat_group *stats;
};
KB_OBJ_MAGIC(http_inspector, 0x48545049);

struct inspection {
    size_t scanned; /* bytes without an end of line */
};

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config)
{
    struct http_inspector *inspector = KB_ARENA_NEW(factory->arena, struct http_inspector);

    (void)message;
    (void)diag;
    KB_OBJ_SET(inspector, http_inspector);
    inspector->stats = kb_stat_group_create(factory->server->stats, KB_STR("http_inspector."),
                                            &kb_stat_schema_http_inspector);
    *config = inspector;
    return 0;
}

static void config_destroy(void *config)
{
    kb_stat_group_destroy(KB_CAST(config, http_inspector)->stats);
}

static size_t max_bytes(const void *config)
{
    (void)config;
    return INSPECT_MAX;
}

static enum kb_listener_filter_status on_accept(void *config, void *state,
                                                struct kb_listener_socket *socket)
{
    const struct kb_sniffed *sniffed = socket->conn->sniffed;

    (void)config;
    (void)state;
    return sniffed != NULL && sniffed->transport_protocol.len > 0 &&
                   !kb_str_eq(sniffed->transport_protocol, KB_STR("raw_buffer"))
               ? KB_LISTENER_FILTER_CONTINUE
               : KB_LISTENER_FILTER_STOP;
}

/* Where the first line ends, behind its '\n'; 0: nowhere yet. */
static size_t line_end(struct inspection *inspection, const struct kb_buf *in)
{
    struct iovec iov[KB_BUF_IOV_MAX];
    int count = kb_buf_iov(in, iov, KB_BUF_IOV_MAX);
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        size_t skip = inspection->scanned > at ? inspection->scanned - at : 0;
        const char *base = iov[i].iov_base;
        const char *end =
            skip < iov[i].iov_len ? memchr(base + skip, '\n', iov[i].iov_len - skip) : NULL;

        if (end != NULL) {
            return at + (size_t)(end - base) + 1;
        }
        at += iov[i].iov_len;
    }
    inspection->scanned = at;
    return 0;
}

static void found(struct kb_listener_socket *socket, struct kb_str protocol)
{
    const struct kb_sniffed *old = socket->conn->sniffed;
    struct kb_sniffed sniffed;

    memset(&sniffed, 0, sizeof(sniffed));
    if (old != NULL) {
        sniffed = *old;
    }
    sniffed.application_protocols = &protocol;
    sniffed.application_protocol_count = 1;
    kb_listener_socket_set_sniffed(socket, &sniffed);
}

static enum kb_listener_filter_status on_data(void *config, void *state,
                                              struct kb_listener_socket *socket, struct kb_buf *in)
{
    struct http_inspector *inspector = KB_CAST(config, http_inspector);
    struct kb_stat_block *stats =
        kb_stat_group_block(inspector->stats, socket->conn->worker->index);
    size_t line_len = line_end(state, in);
    size_t wanted = KB_MIN(in->len, KB_MAX(line_len, (size_t)KB_FIRST_LINE_SEEN));

    switch (kb_first_line_parse(kb_buf_pullup(in, wanted), line_len)) {
    case KB_FIRST_LINE_MORE:
        if (in->len < INSPECT_MAX) {
            return KB_LISTENER_FILTER_STOP;
        }
        KB_LOG(FILTER, WARNING,
               "http inspector: reached max buffer without determining HTTP version, dropping "
               "connection");
        kb_stat_inc(stats, KB_STAT_HTTP_INSPECTOR_READ_ERROR);
        return KB_LISTENER_FILTER_CLOSE;
    case KB_FIRST_LINE_HTTP2:
        kb_stat_inc(stats, KB_STAT_HTTP_INSPECTOR_HTTP2_FOUND);
        found(socket, KB_STR("h2c"));
        break;
    case KB_FIRST_LINE_HTTP11:
        kb_stat_inc(stats, KB_STAT_HTTP_INSPECTOR_HTTP11_FOUND);
        found(socket, KB_STR("http/1.1"));
        break;
    case KB_FIRST_LINE_HTTP10:
        kb_stat_inc(stats, KB_STAT_HTTP_INSPECTOR_HTTP10_FOUND);
        found(socket, KB_STR("http/1.0"));
        break;
    case KB_FIRST_LINE_OTHER:
        kb_stat_inc(stats, KB_STAT_HTTP_INSPECTOR_HTTP_NOT_FOUND);
        break;
    }
    return KB_LISTENER_FILTER_CONTINUE;
}

const struct kb_listener_filter_ops kb_ext_listener_http_inspector = {
    .name = "envoy.filters.listener.http_inspector",
    .type_url = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .state_size = sizeof(struct inspection),
    .on_accept = on_accept,
    .on_data = on_data,
    .max_bytes = max_bytes,
};
