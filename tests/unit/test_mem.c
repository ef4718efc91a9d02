/* Objects, growing arrays and buffers, arenas: contents survive growing, sizes cannot wrap. */
#include "ckpt/base/mem.h"

#include <stdlib.h>

#include "tests/support/test.h"

static bool is_zero(const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        if (p[i])
            return false;
    return true;
}

static void test_mem__new_is_zeroed(void **state)
{
    struct mix_err err = { 0 };
    unsigned char *p;

    (void)state;
    assert_ok(mix_new(&p, 1000, &err), &err);
    assert_true(is_zero(p, 1000));
    free(p);
    assert_ok(mix_new(&p, 0, &err), &err); /* nothing is something that can be freed */
    assert_non_null(p);
    free(p);
    assert_ok(mix_new_array(&p, 7, 13, &err), &err);
    assert_true(is_zero(p, 91));
    free(p);
}

static void test_mem__a_size_that_wraps_is_no_memory(void **state)
{
    struct mix_err err = { 0 };
    struct mix_buf buf = MIX_BUF_INIT;
    struct mix_arena arena = MIX_ARENA_INIT;
    size_t capacity = SIZE_MAX / 8;
    char there, *p = &there;

    (void)state;
    assert_int_equal(mix_new_array(&p, SIZE_MAX / 2, 3, &err), MIX_NO_MEMORY);
    assert_null(p);
    assert_text(err.text, "out of memory");
    p = &there;
    assert_int_equal(mix_new_array(&p, SIZE_MAX / 2 + 2, 2, &err), MIX_NO_MEMORY); /* wraps to 2 */
    assert_null(p);
    p = &there;
    assert_int_equal(mix_grow(&p, &capacity, capacity, 8, &err), MIX_NO_MEMORY);
    assert_ptr_equal(p, &there); /* still the caller's */
    assert_true(capacity == SIZE_MAX / 8);
    assert_int_equal(mix_buf_reserve(&buf, SIZE_MAX - 5, &err), MIX_NO_MEMORY);
    assert_int_equal(mix_buf_reserve(&buf, SIZE_MAX / 2, &err), MIX_NO_MEMORY);
    assert_int_equal(mix_arena_new(&arena, &p, SIZE_MAX - 3, &err), MIX_NO_MEMORY);
    assert_null(p);
    mix_arena_release(&arena);
}

static void test_mem__grow_keeps_what_is_there(void **state)
{
    struct mix_err err = { 0 };
    size_t capacity = 0, count = 0, moves = 0, last = 0;
    uint32_t *item = NULL;

    (void)state;
    for (; count < 100000; count++) {
        assert_ok(mix_grow(&item, &capacity, count, sizeof *item, &err), &err);
        assert_true(capacity > count);
        moves += capacity != last;
        last = capacity;
        item[count] = (uint32_t)(count * 2654435761u);
    }
    for (size_t i = 0; i < count; i++)
        assert_true(item[i] == (uint32_t)(i * 2654435761u));
    assert_true(moves < 20); /* doubling, so that adding is linear */
    free(item);
}

static void test_mem__buffer_ends_in_nul(void **state)
{
    struct mix_err err = { 0 };
    struct mix_buf buf = MIX_BUF_INIT;
    char text[2000];

    (void)state;
    assert_ok(mix_buf_put(&buf, "", 0, &err), &err);
    assert_string_equal(buf.data, "");
    assert_ok(mix_buf_put(&buf, "ab\0cd", 5, &err), &err);
    assert_int_equal(buf.len, 5);
    assert_memory_equal(buf.data, "ab\0cd", 6);
    mix_buf_clear(&buf);
    assert_string_equal(buf.data, "");
    for (int i = 0; i < 1000; i++)
        assert_ok(mix_buf_putf(&buf, &err, "%03d", i), &err);
    assert_int_equal(buf.len, 3000);
    assert_int_equal(strlen(buf.data), 3000);
    assert_memory_equal(buf.data + 2997, "999", 4);
    mix_buf_release(&buf);
    assert_null(buf.data);
    mix_buf_clear(&buf); /* of nothing */

    /* Around the size that putf formats without a second look. */
    memset(text, 'x', sizeof text);
    for (int len = 509; len < 515; len++) {
        mix_buf_clear(&buf);
        assert_ok(mix_buf_putf(&buf, &err, "<%.*s>", len, text), &err);
        assert_int_equal(buf.len, len + 2);
        assert_int_equal(strlen(buf.data), len + 2);
        assert_int_equal(buf.data[0], '<');
        assert_int_equal(buf.data[len + 1], '>');
    }
    mix_buf_release(&buf);
}

static void test_mem__arena_hands_out_parts_that_do_not_touch(void **state)
{
    enum { PARTS = 3000 };
    struct mix_err err = { 0 };
    struct mix_arena arena = MIX_ARENA_INIT;
    unsigned char *part[PARTS];

    (void)state;
    for (size_t i = 0; i < PARTS; i++) {
        size_t size = i % 1000 == 999 ? 200000 : i % 97; /* some do not fit a usual block */

        assert_ok(mix_arena_new(&arena, &part[i], size, &err), &err);
        assert_int_equal((uintptr_t)part[i] % _Alignof(max_align_t), 0);
        assert_true(is_zero(part[i], size));
        memset(part[i], (int)(i % 251 + 1), size);
    }
    for (size_t i = 0; i < PARTS; i++) {
        size_t size = i % 1000 == 999 ? 200000 : i % 97;

        for (size_t k = 0; k < size; k++)
            assert_int_equal(part[i][k], i % 251 + 1);
    }
    mix_arena_release(&arena);
    mix_arena_release(&arena); /* of nothing */
}

static void test_mem__arena_text_is_a_copy(void **state)
{
    struct mix_err err = { 0 };
    struct mix_arena arena = MIX_ARENA_INIT;
    char from[] = "abcdef";
    const char *a, *b;

    (void)state;
    assert_ok(mix_arena_text(&arena, from, 3, &a, &err), &err);
    assert_ok(mix_arena_text(&arena, "", 0, &b, &err), &err);
    from[0] = 'z';
    assert_string_equal(a, "abc");
    assert_string_equal(b, "");
    mix_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mem__new_is_zeroed),
        cmocka_unit_test(test_mem__a_size_that_wraps_is_no_memory),
        cmocka_unit_test(test_mem__grow_keeps_what_is_there),
        cmocka_unit_test(test_mem__buffer_ends_in_nul),
        cmocka_unit_test(test_mem__arena_hands_out_parts_that_do_not_touch),
        cmocka_unit_test(test_mem__arena_text_is_a_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
