/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a program to its end, with a text as its input. */
#pragma once

#include "iptables/text.h"

/* What a program said: kb_command_run() fills it, kb_text_dispose() each. */
struct kb_command_output {
    struct kb_text out;
    struct kb_text err; /* without the line end at its end */
};

#define KB_COMMAND_ARGS_MAX 256

/* `argv` ends with NULL and names a program of PATH; `input` may be NULL. Gives its exit code, 128
 * + N if signal N ended it, or -1 if it could not be started, with the reason in `err`. */
int kb_command_run(const char *const *argv, const char *input, struct kb_command_output *output);

/* Both texts. */
void kb_command_output_dispose(struct kb_command_output *output);

/* The path of a program of PATH; false if there is none. */
bool kb_command_find(const char *name, char *path, size_t cap);
