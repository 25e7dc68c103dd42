/* SPDX-License-Identifier: Apache-2.0 */
/* What kobune-iptables tells: one line (or a text under a line) on standard error, by level, as
 * words or as JSON. Standard output is kept for the rules of a dry run and for --help. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum kb_say_level { KB_SAY_DEBUG, KB_SAY_INFO, KB_SAY_WARN, KB_SAY_ERROR, KB_SAY_NONE };

/* How the process ends. 126 is what Istio's injection understands as a failed validation. */
enum kb_exit {
    KB_EXIT_OK = 0,
    KB_EXIT_FAILED = 1,     /* the rules could not be applied, or are others than asked for */
    KB_EXIT_USAGE = 2,      /* a flag, or a value of a flag or of the environment */
    KB_EXIT_NO_TOOL = 3,    /* no usable iptables */
    KB_EXIT_NO_RIGHTS = 4,  /* not the capability that it needs */
    KB_EXIT_NOT_VALID = 126 /* the rules do not redirect */
};

/* From then on lines under `level` are left out; `json`: one JSON object a line. */
void kb_say_setup(enum kb_say_level level, bool json);

/* One message, without a line end. */
void kb_say(enum kb_say_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the process with 1: no memory. Nothing of the machine has been left half changed by that:
 * every text is complete before iptables sees it. */
_Noreturn void kb_say_no_memory(void);
