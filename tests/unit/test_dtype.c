/*
 * Element types: names and sizes, and the values of their bits. The conversions are
 * checked for every 16-bit pattern and at every point where rounding turns, against the
 * formula of IEEE 754; 8-bit floats against a table that ml_dtypes made.
 */
#include "ckpt/base/dtype.h"

#include <math.h>

#include "tests/reference/f8_values.h"
#include "tests/support/test.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, 4);
    return value;
}

/* What a pattern of 1 + e + m bits means: IEEE 754-2019, 3.4. */
static double defined_value(unsigned e, unsigned m, unsigned bits)
{
    unsigned exponent = bits >> m & ((1u << e) - 1), fraction = bits & ((1u << m) - 1);
    int bias = (1 << (e - 1)) - 1;
    double sign = bits >> (e + m) & 1 ? -1 : 1;

    if (exponent == (1u << e) - 1)
        return fraction ? NAN : sign * INFINITY;
    if (!exponent)
        return sign * ldexp(fraction, 1 - bias - (int)m);
    return sign * ldexp((double)((1u << m) + fraction), (int)exponent - bias - (int)m);
}

static bool same(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static const struct half {
    const char *name;
    enum mix_dtype dtype;
    unsigned e, m;
    float (*widen)(uint16_t);
    uint16_t (*round)(float);
} halves[] = {
    { "F16", MIX_F16, 5, 10, mix_f16_to_f32, mix_f32_to_f16 },
    { "BF16", MIX_BF16, 8, 7, mix_bf16_to_f32, mix_f32_to_bf16 },
};

static void test_dtype__every_16_bit_pattern_has_its_value_and_comes_back(void **state)
{
    (void)state;
    for (size_t h = 0; h < MIX_ARRAY_LEN(halves); h++) {
        const struct half *t = &halves[h];

        test_row(t->name);
        for (unsigned bits = 0; bits < 65536; bits++) {
            unsigned char le[2] = { (unsigned char)bits, (unsigned char)(bits >> 8) };
            double value = defined_value(t->e, t->m, bits);
            float wide = t->widen((uint16_t)bits);

            assert_true(same(wide, value));
            assert_true(same(mix_dtype_value(t->dtype, le, 0), value));
            if (isnan(value))
                assert_true(isnan(t->widen(t->round(wide))) &&
                            t->round(wide) >> 15 == bits >> 15);
            else
                assert_int_equal(t->round(wide), bits);
        }
    }
}

/*
 * Between each two neighbours a < b (positive; the other side mirrors) the tie goes to
 * the even pattern, and the floats next to the tie to the nearer neighbour. The last
 * tie is the one with what would be the next number, were there no Inf.
 */
static void test_dtype__rounds_to_nearest_even(void **state)
{
    (void)state;
    for (size_t h = 0; h < MIX_ARRAY_LEN(halves); h++) {
        const struct half *t = &halves[h];
        unsigned infinity = ((1u << t->e) - 1) << t->m;

        test_row(t->name);
        for (unsigned a = 0; a < infinity; a++) {
            double low = defined_value(t->e, t->m, a);
            double high = a + 1 < infinity ? defined_value(t->e, t->m, a + 1)
                                           : ldexp(1, 1 << (t->e - 1));
            float tie = (float)(low + (high - low) / 2);
            unsigned even = a % 2 ? a + 1 : a, minus = 0x8000;

            assert_true(tie == low + (high - low) / 2); /* exact in F32 */
            assert_int_equal(t->round(tie), even);
            assert_int_equal(t->round(-tie), even | minus);
            assert_int_equal(t->round(nextafterf(tie, 0)), a);
            assert_int_equal(t->round(-nextafterf(tie, 0)), a | minus);
            assert_int_equal(t->round(nextafterf(tie, INFINITY)), a + 1);
            assert_int_equal(t->round(-nextafterf(tie, INFINITY)), (a + 1) | minus);
        }
        assert_int_equal(t->round(INFINITY), infinity);
        assert_int_equal(t->round(-INFINITY), infinity | 0x8000);
        assert_int_equal(t->round(0x1.fffffep127f), infinity);
    }
}

/* Any NaN, also one whose upper bits alone would be Inf. */
static void test_dtype__nan_stays_nan(void **state)
{
    static const uint32_t nan_bits[] = { 0x7f800001, 0x7f80ffff, 0x7fc00000, 0x7fffffff };

    (void)state;
    for (size_t h = 0; h < MIX_ARRAY_LEN(halves); h++) {
        for (size_t i = 0; i < MIX_ARRAY_LEN(nan_bits); i++) {
            assert_true(isnan(halves[h].widen(halves[h].round(float_of(nan_bits[i])))));
            assert_true(isnan(halves[h].widen(halves[h].round(
                float_of(nan_bits[i] | 0x80000000)))));
        }
    }
}

static void test_dtype__8_bit_floats_are_those_of_ml_dtypes(void **state)
{
    (void)state;
    for (size_t t = 0; t < MIX_ARRAY_LEN(f8_values); t++) {
        enum mix_dtype dtype = f8_values[t].dtype;
        uint64_t nan_count = 0, inf_count = 0, nan_wanted = 0, inf_wanted = 0;
        unsigned char code[256];

        test_row(mix_dtype_name(dtype));
        for (int i = 0; i < 256; i++)
            code[i] = (unsigned char)i;
        for (size_t i = 0; i < 256; i++) {
            float wanted = float_of(f8_values[t].f32[i]);

            assert_true(same(mix_dtype_value(dtype, code, i), wanted));
            nan_wanted += isnan(wanted) != 0;
            inf_wanted += isinf(wanted) != 0;
        }
        mix_dtype_count_non_finite(dtype, code, 256, &nan_count, &inf_count);
        assert_true(nan_count == nan_wanted && nan_wanted > 0);
        assert_true(inf_count == inf_wanted);
    }
}

static void test_dtype__counts_nan_and_inf_among_all_16_bit_patterns(void **state)
{
    static unsigned char all[65536 * 2];

    (void)state;
    for (unsigned bits = 0; bits < 65536; bits++)
        mix_store_le(all + 2 * bits, bits, 2);
    for (size_t h = 0; h < MIX_ARRAY_LEN(halves); h++) {
        uint64_t nan_count = 5, inf_count = 7; /* they grow */

        test_row(halves[h].name);
        mix_dtype_count_non_finite(halves[h].dtype, all, sizeof all, &nan_count, &inf_count);
        assert_int_equal(nan_count, 5 + 2 * ((1 << halves[h].m) - 1));
        assert_int_equal(inf_count, 7 + 2);
    }
}

static const struct {
    const char *what;
    enum mix_dtype dtype;
    unsigned width;
    uint64_t bits;
    int nan_count, inf_count;
} codes[] = {
    { "F32 NaN", MIX_F32, 4, 0x7f800001, 1, 0 },
    { "F32 -NaN", MIX_F32, 4, 0xffffffff, 1, 0 },
    { "F32 Inf", MIX_F32, 4, 0x7f800000, 0, 1 },
    { "F32 -Inf", MIX_F32, 4, 0xff800000, 0, 1 },
    { "F32 largest", MIX_F32, 4, 0x7f7fffff, 0, 0 },
    { "F32 zero", MIX_F32, 4, 0, 0, 0 },
    { "C64 NaN + Inf i", MIX_C64, 8, UINT64_C(0x7f8000007fc00000), 1, 1 },
    { "C64 1 - Inf i", MIX_C64, 8, UINT64_C(0xff8000003f800000), 0, 1 },
    { "F64 NaN", MIX_F64, 8, UINT64_C(0x7ff0000000000001), 1, 0 },
    { "F64 Inf", MIX_F64, 8, UINT64_C(0xfff0000000000000), 0, 1 },
    { "F64 largest", MIX_F64, 8, UINT64_C(0x7fefffffffffffff), 0, 0 },
    { "U8 255", MIX_U8, 1, 0xff, 0, 0 },
    { "I16 all ones", MIX_I16, 2, 0xffff, 0, 0 },
    { "U32 as a NaN", MIX_U32, 4, 0x7fc00000, 0, 0 },
    { "I64 all ones", MIX_I64, 8, UINT64_MAX, 0, 0 },
    { "BOOL", MIX_BOOL, 1, 0xff, 0, 0 },
    { "F4", MIX_F4, 1, 0xff, 0, 0 },
    { "F6_E3M2", MIX_F6_E3M2, 3, 0xffffff, 0, 0 },
};

static void test_dtype__counts_non_finite_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(codes); i++) {
        unsigned char data[3 * 8 + 1] = { 0 };
        uint64_t nan_count = 0, inf_count = 0;

        test_row(codes[i].what);
        /* At an odd address, between two zeros. */
        mix_store_le(data + 1 + codes[i].width, codes[i].bits, (int)codes[i].width);
        mix_dtype_count_non_finite(codes[i].dtype, data + 1, 3 * codes[i].width, &nan_count,
                                   &inf_count);
        assert_int_equal(nan_count, codes[i].nan_count);
        assert_int_equal(inf_count, codes[i].inf_count);
    }
}

