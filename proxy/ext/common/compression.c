/* SPDX-License-Identifier: Apache-2.0 */
/* Compression libraries: their settings, with Envoy's defaults, and their streams. What a peer's
 * bytes stand for is bounded: a small answer must not become an endless one. */
#include "proxy/ext/common/compression.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/compression/brotli/compressor/v3/brotli.pb-c.h"
#include "envoy/extensions/compression/brotli/decompressor/v3/brotli.pb-c.h"
#include "envoy/extensions/compression/gzip/compressor/v3/gzip.pb-c.h"
#include "envoy/extensions/compression/gzip/decompressor/v3/gzip.pb-c.h"
#include "envoy/extensions/compression/zstd/compressor/v3/zstd.pb-c.h"
#include "envoy/extensions/compression/zstd/decompressor/v3/zstd.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"

#define OUT_ROOM       16384
#define GZIP_HEADER    16 /* windowBits: with a gzip header */
#define RATIO_DEFAULT  100
#define RATIO_FREE     (64 * 1024) /* so much is never too much */
#define WINDOW_LOG_MAX 23

/* What the libraries hold for a worker's streams. */
struct compression_memory {
    KB_OBJ;
    uint64_t bytes_in_use;
};
KB_OBJ_MAGIC(compression_memory, 0x434d454d);

struct kb_compression_stream {
    const struct kb_compression_library *library;
    struct compression_memory *memory;
    uint64_t bytes; /* of `memory`, for this stream */
    bool compress;
    bool done;    /* the end of the compressed data was seen */
    bool pending; /* the library has more to give without further input */
    bool failed;
    uint64_t in, out;
    z_stream zlib;
    BrotliEncoderState *brotli_out;
    BrotliDecoderState *brotli_in;
    ZSTD_CCtx *zstd_out;
    ZSTD_DCtx *zstd_in;
};

/* ---- settings ---- */

typedef Envoy__Extensions__Compression__Gzip__Compressor__V3__Gzip gzip_message;

static int gzip_level(int level)
{
    /* COMPRESSION_LEVEL_1 to _9 have their numbers; DEFAULT_COMPRESSION is 0. */
    return level >= 1 && level <= 9 ? level : Z_DEFAULT_COMPRESSION;
}

static void gzip_read(struct kb_compression_library *library, const gzip_message *m)
{
    static const int strategies[] = {Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE,
                                     Z_FIXED};
    unsigned strategy = (unsigned)m->compression_strategy;

    library->memory_level = (int)kb_wkt_u32(m->memory_level, 5);
    library->window_bits = (int)kb_wkt_u32(m->window_bits, 12);
    library->level = gzip_level((int)m->compression_level);
    library->strategy = strategy < KB_ARRAY_LEN(strategies) ? strategies[strategy] : 0;
}

static void brotli_read(struct kb_compression_library *library,
                        const Envoy__Extensions__Compression__Brotli__Compressor__V3__Brotli *m)
{
    static const BrotliEncoderMode modes[] = {BROTLI_MODE_GENERIC, BROTLI_MODE_GENERIC,
                                              BROTLI_MODE_TEXT, BROTLI_MODE_FONT};
    unsigned mode = (unsigned)m->encoder_mode;

    library->level = (int)kb_wkt_u32(m->quality, 3);
    library->window_bits = (int)kb_wkt_u32(m->window_bits, 18);
    library->block_bits = (int)kb_wkt_u32(m->input_block_bits, 24);
    library->mode = mode < KB_ARRAY_LEN(modes) ? (int)modes[mode] : BROTLI_MODE_GENERIC;
    library->no_literal_context = m->disable_literal_context_modeling;
}

