/* SPDX-License-Identifier: Apache-2.0 */
/* Holds a request against a requirement: finds its tokens, verifies each, and does with a good one
 * what its provider says (Envoy Authenticator, Extractor, Verifier). */
#include <stdio.h>

#include "base/base64.h"
#include "proto/pb.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/stats.h"
#include "proxy/ext/http/jwt_authn.h"
#include "proxy/matcher/cookie_match.h"
#include "proxy/matcher/query_match.h"

#define TOKENS_MAX 16 /* of one request; more are refused */

/* Where a token stood. */
struct token {
    struct kb_str text;
    struct kb_str header;              /* its name; empty: not a header */
    struct kb_str param;               /* empty: not a parameter */
    struct kb_str issuers[TOKENS_MAX]; /* whose tokens may stand there */
    size_t issuer_count;
    bool any_issuer;
};

struct tokens {
    struct token items[TOKENS_MAX];
    size_t count;
    bool too_many;
};

/* ---- finding ---- */

static bool issuer_allowed(const struct token *token, struct kb_str issuer)
{
    for (size_t i = 0; i < token->issuer_count; i++) {
        if (kb_str_eq(token->issuers[i], issuer)) {
            return true;
        }
    }
    return token->any_issuer;
}

static void issuer_add(struct token *token, struct kb_str issuer)
{
    if (issuer.len == 0) {
        token->any_issuer = true;
    } else if (token->issuer_count < TOKENS_MAX) {
        token->issuers[token->issuer_count++] = issuer;
    }
}

/* A place that several providers name gives its token once. */
static void token_add(struct tokens *tokens, struct kb_str text, struct kb_str header,
                      struct kb_str param, struct kb_str issuer)
{
    struct token *token;

    for (size_t i = 0; i < tokens->count; i++) {
        token = &tokens->items[i];
        if (token->text.p == text.p && token->text.len == text.len) {
            issuer_add(token, issuer);
            return;
        }
    }
    if (tokens->count == TOKENS_MAX) {
        tokens->too_many = true;
        return;
    }
    token = &tokens->items[tokens->count++];
    *token = (struct token){.text = text, .header = header, .param = param};
    issuer_add(token, issuer);
}

static bool token_char(char c)
{
    return kb_ascii_is_alpha(c) || kb_ascii_is_digit(c) || c == '-' || c == '_' || c == '.';
}

/* What follows the prefix; p NULL: the prefix is not in it. */
static struct kb_str after_prefix(struct kb_str value, struct kb_str prefix)
{
    ptrdiff_t at;

    if (prefix.len == 0) {
        return value;
    }
    at = kb_str_find(value, prefix);
    if (at < 0) {
        return KB_STR_NULL;
    }
    for (size_t i = (size_t)at + prefix.len; i < value.len; i++) {
        if (token_char(value.p[i])) {
            return kb_str_from(value, i);
        }
    }
    return value;
}

static void headers_look(struct tokens *tokens, const struct kb_header_map *headers,
                         const struct kb_jwt_provider *provider)
{
    for (size_t i = 0; i < provider->header_count; i++) {
        const struct kb_jwt_location *location = &provider->headers[i];

        KB_HEADER_FOREACH(header, headers)
        {
            struct kb_str text = KB_STR_NULL;

            if (kb_str_eq(header->name, location->name)) {
                text = after_prefix(header->value, location->prefix);
            }
            if (text.p != NULL) {
                token_add(tokens, text, location->name, KB_STR(""), provider->issuer);
            }
        }
    }
}

static void others_look(struct tokens *tokens, const struct kb_header_map *headers,
                        const struct kb_jwt_provider *provider)
{
    for (size_t i = 0; i < provider->param_count; i++) {
        struct kb_str text = kb_query_first_value(headers->path, provider->params[i]);

        if (text.p != NULL) {
            token_add(tokens, text, KB_STR(""), provider->params[i], provider->issuer);
        }
    }
    for (size_t i = 0; i < provider->cookie_count; i++) {
        struct kb_str text = kb_cookie_value(headers, provider->cookies[i]);

        if (text.p != NULL) {
            token_add(tokens, text, KB_STR(""), KB_STR(""), provider->issuer);
        }
    }
}

/* Nobody but the proxy says what a token says. */
static void headers_sanitise(struct kb_header_map *headers, const struct kb_jwt_provider *provider)
{
    if (provider->forward_payload_header.len > 0) {
        kb_header_map_remove(headers, provider->forward_payload_header);
    }
    for (size_t i = 0; i < provider->claim_count; i++) {
        kb_header_map_remove(headers, provider->claims[i].header);
    }
}

