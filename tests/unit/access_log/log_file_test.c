/* SPDX-License-Identifier: Apache-2.0 */
/* Log files: lines of several workers, flushing by size, time, and at the end, reopening,
 * statistics. Time is a loop's, and whatever the writer thread does is waited for. */
#include "tests/unit/access_log/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/worker.h"
#include "proxy/access_log/log_file.h"
#include "proxy/access_log/log_file_writer.h"
#include "proxy/api/access_logger.h"
#include "proxy/stats/stat_store.h"

#define WORKERS     2
#define FLUSH_BYTES 1000

struct process {
    struct kb_server_context server;
    struct kb_worker workers[WORKERS];
    struct kb_worker main;
    struct kb_arena arena;
    struct kb_diag diag;
    char directory[64];
    char path[128];
};

static int setup(void **state)
{
    struct process *p = calloc(1, sizeof(*p));

    snprintf(p->directory, sizeof(p->directory), "%s/kb_log_XXXXXX",
             getenv("TMPDIR") != NULL && strlen(getenv("TMPDIR")) < 40 ? getenv("TMPDIR") : ".");
    assert_non_null(mkdtemp(p->directory));
    snprintf(p->path, sizeof(p->path), "%s/access.log", p->directory);
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(kb_worker_init(&p->workers[i], i), 0);
    }
    assert_int_equal(kb_worker_init(&p->main, WORKERS), 0);
    p->server.workers = p->workers;
    p->server.worker_count = WORKERS;
    p->server.main = &p->main;
    p->server.stats = kb_stat_store_create(WORKERS);
    p->server.file_flush_min_bytes = FLUSH_BYTES;
    p->server.file_flush_interval_ms = 1;
    kb_arena_init(&p->arena, NULL);
    kb_diag_init(&p->diag);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct process *p = *state;
    char text[160];

    kb_log_file_dispose_all();
    for (uint32_t i = 0; i < WORKERS; i++) {
        kb_worker_dispose(&p->workers[i]);
    }
    kb_worker_dispose(&p->main);
    kb_stat_store_destroy(p->server.stats);
    kb_arena_dispose(&p->arena);
    kb_diag_dispose(&p->diag);
    unlink(p->path);
    snprintf(text, sizeof(text), "%s.1", p->path);
    unlink(text);
    rmdir(p->directory);
    free(p);
    return 0;
}

static struct kb_log_file *open_file(struct process *p, const char *path)
{
    return kb_log_file_open(&p->server, KB_LOG_FILE_PATH, kb_str_from_cstr(path), &p->diag);
}

static void log_line(struct process *p, struct kb_log_file *file, unsigned worker,
                     struct kb_str line)
{
    struct kb_worker *w = worker == WORKERS ? &p->main : &p->workers[worker];
    struct kb_format_out out;

    kb_log_file_begin(file, w, &out, &p->arena);
    kb_format_out_add(&out, line);
    kb_log_file_end(file, w, &out);
}

static struct kb_str content(struct process *p, const char *path)
{
    char *text = kb_arena_alloc(&p->arena, 300000, 1);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, 300000);

    assert_true(n >= 0);
    close(fd);
    return kb_str_make(text, (size_t)n);
}

static uint64_t stat_of(struct process *p, unsigned id)
{
    struct kb_stat_group *group =
        kb_stat_group_create(p->server.stats, KB_STR("filesystem."), &kb_stat_schema_filesystem);
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= WORKERS; i++) {
        sum += __atomic_load_n(&kb_stat_group_block(group, i)->cells[id], __ATOMIC_RELAXED);
    }
    kb_stat_group_destroy(group);
    return sum;
}

static void test_lines_wait_for_the_flush_size(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);
    char line[300];

    assert_non_null(file);
    assert_ptr_equal(open_file(p, p->path), file);
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    for (int i = 0; i < 3; i++) {
        log_line(p, file, 0, kb_str_make(line, sizeof(line)));
    }
    assert_true(kb_log_writer_drain(10000));
    assert_int_equal(content(p, p->path).len, 0); /* 900 bytes are not more than the flush size */
    log_line(p, file, 0, kb_str_make(line, sizeof(line)));
    assert_true(kb_log_writer_drain(10000));
    assert_int_equal(content(p, p->path).len, 1200);
}

