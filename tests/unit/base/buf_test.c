/* SPDX-License-Identifier: Apache-2.0 */
/* Byte queues against a flat array: random operations give the same bytes, and nothing is left
 * over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rand.h"

#define MODEL_MAX (1 << 20)

static char model[2][MODEL_MAX];
static size_t model_len[2];
static struct kb_slice_source source;

static void check(const struct kb_buf *buf, unsigned which)
{
    static char bytes[MODEL_MAX];

    assert_int_equal(buf->len, model_len[which]);
    assert_int_equal(kb_buf_peek(buf, bytes, sizeof(bytes)), model_len[which]);
    assert_memory_equal(bytes, model[which], model_len[which]);
}

static void model_append(unsigned which, const char *bytes, size_t len)
{
    memcpy(model[which] + model_len[which], bytes, len);
    model_len[which] += len;
}

static void model_consume(unsigned which, size_t len)
{
    memmove(model[which], model[which] + len, model_len[which] - len);
    model_len[which] -= len;
}

static void step(struct kb_buf *bufs, struct kb_rand *rand)
{
    static char bytes[40000];
    unsigned which = kb_rand_u64(rand) & 1;
    struct kb_buf *buf = &bufs[which];
    size_t len = kb_rand_u64(rand) % (kb_rand_u64(rand) % 2 ? sizeof(bytes) : 50);
    size_t room;
    char *at;

    for (size_t i = 0; i < len; i++) {
        bytes[i] = (char)kb_rand_u64(rand);
    }
    switch (kb_rand_u64(rand) % 7) {
    case 0:
        kb_buf_append(buf, bytes, len);
        model_append(which, bytes, len);
        break;
    case 1:
        len = KB_MIN(len, buf->len);
        kb_buf_consume(buf, len);
        model_consume(which, len);
        break;
    case 2:
        len = KB_MIN(len, buf->len);
        kb_buf_move_first(&bufs[!which], buf, len);
        model_append(!which, model[which], len);
        model_consume(which, len);
        break;
    case 3:
        at = kb_buf_read_room(buf, &room);
        len = KB_MIN(len, room);
        memcpy(at, bytes, len);
        kb_buf_commit(buf, len);
        kb_buf_trim(buf);
        model_append(which, bytes, len);
        break;
    case 4:
        at = kb_buf_reserve(buf, len + 10);
        memcpy(at, bytes, len);
        kb_buf_commit(buf, len);
        model_append(which, bytes, len);
        break;
    case 5:
        kb_buf_pack(buf);
        break;
    default:
        len = KB_MIN(len, buf->len);
        assert_true(kb_buf_pullup(buf, len).len >= len);
    }
}

static void test_random_operations_keep_the_bytes(void **state)
{
    struct kb_buf bufs[2];
    struct kb_rand rand;

    (void)state;
    kb_rand_init(&rand, 7);
    kb_slice_source_init(&source, 4);
    kb_buf_init(&bufs[0], &source, 1000);
    kb_buf_init(&bufs[1], &source, 0);
    for (unsigned i = 0; i < 3000; i++) {
        step(bufs, &rand);
        check(&bufs[0], 0);
        check(&bufs[1], 1);
        for (unsigned which = 0; which < 2; which++) {
            if (model_len[which] > MODEL_MAX / 2) {
                kb_buf_dispose(&bufs[which]);
                model_len[which] = 0;
            }
        }
    }
    kb_buf_dispose(&bufs[0]);
    kb_buf_dispose(&bufs[1]);
    assert_int_equal(source.bytes_in_use, 0);
    kb_slice_source_dispose(&source);
}

static void test_watermarks(void **state)
{
    struct kb_buf buf;
    char bytes[100] = {0};

    (void)state;
    kb_slice_source_init(&source, 4);
    kb_buf_init(&buf, &source, 100);
    kb_buf_append(&buf, bytes, 100);
    assert_false(kb_buf_above_high(&buf));
    kb_buf_append(&buf, bytes, 1);
    assert_true(kb_buf_above_high(&buf));
    kb_buf_consume(&buf, 50);
    assert_false(kb_buf_below_low(&buf));
    kb_buf_consume(&buf, 1);
    assert_true(kb_buf_below_low(&buf));
    kb_buf_dispose(&buf);
    kb_slice_source_dispose(&source);
}

/* A body by reference as it was received, with framing between its pieces. */
static void body_append(struct kb_buf *buf, size_t len)
{
    static const char bytes[KB_SLICE_BYTES];
    struct kb_slice *slice = kb_slice_acquire(&source, KB_SLICE_BYTES);

    slice->used = (uint32_t)(len < KB_SLICE_BYTES ? len + 1 : len);
    memcpy(slice->bytes, bytes, slice->used);
    kb_buf_append(buf, "4000\r\n", 6);
    kb_buf_append_slice(buf, slice, 0, len);
    kb_slice_unref(slice);
}

