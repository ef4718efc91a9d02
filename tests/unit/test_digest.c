/* The lines of `mixckpt digest` and the digests over them, as docs/digest.md defines them. */
#include "ckpt/digest.h"

#include "tests/support/test.h"

static const uint64_t shape[] = { 2, 3 };

/* Names sorted as bytes; digests of one byte each, repeated. */
static struct mix_ckpt_tensor tensors[] = {
    { .name = "a", .dtype = MIX_BF16, .rank = 2, .shape = shape, .digest = { 1 } },
    { .name = "a@exp_avg", .dtype = MIX_F32, .rank = 1, .shape = shape, .digest = { 2 } },
    { .name = "b", .dtype = MIX_I64, .rank = 0, .digest = { 3 } },
};

#define ZEROS "00000000000000000000000000000000000000000000000000000000000000"
#define LINE_A "01" ZEROS "  BF16  [2,3]  a\n"
#define LINE_STATE "02" ZEROS "  F32  [2]  a@exp_avg\n"
#define LINE_B "03" ZEROS "  I64  []  b\n"

static void assert_sha(const char *hex, const char *text)
{
    unsigned char sha[32];
    char wanted[MIX_SHA256_HEX];

    mix_sha256(text, strlen(text), sha);
    mix_hex(sha, 32, wanted);
    assert_string_equal(hex, wanted);
}

static void test_digest__lines(void **state)
{
    struct mix_buf out = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(tensors); i++)
        assert_ok(mix_digest_line(&tensors[i], &out, &err), &err);
    assert_string_equal(out.data, LINE_A LINE_STATE LINE_B);
    mix_buf_release(&out);
}

static void test_digest__model_and_optimizer_are_apart(void **state)
{
    struct mix_manifest m = { .tensor = tensors, .tensor_count = MIX_ARRAY_LEN(tensors) };
    struct mix_digests digests;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_digest_totals(&m, &digests, &err), &err);
    assert_true(digests.has_optimizer);
    assert_sha(digests.model, LINE_A LINE_B);
    assert_sha(digests.optimizer, LINE_STATE);
    m.tensor_count = 1;
    assert_ok(mix_digest_totals(&m, &digests, &err), &err);
    assert_false(digests.has_optimizer);
    assert_sha(digests.model, LINE_A);
    m.tensor_count = 0;
    assert_ok(mix_digest_totals(&m, &digests, &err), &err);
    assert_sha(digests.model, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest__lines),
        cmocka_unit_test(test_digest__model_and_optimizer_are_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
