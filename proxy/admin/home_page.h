/* SPDX-License-Identifier: Apache-2.0 */
/* home.html as the build embeds it. */
#pragma once

#include "base/str.h"

extern const struct kb_str kb_home_page_head; /* up to the rows of the endpoints */
extern const struct kb_str kb_home_page_tail;
extern const char kb_home_page_policy[]; /* Content-Security-Policy */
