/* SPDX-License-Identifier: Apache-2.0 */
/* A file in the place of a control plane: its content goes through the state-of-the-world machine.
 */
#include "xds/xds_fs.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/loader.h"
#include "proto/pb_json.h"
#include "xds/xds_sotw.h"

#define RESPONSE_TYPE &envoy__service__discovery__v3__discovery_response__descriptor

struct kb_xds_fs {
    KB_OBJ;
    struct kb_xds_sotw sotw;
    struct kb_xds_watch *watch;
    struct kb_file_watch *file_watch;
    const struct kb_xds_watch_callbacks *callbacks;
    void *arg;
    char *path;
    char *name;
    bool unknown_fields_refused;
    bool delivered; /* the file had what is asked for */
    bool reading;
    bool destroyed; /* while reading */
};
KB_OBJ_MAGIC(kb_xds_fs, 0x58444653);

static void fs_update(void *arg, const struct kb_xds_update *update, struct kb_diag *diag)
{
    struct kb_xds_fs *fs = KB_CAST(arg, kb_xds_fs);

    fs->delivered = true;
    if (!fs->destroyed) {
        fs->callbacks->on_update(fs->arg, update, diag);
    }
}

static void fs_failure(void *arg, enum kb_xds_failure failure)
{
    struct kb_xds_fs *fs = KB_CAST(arg, kb_xds_fs);

    fs->delivered = true;
    if (!fs->destroyed) {
        fs->callbacks->on_failure(fs->arg, failure);
    }
}

static const struct kb_xds_watch_callbacks fs_callbacks = {fs_update, fs_failure};

static ProtobufCMessage *response_parse(const char *path, struct kb_str text, bool refuse_unknown,
                                        struct kb_arena *arena, struct kb_diag *diag)
{
    enum kb_pb_unknown unknown = refuse_unknown ? KB_PB_UNKNOWN_ERROR : KB_PB_UNKNOWN_WARN;
    struct kb_str name = kb_str_from_cstr(path);
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    if (kb_str_iends_with(name, KB_STR(".pb"))) {
        if (kb_pb_unpack(RESPONSE_TYPE, text, arena, &message) != 0) {
            kb_diag_error(diag,
                          "Unable to parse file \"%s\" as a binary protobuf (type "
                          "envoy.service.discovery.v3.DiscoveryResponse)",
                          path);
        }
        return message;
    }
    if (kb_str_iends_with(name, KB_STR(".yaml")) || kb_str_iends_with(name, KB_STR(".yml"))) {
        kb_doc_init(&doc);
        if (kb_doc_parse_yaml(&doc, name, text, diag) == 0) {
            message = kb_pb_from_doc(RESPONSE_TYPE, &doc, unknown, arena, diag);
        }
        kb_doc_dispose(&doc);
        return message;
    }
    return kb_pb_json_parse(RESPONSE_TYPE, name, text, unknown, arena, diag);
}

/* What is wrong with the file, and what of it has no effect. */
static void diag_log(struct kb_xds_fs *fs, const char *what, struct kb_diag *diag)
{
    for (const struct kb_diag_entry *entry = diag->first; entry != NULL; entry = entry->next) {
        struct kb_str text = kb_diag_format(diag, entry);
        bool placed = entry->file.len > 0;

        KB_LOG(CONFIG, WARNING, "Filesystem config update%s%s: %s%s%.*s",
               entry->level == KB_DIAG_ERROR ? " " : "", entry->level == KB_DIAG_ERROR ? what : "",
               placed ? "" : fs->path, placed ? "" : ": ", KB_STR_ARG(text));
    }
}

static void failure_tell(struct kb_xds_fs *fs, enum kb_xds_failure failure, struct kb_diag *diag)
{
    struct kb_xds_push *push =
        kb_xds_push_begin(fs->sotw.pushes, fs->sotw.watches.type, fs->sotw.way);
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    kb_xds_push_end(fs->sotw.pushes, push, KB_STR(""), kb_xds_error_text(diag, &arena));
    kb_arena_dispose(&arena);
    diag_log(fs, failure == KB_XDS_FAILURE_UNREADABLE ? "failure" : "rejected", diag);
    if (!fs->destroyed) {
        fs->callbacks->on_failure(fs->arg, failure);
    }
}

/* A file without any resource is an answer of its own. */
static bool is_empty_for(const struct kb_xds_fs *fs,
                         const Envoy__Service__Discovery__V3__DiscoveryResponse *response)
{
    return response->n_resources == 0 && fs->name[0] != '\0';
}

/* Delivers; mistakes are told with their line, for which the file is read once more. */
static void response_deliver(struct kb_xds_fs *fs,
                             const Envoy__Service__Discovery__V3__DiscoveryResponse *response,
                             struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_config_source source = {.path = kb_str_from_cstr(fs->path)};

    kb_diag_set_locate(diag, kb_config_locate, &source);
    (void)kb_xds_sotw_response(&fs->sotw, response, 0, arena, diag);
    if (fs->delivered) {
        diag_log(fs, "rejected", diag);
    } else {
        kb_diag_error(diag, "the file has no resource '%s'", fs->name);
        failure_tell(fs, KB_XDS_FAILURE_REJECTED, diag);
    }
    kb_diag_set_locate(diag, NULL, NULL);
    kb_config_source_dispose(&source);
}

