/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the bootstrap file and the override, merges and checks them, and finds paths in them again.
 */
#include "proto/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "proto/pb_validate.h"

#define TYPE (&envoy__config__bootstrap__v3__bootstrap__descriptor)

static const struct kb_str yaml_name = {"--config-yaml", 13};

enum format { FORMAT_JSON, FORMAT_YAML, FORMAT_PB, FORMAT_PB_TEXT };

/* A whole file on the heap. */
struct text {
    char *p;
    size_t len;
};

/* The trees of file and override, kept to find places in them. */
struct kb_config_index {
    struct kb_doc file;
    struct kb_doc yaml;
    struct text text;
};

static enum format format_of(struct kb_str path)
{
    if (kb_str_iends_with(path, KB_STR(".yaml")) || kb_str_iends_with(path, KB_STR(".yml"))) {
        return FORMAT_YAML;
    }
    if (kb_str_iends_with(path, KB_STR(".pb_text"))) {
        return FORMAT_PB_TEXT;
    }
    return kb_str_iends_with(path, KB_STR(".pb")) ? FORMAT_PB : FORMAT_JSON;
}

static int fd_read(int fd, struct text *out)
{
    size_t cap = 16384;
    struct stat status;

    if (fstat(fd, &status) == 0 && status.st_size > 0 &&
        (uint64_t)status.st_size < KB_DOC_TEXT_MAX) {
        cap = (size_t)status.st_size + 1;
    }
    out->len = 0;
    out->p = kb_malloc(cap);
    for (;;) {
        ssize_t got = read(fd, out->p + out->len, cap - out->len);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? kb_err_from_errno(errno) : 0;
        }
        out->len += (size_t)got;
        if (out->len > KB_DOC_TEXT_MAX) {
            return KB_ELIMIT;
        }
        if (out->len == cap) {
            cap *= 2;
            out->p = kb_realloc(out->p, cap);
        }
    }
}

/* KB_ECONFIG after an error in diag. */
static int file_read(struct kb_str path, struct text *out, struct kb_diag *diag)
{
    char *name = kb_str_to_cstr(path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    int rc;

    free(name);
    if (fd < 0) {
        kb_diag_error_at(diag, path, 0, 0, "Invalid path: %.*s (%s)", KB_STR_ARG(path),
                         strerror(errno));
        return KB_ECONFIG;
    }
    rc = fd_read(fd, out);
    close(fd);
    if (rc != 0) {
        kb_diag_error_at(diag, path, 0, 0, "Unable to read file: %.*s (%s)", KB_STR_ARG(path),
                         kb_err_text(rc));
        free(out->p);
        return KB_ECONFIG;
    }
    return 0;
}

/* KB_ECONFIG after an error in diag; the caller disposes of the document in any case. */
static int doc_read(struct kb_doc *doc, enum format format, struct kb_str name, struct kb_str text,
                    struct kb_diag *diag)
{
    return format == FORMAT_YAML ? kb_doc_parse_yaml(doc, name, text, diag)
                                 : kb_doc_parse_json(doc, name, text, diag);
}

static ProtobufCMessage *text_to_message(enum format format, struct kb_str name, struct kb_str text,
                                         enum kb_pb_unknown unknown, struct kb_arena *arena,
                                         struct kb_diag *diag)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    if (format == FORMAT_PB) {
        if (kb_pb_unpack(TYPE, text, arena, &message) != 0) {
            kb_diag_error_at(diag, name, 0, 0, "Unable to parse the file as binary %s", TYPE->name);
        }
        return message;
    }
    kb_doc_init(&doc);
    if (doc_read(&doc, format, name, text, diag) == 0) {
        message = kb_pb_from_doc(TYPE, &doc, unknown, arena, diag);
    }
    kb_doc_dispose(&doc);
    return message;
}

