/*
 * One checkpoint against another, tensor by tensor: what differs and by how much, whatever
 * the dtypes and sizes; and digests of any checkpoint.
 */
#include "ckpt/compare.h"

#include <math.h>
#include <stdlib.h>

#include "ckpt/digest_tree.h"
#include "ckpt/store/store.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"
#include "tests/support/tiny.h"

/* ---- checkpoints in memory ---- */

struct made {
    const char *name;
    enum mix_dtype dtype;
    uint64_t count;       /* elements of a vector */
    const double *value;  /* of BF16, F16, F32 or U8; NULL: 1, 2, 3, ... 100, 1, ... */
};

static void put_value(struct mix_buf *out, enum mix_dtype dtype, double value)
{
    struct mix_err err = { 0 };
    unsigned char bytes[8] = { 0 };
    float f32 = (float)value;
    uint32_t bits;

    memcpy(&bits, &f32, 4);
    if (dtype == MIX_F32 || dtype == MIX_C64)
        mix_store_le(bytes, bits, 4);
    else if (dtype == MIX_BF16)
        mix_store_le(bytes, mix_f32_to_bf16(f32), 2);
    else if (dtype == MIX_F16)
        mix_store_le(bytes, mix_f32_to_f16(f32), 2);
    else
        bytes[0] = (unsigned char)value;
    assert_ok(mix_buf_put(out, bytes, mix_dtype_bits(dtype) / 8, &err), &err);
}

static struct mix_checkpoint *make(const struct made *tensor, size_t count)
{
    struct mix_buf file = MIX_BUF_INIT, data = MIX_BUF_INIT;
    struct mix_store *store;
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    assert_ok(mix_buf_put(&file, "01234567{", 9, &err), &err);
    for (size_t i = 0; i < count; i++) {
        size_t begin = data.len;

        for (uint64_t k = 0; k < tensor[i].count; k++)
            put_value(&data, tensor[i].dtype,
                      tensor[i].value ? tensor[i].value[k] : (double)(k % 100 + 1));
        assert_ok(mix_buf_putf(&file, &err, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu],"
                               "\"data_offsets\":[%zu,%zu]}", i ? "," : "", tensor[i].name,
                               mix_dtype_name(tensor[i].dtype),
                               (unsigned long long)tensor[i].count, begin, data.len), &err);
    }
    assert_ok(mix_buf_put(&file, "}", 1, &err), &err);
    mix_store_le(file.data, file.len - 8, 8);
    if (data.len)
        assert_ok(mix_buf_put(&file, data.data, data.len, &err), &err);
    assert_ok(mix_store_open_memory(&store, &err), &err);
    assert_ok(mix_store_memory_put(store, "model.safetensors", file.data, file.len, &err), &err);
    assert_ok(mix_checkpoint_open_in(store, NULL, &ckpt, &err), &err);
    mix_buf_release(&file);
    mix_buf_release(&data);
    return ckpt;
}

static void compare(const struct made *a, const struct made *b, bool numeric,
                    void (*check)(const struct mix_comparison *c, size_t row), size_t row)
{
    struct mix_checkpoint *ca = make(a, 1), *cb = make(b, 1);
    struct mix_comparison c;
    struct mix_err err = { 0 };

    assert_ok(mix_compare(ca, cb, numeric, 1, NULL, &c, &err), &err);
    check(&c, row);
    mix_comparison_release(&c);
    mix_checkpoint_close(ca);
    mix_checkpoint_close(cb);
}

/* ---- by how much ---- */

#define V(...) (const double[]){ __VA_ARGS__ }

