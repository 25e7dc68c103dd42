/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a store with what the real Envoy had (golden/, made by record_envoy.py) and holds every
 * output against what Envoy showed, byte for byte: order, formats, quantiles, tags of every name,
 * labels, filter, usedonly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proto/pb_json.h"
#include "proxy/stats/stat_store.h"
#include "proxy/stats/stats_dump.h"

#define WORKERS 2

struct recording {
    const char *set; /* folder in golden/ */
    struct kb_stat_store *store;
    struct kb_regex *filter;
    struct kb_arena arena;
};

static struct kb_str file_read(struct kb_arena *arena, const char *folder, const char *name)
{
    struct kb_str path =
        kb_str_printf(arena, "%s/tests/unit/stats/golden/%s%s", KB_SOURCE_ROOT, folder, name);
    FILE *file = fopen(path.p, "rb");
    char *text;
    size_t len;

    if (file == NULL) {
        fail_msg("cannot open %s", path.p);
    }
    fseek(file, 0, SEEK_END);
    len = (size_t)ftell(file);
    rewind(file);
    text = kb_arena_alloc(arena, len + 1, 1);
    assert_int_equal(fread(text, 1, len, file), len);
    text[len] = '\0';
    fclose(file);
    return kb_str_make(text, len);
}

/* "name: value" of a line; false when it is something else. */
static bool line_split(struct kb_str line, struct kb_str *name, struct kb_str *value)
{
    ptrdiff_t at = kb_str_find(line, KB_STR(": "));

    if (at < 0) {
        return false;
    }
    *name = kb_str_first(line, (size_t)at);
    *value = kb_str_from(line, (size_t)at + 2);
    return true;
}

static bool has_line_of(struct kb_str text, struct kb_str name)
{
    struct kb_str line;

    while (kb_str_next_token(&text, '\n', &line)) {
        if (line.len > name.len + 1 && kb_str_starts_with(line, name) && line.p[name.len] == ':') {
            return true;
        }
    }
    return false;
}

static void numbers_fill(struct recording *r)
{
    struct kb_str text = file_read(&r->arena, r->set, "/text.txt");
    struct kb_str gauges = file_read(&r->arena, r->set, "/gauges.txt");
    struct kb_str used = file_read(&r->arena, r->set, "/usedonly.txt");
    struct kb_str line;
    uint32_t worker = 0;
    size_t count = 0;

    while (kb_str_next_token(&text, '\n', &line)) {
        struct kb_str name;
        struct kb_str value;
        uint64_t number;
        struct kb_stat_named *named;

        if (!line_split(line, &name, &value) || kb_str_to_u64(value, &number) != 0) {
            continue;
        }
        named = kb_stat_named_create(r->store, name,
                                     has_line_of(gauges, name) ? KB_STAT_GAUGE : KB_STAT_COUNTER);
        if (has_line_of(used, name)) {
            /* Different workers have different statistics. */
            kb_stat_named_set(named, worker++ % (WORKERS + 1), number);
        }
        count++;
    }
    assert_true(count > 400);
}

/* Records "2,0.1:5, 120,10:1", without what `less` has. */
static void bins_record(struct kb_stat_named *named, struct kb_str bins, struct kb_str less)
{
    struct kb_str token;

    while (bins.len > 0 && kb_str_next_token(&bins, ' ', &token)) {
        ptrdiff_t comma = kb_str_find_char(token, ',');
        ptrdiff_t colon = kb_str_find_char(token, ':');
        struct kb_str head = kb_str_first(token, (size_t)colon + 1);
        uint64_t value;
        uint64_t samples;
        uint64_t known = 0;
        struct kb_str other = less;
        struct kb_str bin;

        token = kb_str_ends_with(token, KB_STR(",")) ? kb_str_first(token, token.len - 1) : token;
        assert_int_equal(kb_str_to_u64(kb_str_first(token, (size_t)comma), &value), 0);
        assert_int_equal(kb_str_to_u64(kb_str_from(token, (size_t)colon + 1), &samples), 0);
        while (other.len > 0 && kb_str_next_token(&other, ' ', &bin)) {
            bin = kb_str_ends_with(bin, KB_STR(",")) ? kb_str_first(bin, bin.len - 1) : bin;
            if (kb_str_starts_with(bin, head)) {
                assert_int_equal(kb_str_to_u64(kb_str_from(bin, head.len), &known), 0);
            }
        }
        for (uint64_t i = 0; i < samples - known; i++) {
            kb_stat_named_add(named, (uint32_t)(i % WORKERS), (int64_t)value);
        }
    }
}

