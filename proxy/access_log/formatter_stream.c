/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about the stream and its connections: bytes, durations, addresses, names, flags,
 * failures. */
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rand.h"
#include "base/worker.h"
#include "proxy/access_log/formatter_internal.h"
#include "proxy/api/cluster.h"

void kb_format_eval_missing(const struct kb_format_command *command,
                            struct kb_format_source *source, struct kb_format_value *value)
{
    (void)command;
    (void)source;
    (void)value;
}

void kb_format_eval_literal(const struct kb_format_command *command,
                            struct kb_format_source *source, struct kb_format_value *value)
{
    (void)source;
    kb_format_value_text(value, command->text);
}

void kb_format_eval_unique_id(const struct kb_format_command *command,
                              struct kb_format_source *source, struct kb_format_value *value)
{
    struct kb_rand rand;

    (void)command;
    if (source->info->worker != NULL) {
        kb_rand_uuid4(&source->info->worker->rand, source->scratch);
    } else {
        kb_rand_init(&rand, kb_rand_entropy());
        kb_rand_uuid4(&rand, source->scratch);
    }
    kb_format_value_scratch(value, kb_str_make(source->scratch, 36));
}

void kb_format_eval_number(const struct kb_format_command *command, struct kb_format_source *source,
                           struct kb_format_value *value)
{
    const struct kb_stream_info *info = source->info;

    value->kind = KB_FORMAT_NUMBER;
    switch (command->param) {
    case KB_FORMAT_BYTES_RECEIVED:
        value->number = info->bytes_received;
        return;
    case KB_FORMAT_BYTES_SENT:
        value->number = info->bytes_sent;
        return;
    case KB_FORMAT_DOWNSTREAM_WIRE_RECEIVED:
        value->number = info->wire_bytes_received;
        return;
    case KB_FORMAT_DOWNSTREAM_WIRE_SENT:
        value->number = info->wire_bytes_sent;
        return;
    case KB_FORMAT_DOWNSTREAM_HEADER_RECEIVED:
        value->number = info->header_bytes_received;
        return;
    case KB_FORMAT_DOWNSTREAM_HEADER_SENT:
        value->number = info->header_bytes_sent;
        return;
    case KB_FORMAT_UPSTREAM_WIRE_RECEIVED:
        value->number = info->upstream.wire_bytes_received;
        return;
    case KB_FORMAT_UPSTREAM_WIRE_SENT:
        value->number = info->upstream.wire_bytes_sent;
        return;
    case KB_FORMAT_UPSTREAM_HEADER_RECEIVED:
        value->number = info->upstream.header_bytes_received;
        return;
    case KB_FORMAT_UPSTREAM_HEADER_SENT:
        value->number = info->upstream.header_bytes_sent;
        return;
    case KB_FORMAT_RESPONSE_CODE:
        value->number = info->response_code;
        return;
    case KB_FORMAT_ATTEMPT_COUNT:
        value->number = info->attempt_count;
        return;
    case KB_FORMAT_CONNECTION_ID:
        value->number = info->connection != NULL ? info->connection->id : 0;
        return;
    case KB_FORMAT_UPSTREAM_CONNECTION_ID:
        value->number = info->upstream.connection_id;
        return;
    case KB_FORMAT_ROUTE_RESOLUTIONS:
        value->number = info->route_resolutions;
        return;
    default:
        value->number = 0;
        return;
    }
}

/* ---- durations ---- */

static uint64_t end_or_now_ns(const struct kb_stream_info *info)
{
    if (info->end_ns != 0 || info->worker == NULL) {
        return info->end_ns;
    }
    return kb_loop_now_ns(&info->worker->loop);
}

uint64_t kb_format_duration_ms(const struct kb_stream_info *info)
{
    uint64_t end_ns = end_or_now_ns(info);

    return end_ns > info->start_ns ? (end_ns - info->start_ns) / 1000000 : 0;
}

