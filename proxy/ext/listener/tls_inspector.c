/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.listener.tls_inspector: whether a connection begins with TLS, and which server name
 * and protocols the client asks for. Nothing is consumed. */
#include "base/obj.h"
#include "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/stats.h"
#include "proxy/api/tls_client_hello.h"

typedef Envoy__Extensions__Filters__Listener__TlsInspector__V3__TlsInspector inspector_message;

#define RECORD_MAX       (16384 + 256)
#define RECORD_HEADER    5 /* Envoy's TLS library decides nothing before it has one */
#define RECORDS_OVERHEAD 1024
#define PROTOCOLS_MAX    64  /* of one ClientHello that chains are compared with */
#define SERVER_NAME_MAX  255 /* RFC 6066 section 3: a DNS host name */

struct tls_inspector {
    KB_OBJ;
    struct kb_stat_group *stats;
    size_t limit; /* bytes of the ClientHello message */
};
KB_OBJ_MAGIC(tls_inspector, 0x544c5349);

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config)
{
    const inspector_message *m = message;
    struct tls_inspector *inspector = KB_ARENA_NEW(factory->arena, struct tls_inspector);

    (void)diag;
    KB_OBJ_SET(inspector, tls_inspector);
    inspector->limit = KB_MIN(kb_wkt_u32(m->max_client_hello_size, KB_CLIENT_HELLO_MAX),
                              (uint32_t)KB_CLIENT_HELLO_MAX);
    inspector->stats = kb_stat_group_create(factory->server->stats, KB_STR("tls_inspector."),
                                            &kb_stat_schema_tls_inspector);
    *config = inspector;
    return 0;
}

static void config_destroy(void *config)
{
    kb_stat_group_destroy(KB_CAST(config, tls_inspector)->stats);
}

static size_t max_bytes(const void *config)
{
    (void)config;
    return KB_CLIENT_HELLO_MAX + RECORDS_OVERHEAD;
}

static enum kb_listener_filter_status on_accept(void *config, void *state,
                                                struct kb_listener_socket *socket)
{
    (void)config;
    (void)state;
    (void)socket;
    return KB_LISTENER_FILTER_STOP;
}

static struct kb_str lower(struct kb_str name, char *out)
{
    for (size_t i = 0; i < name.len; i++) {
        out[i] = kb_ascii_lower(name.p[i]);
    }
    return kb_str_make(out, name.len);
}

static void found(struct kb_listener_socket *socket, const struct kb_client_hello *hello,
                  struct kb_stat_block *stats)
{
    struct kb_str protocols[PROTOCOLS_MAX];
    struct kb_str alpn = hello->alpn;
    struct kb_sniffed sniffed = {.transport_protocol = KB_STR("tls"),
                                 .application_protocols = protocols};
    char name[SERVER_NAME_MAX];

    if (hello->server_name.len > 0 && hello->server_name.len <= sizeof(name)) {
        sniffed.server_name = lower(hello->server_name, name);
    }
    while (sniffed.application_protocol_count < PROTOCOLS_MAX &&
           kb_client_hello_next_alpn(&alpn, &protocols[sniffed.application_protocol_count])) {
        sniffed.application_protocol_count++;
    }
    kb_stat_inc(stats, KB_STAT_TLS_INSPECTOR_TLS_FOUND);
    kb_stat_inc(stats, sniffed.server_name.len > 0 ? KB_STAT_TLS_INSPECTOR_SNI_FOUND
                                                   : KB_STAT_TLS_INSPECTOR_SNI_NOT_FOUND);
    kb_stat_inc(stats, sniffed.application_protocol_count > 0
                           ? KB_STAT_TLS_INSPECTOR_ALPN_FOUND
                           : KB_STAT_TLS_INSPECTOR_ALPN_NOT_FOUND);
    kb_listener_socket_set_sniffed(socket, &sniffed);
}

/* Bytes that Envoy's TLS library would have read before it saw that this is no TLS. */
static size_t refused_bytes(struct kb_str bytes)
{
    const uint8_t *p = (const uint8_t *)bytes.p;

    if (p[0] != 0x16 || p[1] != 3) {
        return RECORD_HEADER;
    }
    return KB_MIN(bytes.len, (size_t)RECORD_HEADER + (size_t)(p[3] << 8 | p[4]));
}

