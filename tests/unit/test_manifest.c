/*
 * mixckpt.json: what is written is read back, and every rule that can be broken is
 * broken by a row. A row's `self` is made anew, so that the rule itself is reached.
 */
#include "ckpt/manifest.h"

#include <stdlib.h>

#include "ckpt/base/hash.h"
#include "ckpt/base/json.h"
#include "tests/support/test.h"

static const uint64_t matrix[] = { 10, 6 }, cube[] = { 2, 3, 4 }, none[] = { 0, 5 };

/* A manifest with one of everything. */
static struct mix_buf sample(void)
{
    struct mix_ckpt_side side[] = {
        { "hf/config.json", 830, { 0xab, 0xcd } },
        { "mixckpt.digests", 32 * 4, { 1 } },
        { "mixckpt.pieces", 24 * 14, { 2 } },
    };
    struct mix_ckpt_file file[] = {
        { "model/dense-hsd00000of00002.h5", 8192, UINT64_C(0xfedcba9876543210) },
        { "model/dense-hsd00001of00002.h5", 4096, 1 },
    };
    struct mix_ckpt_tensor tensor[] = {
        { .name = "a.weight", .dtype = MIX_BF16, .rank = 2, .shape = matrix, .digest = { 7 } },
        { .name = "a.weight@master", .dtype = MIX_F32, .rank = 2, .shape = matrix },
        { .name = "b \"\\\xc3\xa9", .dtype = MIX_U8, .rank = 3, .shape = cube },
        { .name = "empty", .dtype = MIX_F32, .rank = 2, .shape = none },
        { .name = "scalar", .dtype = MIX_I64, .rank = 0 },
    };
    struct mix_manifest m = {
        .container = MIX_HDF5, .mesh = { 2, 2, 3 }, .has_step = true, .step = 1000,
        .model = "{\"model_type\":\"mixtral\",\"x\":1.50}", .trainer = "{\"seed\":1}",
        .file = file, .file_count = MIX_ARRAY_LEN(file), .side = side,
        .side_count = MIX_ARRAY_LEN(side), .tensor = tensor,
        .tensor_count = MIX_ARRAY_LEN(tensor),
    };
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    /* Rows by tp and hsd; columns by tp; not at all; and two that cannot be cut. */
    mix_cut_init(&tensor[0].cut, MIX_BF16, 2, matrix, 3, 2, 1);
    mix_cut_init(&tensor[1].cut, MIX_F32, 2, matrix, 1, 2, 3);
    for (size_t i = 2; i < MIX_ARRAY_LEN(tensor); i++)
        mix_cut_init(&tensor[i].cut, tensor[i].dtype, tensor[i].rank, tensor[i].shape, 1, 1, 1);
    assert_ok(mix_manifest_emit(&m, &text, &err), &err);
    return text;
}

