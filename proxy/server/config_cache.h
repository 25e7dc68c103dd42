/* SPDX-License-Identifier: Apache-2.0 */
/* --config-cache DIR: the last resources that were accepted from the control plane, secrets never,
 * in a file. A process that starts while the control plane cannot be reached serves from it.
 * Main thread. */
#pragma once

#include "base/loop.h"
#include "xds/xds_watch.h"

#define KB_CONFIG_CACHE_FILE      "kobune-config-cache"
#define KB_CONFIG_CACHE_MAX_BYTES ((size_t)256 << 20) /* of the file; more is not kept */

struct kb_config_cache;

/* Reads DIR/kobune-config-cache. One that is missing, broken, of another version, or of another
 * node than `identity` is as good as empty; all but the first is logged. Never NULL. */
struct kb_config_cache *kb_config_cache_create(struct kb_loop *loop, struct kb_str dir,
                                               struct kb_str identity);
/* Writes what was not written yet. NULL is allowed. */
void kb_config_cache_destroy(struct kb_config_cache *cache);

/* A response was accepted, whole. With `all` it had every resource of the type: what is not in it
 * is forgotten. What has secrets inside is left out. The file follows about a second later. */
void kb_config_cache_keep(struct kb_config_cache *cache, enum kb_xds_type type,
                          const struct kb_xds_update *update, bool all);
/* Nobody asks for this one any more. */
void kb_config_cache_forget(struct kb_config_cache *cache, enum kb_xds_type type,
                            struct kb_str name);

/* What is known of a name, or of all of the type with an empty one, as a response: the state of the
 * world, in the arena. What does not decode any more is left out with a log line. False: nothing is
 * known. */
bool kb_config_cache_load(struct kb_config_cache *cache, enum kb_xds_type type, struct kb_str name,
                          struct kb_arena *arena, struct kb_xds_update *update);
/* Where it lies, for log lines. */
const char *kb_config_cache_path(const struct kb_config_cache *cache);