/* What came before the last flush when `interval` is false, else what came since. */
static void histograms_fill(struct recording *r, bool interval)
{
    struct kb_str text = file_read(&r->arena, r->set, "/detailed.txt");
    struct kb_str line;
    struct kb_str name = KB_STR_NULL;
    struct kb_str totals = KB_STR_NULL;

    while (kb_str_next_token(&text, '\n', &line)) {
        static const struct kb_str totals_mark = KB_STR("  totals=");
        static const struct kb_str intervals_mark = KB_STR("  intervals=");

        if (kb_str_starts_with(line, totals_mark)) {
            totals = kb_str_from(line, totals_mark.len);
        } else if (kb_str_starts_with(line, intervals_mark)) {
            struct kb_str intervals = kb_str_from(line, intervals_mark.len);
            struct kb_stat_named *named = kb_stat_named_create(r->store, name, KB_STAT_HISTOGRAM);

            bins_record(named, interval ? intervals : totals, interval ? KB_STR_NULL : intervals);
        } else if (kb_str_ends_with(line, KB_STR(": No recorded values"))) {
            kb_stat_named_create(r->store, kb_str_first(line, line.len - 20), KB_STAT_HISTOGRAM);
        } else if (kb_str_ends_with(line, KB_STR(":"))) {
            name = kb_str_first(line, line.len - 1);
        }
    }
}

/* The stats_config in golden/<name>, or NULL. */
static Envoy__Config__Metrics__V3__StatsConfig *config_read(struct recording *r, const char *name,
                                                            struct kb_diag *diag)
{
    struct kb_doc doc;
    ProtobufCMessage *message;

    if (name == NULL) {
        return NULL;
    }
    kb_doc_init(&doc);
    assert_int_equal(
        kb_doc_parse_yaml(&doc, KB_STR("tags.yaml"), file_read(&r->arena, "", name), diag), 0);
    message = kb_pb_from_doc(&envoy__config__metrics__v3__stats_config__descriptor, &doc,
                             KB_PB_UNKNOWN_ERROR, &r->arena, diag);
    kb_doc_dispose(&doc);
    assert_non_null(message);
    return (Envoy__Config__Metrics__V3__StatsConfig *)(void *)message;
}

static void recording_init(struct recording *r, const char *set, const char *config)
{
    struct kb_diag diag;
    struct kb_str error;

    *r = (struct recording){.set = set};
    kb_arena_init(&r->arena, NULL);
    kb_diag_init(&diag);
    r->store = kb_stat_store_create(WORKERS);
    assert_int_equal(
        kb_stat_store_configure(r->store, config_read(r, config, &diag), NULL, 0, &diag), 0);
    kb_diag_dispose(&diag);
    r->filter = kb_regex_create(file_read(&r->arena, "", "filter.txt"), &r->arena, &error);
    assert_non_null(r->filter);
    numbers_fill(r);
    histograms_fill(r, false);
    kb_stat_store_flush(r->store);
    histograms_fill(r, true);
    kb_stat_store_flush(r->store);
}

static void recording_dispose(struct recording *r)
{
    kb_stat_store_destroy(r->store);
    kb_regex_destroy(r->filter);
    kb_arena_dispose(&r->arena);
}

static struct kb_str dump(struct recording *r, struct kb_stats_params params, size_t bytes)
{
    struct kb_json_out out;
    struct kb_stats_dump *d;
    struct kb_str text;

