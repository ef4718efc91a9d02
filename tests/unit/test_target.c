/* What the kinds of target share: the list that is taken over, and legal degrees in words. */
#include "reshard/target.h"

#include "tests/support/test.h"
#include "tests/support/tiny.h"

static void test_target__takes_over_names_dtypes_and_shapes(void **state)
{
    struct mix_random_source source;
    struct mix_target target, weights;
    struct mix_err err = { 0 };
    size_t k = 0;

    (void)state;
    test_tiny_open(&source, MIX_BF16, true);
    assert_ok(mix_target_take(&target, &source.m, false, &err), &err);
    assert_ok(mix_target_take(&weights, &source.m, true, &err), &err);
    assert_int_equal(target.m.tensor_count, source.m.tensor_count);
    assert_int_equal(weights.m.tensor_count * 4, source.m.tensor_count);
    /* BF16 weights, and three F32 for each of their elements. */
    assert_int_equal(target.bytes, weights.bytes * 7);
    for (size_t i = 0; i < target.m.tensor_count; i++) {
        const struct mix_ckpt_tensor *from = &source.m.tensor[i], *to = &target.m.tensor[i];

        assert_ptr_not_equal(to->name, from->name); /* need not live as long */
        assert_string_equal(to->name, from->name);
        assert_true(to->dtype == from->dtype && to->rank == from->rank && to->bytes == from->bytes);
        assert_memory_equal(to->shape, from->shape, from->rank * sizeof *from->shape);
        if (!strchr(from->name, '@'))
            assert_string_equal(weights.m.tensor[k++].name, from->name);
    }
    assert_int_equal(k, weights.m.tensor_count);
    mix_target_release(&target);
    mix_target_release(&weights);
    mix_target_release(&weights); /* of nothing */
    mix_random_close(&source);
}

static void test_target__changes_the_dtype_of_weights_only(void **state)
{
    struct mix_random_source source;
    struct mix_target target;
    struct mix_err err = { 0 };
    uint64_t bytes = 0;

    (void)state;
    test_tiny_open(&source, MIX_BF16, true);
    for (int pass = 0; pass < 2; pass++) {
        enum mix_dtype dtype = pass ? MIX_F16 : MIX_F32;

        bytes = 0;
        assert_ok(mix_target_take(&target, &source.m, false, &err), &err);
        assert_ok(mix_target_change_dtype(&target, dtype, &err), &err);
        for (size_t i = 0; i < target.m.tensor_count; i++) {
            const struct mix_ckpt_tensor *from = &source.m.tensor[i], *to = &target.m.tensor[i];
            bool is_state = strchr(from->name, '@') != NULL;

            assert_int_equal(to->dtype, is_state ? MIX_F32 : dtype);
            assert_int_equal(to->bytes, from->bytes * (!is_state && dtype == MIX_F32 ? 2 : 1));
            assert_int_equal(to->cut.rows * to->cut.row_bytes, to->bytes);
            bytes += to->bytes;
        }
        assert_int_equal(target.bytes, bytes);
        mix_target_release(&target);
    }
    mix_random_close(&source);
}

static const struct {
    uint64_t number;
    const char *text;
} divisors[] = {
    { 1, "1" },
    { 2, "1 and 2" },
    { 6, "1, 2, 3 and 6" },
    { 7, "1 and 7" },
    { 9, "1, 3 and 9" },
    { 8, "1, 2, 4 and 8" },
    { 14336, "1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224, 256, 448, 512, 896, 1024, 1792, "
             "2048, 3584, 7168 and 14336" },
    { 2147483647, "1 and 2147483647" }, /* a prime: not tried one by one */
};

static void test_target__legal_degrees_in_words(void **state)
{
    char text[256];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(divisors); i++)
        assert_string_equal(mix_divisors_text(divisors[i].number, text), divisors[i].text);
    /* 1,536 divisors: as many as there is room for, and the number itself. */
    mix_divisors_text(UINT64_C(735134400), text);
    assert_memory_equal(text, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,", 42);
    assert_text(text, ", ... and 735134400");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target__takes_over_names_dtypes_and_shapes),
        cmocka_unit_test(test_target__changes_the_dtype_of_weights_only),
        cmocka_unit_test(test_target__legal_degrees_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
