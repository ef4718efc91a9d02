/*
 * Made-up weights: the same in every layout, so any range of bytes is the same range of
 * the whole; and what they are, against the definition in random_source.h.
 */
#include "reshard/random_source.h"

#include <math.h>
#include <stdlib.h>

#include "ckpt/names/families.h"
#include "tests/support/test.h"
#include "tests/support/tiny.h"

static const enum mix_dtype dtypes[] = { MIX_BF16, MIX_F16, MIX_F32 };

static unsigned char *whole(const struct mix_random_source *source, uint32_t tensor)
{
    unsigned char *data = malloc(source->m.tensor[tensor].bytes);

    assert_non_null(data);
    mix_random_read(source, tensor, 0, source->m.tensor[tensor].bytes, data);
    return data;
}

static uint32_t find(const struct mix_random_source *source, const char *name)
{
    const struct mix_ckpt_tensor *t = mix_manifest_find(&source->m, name);

    assert_non_null(t);
    return (uint32_t)(t - source->m.tensor);
}

static void test_random_source__any_range_is_that_range_of_the_whole(void **state)
{
    unsigned random = 3;

    (void)state;
    for (size_t d = 0; d < MIX_ARRAY_LEN(dtypes); d++) {
        struct mix_random_source source;

        test_row(mix_dtype_name(dtypes[d]));
        test_tiny_open(&source, dtypes[d], true);
        for (uint32_t i = 0; i < source.m.tensor_count; i++) {
            uint64_t bytes = source.m.tensor[i].bytes;
            unsigned char *all = whole(&source, i), *part = malloc(bytes + 1);

            for (int k = 0; k < 20; k++) {
                uint64_t begin, end;

                random = random * 1664525 + 1013904223;
                begin = (random >> 8) % (bytes + 1);
                random = random * 1664525 + 1013904223;
                end = begin + (random >> 8) % (bytes + 1 - begin);
                part[end - begin] = 0xee;
                mix_random_read(&source, i, begin, end, part);
                assert_memory_equal(part, all + begin, end - begin);
                assert_int_equal(part[end - begin], 0xee); /* not a byte more */
            }
            free(part);
            free(all);
        }
        mix_random_close(&source);
    }
}

/* The value before rounding is the same: F32 rounds to what BF16 and F16 hold. */
static void test_random_source__dtypes_are_roundings_of_one_value(void **state)
{
    struct mix_random_source wide, half[2];

    (void)state;
    test_tiny_open(&wide, MIX_F32, true);
    test_tiny_open(&half[0], MIX_BF16, false);
    test_tiny_open(&half[1], MIX_F16, false);
    for (int h = 0; h < 2; h++) {
        for (uint32_t i = 0; i < half[h].m.tensor_count; i++) {
            const char *name = half[h].m.tensor[i].name;
            unsigned char *narrow = whole(&half[h], i);
            unsigned char *values = whole(&wide, find(&wide, name)), *master;
            char master_name[256];

            for (uint64_t k = 0; k < half[h].m.tensor[i].bytes / 2; k++) {
                float value;
                uint16_t rounded;

                memcpy(&value, values + 4 * k, 4);
                rounded = h ? mix_f32_to_f16(value) : mix_f32_to_bf16(value);
                assert_int_equal(mix_load_le(narrow + 2 * k, 2), rounded);
            }
            snprintf(master_name, sizeof master_name, "%s@master", name);
            master = whole(&wide, find(&wide, master_name));
            assert_memory_equal(master, values, half[h].m.tensor[i].bytes * 2);
            free(narrow);
            free(values);
            free(master);
        }
    }
    mix_random_close(&wide);
    mix_random_close(&half[0]);
    mix_random_close(&half[1]);
}

/* Mean, deviation, bound; and norms are ones. */
static void check_statistics(const struct mix_random_source *source, const char *name,
                             double mean, double deviation, double bound)
{
    uint32_t i = find(source, name);
    unsigned char *data = whole(source, i);
    uint64_t n = source->m.tensor[i].bytes / 4;
    double sum = 0, squares = 0;

    test_row(name);
    for (uint64_t k = 0; k < n; k++) {
        double v = mix_dtype_value(MIX_F32, data, k);

        assert_true(fabs(v) <= bound);
        sum += v;
        squares += v * v;
    }
    /* Four standard errors: of a mean s / sqrt(n), of a deviation about s / sqrt(2n). */
    assert_true(fabs(sum / (double)n - mean) <= 4 * deviation / sqrt((double)n));
    assert_true(fabs(sqrt(squares / (double)n - pow(sum / (double)n, 2)) - deviation) <=
                4 * deviation * 1.5 / sqrt((double)n));
    free(data);
}

