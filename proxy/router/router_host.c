/* SPDX-License-Identifier: Apache-2.0 */
/* Which host an attempt of the router filter goes to: what the load balancer asks about the request
 * (its hash, hosts tried before), the cookies that come of it, and what the transport socket is
 * told. */
#include <xxhash.h>

#include "proxy/api/transport_socket.h"
#include "proxy/router/retry_host_metadata.h"
#include "proxy/router/router.h"
#include "proxy/upstream/retry_priorities.h"

/* ---- hosts tried ---- */

static bool host_rejected(void *arg, const struct kb_host *host)
{
    struct kb_router *router = KB_CAST(arg, kb_router);
    const struct kb_retry_policy *policy = router->retry.policy;

    if (policy == NULL || router->attempts < 2) {
        return false;
    }
    if (policy->omit_canary_hosts && host->canary) {
        return true;
    }
    if (policy->omit_labels != NULL &&
        kb_host_labels_match(policy->omit_labels, host, &router->worker->arena_blocks)) {
        return true;
    }
    for (uint32_t i = 0; policy->previous_hosts && i < router->tried_count; i++) {
        if (router->tried_hosts[i] == host) {
            return true;
        }
    }
    return false;
}

static void host_tried(struct kb_router *router, const struct kb_host *host)
{
    if (!router->retry_enabled) {
        return;
    }
    if (router->tried_count == router->tried_cap) {
        uint32_t cap = KB_MAX(router->tried_cap * 2, 4u);
        const struct kb_host **grown =
            kb_arena_alloc(router->arena, cap * sizeof(*grown), sizeof(void *));

        if (router->tried_count > 0) {
            memcpy(grown, router->tried_hosts, router->tried_count * sizeof(*grown));
        }
        router->tried_hosts = grown;
        router->tried_cap = cap;
    }
    router->tried_hosts[router->tried_count++] = host;
}

/* Which priorities this retry may go to; NULL: as the first attempt. */
static struct kb_retry_priorities *priorities_get(struct kb_router *router)
{
    const struct kb_retry_policy *policy = router->retry.policy;

    if (policy == NULL || policy->priorities_update_frequency == 0) {
        return NULL;
    }
    if (router->priorities == NULL) {
        router->priorities = KB_ARENA_NEW(router->arena, struct kb_retry_priorities);
        router->priorities->update_frequency = policy->priorities_update_frequency;
    }
    router->priorities->tried = router->tried_hosts;
    router->priorities->tried_count = router->tried_count;
    return router->priorities;
}

/* ---- the hash of the request ---- */

/* The value is the same for all requests of a connection, so that those that race get one cookie.
 */
static struct kb_str cookie_add(void *arg, const struct kb_hash_cookie *cookie)
{
    struct kb_router *router = KB_CAST(arg, kb_router);
    const struct kb_connection_info *connection = router->info->connection;
    char remote[KB_ADDR_TEXT_MAX], local[KB_ADDR_TEXT_MAX];
    struct kb_router_cookie *added = KB_ARENA_NEW(router->arena, struct kb_router_cookie);
    struct kb_str value;

    if (connection == NULL) {
        return KB_STR_NULL;
    }
    value = kb_str_printf(router->arena, "%.*s%.*s",
                          KB_STR_ARG(kb_addr_text(&connection->remote, remote)),
                          KB_STR_ARG(kb_addr_text(&connection->local, local)));
    value =
        kb_str_printf(router->arena, "%016llx", (unsigned long long)XXH64(value.p, value.len, 0));
    added->text = kb_hash_cookie_text(cookie, value, router->arena);
    added->next = router->cookies;
    router->cookies = added;
    return value;
}

static bool request_hash(void *arg, uint64_t *hash)
{
    struct kb_router *router = KB_CAST(arg, kb_router);

    return kb_route_hash(router->route, router->request, router->info, cookie_add, router, hash);
}

