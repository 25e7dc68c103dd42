/* SPDX-License-Identifier: Apache-2.0 */
/* local_reply_config: mappers and body formats of local replies (Envoy LocalReply::LocalReplyImpl).
 */
#include "proxy/api/local_reply.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/wkt.h"
#include "proxy/access_log/access_log_filter.h"
#include "proxy/access_log/log_format.h"
#include "proxy/http/header_mutation.h"

#define BODY_FILE_MAX (1024 * 1024)

typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__ResponseMapper
    mapper_message;
typedef Envoy__Config__Core__V3__SubstitutionFormatString format_message;

struct body_format {
    struct kb_log_format format;
    struct kb_str content_type;
    bool set;
};

struct mapper {
    const struct kb_log_filter *filter;
    const struct kb_header_mutations *headers;
    struct body_format format;
    struct kb_str body;
    bool has_body;
    unsigned status; /* 0: as it is */
};

struct kb_local_reply_config {
    struct kb_regex_list regexes;
    struct mapper *mappers;
    size_t mapper_count;
    struct body_format format;
};

/* ---- configuration ---- */

static void format_create(struct body_format *format, const format_message *m,
                          struct kb_arena *arena, struct kb_diag *diag)
{
    if (m == NULL) {
        return;
    }
    format->set = kb_log_format_init(&format->format, m, arena, diag);
    if (m->content_type[0] != '\0') {
        format->content_type = kb_str_dup(arena, kb_wkt_str(m->content_type));
    } else {
        format->content_type =
            format->format.json != NULL ? KB_STR("application/json") : KB_STR("text/plain");
    }
}

static struct kb_str file_read(const char *path, struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str text;
    int rc = kb_file_read(path, BODY_FILE_MAX, arena, &text);

    if (rc == 0) {
        return text;
    }
    kb_diag_error(diag, "unable to read file: %s: %s", path,
                  rc == KB_ELIMIT ? "larger than 1 MiB" : kb_file_error_text(rc));
    return KB_STR_NULL;
}

static struct kb_str body_create(const Envoy__Config__Core__V3__DataSource *m,
                                 struct kb_arena *arena, struct kb_diag *diag)
{
    switch ((int)m->specifier_case) {
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        return kb_str_dup(arena, kb_wkt_str(m->inline_string));
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        return kb_str_dup(arena,
                          kb_str_make((const char *)m->inline_bytes.data, m->inline_bytes.len));
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME:
        return file_read(m->filename, arena, diag);
    default:
        kb_diag_error(diag, "only inline_string, inline_bytes and filename are supported");
        return KB_STR_NULL;
    }
}

static void mapper_create(struct mapper *mapper, const mapper_message *m,
                          struct kb_factory_context *factory, const struct kb_match_build *build)
{
    struct kb_diag *diag = build->diag;
    bool failed = false;

    kb_diag_push(diag, "filter");
    mapper->filter = kb_log_filter_create(m->filter, factory, build);
    kb_diag_pop(diag);
    mapper->status = kb_wkt_u32(m->status_code, 0);
    if (m->body != NULL) {
        kb_diag_push(diag, "body");
        mapper->body = body_create(m->body, factory->arena, diag);
        mapper->has_body = true;
        kb_diag_pop(diag);
    }
    kb_diag_push(diag, "body_format_override");
    format_create(&mapper->format, m->body_format_override, factory->arena, diag);
    kb_diag_pop(diag);
    mapper->headers = kb_header_mutations_create(m->headers_to_add, m->n_headers_to_add, NULL, 0,
                                                 "response", build, &failed);
}

struct kb_local_reply_config *kb_local_reply_config_create(
    const struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig
        *m,
    struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_local_reply_config *config =
        KB_ARENA_NEW(factory->arena, struct kb_local_reply_config);
    struct kb_match_build build = {
        .arena = factory->arena, .regexes = &config->regexes, .diag = diag};
    uint32_t errors = diag->error_count;

    config->mappers =
        kb_arena_calloc(factory->arena, (m->n_mappers + 1) * sizeof(*config->mappers));
    config->mapper_count = m->n_mappers;
    for (size_t i = 0; i < m->n_mappers; i++) {
        kb_diag_push_index(diag, "mappers", i);
        mapper_create(&config->mappers[i], m->mappers[i], factory, &build);
        kb_diag_pop(diag);
    }
    kb_diag_push(diag, "body_format");
    format_create(&config->format, m->body_format, factory->arena, diag);
    kb_diag_pop(diag);
    if (diag->error_count != errors) {
        kb_local_reply_config_dispose(config);
        return NULL;
    }
    return config;
}

void kb_local_reply_config_dispose(struct kb_local_reply_config *config)
{
    kb_regex_list_dispose(&config->regexes);
}

/* ---- rewriting ---- */

static struct kb_str format_text(const struct body_format *format,
                                 const struct kb_formatter_input *input,
                                 const struct kb_stream_info *info, struct kb_arena *arena)
{
    if (format->format.json != NULL) {
        return kb_json_formatter_text(format->format.json, input, info, arena);
    }
    return kb_formatter_text(format->format.text, input, info, arena);
}

void kb_local_reply_rewrite(const struct kb_local_reply_config *config,
                            struct kb_header_map *headers, struct kb_formatter_input *input,
                            struct kb_stream_info *info, unsigned *status, struct kb_str *body,
                            struct kb_str *content_type)
{
    const struct body_format *format = config->format.set ? &config->format : NULL;

    for (size_t i = 0; i < config->mapper_count; i++) {
        const struct mapper *mapper = &config->mappers[i];

        if (!kb_log_filter_evaluate(mapper->filter, input, info)) {
            continue;
        }
        if (mapper->has_body) {
            *body = mapper->body;
        }
        kb_header_mutations_apply(mapper->headers, headers, input, info);
        if (mapper->status != 0) {
            *status = mapper->status;
            headers->status = (uint16_t)mapper->status;
            info->response_code = (uint16_t)mapper->status;
        }
        if (mapper->format.set) {
            format = &mapper->format;
        }
        break;
    }
    if (format == NULL) {
        return;
    }
    input->local_reply_body = *body;
    *body = format_text(format, input, info, headers->arena);
    *content_type = format->content_type;
}
