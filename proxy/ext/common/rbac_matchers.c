/* SPDX-License-Identifier: Apache-2.0 */
/* Permissions and principals of RBAC policies: built from messages, asked for each request. */
#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/extensions/path/match/uri_template/v3/uri_template_match.pb-c.h"
#include "envoy/type/matcher/v3/filter_state.pb-c.h"
#include "envoy/type/matcher/v3/metadata.pb-c.h"
#include "envoy/type/matcher/v3/path.pb-c.h"
#include "envoy/type/v3/range.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/route.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/ext/common/rbac_engine.h"
#include "proxy/matcher/filter_state_match.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/metadata_match.h"
#include "proxy/router/uri_template.h"

#define RULE(name)       ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_##name
#define IDENTIFIER(name) ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_##name
#define PORT_END         65536 /* behind the last port */

typedef Envoy__Config__Rbac__V3__Permission permission_message;
typedef Envoy__Config__Rbac__V3__Principal principal_message;

/* ---- what permissions and principals share ---- */

static int header_init(struct kb_rbac_matcher *matcher,
                       Envoy__Config__Route__V3__HeaderMatcher *message, bool network,
                       const struct kb_match_build *build)
{
    matcher->kind = KB_RBAC_HEADER;
    if (network) {
        kb_diag_error(build->diag,
                      "Found header(name: \"%s\") rule,not supported by RBAC network "
                      "filter",
                      message->name);
        return KB_ECONFIG;
    }
    matcher->header = kb_header_matchers_create(&message, 1, "header", build);
    return matcher->header != NULL ? 0 : KB_ECONFIG;
}

static int string_init(struct kb_rbac_matcher *matcher, enum kb_rbac_kind kind,
                       const Envoy__Type__Matcher__V3__StringMatcher *message,
                       const struct kb_match_build *build)
{
    struct kb_string_matcher *string = KB_ARENA_NEW(build->arena, struct kb_string_matcher);

    matcher->kind = kind;
    matcher->string = string;
    return kb_string_matcher_init(string, message, build);
}

static int path_init(struct kb_rbac_matcher *matcher,
                     const Envoy__Type__Matcher__V3__PathMatcher *message,
                     const struct kb_match_build *build)
{
    if (message->path == NULL) {
        kb_diag_error(build->diag, "path: is required");
        return KB_ECONFIG;
    }
    return string_init(matcher, KB_RBAC_PATH, message->path, build);
}

static int range_init(struct kb_rbac_matcher *matcher, enum kb_rbac_kind kind,
                      const Envoy__Config__Core__V3__CidrRange *message,
                      const struct kb_match_build *build)
{
    struct kb_cidr *range = KB_ARENA_NEW(build->arena, struct kb_cidr);

    matcher->kind = kind;
    matcher->range = range;
    if (kb_cidr_init(range, kb_wkt_str(message->address_prefix),
                     kb_wkt_u32(message->prefix_len, 0)) != 0) {
        kb_diag_error(build->diag, "malformed IP address: %s", message->address_prefix);
        return KB_ECONFIG;
    }
    return 0;
}

static int metadata_init(struct kb_rbac_matcher *matcher, enum kb_rbac_kind kind,
                         const Envoy__Type__Matcher__V3__MetadataMatcher *message,
                         const struct kb_match_build *build)
{
    struct kb_metadata_matcher *metadata = KB_ARENA_NEW(build->arena, struct kb_metadata_matcher);

    matcher->kind = kind;
    matcher->metadata = metadata;
    if (message == NULL) {
        kb_diag_error(build->diag, "metadata_matcher: value is required");
        return KB_ECONFIG;
    }
    return kb_metadata_matcher_init(metadata, message, build);
}

static int sourced_init(struct kb_rbac_matcher *matcher,
                        const Envoy__Config__Rbac__V3__SourcedMetadata *message,
                        const struct kb_match_build *build)
{
    bool route = (int)message->metadata_source == ENVOY__CONFIG__RBAC__V3__METADATA_SOURCE__ROUTE;

    return metadata_init(matcher, route ? KB_RBAC_ROUTE_METADATA : KB_RBAC_METADATA,
                         message->metadata_matcher, build);
}

static int state_init(struct kb_rbac_matcher *matcher,
                      const Envoy__Type__Matcher__V3__FilterStateMatcher *message,
                      const struct kb_match_build *build)
{
    struct kb_filter_state_matcher *state =
        KB_ARENA_NEW(build->arena, struct kb_filter_state_matcher);

    matcher->kind = KB_RBAC_FILTER_STATE;
    matcher->state = state;
    return kb_filter_state_matcher_init(state, message, build);
}

