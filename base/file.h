/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files, as configuration names them: regular ones, and never more of them than a maximum. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

/* Reads a whole file into the arena; a NUL stands behind it. Never waits for a writer, as a FIFO
 * would make it. What is cut while it is read is as long as it was then. `*out` is empty after an
 * error, which has no text of its own: KB_ENOTFOUND, KB_EINVALID (not a regular file), KB_ELIMIT
 * (more than `max` bytes; out->len is its size), KB_EIO; errno says more of the first and the last.
 */
int kb_file_read(const char *path, size_t max, struct kb_arena *arena,
                 struct kb_str *out) KB_MUST_USE;

/* What to tell of such an error, right behind it: strerror(), or "it is not a regular file". */
const char *kb_file_error_text(int rc);
