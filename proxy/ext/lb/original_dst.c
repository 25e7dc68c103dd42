/* SPDX-License-Identifier: Apache-2.0 */
/* The load balancer of ORIGINAL_DST clusters (Envoy docs: original destination): the host is the
 * address to which the client's connection was on its way, or which dynamic metadata or a header of
 * the request names. A host for a new address is made here at once, and the main thread told. */
#include <stdlib.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/vec.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/header_map.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/original_dst.h"

#define HEADER_DEFAULT   "x-envoy-original-dst-host"
#define PATH_MAX_LENGTH  8
#define HOSTNAME_MAX_LEN 1024

typedef Envoy__Config__Cluster__V3__Cluster Cluster;

struct original_dst_config {
    struct kb_lb_config head;
    bool use_header;
    uint16_t port; /* upstream_port_override; 0: none */
    struct kb_str header;
    uint32_t path_count; /* metadata_key; 0: none */
    struct kb_str metadata_name;
    struct kb_str path[PATH_MAX_LENGTH];
    struct kb_arena arena; /* the texts */
};

struct original_dst_lb {
    struct kb_lb lb; /* first */
    const struct original_dst_config *config;
    struct kb_map hosts;            /* the bytes of an address -> host */
    KB_VEC(struct kb_host *) fresh; /* made here, and not yet come back from the main thread */
    struct kb_addr last_addr;       /* the most recent answer; len 0: none */
    struct kb_host *last;
};

/* ---- configuration ---- */

static void metadata_key_read(const Envoy__Type__Metadata__V3__MetadataKey *key,
                              struct original_dst_config *config, struct kb_diag *diag)
{
    kb_diag_push(diag, "metadata_key");
    if (key->n_path > PATH_MAX_LENGTH) {
        kb_diag_error(diag, "the path has %zu parts, and at most %d are possible", key->n_path,
                      PATH_MAX_LENGTH);
    }
    config->metadata_name = kb_str_dup(&config->arena, kb_str_from_cstr(key->key));
    for (size_t i = 0; i < KB_MIN(key->n_path, PATH_MAX_LENGTH); i++) {
        config->path[config->path_count++] =
            kb_str_dup(&config->arena, kb_str_from_cstr(key->path[i]->key));
    }
    kb_diag_pop(diag);
}

static void options_read(const Envoy__Config__Cluster__V3__Cluster__OriginalDstLbConfig *message,
                         struct original_dst_config *config, struct kb_diag *diag)
{
    struct kb_str header = kb_str_from_cstr(message->http_header_name);

    kb_diag_push(diag, "original_dst_lb_config");
    config->use_header = message->use_http_header != 0;
    if (header.len > 0 && !config->use_header) {
        kb_diag_error(diag,
                      "ORIGINAL_DST cluster: invalid config http_header_name=%.*s and "
                      "use_http_header is false. Set use_http_header to true if "
                      "http_header_name is desired.",
                      KB_STR_ARG(header));
    }
    header = kb_str_dup(&config->arena, header.len > 0 ? header : KB_STR(HEADER_DEFAULT));
    for (size_t i = 0; i < header.len; i++) {
        char *c = (char *)(uintptr_t)&header.p[i];

        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    config->header = header;
    config->port = message->upstream_port_override == NULL
                       ? 0
                       : (uint16_t)message->upstream_port_override->value;
    if (message->metadata_key != NULL) {
        metadata_key_read(message->metadata_key, config, diag);
    }
    kb_diag_pop(diag);
}

static void original_dst_config_destroy(struct kb_lb_config *config)
{
    kb_arena_dispose(&((struct original_dst_config *)config)->arena);
    free(config);
}

static int original_dst_config_create(const void *message, struct kb_factory_context *factory,
                                      struct kb_diag *diag, struct kb_lb_config **out)
{
    const Cluster *cluster = message;
    struct original_dst_config *config = kb_calloc(1, sizeof(*config));
    uint32_t errors = diag->error_count;