static void test_manifest__comes_back_as_it_was_written(void **state)
{
    struct mix_buf text = sample(), again = MIX_BUF_INIT;
    struct mix_manifest m;
    struct mix_err err = { 0 };
    unsigned char sha[32];

    (void)state;
    assert_ok(mix_manifest_parse(text.data, text.len, &m, &err), &err);
    assert_int_equal(m.container, MIX_HDF5);
    assert_true(m.mesh.ep == 2 && m.mesh.hsd == 2 && m.mesh.tp == 3);
    assert_true(m.has_step && m.step == 1000);
    assert_string_equal(m.model, "{\"model_type\":\"mixtral\",\"x\":1.50}");
    assert_string_equal(m.trainer, "{\"seed\":1}");
    assert_int_equal(m.side_count, 3);
    assert_true(m.side[0].bytes == 830 && m.side[0].sha256[1] == 0xcd);
    assert_int_equal(m.file_count, 2);
    assert_true(m.file[0].bytes == 8192 && m.file[0].crc64 == UINT64_C(0xfedcba9876543210));
    assert_int_equal(m.tensor_count, 5);
    assert_string_equal(m.tensor[2].name, "b \"\\\xc3\xa9");
    assert_true(m.tensor[0].rank == 2 && m.tensor[0].shape[0] == 10 && m.tensor[0].bytes == 120);
    assert_int_equal(m.tensor[0].digest[0], 7);
    /* 10 rows: 4 + 4 + 2 of tp, each in two; then 2 x 3; 1; 1; 1. */
    assert_int_equal(m.tensor[0].cut.row_parts, 6);
    assert_int_equal(m.tensor[1].cut.column_parts, 3);
    assert_int_equal(m.tensor[1].first_piece, 6);
    assert_int_equal(m.tensor[4].first_piece, 14);
    assert_int_equal(m.piece_count, 15);
    assert_int_equal(m.tensor[3].first_leaf, m.tensor[4].first_leaf); /* no bytes, no leaf */
    assert_int_equal(m.leaf_count, 4);
    assert_ok(mix_manifest_emit(&m, &again, &err), &err);
    assert_int_equal(again.len, text.len);
    assert_memory_equal(again.data, text.data, text.len);
    mix_sha256(text.data, (size_t)(strstr(text.data, "\"self\"") - text.data), sha);
    assert_memory_equal(m.self, sha, 32);
    mix_buf_release(&again);
    mix_buf_release(&text);
    mix_manifest_release(&m);
    assert_null(m.tensor);
    mix_manifest_release(&m); /* of nothing */
}

static void test_manifest__without_step_model_trainer_and_lists(void **state)
{
    struct mix_manifest m = { .container = MIX_SAFETENSORS, .mesh = { 1, 1, 1 } }, back;
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_buf_put(&text, "before", 6, &err), &err); /* it is appended */
    assert_ok(mix_manifest_emit(&m, &text, &err), &err);
    assert_ok(mix_manifest_parse(text.data + 6, text.len - 6, &back, &err), &err);
    assert_int_equal(back.container, MIX_SAFETENSORS);
    assert_false(back.has_step);
    assert_null(back.model);
    assert_null(back.trainer);
    assert_true(!back.tensor_count && !back.file_count && !back.side_count);
    mix_manifest_release(&back);
    mix_buf_release(&text);
}

static void test_manifest__finds_tensors_by_name(void **state)
{
    struct mix_buf text = sample();
    struct mix_manifest m, empty = { 0 };
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_manifest_parse(text.data, text.len, &m, &err), &err);
    for (size_t i = 0; i < m.tensor_count; i++)
        assert_ptr_equal(mix_manifest_find(&m, m.tensor[i].name), &m.tensor[i]);
    assert_null(mix_manifest_find(&m, "a"));
    assert_null(mix_manifest_find(&m, "z"));
    assert_null(mix_manifest_find(&m, ""));
    assert_null(mix_manifest_find(&empty, "a"));
    mix_manifest_release(&m);
    mix_buf_release(&text);
}

/* `self` for whatever stands before it now. */
static void sign_again(struct mix_buf *text)
{
    char *self = strstr(text->data, "\"self\":\"");
    unsigned char sha[32];

    assert_non_null(self);
    mix_sha256(text->data, (size_t)(self - text->data), sha);
    mix_hex(sha, 32, self + 8);
    self[8 + 64] = '"';
}

/* The first `find` becomes `put`. */
static struct mix_buf spoiled(const char *find, const char *put)
{
    struct mix_buf text = sample(), out = MIX_BUF_INIT;
    const char *at = strstr(text.data, find);
    struct mix_err err = { 0 };

    assert_non_null(at);
    assert_ok(mix_buf_put(&out, text.data, (size_t)(at - text.data), &err), &err);
    assert_ok(mix_buf_putf(&out, &err, "%s%s", put, at + strlen(find)), &err);
    mix_buf_release(&text);
    return out;
}

