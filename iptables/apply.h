/* SPDX-License-Identifier: Apache-2.0 */
/* From the settings to rules in the kernel, or to their text. */
#pragma once

#include "iptables/say.h"
#include "iptables/settings.h"

/* Finds what is there, says it, and makes, replaces or removes rules as the settings say. */
enum kb_exit kb_apply(const struct kb_settings *settings);

/* The rules (with cleanup_only: what takes them away) on standard output; touches nothing. */
void kb_apply_print(const struct kb_settings *settings);
