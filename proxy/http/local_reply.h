/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that the proxy gives itself: text or gRPC form. */
#pragma once

#include "proxy/http/hcm.h"

/* The gRPC status that stands for a HTTP status (grpc/doc/http-grpc-status-mapping.md). */
unsigned kb_grpc_status_from_http(unsigned status);
