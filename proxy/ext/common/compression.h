/* SPDX-License-Identifier: Apache-2.0 */
/* Compression libraries: gzip (zlib), Brotli and Zstandard, behind one face. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/diag.h"

struct Envoy__Config__Core__V3__TypedExtensionConfig;

enum kb_compression { KB_COMPRESSION_GZIP, KB_COMPRESSION_BROTLI, KB_COMPRESSION_ZSTD };

/* How a library is set up; from a compressor_library or decompressor_library. */
struct kb_compression_library {
    enum kb_compression kind;
    struct kb_str name;     /* the extension's name in the configuration */
    struct kb_str encoding; /* "gzip", "br", "zstd" */
    struct kb_str stat;     /* "gzip", "brotli", "zstd" */
    int level;
    int window_bits;
    int memory_level;
    int strategy;
    int mode;
    int block_bits;
    bool checksum;
    bool no_literal_context;
    uint32_t max_ratio; /* of gzip's decompression */
};

/* KB_ECONFIG after an error was reported. `compress`: which of the two kinds of library. */
int kb_compression_library_read(struct kb_compression_library *library,
                                const struct Envoy__Config__Core__V3__TypedExtensionConfig *message,
                                bool compress, struct kb_arena *arena,
                                struct kb_diag *diag) KB_MUST_USE;

struct kb_compression_stream;

/* Heap: give it back with kb_compression_stream_destroy. Never NULL. */
struct kb_compression_stream *
kb_compression_stream_create(const struct kb_compression_library *library, bool compress);
/* NULL is allowed. */
void kb_compression_stream_destroy(struct kb_compression_stream *stream);
/* Replaces what is in `data` by what becomes of it; all that went in can be read at the other side.
 * `end`: nothing follows. KB_EINVALID: it is not compressed data, or stands for too much more than
 * it is; what could be read is in `data`. */
int kb_compression_stream_run(struct kb_compression_stream *stream, struct kb_buf *data,
                              bool end) KB_MUST_USE;