/* Missing when one of the two was not reached. */
static void value_span(struct kb_format_value *value, uint64_t from_ns, uint64_t to_ns,
                       uint32_t unit_ns)
{
    if (from_ns != 0 && to_ns != 0 && to_ns >= from_ns) {
        kb_format_value_number(value, (to_ns - from_ns) / unit_ns);
    }
}

void kb_format_eval_duration(const struct kb_format_command *command,
                             struct kb_format_source *source, struct kb_format_value *value)
{
    const struct kb_stream_info *info = source->info;
    const struct kb_upstream_info *upstream = &info->upstream;
    uint64_t asked_ns;

    switch (command->param) {
    case KB_FORMAT_DURATION:
        kb_format_value_number(value, kb_format_duration_ms(info));
        return;
    case KB_FORMAT_REQUEST_DURATION:
        value_span(value, info->start_ns, info->last_rx_ns, 1000000);
        return;
    case KB_FORMAT_REQUEST_TX_DURATION:
        value_span(value, info->start_ns, upstream->last_tx_ns, 1000000);
        return;
    case KB_FORMAT_RESPONSE_DURATION:
        value_span(value, info->start_ns, upstream->first_rx_ns, 1000000);
        return;
    case KB_FORMAT_RESPONSE_TX_DURATION:
        value_span(value, upstream->first_rx_ns, info->last_tx_ns, 1000000);
        return;
    case KB_FORMAT_POOL_READY_DURATION:
        asked_ns = upstream->connection_pool_asked_ns != 0 ? upstream->connection_pool_asked_ns
                                                           : info->start_ns;
        value_span(value, asked_ns, upstream->connection_pool_ready_ns, 1000000);
        return;
    case KB_FORMAT_ROUTE_RESOLUTION_US:
        if (info->route_resolutions > 0) {
            kb_format_value_number(value, info->route_resolution_ns / 1000);
        }
        return;
    default:
        return;
    }
}

/* %COMMON_DURATION(from:to:unit)%: the points in time that have names. */
static const char *const point_names[] = {
    "DS_RX_BEG", "DS_RX_END", "US_CX_BEG",      "US_CX_END", "US_HS_END", "US_TX_BEG",
    "US_TX_END", "US_RX_BEG", "US_RX_BODY_BEG", "US_RX_END", "DS_TX_BEG", "DS_TX_END",
};

static uint64_t point_ns(const struct kb_stream_info *info, unsigned point)
{
    const struct kb_upstream_info *upstream = &info->upstream;
    const uint64_t points[KB_ARRAY_LEN(point_names)] = {
        info->start_ns,           info->last_rx_ns,           upstream->connect_start_ns,
        upstream->connect_end_ns, upstream->handshake_end_ns, upstream->first_tx_ns,
        upstream->last_tx_ns,     upstream->first_rx_ns,      upstream->first_body_rx_ns,
        upstream->last_rx_ns,     info->first_tx_ns,          info->last_tx_ns,
    };

    return point < KB_ARRAY_LEN(points) ? points[point] : 0;
}

/* Other names are times that filters may set; nothing sets any, so they are never reached. */
static uint8_t point_find(struct kb_str name)
{
    uint8_t i = 0;

    while (i < KB_ARRAY_LEN(point_names) && !kb_str_eq(name, kb_str_from_cstr(point_names[i]))) {
        i++;
    }
    return i;
}

