/* SPDX-License-Identifier: Apache-2.0 */
/* The control groups of this process, of version 1 and 2. `root` stands before all paths: "" for
 * the real files, a directory for tests. */
#pragma once

#include "base/str.h"

/* Calls `visit` with the directory of this process's group of that controller ("cpu", "memory"),
 * then with those above it, by whose limits it is bound too. Not at all when there is none. */
void kb_cgroup_walk(const char *root, const char *controller_name,
                    void (*visit)(void *arg, const char *root, const char *directory, bool v2),
                    void *arg);
/* Reads a small file into bytes; 0 bytes when there is none. */
struct kb_str kb_cgroup_file_read(const char *root, const char *path, char *bytes, size_t cap);
/* A number in a file; false when there is none, or it is negative or a word (no limit). */
bool kb_cgroup_number_read(const char *root, const char *directory, const char *name,
                           uint64_t *number);
