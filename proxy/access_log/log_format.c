/* SPDX-License-Identifier: Apache-2.0 */
/* SubstitutionFormatString to formatters, with the text read from where it stands and the commands
 * of extensions. */
#include "proxy/access_log/log_format.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/core/v3/substitution_format_string.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/any.h"
#include "proxy/access_log/formatter_internal.h"

#define TEXT_FILE_MAX ((size_t)1 << 20)

static const char default_text[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" "
    "%RESPONSE_CODE% "
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" "
    "\"%REQ(:AUTHORITY)%\" "
    "\"%UPSTREAM_HOST%\"\n";

bool kb_log_format_init_text(struct kb_log_format *format, struct kb_str text,
                             struct kb_arena *arena, struct kb_diag *diag)
{
    *format = (struct kb_log_format){.text = kb_formatter_create(arena, text, false, diag)};
    return format->text != NULL;
}

bool kb_log_format_init_json(struct kb_log_format *format,
                             const struct Google__Protobuf__Struct *json, struct kb_arena *arena,
                             struct kb_diag *diag)
{
    *format = (struct kb_log_format){.json = kb_json_formatter_create(arena, json, false, diag)};
    return format->json != NULL;
}

bool kb_log_format_init_default(struct kb_log_format *format, struct kb_arena *arena,
                                struct kb_diag *diag)
{
    return kb_log_format_init_text(format, kb_str_from_cstr(default_text), arena, diag);
}

/* The whole file in the arena; p NULL after an error. */
static struct kb_str text_file_read(const char *path, struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str text;
    int rc = kb_file_read(path, TEXT_FILE_MAX, arena, &text);

    if (rc == 0) {
        return text;
    }
    kb_diag_error(diag, "Invalid path: %s: %s", path,
                  rc == KB_ELIMIT ? "larger than 1 MiB" : kb_file_error_text(rc));
    return KB_STR_NULL;
}

/* p NULL after an error. */
static struct kb_str source_text(const Envoy__Config__Core__V3__DataSource *source,
                                 struct kb_arena *arena, struct kb_diag *diag)
{
    const char *text;

    switch (source->specifier_case) {
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME:
        return text_file_read(source->filename, arena, diag);
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        return kb_str_from_cstr(source->inline_string);
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        return source->inline_bytes.len > 0
                   ? kb_str_make((const char *)source->inline_bytes.data, source->inline_bytes.len)
                   : KB_STR("");
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE:
        text = getenv(source->environment_variable);
        if (text == NULL) {
            kb_diag_error(diag, "Environment variable doesn't exist: %s",
                          source->environment_variable);
        }
        return kb_str_from_cstr(text);
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER__NOT_SET:
    default:
        kb_diag_error(diag, "field: \"specifier\", reason: is required");
        return KB_STR_NULL;
    }
}

/* Commands that the `formatters` bring; false after an error. */
static bool extensions_read(const Envoy__Config__Core__V3__SubstitutionFormatString *message,
                            unsigned *extensions, struct kb_arena *arena, struct kb_diag *diag)
{
    bool ok = true;

    *extensions = 0;
    for (size_t i = 0; i < message->n_formatters; i++) {
        const Envoy__Config__Core__V3__TypedExtensionConfig *config = message->formatters[i];
        struct kb_str type = config->typed_config != NULL
                                 ? kb_any_inner_name(config->typed_config, arena)
                                 : KB_STR("");

        kb_diag_push_index(diag, "formatters", i);
        if (kb_str_eq(type,
                      KB_STR("envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery"))) {
            *extensions |= KB_FORMAT_REQ_WITHOUT_QUERY;
        } else if (!kb_str_eq(type, KB_STR("envoy.extensions.formatter.metadata.v3.Metadata")) &&
                   !kb_str_eq(type, KB_STR("envoy.extensions.formatter.cel.v3.Cel"))) {
            kb_diag_error(diag,
                          "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                          config->name, KB_STR_ARG(type));
            ok = false;
        }
        kb_diag_pop(diag);
    }
    return ok;
}

bool kb_log_format_init(struct kb_log_format *format,
                        const struct Envoy__Config__Core__V3__SubstitutionFormatString *message,
                        struct kb_arena *arena, struct kb_diag *diag)
{
    bool omit = message->omit_empty_values != 0;
    struct kb_str text = KB_STR_NULL;
    const char *field = "text_format_source";
    unsigned extensions;

    memset(format, 0, sizeof(*format));
    if (!extensions_read(message, &extensions, arena, diag)) {
        return false;
    }
    switch (message->format_case) {
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT:
        kb_diag_push(diag, "json_format");
        format->json =
            kb_json_formatter_create_extended(arena, message->json_format, omit, extensions, diag);
        kb_diag_pop(diag);
        return format->json != NULL;
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT:
        field = "text_format";
        text = kb_str_from_cstr(message->text_format);
        break;
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE:
        break;
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT__NOT_SET:
    default:
        kb_diag_error(diag, "field: \"format\", reason: is required");
        return false;
    }
    kb_diag_push(diag, field);
    if (text.p == NULL) {
        text = source_text(message->text_format_source, arena, diag);
    }
    if (text.p != NULL) {
        format->text = kb_formatter_create_extended(arena, text, omit, extensions, diag);
    }
    kb_diag_pop(diag);
    return format->text != NULL;
}

void kb_log_format_append(const struct kb_log_format *format,
                          const struct kb_formatter_input *input, const struct kb_stream_info *info,
                          struct kb_arena *arena, struct kb_format_out *out)
{
    struct kb_format_source source;

    source.input = input;
    source.info = info;
    source.arena = arena;
    source.typed = false;
    if (format->json != NULL) {
        kb_json_formatter_append(format->json, &source, out);
    } else {
        kb_formatter_append(format->text, &source, out);
    }
}