bool kb_format_make_common_duration(struct kb_format_command *command, struct kb_str args,
                                    struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str rest = args;
    struct kb_str parts[4];
    size_t count = 0;

    (void)arena;
    while (count < KB_ARRAY_LEN(parts) && kb_str_next_token(&rest, ':', &parts[count])) {
        count++;
    }
    if (count < 2 || count > 3) {
        kb_diag_error(diag, "Invalid common duration configuration: %.*s.", KB_STR_ARG(args));
        return false;
    }
    if (count == 2 || kb_str_eq(parts[2], KB_STR("ms"))) {
        command->duration.unit_ns = 1000000;
    } else if (kb_str_eq(parts[2], KB_STR("us"))) {
        command->duration.unit_ns = 1000;
    } else if (kb_str_eq(parts[2], KB_STR("ns"))) {
        command->duration.unit_ns = 1;
    } else {
        kb_diag_error(diag, "Invalid common duration precision: %.*s.", KB_STR_ARG(parts[2]));
        return false;
    }
    command->duration.from = point_find(parts[0]);
    command->duration.to = point_find(parts[1]);
    return true;
}

void kb_format_eval_common_duration(const struct kb_format_command *command,
                                    struct kb_format_source *source, struct kb_format_value *value)
{
    value_span(value, point_ns(source->info, command->duration.from),
               point_ns(source->info, command->duration.to), command->duration.unit_ns);
}

/* ---- addresses ---- */

/* NULL or length 0: there is none. */
static const struct kb_addr *source_address(const struct kb_stream_info *info, int which)
{
    const struct kb_connection_info *connection = info->connection;

    switch (which) {
    case KB_FORMAT_ADDR_UPSTREAM_LOCAL:
        return &info->upstream.local;
    case KB_FORMAT_ADDR_UPSTREAM_REMOTE:
        return &info->upstream.remote;
    case KB_FORMAT_ADDR_REMOTE:
        return info->remote.len != 0 || connection == NULL ? &info->remote : &connection->remote;
    case KB_FORMAT_ADDR_DIRECT_REMOTE:
        return connection != NULL ? &connection->direct_remote : NULL;
    case KB_FORMAT_ADDR_LOCAL:
        return connection != NULL ? &connection->local : NULL;
    case KB_FORMAT_ADDR_DIRECT_LOCAL:
        if (connection == NULL) {
            return NULL;
        }
        return connection->direct_local.len != 0 ? &connection->direct_local : &connection->local;
    default:
        return NULL;
    }
}

/* A number that is none leaves the address whole, as in Envoy. */
bool kb_format_make_address(struct kb_format_command *command, struct kb_str args,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    int64_t len;

    (void)arena;
    (void)diag;
    command->mask_len = INT_MIN;
    if (kb_str_to_i64(kb_str_trim(args), &len) == 0 && len > INT_MIN && len <= INT_MAX) {
        command->mask_len = (int)len;
    }
    return true;
}

/* "10.1.0.0/16"; empty for what is no IP address. */
static struct kb_str masked_text(const struct kb_addr *addr, int mask_len, char *out)
{
    struct kb_addr masked = *addr;
    uint8_t *bytes = addr->sa.sa_family == AF_INET ? (uint8_t *)&masked.in4.sin_addr
                                                   : (uint8_t *)&masked.in6.sin6_addr;
    int bits = addr->sa.sa_family == AF_INET ? 32 : 128;
    char text[KB_ADDR_TEXT_MAX];
    struct kb_str ip;
    int len = KB_MIN(mask_len, bits);

    if (!kb_addr_is_ip(addr) || mask_len < 0) {
        return KB_STR("");
    }
    for (int bit = len; bit < bits; bit++) {
        bytes[bit / 8] &= (uint8_t)~(0x80u >> (bit % 8));
    }
    ip = kb_addr_ip_text(&masked, text);
    memcpy(out, ip.p, ip.len);
    out[ip.len] = '/';
    return kb_str_make(out, ip.len + 1 + kb_u64_to_str((uint64_t)len, out + ip.len + 1));
}

void kb_format_eval_address(const struct kb_format_command *command,
                            struct kb_format_source *source, struct kb_format_value *value)
{
    const struct kb_addr *addr = source_address(source->info, command->param & KB_FORMAT_ADDR_MASK);