/* Reads and delivers; what goes wrong before somebody was called is told here. */
static void fs_read(struct kb_xds_fs *fs, struct kb_arena *arena, struct kb_diag *diag)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse *response;
    ProtobufCMessage *message;
    struct kb_str text;
    int rc = kb_file_read(fs->path, KB_XDS_FILE_MAX, arena, &text);

    if (rc != 0) {
        KB_LOG(CONFIG, WARNING, "Filesystem config update failure: unable to read file: %s: %s",
               fs->path, kb_file_error_text(rc));
        fs->callbacks->on_failure(fs->arg, KB_XDS_FAILURE_UNREADABLE);
        return;
    }
    message = response_parse(fs->path, text, fs->unknown_fields_refused, arena, diag);
    fs->delivered = false;
    if (message == NULL) {
        failure_tell(fs, KB_XDS_FAILURE_UNREADABLE, diag);
        return;
    }
    response = (Envoy__Service__Discovery__V3__DiscoveryResponse *)(void *)message;
    if (is_empty_for(fs, response)) {
        const struct kb_xds_update none = {.version = kb_str_from_cstr(response->version_info),
                                           .state_of_the_world = true};

        fs_callbacks.on_update(fs, &none, diag);
        if (diag->error_count > 0) {
            failure_tell(fs, KB_XDS_FAILURE_REJECTED, diag);
        }
        return;
    }
    if (fs->name[0] != '\0' && response->n_resources > 1) {
        kb_diag_error(diag, "Unexpected resource length: %zu; one is asked for, '%s'",
                      response->n_resources, fs->name);
        failure_tell(fs, KB_XDS_FAILURE_REJECTED, diag);
        return;
    }
    response_deliver(fs, response, arena, diag);
}

static void fs_free(struct kb_xds_fs *fs)
{
    kb_xds_watches_remove(fs->watch);
    kb_xds_sotw_dispose(&fs->sotw);
    free(fs->path);
    free(fs->name);
    KB_OBJ_CLEAR(fs);
    free(fs);
}

static void file_moved(void *arg)
{
    struct kb_xds_fs *fs = KB_CAST(arg, kb_xds_fs);
    struct kb_arena arena;
    struct kb_diag diag;

    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    diag.unknown_fields_warn = !fs->unknown_fields_refused;
    fs->reading = true;
    fs_read(fs, &arena, &diag);
    fs->reading = false;
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
    if (fs->destroyed) {
        fs_free(fs);
    }
}

struct kb_xds_fs *kb_xds_fs_create(const struct kb_xds_fs_options *options, struct kb_diag *diag)
{
    struct kb_xds_fs *fs = kb_calloc(1, sizeof(*fs));
    struct kb_str watched = options->watched_directory;
    char *directory = NULL;
    struct stat stat_buf;
    int rc = 0;

    KB_OBJ_SET(fs, kb_xds_fs);
    kb_xds_sotw_init(&fs->sotw, options->type);
    fs->sotw.pushes = options->pushes;
    fs->sotw.way = "file";
    fs->sotw.owner_tells = true;
    fs->watch = kb_xds_watches_add(&fs->sotw.watches, options->name, &fs_callbacks, fs);
    fs->callbacks = options->callbacks;
    fs->arg = options->arg;
    fs->path = kb_str_to_cstr(options->path);
    fs->name = kb_str_to_cstr(options->name);
    fs->unknown_fields_refused = options->unknown_fields_refused;
    if (watched.len > 0) {
        directory = kb_malloc(watched.len + 2);
        memcpy(directory, watched.p, watched.len);
        directory[watched.len] = '/';
        watched = kb_str_make(directory, watched.len + 1);
    } else {
        watched = options->path;
    }
    if (stat(fs->path, &stat_buf) != 0) {
        kb_diag_error(diag,
                      "paths must refer to an existing path in the system: '%s' does not exist",
                      fs->path);
        rc = KB_ENOTFOUND;
    } else {
        rc = kb_file_watch_open(options->files, watched, file_moved, fs, &fs->file_watch);
        if (rc != 0) {
            kb_diag_error(diag, "'%.*s' cannot be watched: %s", KB_STR_ARG(watched),
                          strerror(errno));
        }
    }
    free(directory);
    if (rc != 0) {
        fs_free(fs);
        return NULL;
    }
    return fs;
}

void kb_xds_fs_start(struct kb_xds_fs *fs)
{
    file_moved(fs);
}

void kb_xds_fs_destroy(struct kb_xds_fs *fs)
{
    if (fs == NULL) {
        return;
    }
    kb_file_watch_close(fs->file_watch);
    fs->file_watch = NULL;
    if (fs->reading) {
        fs->destroyed = true;
    } else {
        fs_free(fs);
    }
}