static void test_dtype__values_of_integers_and_wide_floats(void **state)
{
    static const struct {
        enum mix_dtype dtype;
        uint64_t bits;
        double value;
    } row[] = {
        { MIX_BOOL, 1, 1 },
        { MIX_U8, 0xff, 255 },
        { MIX_I8, 0x80, -128 },
        { MIX_U16, 0xffff, 65535 },
        { MIX_I16, 0x8000, -32768 },
        { MIX_U32, 0xffffffff, 4294967295.0 },
        { MIX_I32, 0x80000000, -2147483648.0 },
        { MIX_U64, UINT64_MAX, 18446744073709551616.0 },
        { MIX_I64, UINT64_C(1) << 63, -9223372036854775808.0 },
        { MIX_F32, 0x3fc00000, 1.5 },
        { MIX_F64, UINT64_C(0x3ff0000000000001), 1 + 0x1p-52 },
    };
    unsigned char data[24], complex[8];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        unsigned width = mix_dtype_bits(row[i].dtype) / 8;

        test_row(mix_dtype_name(row[i].dtype));
        memset(data, 0x55, sizeof data);
        mix_store_le(data + width, row[i].bits, (int)width);
        assert_true(mix_dtype_has_values(row[i].dtype));
        assert_true(mix_dtype_value(row[i].dtype, data, 1) == row[i].value);
    }
    mix_store_le(complex, bits_of(2.5f), 4);
    mix_store_le(complex + 4, bits_of(-3.f), 4);
    assert_true(mix_dtype_value(MIX_C64, complex, 0) == 2.5);
    assert_true(mix_dtype_value(MIX_C64, complex, 1) == -3);
    assert_false(mix_dtype_has_values(MIX_F4));
    assert_false(mix_dtype_has_values(MIX_F6_E2M3));
    assert_false(mix_dtype_has_values(MIX_F6_E3M2));
}