    _Static_assert(KB_ADDR_TEXT_MAX + 4 <= KB_FORMAT_SCRATCH,
                   "an address and its mask fit the scratch");
    if (addr == NULL || addr->len == 0) {
        return;
    }
    if ((command->param & KB_FORMAT_ADDR_ENDPOINT_ID) != 0) {
        kb_format_value_text(value, KB_STR("")); /* internal addresses only */
    } else if ((command->param & KB_FORMAT_ADDR_PORT) != 0) {
        value->kind = kb_addr_is_ip(addr) ? KB_FORMAT_NUMBER : KB_FORMAT_BLANK;
        value->number = kb_addr_port(addr);
    } else if ((command->param & KB_FORMAT_ADDR_WITHOUT_PORT) == 0) {
        kb_format_value_scratch(value, kb_addr_text(addr, source->scratch));
    } else if (command->mask_len != INT_MIN) {
        kb_format_value_scratch(value, masked_text(addr, command->mask_len, source->scratch));
    } else {
        kb_format_value_scratch(value, kb_addr_ip_text(addr, source->scratch));
    }
}

/* ---- flags ---- */

void kb_format_eval_flags(const struct kb_format_command *command, struct kb_format_source *source,
                          struct kb_format_value *value)
{
    const struct kb_stream_info *info = source->info;
    const char *(*name)(enum kb_response_flag) =
        command->param != 0 ? kb_response_flag_long : kb_response_flag_short;
    struct kb_format_out out;

    if (info->flag_count == 0) {
        kb_format_value_text(value, KB_STR("-"));
        return;
    }
    if (info->flag_count == 1) {
        kb_format_value_text(value,
                             kb_str_from_cstr(name((enum kb_response_flag)info->flag_order[0])));
        return;
    }
    kb_format_out_init(&out, source->arena, source->scratch, sizeof(source->scratch));
    for (unsigned i = 0; i < info->flag_count; i++) {
        if (i > 0) {
            kb_format_out_add_char(&out, ',');
        }
        kb_format_out_add(&out, kb_str_from_cstr(name((enum kb_response_flag)info->flag_order[i])));
    }
    kb_format_value_scratch(value, kb_str_make(out.p, out.len));
}

/* ---- texts ---- */

bool kb_format_make_details(struct kb_format_command *command, struct kb_str args,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    (void)arena;
    (void)diag;
    command->param = kb_str_eq(args, KB_STR("ALLOW_WHITESPACES")) ? KB_FORMAT_CODE_DETAILS_RAW
                                                                  : KB_FORMAT_CODE_DETAILS;
    return true;
}

bool kb_format_make_environment(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag)
{
    const char *text = getenv(kb_str_dup(arena, args).p);

    (void)diag;
    command->text = kb_str_dup(arena, text != NULL ? kb_str_from_cstr(text) : KB_STR("-"));
    return true;
}

bool kb_format_make_hostname(struct kb_format_command *command, struct kb_str args,
                             struct kb_arena *arena, struct kb_diag *diag)
{
    char name[256];

    (void)args;
    (void)diag;
    if (gethostname(name, sizeof(name)) != 0) {
        command->eval = kb_format_eval_missing;
        return true;
    }
    name[sizeof(name) - 1] = '\0';
    command->text = kb_str_dup(arena, kb_str_from_cstr(name));
    return true;
}

static bool char_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* White space becomes '_', so that the value is one word of a line. */
static void value_word(struct kb_format_value *value, struct kb_str text, struct kb_arena *arena)
{
    struct kb_str copy;

    if (text.len == 0) {
        return;
    }
    kb_format_value_text(value, text);
    for (size_t i = 0; i < text.len; i++) {
        if (char_is_space(text.p[i])) {
            copy = kb_str_dup(arena, text);
            for (; i < text.len; i++) {
                ((char *)(uintptr_t)copy.p)[i] = char_is_space(text.p[i]) ? '_' : text.p[i];
            }
            value->text = copy;
            return;
        }
    }
}

