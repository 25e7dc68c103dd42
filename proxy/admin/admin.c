/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the page for a request and gives responses their headers. */
#include "proxy/admin/admin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/admin/admin_internal.h"

struct kb_admin *kb_admin_create(const struct kb_admin_sources *sources,
                                 struct kb_stat_store *stats)
{
    struct kb_admin *admin = kb_calloc(1, sizeof(*admin));

    KB_ASSERT(stats != NULL);
    KB_OBJ_SET(admin, kb_admin);
    admin->sources = *sources;
    admin->stats = stats;
    return admin;
}

void kb_admin_destroy(struct kb_admin *admin)
{
    if (admin != NULL) {
        KB_OBJ_CLEAR(admin);
        free(admin);
    }
}

void kb_admin_set_content_type(struct kb_admin_response *response, const char *content_type)
{
    for (size_t i = 0; i < response->header_count; i++) {
        if (strcmp(response->headers[i].name, "content-type") == 0) {
            response->headers[i].value = content_type;
            return;
        }
    }
}

void kb_admin_header_add(struct kb_admin_response *response, const char *name, const char *value)
{
    KB_ASSERT(response->header_count < KB_ADMIN_HEADERS_MAX);
    response->headers[response->header_count++] = (struct kb_admin_header){name, value};
}

void kb_admin_add(struct kb_admin_response *response, struct kb_str text)
{
    kb_json_out_add(&response->body, text);
}

void kb_admin_printf(struct kb_admin_response *response, const char *fmt, ...)
{
    char text[1000];
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    kb_admin_add(response, kb_str_make(text, KB_MIN((size_t)KB_MAX(len, 0), sizeof(text) - 1)));
}

void kb_admin_answer(struct kb_admin_response *response, unsigned status, struct kb_str text)
{
    response->status = status;
    response->body.len = 0;
    kb_admin_add(response, text);
}

void kb_admin_answer_message(struct kb_admin_response *response, const ProtobufCMessage *message,
                             unsigned flags)
{
    kb_admin_set_content_type(response, KB_ADMIN_JSON);
    kb_pb_json_write(&response->body, message, KB_PB_JSON_PRETTY | flags, 0);
    kb_admin_add(response, KB_STR("\n"));
}

char *kb_admin_text(struct kb_str text, struct kb_arena *arena)
{
    return (char *)(uintptr_t)kb_str_dup(arena, text).p;
}

void kb_admin_help_add(struct kb_admin_response *response)
{
    kb_admin_add(response, KB_STR("admin commands are:\n"));
    for (size_t i = 0; i < kb_admin_page_count; i++) {
        const struct kb_admin_page *page = &kb_admin_pages[i];

        kb_admin_printf(response, "  %s%s: ", page->path, page->mutates ? " (POST)" : "");
        kb_admin_add(response, kb_str_from_cstr(page->help));
        kb_admin_add(response, KB_STR("\n"));
        kb_admin_add(response, kb_str_from_cstr(page->parameters_help));
    }
}

KB_ADMIN_HANDLER(help)
{
    (void)request;
    kb_admin_help_add(response);
}

static void dispatch(struct kb_admin_request *request, struct kb_admin_response *response)
{
    for (size_t i = 0; i < kb_admin_page_count; i++) {
        const struct kb_admin_page *page = &kb_admin_pages[i];

        if (!kb_str_eq(kb_str_from_cstr(page->path), request->path)) {
            continue;
        }
        if (page->mutates && !kb_str_eq(request->method, KB_STR("POST"))) {
            KB_LOG(ADMIN, ERROR, "admin path \"%s\" mutates state, method=%.*s rather than POST",
                   page->path, KB_STR_ARG(kb_str_first(request->method, 64)));
            response->status = 405;
            kb_admin_printf(response, "Method %.*s not allowed, POST required.",
                            KB_STR_ARG(request->method));
            return;
        }
        page->handler(request, response);
        return;
    }
    response->status = 404;
    kb_admin_add(response, KB_STR("invalid path. "));
    kb_admin_help_add(response);
}

static void response_init(struct kb_admin_response *response)
{
    static const struct kb_admin_header defaults[] = {
        {"content-type", "text/plain; charset=UTF-8"},
        {"cache-control", "no-cache, max-age=0"},
        {"x-content-type-options", "nosniff"},
    };

    *response = (struct kb_admin_response){.status = 200};
    kb_json_out_init(&response->body, 0);
    memcpy(response->headers, defaults, sizeof(defaults));
    response->header_count = KB_ARRAY_LEN(defaults);
}

void kb_admin_handle(struct kb_admin *admin, struct kb_str method, struct kb_str path_and_query,
                     struct kb_str form, struct kb_admin_response *response)
{
    ptrdiff_t mark = kb_str_find_char(path_and_query, '?');
    struct kb_arena arena;
    struct kb_admin_request request = {.admin = KB_CAST(admin, kb_admin),
                                       .method = method,
                                       .path = path_and_query,
                                       .arena = &arena};
    struct kb_str query = KB_STR_NULL;

    kb_arena_init(&arena, NULL);
    response_init(response);
    if (mark >= 0) {
        request.path = kb_str_first(path_and_query, (size_t)mark);
        query = kb_str_from(path_and_query, (size_t)mark + 1);
    }
    kb_admin_query_parse(&request.query, query, &arena);
    request.parameters = request.query;
    if (request.query.count == 0) {
        kb_admin_query_parse(&request.parameters, form, &arena);
    }
    dispatch(&request, response);
    kb_arena_dispose(&arena);
}

bool kb_admin_response_next(struct kb_admin_response *response, struct kb_json_out *out)
{
    bool more = response->next != NULL;

    if (response->body.len > 0) {
        kb_json_out_add(out, kb_str_make(response->body.p, response->body.len));
        kb_json_out_dispose(&response->body);
        if (more) {
            return true;
        }
    }
    if (more && !response->next(response->arg, out, KB_ADMIN_PIECE_BYTES)) {
        response->next = NULL;
        more = false;
    }
    return more;
}

void kb_admin_response_dispose(struct kb_admin_response *response)
{
    if (response->end != NULL) {
        response->end(response->arg);
    }
    kb_json_out_dispose(&response->body);
    *response = (struct kb_admin_response){.status = 0};
}
