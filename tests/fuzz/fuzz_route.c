/* SPDX-License-Identifier: Apache-2.0 */
/* Any request at a route table with every kind of matcher and rewrite, and any answer for its
 * retries. The first byte chooses options of the connection manager; lines follow: method, path,
 * authority, then "name: value" of the request, and behind an empty line of the answer. Promises: a
 * normalised path is its own normal form, and what the upstream would get fits into its line. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#include "base/diag.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/api/extension.h"
#include "proxy/api/route.h"
#include "proxy/api/runtime.h"
#include "proxy/http/path.h"
#include "proxy/http/url.h"
#include "proxy/router/retry_state.h"

#define M "match: {"
static const char table[] =
    "name: t\n"
    "request_headers_to_add:\n"
    "- {header: {key: x-a, value: '%REQ(X-A)%%QUERY_PARAM(q)%%PATH(NQ)%'}}\n"
    "internal_only_headers: [x-internal]\n"
    "virtual_hosts:\n"
    "- {name: s, domains: [a.test, '*.b.test', 'c.*'], require_tls: EXTERNAL_ONLY, routes: [\n"
    "   {" M
    "prefix: /}, redirect: {host_redirect: h, regex_rewrite: {pattern: {regex: '^/(.)/(.*)'},"
    " substitution: '/\\2/\\1'}, strip_query: true}}]}\n"
    "- name: v\n"
    "  domains: ['*']\n"
    "  routes:\n"
    "  - {" M "path: /exact}, route: {cluster: up, path_rewrite: '/x%PATH(WQ)%'}}\n"
    "  - {" M "prefix: /low, case_sensitive: false}, route: {cluster: up, prefix_rewrite: /}}\n"
    "  - {" M "path_separated_prefix: /sep}, route: {cluster: up, prefix_rewrite: /new}}\n"
    "  - {" M "safe_regex: {regex: '/re/([^/]*)/.*'}}, route: {cluster: up, regex_rewrite:"
    " {pattern: {regex: '/([a-z]+)'}, substitution: '/\\1\\1'}}}\n"
    "  - {" M "path_match_policy: {name: m, typed_config: {'@type': "
    "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig,"
    " path_template: '/t/{a}/{b=*}/{c=**}'}}}, route: {cluster: up, path_rewrite_policy: {name: r,"
    " typed_config: {'@type': type.googleapis.com/"
    "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig,"
    " path_template_rewrite: '/{c}/{b}/{a}'}}}}\n"
    "  - {" M "prefix: /q, query_parameters: [{name: a, string_match: {prefix: b}}]},"
    " route: {cluster: up, host_rewrite_path_regex: {pattern: {regex: '^/q/(.*)$'}, substitution: "
    "'\\1'}}}\n"
    "  - {" M "prefix: /, headers: [{name: x-h, range_match: {start: -5, end: 7}}]},"
    " route: {cluster_header: x-c, host_rewrite_header: x-r}}\n"
    "  - {" M "prefix: /, cookies: [{name: k, string_match: {suffix: v}}]},"
    " direct_response: {status: 201}, response_headers_to_add: [{header: {key: x-y, value: "
    "'%REQ(:path)%'}}]}\n"
    "  - {" M "prefix: /r}, redirect: {path_redirect: '/p?a=b', port_redirect: 81, https_redirect:"
    " true}}\n"
    "  - {" M
    "prefix: /, grpc: {}}, route: {cluster: up, hash_policy: [{header: {header_name: x-a}},"
    " {query_parameter: {name: q}}, {cookie: {name: k}}]}}\n"
    "  - {" M
    "prefix: /}, route: {weighted_clusters: {header_name: x-w, clusters: [{name: up, weight:"
    " 1}, {name: two, weight: 3}]}, retry_policy: {retry_on: '5xx,retriable-headers', num_retries: "
    "3,"
    " rate_limited_retry_back_off: {reset_headers: [{name: retry-after}, {name: x-reset, format:"
    " UNIX_TIMESTAMP}]}}}}\n";

/* The cluster manager's part. */
uint32_t kb_cluster_slot(struct kb_cluster_manager *manager, struct kb_str name)
{
    (void)manager;
    return (uint32_t)name.len;
}

