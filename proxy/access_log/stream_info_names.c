/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of response flags and protocols. */
#include "base/obj.h"
#include "proxy/api/stream_info.h"

static const char *const short_names[KB_RF_COUNT] = {
#define X(id, brief, text) [KB_RF_##id] = (brief),
#include "proxy/api/response_flags.def"
#undef X
};

static const char *const long_names[KB_RF_COUNT] = {
#define X(id, brief, text) [KB_RF_##id] = (text),
#include "proxy/api/response_flags.def"
#undef X
};

const char *kb_response_flag_short(enum kb_response_flag flag)
{
    KB_ASSERT((unsigned)flag < KB_RF_COUNT);
    return short_names[flag];
}

const char *kb_response_flag_long(enum kb_response_flag flag)
{
    KB_ASSERT((unsigned)flag < KB_RF_COUNT);
    return long_names[flag];
}

struct kb_str kb_protocol_name(enum kb_protocol protocol)
{
    switch (protocol) {
    case KB_PROTOCOL_NONE:
        return KB_STR("");
    case KB_PROTOCOL_HTTP10:
        return KB_STR("HTTP/1.0");
    case KB_PROTOCOL_HTTP11:
        return KB_STR("HTTP/1.1");
    case KB_PROTOCOL_HTTP2:
        return KB_STR("HTTP/2");
    }
    return KB_STR("");
}
