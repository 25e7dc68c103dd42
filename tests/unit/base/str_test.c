/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of tokens as headers have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"

static void test_list_has(void **state)
{
    static const char *const with[] = {"close",   "Close",        " close\t", "x,close",
                                       "close,x", "x, CLOSE , y", ",close",   "close,"};
    static const char *const without[] = {"",        ",",      "closed",   "clos",
                                          "x close", "clo,se", "\"close\""};

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(with); i++) {
        assert_true(kb_str_list_has(kb_str_from_cstr(with[i]), KB_STR("close")));
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(without); i++) {
        assert_false(kb_str_list_has(kb_str_from_cstr(without[i]), KB_STR("close")));
    }
    assert_false(kb_str_list_has(KB_STR_NULL, KB_STR("close")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_list_has)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