void kb_router_cookies_set(const struct kb_router *router, struct kb_header_map *headers)
{
    for (const struct kb_router_cookie *cookie = router->cookies; cookie != NULL;
         cookie = cookie->next) {
        kb_header_map_add_id(headers, KB_HDR_SET_COOKIE, cookie->text);
    }
}

/* ---- transport socket options ---- */

/* The host of an authority, without its port; *is_ip says whether it is no name. */
static struct kb_str authority_host(struct kb_str authority, bool *is_ip)
{
    struct kb_str host = authority;
    struct kb_addr addr;
    const char *colon;

    if (authority.p == NULL || authority.len == 0) {
        *is_ip = false;
        return authority;
    }
    colon = memrchr(authority.p, ':', authority.len);
    if (authority.p[0] == '[') {
        *is_ip = true;
        colon = memchr(authority.p, ']', authority.len);
        return colon == NULL ? authority
                             : kb_str_make(authority.p + 1, (size_t)(colon - authority.p) - 1);
    }
    if (colon != NULL) {
        host = kb_str_first(authority, (size_t)(colon - authority.p));
    }
    *is_ip = kb_addr_from_ip(&addr, host, 0) == 0;
    return host;
}

/* auto_sni and auto_san_validation: the name comes from the request. The PROXY protocol: so does
 * the client. */
static KB_NOINLINE void transport_options_set(struct kb_router *router)
{
    const struct kb_cluster *cluster = router->cluster->cluster;
    const struct kb_transport_socket_options *before = router->info->transport_options;
    struct kb_transport_socket_options *options =
        KB_ARENA_NEW(router->arena, struct kb_transport_socket_options);
    struct kb_str *host = KB_ARENA_NEW(router->arena, struct kb_str);
    struct kb_str name = router->request->authority;
    bool is_ip;

    if (cluster->auto_sni_header.len > 0) {
        struct kb_str said = kb_header_map_value(router->request, cluster->auto_sni_header);

        name = said.len > 0 ? said : name;
    }
    *host = kb_str_dup(router->arena, authority_host(name, &is_ip));
    if (before != NULL) {
        *options = *before;
    }
    options->of_request = cluster->auto_sni || cluster->auto_san_validation || options->of_request;
    if (cluster->auto_sni && !is_ip && options->server_name.len == 0) {
        options->server_name = *host;
    }
    if (cluster->auto_san_validation && options->verify_san_count == 0) {
        options->verify_sans = host;
        options->verify_san_count = 1;
    }
    if (cluster->pool_per_downstream_connection && router->info->connection != NULL) {
        options->connection_id = router->info->connection->id;
        options->of_request = true;
    }
    if (cluster->names_client) {
        options->client = kb_proxied_client_of(router->info->connection, router->arena);
    }
    router->info->transport_options = options;
}

/* ---- the choice ---- */

struct kb_host *kb_router_host_choose(struct kb_router *router)
{
    struct kb_lb_request lb = {
        .headers = router->request,
        .info = router->info,
    };
    struct kb_host *host;

    if (KB_UNLIKELY(router->route->policies != NULL)) {
        lb.metadata = kb_route_metadata_match(router->route, router->choice);
        if (router->route->policies->hash != NULL) {
            lb.hash = request_hash;
            lb.hash_arg = router;
        }
    }
    if (KB_UNLIKELY(router->cluster->cluster->auto_sni ||
                    router->cluster->cluster->auto_san_validation ||
                    router->cluster->cluster->names_client ||
                    router->cluster->cluster->pool_per_downstream_connection) &&
        router->attempts == 1) {
        transport_options_set(router);
    }
    if (KB_UNLIKELY(router->attempts > 1)) {
        lb.reject_host = host_rejected;
        lb.reject_arg = router;
        lb.max_attempts = router->retry.host_selection_attempts;
        lb.priorities = priorities_get(router);
    }
    host = kb_cluster_local_choose_host(router->cluster, &lb);
    if (host != NULL) {
        host_tried(router, host);
    }
    return host;
}