/* Without the port behind the last colon, when it is one. */
static struct kb_str without_port(struct kb_str host)
{
    ptrdiff_t colon = kb_str_rfind_char(host, ':');
    uint64_t port;

    if (colon < 0 || kb_str_to_u64(kb_str_from(host, (size_t)colon + 1), &port) != 0 ||
        port > 65535) {
        return host;
    }
    if (host.p[0] != '[' && kb_str_find_char(host, ':') != colon) {
        return host; /* an IPv6 address without brackets has no port */
    }
    return kb_str_first(host, (size_t)colon);
}

static struct kb_str host_name(const struct kb_host *host)
{
    return host->hostname_len > 0 ? kb_host_hostname(host) : kb_host_addr_text(host);
}

/* A host counts as attempted when there was a connection to it. */
static bool host_was_attempted(const struct kb_upstream_info *upstream)
{
    return upstream->host != NULL && upstream->connection_id != 0;
}

/* Each of a comma separated list without its port. */
static struct kb_str list_without_ports(struct kb_str list, struct kb_arena *arena)
{
    struct kb_str rest = list;
    struct kb_str item;
    struct kb_format_out out;

    if (kb_str_find_char(list, ',') < 0) {
        return without_port(list);
    }
    kb_format_out_init(&out, arena, NULL, 0);
    while (kb_str_next_token(&rest, ',', &item)) {
        if (out.len > 0) {
            kb_format_out_add_char(&out, ',');
        }
        kb_format_out_add(&out, without_port(item));
    }
    return kb_str_make(out.p, out.len);
}

static void value_upstream(const struct kb_upstream_info *upstream, int param,
                           struct kb_format_source *source, struct kb_format_value *value)
{
    struct kb_str attempted = upstream->hosts_attempted;

    if (attempted.len == 0 && host_was_attempted(upstream)) {
        attempted = kb_host_addr_text(upstream->host);
    }
    switch (param) {
    case KB_FORMAT_UPSTREAM_HOST:
        kb_format_value_filled(value, kb_host_addr_text(upstream->host));
        return;
    case KB_FORMAT_UPSTREAM_HOST_NAME:
        kb_format_value_filled(value, host_name(upstream->host));
        return;
    case KB_FORMAT_UPSTREAM_HOST_NAME_NO_PORT:
        kb_format_value_filled(value, without_port(host_name(upstream->host)));
        return;
    case KB_FORMAT_HOSTS_ATTEMPTED:
        kb_format_value_filled(value, attempted);
        return;
    case KB_FORMAT_HOSTS_ATTEMPTED_NO_PORT:
        kb_format_value_filled(value, list_without_ports(attempted, source->arena));
        return;
    case KB_FORMAT_HOST_NAMES_ATTEMPTED:
        kb_format_value_filled(value, attempted.len > 0 ? host_name(upstream->host) : attempted);
        return;
    case KB_FORMAT_HOST_NAMES_ATTEMPTED_NO_PORT:
        kb_format_value_filled(value, attempted.len > 0 ? without_port(host_name(upstream->host))
                                                        : attempted);
        return;
    default:
        return;
    }
}

static void value_connection(const struct kb_connection_info *connection, int param,
                             struct kb_format_source *source, struct kb_format_value *value)
{
    switch (param) {
    case KB_FORMAT_TERMINATION_DETAILS:
        kb_format_value_filled(value, connection->termination_details);
        return;
    case KB_FORMAT_DOWNSTREAM_FAILURE:
        value_word(value, connection->transport_failure_reason, source->arena);
        return;
    case KB_FORMAT_DOWNSTREAM_CLOSE_REASON:
        value_word(value, connection->local_close_reason, source->arena);
        return;
    case KB_FORMAT_FILTER_CHAIN_NAME:
        kb_format_value_filled(value, connection->filter_chain_name);
        return;
    case KB_FORMAT_DOWNSTREAM_CLOSE_TYPE:
        kb_format_value_text(value,
                             connection->peer_reset ? KB_STR("RemoteReset") : KB_STR("Normal"));
        return;
    default: /* KB_FORMAT_LISTENER_NAME */
        kb_format_value_filled(value, connection->listener_name);
        return;
    }
}

