/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.config.core.v3.DataSource as secrets use it. For this room. */
#pragma once

#include "envoy/config/core/v3/base.pb-c.h"

#include "base/diag.h"

#define KB_TLS_DATA_SOURCE_MAX (4u << 20) /* bundles of system roots are about 220 KiB */

/* The bytes, in the arena, NUL-terminated. NULL and one without a specifier give an empty text.
 * KB_ECONFIG after reporting. Main thread. */
int kb_tls_data_source_read(const Envoy__Config__Core__V3__DataSource *source,
                            struct kb_arena *arena, struct kb_str *out, struct kb_diag *diag);
/* What is shown of it where secrets are named: the path, or "<inline>". Borrowed. */
struct kb_str kb_tls_data_source_path(const Envoy__Config__Core__V3__DataSource *source);
