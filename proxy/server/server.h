/* SPDX-License-Identifier: Apache-2.0 */
/* The process: makes every room in order, runs the main loop, takes everything down. */
#pragma once

#include "proxy/server/options.h"

/* Serves, or validates, as the options say; returns the exit code of the process. Once per process.
 */
int kb_server_main(const struct kb_options *options);