static void test_lines_are_flushed_by_time(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);

    log_line(p, file, 1, KB_STR("one\n"));
    while (content(p, p->path).len == 0) {
        kb_loop_run_once(&p->workers[1].loop, false);
        assert_true(kb_log_writer_drain(10000));
    }
    assert_true(kb_str_eq(content(p, p->path), KB_STR("one\n")));
}

static void test_everything_is_written_at_the_end(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);
    struct kb_str text;

    log_line(p, file, 0, KB_STR("zero\n"));
    log_line(p, file, 1, KB_STR("one\n"));
    log_line(p, file, 0, KB_STR("zero again\n"));
    log_line(p, file, WORKERS, KB_STR("main\n"));
    log_line(p, file, 0, KB_STR(""));
    kb_access_log_flush_all();
    text = content(p, p->path);
    assert_int_equal(text.len, 25);
    assert_true(kb_str_find(text, KB_STR("zero\nzero again\n")) >= 0);
    assert_true(kb_str_find(text, KB_STR("one\n")) >= 0);
    assert_true(kb_str_find(text, KB_STR("main\n")) >= 0);
}

static void test_a_line_longer_than_a_buffer(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);
    size_t len = 200000;
    char *line = malloc(len);

    memset(line, 'l', len);
    log_line(p, file, 0, KB_STR("before\n"));
    log_line(p, file, 0, kb_str_make(line, len));
    log_line(p, file, 0, KB_STR("after\n"));
    kb_access_log_flush_all();
    assert_int_equal(content(p, p->path).len, len + 13);
    assert_true(kb_str_starts_with(content(p, p->path), KB_STR("before\nlll")));
    free(line);
}

static void test_reopen_follows_a_renamed_file(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);
    char old[160];

    snprintf(old, sizeof(old), "%s.1", p->path);
    log_line(p, file, 0, KB_STR("old\n"));
    kb_access_log_flush_all();
    assert_int_equal(rename(p->path, old), 0);
    kb_access_log_reopen_all();
    assert_true(kb_log_writer_drain(10000));
    log_line(p, file, 0, KB_STR("new\n"));
    kb_access_log_flush_all();
    assert_true(kb_str_eq(content(p, old), KB_STR("old\n")));
    assert_true(kb_str_eq(content(p, p->path), KB_STR("new\n")));
}

static void test_reopen_that_fails_keeps_the_old_file_and_tries_again(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);
    char old[160], moved[80];

    snprintf(moved, sizeof(moved), "%s_away", p->directory);
    snprintf(old, sizeof(old), "%s/access.log", moved);
    assert_int_equal(rename(p->directory, moved), 0);
    kb_access_log_reopen_all();
    log_line(p, file, 0, KB_STR("kept\n"));
    kb_access_log_flush_all();
    assert_true(stat_of(p, KB_STAT_FILESYSTEM_REOPEN_FAILED) >= 1);
    assert_true(kb_str_eq(content(p, old), KB_STR("kept\n")));
    assert_int_equal(rename(moved, p->directory), 0);
    assert_int_equal(unlink(p->path), 0);
    log_line(p, file, 0, KB_STR("again\n"));
    kb_access_log_flush_all();
    assert_true(kb_str_eq(content(p, p->path), KB_STR("again\n")));
}

static void test_statistics(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, p->path);

    log_line(p, file, 0, KB_STR("0123456789\n"));
    log_line(p, file, 1, KB_STR("0123456789\n"));
    log_line(p, file, WORKERS, KB_STR("0123456789\n"));
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_BUFFERED), 3);
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED), 33);
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_COMPLETED), 0);
    kb_access_log_flush_all();
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED), 0);
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_COMPLETED), 3);
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_FAILED), 0);
}