static int zstd_read(struct kb_compression_library *library,
                     const Envoy__Extensions__Compression__Zstd__Compressor__V3__Zstd *m,
                     struct kb_diag *diag)
{
    if (m->dictionary != NULL) {
        kb_diag_error(diag, "dictionary: dictionaries are not implemented");
        return KB_ECONFIG;
    }
    library->level = (int)kb_wkt_u32(m->compression_level, 3);
    library->checksum = m->enable_checksum;
    library->strategy = (int)m->strategy; /* the same numbers */
    return 0;
}

static int compressor_read(struct kb_compression_library *library, const ProtobufCMessage *m,
                           struct kb_diag *diag)
{
    switch (library->kind) {
    case KB_COMPRESSION_GZIP:
        gzip_read(library, (const void *)m);
        return 0;
    case KB_COMPRESSION_BROTLI:
        brotli_read(library, (const void *)m);
        return 0;
    case KB_COMPRESSION_ZSTD:
        return zstd_read(library, (const void *)m, diag);
    }
    return KB_ECONFIG;
}

static int decompressor_read(struct kb_compression_library *library, const ProtobufCMessage *m,
                             struct kb_diag *diag)
{
    if (library->kind == KB_COMPRESSION_GZIP) {
        const Envoy__Extensions__Compression__Gzip__Decompressor__V3__Gzip *gzip = (const void *)m;

        library->window_bits = (int)kb_wkt_u32(gzip->window_bits, 15);
        library->max_ratio = kb_wkt_u32(gzip->max_inflate_ratio, RATIO_DEFAULT);
    } else if (library->kind == KB_COMPRESSION_ZSTD &&
               ((const Envoy__Extensions__Compression__Zstd__Decompressor__V3__Zstd *)(const void *)
                    m)
                       ->n_dictionaries > 0) {
        kb_diag_error(diag, "dictionaries: dictionaries are not implemented");
        return KB_ECONFIG;
    }
    return 0;
}

int kb_compression_library_read(struct kb_compression_library *library,
                                const struct Envoy__Config__Core__V3__TypedExtensionConfig *message,
                                bool compress, struct kb_arena *arena, struct kb_diag *diag)
{
    static const struct {
        const char *type;
        enum kb_compression kind;
        bool compress;
        const char *encoding, *stat;
    } kinds[] = {
#define TYPE(name, direction, message) \
    "envoy.extensions.compression." name "." direction ".v3." message
        {TYPE("gzip", "compressor", "Gzip"), KB_COMPRESSION_GZIP, true, "gzip", "gzip"},
        {TYPE("brotli", "compressor", "Brotli"), KB_COMPRESSION_BROTLI, true, "br", "brotli"},
        {TYPE("zstd", "compressor", "Zstd"), KB_COMPRESSION_ZSTD, true, "zstd", "zstd"},
        {TYPE("gzip", "decompressor", "Gzip"), KB_COMPRESSION_GZIP, false, "gzip", "gzip"},
        {TYPE("brotli", "decompressor", "Brotli"), KB_COMPRESSION_BROTLI, false, "br", "brotli"},
        {TYPE("zstd", "decompressor", "Zstd"), KB_COMPRESSION_ZSTD, false, "zstd", "zstd"},
#undef TYPE
    };
    struct kb_str type = kb_any_inner_name(message->typed_config, arena);
    const ProtobufCMessage *m;

    memset(library, 0, sizeof(*library));
    for (size_t i = 0; i < KB_ARRAY_LEN(kinds); i++) {
        if (kinds[i].compress != compress || !kb_str_eq(type, kb_str_from_cstr(kinds[i].type))) {
            continue;
        }
        library->kind = kinds[i].kind;
        library->encoding = kb_str_from_cstr(kinds[i].encoding);
        library->stat = kb_str_from_cstr(kinds[i].stat);
        library->name = kb_str_dup(arena, kb_str_from_cstr(message->name));
        m = kb_any_unpack(message->typed_config, NULL, arena, diag);
        if (m == NULL) {
            return KB_ECONFIG;
        }
        return compress ? compressor_read(library, m, diag) : decompressor_read(library, m, diag);
    }
    kb_diag_error(diag, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                  message->name, KB_STR_ARG(type));
    return KB_ECONFIG;
}

