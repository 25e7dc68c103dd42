/* SPDX-License-Identifier: Apache-2.0 */
/* Resources from a file that is replaced when they change (path_config_source): one
 * DiscoveryResponse as JSON, YAML or bytes, by the file's extension. Main thread.
 * https://www.envoyproxy.io/docs/envoy/v1.40/api-docs/xds_protocol#filesystem-subscriptions */
#pragma once

#include "base/file_watch.h"
#include "xds/xds_watch.h"

struct kb_xds_fs;

/* A larger file is not read. */
#define KB_XDS_FILE_MAX ((size_t)256 << 20)

struct kb_xds_fs_options {
    struct kb_file_watcher *files;
    enum kb_xds_type type;
    struct kb_str name; /* one resource; empty: all */
    struct kb_str path;
    struct kb_str watched_directory; /* empty: the path itself */
    bool unknown_fields_refused;
    /* KB_XDS_FAILURE_UNREADABLE: the file cannot be read, or is no response; REJECTED: its
     * resources are wrong. Both were logged. */
    struct kb_xds_push_log *pushes; /* where what is read is noted; NULL: nowhere */
    const struct kb_xds_watch_callbacks *callbacks;
    void *arg;
};

/* Texts are copied. NULL after an error in diag: the file or its directory does not exist. */
struct kb_xds_fs *kb_xds_fs_create(const struct kb_xds_fs_options *options, struct kb_diag *diag);
/* Reads now, with callbacks from within, and after every change. */
void kb_xds_fs_start(struct kb_xds_fs *fs);
/* No callback comes any more; from a callback too. NULL is allowed. */
void kb_xds_fs_destroy(struct kb_xds_fs *fs);
