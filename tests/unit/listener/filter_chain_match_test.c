/* SPDX-License-Identifier: Apache-2.0 */
/* Which filter chain a connection gets: Envoy's order of properties, the most specific first, and
 * no way back. Rows and columns of a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "proxy/listener/listener.h"

#define CHAINS_MAX 8

/* A chain in short; NULL and 0 leave open. */
struct chain_row {
    const char *name;
    uint16_t port;
    const char *destination; /* "10.0.0.0/8" */
    const char *server_name; /* ".x" for "*.x" */
    const char *transport;
    const char *protocol;
    const char *source;
    uint8_t source_type;
    uint32_t source_port;
};

/* A connection and the chain that it should get. */
struct connection_row {
    const char *local, *remote; /* "1.2.3.4 80" */
    const char *server_name;
    const char *transport;
    const char *protocols[3];
    const char *chain; /* NULL: the default one */
};

static struct kb_filter_chain chains[CHAINS_MAX];
static struct kb_filter_chain *ordered[CHAINS_MAX];
static struct kb_filter_chain default_chain;

static struct kb_cidr *range(const char *text, struct kb_cidr *cidr)
{
    struct kb_str s = kb_str_from_cstr(text);
    ptrdiff_t slash = kb_str_find_char(s, '/');

    assert_int_equal(kb_cidr_init(cidr, kb_str_first(s, (size_t)slash),
                                  (uint32_t)strtoul(text + slash + 1, NULL, 10)),
                     0);
    return cidr;
}

static struct kb_addr address(const char *text)
{
    struct kb_str s = kb_str_from_cstr(text);
    ptrdiff_t blank = kb_str_find_char(s, ' ');
    struct kb_addr addr;

    assert_int_equal(kb_addr_from_ip(&addr, kb_str_first(s, (size_t)blank),
                                     (uint16_t)strtoul(text + blank + 1, NULL, 10)),
                     0);
    return addr;
}

static int by_port(const void *a, const void *b)
{
    const struct kb_filter_chain *x = *(struct kb_filter_chain *const *)a;
    const struct kb_filter_chain *y = *(struct kb_filter_chain *const *)b;

    return (int)x->match.destination_port - (int)y->match.destination_port;
}

static void listener_make(struct kb_listener *listener, const struct chain_row *rows, size_t count)
{
    static struct kb_cidr ranges[CHAINS_MAX][2];
    static struct kb_str texts[CHAINS_MAX][2];
    static uint32_t ports[CHAINS_MAX];

    memset(listener, 0, sizeof(*listener));
    memset(chains, 0, sizeof(chains));
    for (size_t i = 0; i < count; i++) {
        struct kb_filter_chain_match *match = &chains[i].match;

        chains[i].name = kb_str_from_cstr(rows[i].name);
        match->has_destination_port = rows[i].port != 0;
        match->destination_port = rows[i].port;
        match->transport_protocol =
            kb_str_from_cstr(rows[i].transport != NULL ? rows[i].transport : "");
        match->source_type = rows[i].source_type;
        if (rows[i].destination != NULL) {
            match->prefix_ranges = range(rows[i].destination, &ranges[i][0]);
            match->prefix_range_count = 1;
        }
        if (rows[i].source != NULL) {
            match->source_ranges = range(rows[i].source, &ranges[i][1]);
            match->source_range_count = 1;
        }
        if (rows[i].server_name != NULL) {
            texts[i][0] = kb_str_from_cstr(rows[i].server_name);
            match->server_names = &texts[i][0];
            match->server_name_count = 1;
        }
        if (rows[i].protocol != NULL) {
            texts[i][1] = kb_str_from_cstr(rows[i].protocol);
            match->application_protocols = &texts[i][1];
            match->application_protocol_count = 1;
        }
        ports[i] = rows[i].source_port;
        match->source_ports = &ports[i];
        match->source_port_count = rows[i].source_port != 0;
        ordered[i] = &chains[i];
    }
    qsort(ordered, count, sizeof(ordered[0]), by_port);
    listener->chains = ordered;
    listener->chain_count = count;
    listener->default_chain = &default_chain;
    default_chain.name = KB_STR("default");
}

static void check(const struct kb_listener *listener, const struct connection_row *row)
{
    struct kb_connection_info info;
    struct kb_str protocols[3];
    struct kb_sniffed sniffed = {.application_protocols = protocols};
    const struct kb_filter_chain *chain;

    memset(&info, 0, sizeof(info));
    info.local = address(row->local);
    info.remote = address(row->remote != NULL ? row->remote : "9.9.9.9 1000");
    info.direct_remote = info.remote;
    sniffed.server_name = kb_str_from_cstr(row->server_name != NULL ? row->server_name : "");
    sniffed.transport_protocol = kb_str_from_cstr(row->transport != NULL ? row->transport : "");
    while (sniffed.application_protocol_count < 3 &&
           row->protocols[sniffed.application_protocol_count] != NULL) {
        protocols[sniffed.application_protocol_count] =
            kb_str_from_cstr(row->protocols[sniffed.application_protocol_count]);
        sniffed.application_protocol_count++;
    }
    chain = kb_filter_chain_find(listener, &info, &sniffed);
    assert_non_null(chain);
    if (!kb_str_eq(chain->name, kb_str_from_cstr(row->chain != NULL ? row->chain : "default"))) {
        fail_msg("%s: chain %.*s instead of %s", row->local, KB_STR_ARG(chain->name),
                 row->chain != NULL ? row->chain : "the default one");
    }
}

