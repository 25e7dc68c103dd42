/* SPDX-License-Identifier: Apache-2.0 */
/* "prefix.name:value|c", with "|#tag:value,..." for DogStatsD, ";tag=value" behind the name for
 * Graphite. What does not fit the socket's buffer is lost, as datagrams are. */
#include "proxy/ext/stat_sink/statsd_lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "proxy/upstream/config_read.h"

#define PREFIX_DEFAULT "envoy"
/* More samples of one value are one line with a rate. */
#define SAMPLES_MAX    10

struct kb_statsd *kb_statsd_new(const char *prefix, struct kb_factory_context *factory)
{
    struct kb_statsd *statsd = KB_ARENA_NEW(factory->arena, struct kb_statsd);

    KB_OBJ_SET(statsd, kb_statsd);
    statsd->fd = -1;
    statsd->prefix =
        kb_str_dup(factory->arena, kb_str_from_cstr(prefix[0] != '\0' ? prefix : PREFIX_DEFAULT));
    return statsd;
}

int kb_statsd_open(struct kb_statsd *statsd, const struct Envoy__Config__Core__V3__Address *address,
                   struct kb_diag *diag)
{
    kb_diag_push(diag, "address");
    if (kb_config_address(address, "", &statsd->addr, diag) != 0) {
        kb_diag_pop(diag);
        return KB_ECONFIG;
    }
    statsd->fd = socket(statsd->addr.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (statsd->fd < 0) {
        kb_diag_error(diag, "no socket for datagrams: %s", strerror(errno));
    }
    kb_diag_pop(diag);
    return statsd->fd >= 0 ? 0 : KB_ECONFIG;
}

void kb_statsd_destroy(void *sink)
{
    struct kb_statsd *statsd = KB_CAST(sink, kb_statsd);

    if (statsd->fd >= 0) {
        close(statsd->fd);
    }
    if (statsd->tcp != NULL) {
        kb_statsd_tcp_destroy(statsd->tcp);
    }
    free(statsd->bytes);
    KB_OBJ_CLEAR(statsd);
}

void kb_statsd_close(void *sink)
{
    struct kb_statsd *statsd = KB_CAST(sink, kb_statsd);

    if (statsd->tcp != NULL) {
        kb_statsd_tcp_close(statsd->tcp);
    }
}

/* ---- sending ---- */

static void datagram_send(const struct kb_statsd *statsd, const char *bytes, size_t len)
{
    ssize_t sent = sendto(statsd->fd, bytes, len, MSG_NOSIGNAL, &statsd->addr.sa, statsd->addr.len);

    (void)sent;
}

static void add(struct kb_statsd *statsd, struct kb_str text)
{
    if (statsd->cap - statsd->len < text.len) {
        statsd->cap = KB_MAX(statsd->cap * 2, statsd->len + text.len + 256);
        statsd->bytes = kb_realloc(statsd->bytes, statsd->cap);
    }
    memcpy(statsd->bytes + statsd->len, text.p, text.len);
    statsd->len += text.len;
}

/* A line stands behind what was there up to `start`. */
static void line_done(struct kb_statsd *statsd, size_t start)
{
    size_t line_len = statsd->len - start;

    if (statsd->tcp != NULL) {
        add(statsd, KB_STR("\n"));
    } else if (statsd->datagram_bytes == 0) {
        datagram_send(statsd, statsd->bytes + start, line_len);
        statsd->len = start;
    } else if (start > 0 && start + line_len > statsd->datagram_bytes) {
        datagram_send(statsd, statsd->bytes, start - 1);
        memmove(statsd->bytes, statsd->bytes + start, line_len);
        statsd->len = line_len;
    }
}

void kb_statsd_end(void *sink)
{
    struct kb_statsd *statsd = KB_CAST(sink, kb_statsd);

    if (statsd->len == 0) {
        return;
    }
    if (statsd->tcp != NULL) {
        kb_statsd_tcp_write(statsd->tcp, statsd->bytes, statsd->len);
    } else {
        datagram_send(statsd, statsd->bytes, statsd->len);
    }
    statsd->len = 0;
}

/* ---- lines ---- */

static void tags_add(struct kb_statsd *statsd, const struct kb_stat_sample *sample)
{
    bool dog = statsd->tags == KB_STATSD_TAGS_DOG;

    for (size_t i = 0; i < sample->tag_count; i++) {
        add(statsd, !dog ? KB_STR(";") : i == 0 ? KB_STR("|#") : KB_STR(","));
        add(statsd, sample->tags[i].name);
        add(statsd, dog ? KB_STR(":") : KB_STR("="));
        add(statsd, sample->tags[i].value);
    }
}

static void line_add(struct kb_statsd *statsd, const struct kb_stat_sample *sample,
                     const char *kind, double rate)
{
    size_t start = statsd->len;
    char text[64];

    if (start > 0 && statsd->tcp == NULL) {
        add(statsd, KB_STR("\n"));
        start++;
    }
    add(statsd, statsd->prefix);
    add(statsd, KB_STR("."));
    add(statsd, statsd->tags != KB_STATSD_TAGS_NONE ? sample->tagged_name : sample->name);
    if (statsd->tags == KB_STATSD_TAGS_GRAPHITE) {
        tags_add(statsd, sample);
    }
    (void)snprintf(text, sizeof(text), ":%llu|%s", (unsigned long long)sample->value, kind);
    add(statsd, kb_str_from_cstr(text));
    if (rate < 1) {
        (void)snprintf(text, sizeof(text), "|@%.9f", rate);
        add(statsd, kb_str_from_cstr(text));
    }
    if (statsd->tags == KB_STATSD_TAGS_DOG) {
        tags_add(statsd, sample);
    }
    line_done(statsd, start);
}

void kb_statsd_sample(void *sink, const struct kb_stat_sample *sample)
{
    struct kb_statsd *statsd = KB_CAST(sink, kb_statsd);

    switch (sample->kind) {
    case KB_STAT_COUNTER:
        line_add(statsd, sample, "c", 1);
        return;
    case KB_STAT_GAUGE:
        line_add(statsd, sample, "g", 1);
        return;
    case KB_STAT_HISTOGRAM:
        if (sample->count > SAMPLES_MAX) {
            line_add(statsd, sample, "ms", 1.0 / (double)sample->count);
            return;
        }
        for (uint64_t i = 0; i < sample->count; i++) {
            line_add(statsd, sample, "ms", 1);
        }
        return;
    }
}
