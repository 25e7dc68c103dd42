/* SPDX-License-Identifier: Apache-2.0 */
/* The table of flags, for options.c and options_help.c. */
#pragma once

enum kb_option_kind { KB_OPTION_SWITCH, KB_OPTION_STRING, KB_OPTION_UINT32, KB_OPTION_MULTI };

enum kb_option_id {
#define X(ID, name, letter, kind, help) KB_OPTION_##ID,
#include "proxy/server/options.def"
#undef X
    KB_OPTION_COUNT
};

struct kb_option_def {
    const char *name;
    char letter; /* 0: none */
    enum kb_option_kind kind;
    const char *help;
};

extern const struct kb_option_def kb_option_defs[KB_OPTION_COUNT];