/* ---- memory: blocks begin with their size, as the libraries do not say it when they free ---- */

#define BLOCK_HEAD 16 /* keeps what follows aligned for any type */

static void memory_dispose(struct kb_worker *worker)
{
    struct compression_memory *memory =
        KB_CAST(worker->slots[KB_SLOT_COMPRESSION], compression_memory);

    KB_ASSERT(memory->bytes_in_use == 0);
    worker->slot_bytes[KB_SLOT_COMPRESSION] = NULL;
    worker->slots[KB_SLOT_COMPRESSION] = NULL;
    KB_OBJ_CLEAR(memory);
    free(memory);
}

/* From any thread. */
static uint64_t memory_bytes(const struct kb_worker *worker)
{
    const struct compression_memory *memory = worker->slots[KB_SLOT_COMPRESSION];

    return __atomic_load_n(&memory->bytes_in_use, __ATOMIC_RELAXED);
}

static struct compression_memory *memory_of(struct kb_worker *worker)
{
    struct compression_memory *memory = worker->slots[KB_SLOT_COMPRESSION];

    if (memory == NULL) {
        memory = kb_calloc(1, sizeof(*memory));
        KB_OBJ_SET(memory, compression_memory);
        worker->slots[KB_SLOT_COMPRESSION] = memory;
        worker->slot_dispose[KB_SLOT_COMPRESSION] = memory_dispose;
        __atomic_store_n(&worker->slot_bytes[KB_SLOT_COMPRESSION], memory_bytes, __ATOMIC_RELEASE);
    }
    return memory;
}

static void bytes_set(struct kb_compression_stream *stream, uint64_t bytes)
{
    stream->memory->bytes_in_use += bytes - stream->bytes;
    stream->bytes = bytes;
}

static void *block_alloc(void *stream, size_t size)
{
    struct kb_compression_stream *owner = stream;
    char *block = kb_malloc(size + BLOCK_HEAD);

    memcpy(block, &size, sizeof(size));
    bytes_set(owner, owner->bytes + size);
    return block + BLOCK_HEAD;
}

static void block_free(void *stream, void *memory)
{
    struct kb_compression_stream *owner = stream;
    char *block = memory;
    size_t size;

    if (block == NULL) {
        return;
    }
    block -= BLOCK_HEAD;
    memcpy(&size, block, sizeof(size));
    bytes_set(owner, owner->bytes - size);
    free(block);
}

static void *zlib_alloc(void *stream, uInt count, uInt size)
{
    return block_alloc(stream, (size_t)count * size);
}

/* Zstandard tells how much it holds. */
static void zstd_bytes_refresh(struct kb_compression_stream *stream)
{
    if (stream->zstd_out != NULL) {
        bytes_set(stream, ZSTD_sizeof_CCtx(stream->zstd_out));
    } else if (stream->zstd_in != NULL) {
        bytes_set(stream, ZSTD_sizeof_DCtx(stream->zstd_in));
    }
}

uint64_t kb_compression_stream_bytes(const struct kb_compression_stream *stream)
{
    return stream->bytes;
}

/* ---- streams ---- */

