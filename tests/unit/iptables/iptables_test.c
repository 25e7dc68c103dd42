/* SPDX-License-Identifier: Apache-2.0 */
/* Rules and what is read back, without a kernel: the name servers of both families, lists, ranges,
 * and texts of iptables-save that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "iptables/plan.h"
#include "iptables/state.h"

static void settings_of(struct kb_settings *settings, int argc, char **argv)
{
    assert_int_equal(kb_flags_read(settings, argc, argv), KB_FLAGS_OK);
    assert_int_equal(kb_settings_check(settings), 0);
    settings->proxy_uid = settings->proxy_gid = "1337";
}

static char *file_with(const char *text)
{
    static char path[64];

    snprintf(path, sizeof(path), "/tmp/kobune-resolv-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static void name_servers_of_both_families(void **state)
{
    char *argv[] = {"kobune-iptables", "--redirect-dns", "-i", "*", "--log_output_level=none"};
    struct kb_settings settings;
    struct kb_rules four = {0}, six = {0};
    struct kb_text text = {0};

    (void)state;
    settings_of(&settings, 5, argv);
    const char *path = file_with(
        "#nameserver 1.1.1.1\nnameserver 10.0.0.10\n nameserver fd00::a extra\nnameserver\n"
        "nameserver fe80::1%eth0\nnameserver -j\nnameservers 2.2.2.2\noptions x");
    assert_int_equal(kb_settings_read_dns(&settings, path), 0);
    unlink(path);
    assert_int_equal(settings.dns4.count, 1);
    assert_int_equal(settings.dns6.count, 1);
    kb_plan_build(&settings, false, &four);
    kb_plan_build(&settings, true, &six);
    kb_rules_restore_text(&four, &text);
    assert_non_null(strstr(
        text.at,
        "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.0.0.10/32 -j REDIRECT --to-ports 15053\n"));
    assert_null(strstr(text.at, "fd00"));
    kb_text_dispose(&text);
    kb_rules_restore_text(&six, &text);
    assert_non_null(
        strstr(text.at, "-A ISTIO_INBOUND -p udp --sport 53 -s fd00::a/128 -j CT --zone 1\n"));
    assert_non_null(strstr(text.at, "-A ISTIO_OUTPUT -o lo -s ::6/128 -j RETURN\n"));
    assert_null(strstr(text.at, "10.0.0.10"));
    kb_text_dispose(&text);
    kb_rules_dispose(&four);
    kb_rules_dispose(&six);
}

static void no_name_server_no_capture(void **state)
{
    char *argv[] = {"kobune-iptables", "--redirect-dns", "--log_output_level=none"};
    struct kb_settings settings;

    (void)state;
    settings_of(&settings, 3, argv);
    const char *path = file_with("search a\n");
    assert_int_equal(kb_settings_read_dns(&settings, path), 0);
    assert_false(settings.redirect_dns);
    unlink(path);
    assert_int_equal(kb_settings_read_dns(&settings, path), -1);
}

static void what_is_ours_is_read_back(void **state)
{
    static const char saved[] =
        "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n:OTHER - [0:0]\n"
        "-A OUTPUT -p tcp -j ISTIO_OUTPUT\n-A OUTPUT -j OTHER\n-A OTHER -j ISTIO_OUTPUT\n"
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n-A ISTIO_OUTPUT -j RETURN\nCOMMIT\n"
        "*security\n:ISTIO_X - [0:0]\nCOMMIT\n*raw\n-A ISTIO_INBOUND -j RETURN\nCOMMIT\n";
    struct kb_state read = {0};

    (void)state;
    kb_state_read(&read, saved);
    assert_int_equal(read.chain_count, 2);
    assert_int_equal(kb_state_chain(&read, "nat", "ISTIO_OUTPUT")->rules, 2);
    assert_int_equal(kb_state_chain(&read, "raw", "ISTIO_INBOUND")->rules, 1);
    assert_int_equal(read.jumps.count, 1);
    assert_string_equal(read.jumps.at[0].match, "-p tcp -j ISTIO_OUTPUT");
    kb_state_dispose(&read);
}

static void texts_that_are_none(void **state)
{
    static const char *const texts[] = {
        "",
        "\n",
        "*",
        "*nat",
        ":ISTIO_A",
        "*nat\n:ISTIO_",
        "*nat\n:ISTIO_A",
        "*nat\n-A ",
        "*nat\n-A ISTIO_A",
        "*nat\n-A OUTPUT -j ",
        "*nat\n-A OUTPUT -j ISTIO_",
        "*nat\n:\n-A\n-A  \n",
        "*nat\n:ISTIO_A_NAME_THAT_IS_LONGER_THAN_THE_KERNEL_ALLOWS - [0:0]\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct kb_state read = {0};
        kb_state_read(&read, texts[i]);
        assert_int_equal(read.jumps.count, 0);
        kb_state_dispose(&read);
    }
}

static void ranges(void **state)
{
    static const struct {
        const char *text, *out;
    } cases[] = {
        {"10.0.0.0/8", "10.0.0.0/8"}, {"10.1.2.3/0", "10.1.2.3/0"},
        {"FD00:0:0::/8", "fd00::/8"}, {"10.0.0.0", NULL},
        {"10.0.0.0/", NULL},          {"10.0.0.0/08", NULL},
        {"10.0.0/8", NULL},           {"/8", NULL},
        {"10.0.0.0/-1", NULL},        {"::/129", NULL},
        {"fe80::1%eth0/64", NULL},    {"10.0.0.0/8/8", NULL},
    };
    struct kb_range range;
    const char *why;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kb_piece piece = {cases[i].text, (int)strlen(cases[i].text)};
        why = NULL;
        assert_int_equal(kb_range_parse(piece, &range, &why), cases[i].out ? 0 : -1);
        if (cases[i].out) {
            assert_string_equal(range.text, cases[i].out);
        } else {
            assert_non_null(why);
        }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_servers_of_both_families),
        cmocka_unit_test(no_name_server_no_capture),
        cmocka_unit_test(what_is_ours_is_read_back),
        cmocka_unit_test(texts_that_are_none),
        cmocka_unit_test(ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
