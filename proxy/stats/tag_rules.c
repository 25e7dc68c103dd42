/* SPDX-License-Identifier: Apache-2.0 */
/* The default rules. Those that ordinary names meet are written out as code, the others as
 * patterns; a unit test holds the code against the same rule as a regular expression. */
#include "proxy/stats/tag_rules.h"

/* Parts of the regular expressions. */
#define PART                "[^\\.]+"
#define CIPHER              "[\\w-]+"
#define LISTENER_OR_CLUSTER "(?:listener|cluster)\\..*?"

/* *_rq(_<code>) */
static bool match_response_code(struct kb_str name, struct kb_tag_match *match)
{
    const char *end = name.p + name.len;

    if (name.len < 7 || memcmp(end - 7, "_rq_", 4) != 0 || !kb_ascii_is_digit(end[-3]) ||
        !kb_ascii_is_digit(end[-2]) || !kb_ascii_is_digit(end[-1])) {
        return false;
    }
    *match = (struct kb_tag_match){name.len - 4, name.len, kb_str_make(end - 3, 3)};
    return true;
}

/* *_rq_(<class>)xx */
static bool match_response_code_class(struct kb_str name, struct kb_tag_match *match)
{
    const char *end = name.p + name.len;

    if (name.len < 7 || memcmp(end - 7, "_rq_", 4) != 0 || !kb_ascii_is_digit(end[-3]) ||
        memcmp(end - 2, "xx", 2) != 0) {
        return false;
    }
    *match = (struct kb_tag_match){name.len - 3, name.len - 2, kb_str_make(end - 3, 1)};
    return true;
}

static size_t digits_len(struct kb_str s, size_t max)
{
    size_t n = 0;

    while (n < s.len && n < max && kb_ascii_is_digit(s.p[n])) {
        n++;
    }
    return n;
}

/* Length of "1.2.3.4_80" at the start of s, or 0. An IPv6 address has no dot, so that it is a part
 * like any other. */
static size_t address_len(struct kb_str s)
{
    size_t at = 0;

    for (unsigned i = 0; i < 4; i++) {
        size_t n = digits_len(kb_str_from(s, at), 3);

        if (n == 0 || at + n >= s.len || s.p[at + n] != (i < 3 ? '.' : '_')) {
            return 0;
        }
        at += n + 1;
    }
    if (digits_len(kb_str_from(s, at), SIZE_MAX) == 0) {
        return 0;
    }
    return at + digits_len(kb_str_from(s, at), SIZE_MAX);
}

static size_t part_len(struct kb_str s)
{
    ptrdiff_t dot = kb_str_find_char(s, '.');

    return dot < 0 ? s.len : (size_t)dot;
}

/* "worker_(N.)" at offset `at`. */
static bool match_worker_at(struct kb_str name, size_t at, struct kb_tag_match *match)
{
    static const struct kb_str word = KB_STR("worker_");
    struct kb_str rest = kb_str_from(name, at);
    size_t n;

    if (!kb_str_starts_with(rest, word)) {
        return false;
    }
    at += word.len;
    n = digits_len(kb_str_from(name, at), SIZE_MAX);
    if (n == 0 || at + n >= name.len || name.p[at + n] != '.') {
        return false;
    }
    *match = (struct kb_tag_match){at, at + n + 1, kb_str_make(name.p + at, n)};
    return true;
}

/* (listener.<address or part>|server|listener_manager|thread_local_cluster_manager).worker_(<n>.)*
 */
static bool match_worker(struct kb_str name, struct kb_tag_match *match)
{
    static const struct kb_str owners[] = {KB_STR("server."), KB_STR("listener_manager."),
                                           KB_STR("thread_local_cluster_manager.")};
    static const struct kb_str listener = KB_STR("listener.");

    for (size_t i = 0; i < KB_ARRAY_LEN(owners); i++) {
        if (kb_str_starts_with(name, owners[i])) {
            return match_worker_at(name, owners[i].len, match);
        }
    }
    if (kb_str_starts_with(name, listener)) {
        struct kb_str rest = kb_str_from(name, listener.len);
        size_t address = address_len(rest);
        size_t part = part_len(rest);

        if (address > 0 && address < rest.len && rest.p[address] == '.' &&
            match_worker_at(name, listener.len + address + 1, match)) {
            return true;
        }
        return part > 0 && match_worker_at(name, listener.len + part + 1, match);
    }
    return false;
}