void kb_cluster_slot_release(struct kb_cluster_manager *manager, uint32_t number)
{
    (void)manager;
    (void)number;
}

bool kb_cluster_manager_has(const struct kb_cluster_manager *manager, struct kb_str name)
{
    (void)manager;
    (void)name;
    return true;
}

/* No filter is needed. */
const struct kb_extension kb_extensions[] = {{KB_EXT_HTTP_FILTER, "", "", NULL}};
const size_t kb_extension_count = 0;

static struct kb_arena table_arena;
static struct kb_server_context server;

static struct kb_route_config *table_get(void)
{
    static struct kb_factory_context factory = {.server = &server, .arena = &table_arena};
    static struct kb_route_config *config;
    ProtobufCMessage *message = NULL;
    struct kb_diag diag;
    struct kb_doc doc;

    if (config != NULL) {
        return config;
    }
    kb_header_names_init();
    kb_arena_init(&table_arena, NULL);
    kb_diag_init(&diag);
    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("table"), kb_str_from_cstr(table), &diag) == 0) {
        message = kb_pb_from_doc(&envoy__config__route__v3__route_configuration__descriptor, &doc,
                                 KB_PB_UNKNOWN_ERROR, &table_arena, &diag);
    }
    if (message != NULL) {
        config = kb_route_config_create((const void *)message, &factory, true, &diag);
    }
    for (const struct kb_diag_entry *entry = diag.first; entry != NULL; entry = entry->next) {
        struct kb_str text = kb_diag_format(&diag, entry);

        fprintf(stderr, "%.*s\n", KB_STR_ARG(text));
    }
    KB_ASSERT(config != NULL);
    kb_doc_dispose(&doc);
    kb_diag_dispose(&diag);
    return config;
}

/* No header, path or name that the parser lets through has one of these. */
static struct kb_str word_clean(struct kb_str word, bool path)
{
    for (size_t i = 0; i < word.len; i++) {
        unsigned char c = (unsigned char)word.p[i];

        if (c == '\0' || c == '\r' || c == 0x7f || (c < 0x20 && c != '\t') ||
            (path && (c <= ' ' || c > 0x7e))) {
            ((char *)(uintptr_t)word.p)[i] = '?';
        }
    }
    return word;
}

static void headers_read(struct kb_header_map *map, struct kb_str *rest)
{
    struct kb_str line;

    while (map->count < 40 && kb_str_next_token(rest, '\n', &line) && line.len > 0) {
        ptrdiff_t colon = kb_str_find_char(line, ':');
        struct kb_str name = kb_str_first(line, (size_t)KB_MAX(colon, 0));

        if (name.len == 0) {
            continue;
        }
        word_clean(line, false);
        for (size_t i = 0; i < name.len; i++) {
            ((char *)(uintptr_t)name.p)[i] = kb_ascii_lower(name.p[i]);
        }
        kb_header_map_append(map, kb_str_trim(name),
                             kb_str_trim(kb_str_from(line, (size_t)colon + 1)));
    }
}

/* False when the request would have been answered by now. */
static bool target_normalise(struct kb_header_map *request, uint8_t choice)
{
    struct kb_hcm_config config = {
        .normalize_path = (choice & 1) != 0,
        .merge_slashes = (choice & 2) != 0,
        .escaped_slashes = (enum kb_escaped_slashes)(choice >> 2 & 3),
        .strip_any_host_port = (choice & 16) != 0,
        .strip_matching_host_port = (choice & 32) != 0,
        .strip_trailing_host_dot = (choice & 64) != 0,
    };
    struct kb_str location;
    enum kb_path_result result = kb_path_normalise(&config, request, &location);
    struct kb_str once = request->path;

    kb_host_normalise(&config, request, 80);
    if (result != KB_PATH_OK) {
        return false;
    }
    if ((choice & 1) != 0 && (choice & 12) != 8 && (choice & 12) != 12 && (choice & 2) == 0) {
        KB_ASSERT(kb_path_normalise(&config, request, &location) == KB_PATH_OK);
        KB_ASSERT(kb_str_eq(once, request->path));
    }
    return true;
}

