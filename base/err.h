/* SPDX-License-Identifier: Apache-2.0 */
/* Error numbers. A function that can fail returns 0 or one of these; all are negative. */
#pragma once

#include "base/compiler.h"

enum kb_err {
    KB_OK = 0,
#define X(name, value, text) KB_E##name = (value),
#include "base/err.def"
#undef X
};

/* Name of an error ("KB_ELIMIT"), for logs. Never NULL; unknown values give "KB_E?". */
const char *kb_err_name(int err);

/* One sentence that says what the error means. Never NULL. */
const char *kb_err_text(int err);

/* The KB_E* that stands for an errno value; 0 stays 0. */
int kb_err_from_errno(int errno_value);

/* Returns from the calling function when `expr` is not 0. */
#define KB_TRY(expr)                        \
    do {                                    \
        int kb_try_rc_ = (expr);            \
        if (KB_UNLIKELY(kb_try_rc_ != 0)) { \
            return kb_try_rc_;              \
        }                                   \
    } while (0)
