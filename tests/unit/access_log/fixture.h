/* SPDX-License-Identifier: Apache-2.0 */
/* A finished HTTP stream with every fact set, as tests of formatters and filters look at it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/diag.h"
#include "proxy/api/cluster.h"
#include "proxy/api/formatter.h"

struct fixture {
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_header_map request, response, trailers;
    struct kb_cluster cluster;
    struct kb_host *host;
    struct kb_connection_info connection;
    struct kb_stream_info info;
    struct kb_formatter_input input;
};

/* 2026-11-22T01:18:50.675840123Z */
#define FIXTURE_WALL_NS  UINT64_C(1795310330675840123)
#define FIXTURE_START_NS UINT64_C(5000000000)

static inline void fixture_times(struct kb_stream_info *info)
{
    info->wall_start_ns = FIXTURE_WALL_NS;
    info->start_ns = FIXTURE_START_NS;
    info->last_rx_ns = FIXTURE_START_NS + 1500000;
    info->upstream.connect_start_ns = FIXTURE_START_NS + 2000000;
    info->upstream.connect_end_ns = FIXTURE_START_NS + 2026000;
    info->upstream.connection_pool_ready_ns = FIXTURE_START_NS + 3000000;
    info->upstream.first_tx_ns = FIXTURE_START_NS + 3360804;
    info->upstream.last_tx_ns = FIXTURE_START_NS + 4000000;
    info->upstream.first_rx_ns = FIXTURE_START_NS + 7999999;
    info->upstream.first_body_rx_ns = FIXTURE_START_NS + 8100000;
    info->upstream.last_rx_ns = FIXTURE_START_NS + 8200000;
    info->first_tx_ns = FIXTURE_START_NS + 8500000;
    info->last_tx_ns = FIXTURE_START_NS + 10000000;
    info->end_ns = FIXTURE_START_NS + 12345678;
}

static inline void fixture_addresses(struct fixture *f)
{
    struct kb_connection_info *c = &f->connection;

    assert_int_equal(kb_addr_from_ip(&c->direct_remote, KB_STR("127.0.0.1"), 53234), 0);
    assert_int_equal(kb_addr_from_ip(&c->remote, KB_STR("10.1.2.3"), 111), 0);
    assert_int_equal(kb_addr_from_ip(&f->info.remote, KB_STR("192.168.37.129"), 222), 0);
    assert_int_equal(kb_addr_from_ip(&c->local, KB_STR("2001:db8::1"), 443), 0);
    assert_int_equal(kb_addr_from_path(&c->direct_local, KB_STR("/run/k.sock")), 0);
    assert_int_equal(kb_addr_from_ip(&f->info.upstream.local, KB_STR("127.0.0.1"), 54646), 0);
    assert_int_equal(kb_addr_from_ip(&f->info.upstream.remote, KB_STR("127.0.0.1"), 21401), 0);
}

/* The upstream's host; `hostname` may be empty. */
static inline void fixture_host(struct fixture *f, struct kb_str hostname)
{
    struct kb_str addr = KB_STR("127.0.0.1:21401");
    char *texts;

    f->host = kb_arena_calloc(&f->arena, sizeof(*f->host) + addr.len + hostname.len);
    KB_OBJ_SET(f->host, kb_host);
    f->host->addr_text_len = (uint8_t)addr.len;
    f->host->hostname_len = (uint32_t)hostname.len;
    texts = (char *)f->host->locals;
    memcpy(texts, addr.p, addr.len);
    if (hostname.len > 0) {
        memcpy(texts + addr.len, hostname.p, hostname.len);
    }
    f->info.upstream.host = f->host;
}

static inline void fixture_upstream(struct fixture *f)
{
    struct kb_upstream_info *u = &f->info.upstream;

    f->cluster.name = KB_STR("up");
    fixture_host(f, KB_STR(""));
    u->cluster = &f->cluster;
    u->connection_id = 2;
    u->protocol = KB_PROTOCOL_HTTP11;
    u->wire_bytes_received = 87;
    u->wire_bytes_sent = 277;
    u->header_bytes_received = 59;
    u->header_bytes_sent = 239;
    f->info.upstream_cluster_name = KB_STR("altup");
    f->info.attempt_count = 1;
}