static void retry_run(const struct kb_retry_policy *policy, struct kb_header_map *request,
                      const struct kb_header_map *answer)
{
    struct kb_retry_gate gate = {.room = true, .enabled = true, .wall_s = 1000};
    struct kb_retry_state state;
    unsigned counts = 0;

    if (!kb_retry_state_init(&state, policy, request, 25)) {
        return;
    }
    for (unsigned i = 0; i < 5; i++) {
        bool limited;

        if (kb_retry_should_retry_headers(&state, answer, &gate, &counts) != KB_RETRY_YES) {
            return;
        }
        (void)kb_retry_delay_ms(&state, 12345, &limited);
    }
}

static void route_run(const struct kb_route *route, struct kb_header_map *request,
                      struct kb_header_map *answer, struct kb_stream_info *info)
{
    struct kb_str name = KB_STR_NULL;
    struct kb_str location = KB_STR_NULL;
    struct kb_str body = KB_STR_NULL;
    const void *choice = NULL;
    uint32_t slot = UINT32_MAX;
    uint64_t hash;

    (void)kb_route_requires_tls(route, request, false);
    if (route->kind == KB_ROUTE_CLUSTER) {
        (void)!kb_route_choose_cluster(route, request, 7, &slot, &name, &choice);
        retry_run(route->retry, request, answer);
        (void)kb_route_hash(route, request, info, NULL, NULL, &hash);
        kb_route_finalize_request(route, choice, request, info, false);
        KB_ASSERT(request->path.len > 0);
    } else {
        kb_route_rewrite_path_for_redirect(route, request, false);
        if (route->kind == KB_ROUTE_REDIRECT) {
            (void)kb_route_redirect(route, request, info, &location);
        } else {
            (void)kb_route_direct_response(route, request, &body, &location);
        }
        KB_ASSERT(location.len == 0 || memchr(location.p, '\n', location.len) == NULL);
    }
    kb_route_finalize_response(route, choice, request, answer, info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_route_config *config = table_get();
    struct kb_connection_info connection = {.id = 7};
    struct kb_stream_info info = {.connection = &connection, .protocol = KB_PROTOCOL_HTTP11};
    struct kb_header_map request, answer;
    const struct kb_route *route;
    struct kb_arena arena;
    struct kb_str rest, line;
    struct kb_url url;

    if (size < 2 || size > 8000) {
        return 0;
    }
    kb_arena_init(&arena, NULL);
    kb_header_map_init(&request, &arena);
    kb_header_map_init(&answer, &arena);
    rest = kb_str_dup(&arena, kb_str_make((const char *)data + 1, size - 1));
    (void)kb_url_parse(rest, &url);
    request.scheme = KB_STR("http");
    request.method = kb_str_next_token(&rest, '\n', &line) ? word_clean(line, true) : KB_STR("GET");
    request.path = kb_str_next_token(&rest, '\n', &line) ? word_clean(line, true) : KB_STR_NULL;
    request.authority = kb_str_next_token(&rest, '\n', &line) ? word_clean(line, true) : KB_STR("");
    headers_read(&request, &rest);
    answer.status = (uint16_t)(200 + data[0] * 3 % 400);
    headers_read(&answer, &rest);
    if (request.path.len > 0 && request.path.p[0] == '/' && target_normalise(&request, data[0])) {
        route = kb_route_config_match(config, &request, &info, data[0]);
        if (route != NULL) {
            route_run(route, &request, &answer, &info);
        }
    }
    kb_arena_dispose(&arena);
    return 0;
}