#define DIGITS32 "00000000000000000000000000000000"
#define FIRST_TENSOR "{\"name\":\"a.weight\",\"dtype\":\"BF16\",\"shape\":[10,6],"
#define NEST "\"grid\":[6,1],\"nest\":[3,2]"

static const struct {
    const char *what, *find, *put, *says;
    enum mix_rc rc; /* 0: MIX_BAD_FORMAT */
} broken[] = {
    { "no format", "\"format\"", "\"farmat\"", "'format' is not a string" },
    { "another format", "\"mixckpt\"", "\"mixchpt\"", "'format' is 'mixchpt', not 'mixckpt'" },
    { "a later version", "\"version\":1", "\"version\":2", "version 2; this program reads version 1",
      MIX_UNSUPPORTED },
    { "version zero", "\"version\":1", "\"version\":0", "'version' is not an integer from 1" },
    { "version as text", "\"version\":1", "\"version\":\"1\"", "'version' is not an integer" },
    { "version as 1.0", "\"version\":1", "\"version\":1.0", "'version' is not an integer" },
    { "no such container", "\"hdf5\"", "\"zarr\"", "there is no container 'zarr'" },
    { "container in capitals", "\"hdf5\"", "\"HDF5\"", "there is no container 'HDF5'" },
    { "no container", "\"container\":\"hdf5\"", "\"container\":5", "'container' is not a string" },
    { "no mesh", "{\"ep\":2,\"hsd\":2,\"tp\":3}", "null", "'ep' is not an integer from 1 to 65536" },
    { "ep zero", "\"ep\":2", "\"ep\":0", "'ep' is not an integer from 1 to 65536" },
    { "hsd too large", "\"hsd\":2", "\"hsd\":65537", "'hsd' is not an integer" },
    { "tp negative", "\"tp\":3", "\"tp\":-3", "'tp' is not an integer" },
    { "step negative", "\"step\":1000", "\"step\":-1", "'step' is not an integer" },
    { "step beyond int64", "\"step\":1000", "\"step\":9223372036854775808", "'step' is not" },
    { "step as text", "\"step\":1000", "\"step\":\"x\"", "'step' is not an integer" },
    { "model a list", "\"model\":{\"model_type\":\"mixtral\",\"x\":1.50}", "\"model\":[]",
      "'model' is neither an object nor null" },
    { "no trainer", "\"trainer\"", "\"trainor\"", "'trainer' is neither an object nor null" },
    { "model with a space", "\"x\":1.50", "\"x\": 1.50", "not in its canonical spelling" },
    { "a field that nobody knows", "\"version\":1,", "\"version\":1,\"more\":0,",
      "not in its canonical spelling: byte 34 differs" },
    { "a key twice", "\"version\":1,", "\"version\":1,\"version\":1,", "the key 'version' stands twice" },
    { "a key twice in the model", "\"x\":1.50", "\"x\":1.50,\"x\":2", "the key 'x' stands twice" },
    { "a key twice in a tensor", "\"dtype\":\"BF16\"", "\"dtype\":\"BF16\",\"dtype\":\"BF16\"",
      "the key 'dtype' stands twice" },
    { "fields in another order", "\"container\":\"hdf5\",\n\"mesh\":{\"ep\":2,\"hsd\":2,\"tp\":3}",
      "\"mesh\":{\"ep\":2,\"hsd\":2,\"tp\":3},\n\"container\":\"hdf5\"", "canonical spelling" },
    { "white space", "\"tensors\":[", "\"tensors\": [", "canonical spelling" },
    { "an escape that is not needed", "\"a.weight\"", "\"\\u0061.weight\"", "canonical spelling" },
    { "hex in capitals", "abcd0000", "ABCD0000", "'sha256' is not 64 lower-case hex digits" },
    { "no JSON", "\"side\":[", "\"side\":[[", "not JSON at byte" },
    { "side no list", "\"side\":[", "\"side\":0,\"x\":[", "'side' is not a list" },
    { "files no list", "\"files\":[", "\"files\":{},\"x\":[", "'files' is not a list" },
    { "tensors no list", "\"tensors\":[", "\"tensors\":null,\"x\":[", "'tensors' is not a list" },
    { "a side that is no object", "{\"name\":\"hf/config.json\",", "7,{\"name\":\"hf/config.json\",",
      "'name' is not a string" },
    { "side without a name", "{\"name\":\"hf/config.json\",", "{", "'name' is not a string" },
    { "side outside", "\"hf/config.json\"", "\"../config.json\"", "'../config.json' leaves the checkpoint" },
    { "side deep outside", "\"hf/config.json\"", "\"hf/../../x\"", "'hf/../../x' leaves" },
    { "side absolute", "\"hf/config.json\"", "\"/etc/passwd\"", "'/etc/passwd' leaves" },
    { "side with an empty part", "\"hf/config.json\"", "\"hf//x\"", "'hf//x' leaves" },
    { "side a folder", "\"hf/config.json\"", "\"hf/\"", "'hf/' leaves" },
    { "side by a dot", "\"hf/config.json\"", "\"./x\"", "'./x' leaves" },
    { "side without letters", "\"hf/config.json\"", "\"\"", "'' leaves" },
    { "side with a control character", "\"hf/config.json\"", "\"hf/a\\u001bb\"", "control character" },
    { "side with a line in it", "\"hf/config.json\"", "\"hf/a\\nb\"", "control character" },
    { "side bytes negative", "\"bytes\":830", "\"bytes\":-830", "'bytes' is not an integer" },
    { "side bytes beyond int64", "\"bytes\":830", "\"bytes\":9223372036854775808", "'bytes' is not" },
    { "side bytes a fraction", "\"bytes\":830", "\"bytes\":830.5", "'bytes' is not an integer" },
    { "sha too short", "\"sha256\":\"ab", "\"sha256\":\"b", "'sha256' is not 64" },
    { "sha too long", "\"sha256\":\"ab", "\"sha256\":\"0ab", "'sha256' is not 64" },
    { "no sha", "\"sha256\"", "\"sha265\"", "'sha256' is not 64" },
    { "sides out of order", "\"hf/config.json\"", "\"zz\"", "the file 'mixckpt.digests' is out of order" },
    { "a side twice", "\"hf/config.json\"", "\"mixckpt.digests\"", "'mixckpt.digests' is out of order" },
    { "file outside", "\"model/dense-hsd00000of00002.h5\"", "\"../../x.h5\"", "'../../x.h5' leaves" },
    { "file twice", "\"model/dense-hsd00000of00002.h5\"", "\"model/dense-hsd00001of00002.h5\"",
      "'model/dense-hsd00001of00002.h5' is out of order" },
    { "file bytes huge", "\"bytes\":8192", "\"bytes\":18446744073709551615", "'bytes' is not" },
    { "crc too short", "\"fedcba98", "\"edcba98", "'crc64nvme' is not 16" },
    { "crc no hex", "\"fedcba98", "\"xedcba98", "'crc64nvme' is not 16" },
    { "tensor without a name", FIRST_TENSOR, "{\"dtype\":\"BF16\",\"shape\":[10,6],", "'name' is not" },
    { "tensor with a control character", "\"a.weight\"", "\"a\\u001bw\"", "control character 0x1b" },
    { "tensor with DEL", "\"a.weight\"", "\"a\x7fw\"", "control character 0x7f" },
    { "tensor with another @", "\"a.weight\"", "\"a@b\"", "holds an '@'" },
    { "tensor with two suffixes", "\"a.weight\"", "\"a@master@master\"", "holds an '@'" },
    { "tensors out of order", "\"a.weight\"", "\"z\"", "the tensor 'a.weight@master' is out of order" },
    { "tensor twice", "\"a.weight\"", "\"a.weight@master\"", "'a.weight@master' is out of order" },
    { "no such dtype", "\"BF16\"", "\"bf16\"", "tensor 'a.weight': there is no dtype 'bf16'" },
    { "dtype a number", "\"dtype\":\"BF16\"", "\"dtype\":16", "'dtype' is not a string" },
    { "shape no list", "\"shape\":[10,6]", "\"shape\":60", "'shape' is not a list of at most 32 sizes" },
    { "shape negative", "\"shape\":[10,6]", "\"shape\":[10,-6]", "'shape' holds something that is no size" },
    { "shape of 33 dimensions", "\"shape\":[10,6]",
      "\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "at most 32" },
    { "elements wrap", "\"shape\":[10,6]", "\"shape\":[4294967296,4294967296]", "passes 2^64" },
    { "bits wrap", "\"shape\":[10,6]", "\"shape\":[1152921504606846976,1]", "passes 2^64" },
    { "half bytes", "\"dtype\":\"BF16\",\"shape\":[10,6]", "\"dtype\":\"F4\",\"shape\":[3,3]",
      "do not fill whole bytes" },
    { "no grid", "\"grid\"", "\"grit\"", "'grid' is not a list" },
    { "grid too short", NEST, "\"grid\":[6]", "'grid' or 'nest' has the wrong length" },
    { "grid too long", NEST, "\"grid\":[6,1,1]", "'grid' or 'nest' has the wrong length" },
    { "grid of a scalar", "\"grid\":[],", "\"grid\":[1],", "'grid' or 'nest' has the wrong length" },
    { "grid of no parts", NEST, "\"grid\":[0,1]", "'grid' cuts dimension 0 into 0" },
    { "grid of more parts than rows", NEST, "\"grid\":[11,1]", "more parts than there are rows" },
    /* ceil(10 / 6) = 2 rows a part are 5 parts, never 6 */
    { "grid of parts that no cut makes", NEST, "\"grid\":[6,1]", "more parts than there are rows" },
    { "grid of more parts than columns", NEST, "\"grid\":[1,7]", "more parts than there are rows or columns" },
    { "grid of 2^64 - 1 parts", NEST, "\"grid\":[18446744073709551615,1]", "more parts" },
    { "grid beyond 64 bits", NEST, "\"grid\":[18446744073709551616,1]", "'grid' holds something" },
    { "grid along dimension 2", "\"grid\":[1,1,1]", "\"grid\":[1,1,2]", "'grid' cuts dimension 2 into 2" },
    { "nest too short", "\"nest\":[3,2]", "\"nest\":[3]", "'grid' or 'nest' has the wrong length" },
    { "nest of one", "\"nest\":[3,2]", "\"nest\":[1,6]", "'grid' or 'nest' has the wrong length" },
    { "nest of zero", "\"nest\":[3,2]", "\"nest\":[0,2]", "'grid' or 'nest' has the wrong length" },
    { "nest that gives other parts", "\"nest\":[3,2]", "\"nest\":[3,1]", "more parts" },
    { "nest no list", "\"nest\":[3,2]", "\"nest\":3", "'nest' is not a list" },
    { "nest with nothing inside", "\"grid\":[6,1],\"nest\":[3,2]", "\"grid\":[3,1],\"nest\":[3,0]",
      "canonical spelling" },
    { "nest of what cannot be cut", "\"grid\":[1,1],\"digest\"", "\"grid\":[1,1],\"nest\":[2,2],\"digest\"",
      "canonical spelling" },
    { "digest too short", "\"digest\":\"07", "\"digest\":\"7", "tensor 'a.weight': 'digest' is not 64" },
    { "more pieces than can be counted", FIRST_TENSOR NEST,
      "{\"name\":\"a.weight\",\"dtype\":\"U8\",\"shape\":[1152921504606846976],"
      "\"grid\":[1152921504606846976]", "more pieces or leaves than can be counted" },
};

static void test_manifest__names_the_broken_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(broken); i++) {
        struct mix_buf text = spoiled(broken[i].find, broken[i].put);
        struct mix_manifest m;
        struct mix_err err = { 0 };

        test_row(broken[i].what);
        sign_again(&text);
        assert_rc(mix_manifest_parse(text.data, text.len, &m, &err),
                  broken[i].rc ? broken[i].rc : MIX_BAD_FORMAT, &err);
        assert_true(mix_manifest_parse(text.data, text.len, &m, NULL)); /* nor without words */
        assert_text(err.text, broken[i].says);
        assert_null(m.arena.block); /* empty on failure */
        assert_int_equal(m.tensor_count, 0);
        mix_buf_release(&text);
    }
}