static const struct {
    const char *what;
    struct made a, b;
    const char *differs;  /* "" if equal */
    bool has_values;
    double max_abs, mean_abs;
} values[] = {
    { "the same", { "t", MIX_BF16, 3, V(1, 2, 3) }, { "t", MIX_BF16, 3, V(1, 2, 3) }, "", false, 0, 0 },
    { "one value", { "t", MIX_BF16, 4, V(1, 2, 3, 4) }, { "t", MIX_BF16, 4, V(1, 2, 3.5, 4) },
      "values", true, 0.5, 0.125 },
    { "both signs", { "t", MIX_F32, 2, V(-1, 5) }, { "t", MIX_F32, 2, V(1, 4) }, "values", true, 2, 1.5 },
    { "minus zero", { "t", MIX_F32, 2, V(0.0, 1) }, { "t", MIX_F32, 2, V(-0.0, 1) }, "values", true, 0, 0 },
    { "NaN at both", { "t", MIX_F32, 2, V(NAN, 1) }, { "t", MIX_F32, 2, V(NAN, 2) }, "values", true, 1, 0.5 },
    { "NaN at one", { "t", MIX_F32, 2, V(NAN, 1) }, { "t", MIX_F32, 2, V(1, 1) }, "values", true,
      INFINITY, INFINITY },
    { "Inf at both", { "t", MIX_F16, 2, V(INFINITY, 1) }, { "t", MIX_F16, 2, V(INFINITY, 2) }, "values",
      true, 1, 0.5 },
    { "Inf and -Inf", { "t", MIX_F16, 1, V(INFINITY) }, { "t", MIX_F16, 1, V(-INFINITY) }, "values",
      true, INFINITY, INFINITY },
    { "bytes", { "t", MIX_U8, 3, V(0, 7, 255) }, { "t", MIX_U8, 3, V(0, 7, 0) }, "values", true, 255, 85 },
    /* Of these dtypes only the values can be compared, and elements have other widths. */
    { "BF16 and F32, the same", { "t", MIX_BF16, 3, V(1, 2, 3) }, { "t", MIX_F32, 3, V(1, 2, 3) },
      "dtype BF16 and F32", true, 0, 0 },
    { "BF16 and F32", { "t", MIX_BF16, 3, V(1, 2, 3) }, { "t", MIX_F32, 3, V(1, 2, 3.25) },
      "dtype BF16 and F32", true, 0.25, 0.25 / 3 },
    { "F32 and BF16", { "t", MIX_F32, 5, V(1, 2, 3, 4, 5) }, { "t", MIX_BF16, 5, V(1, 2, 3, 4, 7) },
      "dtype F32 and BF16", true, 2, 0.4 },
    { "F16 and BF16", { "t", MIX_F16, 11, NULL }, { "t", MIX_BF16, 11, NULL }, "dtype F16 and BF16",
      true, 0, 0 },
    { "U8 and F32", { "t", MIX_U8, 9, NULL }, { "t", MIX_F32, 9, NULL }, "dtype U8 and F32", true, 0, 0 },
    { "U8 and F32 over blocks", { "t", MIX_U8, 3000001, NULL }, { "t", MIX_F32, 3000001, NULL },
      "dtype U8 and F32", true, 0, 0 },
    { "F32 and U8 over blocks", { "t", MIX_F32, 1000003, NULL }, { "t", MIX_U8, 1000003, NULL },
      "dtype F32 and U8", true, 0, 0 },
    { "complex and real", { "t", MIX_C64, 3, V(1, 2, 3) }, { "t", MIX_F32, 3, V(1, 2, 3) },
      "dtype C64 and F32", false, 0, 0 },
    { "real and complex", { "t", MIX_F32, 3, V(1, 2, 3) }, { "t", MIX_C64, 3, V(1, 2, 3) },
      "dtype F32 and C64", false, 0, 0 },
    { "complex", { "t", MIX_C64, 2, V(1, 2) }, { "t", MIX_C64, 2, V(1, 4) }, "values", true, 2, 0.5 },
    { "shapes", { "t", MIX_F32, 3, NULL }, { "t", MIX_F32, 4, NULL }, "shape [3] and [4]", false, 0, 0 },
    { "no elements", { "t", MIX_F32, 0, NULL }, { "t", MIX_BF16, 0, NULL }, "dtype F32 and BF16",
      false, 0, 0 },
};

static void check_values(const struct mix_comparison *c, size_t row)
{
    assert_int_equal(c->different_count, *values[row].differs ? 1 : 0);
    if (!c->different_count)
        return;
    assert_string_equal(c->different[0].name, "t");
    assert_string_equal(c->different[0].what, values[row].differs);
    assert_int_equal(c->different[0].has_values, values[row].has_values);
    if (!values[row].has_values)
        return;
    assert_true(c->different[0].max_abs == values[row].max_abs);
    assert_true(c->different[0].mean_abs == values[row].mean_abs ||
                fabs(c->different[0].mean_abs - values[row].mean_abs) < 1e-12);
}

static void check_no_values(const struct mix_comparison *c, size_t row)
{
    assert_int_equal(c->different_count, *values[row].differs ? 1 : 0);
    if (c->different_count)
        assert_string_equal(c->different[0].what, values[row].differs);
    if (c->different_count)
        assert_false(c->different[0].has_values);
}

static void test_compare__says_by_how_much_values_differ(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(values); i++) {
        test_row(values[i].what);
        compare(&values[i].a, &values[i].b, true, check_values, i);
        compare(&values[i].a, &values[i].b, false, check_no_values, i);
    }
}

