/* SPDX-License-Identifier: Apache-2.0 */
/* What pooled connections have in common, whatever is spoken on them. */
#include "proxy/upstream/pool_client.h"

#include "proxy/api/ssl_connection_info.h"

static struct kb_pool_client *client_of(struct kb_request_encoder *encoder)
{
    return KB_CAST(KB_CONTAINER_OF(encoder, struct kb_pool_client, encoder), kb_pool_client);
}

void kb_pool_client_detach(struct kb_pool_client *client)
{
    client->decoder = NULL;
    kb_conn_pool_request_uncount(client);
}

void kb_pool_client_close(struct kb_request_encoder *encoder, enum kb_conn_close how,
                          uint64_t flush_timeout_ms)
{
    struct kb_pool_client *client = client_of(encoder);

    if (client->decoder == NULL) {
        return;
    }
    kb_pool_client_detach(client);
    client->conn->delayed_close_ms = flush_timeout_ms;
    /* An answer may still be under way: the connection cannot be used again. */
    kb_conn_close(client->conn, how);
}

void kb_pool_client_read_disable(struct kb_request_encoder *encoder, bool disable)
{
    struct kb_pool_client *client = client_of(encoder);

    if (client->state != KB_POOL_CLIENT_BUSY) {
        return;
    }
    client->read_disables += disable ? 1 : (unsigned)-1;
    kb_conn_read_disable(client->conn, disable);
}

size_t kb_pool_client_unsent(const struct kb_request_encoder *encoder)
{
    const struct kb_pool_client *client =
        KB_CONTAINER_OF(encoder, const struct kb_pool_client, encoder);

    return client->state == KB_POOL_CLIENT_BUSY ? client->conn->out.len : 0;
}

void kb_pool_client_conn_info(struct kb_pool_client *client, struct kb_upstream_info *info)
{
    if (info->connection_id != client->conn->info.id || info->remote.len == 0) {
        info->local = client->conn->info.local;
        info->remote = client->conn->info.remote;
        info->connection_id = client->conn->info.id;
        info->connect_start_ns = client->connect_start_ns;
        info->connect_end_ns = client->connect_end_ns;
        if (KB_UNLIKELY(info->ssl != client->conn->info.ssl)) {
            kb_ssl_connection_info_unref(info->ssl);
            info->ssl = kb_ssl_connection_info_ref(client->conn->info.ssl);
        }
    }
    info->connection_requests = client->requests;
}

void kb_pool_client_info(struct kb_request_encoder *encoder, struct kb_upstream_info *info)
{
    struct kb_pool_client *client = client_of(encoder);

    kb_pool_client_conn_info(client, info);
    info->wire_bytes_sent = client->conn->bytes_sent - client->sent_before + client->conn->out.len;
    info->wire_bytes_received = client->conn->bytes_received - client->received_before;
}

void kb_pool_client_fail(struct kb_pool_client *client, enum kb_reset_reason reason)
{
    const struct kb_response_decoder_ops *decoder = client->decoder;

    if (decoder != NULL) {
        kb_pool_client_detach(client);
        client->encoder.peer_reset = client->conn->reset_detected;
        decoder->on_reset(client->owner, reason, client->conn->info.transport_failure_reason);
    }
    kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
}

void kb_pool_client_above_high(void *owner)
{
    struct kb_pool_client *client = KB_CAST(owner, kb_pool_client);

    kb_stat_inc(kb_conn_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
    if (client->decoder != NULL) {
        client->decoder->on_above_high(client->owner);
    }
}

void kb_pool_client_below_low(void *owner)
{
    struct kb_pool_client *client = KB_CAST(owner, kb_pool_client);

    kb_stat_inc(kb_conn_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
    if (client->decoder != NULL) {
        client->decoder->on_below_low(client->owner);
    }
}