/* The order is that of safetensors' enum: files are written in it. */
static void test_dtype__names_and_bits_are_those_of_safetensors(void **state)
{
    static const struct {
        const char *name;
        unsigned bits;
    } reference[MIX_DTYPE_COUNT] = {
        { "BOOL", 8 }, { "F4", 4 }, { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "U8", 8 }, { "I8", 8 },
        { "F8_E5M2", 8 }, { "F8_E4M3", 8 }, { "F8_E8M0", 8 }, { "F8_E4M3FNUZ", 8 },
        { "F8_E5M2FNUZ", 8 }, { "I16", 16 }, { "U16", 16 }, { "F16", 16 }, { "BF16", 16 },
        { "I32", 32 }, { "U32", 32 }, { "F32", 32 }, { "C64", 64 }, { "F64", 64 }, { "I64", 64 },
        { "U64", 64 },
    };
    static const char *const unknown[] = { "", "bf16", "BF16 ", " BF16", "BF1", "C128", "F8", "F" };
    enum mix_dtype found;

    (void)state;
    for (int i = 0; i < MIX_DTYPE_COUNT; i++) {
        test_row(reference[i].name);
        assert_string_equal(mix_dtype_name((enum mix_dtype)i), reference[i].name);
        assert_int_equal(mix_dtype_bits((enum mix_dtype)i), reference[i].bits);
        assert_true(mix_dtype_find(reference[i].name, &found));
        assert_int_equal(found, i);
    }
    for (size_t i = 0; i < MIX_ARRAY_LEN(unknown); i++)
        assert_false(mix_dtype_find(unknown[i], &found));
}

