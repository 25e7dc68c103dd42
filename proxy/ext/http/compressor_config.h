/* SPDX-License-Identifier: Apache-2.0 */
/* What compressors are told: built on the main thread, read by workers. */
#pragma once

#include "proxy/api/filter_state.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/runtime.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/compression.h"
#include "proxy/matcher/string_match.h"

/* The first ones of both directions, the others of answers alone. */
enum kb_compressor_counter {
    KB_COMPRESSOR_COMPRESSED,
    KB_COMPRESSOR_NOT_COMPRESSED,
    KB_COMPRESSOR_TOTAL_UNCOMPRESSED,
    KB_COMPRESSOR_TOTAL_COMPRESSED,
    KB_COMPRESSOR_TOO_SMALL,
    KB_COMPRESSOR_REQUEST_COUNTERS,
    KB_COMPRESSOR_NO_ACCEPT_HEADER = KB_COMPRESSOR_REQUEST_COUNTERS,
    KB_COMPRESSOR_HEADER_IDENTITY,
    KB_COMPRESSOR_HEADER_COMPRESSOR_USED,
    KB_COMPRESSOR_HEADER_COMPRESSOR_OVERSHADOWED,
    KB_COMPRESSOR_HEADER_WILDCARD,
    KB_COMPRESSOR_HEADER_NOT_VALID,
    KB_COMPRESSOR_NOT_COMPRESSED_ETAG,
    KB_COMPRESSOR_COUNTERS
};

struct kb_compressor_direction {
    struct kb_str runtime_key;
    bool enabled; /* unless the runtime says otherwise */
    uint32_t min_length;
    struct kb_str *types; /* count 0: all */
    size_t type_count;
    struct kb_string_matcher *matchers;
    size_t matcher_count;
    struct kb_stat_named *counters[KB_COMPRESSOR_COUNTERS];
};

struct kb_compressor_config {
    KB_OBJ;
    struct kb_regex_list regexes;
    struct kb_compression_library library;
    const struct kb_runtime *runtime;
    const struct kb_filter_state_key *key;
    struct kb_compressor_direction request, response;
    bool compresses_requests;
    bool disable_on_etag;
    bool weaken_etag;
    bool remove_accept_encoding;
    bool choose_first;
    bool tells_status;
    const uint32_t *uncompressible;
    size_t uncompressible_count;
};
KB_OBJ_MAGIC(kb_compressor_config, 0x434f4d50);

struct kb_compressor_route {
    KB_OBJ;
    bool disabled;
    bool enabled;
    int8_t remove_accept_encoding;                /* -1: not said */
    const struct kb_compression_library *library; /* in place of the filter's; NULL: that */
};
KB_OBJ_MAGIC(kb_compressor_route, 0x434f4d52);

/* Operations of the filter, see struct kb_http_filter_ops. */
int kb_compressor_config_create(const void *message, struct kb_factory_context *factory,
                                struct kb_diag *diag, void **out);
void kb_compressor_config_destroy(void *arg);
int kb_compressor_route_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out);
