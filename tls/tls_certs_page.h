/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates in use, as /certs shows them. For this room. */
#pragma once

#include "tls/tls_context.h"

struct Envoy__Admin__V3__Certificates;

/* Adds what the context uses; page->certificates has room for one more. Main thread. */
void kb_tls_certs_page_add(struct Envoy__Admin__V3__Certificates *page,
                           const struct kb_tls_context *context, struct kb_worker *main,
                           struct kb_arena *arena);
