/* SPDX-License-Identifier: Apache-2.0 */
/* The ceiling of memory: what --max-memory means, and the order in which load is shed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/server/memory_limit.h"

#define MIB UINT64_C(1048576)

static void test_stages_in_order(void **state)
{
    const uint64_t ceiling = 100 * MIB;
    enum kb_memory_stage stage = KB_MEMORY_PLENTY;
    enum kb_memory_stage seen[] = {KB_MEMORY_STOP_ACCEPTING, KB_MEMORY_CLOSE_IDLE,
                                   KB_MEMORY_REFUSE_STREAMS, KB_MEMORY_RESET_STREAMS};
    size_t count = 0;

    (void)state;
    for (uint64_t used = 0; used <= 110; used++) {
        enum kb_memory_stage next = kb_memory_stage_of(used * MIB, ceiling, stage);

        if (next != stage) {
            assert_true(count < 4);
            assert_int_equal(next, seen[count++]);
            stage = next;
        }
    }
    assert_int_equal(count, 4);
    assert_int_equal(kb_memory_stage_of(97 * MIB, ceiling, stage), KB_MEMORY_RESET_STREAMS);
    assert_int_equal(kb_memory_stage_of(95 * MIB, ceiling, stage), KB_MEMORY_REFUSE_STREAMS);
    assert_int_equal(kb_memory_stage_of(80 * MIB, ceiling, stage), KB_MEMORY_PLENTY);
    assert_int_equal(kb_memory_stage_of(UINT64_MAX, 0, KB_MEMORY_PLENTY), KB_MEMORY_PLENTY);
}

static void size_check(const char *text, uint64_t number, bool share)
{
    struct kb_memory_size size;

    assert_int_equal(kb_memory_size_parse(kb_str_from_cstr(text), &size), 0);
    assert_int_equal(size.number, number);
    assert_int_equal(size.share, share);
}

static void test_sizes(void **state)
{
    static const char *const bad[] = {
        "", "%", "0%", "101%", "1T", "-1", "1 Mi", "Mi", "18446744073709551615G"};
    struct kb_memory_size size;

    (void)state;
    size_check("0", 0, false);
    size_check("1048576", MIB, false);
    size_check("512Mi", 512 * MIB, false);
    size_check("1G", UINT64_C(1000000000), false);
    size_check("80%", 80, true);
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        assert_int_not_equal(kb_memory_size_parse(kb_str_from_cstr(bad[i]), &size), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages_in_order),
        cmocka_unit_test(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