    (void)factory;
    kb_arena_init(&config->arena, NULL);
    if (cluster->lb_config_case ==
        ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_ORIGINAL_DST_LB_CONFIG) {
        options_read(cluster->original_dst_lb_config, config, diag);
    }
    if (diag->error_count != errors) {
        original_dst_config_destroy(&config->head);
        return KB_ECONFIG;
    }
    *out = &config->head;
    return 0;
}

/* ---- which address ---- */

/* "1.2.3.4:80" or "[::1]:80". */
static bool address_parse(struct kb_str text, struct kb_addr *addr)
{
    size_t colon = text.len;
    uint64_t port;

    while (colon > 0 && text.p[colon - 1] != ':') {
        colon--;
    }
    if (colon < 2 || kb_str_to_u64(kb_str_make(text.p + colon, text.len - colon), &port) != 0 ||
        port > UINT16_MAX) {
        return false;
    }
    text = kb_str_first(text, colon - 1);
    if (text.p[0] == '[') {
        if (text.len < 3 || text.p[text.len - 1] != ']') {
            return false;
        }
        text = kb_str_make(text.p + 1, text.len - 2);
    } else if (memchr(text.p, ':', text.len) != NULL) {
        return false; /* IPv6 stands in brackets */
    }
    return kb_addr_from_ip(addr, text, (uint16_t)port) == 0;
}

static void invalid_count(const struct original_dst_lb *lb, struct kb_str text)
{
    KB_LOG(UPSTREAM, DEBUG, "original_dst_load_balancer: invalid override address: %.*s",
           KB_STR_ARG(text));
    kb_stat_inc(lb->lb.local->stats, KB_STAT_CLUSTER_ORIGINAL_DST_HOST_INVALID);
}

static bool from_metadata(const struct original_dst_lb *lb, const struct kb_lb_request *request,
                          struct kb_addr *addr)
{
    const struct original_dst_config *config = lb->config;
    const Google__Protobuf__Struct *at =
        kb_dynamic_metadata_get(kb_stream_info_metadata(request->info), config->metadata_name);
    const Google__Protobuf__Value *value = NULL;

    for (uint32_t i = 0; at != NULL && i < config->path_count; i++) {
        value = kb_struct_get(at, config->path[i]);
        at = value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE
                 ? value->struct_value
                 : NULL;
        if (at == NULL && i + 1 < config->path_count) {
            return false;
        }
    }
    if (value == NULL || value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        return false;
    }
    if (!address_parse(kb_str_from_cstr(value->string_value), addr)) {
        invalid_count(lb, kb_str_from_cstr(value->string_value));
        return false;
    }
    return true;
}

static bool from_header(const struct original_dst_lb *lb, const struct kb_lb_request *request,
                        struct kb_addr *addr)
{
    const struct kb_header *header =
        request->headers == NULL ? NULL : kb_header_map_get(request->headers, lb->config->header);

    if (header == NULL) {
        return false;
    }
    if (!address_parse(header->value, addr)) {
        invalid_count(lb, header->value);
        return false;
    }
    return true;
}

/* Where the client's connection was on its way to, or NULL. */
static const struct kb_addr *original_destination(const struct kb_lb_request *request)
{
    const struct kb_connection_info *info =
        request->info == NULL ? NULL : request->info->connection;

    return info == NULL || info->local.len == 0 || kb_addr_eq(&info->local, &info->direct_local)
               ? NULL
               : &info->local;
}

/* ---- hosts ---- */

/* Equal addresses have equal bytes. */
static void address_normalise(struct kb_addr *out, const struct kb_addr *addr)
{
    memset(out, 0, sizeof(*out));
    out->len = addr->len;
    if (addr->sa.sa_family == AF_INET) {
        out->in4.sin_family = AF_INET;
        out->in4.sin_port = addr->in4.sin_port;
        out->in4.sin_addr = addr->in4.sin_addr;
    } else {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = addr->in6.sin6_port;
        out->in6.sin6_addr = addr->in6.sin6_addr;
        out->in6.sin6_scope_id = addr->in6.sin6_scope_id;
    }
}

static void host_posted(void *arg)
{
    kb_original_dst_add_host(KB_CAST(arg, kb_host));
}

static struct kb_host *host_create(struct original_dst_lb *lb, const struct kb_addr *addr)
{
    struct kb_cluster_impl *cluster = kb_cluster_impl_of(lb->lb.local->cluster);
    char address[KB_ADDR_TEXT_MAX], name[HOSTNAME_MAX_LEN];
    struct kb_str text = kb_addr_text(addr, address);
    size_t len = KB_MIN(cluster->api.name.len, sizeof(name) - text.len);
    struct kb_host_params params = {.addr = *addr, .weight = 1};
    struct kb_host *host;