static void compress_init(struct kb_compression_stream *stream)
{
    const struct kb_compression_library *library = stream->library;

    switch (library->kind) {
    case KB_COMPRESSION_GZIP:
        KB_ASSERT(deflateInit2(&stream->zlib, library->level, Z_DEFLATED,
                               library->window_bits | GZIP_HEADER, library->memory_level,
                               library->strategy) == Z_OK);
        break;
    case KB_COMPRESSION_BROTLI:
        stream->brotli_out = BrotliEncoderCreateInstance(block_alloc, block_free, stream);
        KB_ASSERT(stream->brotli_out != NULL);
        BrotliEncoderSetParameter(stream->brotli_out, BROTLI_PARAM_QUALITY,
                                  (uint32_t)library->level);
        BrotliEncoderSetParameter(stream->brotli_out, BROTLI_PARAM_LGWIN,
                                  (uint32_t)library->window_bits);
        BrotliEncoderSetParameter(stream->brotli_out, BROTLI_PARAM_LGBLOCK,
                                  (uint32_t)library->block_bits);
        BrotliEncoderSetParameter(stream->brotli_out, BROTLI_PARAM_MODE, (uint32_t)library->mode);
        BrotliEncoderSetParameter(stream->brotli_out, BROTLI_PARAM_DISABLE_LITERAL_CONTEXT_MODELING,
                                  library->no_literal_context);
        break;
    case KB_COMPRESSION_ZSTD:
        stream->zstd_out = ZSTD_createCCtx();
        KB_ASSERT(stream->zstd_out != NULL);
        ZSTD_CCtx_setParameter(stream->zstd_out, ZSTD_c_compressionLevel, library->level);
        ZSTD_CCtx_setParameter(stream->zstd_out, ZSTD_c_checksumFlag, library->checksum);
        ZSTD_CCtx_setParameter(stream->zstd_out, ZSTD_c_strategy, library->strategy);
        /* Begins without a size: the first part is seldom the whole. */
        KB_ASSERT(
            !ZSTD_isError(ZSTD_compressStream2(stream->zstd_out, &(ZSTD_outBuffer){NULL, 0, 0},
                                               &(ZSTD_inBuffer){NULL, 0, 0}, ZSTD_e_continue)));
        break;
    }
}