static inline void fixture_messages(struct fixture *f)
{
    kb_header_map_init(&f->request, &f->arena);
    kb_header_map_init(&f->response, &f->arena);
    kb_header_map_init(&f->trailers, &f->arena);
    f->request.method = KB_STR("GET");
    f->request.path = KB_STR("/ok/a?q=hello%20w&r=1&a%20b=1%41&z=%zz&bare");
    f->request.authority = KB_STR("ex.com:80");
    f->request.scheme = KB_STR("http");
    kb_header_map_add(&f->request, KB_STR("x-a"), KB_STR("A1"));
    kb_header_map_add(&f->request, KB_STR("x-b"), KB_STR("B"));
    kb_header_map_add(&f->request, KB_STR("x-long"), KB_STR("123456789"));
    kb_header_map_add(&f->request, KB_STR("x-dup"), KB_STR("1"));
    kb_header_map_add(&f->request, KB_STR("x-dup"), KB_STR("2"));
    kb_header_map_add(&f->request, KB_STR("x-empty"), KB_STR(""));
    kb_header_map_add(&f->request, KB_STR("x-bad"), KB_STR("\xff\xe9\"\\\t"));
    kb_header_map_add(&f->request, KB_STR("user-agent"), KB_STR("ua/1 \"q\" \xc3\xa9\\"));
    f->response.status = 200;
    kb_header_map_add(&f->response, KB_STR("x-a"), KB_STR("ra"));
    kb_header_map_add(&f->response, KB_STR("server"), KB_STR("envoy"));
    kb_header_map_add(&f->trailers, KB_STR("x-t"), KB_STR("tv"));
    f->input.request = &f->request;
    f->input.response = &f->response;
    f->input.response_trailers = &f->trailers;
    f->input.access_log_type = "DownstreamEnd";
}

static inline void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    kb_header_names_init();
    kb_arena_init(&f->arena, NULL);
    kb_diag_init(&f->diag);
    fixture_messages(f);
    fixture_times(&f->info);
    fixture_addresses(f);
    fixture_upstream(f);
    f->connection.id = 1;
    f->connection.filter_chain_name = KB_STR("fc");
    f->connection.listener_name = KB_STR("lh");
    f->info.connection = &f->connection;
    f->info.protocol = KB_PROTOCOL_HTTP11;
    f->info.response_code = 200;
    f->info.response_code_details = KB_STR("via_upstream");
    f->info.bytes_received = 10;
    f->info.bytes_sent = 5;
    f->info.wire_bytes_received = 180;
    f->info.wire_bytes_sent = 192;
    f->info.header_bytes_received = 132;
    f->info.header_bytes_sent = 168;
    f->info.route_name = KB_STR("rt_ok");
    f->info.request_id = KB_STR("8d57c642-cfae-40de-b0bc-54f1b670b12f");
    f->info.route_resolutions = 1;
    f->info.route_resolution_ns = 7999;
}

static inline void fixture_dispose(struct fixture *f)
{
    kb_diag_dispose(&f->diag);
    kb_arena_dispose(&f->arena);
}

/* The text of a format; the test fails with the error when it is refused. */
static inline struct kb_str fixture_text(struct fixture *f, const char *format)
{
    struct kb_formatter *formatter =
        kb_formatter_create(&f->arena, kb_str_from_cstr(format), false, &f->diag);

    if (formatter == NULL) {
        fail_msg("%s: %.*s", format, KB_STR_ARG(f->diag.first->text));
    }
    return kb_formatter_text(formatter, &f->input, &f->info, &f->arena);
}

static inline void fixture_expect(struct fixture *f, const char *format, const char *expected)
{
    struct kb_str text = fixture_text(f, format);

    if (!kb_str_eq(text, kb_str_from_cstr(expected))) {
        fail_msg("%s: got \"%.*s\", not \"%s\"", format, KB_STR_ARG(text), expected);
    }
}
