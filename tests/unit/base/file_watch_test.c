/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are moved over each other, in one directory and in another. */
#include "base/file_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct kb_loop loop;
static struct kb_file_watcher *watcher;
static char directory[64];

struct heard {
    struct kb_file_watch *watch;
    unsigned count;
    struct heard *close; /* ended by the callback */
};

static struct kb_str path_of(const char *name)
{
    static char path[128];
    int len = snprintf(path, sizeof(path), "%s/%s", directory, name);

    return kb_str_make(path, (size_t)len);
}

static void write_over(const char *name)
{
    char fresh[128];
    FILE *file;

    snprintf(fresh, sizeof(fresh), "%s/fresh", directory);
    file = fopen(fresh, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(fresh, path_of(name).p), 0);
}

static void moved(void *arg)
{
    struct heard *heard = arg;

    heard->count++;
    if (heard->close != NULL) {
        kb_file_watch_close(heard->close->watch);
        heard->close->watch = NULL;
        heard->close = NULL;
    }
}

static void listen_to(struct heard *heard, const char *name)
{
    memset(heard, 0, sizeof(*heard));
    assert_int_equal(kb_file_watch_open(watcher, path_of(name), moved, heard, &heard->watch), 0);
}

static int setup(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "kb-watch-XXXXXX");
    assert_non_null(mkdtemp(directory));
    assert_int_equal(kb_loop_init(&loop), 0);
    watcher = kb_file_watcher_create(&loop);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    kb_file_watcher_destroy(watcher);
    kb_loop_dispose(&loop);
    snprintf(command, sizeof(command), "rm -r %s", directory);
    return system(command);
}

static void only_its_own_name_is_heard(void **state)
{
    struct heard a, b, any;

    (void)state;
    listen_to(&a, "a");
    listen_to(&b, "b");
    listen_to(&any, "");
    write_over("a");
    write_over("a");
    write_over("c");
    while (any.count == 0) {
        kb_loop_run_once(&loop, true);
    }
    assert_int_equal(a.count, 1); /* both moves in one reading */
    assert_int_equal(b.count, 0);
    write_over("b");
    while (b.count == 0) {
        kb_loop_run_once(&loop, true);
    }
    assert_int_equal(a.count, 1);
    kb_file_watch_close(a.watch);
    kb_file_watch_close(b.watch);
    kb_file_watch_close(any.watch);
}

static void a_callback_may_end_watches(void **state)
{
    struct heard a, b;

    (void)state;
    listen_to(&a, "x");
    listen_to(&b, "x");
    a.close = &b;
    write_over("x");
    while (a.count == 0) {
        kb_loop_run_once(&loop, true);
    }
    assert_null(b.watch);
    assert_int_equal(b.count, 0);
    a.close = &a;
    write_over("x");
    while (a.count == 1) {
        kb_loop_run_once(&loop, true);
    }
    assert_null(a.watch);
}

static void a_directory_has_to_be_there(void **state)
{
    struct kb_file_watch *watch = NULL;

    (void)state;
    assert_int_equal(kb_file_watch_open(watcher, KB_STR("no/such/file"), moved, NULL, &watch),
                     KB_ENOTFOUND);
    assert_null(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_its_own_name_is_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_may_end_watches, setup, teardown),
        cmocka_unit_test_setup_teardown(a_directory_has_to_be_there, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
