/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of envoy.filters.http.jwt_authn: providers, requirements, and how a request is held
 * against them. Everything is immutable and lives in the arena of the configuration. */
#pragma once

#include "base/map.h"
#include "proxy/api/http_filter.h"
#include "proxy/ext/common/jwt.h"

struct kb_jwt_location { /* from_headers */
    struct kb_str name;  /* lower case */
    struct kb_str prefix;
};

struct kb_jwt_claim_header {
    struct kb_str header; /* lower case */
    struct kb_str *path;
    size_t path_len;
};

struct kb_jwt_provider {
    struct kb_str name;
    struct kb_str issuer; /* empty: any */
    struct kb_str *audiences;
    size_t audience_count;
    struct kb_jwt_location *headers;
    size_t header_count;
    struct kb_str *params;
    size_t param_count;
    struct kb_str *cookies;
    size_t cookie_count;
    struct kb_jwks *jwks;
    uint64_t clock_skew_s;
    struct kb_str forward_payload_header; /* lower case; empty: none */
    struct kb_str payload_in_metadata;
    struct kb_str header_in_metadata;
    struct kb_str *space_delimited; /* claims that become lists */
    size_t space_delimited_count;
    struct kb_jwt_claim_header *claims;
    size_t claim_count;
    bool forward;
    bool pad_forward_payload_header;
    bool clear_route_cache;
};

enum kb_jwt_requirement_kind {
    KB_JWT_REQUIRE_PROVIDER,
    KB_JWT_REQUIRE_ANY,
    KB_JWT_REQUIRE_ALL,
    KB_JWT_REQUIRE_NOTHING,
    KB_JWT_ALLOW_MISSING,
    KB_JWT_ALLOW_MISSING_OR_FAILED,
};

struct kb_jwt_requirement {
    enum kb_jwt_requirement_kind kind;
    const struct kb_jwt_provider *
        *providers; /* PROVIDER: one; ALLOW_*: where tokens are looked for */
    size_t provider_count;
    struct kb_str *audiences; /* of provider_and_audiences, in place of the provider's */
    size_t audience_count;
    struct kb_jwt_requirement *inner; /* ANY, ALL */
    size_t inner_count;
};

struct kb_jwt_authn_config {
    KB_OBJ;
    struct kb_stat_group *stats;
    struct kb_jwt_provider *providers; /* by name */
    size_t provider_count;
    struct kb_route_config *rules;           /* its routes are named by their number */
    struct kb_jwt_requirement *requirements; /* of the rules, by number */
    size_t rule_count;
    struct kb_jwt_requirement *named; /* requirement_map */
    struct kb_str *names;
    size_t named_count;
    struct kb_str names_text; /* for errors */
    bool bypass_cors_preflight;
    bool strip_failure_response;
};
KB_OBJ_MAGIC(kb_jwt_authn_config, 0x4a575441);

/* Of a route. */
struct kb_jwt_authn_route {
    struct kb_str requirement; /* empty: none is asked for */
};

/* For the vtable: see kb_http_filter_ops. */
int kb_jwt_authn_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **config);
void kb_jwt_authn_config_destroy(void *config);
int kb_jwt_authn_route_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, void **config);
/* An audience as it is compared: without scheme and last slash. */
struct kb_str kb_jwt_audience(struct kb_str audience);

/* What a request's verification leaves: metadata to set in the end. */
struct kb_jwt_verification {
    const struct kb_jwt_authn_config *config;
    struct kb_stat_block *stats;
    struct kb_stream *stream;
    struct kb_header_map *headers;
    uint64_t now_s;
    Google__Protobuf__Struct *extracted; /* NULL: nothing */
    bool clear_route_cache;
};

/* jwt_authn_verify.c: holds the request against a requirement; headers are added and removed as the
 * providers of good tokens say. */
enum kb_jwt_status kb_jwt_requirement_verify(const struct kb_jwt_requirement *requirement,
                                             struct kb_jwt_verification *verification);