/* Any byte that changes is noticed by `self`, before anything else is believed. */
static void test_manifest__every_byte_counts(void **state)
{
    struct mix_buf text = sample();
    struct mix_manifest m;
    struct mix_err err = { 0 };

    (void)state;
    for (size_t at = 0; at < text.len; at++) {
        text.data[at] ^= 1;
        assert_int_equal(mix_manifest_parse(text.data, text.len, &m, &err), MIX_CORRUPT);
        assert_text(err.text, "self");
        text.data[at] ^= 1;
    }
    for (size_t len = 0; len < text.len; len++)
        assert_int_equal(mix_manifest_parse(text.data, len, &m, &err), MIX_CORRUPT);
    assert_ok(mix_buf_put(&text, "\n", 1, &err), &err);
    assert_int_equal(mix_manifest_parse(text.data, text.len, &m, &err), MIX_CORRUPT);
    mix_buf_release(&text);
}

static void test_manifest__says_which_self_was_found(void **state)
{
    struct mix_buf text = sample();
    struct mix_manifest m;
    struct mix_err err = { 0 };
    char said[65] = "", found[65];
    unsigned char sha[32];

    (void)state;
    memcpy(said, strstr(text.data, "\"self\":\"") + 8, 64);
    text.data[2] ^= 1;
    mix_sha256(text.data, (size_t)(strstr(text.data, "\"self\"") - text.data), sha);
    mix_hex(sha, 32, found);
    assert_int_equal(mix_manifest_parse(text.data, text.len, &m, &err), MIX_CORRUPT);
    assert_text(err.text, said);
    assert_text(err.text, found);
    mix_buf_release(&text);
}

