/* Little-endian bytes, and sums and products that do not wrap. */
#include "ckpt/base/bytes.h"

#include "tests/support/test.h"

static void test_bytes__little_endian_of_every_width(void **state)
{
    const uint64_t value = UINT64_C(0x8877665544332211);

    (void)state;
    for (int width = 0; width <= 8; width++) {
        unsigned char byte[10];
        uint64_t mask = width == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * width) - 1;

        memset(byte, 0xee, sizeof byte);
        mix_store_le(byte + 1, value, width);
        for (int i = 0; i < width; i++)
            assert_int_equal(byte[1 + i], 0x11 * (i + 1));
        assert_int_equal(byte[0], 0xee); /* and not a byte more */
        assert_int_equal(byte[1 + width], 0xee);
        assert_true(mix_load_le(byte + 1, width) == (value & mask));
    }
}

static const struct {
    uint64_t a, b;
    bool sum_fits, product_fits;
} edges[] = {
    { 0, 0, true, true },
    { UINT64_MAX, 0, true, true },
    { UINT64_MAX, 1, false, true },
    { UINT64_MAX - 1, 1, true, true },
    { UINT64_C(1) << 63, UINT64_C(1) << 63, false, false },
    { UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1, true, false },
    { UINT64_C(1) << 32, UINT64_C(1) << 32, true, false },
    { UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, true, true },
    { UINT64_MAX, UINT64_MAX, false, false },
    { 3, UINT64_MAX / 3, true, true },
    { 3, UINT64_MAX / 3 + 1, true, false },
};

static void test_bytes__sums_and_products_say_when_they_do_not_fit(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(edges); i++) {
        for (int swap = 0; swap < 2; swap++) {
            uint64_t a = swap ? edges[i].b : edges[i].a, b = swap ? edges[i].a : edges[i].b;
            uint64_t sum = 77, product = 77;

            assert_int_equal(mix_add(a, b, &sum), edges[i].sum_fits);
            assert_true(sum == (edges[i].sum_fits ? a + b : 77)); /* else untouched */
            assert_int_equal(mix_mul(a, b, &product), edges[i].product_fits);
            assert_true(product == (edges[i].product_fits ? a * b : 77));
        }
    }
}

static void test_bytes__rounds_up(void **state)
{
    (void)state;
    assert_true(mix_div_up(0, 7) == 0);
    assert_true(mix_div_up(7, 7) == 1);
    assert_true(mix_div_up(8, 7) == 2);
    assert_true(mix_div_up(UINT64_MAX, 1) == UINT64_MAX);
    assert_true(mix_div_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
    assert_true(mix_div_up(1, UINT64_MAX) == 1);
    assert_true(mix_round_up(0, 4096) == 0);
    assert_true(mix_round_up(1, 4096) == 4096);
    assert_true(mix_round_up(4096, 4096) == 4096);
    assert_true(mix_round_up(4097, 1) == 4097);
    assert_true(mix_min(3, 4) == 3 && mix_max(3, 4) == 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes__little_endian_of_every_width),
        cmocka_unit_test(test_bytes__sums_and_products_say_when_they_do_not_fit),
        cmocka_unit_test(test_bytes__rounds_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