static void value_connection_id(const struct kb_upstream_info *upstream,
                                struct kb_format_source *source, struct kb_format_value *value)
{
    if (upstream->connection_id != 0) {
        kb_format_value_scratch(
            value,
            kb_str_make(source->scratch, kb_u64_to_str(upstream->connection_id, source->scratch)));
    }
}

void kb_format_eval_text(const struct kb_format_command *command, struct kb_format_source *source,
                         struct kb_format_value *value)
{
    const struct kb_stream_info *info = source->info;
    const struct kb_upstream_info *upstream = &info->upstream;

    switch (command->param) {
    case KB_FORMAT_PROTOCOL:
        kb_format_value_filled(value, kb_protocol_name(info->protocol));
        return;
    case KB_FORMAT_UPSTREAM_PROTOCOL:
        kb_format_value_filled(value, kb_protocol_name(upstream->protocol));
        return;
    case KB_FORMAT_CODE_DETAILS:
        if (info->response_code_details.p != NULL && info->response_code_details.len == 0) {
            kb_format_value_text(value, info->response_code_details);
        } else {
            value_word(value, info->response_code_details, source->arena);
        }
        return;
    case KB_FORMAT_CODE_DETAILS_RAW:
        kb_format_value_filled(value, info->response_code_details);
        return;
    case KB_FORMAT_UPSTREAM_FAILURE:
        value_word(value, upstream->transport_failure_reason, source->arena);
        return;
    case KB_FORMAT_UPSTREAM_CLOSE_REASON:
        value_word(value, upstream->local_close_reason, source->arena);
        return;
    case KB_FORMAT_UPSTREAM_CLUSTER:
        kb_format_value_filled(value, info->upstream_cluster_name);
        return;
    case KB_FORMAT_UPSTREAM_CLUSTER_RAW:
        kb_format_value_filled(value,
                               upstream->cluster != NULL ? upstream->cluster->name : KB_STR_NULL);
        return;
    case KB_FORMAT_CONNECTION_IDS_ATTEMPTED:
        value_connection_id(upstream, source, value);
        return;
    case KB_FORMAT_ROUTE_NAME:
        kb_format_value_filled(value, info->route_name);
        return;
    case KB_FORMAT_VIRTUAL_CLUSTER_NAME:
        kb_format_value_filled(value, info->virtual_cluster_name);
        return;
    case KB_FORMAT_STREAM_ID:
        kb_format_value_filled(value, info->request_id);
        return;
    case KB_FORMAT_UPSTREAM_CLOSE_TYPE:
        if (upstream->host != NULL || upstream->connection_pool_ready_ns != 0) {
            kb_format_value_text(value, KB_STR("Normal"));
        }
        return;
    case KB_FORMAT_UPSTREAM_HOST:
    case KB_FORMAT_UPSTREAM_HOST_NAME:
    case KB_FORMAT_UPSTREAM_HOST_NAME_NO_PORT:
    case KB_FORMAT_HOSTS_ATTEMPTED:
    case KB_FORMAT_HOSTS_ATTEMPTED_NO_PORT:
    case KB_FORMAT_HOST_NAMES_ATTEMPTED:
    case KB_FORMAT_HOST_NAMES_ATTEMPTED_NO_PORT:
        if (upstream->host != NULL) {
            value_upstream(upstream, command->param, source, value);
        }
        return;
    default:
        /* A failure of the transport is a matter of the connection, not of its requests. */
        if (info->connection != NULL && (command->param != KB_FORMAT_DOWNSTREAM_FAILURE ||
                                         info->protocol == KB_PROTOCOL_NONE)) {
            value_connection(info->connection, command->param, source, value);
        }
        return;
    }
}
