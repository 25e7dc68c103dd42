/* SPDX-License-Identifier: Apache-2.0 */
/* Files, variables and inline texts that hold certificates and keys. */
#include "tls/tls_data_source.h"

#include <stdlib.h>

#include "base/file.h"
#include "proto/wkt.h"

#define SOURCE(name) ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_##name

static int file_read(const char *path, struct kb_arena *arena, struct kb_str *out,
                     struct kb_diag *diag)
{
    int rc = kb_file_read(path, KB_TLS_DATA_SOURCE_MAX, arena, out);

    if (rc == KB_ELIMIT) {
        kb_diag_error(diag, "file %s size is %zu bytes; maximum is %u", path, out->len,
                      KB_TLS_DATA_SOURCE_MAX);
    } else if (rc != 0) {
        kb_diag_error(diag, "Invalid path: %s", path);
    } else if (out->len == 0) {
        kb_diag_error(diag, "file %s is empty", path);
    } else {
        return 0;
    }
    return KB_ECONFIG;
}

int kb_tls_data_source_read(const Envoy__Config__Core__V3__DataSource *source,
                            struct kb_arena *arena, struct kb_str *out, struct kb_diag *diag)
{
    const char *text = NULL;

    *out = KB_STR("");
    if (source == NULL) {
        return 0;
    }
    switch ((int)source->specifier_case) {
    case SOURCE(FILENAME):
        return file_read(source->filename, arena, out, diag);
    case SOURCE(INLINE_BYTES):
        *out = kb_str_dup(
            arena, kb_str_make((const char *)source->inline_bytes.data, source->inline_bytes.len));
        break;
    case SOURCE(INLINE_STRING):
        *out = kb_str_dup(arena, kb_wkt_str(source->inline_string));
        break;
    case SOURCE(ENVIRONMENT_VARIABLE):
        text = getenv(source->environment_variable);
        if (text == NULL) {
            kb_diag_error(diag, "Environment variable doesn't exist: %s",
                          source->environment_variable);
            return KB_ECONFIG;
        }
        *out = kb_str_dup(arena, kb_str_from_cstr(text));
        break;
    default:
        return 0;
    }
    if (out->len == 0) {
        kb_diag_error(diag, "DataSource cannot be empty");
        return KB_ECONFIG;
    }
    return 0;
}

struct kb_str kb_tls_data_source_path(const Envoy__Config__Core__V3__DataSource *source)
{
    if (source == NULL) {
        return KB_STR("");
    }
    return source->specifier_case == SOURCE(FILENAME) ? kb_wkt_str(source->filename)
                                                      : KB_STR("<inline>");
}