    params.filter = r->filter;
    kb_json_out_init(&out, 0);
    d = kb_stats_dump_create(r->store, &params);
    while (kb_stats_dump_next(d, &out, bytes)) {
    }
    kb_stats_dump_destroy(d);
    text = kb_str_dup(&r->arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return text;
}

/* Shows the first line (or the surroundings) that differs. */
static void compare(struct recording *r, const char *name, struct kb_str got)
{
    struct kb_str want = file_read(&r->arena, r->set, name);
    size_t at = 0;
    size_t from;

    if (kb_str_eq(got, want)) {
        return;
    }
    while (at < got.len && at < want.len && got.p[at] == want.p[at]) {
        at++;
    }
    from = at < 150 ? 0 : at - 150;
    fail_msg("%s%s differs at %zu:\nwant ...%.*s\n got ...%.*s", r->set, name, at,
             (int)KB_MIN(want.len - from, (size_t)400), want.p + from,
             (int)KB_MIN(got.len - from, (size_t)400), got.p + from);
}

static const struct {
    const char *file;
    struct kb_stats_params params;
} queries[] = {
    {"/text.txt", {.format = KB_STATS_TEXT}},
    {"/json.txt", {.format = KB_STATS_JSON}},
    {"/prometheus.txt", {.format = KB_STATS_PROMETHEUS}},
    {"/usedonly.txt", {.format = KB_STATS_TEXT, .used_only = true}},
    {"/prometheus_usedonly.txt", {.format = KB_STATS_PROMETHEUS, .used_only = true}},
    {"/gauges.txt", {.format = KB_STATS_TEXT, .type = KB_STATS_TYPE_GAUGES}},
    {"/counters.txt", {.format = KB_STATS_TEXT, .type = KB_STATS_TYPE_COUNTERS}},
    {"/cumulative.txt", {.format = KB_STATS_TEXT, .buckets = KB_STATS_BUCKETS_CUMULATIVE}},
    {"/disjoint.txt", {.format = KB_STATS_TEXT, .buckets = KB_STATS_BUCKETS_DISJOINT}},
    {"/detailed.txt",
     {.format = KB_STATS_TEXT,
      .type = KB_STATS_TYPE_HISTOGRAMS,
      .buckets = KB_STATS_BUCKETS_DETAILED}},
    {"/detailed_json.txt",
     {.format = KB_STATS_JSON,
      .type = KB_STATS_TYPE_HISTOGRAMS,
      .buckets = KB_STATS_BUCKETS_DETAILED}},
    {"/disjoint_json.txt",
     {.format = KB_STATS_JSON,
      .type = KB_STATS_TYPE_HISTOGRAMS,
      .buckets = KB_STATS_BUCKETS_DISJOINT}},
    {"/summary.txt", {.format = KB_STATS_PROMETHEUS, .buckets_set = true}},
};

static void test_default_outputs_equal_envoys(void **state)
{
    struct recording r;

    (void)state;
    recording_init(&r, "default", NULL);
    for (size_t i = 0; i < KB_ARRAY_LEN(queries); i++) {
        compare(&r, queries[i].file, dump(&r, queries[i].params, 65536));
    }
    recording_dispose(&r);
}

static void test_outputs_with_stats_config_equal_envoys(void **state)
{
    static const char *const files[] = {"/text.txt",   "/prometheus.txt", "/usedonly.txt",
                                        "/gauges.txt", "/cumulative.txt", "/detailed.txt"};
    struct recording r;

    (void)state;
    recording_init(&r, "tags", "tags.yaml");
    for (size_t k = 0; k < KB_ARRAY_LEN(files); k++) {
        for (size_t i = 0; i < KB_ARRAY_LEN(queries); i++) {
            if (strcmp(files[k], queries[i].file) == 0) {
                compare(&r, queries[i].file, dump(&r, queries[i].params, 65536));
            }
        }
    }
    recording_dispose(&r);
}

static void test_pieces_of_any_size_give_the_same_output(void **state)
{
    struct recording r;

    (void)state;
    recording_init(&r, "default", NULL);
    for (size_t i = 0; i < KB_ARRAY_LEN(queries); i++) {
        compare(&r, queries[i].file, dump(&r, queries[i].params, 1));
        compare(&r, queries[i].file, dump(&r, queries[i].params, 777));
    }
    recording_dispose(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_outputs_equal_envoys),
        cmocka_unit_test(test_outputs_with_stats_config_equal_envoys),
        cmocka_unit_test(test_pieces_of_any_size_give_the_same_output),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
