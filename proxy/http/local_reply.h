/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that the proxy gives itself: text or gRPC form. */
#pragma once

#include "proxy/http/hcm.h"

/* The gRPC status that stands for a HTTP status (grpc/doc/http-grpc-status-mapping.md). */
unsigned kb_grpc_status_from_http(unsigned status);
/* A text as grpc-message: percent-encoded (gRPC over HTTP/2, "Status-Message"), in the arena. */
struct kb_str kb_grpc_message(struct kb_arena *arena, struct kb_str text);