#define REASON(number, name)                                                                    \
    KB_STR("TLS_error|error:100000" number ":SSL routines:OPENSSL_internal:" name ":TLS_error_" \
           "end")

/* What Envoy's TLS library says of bytes that are no TLS; there are RECORD_HEADER of them or more.
 */
static struct kb_str refusal(struct kb_str bytes, enum kb_client_hello_result result)
{
    static const char *const requests[] = {"GET ", "POST ", "HEAD ", "PUT "};
    const uint8_t *p = (const uint8_t *)bytes.p;

    if (result == KB_CLIENT_HELLO_TOO_LARGE) {
        return REASON("96", "EXCESSIVE_MESSAGE_SIZE");
    }
    if (p[1] != 3) {
        for (size_t i = 0; i < KB_ARRAY_LEN(requests); i++) {
            if (kb_str_starts_with(bytes, kb_str_from_cstr(requests[i]))) {
                return REASON("9c", "HTTP_REQUEST");
            }
        }
        return kb_str_starts_with(bytes, KB_STR("CONNE")) ? REASON("9b", "HTTPS_PROXY_REQUEST")
                                                          : REASON("f7", "WRONG_VERSION_NUMBER");
    }
    if ((p[3] << 8 | p[4]) > RECORD_MAX) {
        return REASON("92", "ENCRYPTED_LENGTH_TOO_LONG");
    }
    if (p[0] != 0x16) {
        return REASON("e1", "UNEXPECTED_RECORD");
    }
    if (bytes.len >= RECORD_HEADER + 4 && (p[6] << 16 | p[7] << 8 | p[8]) > KB_CLIENT_HELLO_MAX) {
        return REASON("96", "EXCESSIVE_MESSAGE_SIZE");
    }
    return bytes.len > RECORD_HEADER && p[RECORD_HEADER] != 1
               ? REASON("df", "UNEXPECTED_MESSAGE")
               : REASON("83", "CLIENTHELLO_PARSE_FAILED");
}

static enum kb_listener_filter_status on_data(void *config, void *state,
                                              struct kb_listener_socket *socket, struct kb_buf *in)
{
    struct tls_inspector *inspector = KB_CAST(config, tls_inspector);
    struct kb_stat_block *stats =
        kb_stat_group_block(inspector->stats, socket->conn->worker->index);
    char scratch[KB_CLIENT_HELLO_MAX];
    enum kb_client_hello_result result;
    struct kb_client_hello hello;
    struct kb_str bytes;

    (void)state;
    if (in->len < RECORD_HEADER) {
        return KB_LISTENER_FILTER_STOP;
    }
    bytes = kb_buf_pullup(in, in->len);
    result = kb_client_hello_parse(bytes, inspector->limit, scratch, &hello);
    if (result == KB_CLIENT_HELLO_NOT_TLS || result == KB_CLIENT_HELLO_TOO_LARGE) {
        socket->conn->info.transport_failure_reason = refusal(bytes, result);
    }
    switch (result) {
    case KB_CLIENT_HELLO_MORE:
        if (bytes.len < max_bytes(config)) {
            return KB_LISTENER_FILTER_STOP;
        }
        break;
    case KB_CLIENT_HELLO_TOO_LARGE:
        break;
    case KB_CLIENT_HELLO_DONE:
        found(socket, &hello, stats);
        kb_stat_record(stats, KB_STAT_TLS_INSPECTOR_BYTES_PROCESSED, hello.wire_bytes);
        return KB_LISTENER_FILTER_CONTINUE;
    case KB_CLIENT_HELLO_NOT_TLS:
        kb_stat_inc(stats, KB_STAT_TLS_INSPECTOR_TLS_NOT_FOUND);
        kb_stat_record(stats, KB_STAT_TLS_INSPECTOR_BYTES_PROCESSED, refused_bytes(bytes));
        return KB_LISTENER_FILTER_CONTINUE;
    }
    kb_stat_inc(stats, KB_STAT_TLS_INSPECTOR_CLIENT_HELLO_TOO_LARGE);
    return KB_LISTENER_FILTER_CLOSE;
}

const struct kb_listener_filter_ops kb_ext_listener_tls_inspector = {
    .name = "envoy.filters.listener.tls_inspector",
    .type_url = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .on_accept = on_accept,
    .on_data = on_data,
    .max_bytes = max_bytes,
};