/* listener.(<address or part>.)* */
static bool match_listener_address(struct kb_str name, struct kb_tag_match *match)
{
    static const struct kb_str listener = KB_STR("listener.");
    struct kb_str rest = kb_str_from(name, listener.len);
    size_t len = address_len(rest);

    if (!kb_str_starts_with(name, listener)) {
        return false;
    }
    if (len == 0 || len >= rest.len || rest.p[len] != '.') {
        len = part_len(rest);
    }
    if (len == 0 || len >= rest.len) {
        return false;
    }
    *match = (struct kb_tag_match){listener.len, listener.len + len + 1, kb_str_make(rest.p, len)};
    return true;
}

/* listener.*.http.(<prefix>.)* */
static bool match_listener_http(struct kb_str name, struct kb_tag_match *match)
{
    static const struct kb_str word = KB_STR(".http.");
    size_t at = sizeof("listener.") - 1;

    while (at < name.len) {
        ptrdiff_t found = kb_str_find(kb_str_from(name, at), word);
        size_t from;
        size_t len;

        if (found < 0) {
            return false;
        }
        from = at + (size_t)found + word.len;
        len = part_len(kb_str_from(name, from));
        if (len > 0 && from + len < name.len) {
            *match = (struct kb_tag_match){from, from + len + 1, kb_str_make(name.p + from, len)};
            return true;
        }
        at += (size_t)found + 1;
    }
    return false;
}

/* Where a token search stands. */
struct token_search {
    const char *pattern; /* at the start of a token; NULL behind the last */
    size_t at;           /* offset in the name; name.len + 1 behind the last part */
};

static struct kb_str token_next(const char **pattern)
{
    const char *start = *pattern;
    const char *dot = strchr(start, '.');

    *pattern = dot == NULL ? NULL : dot + 1;
    return kb_str_make(start, dot == NULL ? strlen(start) : (size_t)(dot - start));
}

static bool tokens_search(struct token_search search, struct kb_str name,
                          struct kb_tag_match *match)
{
    while (search.pattern != NULL && search.at <= name.len) {
        struct kb_str token = token_next(&search.pattern);
        size_t len = part_len(kb_str_from(name, search.at));

        if (kb_str_eq(token, KB_STR("**"))) {
            if (search.pattern == NULL) {
                return true;
            }
            /* Depth is the number of "**" in our own patterns. */
            while (search.at <= name.len) {
                if (tokens_search(search, name, match)) {
                    return true;
                }
                search.at += part_len(kb_str_from(name, search.at)) + 1;
            }
            return false;
        }
        if (kb_str_eq(token, KB_STR("$"))) {
            match->from = search.at;
            match->value = kb_str_make(name.p + search.at, len);
        } else if (!kb_str_eq(token, KB_STR("*")) &&
                   !kb_str_eq(token, kb_str_make(name.p + search.at, len))) {
            return false;
        }
        search.at += len + 1;
    }
    return search.pattern == NULL && search.at > name.len;
}

bool kb_tag_match_tokens(const char *pattern, struct kb_str name, struct kb_tag_match *match)
{
    if (!tokens_search((struct token_search){.pattern = pattern}, name, match)) {
        return false;
    }
    match->to = match->from + match->value.len;
    if (match->to < name.len) {
        match->to++; /* with the dot that follows */
    } else if (match->from > 0) {
        match->from--; /* or the one before the last part */
    }
    return true;
}