/* ---- what a good token does ---- */

static struct kb_str claim_text(const Google__Protobuf__Value *value, struct kb_arena *arena)
{
    double number;

    switch ((int)value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        return kb_str_from_cstr(value->string_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        return value->bool_value ? KB_STR("true") : KB_STR("false");
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        number = value->number_value;
        if (number >= 0 && number < 18446744073709551616.0 && (double)(uint64_t)number >= number) {
            return kb_str_printf(arena, "%llu", (unsigned long long)number);
        }
        return kb_str_printf(arena, "%f", number);
    default:
        return KB_STR("");
    }
}

static const Google__Protobuf__Value *claim_find(const struct kb_jwt *jwt,
                                                 const struct kb_jwt_claim_header *claim)
{
    const Google__Protobuf__Struct *at = jwt->payload;
    const Google__Protobuf__Value *value = NULL;

    for (size_t i = 0; i < claim->path_len; i++) {
        value = at != NULL ? kb_struct_get(at, claim->path[i]) : NULL;
        if (value == NULL) {
            return NULL;
        }
        at = value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE ? value->struct_value
                                                                            : NULL;
    }
    return value;
}

static void claims_forward(const struct kb_jwt_verification *verification,
                           const struct kb_jwt_provider *provider, const struct kb_jwt *jwt)
{
    struct kb_arena *arena = kb_stream_arena(verification->stream);

    for (size_t i = 0; i < provider->claim_count; i++) {
        const Google__Protobuf__Value *value = claim_find(jwt, &provider->claims[i]);
        struct kb_str text = value != NULL ? claim_text(value, arena) : KB_STR("");

        if (text.len > 0 && memchr(text.p, '\r', text.len) == NULL &&
            memchr(text.p, '\n', text.len) == NULL) {
            kb_header_map_append(verification->headers, provider->claims[i].header, text);
        }
    }
}

static void payload_forward(const struct kb_jwt_verification *verification,
                            const struct kb_jwt_provider *provider, const struct kb_jwt *jwt)
{
    struct kb_str text = jwt->payload_text;
    static const char *const pads[] = {"", "===", "==", "="};

    if (provider->forward_payload_header.len == 0) {
        return;
    }
    if (provider->pad_forward_payload_header) {
        text = kb_str_printf(kb_stream_arena(verification->stream), "%.*s%s", KB_STR_ARG(text),
                             pads[text.len % 4]);
    }
    kb_header_map_append(verification->headers, provider->forward_payload_header, text);
}

/* The path without the parameter. */
static void param_remove(const struct kb_jwt_verification *verification, struct kb_str param)
{
    struct kb_str path = verification->headers->path;
    ptrdiff_t mark = kb_str_find_char(path, '?');
    char *out = kb_arena_alloc(kb_stream_arena(verification->stream), path.len + 1, 1);
    struct kb_str rest, pair;
    size_t n;

    if (mark < 0) {
        return;
    }
    n = (size_t)mark;
    memcpy(out, path.p, n);
    rest = kb_str_from(path, n + 1);
    while (kb_str_next_token(&rest, '&', &pair)) {
        ptrdiff_t equals = kb_str_find_char(pair, '=');
        struct kb_str key = equals >= 0 ? kb_str_first(pair, (size_t)equals) : pair;

        if (!kb_str_eq(key, param)) {
            out[n] = n == (size_t)mark ? '?' : '&';
            memcpy(out + n + 1, pair.p, pair.len);
            n += 1 + pair.len;
        }
    }
    verification->headers->path = kb_str_make(out, n);
}

static Google__Protobuf__Value *list_of_words(const char *text, struct kb_arena *arena)
{
    Google__Protobuf__Value *value = (void *)kb_pb_new(&google__protobuf__value__descriptor, arena);
    Google__Protobuf__ListValue *list =
        (void *)kb_pb_new(&google__protobuf__list_value__descriptor, arena);
    struct kb_str rest = kb_str_from_cstr(text);
    struct kb_str word;

    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    value->list_value = list;
    list->values = kb_arena_calloc(arena, (rest.len / 2 + 2) * sizeof(*list->values));
    while (kb_str_next_token(&rest, ' ', &word)) {
        if (word.len > 0) {
            Google__Protobuf__Value *item =
                (void *)kb_pb_new(&google__protobuf__value__descriptor, arena);

            item->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
            item->string_value = (char *)(uintptr_t)kb_str_dup(arena, word).p;
            list->values[list->n_values++] = item;
        }
    }
    return value;
}

/* The payload with its lists of words as lists. */
static Google__Protobuf__Struct *payload_normalise(const struct kb_jwt_provider *provider,
                                                   const struct kb_jwt *jwt, struct kb_arena *arena)
{
    Google__Protobuf__Struct *copy = (void *)kb_pb_copy(&jwt->payload->base, arena);

    for (size_t i = 0; i < copy->n_fields; i++) {
        Google__Protobuf__Struct__FieldsEntry *entry = copy->fields[i];

        for (size_t j = 0; j < provider->space_delimited_count; j++) {
            if (kb_str_eq(kb_str_from_cstr(entry->key), provider->space_delimited[j]) &&
                entry->value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
                entry->value = list_of_words(entry->value->string_value, arena);
            }
        }
    }
    return copy;
}

/* Puts a struct among what is set as metadata in the end. */
static void extracted_add(struct kb_jwt_verification *verification, struct kb_str key,
                          Google__Protobuf__Struct *map)
{
    struct kb_arena *arena = kb_stream_arena(verification->stream);
    Google__Protobuf__Struct *all = verification->extracted;
    Google__Protobuf__Struct__FieldsEntry *entry =
        (void *)kb_pb_new(&google__protobuf__struct__fields_entry__descriptor, arena);
    Google__Protobuf__Struct__FieldsEntry **grown;

    if (all == NULL) {
        all = (void *)kb_pb_new(&google__protobuf__struct__descriptor, arena);
        verification->extracted = all;
    }
    entry->key = (char *)(uintptr_t)kb_str_dup(arena, key).p;
    entry->value = (void *)kb_pb_new(&google__protobuf__value__descriptor, arena);
    entry->value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    entry->value->struct_value = map;
    grown = kb_arena_calloc(arena, (all->n_fields + 1) * sizeof(*grown));
    if (all->n_fields > 0) {
        memcpy(grown, all->fields, all->n_fields * sizeof(*grown));
    }
    grown[all->n_fields] = entry;
    all->fields = grown;
    all->n_fields++;
}

static void good_token(struct kb_jwt_verification *verification,
                       const struct kb_jwt_provider *provider, const struct token *token,
                       const struct kb_jwt *jwt)
{
    struct kb_arena *arena = kb_stream_arena(verification->stream);

    payload_forward(verification, provider, jwt);
    claims_forward(verification, provider, jwt);
    if (!provider->forward && token->header.len > 0) {
        kb_header_map_remove(verification->headers, token->header);
    } else if (!provider->forward && token->param.len > 0) {
        param_remove(verification, token->param);
    }
    if (provider->header_in_metadata.len > 0) {
        extracted_add(verification, provider->header_in_metadata,
                      (void *)kb_pb_copy(&jwt->header->base, arena));
    }
    if (provider->payload_in_metadata.len > 0) {
        extracted_add(verification, provider->payload_in_metadata,
                      payload_normalise(provider, jwt, arena));
    }
    verification->clear_route_cache |= provider->clear_route_cache;
}

/* ---- verifying ---- */

static bool audiences_allowed(const struct kb_str *allowed, size_t count, const struct kb_jwt *jwt)
{
    for (size_t i = 0; i < jwt->audience_count && count > 0; i++) {
        struct kb_str audience = kb_jwt_audience(jwt->audiences[i]);

        for (size_t j = 0; j < count; j++) {
            if (kb_str_eq(allowed[j], audience)) {
                return true;
            }
        }
    }
    return count == 0;
}

/* The first provider of this issuer, else the first of any. */
static const struct kb_jwt_provider *provider_of(const struct kb_jwt_authn_config *config,
                                                 struct kb_str issuer)
{
    const struct kb_jwt_provider *any = NULL;

