/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostics: paths, places, hints, counting, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/diag.h"

static struct kb_diag diag;

static int setup(void **state)
{
    (void)state;
    kb_diag_init(&diag);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kb_diag_dispose(&diag);
    return 0;
}

static void assert_text(struct kb_str text, const char *expected)
{
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.p, expected, text.len);
}

static void test_paths(void **state)
{
    (void)state;
    assert_text(kb_diag_path(&diag), "");
    kb_diag_push_index(&diag, "clusters", 3);
    kb_diag_push(&diag, "metadata");
    kb_diag_push_key(&diag, KB_STR("a.b"));
    kb_diag_push(&diag, "x");
    assert_text(kb_diag_path(&diag), "clusters[3].metadata[\"a.b\"].x");
    kb_diag_pop(&diag);
    kb_diag_pop(&diag);
    assert_text(kb_diag_path(&diag), "clusters[3].metadata");
}

static void test_formats(void **state)
{
    (void)state;
    kb_diag_push(&diag, "name");
    kb_diag_error(&diag, "is %d", 5);
    kb_diag_error_hint(&diag, KB_STR("say more"), "is short");
    kb_diag_warning(&diag, "is old");
    kb_diag_pop(&diag);
    kb_diag_error_at(&diag, KB_STR("f.yaml"), 3, 7, "no %s", "colon");
    kb_diag_error_at(&diag, KB_STR("f.yaml"), 0, 0, "not there");
    assert_text(kb_diag_format(&diag, diag.first), "error: name: is 5");
    assert_text(kb_diag_format(&diag, diag.first->next), "error: name: is short (say more)");
    assert_text(kb_diag_format(&diag, diag.first->next->next), "warning: name: is old");
    assert_text(kb_diag_format(&diag, diag.first->next->next->next), "f.yaml:3:7: error: no colon");
    assert_text(kb_diag_format(&diag, diag.first->next->next->next->next),
                "f.yaml: error: not there");
    assert_int_equal(diag.error_count, 4);
    assert_int_equal(diag.warning_count, 1);
}

static void test_result_is_of_errors_only(void **state)
{
    (void)state;
    assert_int_equal(kb_diag_result(&diag), 0);
    kb_diag_warning(&diag, "careful");
    assert_int_equal(kb_diag_result(&diag), 0);
    kb_diag_error(&diag, "wrong");
    assert_int_equal(kb_diag_result(&diag), KB_ECONFIG);
}

static bool locate(void *arg, struct kb_str path, struct kb_str *file, uint32_t *line,
                   uint32_t *column)
{
    *file = KB_STR("here.json");
    *line = *(const uint32_t *)arg;
    *column = 2;
    return kb_str_eq(path, KB_STR("known"));
}

static void test_places_are_asked_for(void **state)
{
    uint32_t line = 9;

    (void)state;
    kb_diag_set_locate(&diag, locate, &line);
    kb_diag_push(&diag, "known");
    kb_diag_error(&diag, "bad");
    kb_diag_pop(&diag);
    kb_diag_push(&diag, "other");
    kb_diag_error(&diag, "bad");
    kb_diag_pop(&diag);
    assert_text(kb_diag_format(&diag, diag.first), "here.json:9:2: error: known: bad");
    assert_int_equal(diag.first->next->file.len, 0);
}

static void test_bounds(void **state)
{
    uint32_t kept = 0;

    (void)state;
    for (int i = 0; i < 2 * KB_DIAG_ENTRIES_MAX; i++) {
        kb_diag_error(&diag, "again");
    }
    for (const struct kb_diag_entry *entry = diag.first; entry != NULL; entry = entry->next) {
        kept++;
    }
    assert_int_equal(kept, KB_DIAG_ENTRIES_MAX);
    assert_int_equal(diag.error_count, 2 * KB_DIAG_ENTRIES_MAX);
    for (int i = 0; i < KB_DIAG_DEPTH_MAX + 5; i++) {
        kb_diag_push(&diag, "d");
    }
    assert_true(kb_str_ends_with(kb_diag_path(&diag), KB_STR("d.d...")));
    for (int i = 0; i < KB_DIAG_DEPTH_MAX + 5; i++) {
        kb_diag_pop(&diag);
    }
    assert_text(kb_diag_path(&diag), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_result_is_of_errors_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places_are_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
