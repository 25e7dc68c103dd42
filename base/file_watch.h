/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are replaced while they are used: whoever watches hears when another file is moved to
 * the path, as secrets and configurations are written (a symbolic link of the directory swapped, or
 * a rename over the file). Writing to the file in place is not noticed, as in Envoy. One thread. */
#pragma once

#include "base/loop.h"
#include "base/str.h"

struct kb_file_watcher;
struct kb_file_watch;

typedef void (*kb_file_watch_cb)(void *arg);

/* A watcher on the loop; takes its descriptor at the first watch. Never NULL. */
struct kb_file_watcher *kb_file_watcher_create(struct kb_loop *loop);
/* When every watch was closed. NULL is allowed; the memory goes later, in the loop. */
void kb_file_watcher_destroy(struct kb_file_watcher *watcher);

/* Calls cb(arg), from the loop, after something was moved to `path`; a path that ends in '/' stands
 * for anything in that directory. The directory must exist: KB_ENOTFOUND; KB_EIO when the system
 * has no more watches. */
int kb_file_watch_open(struct kb_file_watcher *watcher, struct kb_str path, kb_file_watch_cb cb,
                       void *arg, struct kb_file_watch **out) KB_MUST_USE;
/* No call comes any more. NULL is allowed. From the callback too. */
void kb_file_watch_close(struct kb_file_watch *watch);