    for (size_t i = 0; i < config->provider_count; i++) {
        if (config->providers[i].issuer.len == 0) {
            any = any != NULL ? any : &config->providers[i];
        } else if (kb_str_eq(config->providers[i].issuer, issuer)) {
            return &config->providers[i];
        }
    }
    return any;
}

static enum kb_jwt_status token_verify(const struct kb_jwt_requirement *requirement,
                                       struct kb_jwt_verification *verification,
                                       const struct token *token)
{
    const struct kb_jwt_provider *provider =
        requirement->kind == KB_JWT_REQUIRE_PROVIDER ? requirement->providers[0] : NULL;
    bool own = requirement->audience_count > 0;
    enum kb_jwt_status status;
    struct kb_jwt jwt;

    if (provider != NULL) {
        kb_stat_inc(verification->stats, KB_STAT_JWT_AUTHN_JWT_CACHE_MISS);
    }
    status = kb_jwt_parse(token->text, kb_stream_arena(verification->stream), &jwt);
    if (status != KB_JWT_OK) {
        return status;
    }
    if (!issuer_allowed(token, jwt.issuer)) {
        return KB_JWT_UNKNOWN_ISSUER;
    }
    provider = provider != NULL ? provider : provider_of(verification->config, jwt.issuer);
    if (provider == NULL) {
        return KB_JWT_UNKNOWN_ISSUER;
    }
    status = kb_jwt_check_time(&jwt, verification->now_s, provider->clock_skew_s);
    if (status != KB_JWT_OK) {
        return status;
    }
    if (!audiences_allowed(own ? requirement->audiences : provider->audiences,
                           own ? requirement->audience_count : provider->audience_count, &jwt)) {
        return KB_JWT_AUDIENCE_NOT_ALLOWED;
    }
    status = kb_jwks_verify(provider->jwks, &jwt);
    if (status == KB_JWT_OK) {
        good_token(verification, provider, token, &jwt);
    }
    return status;
}

/* All tokens where the providers look for them, the last found first; unless one may be missing or
 * fail, all have to be good. */
static enum kb_jwt_status tokens_verify(const struct kb_jwt_requirement *requirement,
                                        struct kb_jwt_verification *verification)
{
    bool may_fail = requirement->kind == KB_JWT_ALLOW_MISSING_OR_FAILED;
    bool may_miss = may_fail || requirement->kind == KB_JWT_ALLOW_MISSING;
    enum kb_jwt_status status = KB_JWT_MISSING;
    struct tokens *tokens = KB_ARENA_NEW(kb_stream_arena(verification->stream), struct tokens);

