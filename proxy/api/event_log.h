/* SPDX-License-Identifier: Apache-2.0 */
/* Files of events: one line of JSON for each message, as Envoy writes those of outlier detection
 * and of health checks. Implemented in proxy/access_log/event_log.c. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "proxy/api/factory_context.h"

struct kb_log_file;

/* The file of that path, opened when it is not; shared, owned by the process. NULL after an error
 * was reported. Main thread. */
struct kb_log_file *kb_event_log_open(struct kb_server_context *server, struct kb_str path,
                                      struct kb_diag *diag);
/* One more line. Main thread. */
void kb_event_log_write(struct kb_log_file *file, struct kb_server_context *server,
                        const ProtobufCMessage *event);