/* A rule that is not understood: the whole configuration is refused. */
static int unknown(const struct kb_match_build *build, const char *name,
                   const Google__Protobuf__Any *config)
{
    struct kb_str type = config != NULL ? kb_any_inner_name(config, build->arena) : KB_STR("");

    kb_diag_error(build->diag,
                  "Didn't find a registered implementation for '%s' with type URL: '%.*s'", name,
                  KB_STR_ARG(type));
    return KB_ECONFIG;
}

static struct kb_rbac_matcher *inner_create(struct kb_rbac_matcher *matcher, enum kb_rbac_kind kind,
                                            size_t count, const struct kb_match_build *build)
{
    matcher->kind = kind;
    matcher->inner.count = count;
    matcher->inner.items = kb_arena_calloc(build->arena, (count + 1) * sizeof(*matcher));
    return matcher->inner.items;
}

/* ---- permissions ---- */

static int permissions_init(struct kb_rbac_matcher *matcher, enum kb_rbac_kind kind,
                            const Envoy__Config__Rbac__V3__Permission__Set *set, bool network,
                            const struct kb_match_build *build)
{
    struct kb_rbac_matcher *items = inner_create(matcher, kind, set->n_rules, build);
    int rc = 0;

    for (size_t i = 0; i < set->n_rules; i++) {
        kb_diag_push_index(build->diag, "rules", i);
        rc |= kb_rbac_permission_init(&items[i], set->rules[i], network, build);
        kb_diag_pop(build->diag);
    }
    return rc != 0 ? KB_ECONFIG : 0;
}

static int port_range_init(struct kb_rbac_matcher *matcher,
                           const Envoy__Type__V3__Int32Range *message,
                           const struct kb_match_build *build)
{
    matcher->kind = KB_RBAC_DESTINATION_PORT;
    if (message->start < 0 || message->start > PORT_END) {
        kb_diag_error(build->diag, "range start %d is out of bounds", message->start);
        return KB_ECONFIG;
    }
    if (message->end < 0 || message->end > PORT_END) {
        kb_diag_error(build->diag, "range end %d is out of bounds", message->end);
        return KB_ECONFIG;
    }
    if (message->start >= message->end) {
        kb_diag_error(build->diag, "range start %d cannot be greater or equal than range end %d",
                      message->start, message->end);
        return KB_ECONFIG;
    }
    matcher->port.start = (uint32_t)message->start;
    matcher->port.end = (uint32_t)message->end;
    return 0;
}

static int uri_template_init(struct kb_rbac_matcher *matcher,
                             const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                             const struct kb_match_build *build)
{
    const Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig *config;
    struct kb_str type = message->typed_config != NULL
                             ? kb_any_inner_name(message->typed_config, build->arena)
                             : KB_STR("");

    matcher->kind = KB_RBAC_URI_TEMPLATE;
    if (!kb_str_eq(type,
                   KB_STR("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"))) {
        return unknown(build, message->name, message->typed_config);
    }
    config =
        KB_ANY_UNPACK(message->typed_config,
                      envoy__extensions__path__match__uri_template__v3__uri_template_match_config,
                      Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig,
                      build->arena, build->diag);
    if (config == NULL) {
        return KB_ECONFIG;
    }
    matcher->uri_template = kb_uri_template_create(kb_str_from_cstr(config->path_template), build);
    return matcher->uri_template != NULL ? 0 : KB_ECONFIG;
}

static int rule_init(struct kb_rbac_matcher *matcher, const permission_message *message,
                     bool network, const struct kb_match_build *build)
{
    switch ((int)message->rule_case) {
    case RULE(AND_RULES):
        return permissions_init(matcher, KB_RBAC_AND, message->and_rules, network, build);
    case RULE(OR_RULES):
        return permissions_init(matcher, KB_RBAC_OR, message->or_rules, network, build);
    case RULE(NOT_RULE):
        return kb_rbac_permission_init(inner_create(matcher, KB_RBAC_NOT, 1, build),
                                       message->not_rule, network, build);
    case RULE(ANY):
        matcher->kind = KB_RBAC_ANY; /* whatever its value, as in Envoy, which allows true only */
        return 0;
    case RULE(HEADER):
        return header_init(matcher, message->header, network, build);
    case RULE(URL_PATH):
        return path_init(matcher, message->url_path, build);
    case RULE(URI_TEMPLATE):
        return uri_template_init(matcher, message->uri_template, build);
    case RULE(DESTINATION_IP):
        return range_init(matcher, KB_RBAC_DESTINATION_IP, message->destination_ip, build);
    case RULE(DESTINATION_PORT):
        matcher->kind = KB_RBAC_DESTINATION_PORT;
        matcher->port.start = message->destination_port;
        matcher->port.end = message->destination_port + 1;
        return 0;
    case RULE(DESTINATION_PORT_RANGE):
        return port_range_init(matcher, message->destination_port_range, build);
    case RULE(METADATA):
        return metadata_init(matcher, KB_RBAC_METADATA, message->metadata, build);
    case RULE(SOURCED_METADATA):
        return sourced_init(matcher, message->sourced_metadata, build);
    case RULE(REQUESTED_SERVER_NAME):
        return string_init(matcher, KB_RBAC_SERVER_NAME, message->requested_server_name, build);
    case RULE(MATCHER):
        return unknown(build, message->matcher->name, message->matcher->typed_config);
    default:
        kb_diag_error(build->diag, "rule: is required, or is not known here");
        return KB_ECONFIG;
    }
}