static void test_a_full_disk_is_counted(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file = open_file(p, "/dev/full");

    log_line(p, file, 0, KB_STR("lost\n"));
    kb_access_log_flush_all();
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_FAILED), 1);
    assert_int_equal(stat_of(p, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED), 0);
}

static void test_a_stuck_reader_costs_lines_not_memory(void **state)
{
    struct process *p = *state;
    struct kb_log_file *file;
    char *line = malloc(65536);
    int fd;

    assert_int_equal(mkfifo(p->path, 0600), 0);
    fd = open(p->path, O_RDWR | O_NONBLOCK);
    file = open_file(p, p->path);
    memset(line, 's', 65536);
    for (size_t i = 0; i < KB_LOG_PENDING_MAX / 65536 + 200; i++) {
        log_line(p, file, 0, kb_str_make(line, 65536));
    }
    assert_true(stat_of(p, KB_STAT_FILESYSTEM_WRITE_FAILED) > 0);
    assert_true(stat_of(p, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED) <= KB_LOG_PENDING_MAX + 131072);
    while (!kb_log_writer_drain(1)) {
        assert_true(read(fd, line, 65536) > 0 || errno == EAGAIN);
    }
    close(fd);
    free(line);
}

#define BURSTS      50
#define BURST_LINES 40

struct burst {
    struct kb_worker *worker;
    struct kb_log_file *file;
};

static void burst_log(void *arg)
{
    struct burst *burst = arg;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    for (int i = 0; i < BURST_LINES; i++) {
        struct kb_format_out out;

        kb_log_file_begin(burst->file, burst->worker, &out, &arena);
        kb_format_out_add(&out, KB_STR("a line of a worker\n"));
        kb_log_file_end(burst->file, burst->worker, &out);
    }
    kb_arena_dispose(&arena);
}

static void test_workers_log_while_files_are_reopened(void **state)
{
    struct process *p = *state;
    struct burst bursts[WORKERS];
    struct kb_log_file *file = open_file(p, p->path);
    struct kb_str text;
    size_t lines = 0;

    for (uint32_t i = 0; i < WORKERS; i++) {
        bursts[i] = (struct burst){.worker = &p->workers[i], .file = file};
        assert_int_equal(kb_worker_start(&p->workers[i]), 0);
    }
    for (int i = 0; i < BURSTS; i++) {
        for (uint32_t w = 0; w < WORKERS; w++) {
            kb_loop_post(&p->workers[w].loop, burst_log, &bursts[w]);
        }
        kb_access_log_reopen_all();
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        kb_worker_join(&p->workers[i]);
    }
    kb_access_log_flush_all();
    text = content(p, p->path);
    for (struct kb_str line; kb_str_next_token(&text, '\n', &line) && line.len > 0; lines++) {
        assert_true(kb_str_eq(line, KB_STR("a line of a worker")));
    }
    assert_int_equal(lines, WORKERS * BURSTS * BURST_LINES);
}

static void test_a_file_that_cannot_be_opened(void **state)
{
    struct process *p = *state;
    char path[160];

    snprintf(path, sizeof(path), "%s/none/x", p->directory);
    assert_null(open_file(p, path));
    assert_null(open_file(p, p->directory));
    assert_int_equal(p->diag.error_count, 2);
    assert_true(kb_str_starts_with(p->diag.first->text, KB_STR("unable to open file '")));
    assert_true(kb_str_ends_with(p->diag.first->text, KB_STR("': No such file or directory")));
    assert_true(kb_str_ends_with(p->diag.first->next->text, KB_STR("': Is a directory")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines_wait_for_the_flush_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lines_are_flushed_by_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_everything_is_written_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_line_longer_than_a_buffer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reopen_follows_a_renamed_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reopen_that_fails_keeps_the_old_file_and_tries_again,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stuck_reader_costs_lines_not_memory, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_workers_log_while_files_are_reopened, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_cannot_be_opened, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