static void test_random_source__values_are_those_of_the_definition(void **state)
{
    struct mix_random_source source;

    (void)state;
    test_tiny_open(&source, MIX_F32, true);
    check_statistics(&source, "lm_head.weight", 0, 0.02, 0.12);
    check_statistics(&source, "model.layers.1.block_sparse_moe.experts.3.w2.weight", 0, 0.02, 0.12);
    check_statistics(&source, "lm_head.weight@exp_avg", 0, 1e-3, 6e-3);
    /* z^2 has mean 1 and variance about 2 (sums of twelve uniforms: 1.9). */
    check_statistics(&source, "lm_head.weight@exp_avg_sq", 1e-6, 1.378e-6, 36e-6);
    check_statistics(&source, "model.norm.weight", 1, 0, 1);
    check_statistics(&source, "model.layers.0.input_layernorm.weight@master", 1, 0, 1);
    mix_random_close(&source);
}

/* No tensor repeats another, and another seed gives other values. */
static void test_random_source__tensors_and_seeds_differ(void **state)
{
    struct mix_random_source a, b;
    const struct mix_random_options options = { .seed = 6 };
    struct mix_err err = { 0 };
    unsigned char first[64], second[64];

    (void)state;
    test_tiny_open(&a, MIX_BF16, false);
    assert_ok(mix_random_open(test_tiny_config, strlen(test_tiny_config), &options, &b, &err),
              &err);
    for (uint32_t i = 0; i < a.m.tensor_count; i++) {
        mix_random_read(&a, i, 0, 64, first);
        mix_random_read(&b, i, 0, 64, second);
        if (strstr(a.m.tensor[i].name, "norm"))
            assert_memory_equal(first, second, 64);
        else
            assert_memory_not_equal(first, second, 64);
        for (uint32_t k = 0; k < i; k++) {
            mix_random_read(&a, k, 0, 64, second);
            if (!strstr(a.m.tensor[i].name, "norm"))
                assert_memory_not_equal(first, second, 64);
        }
    }
    mix_random_close(&a);
    mix_random_close(&b);
}

/* One number that must never change, or checkpoints made from a seed would. */
static void test_random_source__is_the_same_for_ever(void **state)
{
    static const unsigned char known[16] = {
        0x85, 0xab, 0x9c, 0x3b, 0x47, 0x61, 0x9a, 0xbb, 0x8f, 0xe2, 0xc5, 0xbc,
        0x00, 0x00, 0x90, 0xba,
    };
    struct mix_random_source source;
    unsigned char found[16];

    (void)state;
    test_tiny_open(&source, MIX_F32, false);
    mix_random_read(&source, find(&source, "lm_head.weight"), 4000, 4016, found);
    assert_memory_equal(found, known, 16);
    mix_random_close(&source);
}

static const struct {
    const char *what, *config, *says;
    enum mix_rc rc;
    enum mix_dtype dtype;
} refused[] = {
    { "no JSON", "{", "not JSON", MIX_BAD_FORMAT, MIX_BF16 },
    { "no table", "{\"model_type\":\"else\"}", "model_type 'else' is not one whose tensors are known",
      MIX_UNSUPPORTED, MIX_BF16 },
    { "no sizes", "{\"model_type\":\"mixtral\"}", "hidden_size", MIX_BAD_FORMAT, MIX_BF16 },
    { "integers", test_tiny_config, "BF16, F16 or F32, not I32", MIX_UNSUPPORTED, MIX_I32 },
};

static void test_random_source__says_what_it_cannot_make(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(refused); i++) {
        const struct mix_random_options options = { .has_dtype = true, .dtype = refused[i].dtype };
        struct mix_random_source source;
        struct mix_err err = { 0 };

        test_row(refused[i].what);
        assert_rc(mix_random_open(refused[i].config, strlen(refused[i].config), &options, &source,
                                  &err), refused[i].rc, &err);
        assert_text(err.text, refused[i].says);
        assert_null(source.m.tensor);
    }
}

static void test_random_source__dtype_is_that_of_the_config_or_bf16(void **state)
{
    const struct mix_random_options options = { .seed = 0 };
    const char *at = strstr(test_tiny_config, "bfloat16");
    struct mix_random_source source;
    struct mix_err err = { 0 };
    char config[1024];

    (void)state;
    snprintf(config, sizeof config, "%.*sfloat32%s", (int)(at - test_tiny_config),
             test_tiny_config, at + strlen("bfloat16"));
    assert_ok(mix_random_open(config, strlen(config), &options, &source, &err), &err);
    assert_int_equal(source.m.tensor[0].dtype, MIX_F32);
    assert_string_equal(source.config, config);
    assert_null(strstr(source.m.model, " ")); /* in canonical spelling */
    mix_random_close(&source);
    memcpy(strstr(config, "torch_dtype"), "torch_xtype", 11);
    assert_ok(mix_random_open(config, strlen(config), &options, &source, &err), &err);
    assert_int_equal(source.m.tensor[0].dtype, MIX_BF16);
    mix_random_close(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_source__any_range_is_that_range_of_the_whole),
        cmocka_unit_test(test_random_source__dtypes_are_roundings_of_one_value),
        cmocka_unit_test(test_random_source__values_are_those_of_the_definition),
        cmocka_unit_test(test_random_source__tensors_and_seeds_differ),
        cmocka_unit_test(test_random_source__is_the_same_for_ever),
        cmocka_unit_test(test_random_source__says_what_it_cannot_make),
        cmocka_unit_test(test_random_source__dtype_is_that_of_the_config_or_bf16),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