/* The name of a oneof's member, for paths of errors. */
static const char *member_name(const ProtobufCMessage *message, int number)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(message->descriptor, (unsigned)number);

    return field != NULL ? field->name : "rule";
}

int kb_rbac_permission_init(struct kb_rbac_matcher *matcher, const permission_message *message,
                            bool network, const struct kb_match_build *build)
{
    int rc;

    kb_diag_push(build->diag, member_name(&message->base, (int)message->rule_case));
    rc = rule_init(matcher, message, network, build);
    kb_diag_pop(build->diag);
    return rc;
}

/* ---- principals ---- */

static int principals_init(struct kb_rbac_matcher *matcher, enum kb_rbac_kind kind,
                           const Envoy__Config__Rbac__V3__Principal__Set *set, bool network,
                           const struct kb_match_build *build)
{
    struct kb_rbac_matcher *items = inner_create(matcher, kind, set->n_ids, build);
    int rc = 0;

    for (size_t i = 0; i < set->n_ids; i++) {
        kb_diag_push_index(build->diag, "ids", i);
        rc |= kb_rbac_principal_init(&items[i], set->ids[i], network, build);
        kb_diag_pop(build->diag);
    }
    return rc != 0 ? KB_ECONFIG : 0;
}

static int authenticated_init(struct kb_rbac_matcher *matcher,
                              const Envoy__Config__Rbac__V3__Principal__Authenticated *message,
                              const struct kb_match_build *build)
{
    int rc;

    matcher->kind = KB_RBAC_AUTHENTICATED;
    matcher->string = NULL;
    if (message->principal_name == NULL) {
        return 0;
    }
    kb_diag_push(build->diag, "principal_name");
    rc = string_init(matcher, KB_RBAC_AUTHENTICATED, message->principal_name, build);
    kb_diag_pop(build->diag);
    return rc;
}

static int identifier_init(struct kb_rbac_matcher *matcher, const principal_message *message,
                           bool network, const struct kb_match_build *build)
{
    switch ((int)message->identifier_case) {
    case IDENTIFIER(AND_IDS):
        return principals_init(matcher, KB_RBAC_AND, message->and_ids, network, build);
    case IDENTIFIER(OR_IDS):
        return principals_init(matcher, KB_RBAC_OR, message->or_ids, network, build);
    case IDENTIFIER(NOT_ID):
        return kb_rbac_principal_init(inner_create(matcher, KB_RBAC_NOT, 1, build), message->not_id,
                                      network, build);
    case IDENTIFIER(ANY):
        matcher->kind = KB_RBAC_ANY;
        return 0;
    case IDENTIFIER(AUTHENTICATED):
        return authenticated_init(matcher, message->authenticated, build);
    case IDENTIFIER(SOURCE_IP):
        return range_init(matcher, KB_RBAC_SOURCE_IP, message->source_ip, build);
    case IDENTIFIER(DIRECT_REMOTE_IP):
        return range_init(matcher, KB_RBAC_DIRECT_REMOTE_IP, message->direct_remote_ip, build);
    case IDENTIFIER(REMOTE_IP):
        return range_init(matcher, KB_RBAC_REMOTE_IP, message->remote_ip, build);
    case IDENTIFIER(HEADER):
        return header_init(matcher, message->header, network, build);
    case IDENTIFIER(URL_PATH):
        return path_init(matcher, message->url_path, build);
    case IDENTIFIER(METADATA):
        return metadata_init(matcher, KB_RBAC_METADATA, message->metadata, build);
    case IDENTIFIER(SOURCED_METADATA):
        return sourced_init(matcher, message->sourced_metadata, build);
    case IDENTIFIER(FILTER_STATE):
        return state_init(matcher, message->filter_state, build);
    case IDENTIFIER(CUSTOM):
        return unknown(build, message->custom->name, message->custom->typed_config);
    default:
        kb_diag_error(build->diag, "identifier: is required, or is not known here");
        return KB_ECONFIG;
    }
}

