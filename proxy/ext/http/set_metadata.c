/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.set_metadata: dynamic metadata that the configuration gives every request. */
#include "envoy/extensions/filters/http/set_metadata/v3/set_metadata.pb-c.h"

#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/stats.h"

struct entry {
    struct kb_str name;
    const Google__Protobuf__Struct *value;
    bool overwrites;
};

struct set_metadata_config {
    KB_OBJ;
    struct kb_stat_named *overwrite_denied;
    size_t count;
    struct entry entries[];
};
KB_OBJ_MAGIC(set_metadata_config, 0x534d4554);

struct set_metadata {
    const struct set_metadata_config *config;
    struct kb_stream *stream;
};

static void entry_add(struct set_metadata_config *config, struct kb_arena *arena, const char *name,
                      const Google__Protobuf__Struct *value, bool overwrites)
{
    struct entry *entry = &config->entries[config->count++];

    entry->name = kb_str_dup(arena, kb_str_from_cstr(name));
    entry->value = (const void *)kb_pb_copy(&value->base, arena);
    entry->overwrites = overwrites;
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__SetMetadata__V3__Config *m = message;
    struct kb_arena *arena = factory->arena;
    struct set_metadata_config *config =
        kb_arena_calloc(arena, sizeof(*config) + (m->n_metadata + 1) * sizeof(struct entry));

    KB_OBJ_SET(config, set_metadata_config);
    if (m->value != NULL && m->metadata_namespace[0] != '\0') {
        entry_add(config, arena, m->metadata_namespace, m->value, true);
    }
    for (size_t i = 0; i < m->n_metadata; i++) {
        kb_diag_push_index(diag, "metadata", i);
        if (m->metadata[i]->typed_value != NULL) {
            kb_diag_error(diag, "typed_value: typed metadata is not implemented; use value");
        } else if (m->metadata[i]->value != NULL) {
            entry_add(config, arena, m->metadata[i]->metadata_namespace, m->metadata[i]->value,
                      m->metadata[i]->allow_overwrite);
        }
        kb_diag_pop(diag);
    }
    config->overwrite_denied =
        kb_stat_named_create(factory->server->stats,
                             kb_str_printf(arena, "%.*sset_metadata.overwrite_denied",
                                           KB_STR_ARG(factory->http_stat_prefix)),
                             KB_STAT_COUNTER);
    *out = config;
    return 0;
}

static void config_destroy(void *arg)
{
    if (arg != NULL) {
        kb_stat_named_destroy(KB_CAST(arg, set_metadata_config)->overwrite_denied);
    }
}

static void *create(void *config, struct kb_stream *stream)
{
    struct set_metadata *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct set_metadata);

    filter->config = KB_CAST(config, set_metadata_config);
    filter->stream = stream;
    return filter;
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct set_metadata *filter = arg;
    const struct set_metadata_config *config = filter->config;
    struct kb_stream_info *info = kb_stream_stream_info(filter->stream);

    (void)headers;
    (void)end_stream;
    for (size_t i = 0; i < config->count; i++) {
        const struct entry *entry = &config->entries[i];

        if (!entry->overwrites &&
            kb_dynamic_metadata_get(info->dynamic_metadata, entry->name) != NULL) {
            kb_stat_named_add(config->overwrite_denied, kb_stream_worker(filter->stream)->index, 1);
            continue;
        }
        kb_dynamic_metadata_update(&info->dynamic_metadata, kb_stream_arena(filter->stream),
                                   entry->name, entry->value);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_set_metadata = {
    .name = "envoy.filters.http.set_metadata",
    .type_url = "envoy.extensions.filters.http.set_metadata.v3.Config",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
};
