/* SPDX-License-Identifier: Apache-2.0 */
/* From the messages of stats_sinks to sinks. */
#include "proxy/server/stat_sinks.h"

#include "base/log.h"
#include "proto/any.h"
#include "proxy/api/extension.h"
#include "proxy/stats/stat_store.h"
#include "proxy/stats/stats_flush.h"

static struct {
    struct kb_server_context *server;
    struct kb_stat_flusher flusher;
    struct kb_arena arena;
} sinks;

static void flushed(void *arg)
{
    struct kb_server_context *server = arg;

    kb_stat_flusher_run(&sinks.flusher, server->stats);
}

static void sink_create(const Envoy__Config__Metrics__V3__StatsSink *message,
                        struct kb_factory_context *factory, struct kb_diag *diag)
{
    const Google__Protobuf__Any *config =
        message->config_type_case ==
                ENVOY__CONFIG__METRICS__V3__STATS_SINK__CONFIG_TYPE_TYPED_CONFIG
            ? message->typed_config
            : NULL;
    const struct kb_extension *extension;
    const struct kb_stat_sink_ops *ops;
    ProtobufCMessage *unpacked;
    void *sink = NULL;

    if (config == NULL) {
        return; /* the bootstrap's check has said it */
    }
    extension = kb_extension_find(KB_EXT_STAT_SINK, kb_any_inner_name(config, factory->arena),
                                  kb_str_from_cstr(message->name));
    if (extension == NULL) {
        kb_diag_warning(diag, "'%s' is not implemented, and has no effect", message->name);
        return;
    }
    ops = extension->ops;
    kb_diag_push(diag, "typed_config");
    unpacked = kb_any_unpack(config, kb_pb_type_find(kb_str_from_cstr(ops->type_url)),
                             factory->arena, diag);
    if (unpacked != NULL && ops->create(unpacked, factory, diag, &sink) == 0) {
        kb_stat_flusher_add(&sinks.flusher, ops, sink);
    } else if (sink != NULL) {
        ops->destroy(sink);
    }
    kb_diag_pop(diag);
}

void kb_stat_sinks_configure(struct kb_server_context *server,
                             const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                             struct kb_diag *diag)
{
    struct kb_factory_context factory = {.server = server, .arena = &sinks.arena};

    kb_arena_init(&sinks.arena, NULL);
    sinks.server = server;
    for (size_t i = 0; i < message->n_stats_sinks; i++) {
        kb_diag_push_index(diag, "stats_sinks", i);
        sink_create(message->stats_sinks[i], &factory, diag);
        kb_diag_pop(diag);
    }
    if (kb_stat_sinks_any()) {
        kb_stat_store_when_flushed(server->stats, flushed, server);
    }
}

bool kb_stat_sinks_any(void)
{
    return sinks.flusher.sinks.len > 0;
}

void kb_stat_sinks_close(void)
{
    kb_stat_flusher_close(&sinks.flusher);
}

void kb_stat_sinks_dispose(void)
{
    if (sinks.server != NULL) {
        kb_stat_store_when_flushed(sinks.server->stats, NULL, NULL);
        kb_stat_flusher_dispose(&sinks.flusher);
        kb_arena_dispose(&sinks.arena);
        sinks.server = NULL;
    }
}