/* F4 and F6 have no values here; their bytes are compared. */
static void test_compare__sub_byte_elements_are_bytes(void **state)
{
    struct mix_checkpoint *c[2];
    struct mix_comparison result;
    struct mix_err err = { 0 };

    (void)state;
    for (int i = 0; i < 2; i++) {
        char file[8 + 64] = "01234567{\"t\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}";
        size_t len = strlen(file);
        struct mix_store *store;

        mix_store_le(file, len - 8, 8);
        file[len] = 0x12;
        file[len + 1] = (char)(0x30 + i);
        assert_ok(mix_store_open_memory(&store, &err), &err);
        assert_ok(mix_store_memory_put(store, "model.safetensors", file, len + 2, &err), &err);
        assert_ok(mix_checkpoint_open_in(store, NULL, &c[i], &err), &err);
    }
    assert_ok(mix_compare(c[0], c[1], true, 1, NULL, &result, &err), &err);
    assert_int_equal(result.different_count, 1);
    assert_string_equal(result.different[0].what, "values");
    assert_false(result.different[0].has_values);
    mix_comparison_release(&result);
    assert_ok(mix_compare(c[0], c[0], true, 1, NULL, &result, &err), &err);
    assert_int_equal(result.different_count, 0);
    mix_comparison_release(&result);
    mix_checkpoint_close(c[0]);
    mix_checkpoint_close(c[1]);
}

static void test_compare__names_that_only_one_has(void **state)
{
    const struct made a[] = { { "a", MIX_U8, 3, NULL }, { "both", MIX_U8, 3, NULL },
                              { "z", MIX_U8, 3, NULL } };
    const struct made b[] = { { "b", MIX_U8, 3, NULL }, { "both", MIX_U8, 3, NULL } };
    struct mix_checkpoint *ca = make(a, 3), *cb = make(b, 2), *none = make(NULL, 0);
    struct mix_comparison c;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_compare(ca, cb, false, 2, NULL, &c, &err), &err);
    assert_int_equal(c.only_in_a_count, 2);
    assert_string_equal(c.only_in_a[0], "a");
    assert_string_equal(c.only_in_a[1], "z");
    assert_int_equal(c.only_in_b_count, 1);
    assert_string_equal(c.only_in_b[0], "b");
    assert_int_equal(c.different_count, 0);
    mix_comparison_release(&c);
    assert_ok(mix_compare(none, none, true, 2, NULL, &c, &err), &err);
    assert_true(!c.only_in_a_count && !c.only_in_b_count && !c.different_count);
    mix_comparison_release(&c);
    mix_checkpoint_close(ca);
    mix_checkpoint_close(cb);
    mix_checkpoint_close(none);
}

/* ---- on disk ---- */

static struct test_folder tmp;

static int set_up(void **state)
{
    (void)state;
    test_folder_init(&tmp);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_release(&tmp);
    return 0;
}

/* The root as RFC 6962 writes it, in recursion. */
static void root_of(const unsigned char *data, uint64_t leaves, uint64_t bytes,
                    unsigned char root[32])
{
    unsigned char *buf = malloc(1 + MIX_LEAF_BYTES), both[65] = { 1 };
    uint64_t k = 1;

    if (leaves <= 1) {
        buf[0] = 0;
        memcpy(buf + 1, data, bytes);
        mix_sha256(leaves ? buf : NULL, leaves ? 1 + bytes : 0, root);
    } else {
        while (2 * k < leaves)
            k *= 2;
        root_of(data, k, k * MIX_LEAF_BYTES, both + 1);
        root_of(data + k * MIX_LEAF_BYTES, leaves - k, bytes - k * MIX_LEAF_BYTES, both + 33);
        mix_sha256(both, 65, root);
    }
    free(buf);
}

static void check_digests(const struct mix_checkpoint *ckpt, size_t first, size_t count,
                          unsigned threads)
{
    unsigned char (*digest)[32] = calloc(count + 1, 32);
    struct mix_reader reader;
    struct mix_err err = { 0 };
    uint64_t bytes_read = 5, bytes = 5;

    assert_ok(mix_reader_init(&reader, ckpt, &err), &err);
    assert_ok(mix_compute_digests(ckpt, first, count, threads, NULL, digest, &bytes_read, &err),
              &err);
    for (size_t i = 0; i < count; i++) {
        const struct mix_ckpt_tensor *t = &ckpt->m.tensor[first + i];
        unsigned char *data = malloc(t->bytes + 1), root[32], wanted[32];

        test_row(t->name);
        assert_ok(mix_reader_read(&reader, t, 0, t->bytes, data, &err), &err);
        root_of(data, mix_leaf_count(t->bytes), t->bytes, root);
        mix_tensor_digest(t->dtype, t->rank, t->shape, root, wanted);
        assert_memory_equal(digest[i], wanted, 32);
        if (ckpt->form == MIX_FORM_MIXCKPT)
            assert_memory_equal(digest[i], t->digest, 32);
        bytes += t->bytes;
        free(data);
    }
    assert_int_equal(bytes_read, bytes); /* it grows */
    mix_reader_release(&reader);
    free(digest);
}

