/* SPDX-License-Identifier: Apache-2.0 */
/* Redirects and direct responses from their messages. */
#include "proxy/router/route_build.h"

#include <stdlib.h>

#include "base/file.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/core/v3/substitution_format_string.pb-c.h"
#include "envoy/type/matcher/v3/regex.pb-c.h"

#define SCHEME(name) ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_##name
#define PATH(name)   ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_##name
#define SOURCE(name) ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_##name
#define FORMAT(name) ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_##name

/* ---- redirects ---- */

static unsigned redirect_status(int code)
{
    static const unsigned statuses[] = {301, 302, 303, 307, 308};

    return code >= 0 && code < (int)KB_ARRAY_LEN(statuses) ? statuses[code] : 301;
}

static void redirect_path_build(struct kb_route_build *build,
                                const Envoy__Config__Route__V3__RedirectAction *message,
                                struct kb_route_redirect *redirect)
{
    switch ((int)message->path_rewrite_specifier_case) {
    case PATH(PATH_REDIRECT):
        redirect->path = kb_route_build_dup(build, message->path_redirect);
        break;
    case PATH(PREFIX_REWRITE):
        redirect->prefix_rewrite = kb_route_build_dup(build, message->prefix_rewrite);
        break;
    case PATH(PATH_REWRITE):
        kb_diag_push(build->match.diag, "path_rewrite");
        redirect->path_formatter = kb_formatter_create(
            build->match.arena, kb_str_from_cstr(message->path_rewrite), true, build->match.diag);
        build->failed |= redirect->path_formatter == NULL;
        kb_diag_pop(build->match.diag);
        break;
    case PATH(REGEX_REWRITE):
        kb_diag_push(build->match.diag, "regex_rewrite");
        redirect->substitution = kb_route_build_dup(build, message->regex_rewrite->substitution);
        redirect->regex = kb_route_build_regex(build, "pattern", message->regex_rewrite->pattern);
        kb_diag_pop(build->match.diag);
        break;
    default:
        break;
    }
}

void kb_route_build_redirect(struct kb_route_build *build,
                             const Envoy__Config__Route__V3__RedirectAction *message,
                             struct kb_route_entry *entry)
{
    struct kb_route_redirect *redirect = KB_ARENA_NEW(build->match.arena, struct kb_route_redirect);

    redirect->status = redirect_status((int)message->response_code);
    redirect->host = kb_route_build_dup(build, message->host_redirect);
    redirect->strip_query = message->strip_query;
    if (message->port_redirect != 0) {
        redirect->port = kb_str_printf(build->match.arena, ":%u", message->port_redirect);
    }
    if ((int)message->scheme_rewrite_specifier_case == SCHEME(SCHEME_REDIRECT)) {
        redirect->scheme = kb_route_build_dup(build, message->scheme_redirect);
    } else if ((int)message->scheme_rewrite_specifier_case == SCHEME(HTTPS_REDIRECT) &&
               message->https_redirect) {
        redirect->scheme = KB_STR("https");
    }
    redirect_path_build(build, message, redirect);
    entry->route.kind = KB_ROUTE_REDIRECT;
    entry->redirect = redirect;
}

/* ---- direct responses ---- */

static bool body_size_check(struct kb_route_build *build, size_t size)
{
    if (size > build->body_max) {
        kb_route_build_error(build, "response body size is %zu bytes; maximum is %llu", size,
                             (unsigned long long)build->body_max);
        return false;
    }
    return true;
}

static struct kb_str file_body(struct kb_route_build *build, const char *name)
{
    size_t max = build->body_max < SIZE_MAX ? (size_t)build->body_max : SIZE_MAX;
    struct kb_str body;

    switch (kb_file_read(name, max, build->match.arena, &body)) {
    case 0:
        return body;
    case KB_ENOTFOUND:
        kb_route_build_error(build, "file %s does not exist", name);
        break;
    case KB_ELIMIT:
        kb_route_build_error(build, "file %s size is %zu bytes; maximum is %zu", name, body.len,
                             max);
        break;
    default:
        kb_route_build_error(build, "unable to read file: %s", name);
        break;
    }
    return KB_STR("");
}

/* The text of a DataSource, at most as large as a body may be. */
static struct kb_str source_text(struct kb_route_build *build,
                                 const Envoy__Config__Core__V3__DataSource *source)
{
    const char *text;

    switch ((int)source->specifier_case) {
    case SOURCE(INLINE_STRING):
        return body_size_check(build, strlen(source->inline_string))
                   ? kb_route_build_dup(build, source->inline_string)
                   : KB_STR("");
    case SOURCE(INLINE_BYTES):
        if (!body_size_check(build, source->inline_bytes.len)) {
            return KB_STR("");
        }
        return kb_str_dup(build->match.arena, kb_str_make((const char *)source->inline_bytes.data,
                                                          source->inline_bytes.len));
    case SOURCE(FILENAME):
        return file_body(build, source->filename);
    case SOURCE(ENVIRONMENT_VARIABLE):
        text = getenv(source->environment_variable);
        if (text == NULL) {
            kb_route_build_error(build, "Environment variable doesn't exist: %s",
                                 source->environment_variable);
            return KB_STR("");
        }
        return body_size_check(build, strlen(text)) ? kb_route_build_dup(build, text) : KB_STR("");
    default:
        kb_route_build_error(build, "specifier: is required");
        return KB_STR("");
    }
}

static void format_build(struct kb_route_build *build,
                         const Envoy__Config__Core__V3__SubstitutionFormatString *message,
                         struct kb_direct_response *direct)
{
    struct kb_arena *arena = build->match.arena;
    struct kb_diag *diag = build->match.diag;

    direct->content_type = kb_route_build_dup(build, message->content_type);
    switch ((int)message->format_case) {
    case FORMAT(TEXT_FORMAT):
        direct->formatter = kb_formatter_create(arena, kb_str_from_cstr(message->text_format),
                                                message->omit_empty_values, diag);
        build->failed |= direct->formatter == NULL;
        break;
    case FORMAT(TEXT_FORMAT_SOURCE):
        direct->formatter =
            kb_formatter_create(arena, source_text(build, message->text_format_source),
                                message->omit_empty_values, diag);
        build->failed |= direct->formatter == NULL;
        break;
    case FORMAT(JSON_FORMAT):
        direct->json_formatter =
            kb_json_formatter_create(arena, message->json_format, message->omit_empty_values, diag);
        build->failed |= direct->json_formatter == NULL;
        if (direct->content_type.len == 0) {
            direct->content_type = KB_STR("application/json");
        }
        break;
    default:
        kb_route_build_error(build, "format: is required");
    }
}

void kb_route_build_direct(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__DirectResponseAction *message,
                           struct kb_route_entry *entry)
{
    struct kb_direct_response *direct = KB_ARENA_NEW(build->match.arena, struct kb_direct_response);

    direct->status = message->status;
    direct->body = KB_STR("");
    if (message->body != NULL) {
        kb_diag_push(build->match.diag, "body");
        direct->body = source_text(build, message->body);
        kb_diag_pop(build->match.diag);
    }
    if (message->body_format != NULL) {
        kb_diag_push(build->match.diag, "body_format");
        format_build(build, message->body_format, direct);
        kb_diag_pop(build->match.diag);
    }
    entry->route.kind = KB_ROUTE_DIRECT_RESPONSE;
    entry->direct = direct;
}
