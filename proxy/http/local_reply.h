/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that the proxy gives itself: text or gRPC form, mappers and body formats (local_reply_config). */
#pragma once

#include "proxy/http/hcm.h"

struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig;

/* Builds the configuration in the factory's arena; NULL only after an error was reported. */
struct kb_local_reply_config *kb_local_reply_config_create(
    const struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig *message,
    struct kb_factory_context *factory, struct kb_diag *diag);

/* The gRPC status that stands for a HTTP status (grpc/doc/http-grpc-status-mapping.md). */
unsigned kb_grpc_status_from_http(unsigned status);
