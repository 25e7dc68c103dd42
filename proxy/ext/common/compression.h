/* SPDX-License-Identifier: Apache-2.0 */
/* Compression libraries: gzip (zlib), Brotli and Zstandard, behind one face. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/diag.h"
#include "base/worker.h"

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

/* Heap: give it back with kb_compression_stream_destroy. Never NULL. `library` stays until then;
 * what the stream holds is counted as the worker's. */
struct kb_compression_stream *
kb_compression_stream_create(const struct kb_compression_library *library, bool compress,
                             struct kb_worker *worker);
/* NULL is allowed. */
void kb_compression_stream_destroy(struct kb_compression_stream *stream);
/* Bytes that it holds, windows and tables. */
uint64_t kb_compression_stream_bytes(const struct kb_compression_stream *stream);
/* Of a stream that compresses: replaces what is in `data` by what becomes of it; all that went in
 * can be read at the other side. `end`: nothing follows. */
int kb_compression_stream_pack(struct kb_compression_stream *stream, struct kb_buf *data,
                               bool end) KB_MUST_USE;
/* Of one that decompresses: takes of `in` and appends to `out`, until `in` is empty or so many
 * bytes (and at most 16 KiB more) came out. 0: all was taken and given; KB_EAGAIN: call again, with
 * or without further input; KB_EINVALID: it is not compressed data, or stands for too much more
 * than it is: what could be read is in `out`, `in` is empty. */
int kb_compression_stream_unpack(struct kb_compression_stream *stream, struct kb_buf *in,
                                 struct kb_buf *out, size_t most) KB_MUST_USE;
