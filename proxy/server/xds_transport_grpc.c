/* SPDX-License-Identifier: Apache-2.0 */
/* The xDS client's stream over a gRPC stream to a cluster. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/grpc/grpc_stream.h"
#include "proxy/server/xds_glue.h"

#define METADATA_MAX 16

struct kb_xds_stream {
    KB_OBJ;
    struct kb_grpc_stream *grpc;
    const struct kb_xds_stream_events *events;
    void *arg;
};
KB_OBJ_MAGIC(kb_xds_stream, 0x58535452);

static void on_message(void *arg, struct kb_str message)
{
    struct kb_xds_stream *stream = KB_CAST(arg, kb_xds_stream);

    stream->events->message(stream->arg, message);
}

static void on_writable(void *arg)
{
    struct kb_xds_stream *stream = KB_CAST(arg, kb_xds_stream);

    stream->events->writable(stream->arg);
}

static void on_closed(void *arg, int status, struct kb_str text)
{
    struct kb_xds_stream *stream = KB_CAST(arg, kb_xds_stream);

    stream->events->closed(stream->arg, status, text);
}

static const struct kb_grpc_stream_callbacks callbacks = {
    .on_message = on_message,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

static struct kb_xds_stream *grpc_open(struct kb_xds_transport *transport, struct kb_str method,
                                       const struct kb_xds_stream_events *events, void *arg)
{
    struct kb_xds_source *source = KB_CONTAINER_OF(transport, struct kb_xds_source, transport);
    struct kb_xds_stream *stream = kb_calloc(1, sizeof(*stream));
    struct kb_grpc_metadata metadata[METADATA_MAX];
    struct kb_grpc_stream_options options;

    KB_OBJ_SET(stream, kb_xds_stream);
    stream->events = events;
    stream->arg = arg;
    memset(&options, 0, sizeof(options));
    options.cluster = kb_str_from_cstr(source->cluster);
    options.authority = kb_str_from_cstr(source->authority);
    options.path = method;
    options.metadata = metadata;
    options.metadata_count = KB_MIN(source->metadata_count, (size_t)METADATA_MAX);
    for (size_t i = 0; i < options.metadata_count; i++) {
        metadata[i].name = kb_str_from_cstr(source->metadata[i]->key);
        metadata[i].value = kb_str_from_cstr(source->metadata[i]->value);
    }
    options.max_message_bytes = source->max_message_bytes;
    options.skip_envoy_headers = source->skip_envoy_headers;
    stream->grpc = kb_grpc_stream_open(source->main, &options, &callbacks, stream);
    return stream;
}

static int grpc_send(struct kb_xds_stream *stream, struct kb_str message)
{
    return kb_grpc_stream_send(stream->grpc, message);
}

static void grpc_close(struct kb_xds_stream *stream)
{
    kb_grpc_stream_destroy(stream->grpc);
    KB_OBJ_CLEAR(stream);
    free(stream);
}

void kb_xds_transport_grpc_init(struct kb_xds_source *source)
{
    source->transport.open = grpc_open;
    source->transport.send = grpc_send;
    source->transport.close = grpc_close;
}