#define RULE_CODE(tag_name, part, needle, not_value, fn) \
    {.tag = tag_name, .first = part, .contains = needle, .except = not_value, .match = fn}
#define RULE_REGEX(tag_name, part, needle, not_value, pattern) \
    {.tag = tag_name, .first = part, .contains = needle, .except = not_value, .regex = pattern}
#define RULE_TOKENS(tag_name, part, pattern) {.tag = tag_name, .first = part, .tokens = pattern}

/* Patterns first, tokens then; rules for any name are tried before those for a first part. */
const struct kb_tag_rule kb_tag_rules[] = {
    RULE_CODE("envoy.response_code", NULL, NULL, NULL, match_response_code),
    RULE_CODE("envoy.response_code_class", NULL, NULL, NULL, match_response_code_class),
    RULE_REGEX("envoy.dynamo_partition_id", "http", ".dynamodb.table.", NULL,
               "^http\\." PART "\\.dynamodb\\.table\\." PART "\\.capacity\\." PART
               "(\\.__partition_id=(\\w{7}))$"),
    RULE_REGEX("envoy.dynamo_operation", "http", ".dynamodb.", NULL,
               "^http\\." PART "\\.dynamodb.(?:operation|table\\." PART "\\.capacity)(\\.(" PART
               "))(?:\\.|$)"),
    RULE_REGEX("envoy.dynamo_table", "http", ".dynamodb.", NULL,
               "^http\\." PART "\\.dynamodb.(?:table|error)\\.((" PART ")\\.)"),
    RULE_REGEX("envoy.ssl_cipher", "listener", ".ssl.ciphers.", NULL,
               "^listener\\..*?\\.ssl\\.ciphers(\\.(" CIPHER "))$"),
    RULE_REGEX("envoy.ssl_curve", NULL, ".ssl.curves.", NULL,
               "^" LISTENER_OR_CLUSTER "\\.ssl\\.curves(\\.(" CIPHER "))$"),
    RULE_REGEX("envoy.ssl_sigalg", NULL, ".ssl.sigalgs.", NULL,
               "^" LISTENER_OR_CLUSTER "\\.ssl\\.sigalgs(\\.(" CIPHER "))$"),
    RULE_REGEX("envoy.ssl_version", NULL, ".ssl.versions.", NULL,
               "^" LISTENER_OR_CLUSTER "\\.ssl\\.versions(\\.(TLSv\\d\\.\\d))$"),
    RULE_REGEX("cipher_suite", "cluster", ".ssl.ciphers.", NULL,
               "^cluster\\." PART "\\.ssl\\.ciphers(\\.(" CIPHER "))$"),
    RULE_CODE("envoy.http_conn_manager_prefix", "listener", ".http.", NULL, match_listener_http),
    RULE_CODE("envoy.worker_id", NULL, ".worker_", NULL, match_worker),
    RULE_CODE("envoy.listener_address", "listener", NULL, "admin", match_listener_address),
    RULE_REGEX("envoy.rds_route_config", "http", ".rds.", NULL,
               "^http\\." PART "\\.rds\\.(([\\w-\\./]+)\\.)\\w+?$"),
    RULE_REGEX("envoy.scoped_rds_config", "http", ".scoped_rds.", NULL,
               "^http\\." PART "\\.scoped_rds\\.(([\\w-\\.]+)\\.)\\w+?$"),
    RULE_REGEX("envoy.rbac_policy_name", "http", ".rbac.", NULL,
               "^http\\." PART "\\.rbac\\.(?:" PART "\\.)?policy\\.((" PART
               ")\\.)(allowed|shadow_allowed|denied|shadow_denied)$"),
    RULE_REGEX("envoy.rbac_http_prefix", "http", ".rbac.", "policy",
               "^http\\." PART "\\.rbac\\.((" PART ")\\.).*?"),
    RULE_REGEX("envoy.proxy_protocol_prefix", "proxy_proto", NULL, "versions",
               "^proxy_proto\\.((" PART ")\\.).+$"),
    RULE_REGEX("envoy.proxy_protocol_version", "proxy_proto", NULL, NULL,
               "^proxy_proto\\.((?:" PART "\\.)?versions\\.v(\\d)\\.)\\w+$"),
    RULE_REGEX("envoy.tls_certificate", NULL, ".ssl.certificate", NULL,
               "^" LISTENER_OR_CLUSTER "\\.ssl\\.certificate\\.((" PART ")\\.).*$"),
    RULE_REGEX("envoy.health_check_name", "cluster", ".health_check.name.", NULL,
               "^cluster\\." PART "\\.health_check(\\.name\\.(" PART "))\\..+"),
    RULE_REGEX("envoy.xds_resource_name", "sds", NULL, NULL, "^sds\\.((" PART ")\\.).+"),
    RULE_TOKENS("envoy.mongo_callsite", "mongo", "mongo.*.collection.*.callsite.$.query.**"),
    RULE_TOKENS("envoy.mongo_collection", "mongo", "mongo.*.collection.$.**.query.*"),
    RULE_TOKENS("envoy.mongo_cmd", "mongo", "mongo.*.cmd.$.**"),
    RULE_TOKENS("envoy.grpc_bridge_method", "cluster", "cluster.*.grpc.*.$.**"),
    RULE_TOKENS("envoy.http_user_agent", "http", "http.*.user_agent.$.**"),
    RULE_TOKENS("envoy.virtual_cluster", "vhost", "vhost.*.vcluster.$.**"),
    RULE_TOKENS("envoy.fault_downstream_cluster", "http", "http.*.fault.$.**"),
    RULE_TOKENS("envoy.grpc_bridge_service", "cluster", "cluster.*.grpc.$.**"),
    RULE_TOKENS("envoy.tcp_prefix", "tcp", "tcp.$.**"),
    RULE_TOKENS("envoy.udp_prefix", "udp", "udp.$.**"),
    RULE_TOKENS("envoy.clientssl_prefix", "auth", "auth.clientssl.$.**"),
    RULE_TOKENS("envoy.ratelimit_prefix", "ratelimit", "ratelimit.$.**"),
    RULE_TOKENS("envoy.cluster_name", "cluster", "cluster.$.**"),
    RULE_TOKENS("envoy.ext_authz_prefix", "cluster", "cluster.*.ext_authz.$.**"),
    RULE_TOKENS("envoy.ext_authz_prefix", "http", "http.*.ext_authz.$.**"),
    RULE_TOKENS("envoy.http_conn_manager_prefix", "http", "http.$.**"),
    RULE_TOKENS("envoy.virtual_host", "vhost", "vhost.$.**"),
    RULE_TOKENS("envoy.mongo_prefix", "mongo", "mongo.$.**"),
    RULE_TOKENS("envoy.route", "vhost", "vhost.*.route.$.**"),
    RULE_TOKENS("envoy.thrift_prefix", "thrift", "thrift.$.**"),
    RULE_TOKENS("envoy.redis_prefix", "redis", "redis.$.**"),
    RULE_TOKENS("envoy.local_http_ratelimit_prefix", NULL, "$.http_local_rate_limit.**"),
    RULE_TOKENS("envoy.local_network_ratelimit_prefix", "local_rate_limit",
                "local_rate_limit.$.**"),
    RULE_TOKENS("envoy.local_listener_ratelimit_prefix", "listener_local_ratelimit",
                "listener_local_ratelimit.$.**"),
    RULE_TOKENS("envoy.dns_filter_prefix", "dns_filter", "dns_filter.$.**"),
    RULE_TOKENS("envoy.connection_limit_prefix", "connection_limit", "connection_limit.$.**"),
    RULE_TOKENS("envoy.rbac_prefix", NULL, "$.rbac.**"),
    RULE_TOKENS("envoy.google_grpc_client_prefix", "grpc", "grpc.$.**"),
};

const size_t kb_tag_rule_count = KB_ARRAY_LEN(kb_tag_rules);