static void decompress_init(struct kb_compression_stream *stream)
{
    switch (stream->library->kind) {
    case KB_COMPRESSION_GZIP:
        KB_ASSERT(inflateInit2(&stream->zlib, stream->library->window_bits | GZIP_HEADER) == Z_OK);
        break;
    case KB_COMPRESSION_BROTLI:
        stream->brotli_in = BrotliDecoderCreateInstance(block_alloc, block_free, stream);
        KB_ASSERT(stream->brotli_in != NULL);
        break;
    case KB_COMPRESSION_ZSTD:
        stream->zstd_in = ZSTD_createDCtx();
        KB_ASSERT(stream->zstd_in != NULL);
        ZSTD_DCtx_setParameter(stream->zstd_in, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
        break;
    }
}

struct kb_compression_stream *
kb_compression_stream_create(const struct kb_compression_library *library, bool compress,
                             struct kb_worker *worker)
{
    struct kb_compression_stream *stream = kb_calloc(1, sizeof(*stream));

    stream->library = library;
    stream->memory = memory_of(worker);
    stream->compress = compress;
    stream->zlib.opaque = stream;
    stream->zlib.zalloc = zlib_alloc;
    stream->zlib.zfree = block_free;
    if (compress) {
        compress_init(stream);
    } else {
        decompress_init(stream);
    }
    zstd_bytes_refresh(stream);
    return stream;
}

void kb_compression_stream_destroy(struct kb_compression_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    if (stream->library->kind == KB_COMPRESSION_GZIP) {
        if (stream->compress) {
            deflateEnd(&stream->zlib);
        } else {
            inflateEnd(&stream->zlib);
        }
    }
    if (stream->brotli_out != NULL) {
        BrotliEncoderDestroyInstance(stream->brotli_out);
    }
    if (stream->brotli_in != NULL) {
        BrotliDecoderDestroyInstance(stream->brotli_in);
    }
    ZSTD_freeCCtx(stream->zstd_out);
    ZSTD_freeDCtx(stream->zstd_in);
    bytes_set(stream, 0);
    free(stream);
}

enum step { MORE, ENOUGH, FAILED };

/* One call of the library: takes of `in`, gives to `room` bytes at `out`. ENOUGH: it has no more to
 * give for this input. */
static enum step gzip_step(struct kb_compression_stream *stream, struct kb_str *in, char *out,
                           size_t *room, bool flush, bool end)
{
    z_stream *zlib = &stream->zlib;
    size_t before = *room;
    int mode = end ? Z_FINISH : flush ? Z_SYNC_FLUSH : Z_NO_FLUSH;
    int rc;

    zlib->next_in = (Bytef *)(uintptr_t)in->p;
    zlib->avail_in = (uInt)in->len;
    zlib->next_out = (Bytef *)out;
    zlib->avail_out = (uInt)*room;
    rc = stream->compress ? deflate(zlib, mode) : inflate(zlib, Z_NO_FLUSH);
    *in = kb_str_from(*in, in->len - zlib->avail_in);
    *room = before - zlib->avail_out;
    if (rc == Z_STREAM_END) {
        stream->done = true;
        return ENOUGH;
    }
    if (rc != Z_OK && rc != Z_BUF_ERROR) {
        return FAILED;
    }
    return zlib->avail_out == 0 ? MORE : ENOUGH;
}

static enum step brotli_step(struct kb_compression_stream *stream, struct kb_str *in, char *out,
                             size_t *room, bool flush, bool end)
{
    const uint8_t *next_in = (const uint8_t *)in->p;
    uint8_t *next_out = (uint8_t *)out;
    size_t left_in = in->len, left_out = *room;
    BrotliEncoderOperation operation = end     ? BROTLI_OPERATION_FINISH
                                       : flush ? BROTLI_OPERATION_FLUSH
                                               : BROTLI_OPERATION_PROCESS;
    BrotliDecoderResult result;
    bool more;

    if (stream->compress) {
        if (!BrotliEncoderCompressStream(stream->brotli_out, operation, &left_in, &next_in,
                                         &left_out, &next_out, NULL)) {
            return FAILED;
        }
        more = left_in > 0 || BrotliEncoderHasMoreOutput(stream->brotli_out);
        stream->done = end && BrotliEncoderIsFinished(stream->brotli_out);
    } else {
        result = BrotliDecoderDecompressStream(stream->brotli_in, &left_in, &next_in, &left_out,
                                               &next_out, NULL);
        if (result == BROTLI_DECODER_RESULT_ERROR) {
            return FAILED;
        }
        stream->done = result == BROTLI_DECODER_RESULT_SUCCESS;
        more = result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT;
    }
    *in = kb_str_from(*in, in->len - left_in);
    *room -= left_out;
    return more ? MORE : ENOUGH;
}

static enum step zstd_step(struct kb_compression_stream *stream, struct kb_str *in, char *out,
                           size_t *room, bool flush, bool end)
{
    ZSTD_inBuffer input = {in->p, in->len, 0};
    ZSTD_outBuffer output = {out, *room, 0};
    size_t rc = stream->compress ? ZSTD_compressStream2(stream->zstd_out, &output, &input,
                                                        end     ? ZSTD_e_end
                                                        : flush ? ZSTD_e_flush
                                                                : ZSTD_e_continue)
                                 : ZSTD_decompressStream(stream->zstd_in, &output, &input);

    if (ZSTD_isError(rc)) {
        return FAILED;
    }
    *in = kb_str_from(*in, input.pos);
    *room = output.pos;
    if (stream->compress) {
        stream->done = end && rc == 0;
        return rc > 0 && (flush || end) ? MORE : ENOUGH;
    }
    stream->done = rc == 0;
    return output.pos == output.size ? MORE : ENOUGH;
}

static enum step step_run(struct kb_compression_stream *stream, struct kb_str *in, char *out,
                          size_t *room, bool flush, bool end)
{
    enum step step = FAILED;

    switch (stream->library->kind) {
    case KB_COMPRESSION_GZIP:
        step = gzip_step(stream, in, out, room, flush, end);
        break;
    case KB_COMPRESSION_BROTLI:
        step = brotli_step(stream, in, out, room, flush, end);
        break;
    case KB_COMPRESSION_ZSTD:
        step = zstd_step(stream, in, out, room, flush, end);
        zstd_bytes_refresh(stream);
        break;
    }
    return step;
}

/* Runs one piece of input through, to `out`. */
static int piece_pack(struct kb_compression_stream *stream, struct kb_str piece, struct kb_buf *out,
                      bool flush, bool end)
{
    enum step step = MORE;
    char bytes[OUT_ROOM];

    while (step == MORE || (step == ENOUGH && piece.len > 0 && !stream->done)) {
        size_t room = sizeof(bytes);
        size_t before = piece.len;

        step = step_run(stream, &piece, bytes, &room, flush, end);
        if (step == FAILED) {
            return KB_EINVALID;
        }
        kb_buf_append(out, bytes, room); /* pieces of a few bytes must not hold a slice each */
        if (room == 0 && piece.len == before) {
            break; /* it wants what is not there yet */
        }
    }
    return 0;
}

int kb_compression_stream_pack(struct kb_compression_stream *stream, struct kb_buf *data, bool end)
{
    struct kb_buf out;
    int rc = 0;

    kb_buf_init(&out, data->source, 0);
    while (rc == 0 && data->len > 0) {
        struct kb_str piece = kb_buf_first(data);
        bool last = piece.len == data->len;

        rc = stream->failed ? KB_EINVALID : piece_pack(stream, piece, &out, last, last && end);
        kb_buf_consume(data, rc == 0 ? piece.len : data->len);
    }
    stream->failed |= rc != 0;
    if (rc == 0 && end && !stream->done) {
        rc = piece_pack(stream, KB_STR(""), &out, true, true);
    }
    kb_buf_move(data, &out);
    kb_buf_dispose(&out);
    return rc;
}

static bool too_much(const struct kb_compression_stream *stream, const struct kb_buf *in)
{
    uint32_t ratio = stream->library->max_ratio > 0 ? stream->library->max_ratio : RATIO_DEFAULT;

    return stream->out > RATIO_FREE && stream->out / ratio > stream->in + in->len;
}

/* One call of the library. False: nothing more comes of it. */
static bool unpack_some(struct kb_compression_stream *stream, struct kb_buf *in, struct kb_buf *out)
{
    struct kb_str piece = in->len > 0 ? kb_buf_first(in) : KB_STR("");
    size_t before = piece.len;
    char bytes[OUT_ROOM];
    size_t room = sizeof(bytes);
    enum step step = step_run(stream, &piece, bytes, &room, false, false);

    if (step == FAILED) {
        return false;
    }
    kb_buf_append(out, bytes, room);
    kb_buf_consume(in, before - piece.len);
    stream->in += before - piece.len;
    stream->out += room;
    stream->pending = step == MORE && !stream->done;
    /* A library that takes nothing and gives nothing would be asked for ever. */
    return !too_much(stream, in) && (room > 0 || piece.len < before || before == 0);
}

int kb_compression_stream_unpack(struct kb_compression_stream *stream, struct kb_buf *in,
                                 struct kb_buf *out, size_t most)
{
    size_t full = out->len + most;

    if (stream->failed && in->len > 0) {
        kb_buf_consume(in, in->len);
        return KB_EINVALID;
    }
    while (!stream->done && (in->len > 0 || stream->pending)) {
        if (out->len >= full) {
            return KB_EAGAIN;
        }
        if (!unpack_some(stream, in, out)) {
            stream->failed = true;
            stream->pending = false;
            kb_buf_consume(in, in->len);
            return KB_EINVALID;
        }
    }
    if (stream->done && in->len > 0) {
        kb_buf_consume(in, in->len); /* what follows the end belongs to nobody */
    }
    return 0;
}