static void test_manifest__counts_cannot_wrap(void **state)
{
    const uint64_t huge[] = { UINT64_C(1) << 60 };
    struct mix_ckpt_tensor tensor[2] = {
        { .name = "a", .dtype = MIX_U8, .rank = 1, .shape = huge, .bytes = huge[0] },
        { .name = "b", .dtype = MIX_U8, .rank = 1, .shape = huge, .bytes = huge[0] },
    };
    struct mix_manifest m = { .tensor = tensor, .tensor_count = 2 };
    struct mix_err err = { 0 };

    (void)state;
    for (int i = 0; i < 2; i++)
        mix_cut_init(&tensor[i].cut, MIX_U8, 1, huge, 1, 1, 1);
    assert_ok(mix_manifest_number(&m, &err), &err);
    assert_true(m.piece_count == 2 && m.leaf_count == UINT64_C(1) << 45);
    mix_cut_init(&tensor[1].cut, MIX_U8, 1, huge, 1, huge[0], 1);
    assert_int_equal(mix_manifest_number(&m, &err), MIX_BAD_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest__comes_back_as_it_was_written),
        cmocka_unit_test(test_manifest__without_step_model_trainer_and_lists),
        cmocka_unit_test(test_manifest__finds_tensors_by_name),
        cmocka_unit_test(test_manifest__names_the_broken_rule),
        cmocka_unit_test(test_manifest__every_byte_counts),
        cmocka_unit_test(test_manifest__says_which_self_was_found),
        cmocka_unit_test(test_manifest__counts_cannot_wrap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
