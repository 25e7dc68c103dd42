/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of error numbers, and how operating system errors map to them. */
#include "base/err.h"

#include <errno.h>

const char *kb_err_name(int err)
{
    switch (err) {
    case KB_OK:
        return "KB_OK";
#define X(name, value, text) \
    case value:              \
        return "KB_E" #name;
#include "base/err.def"
#undef X
    default:
        return "KB_E?";
    }
}

const char *kb_err_text(int err)
{
    switch (err) {
    case KB_OK:
        return "no error";
#define X(name, value, text) \
    case value:              \
        return text;
#include "base/err.def"
#undef X
    default:
        return "unknown error";
    }
}

int kb_err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return KB_OK;
    case EAGAIN:
    case EINPROGRESS:
    case EINTR:
        return KB_EAGAIN;
    case ECONNRESET:
        return KB_ERESET;
    case EPIPE:
    case ENOTCONN:
        return KB_ECLOSED;
    case ECONNREFUSED:
        return KB_EREFUSED;
    case ETIMEDOUT:
        return KB_ETIMEOUT;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
        return KB_EUNREACHABLE;
    case EADDRINUSE:
        return KB_EADDRINUSE;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return KB_ENOMEM;
    case ENOENT:
        return KB_ENOTFOUND;
    case EINVAL:
        return KB_EINVALID;
    default:
        return KB_EIO;
    }
}
