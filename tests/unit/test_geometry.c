/* config.json to sizes: as transformers 4 and 5 write it, and what is refused. */
#include "ckpt/names/geometry.h"

#include "ckpt/base/mem.h"
#include "ckpt/names/families.h"
#include "ckpt/store/store.h"
#include "tests/support/test.h"

/* Mixtral-8x7B as published, without the sizes that a test breaks. */
#define MIXTRAL_BUT(fields) \
    "{\"model_type\":\"mixtral\",\"intermediate_size\":14336,\"num_hidden_layers\":32," \
    "\"num_experts_per_tok\":2,\"vocab_size\":32000,\"rope_theta\":1000000.0," \
    "\"sliding_window\":null" fields "}"
#define SIZES ",\"hidden_size\":4096,\"num_attention_heads\":32,\"num_key_value_heads\":8," \
    "\"num_local_experts\":8"

static void test_geometry__reads_transformers_4(void **state)
{
    static const char text[] = MIXTRAL_BUT(SIZES ",\"initializer_range\":0.01,"
        "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\"");
    struct mix_geometry g;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_geometry_parse(text, strlen(text), &g, &err), &err);
    assert_string_equal(g.model_type, "mixtral");
    assert_ptr_equal(g.family, mix_family_find("mixtral"));
    assert_int_equal(g.hidden, 4096);
    assert_int_equal(g.intermediate, 14336);
    assert_int_equal(g.layers, 32);
    assert_int_equal(g.heads, 32);
    assert_int_equal(g.kv_heads, 8);
    assert_int_equal(g.head_dim, 128);
    assert_int_equal(g.experts, 8);
    assert_int_equal(g.topk, 2);
    assert_int_equal(g.vocab, 32000);
    assert_true(g.initializer_range == 0.01);
    assert_false(g.tied);
    assert_true(g.has_dtype);
    assert_int_equal(g.dtype, MIX_BF16);
}

/* The file that transformers 5 wrote, as it lies in the repository. */
static void test_geometry__reads_transformers_5(void **state)
{
    static const struct {
        const char *folder;
        bool tied;
    } row[] = {
        { "tests/reference/tiny-mixtral", false }, { "tests/reference/tiny-mixtral-tied", true },
    };
    struct mix_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_buf text = MIX_BUF_INIT;
        struct mix_store *store;
        struct mix_geometry g;

        test_row(row[i].folder);
        assert_ok(mix_store_open(row[i].folder, &store, &err), &err);
        assert_ok(mix_store_read_all(store, "config.json", 1 << 20, &text, &err), &err);
        assert_ok(mix_geometry_parse(text.data, text.len, &g, &err), &err);
        assert_string_equal(g.model_type, "mixtral");
        assert_true(g.heads > 0 && g.head_dim == g.hidden / g.heads);
        assert_int_equal(g.tied, row[i].tied);
        assert_true(g.has_dtype);
        mix_buf_release(&text);
        mix_store_close(store);
    }
}

static void test_geometry__fills_in_what_is_not_said(void **state)
{
    static const struct {
        const char *text;
        uint64_t head_dim;
        double range;
        bool tied, has_dtype;
        enum mix_dtype dtype;
    } row[] = {
        { MIXTRAL_BUT(SIZES), 128, 0.02, false, false, 0 },
        { MIXTRAL_BUT(SIZES ",\"head_dim\":null,\"initializer_range\":null,"
          "\"tie_word_embeddings\":null,\"dtype\":null"), 128, 0.02, false, false, 0 },
        { MIXTRAL_BUT(SIZES ",\"head_dim\":64,\"initializer_range\":0,"
          "\"tie_word_embeddings\":true,\"dtype\":\"float32\""), 64, 0, true, true, MIX_F32 },
        { MIXTRAL_BUT(SIZES ",\"torch_dtype\":\"float16\""), 128, 0.02, false, true, MIX_F16 },
        { MIXTRAL_BUT(SIZES ",\"torch_dtype\":\"float16\",\"dtype\":\"bfloat16\""), 128, 0.02,
          false, true, MIX_BF16 },
        { MIXTRAL_BUT(SIZES ",\"torch_dtype\":\"int3\""), 128, 0.02, false, false, 0 },
        { MIXTRAL_BUT(SIZES ",\"torch_dtype\":7"), 128, 0.02, false, false, 0 },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_geometry g;
        struct mix_err err = { 0 };

        test_row(row[i].text);
        assert_ok(mix_geometry_parse(row[i].text, strlen(row[i].text), &g, &err), &err);
        assert_int_equal(g.head_dim, row[i].head_dim);
        assert_true(g.initializer_range == row[i].range);
        assert_int_equal(g.tied, row[i].tied);
        assert_int_equal(g.has_dtype, row[i].has_dtype);
        assert_int_equal(g.dtype, row[i].dtype);
    }
}