    memcpy(name, cluster->api.name.p, len);
    memcpy(name + len, text.p, text.len);
    params.hostname = kb_str_make(name, len + text.len);
    host = kb_host_create(cluster, &params, cluster->worker_count);
    KB_LOG(UPSTREAM, DEBUG, "Created host %.*s", KB_STR_ARG(kb_host_hostname(host)));
    kb_vec_push(&lb->fresh, host);
    (void)kb_map_put(&lb->hosts, kb_host_addr_bytes(host), host);
    kb_loop_post(kb_cluster_manager_loop(cluster->manager), host_posted, kb_host_ref(host));
    return host;
}

static KB_NOINLINE struct kb_host *host_find(struct original_dst_lb *lb, const struct kb_addr *addr)
{
    struct kb_addr wanted;
    struct kb_host *host;

    if (!kb_addr_is_ip(addr)) {
        return NULL;
    }
    address_normalise(&wanted, addr);
    host = kb_map_get(&lb->hosts, kb_addr_significant(&wanted));
    if (host == NULL) {
        host = host_create(lb, &wanted);
    }
    lb->last_addr = wanted;
    lb->last = host;
    return host;
}

static struct kb_host *original_dst_choose_host(struct kb_lb *base,
                                                const struct kb_lb_request *request)
{
    struct original_dst_lb *lb = (struct original_dst_lb *)base;
    const struct kb_addr *addr;
    struct kb_addr other;

    KB_DASSERT(base->kb_magic == (uint32_t)KB_MAGIC_kb_lb);
    if (KB_UNLIKELY(request == NULL)) {
        return NULL;
    }
    if ((lb->config->path_count > 0 && from_metadata(lb, request, &other)) ||
        (lb->config->use_header && from_header(lb, request, &other))) {
        addr = &other;
    } else {
        addr = original_destination(request);
    }
    if (KB_UNLIKELY(addr == NULL)) {
        KB_LOG(UPSTREAM, DEBUG,
               "original_dst_load_balancer: No downstream connection or no original_dst.");
        return NULL;
    }
    if (KB_UNLIKELY(lb->config->port != 0)) {
        other = *addr;
        kb_addr_set_port(&other, lb->config->port);
        addr = &other;
    }
    if (KB_LIKELY(kb_addr_eq(addr, &lb->last_addr))) {
        return lb->last;
    }
    return host_find(lb, addr);
}

/* Those of the set; of equal addresses the first. Fresh ones that are there are fresh no more. */
static void hosts_fill(struct original_dst_lb *lb)
{
    const struct kb_host_list *all = &lb->lb.set->sets[0].all;
    size_t kept = 0;

    kb_map_dispose(&lb->hosts);
    kb_map_init(&lb->hosts);
    lb->last_addr.len = 0;
    for (uint32_t i = all->count; i > 0; i--) {
        (void)kb_map_put(&lb->hosts, kb_host_addr_bytes(all->hosts[i - 1]), all->hosts[i - 1]);
    }
    for (size_t i = 0; i < lb->fresh.len; i++) {
        struct kb_host *host = lb->fresh.items[i];

        if (kb_map_get(&lb->hosts, kb_host_addr_bytes(host)) != NULL) {
            kb_host_unref(host);
        } else {
            (void)kb_map_put(&lb->hosts, kb_host_addr_bytes(host), host);
            lb->fresh.items[kept++] = host;
        }
    }
    lb->fresh.len = kept;
}

static void original_dst_hosts_changed(struct kb_lb *base, const struct kb_priority_set *set)
{
    base->set = set;
    hosts_fill((struct original_dst_lb *)KB_CAST(base, kb_lb));
}

static struct kb_lb *original_dst_create(struct kb_cluster_local *local,
                                         const struct kb_lb_config *config,
                                         const struct kb_priority_set *set)
{
    struct original_dst_lb *lb = kb_calloc(1, sizeof(*lb));

    KB_OBJ_SET(&lb->lb, kb_lb);
    lb->lb.ops = &kb_lb_original_dst;
    lb->lb.local = local;
    lb->lb.set = set;
    lb->config = (const struct original_dst_config *)config;
    kb_map_init(&lb->hosts);
    kb_vec_init(&lb->fresh);
    hosts_fill(lb);
    return &lb->lb;
}

static void original_dst_destroy(struct kb_lb *base)
{
    struct original_dst_lb *lb = (struct original_dst_lb *)KB_CAST(base, kb_lb);

    KB_VEC_FOREACH (host, &lb->fresh) {
        kb_host_unref(*host);
    }
    kb_vec_dispose(&lb->fresh);
    kb_map_dispose(&lb->hosts);
    KB_OBJ_CLEAR(base);
    free(lb);
}

const struct kb_lb_ops kb_lb_original_dst = {
    .name = "envoy.load_balancing_policies.cluster_provided",
    .type_url = "",
    .config_create = original_dst_config_create,
    .config_destroy = original_dst_config_destroy,
    .create = original_dst_create,
    .hosts_changed = original_dst_hosts_changed,
    .choose_host = original_dst_choose_host,
    .destroy = original_dst_destroy,
};
