/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files: what is there, what is not, what is too large, what is no file. */
#include "base/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64];
static struct kb_arena arena;

static const char *path_of(const char *name)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static const char *written(const char *name, const char *text, size_t len)
{
    const char *path = path_of(name);
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void reads_all_up_to_the_maximum(void **state)
{
    struct kb_str text;

    (void)state;
    assert_int_equal(kb_file_read(written("some", "ab\0c", 4), 4, &arena, &text), 0);
    assert_int_equal(text.len, 4);
    assert_memory_equal(text.p, "ab\0c", 5);
    assert_int_equal(kb_file_read(written("none", "", 0), 0, &arena, &text), 0);
    assert_int_equal(text.len, 0);
    assert_string_equal(text.p, "");
}

static void says_how_large_what_is_too_large_is(void **state)
{
    struct kb_str text;

    (void)state;
    assert_int_equal(kb_file_read(written("large", "abcde", 5), 4, &arena, &text), KB_ELIMIT);
    assert_int_equal(text.len, 5);
}

static void says_what_is_not_there(void **state)
{
    struct kb_str text;
    int rc = kb_file_read(path_of("nothing"), 4, &arena, &text);

    (void)state;
    assert_int_equal(rc, KB_ENOTFOUND);
    assert_string_equal(kb_file_error_text(rc), strerror(ENOENT));
    assert_int_equal(text.len, 0);
    rc = kb_file_read(written("some", "", 0), 4, &arena, &text);
    assert_int_equal(rc, 0);
    rc = kb_file_read(path_of("some/below"), 4, &arena, &text);
    assert_int_equal(rc, KB_EIO);
    assert_string_equal(kb_file_error_text(rc), strerror(ENOTDIR));
}

/* A FIFO without a writer would make the reader wait for one. */
static void takes_only_regular_files(void **state)
{
    struct kb_str text;
    int rc;

    (void)state;
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    rc = kb_file_read(path_of("fifo"), 4, &arena, &text);
    assert_int_equal(rc, KB_EINVALID);
    assert_string_equal(kb_file_error_text(rc), "it is not a regular file");
    assert_int_equal(kb_file_read(directory, 4, &arena, &text), KB_EINVALID);
    assert_int_equal(kb_file_read("/dev/zero", 4, &arena, &text), KB_EINVALID);
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/kb-file-XXXXXX");
    kb_arena_init(&arena, NULL);
    return mkdtemp(directory) == NULL;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"some", "none", "large", "fifo"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)unlink(path_of(names[i]));
    }
    kb_arena_dispose(&arena);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_all_up_to_the_maximum),
        cmocka_unit_test(says_how_large_what_is_too_large_is),
        cmocka_unit_test(says_what_is_not_there),
        cmocka_unit_test(takes_only_regular_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
