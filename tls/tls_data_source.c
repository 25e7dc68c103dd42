/* SPDX-License-Identifier: Apache-2.0 */
/* Files, variables and inline texts that hold certificates and keys. */
#include "tls/tls_data_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/wkt.h"

#define SOURCE(name) ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_##name

static int file_read(const char *path, struct kb_arena *arena, struct kb_str *out,
                     struct kb_diag *diag)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    size_t len = 0;
    char *bytes;

    if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        kb_diag_error(diag, "Invalid path: %s", path);
        if (fd >= 0) {
            close(fd);
        }
        return KB_ECONFIG;
    }
    if ((uint64_t)info.st_size > KB_TLS_DATA_SOURCE_MAX) {
        kb_diag_error(diag, "file %s size is %lld bytes; maximum is %u", path,
                      (long long)info.st_size, KB_TLS_DATA_SOURCE_MAX);
        close(fd);
        return KB_ECONFIG;
    }
    bytes = kb_arena_alloc(arena, (size_t)info.st_size + 1, 1);
    while (len < (size_t)info.st_size) {
        ssize_t n = read(fd, bytes + len, (size_t)info.st_size - len);

        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    close(fd);
    bytes[len] = '\0';
    if (len == 0) {
        kb_diag_error(diag, "file %s is empty", path);
        return KB_ECONFIG;
    }
    *out = kb_str_make(bytes, len);
    return 0;
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