int kb_rbac_principal_init(struct kb_rbac_matcher *matcher, const principal_message *message,
                           bool network, const struct kb_match_build *build)
{
    int rc;

    kb_diag_push(build->diag, member_name(&message->base, (int)message->identifier_case));
    rc = identifier_init(matcher, message, network, build);
    kb_diag_pop(build->diag);
    return rc;
}

/* ---- matching ---- */

static bool inner_match(const struct kb_rbac_matcher *matcher, const struct kb_rbac_input *input,
                        bool all)
{
    for (size_t i = 0; i < matcher->inner.count; i++) {
        if (kb_rbac_matcher_match(&matcher->inner.items[i], input) != all) {
            return !all;
        }
    }
    return all;
}

static bool any_san(const struct kb_string_matcher *matcher,
                    const struct kb_ssl_connection_info *ssl, enum kb_ssl_list what)
{
    size_t count;
    const struct kb_str *sans = kb_ssl_list(ssl, what, &count);

    for (size_t i = 0; i < count; i++) {
        if (kb_string_matcher_match(matcher, sans[i])) {
            return true;
        }
    }
    return false;
}

/* Any certificate's URI, else DNS name, else the subject. */
static bool authenticated_match(const struct kb_rbac_matcher *matcher,
                                const struct kb_ssl_connection_info *ssl)
{
    if (ssl == NULL || matcher->string == NULL) {
        return ssl != NULL;
    }
    return any_san(matcher->string, ssl, KB_SSL_PEER_URI_SANS) ||
           any_san(matcher->string, ssl, KB_SSL_PEER_DNS_SANS) ||
           kb_string_matcher_match(matcher->string, kb_ssl_text(ssl, KB_SSL_PEER_SUBJECT));
}

static struct kb_str path_of(const struct kb_header_map *headers)
{
    for (size_t i = 0; i < headers->path.len; i++) {
        if (headers->path.p[i] == '?' || headers->path.p[i] == '#') {
            return kb_str_first(headers->path, i);
        }
    }
    return headers->path;
}

static bool port_match(const struct kb_rbac_matcher *matcher, const struct kb_addr *local)
{
    uint32_t port;

    if (!kb_addr_is_ip(local)) {
        return false;
    }
    port = kb_addr_port(local);
    return matcher->port.start <= port && port < matcher->port.end;
}

bool kb_rbac_matcher_match(const struct kb_rbac_matcher *matcher, const struct kb_rbac_input *input)
{
    const struct kb_stream_info *info = input->info;
    const struct kb_connection_info *connection = info->connection;

    switch (matcher->kind) {
    case KB_RBAC_ANY:
        return true;
    case KB_RBAC_AND:
        return inner_match(matcher, input, true);
    case KB_RBAC_OR:
        return inner_match(matcher, input, false);
    case KB_RBAC_NOT:
        return !kb_rbac_matcher_match(matcher->inner.items, input);
    case KB_RBAC_HEADER:
        return kb_header_matcher_match(matcher->header, input->headers);
    case KB_RBAC_PATH:
        return input->headers->path.p != NULL &&
               kb_string_matcher_match(matcher->string, path_of(input->headers));
    case KB_RBAC_URI_TEMPLATE:
        return kb_uri_template_match(matcher->uri_template, path_of(input->headers));
    case KB_RBAC_DESTINATION_IP:
        return kb_cidr_contains(matcher->range, &connection->local);
    case KB_RBAC_DESTINATION_PORT:
        return port_match(matcher, &connection->local);
    case KB_RBAC_SERVER_NAME:
        return kb_string_matcher_match(matcher->string, connection->requested_server_name);
    case KB_RBAC_METADATA:
        return kb_metadata_matcher_match(matcher->metadata, kb_stream_info_metadata(info));
    case KB_RBAC_ROUTE_METADATA:
        return info->route != NULL && kb_metadata_matcher_match_packed(
                                          matcher->metadata, info->route->metadata, input->arena);
    case KB_RBAC_AUTHENTICATED:
        return authenticated_match(matcher, connection->ssl);
    case KB_RBAC_SOURCE_IP:
        return kb_cidr_contains(matcher->range, &connection->remote);
    case KB_RBAC_DIRECT_REMOTE_IP:
        return kb_cidr_contains(matcher->range, &connection->direct_remote);
    case KB_RBAC_REMOTE_IP:
        return kb_cidr_contains(matcher->range, &info->remote);
    case KB_RBAC_FILTER_STATE:
        return kb_filter_state_matcher_match(matcher->state, info, input->arena);
    }
    return false;
}
