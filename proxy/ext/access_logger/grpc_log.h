/* SPDX-License-Identifier: Apache-2.0 */
/* Where entries for a gRPC service are gathered and sent from (Envoy
 * Grpc::Common::GrpcAccessLogger): each worker has a buffer and a stream of its own, so that
 * nothing is shared while traffic runs. Loggers with the same configuration share both. */
#pragma once

#include "proxy/api/access_logger.h"

struct kb_grpc_log;
struct Envoy__Config__Core__V3__GrpcService;
struct ProtobufCMessage;

#define KB_GRPC_LOG_LEVELS_MAX 2

/* A field around the entries, and the bytes of the fields that stand before it. */
struct kb_grpc_log_level {
    struct kb_str before;
    uint8_t tag;
};

struct kb_grpc_log_options {
    const struct Envoy__Config__Core__V3__GrpcService *service;
    const char *kind; /* loggers of one kind and key share one; kept as it is */
    struct kb_str key;
    struct kb_str path; /* of the method */
    struct kb_str stat_prefix;
    uint64_t flush_interval_ms;
    uint64_t buffer_bytes; /* entries are sent when they are as many; 0: each at once */
    struct kb_grpc_log_level levels[KB_GRPC_LOG_LEVELS_MAX];
    size_t level_count;
    uint8_t entry_tag;
    bool unary; /* a call for each message; else one stream, whose first message alone has `before`
                 */
};

/* The one of that kind and key, made when there is none; everything is copied. NULL after an error
 * was reported at the present path, where the service stands. Main thread. */
struct kb_grpc_log *kb_grpc_log_get(struct kb_server_context *server,
                                    const struct kb_grpc_log_options *options,
                                    struct kb_diag *diag);
/* Lets it go; what is buffered is dropped with the last holder. Main thread, when no worker writes
 * to it any more through this holder. */
void kb_grpc_log_release(struct kb_grpc_log *log);

/* An entry, packed before this returns; on `worker`. When the service takes nothing and the buffer
 * is full, it is dropped, and counted. `counted`: as written, too. */
void kb_grpc_log_write(struct kb_grpc_log *log, struct kb_worker *worker,
                       const struct ProtobufCMessage *entry, bool counted);

/* Ends this worker's streams, of all logs. On the worker, before its connections are closed. */
void kb_grpc_logs_worker_close(struct kb_worker *worker);