    for (size_t i = 0; i < requirement->provider_count; i++) {
        headers_sanitise(verification->headers, requirement->providers[i]);
    }
    for (size_t i = 0; i < requirement->provider_count; i++) {
        headers_look(tokens, verification->headers, requirement->providers[i]);
    }
    for (size_t i = 0; i < requirement->provider_count; i++) {
        others_look(tokens, verification->headers, requirement->providers[i]);
    }
    if (tokens->too_many) {
        return may_fail ? KB_JWT_OK : KB_JWT_VERIFICATION_FAIL;
    }
    for (size_t i = tokens->count; i-- > 0;) {
        status = token_verify(requirement, verification, &tokens->items[i]);
        if (status != KB_JWT_OK && !may_miss) {
            break;
        }
    }
    return may_fail || (may_miss && status == KB_JWT_MISSING) ? KB_JWT_OK : status;
}

static enum kb_jwt_status any_verify(const struct kb_jwt_requirement *requirement,
                                     struct kb_jwt_verification *verification)
{
    enum kb_jwt_status shown = KB_JWT_OK;

    for (size_t i = 0; i < requirement->inner_count; i++) {
        enum kb_jwt_status status = kb_jwt_requirement_verify(&requirement->inner[i], verification);

        if (status == KB_JWT_OK) {
            return KB_JWT_OK;
        }
        /* What a token is wrong in says more than that there is none for a provider. */
        if (shown == KB_JWT_OK || (status != KB_JWT_MISSING && status != KB_JWT_UNKNOWN_ISSUER)) {
            shown = status;
        }
    }
    return shown;
}

static enum kb_jwt_status all_verify(const struct kb_jwt_requirement *requirement,
                                     struct kb_jwt_verification *verification)
{
    for (size_t i = 0; i < requirement->inner_count; i++) {
        enum kb_jwt_status status = kb_jwt_requirement_verify(&requirement->inner[i], verification);

        if (status != KB_JWT_OK) {
            return status;
        }
    }
    return KB_JWT_OK;
}

enum kb_jwt_status kb_jwt_requirement_verify(const struct kb_jwt_requirement *requirement,
                                             struct kb_jwt_verification *verification)
{
    switch (requirement->kind) {
    case KB_JWT_REQUIRE_ANY:
        return any_verify(requirement, verification);
    case KB_JWT_REQUIRE_ALL:
        return all_verify(requirement, verification);
    case KB_JWT_REQUIRE_NOTHING:
        return KB_JWT_OK;
    case KB_JWT_REQUIRE_PROVIDER:
    case KB_JWT_ALLOW_MISSING:
    case KB_JWT_ALLOW_MISSING_OR_FAILED:
        return tokens_verify(requirement, verification);
    }
    return KB_JWT_VERIFICATION_FAIL;
}