static void test_compare__digests_of_any_part_of_the_list(void **state)
{
    const struct made large[] = { { "a", MIX_U8, 65536, NULL }, { "b", MIX_U8, 0, NULL },
                                  { "c", MIX_U8, 65537, NULL }, { "d", MIX_F32, 700001, NULL } };
    struct mix_checkpoint *ckpt = make(large, 4);
    struct mix_err err = { 0 };

    (void)state;
    check_digests(ckpt, 0, 4, 1);
    check_digests(ckpt, 2, 2, 3);
    check_digests(ckpt, 1, 1, 1);
    check_digests(ckpt, 4, 0, 1);
    mix_checkpoint_close(ckpt);

    test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 2, 3, 2 }, true);
    assert_ok(mix_checkpoint_open(test_path(&tmp, "c"), NULL, &ckpt, &err), &err);
    check_digests(ckpt, 0, ckpt->m.tensor_count, 2);
    check_digests(ckpt, 7, 20, 1);
    mix_checkpoint_close(ckpt);
}

static void test_compare__layouts_do_not_matter_and_bytes_do(void **state)
{
    static const char *const places[] = { "a", "b", "hf" };
    struct mix_checkpoint *ckpt[3];
    struct mix_comparison c;
    struct mix_err err = { 0 };

    (void)state;
    test_tiny_shards(test_path(&tmp, "a"), MIX_HDF5, (struct mix_mesh){ 2, 3, 2 }, false);
    test_tiny_shards(test_path(&tmp, "b"), MIX_SAFETENSORS, (struct mix_mesh){ 1, 4, 1 }, false);
    test_tiny_hf(test_path(&tmp, "hf"), 60000);
    for (int i = 0; i < 3; i++)
        assert_ok(mix_checkpoint_open(test_path(&tmp, places[i]), NULL, &ckpt[i], &err), &err);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) {
            assert_ok(mix_compare(ckpt[i], ckpt[k], i == k, 2, NULL, &c, &err), &err);
            assert_true(!c.only_in_a_count && !c.only_in_b_count && !c.different_count);
            mix_comparison_release(&c);
        }
    test_file_flip(test_path(&tmp, "hf/model-00002-of-00003.safetensors"), 40000);
    assert_ok(mix_compare(ckpt[0], ckpt[2], true, 2, NULL, &c, &err), &err);
    assert_int_equal(c.different_count, 1);
    assert_string_equal(c.different[0].what, "values");
    assert_true(c.different[0].has_values && c.different[0].max_abs > 0);
    mix_comparison_release(&c);
    for (int i = 0; i < 3; i++)
        mix_checkpoint_close(ckpt[i]);
}

static void test_compare__what_cannot_be_read_is_an_error(void **state)
{
    struct mix_checkpoint *a, *b;
    struct mix_comparison c;
    struct mix_err err = { 0 };

    (void)state;
    test_tiny_hf(test_path(&tmp, "a"), 60000);
    test_tiny_hf(test_path(&tmp, "b"), 60000);
    assert_ok(mix_checkpoint_open(test_path(&tmp, "a"), NULL, &a, &err), &err);
    assert_ok(mix_checkpoint_open(test_path(&tmp, "b"), NULL, &b, &err), &err);
    test_file_put(test_path(&tmp, "b/model-00002-of-00003.safetensors"), "", 0);
    assert_rc(mix_compare(a, b, false, 2, NULL, &c, &err), MIX_TRUNCATED, &err);
    assert_text(err.text, "model-00002-of-00003.safetensors");
    assert_null(c.different);
    mix_checkpoint_close(a);
    mix_checkpoint_close(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__says_by_how_much_values_differ),
        cmocka_unit_test(test_compare__sub_byte_elements_are_bytes),
        cmocka_unit_test(test_compare__names_that_only_one_has),
        TEST(test_compare__digests_of_any_part_of_the_list),
        TEST(test_compare__layouts_do_not_matter_and_bytes_do),
        TEST(test_compare__what_cannot_be_read_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