static ProtobufCMessage *file_to_message(const struct kb_config_source *source,
                                         struct kb_arena *arena, struct kb_diag *diag)
{
    enum format format = format_of(source->path);
    ProtobufCMessage *message;
    struct text text;

    if (format == FORMAT_PB_TEXT) {
        kb_diag_error_at(diag, source->path, 0, 0, "the text format of protobuf is not supported");
        return NULL;
    }
    if (file_read(source->path, &text, diag) != 0) {
        return NULL;
    }
    message = text_to_message(format, source->path, kb_str_make(text.p, text.len), source->unknown,
                              arena, diag);
    free(text.p);
    return message;
}

static void index_read(struct kb_config_source *source)
{
    struct kb_config_index *index = kb_calloc(1, sizeof(*index));
    enum format format = format_of(source->path);
    struct kb_diag ignored;

    kb_diag_init(&ignored);
    kb_doc_init(&index->file);
    kb_doc_init(&index->yaml);
    if (source->path.len > 0 && (format == FORMAT_JSON || format == FORMAT_YAML) &&
        file_read(source->path, &index->text, &ignored) == 0 &&
        doc_read(&index->file, format, source->path, kb_str_make(index->text.p, index->text.len),
                 &ignored) != 0) {
        index->file.root = NULL;
    }
    if (source->yaml.len > 0 &&
        doc_read(&index->yaml, FORMAT_YAML, yaml_name, source->yaml, &ignored) != 0) {
        index->yaml.root = NULL;
    }
    kb_diag_dispose(&ignored);
    source->index = index;
}

void kb_config_source_dispose(struct kb_config_source *source)
{
    if (source->index != NULL) {
        kb_doc_dispose(&source->index->file);
        kb_doc_dispose(&source->index->yaml);
        free(source->index->text.p);
        free(source->index);
        source->index = NULL;
    }
}

bool kb_config_locate(void *arg, struct kb_str path, struct kb_str *file, uint32_t *line,
                      uint32_t *column)
{
    struct kb_config_source *source = arg;
    const struct kb_doc_node *node;

    if (path.len == 0) {
        return false;
    }
    if (source->index == NULL) {
        index_read(source);
    }
    *file = source->path;
    node = kb_doc_find(&source->index->file, path);
    if (node == NULL) {
        *file = yaml_name;
        node = kb_doc_find(&source->index->yaml, path);
    }
    if (node == NULL) {
        return false;
    }
    *line = node->key_line != 0 ? node->key_line : node->line;
    *column = node->key_line != 0 ? node->key_column : node->column;
    return true;
}

Envoy__Config__Bootstrap__V3__Bootstrap *
kb_config_load(struct kb_config_source *source, struct kb_arena *arena, struct kb_diag *diag)
{
    uint32_t errors_before = diag->error_count;
    ProtobufCMessage *message = NULL;
    ProtobufCMessage *merged = NULL;

    if (source->path.len == 0 && source->yaml.len == 0) {
        kb_diag_error(diag, "At least one of --config-path or --config-yaml or "
                            "Options::configProto() should be non-empty");
        return NULL;
    }
    diag->unknown_fields_warn = source->unknown != KB_PB_UNKNOWN_ERROR;
    if (source->path.len > 0) {
        message = file_to_message(source, arena, diag);
    }
    if (source->yaml.len > 0) {
        merged =
            text_to_message(FORMAT_YAML, yaml_name, source->yaml, source->unknown, arena, diag);
    }
    if (diag->error_count != errors_before) {
        return NULL;
    }
    if (message == NULL) {
        message = merged;
    } else if (merged != NULL && kb_pb_merge(message, merged, arena) != 0) {
        kb_diag_error(diag, "--config-yaml could not be merged over the file");
        return NULL;
    }
    kb_diag_set_locate(diag, kb_config_locate, source);
    if (message == NULL || kb_pb_validate(message, diag) != 0) {
        return NULL;
    }
    return (Envoy__Config__Bootstrap__V3__Bootstrap *)(void *)message;
}
