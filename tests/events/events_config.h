/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration drawn from templates: "<<a|b>>" becomes one of these, and a resource whose text has
 * "#maybe" is there or not. */
#pragma once

#include <stdbool.h>

/* Writes FOLDER/NAME, drawn, to NAME here, in one step, as watched files want it; `all` leaves
 * nothing out. */
void events_config_draw(const char *folder, const char *name, bool all);