#define HUGE_SIZE (UINT64_C(1) << 40)

static const struct {
    const char *what;
    enum mix_dtype dtype;
    size_t rank;
    uint64_t shape[4];
    const char *says; /* NULL: it is fine */
    uint64_t bytes;
} sizes[] = {
    { "scalar", MIX_F32, 0, { 0 }, NULL, 4 },
    { "matrix", MIX_BF16, 2, { 3, 5 }, NULL, 30 },
    { "no elements", MIX_BF16, 3, { 3, 0, 5 }, NULL, 0 },
    { "zero first shields the rest", MIX_F32, 3, { 0, HUGE_SIZE, HUGE_SIZE }, NULL, 0 },
    { "zero last does not", MIX_F32, 3, { HUGE_SIZE, HUGE_SIZE, 0 }, "elements passes", 0 },
    { "elements wrap", MIX_U8, 2, { UINT64_C(1) << 32, UINT64_C(1) << 32 }, "elements passes", 0 },
    { "bits wrap", MIX_U8, 1, { UINT64_C(1) << 61 }, "bits passes", 0 },
    { "bits just fit", MIX_U8, 1, { (UINT64_C(1) << 61) - 1 }, NULL, (UINT64_C(1) << 61) - 1 },
    { "F4 pair", MIX_F4, 1, { 2 }, NULL, 1 },
    { "F4 odd", MIX_F4, 1, { 3 }, "12 bits of F4", 0 },
    { "F6 four", MIX_F6_E2M3, 1, { 4 }, NULL, 3 },
    { "F6 two", MIX_F6_E3M2, 1, { 2 }, "12 bits of F6_E3M2", 0 },
    { "F4 none", MIX_F4, 1, { 0 }, NULL, 0 },
};

static void test_dtype__bytes_of_a_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(sizes); i++) {
        struct mix_err err = { 0 };
        uint64_t bytes = 77;
        enum mix_rc rc = mix_dtype_bytes(sizes[i].dtype, sizes[i].rank, sizes[i].shape, &bytes,
                                         &err);

        test_row(sizes[i].what);
        assert_int_equal(rc, sizes[i].says ? MIX_BAD_FORMAT : MIX_OK);
        if (sizes[i].says)
            assert_text(err.text, sizes[i].says);
        else
            assert_true(bytes == sizes[i].bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtype__every_16_bit_pattern_has_its_value_and_comes_back),
        cmocka_unit_test(test_dtype__rounds_to_nearest_even),
        cmocka_unit_test(test_dtype__nan_stays_nan),
        cmocka_unit_test(test_dtype__8_bit_floats_are_those_of_ml_dtypes),
        cmocka_unit_test(test_dtype__counts_nan_and_inf_among_all_16_bit_patterns),
        cmocka_unit_test(test_dtype__counts_non_finite_values),
        cmocka_unit_test(test_dtype__values_of_integers_and_wide_floats),
        cmocka_unit_test(test_dtype__names_and_bits_are_those_of_safetensors),
        cmocka_unit_test(test_dtype__bytes_of_a_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
