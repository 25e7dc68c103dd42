/* SPDX-License-Identifier: Apache-2.0 */
/* Transport socket options tell pools of the same host apart. */
#include "proxy/upstream/pool_options.h"

#include "base/sock.h"

static bool texts_equal(const struct kb_str *a, size_t a_count, const struct kb_str *b,
                        size_t b_count)
{
    for (size_t i = 0; a_count == b_count && i < a_count; i++) {
        if (!kb_str_eq(a[i], b[i])) {
            return false;
        }
    }
    return a_count == b_count;
}

static bool sources_equal(const struct kb_sock_foreign_source *a,
                          const struct kb_sock_foreign_source *b)
{
    return a == b ||
           (a != NULL && b != NULL && a->mark == b->mark && kb_addr_eq(&a->addr, &b->addr));
}

static bool clients_equal(const struct kb_proxied_client *a, const struct kb_proxied_client *b)
{
    return a == b || (a != NULL && b != NULL && kb_addr_eq(&a->source, &b->source) &&
                      kb_addr_eq(&a->destination, &b->destination));
}

bool kb_pool_options_equal(const struct kb_transport_socket_options *a,
                           const struct kb_transport_socket_options *b)
{
    return a != NULL && b != NULL && a->connection_id == b->connection_id &&
           kb_str_eq(a->server_name, b->server_name) &&
           texts_equal(a->alpn, a->alpn_count, b->alpn, b->alpn_count) &&
           texts_equal(a->verify_sans, a->verify_san_count, b->verify_sans, b->verify_san_count) &&
           sources_equal(a->source, b->source) && clients_equal(a->client, b->client);
}

static const struct kb_str *texts_copy(const struct kb_str *texts, size_t count,
                                       struct kb_arena *arena)
{
    struct kb_str *copy = kb_arena_calloc(arena, (count + 1) * sizeof(*copy));

    for (size_t i = 0; i < count; i++) {
        copy[i] = kb_str_dup(arena, texts[i]);
    }
    return copy;
}

const struct kb_transport_socket_options *
kb_pool_options_copy(const struct kb_transport_socket_options *options, struct kb_arena *arena)
{
    struct kb_transport_socket_options *copy =
        KB_ARENA_NEW(arena, struct kb_transport_socket_options);

    *copy = *options;
    if (options->source != NULL) {
        struct kb_sock_foreign_source *source = KB_ARENA_NEW(arena, struct kb_sock_foreign_source);

        *source = *options->source;
        copy->source = source;
    }
    if (options->client != NULL) {
        struct kb_proxied_client *client = KB_ARENA_NEW(arena, struct kb_proxied_client);

        *client = *options->client;
        client->tlvs = kb_str_dup(arena, client->tlvs);
        copy->client = client;
    }
    copy->server_name = kb_str_dup(arena, options->server_name);
    copy->alpn =
        options->alpn == NULL ? NULL : texts_copy(options->alpn, options->alpn_count, arena);
    copy->verify_sans = options->verify_sans == NULL
                            ? NULL
                            : texts_copy(options->verify_sans, options->verify_san_count, arena);
    return copy;
}
