/* SPDX-License-Identifier: Apache-2.0 */
/* Reads header_key_format; preserve_case is the one stateful formatter that Envoy has. */
#include "proxy/http/header_key_format.h"

#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/config/core/v3/protocol.pb-c.h"
#include "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.pb-c.h"
#include "proto/any.h"

#define FORMAT(name) \
    ENVOY__CONFIG__CORE__V3__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_##name

typedef Envoy__Extensions__Http__HeaderFormatters__PreserveCase__V3__PreserveCaseFormatterConfig
    PreserveCase;

static void stateful_read(const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                          struct kb_header_key_format *format, struct kb_arena *arena,
                          struct kb_diag *diag)
{
    struct kb_str type = message->typed_config != NULL
                             ? kb_any_inner_name(message->typed_config, arena)
                             : KB_STR("");
    const PreserveCase *preserve;

    if (!kb_str_eq(type, KB_STR("envoy.extensions.http.header_formatters.preserve_case.v3."
                                "PreserveCaseFormatterConfig"))) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      message->name, KB_STR_ARG(type));
        return;
    }
    preserve = KB_ANY_UNPACK(
        message->typed_config,
        envoy__extensions__http__header_formatters__preserve_case__v3__preserve_case_formatter_config,
        PreserveCase, arena, diag);
    if (preserve == NULL) {
        return;
    }
    format->preserve_case = true;
    format->forward_reason_phrase = preserve->forward_reason_phrase;
    /* DEFAULT is 0, PROPER_CASE the other one; their generated names do not fit a line. */
    format->proper_case_otherwise = preserve->formatter_type_on_envoy_headers != 0;
}

void kb_header_key_format_read(
    const Envoy__Config__Core__V3__Http1ProtocolOptions__HeaderKeyFormat *message,
    struct kb_header_key_format *format, struct kb_arena *arena, struct kb_diag *diag)
{
    *format = (struct kb_header_key_format){0};
    if (message == NULL) {
        return;
    }
    kb_diag_push(diag, "header_key_format");
    switch (message->header_format_case) {
    case FORMAT(PROPER_CASE_WORDS):
        format->proper_case_words = true;
        break;
    case FORMAT(STATEFUL_FORMATTER):
        kb_diag_push(diag, "stateful_formatter");
        stateful_read(message->stateful_formatter, format, arena, diag);
        kb_diag_pop(diag);
        break;
    case FORMAT(_NOT_SET):
    default:
        break;
    }
    kb_diag_pop(diag);
}