#define CHECK(chain_rows, connection_rows)                              \
    do {                                                                \
        struct kb_listener listener;                                    \
        listener_make(&listener, chain_rows, KB_ARRAY_LEN(chain_rows)); \
        for (size_t i = 0; i < KB_ARRAY_LEN(connection_rows); i++) {    \
            check(&listener, &(connection_rows)[i]);                    \
        }                                                               \
    } while (0)

static void ports_and_destinations(void **state)
{
    static const struct chain_row rows[] = {
        {.name = "port", .port = 80, .destination = "10.0.0.0/8"},
        {.name = "wide", .destination = "10.0.0.0/8"},
        {.name = "narrow", .destination = "10.1.0.0/16", .transport = "tls"},
        {.name = "six", .destination = "1::/16"},
    };
    static const struct connection_row connections[] = {
        {.local = "10.1.2.3 80", .chain = "port"},
        /* the port is known: no way back to chains without one */
        {.local = "11.1.2.3 80"},
        {.local = "10.2.2.3 81", .chain = "wide"},
        /* the longest prefix, and no way back from it either */
        {.local = "10.1.2.3 81", .transport = "tls", .chain = "narrow"},
        {.local = "10.1.2.3 81"},
        {.local = "1::2 81", .chain = "six"},
        {.local = "2::2 81"},
    };

    (void)state;
    CHECK(rows, connections);
}

static void server_names(void **state)
{
    static const struct chain_row rows[] = {
        {.name = "exact", .server_name = "a.x.com"},
        {.name = "suffix", .server_name = ".x.com"},
        {.name = "longer", .server_name = ".b.x.com"},
        {.name = "none", .transport = "tls"},
    };
    static const struct connection_row connections[] = {
        {.local = "1.1.1.1 1", .server_name = "a.x.com", .chain = "exact"},
        {.local = "1.1.1.1 1", .server_name = "c.x.com", .chain = "suffix"},
        {.local = "1.1.1.1 1", .server_name = "c.b.x.com", .chain = "longer"},
        {.local = "1.1.1.1 1", .server_name = "b.x.com", .chain = "suffix"},
        {.local = "1.1.1.1 1", .server_name = "x.com", .transport = "tls", .chain = "none"},
        {.local = "1.1.1.1 1", .server_name = "x.com"},
        {.local = "1.1.1.1 1"},
    };

    (void)state;
    CHECK(rows, connections);
}

/* The chains of a port that istiod sends for PERMISSIVE mutual TLS. */
static void transports_and_protocols(void **state)
{
    static const struct chain_row rows[] = {
        {.name = "mesh", .port = 8080, .transport = "tls", .protocol = "istio"},
        {.name = "tls", .port = 8080, .transport = "tls"},
        {.name = "plain http", .port = 8080, .transport = "raw_buffer", .protocol = "http/1.1"},
        {.name = "plain", .port = 8080, .transport = "raw_buffer"},
        {.name = "h2", .port = 8081, .protocol = "h2"},
        {.name = "h1", .port = 8081, .protocol = "http/1.1"},
    };
    static const struct connection_row connections[] = {
        {.local = "1.1.1.1 8080", .transport = "tls", .protocols = {"istio"}, .chain = "mesh"},
        {.local = "1.1.1.1 8080", .transport = "tls", .protocols = {"h2"}, .chain = "tls"},
        {.local = "1.1.1.1 8080", .transport = "tls", .chain = "tls"},
        {.local = "1.1.1.1 8080", .protocols = {"http/1.1"}, .chain = "plain http"},
        {.local = "1.1.1.1 8080", .protocols = {"http/1.0"}, .chain = "plain"},
        {.local = "1.1.1.1 8080", .chain = "plain"},
        {.local = "1.1.1.1 8081", .protocols = {"x", "http/1.1", "h2"}, .chain = "h1"},
        {.local = "1.1.1.1 8081", .protocols = {"h2", "http/1.1"}, .chain = "h2"},
        {.local = "1.1.1.1 8081"},
    };

    (void)state;
    CHECK(rows, connections);
}

static void sources(void **state)
{
    static const struct chain_row rows[] = {
        {.name = "local", .source_type = 1},
        {.name = "external", .source_type = 2, .source = "10.0.0.0/8"},
        {.name = "external port", .source_type = 2, .source = "10.0.0.0/8", .source_port = 5},
        {.name = "any", .source_type = 0, .source = "11.0.0.0/8"},
    };
    static const struct connection_row connections[] = {
        {.local = "1.1.1.1 1", .remote = "127.0.0.1 9", .chain = "local"},
        {.local = "1.1.1.1 1", .remote = "1.1.1.1 9", .chain = "local"},
        {.local = "1.1.1.1 1", .remote = "10.1.1.1 9", .chain = "external"},
        {.local = "1.1.1.1 1", .remote = "10.1.1.1 5", .chain = "external port"},
        /* external chains are there: those for any source are not looked at */
        {.local = "1.1.1.1 1", .remote = "11.1.1.1 5"},
    };

    (void)state;
    CHECK(rows, connections);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_and_destinations),
        cmocka_unit_test(server_names),
        cmocka_unit_test(transports_and_protocols),
        cmocka_unit_test(sources),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