static void test_geometry__other_models_have_only_a_name(void **state)
{
    static const struct {
        const char *text, *model_type;
    } row[] = {
        { "{}", "" },
        { "{\"model_type\":null}", "" },
        { "{\"model_type\":\"llama\",\"hidden_size\":\"wide\",\"vocab_size\":-1}", "llama" },
        { "{\"model_type\":\"Mixtral\"}", "Mixtral" },
        { "{\"model_type\":\"012345678901234567890123456789012345678901234567890123456789012\"}",
          "012345678901234567890123456789012345678901234567890123456789012" },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_geometry g;
        struct mix_err err = { 0 };

        test_row(row[i].text);
        assert_ok(mix_geometry_parse(row[i].text, strlen(row[i].text), &g, &err), &err);
        assert_string_equal(g.model_type, row[i].model_type);
        assert_null(g.family);
        assert_int_equal(g.hidden, 0);
        assert_false(g.has_dtype);
    }
}

#define HEADS(heads, kv) ",\"hidden_size\":4096,\"num_local_experts\":8," \
    "\"num_attention_heads\":" heads ",\"num_key_value_heads\":" kv
#define HIDDEN(value) ",\"num_attention_heads\":32,\"num_key_value_heads\":8," \
    "\"num_local_experts\":8,\"hidden_size\":" value

static const struct {
    const char *text, *says;
} broken[] = {
    { "", "not JSON at byte 0" },
    { "[]", "no JSON object" },
    { "{\"model_type\":7}", "model_type is 7; a string of at most 63 bytes" },
    { "{\"model_type\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
      "model_type is \"0123" },
    { "{\"model_type\":\"a\",\"model_type\":\"b\"}", "the key 'model_type' stands twice" },
    { "{\"model_type\":\"mixtral\"}", "hidden_size is absent; a whole number from 1 to 2147483648" },
    { MIXTRAL_BUT(HIDDEN("0")), "hidden_size is 0; " },
    { MIXTRAL_BUT(HIDDEN("-1")), "hidden_size is -1; " },
    { MIXTRAL_BUT(HIDDEN("4096.0")), "hidden_size is 4096.0; " },
    { MIXTRAL_BUT(HIDDEN("\"4096\"")), "hidden_size is \"4096\"; " },
    { MIXTRAL_BUT(HIDDEN("null")), "hidden_size is null; " },
    { MIXTRAL_BUT(HIDDEN("2147483649")), "hidden_size is 2147483649; " },
    { MIXTRAL_BUT(HIDDEN("99999999999999999999")), "hidden_size is 99999999999999999999; " },
    { MIXTRAL_BUT(HIDDEN("[\"\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
      "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
      "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
      "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
      "\xe2\x82\xac\"]")), "\xe2\x82\xac...; a whole number" }, /* cut, at a character */
    { MIXTRAL_BUT(HIDDEN("16")), "num_attention_heads is 32; with hidden_size 16 and no head_dim "
      "at most 16" },
    { MIXTRAL_BUT(HEADS("32", "5")), "num_attention_heads is 32, which is no multiple of "
      "num_key_value_heads, 5" },
    { MIXTRAL_BUT(HEADS("0", "8")), "num_attention_heads is 0; " },
    { MIXTRAL_BUT(HEADS("32", "0")), "num_key_value_heads is 0; " },
    { MIXTRAL_BUT(HEADS("32", "8") ",\"head_dim\":0"), "head_dim is 0; " },
    { MIXTRAL_BUT(HEADS("32", "8") ",\"head_dim\":\"x\""), "head_dim is \"x\"; " },
    { MIXTRAL_BUT(",\"hidden_size\":4096,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
      "\"num_local_experts\":1"), "num_experts_per_tok is 2; num_local_experts allows at most 1" },
    { MIXTRAL_BUT(SIZES ",\"initializer_range\":-0.1"), "initializer_range is -0.1; " },
    { MIXTRAL_BUT(SIZES ",\"initializer_range\":\"x\""), "initializer_range is \"x\"; " },
    { MIXTRAL_BUT(SIZES ",\"tie_word_embeddings\":1"), "tie_word_embeddings is 1; true or false" },
};

static void test_geometry__names_field_value_and_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(broken); i++) {
        struct mix_geometry g = { .hidden = 1 };
        struct mix_err err = { 0 };

        test_row(broken[i].says);
        assert_int_equal(mix_geometry_parse(broken[i].text, strlen(broken[i].text), &g, &err),
                         MIX_BAD_FORMAT);
        assert_text(err.text, broken[i].says);
        assert_int_equal(g.hidden, 0); /* nothing is handed out */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometry__reads_transformers_4),
        cmocka_unit_test(test_geometry__reads_transformers_5),
        cmocka_unit_test(test_geometry__fills_in_what_is_not_said),
        cmocka_unit_test(test_geometry__other_models_have_only_a_name),
        cmocka_unit_test(test_geometry__names_field_value_and_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