static void test_framing_between_full_slices_costs_little(void **state)
{
    struct kb_buf buf;

    (void)state;
    kb_slice_source_init(&source, 4);
    kb_buf_init(&buf, &source, 0);
    kb_buf_append(&buf, "a head", 6);
    assert_int_equal(source.bytes_in_use, KB_SLICE_BYTES); /* room for a body behind it */
    for (unsigned i = 0; i < 10; i++) {
        body_append(&buf, KB_SLICE_BYTES);
    }
    assert_true(source.bytes_in_use <= 11 * KB_SLICE_BYTES + 10 * KB_SLICE_SMALL_BYTES);
    for (unsigned i = 0; i < 1000; i++) {
        kb_buf_append(&buf, "0123456789", 10);
    }
    /* The second small one in a row would be the beginning of many. */
    assert_true(source.bytes_in_use <= 12 * KB_SLICE_BYTES + 11 * KB_SLICE_SMALL_BYTES);
    kb_buf_dispose(&buf);
    assert_int_equal(source.bytes_in_use, 0);
    kb_slice_source_dispose(&source);
}

static void test_packed_slices_are_full(void **state)
{
    struct kb_buf buf;
    size_t before;

    (void)state;
    kb_slice_source_init(&source, 4);
    kb_buf_init(&buf, &source, 0);
    for (unsigned i = 0; i < 20; i++) {
        body_append(&buf, KB_SLICE_COPY_MAX + 100);
    }
    before = source.bytes_in_use;
    assert_true(before >= (size_t)20 * KB_SLICE_BYTES);
    kb_buf_pack(&buf);
    assert_true(source.bytes_in_use <= buf.len + buf.len / 2 + KB_SLICE_BYTES);
    assert_int_equal(buf.len, 20 * (KB_SLICE_COPY_MAX + 106));
    before = source.bytes_in_use;
    kb_buf_pack(&buf); /* again: nothing to do */
    assert_int_equal(source.bytes_in_use, before);
    kb_buf_dispose(&buf);
    assert_int_equal(source.bytes_in_use, 0);
    kb_slice_source_dispose(&source);
}

/* A body of a kilobyte goes from queue to queue without being copied; behind other bytes it is. */
static void test_the_first_piece_is_not_copied(void **state)
{
    struct kb_buf first, second;
    struct kb_slice *slice;

    (void)state;
    kb_slice_source_init(&source, 4);
    slice = kb_slice_acquire(&source, 100);
    slice->used = 100;
    kb_buf_init(&first, &source, 0);
    kb_buf_init(&second, &source, 0);
    kb_buf_append_slice(&first, slice, 10, 80);
    assert_ptr_equal(first.first->slice, slice);
    assert_int_equal(slice->refs, 2);
    kb_buf_move(&second, &first);
    assert_int_equal(first.len, 0);
    assert_null(first.first);
    assert_ptr_equal(second.first->slice, slice);
    kb_buf_append_slice(&first, slice, 0, 20);
    kb_buf_move(&second, &first);
    assert_int_equal(second.len, 100);
    assert_int_equal(slice->refs, 2);
    kb_buf_dispose(&second);
    kb_buf_move(&second, &first); /* nothing */
    assert_null(second.last);
    kb_slice_unref(slice);
    kb_buf_dispose(&first);
    assert_int_equal(source.bytes_in_use, 0);
    kb_slice_source_dispose(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing_between_full_slices_costs_little),
        cmocka_unit_test(test_packed_slices_are_full),
        cmocka_unit_test(test_the_first_piece_is_not_copied),
        cmocka_unit_test(test_random_operations_keep_the_bytes),
        cmocka_unit_test(test_watermarks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
