/* SPDX-License-Identifier: Apache-2.0 */
/* layered_runtime: named values that an operator sets in the configuration and overrides through
 * the admin interface. proxy/api/runtime.h reads them. A change makes a new immutable snapshot;
 * workers see it with their next read, and the old one is freed when every worker has passed
 * between two events. Main thread, except reading. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "base/diag.h"
#include "proxy/api/factory_context.h"
#include "proxy/api/runtime.h"

/* Builds the layers; `message` may be NULL and is borrowed for the life of the runtime. Reports
 * what is wrong at the present path (that of layered_runtime) and returns a runtime all the same.
 * Counts in "runtime.". `server` gives the statistics and the workers. */
struct kb_runtime *kb_runtime_create(const Envoy__Config__Bootstrap__V3__LayeredRuntime *message,
                                     struct kb_server_context *server, struct kb_diag *diag);
/* When no worker runs any more. */
void kb_runtime_destroy(struct kb_runtime *runtime);

/* Makes and counts the snapshot again, as Envoy does once its RTDS layers are complete. */
void kb_runtime_reload(struct kb_runtime *runtime);

/* Whether there is an admin_layer, which kb_runtime_set_override needs. */
bool kb_runtime_has_admin_layer(const struct kb_runtime *runtime);
/* Remembers a value in the admin layer, or forgets it when `value` is empty; in force after
 * kb_runtime_reload. Both are copied. KB_ENOTFOUND without an admin layer. */
int kb_runtime_set_override(struct kb_runtime *runtime, struct kb_str key,
                            struct kb_str value) KB_MUST_USE;

/* The layers in their order, as the configuration names them. */
size_t kb_runtime_layer_count(const struct kb_runtime *runtime);
struct kb_str kb_runtime_layer_name(const struct kb_runtime *runtime, size_t layer);

/* Calls visit for every key, in byte order, with its value per layer (empty: not set there) and the
 * one in force. */
typedef void (*kb_runtime_visit_fn)(void *arg, struct kb_str key, const struct kb_str *layer_values,
                                    struct kb_str final_value);
void kb_runtime_visit(const struct kb_runtime *runtime, kb_runtime_visit_fn visit, void *arg);
