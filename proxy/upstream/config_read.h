/* SPDX-License-Identifier: Apache-2.0 */
/* Small readers of configuration values that the files of this room share; errors go to diag under
 * the field's name. */
#pragma once

#include "envoy/config/core/v3/address.pb-c.h"
#include "google/protobuf/duration.pb-c.h"

#include "base/addr.h"
#include "base/diag.h"

/* Milliseconds of the duration, or `absent` when it is NULL. A negative one is reported and gives
 * `absent`. */
uint64_t kb_config_duration_ms(const Google__Protobuf__Duration *duration, const char *field,
                               uint64_t absent, struct kb_diag *diag);

/* An IP literal with a numeric port. `hint` is put after Envoy's reason: "" or a sentence that
 * starts with a full stop. KB_ECONFIG after a report. */
int kb_config_socket_address(const Envoy__Config__Core__V3__SocketAddress *message,
                             const char *hint, struct kb_addr *out,
                             struct kb_diag *diag) KB_MUST_USE;
/* The same, or a unix path. */
int kb_config_address(const Envoy__Config__Core__V3__Address *message, const char *hint,
                      struct kb_addr *out, struct kb_diag *diag) KB_MUST_USE;
