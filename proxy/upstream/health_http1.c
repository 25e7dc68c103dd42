/* SPDX-License-Identifier: Apache-2.0 */
/* Health checks by HTTP/1: a request, and its answer up to its end or that of the connection. */
#include "proxy/http/h1_encode.h"
#include "proxy/upstream/health_checker_internal.h"

#define HEAD_BYTES_MAX (80 * 1024)
#define HEADERS_MAX    100
#define EVENTS_MAX     1000 /* of the parser, in one go */

static const struct kb_h1_settings settings = {
    .max_head_bytes = HEAD_BYTES_MAX,
    .max_headers_count = HEADERS_MAX,
};

static void http1_dispose(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;

    if (probe->h1.parsing) {
        kb_h1_parser_dispose(&probe->h1.parser);
        probe->h1.parsing = false;
    }
    probe->h1.begun = false;
}

static void http1_ask(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    struct kb_str body = session->checker->config.send;
    struct kb_header_map request;

    kb_health_http_request(session, &request);
    if (!probe->h1.parsing) {
        kb_h1_parser_init(&probe->h1.parser, true, &settings, &probe->conn->worker->slices);
        probe->h1.parsing = true;
    }
    (void)kb_h1_encode_request(&probe->conn->out, &request, body.len == 0, &settings);
    if (body.len > 0) {
        kb_buf_append(&probe->conn->out, body.p, body.len);
    }
    kb_conn_written(probe->conn);
}

/* The whole answer is there. */
static void answer_done(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;
    enum kb_health_result result = kb_health_http_judge(session, &probe->h1.response);
    bool keep = probe->h1.parser.keep_alive && !probe->h1.parser.until_close;

    kb_h1_parser_next(&probe->h1.parser);
    probe->h1.begun = false;
    kb_health_probe_answer(session, result, keep);
}

static void answer_begin(struct kb_health_session *session)
{
    struct kb_health_probe *probe = &session->probe;

    if (!probe->h1.begun) {
        probe->h1.begun = true;
        kb_header_map_init(&probe->h1.response, &probe->arena);
        probe->h1.parser.head_response_expected =
            kb_str_eq(session->checker->config.http.method, KB_STR("HEAD"));
        kb_h1_parser_begin(&probe->h1.parser, &probe->h1.response, &probe->arena);
    }
}

static void body_take(struct kb_health_session *session)
{
    struct kb_buf *body = &session->probe.h1.parser.body;

    for (const struct kb_segment *s = body->first; s != NULL; s = s->next) {
        kb_health_http_body(session, s->slice->bytes + s->from, s->to - s->from);
    }
    kb_buf_consume(body, body->len);
}

static void http1_on_data(struct kb_health_session *session, struct kb_buf *in)
{
    struct kb_health_probe *probe = &session->probe;

    if (!probe->asked) {
        kb_buf_consume(in, in->len);
        kb_health_probe_close(session); /* nobody asked for that */
        return;
    }
    for (unsigned events = 0; events < EVENTS_MAX; events++) {
        if (!probe->h1.begun && !kb_h1_parser_has_input(&probe->h1.parser, in)) {
            return;
        }
        answer_begin(session);
        switch (kb_h1_parse(&probe->h1.parser, in)) {
        case KB_H1_NEED_MORE:
            return;
        case KB_H1_HEAD:
            break;
        case KB_H1_BODY:
            body_take(session);
            break;
        case KB_H1_COMPLETE:
            if (probe->h1.response.status >= 200 || probe->h1.response.status == 101) {
                answer_done(session);
                return;
            }
            kb_h1_parser_next(&probe->h1.parser); /* informational: the answer follows */
            probe->h1.begun = false;
            break;
        case KB_H1_ERROR:
        default:
            kb_health_probe_answer(session, KB_HEALTH_NETWORK, false);
            return;
        }
    }
    kb_health_probe_answer(session, KB_HEALTH_NETWORK, false); /* pieces without an end */
}

static bool http1_on_end(struct kb_health_session *session, enum kb_health_result *result)
{
    struct kb_health_probe *probe = &session->probe;

    if (!probe->h1.begun || !probe->h1.parser.head_complete ||
        kb_h1_parse_eof(&probe->h1.parser) != KB_H1_COMPLETE) {
        return false;
    }
    *result = kb_health_http_judge(session, &probe->h1.response);
    return true;
}

const struct kb_health_codec kb_health_http1_codec = {
    .ask = http1_ask,
    .on_data = http1_on_data,
    .on_end = http1_on_end,
    .dispose = http1_dispose,
};
