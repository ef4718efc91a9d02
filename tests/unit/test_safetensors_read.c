/* Reading .safetensors: every rule of the format has a file that breaks it. */
#include "ckpt/format/safetensors.h"

#include <stdlib.h>

#include "ckpt/base/mem.h"
#include "ckpt/store/store.h"
#include "tests/support/test.h"

#define ENTRY(name, begin, end) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4]," \
    "\"data_offsets\":[" #begin "," #end "]}"
#define FIELDS(dtype, shape, offsets) "{\"dtype\":" dtype ",\"shape\":" shape \
    ",\"data_offsets\":" offsets "}"
#define A ENTRY("a", 0, 4)
#define TEN "1,1,1,1,1,1,1,1,1,1,"

/* A store that holds one file, of this header and so many bytes of data. */
static struct mix_store *store_with(const char *header, size_t data_bytes)
{
    static const char zeros[64];
    struct mix_buf file = MIX_BUF_INIT;
    struct mix_store *store;
    struct mix_err err = { 0 };
    unsigned char prefix[8];

    mix_store_le(prefix, strlen(header), 8);
    assert_true(data_bytes <= sizeof zeros);
    assert_ok(mix_buf_put(&file, prefix, sizeof prefix, &err), &err);
    assert_ok(mix_buf_put(&file, header, strlen(header), &err), &err);
    assert_ok(mix_buf_put(&file, zeros, data_bytes, &err), &err);
    assert_ok(mix_store_open_memory(&store, &err), &err);
    assert_ok(mix_store_memory_put(store, "m.safetensors", file.data, file.len, &err), &err);
    mix_buf_release(&file);
    return store;
}

static enum mix_rc open_header(const char *header, size_t data_bytes,
                               struct mix_safetensors **st, struct mix_err *err)
{
    struct mix_store *store = store_with(header, data_bytes);
    enum mix_rc rc = mix_safetensors_open(store, "m.safetensors", st, err);

    mix_store_close(store); /* needed only during the call */
    return rc;
}

static const struct {
    const char *what, *header, *says; /* the defect, and words `err` must hold */
    size_t data_bytes;
    enum mix_rc rc; /* 0: MIX_BAD_FORMAT */
} broken[] = {
    { "an array", "[]", "the header is no JSON object", 0 },
    { "cut short", "{" A, "header: not JSON at byte 52: ',' or '}' was expected", 4 },
    { "duplicate", "{" A "," ENTRY("b", 4, 8) "," A "}", "the key 'a' stands twice", 8 },
    { "duplicate, escaped", "{" A "," ENTRY("\\u0061", 0, 4) "}", "the key 'a' stands", 4 },
    { "metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", "stands twice", 0 },
    { "metadata an array", "{\"__metadata__\":[]}", "__metadata__ is no object", 0 },
    { "metadata a number", "{\"__metadata__\":{\"k\":1}}", "holds 'k', which is no string", 0 },
    { "control character", "{" ENTRY("a\\nb", 0, 4) "}", "the control character 0x0a", 4 },
    { "DEL", "{" ENTRY("a\x7f", 0, 4) "}", "the control character 0x7f", 4 },
    { "at sign", "{" ENTRY("a@b", 0, 4) "}", "'a@b' holds an '@'", 4 },
    { "at sign early", "{" ENTRY("a@b@master", 0, 4) "}", "'a@b@master' holds an '@'", 4 },
    { "suffix and more", "{" ENTRY("a@master2", 0, 4) "}", "holds an '@'", 4 },
    { "an entry of null", "{\"a\":null}", "tensor 'a' is no object", 0 },
    { "an array of two", "{\"a\":[\"U8\",[4]]}", "'a' is an array of 2 values; 3", 4 },
    { "an array of four", "{\"a\":[\"U8\",[4],[0,4],1]}", "an array of 4 values", 4 },
    { "no dtype", "{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", "'a' has no dtype", 4 },
    { "no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", "'a' has no shape", 4 },
    { "no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", "has no data_offsets", 4 },
    { "field in another case", "{\"a\":{\"DTYPE\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
      "'a' has no dtype", 4 },
    { "unknown dtype", "{\"a\":" FIELDS("\"U7\"", "[4]", "[0,4]") "}", "unknown dtype 'U7'", 4 },
    { "lower case", "{\"a\":" FIELDS("\"u8\"", "[4]", "[0,4]") "}", "unknown dtype 'u8'", 4 },
    { "dtype a number", "{\"a\":" FIELDS("4", "[4]", "[0,4]") "}", "is no string", 4 },
    { "shape a number", "{\"a\":" FIELDS("\"U8\"", "4", "[0,4]") "}", "is no array", 4 },
    { "shape an object", "{\"a\":" FIELDS("\"U8\"", "{\"x\":4}", "[0,4]") "}", "no array", 4 },
    { "a fraction", "{\"a\":" FIELDS("\"U8\"", "[4.0]", "[0,4]") "}", "no integer", 4 },
    { "negative", "{\"a\":" FIELDS("\"U8\"", "[-4]", "[0,4]") "}", "no integer", 4 },
    { "over 64 bits", "{\"a\":" FIELDS("\"U8\"", "[18446744073709551620]", "[0,4]") "}",
      "no integer of 64 bits", 4 },
    { "one offset", "{\"a\":" FIELDS("\"U8\"", "[4]", "[0]") "}", "are not two integers", 4 },
    { "three", "{\"a\":" FIELDS("\"U8\"", "[4]", "[0,4,4]") "}", "are not two integers", 4 },
    { "an exponent", "{\"a\":" FIELDS("\"U8\"", "[4]", "[0,4e0]") "}", "are not two integers", 4 },
    { "offsets an object", "{\"a\":" FIELDS("\"U8\"", "[4]", "{\"x\":0,\"y\":4}") "}",
      "are not two integers", 4 },
    { "offsets null", "{\"a\":" FIELDS("\"U8\"", "[4]", "null") "}", "are not two", 4 },
    { "end before begin", "{" A "," ENTRY("b", 4, 0) "}",
      "'b' has data_offsets 4..0, which end before", 4 },
    { "wraps", "{" ENTRY("a", 18446744073709551611, 18446744073709551615) "}",
      "data_offsets of tensor 'a' pass 2^64", 4 },
    { "too few bytes", "{" ENTRY("a", 0, 3) "}",
      "'a' has 4 bytes by its dtype and shape, but bytes 61..64 are 3", 3 },
    { "product wraps", "{\"a\":" FIELDS("\"U8\"", "[4611686018427387905,2,2]", "[0,4]") "}",
      "tensor 'a': the number of elements passes 2^64", 4 },
    { "[huge, huge, 0]", "{\"a\":" FIELDS("\"U8\"", "[9223372036854775808,9223372036854775808,0]",
      "[0,0]") "}", "passes 2^64", 0 },
    { "F4, odd", "{\"a\":" FIELDS("\"F4\"", "[3]", "[0,2]") "}", "do not fill whole bytes", 2 },
    { "33 dimensions", "{\"a\":" FIELDS("\"U8\"", "[" TEN TEN TEN "1,1,4]", "[0,4]") "}",
      "'a' has 33 dimensions; at most 32", 4, MIX_UNSUPPORTED },
    { "gap before first", "{" ENTRY("a", 1, 5) "}",
      "tensor 'a' covers bytes 62..66, but the next free byte is 61", 5, MIX_HOLE },
    { "hole", "{" A "," ENTRY("b", 5, 9) "}", "'b' covers bytes 118..122, but the next free "
      "byte is 117", 9, MIX_HOLE },
    { "hole at a tensor of no bytes", "{" A ",\"z\":" FIELDS("\"F32\"", "[0]", "[9,9]") "}",
      "'z' covers", 4, MIX_HOLE },
    { "overlap", "{" A "," ENTRY("b", 2, 6) "}", "'b' covers bytes 115..119, but the next free "
      "byte is 117", 6, MIX_OVERLAP },
    { "the same bytes twice", "{" A "," ENTRY("b", 0, 4) "}", "'b' covers", 4, MIX_OVERLAP },
    { "no bytes, within another", "{" A ",\"z\":" FIELDS("\"F32\"", "[0]", "[2,2]") "}",
      "'z' covers", 4, MIX_OVERLAP },
    { "bytes left over", "{" A "}", "tensors end at byte 65 of 70", 9 },
    { "bytes without tensors", "{}", "tensors end at byte 10 of 11", 1 },
    { "data cut short", "{" A "," ENTRY("b", 4, 8) "}", "'b' covers bytes 117..121, but the "
      "file ends at byte 120 of 121", 7, MIX_TRUNCATED },
    { "first tensor cut", "{" A "," ENTRY("b", 4, 8) "}", "'a' covers bytes 113..117, but the "
      "file ends at byte 115 of 121", 2, MIX_TRUNCATED },
};

static void test_safetensors_read__names_the_broken_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(broken); i++) {
        struct mix_safetensors *st = (struct mix_safetensors *)&st;
        struct mix_err err = { 0 };
        enum mix_rc want = broken[i].rc ? broken[i].rc : MIX_BAD_FORMAT;

        test_row(broken[i].what);
        assert_int_equal(open_header(broken[i].header, broken[i].data_bytes, &st, &err), want);
        assert_null(st);
        assert_text(err.text, "m.safetensors: "); /* where */
        assert_text(err.text, broken[i].says);    /* what */
        assert_string_equal(err.file, "m.safetensors");
    }
}

static void test_safetensors_read__says_which_bytes_are_lost(void **state)
{
    static const struct {
        const char *header, *tensor;
        size_t data_bytes;
        uint64_t begin, end;
    } row[] = {
        { "{" A "," ENTRY("b", 4, 8) "}", "b", 7, 3, 4 },
        { "{" A "," ENTRY("b", 4, 8) "}", "a", 2, 2, 4 },
        { "{" A "," ENTRY("b", 4, 8) "}", "a", 0, 0, 4 },
        { "{" A "," ENTRY("b", 2, 6) "}", "b", 6, 0, 2 },
        { "{" A "," ENTRY("b", 5, 9) "}", "b", 9, 0, 4 },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_safetensors *st;
        struct mix_err err = { 0 };

        test_row(row[i].tensor);
        assert_true(open_header(row[i].header, row[i].data_bytes, &st, &err));
        assert_string_equal(err.tensor, row[i].tensor);
        assert_true(err.has_range);
        assert_int_equal(err.begin, row[i].begin);
        assert_int_equal(err.end, row[i].end);
    }
}

/* The frame: the prefix, and a header that runs past the file. */
static void test_safetensors_read__checks_the_length(void **state)
{
    static const struct {
        const char *what;
        uint64_t n;
        size_t len; /* of the file, prefix included */
        enum mix_rc rc;
        const char *says;
    } row[] = {
        { "empty", 0, 0, MIX_TRUNCATED, "the file ends at byte 0 of 8" },
        { "half a prefix", 0, 7, MIX_TRUNCATED, "the file ends at byte 7 of 8" },
        { "no header", 0, 8, MIX_BAD_FORMAT, "not JSON at byte 0" },
        { "one byte too long", 3, 10, MIX_TRUNCATED, "bytes 8..11, but the file ends at byte "
          "10 of 11" },
        { "over the limit", 100000001, 10, MIX_BAD_FORMAT, "claims 100000001 bytes; at most "
          "100000000" },
        { "at the limit", 100000000, 10, MIX_TRUNCATED, "ends at byte 10 of 100000008" },
        { "wraps", UINT64_MAX - 7, 10, MIX_BAD_FORMAT, "claims 18446744073709551608" },
        { "largest", UINT64_MAX, 10, MIX_BAD_FORMAT, "claims 18446744073709551615" },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        unsigned char file[16] = { 0 };
        struct mix_store *store;
        struct mix_safetensors *st;
        struct mix_err err = { 0 };

        mix_store_le(file, row[i].n, 8);
        memcpy(file + 8, "{}", 2);
        test_row(row[i].what);
        assert_ok(mix_store_open_memory(&store, &err), &err);
        assert_ok(mix_store_memory_put(store, "m", file, row[i].len, &err), &err);
        assert_int_equal(mix_safetensors_open(store, "m", &st, &err), row[i].rc);
        assert_text(err.text, row[i].says);
        assert_int_equal(mix_safetensors_parse(file, row[i].len, row[i].len, &st, &err),
                         row[i].rc);
        assert_text(err.text, row[i].says);
        mix_store_close(store);
    }
}

static void test_safetensors_read__parses_a_header_alone(void **state)
{
    static const char header[] = "\x35\0\0\0\0\0\0\0{" A "}";
    const size_t len = sizeof header - 1;
    struct mix_safetensors *st;
    struct mix_err err = { 0 };
    size_t kept;

    (void)state;
    assert_int_equal(mix_safetensors_parse(header, len - 1, UINT64_MAX, &st, &err),
                     MIX_TRUNCATED); /* one byte is missing */
    assert_text(err.text, "ends at byte 60 of 61");
    assert_int_equal(mix_safetensors_parse(header, len + 1, UINT64_MAX, &st, &err),
                     MIX_BAD_FORMAT); /* one too many */
    assert_ok(mix_safetensors_parse(header, len, UINT64_MAX, &st, &err), &err);
    assert_int_equal(mix_safetensors_file_bytes(st), len + 4);
    assert_memory_equal(mix_safetensors_header(st, &kept), header, len);
    assert_int_equal(kept, len);
    mix_safetensors_close(st);

    assert_ok(mix_safetensors_parse(header, len, len + 4, &st, &err), &err);
    mix_safetensors_close(st);
    assert_int_equal(mix_safetensors_parse(header, len, len + 3, &st, &err), MIX_TRUNCATED);
    assert_int_equal(mix_safetensors_parse(header, len, len + 5, &st, &err), MIX_BAD_FORMAT);
    assert_int_equal(mix_safetensors_parse(header, len, len - 1, &st, &err), MIX_TRUNCATED);
    assert_int_equal(mix_safetensors_parse(header, len, 7, &st, &err), MIX_TRUNCATED);
    mix_safetensors_close(NULL);
}

/* Odd, but accepted by the reference; `warns` is what the only warning holds, or NULL. */
static const struct {
    const char *header, *warns;
    size_t count, data_bytes;
} odd[] = {
    { "{}", NULL, 0, 0 },
    { "{" A "}", NULL, 1, 4 },
    { " \n\t{" A "}  ", NULL, 1, 4 },
    { "{\"__metadata__\":null," A "}", NULL, 1, 4 },
    { "{" A ",\"__metadata__\":{\"k\":\"v\"}}", NULL, 1, 4 },
    { "{\"a\":[\"U8\",[4],[0,4]]}", "tensor 'a' is written as an array", 1, 4 },
    { "{\"a\":{\"x\":[1,{\"y\":null}],\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
      "unknown field 'x' of tensor 'a'", 1, 4 },
    { "{" ENTRY("", 0, 4) "}", "the empty name", 1, 4 },
    { "{\"a\":" FIELDS("\"F32\"", "[1]", "[0,4]") "}", "tensor 'a' begins at byte 62, which is "
      "no multiple of 4", 1, 4 },
    { "{\"a\":" FIELDS("\"F32\"", "[0]", "[0,0]") "}", NULL, 1, 0 }, /* no bytes to be odd */
    { "{" A ",\"z\":" FIELDS("\"F32\"", "[0]", "[0,0]") "}", NULL, 2, 4 }, /* z, then a */
    { "{\"a\":" FIELDS("\"U8\"", "[]", "[0,1]") "}", NULL, 1, 1 },
    { "{\"a\":" FIELDS("\"I8\"", "[0,9223372036854775808,9223372036854775808]", "[0,0]") "}",
      NULL, 1, 0 },
    { "{\"a\":" FIELDS("\"F4\"", "[4]", "[0,2]") "}", NULL, 1, 2 },
    { "{\"a\":" FIELDS("\"F6_E2M3\"", "[4]", "[0,3]") "}", NULL, 1, 3 },
    { "{\"a\":" FIELDS("\"U8\"", "[" TEN TEN TEN "1,4]", "[0,4]") "}", NULL, 1, 4 },
    { "{" ENTRY("w@exp_avg", 0, 4) "," ENTRY("w@exp_avg_sq", 4, 8) "," ENTRY("w@master", 8, 12)
      "}", NULL, 3, 12 },
};

static void test_safetensors_read__accepts_the_odd_and_warns(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(odd); i++) {
        struct mix_safetensors *st;
        struct mix_err err = { 0 };
        size_t count;

        test_row(odd[i].header);
        assert_ok(open_header(odd[i].header, odd[i].data_bytes, &st, &err), &err);
        const char *const *warning = mix_safetensors_warnings(st);
        mix_safetensors_list(st, &count);
        assert_int_equal(count, odd[i].count);
        if (odd[i].warns) {
            assert_non_null(*warning);
            assert_text(*warning++, odd[i].warns);
        }
        assert_null(*warning);
        mix_safetensors_close(st);
    }
}

/* Many oddities are counted, and a long name is cut at a whole character. */
static void test_safetensors_read__warnings_are_bounded(void **state)
{
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_safetensors *st;
    struct mix_err err = { 0 };
    size_t count = 0;

    (void)state;
    assert_ok(mix_buf_put(&header, "{\"", 2, &err), &err);
    for (int i = 0; i < 400; i++)
        assert_ok(mix_buf_put(&header, "\xe2\x82\xac", 3, &err), &err);
    assert_ok(mix_buf_put(&header, "\":{", 3, &err), &err);
    for (int i = 0; i < 150; i++)
        assert_ok(mix_buf_putf(&header, &err, "\"x%d\":1,", i), &err);
    assert_ok(mix_buf_putf(&header, &err,
                           "\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"), &err);
    assert_ok(open_header(header.data, 4, &st, &err), &err);

    const char *const *warning = mix_safetensors_warnings(st);
    size_t len = strlen(warning[0]);
    assert_true(len > 500 && !memcmp(warning[0] + len - 3, "\xe2\x82\xac", 3));
    while (warning[count])
        count++;
    assert_int_equal(count, 101);
    assert_string_equal(warning[100], "and 50 more like these");
    mix_safetensors_close(st);
    mix_buf_release(&header);
}

/* By begin, then by end, then as listed: empty tensors stand where they are. */
static void test_safetensors_read__lists_in_file_order(void **state)
{
    static const char header[] = "{" ENTRY("d", 4, 8) ",\"y\":" FIELDS("\"F32\"", "[0]", "[4,4]")
        ",\"x\":" FIELDS("\"F32\"", "[3,0]", "[4,4]") ",\"e\":" FIELDS("\"I64\"", "[0]", "[8,8]")
        ",\"c\":" FIELDS("\"U16\"", "[2,1]", "[0,4]") ",\"f\":" FIELDS("\"U8\"", "[0]", "[0,0]") "}";
    static const char order[] = "fcyxde";
    struct mix_safetensors *st;
    struct mix_err err = { 0 };
    size_t count;

    (void)state;
    assert_ok(open_header(header, 8, &st, &err), &err);
    const struct mix_tensor *t = mix_safetensors_list(st, &count);
    assert_int_equal(count, strlen(order));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(t[i].name[0], order[i]);
    assert_int_equal(t[1].dtype, MIX_U16);
    assert_int_equal(t[1].rank, 2);
    assert_int_equal(t[1].shape[0], 2);
    assert_int_equal(t[1].shape[1], 1);
    assert_int_equal(t[1].begin, 8 + strlen(header));
    assert_int_equal(t[4].end, mix_safetensors_file_bytes(st));
    mix_safetensors_close(st);
}

static void test_safetensors_read__hands_out_metadata(void **state)
{
    struct mix_safetensors *st;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(open_header("{\"__metadata__\":{\"format\":\"pt\",\"x\":\"{\\\"y\\\":1}\"}," A "}",
                          4, &st, &err), &err);
    assert_string_equal(mix_safetensors_metadata(st, "format"), "pt");
    assert_string_equal(mix_safetensors_metadata(st, "x"), "{\"y\":1}");
    assert_null(mix_safetensors_metadata(st, "y"));
    mix_safetensors_close(st);
}

static void test_safetensors_read__there_is_no_such_file(void **state)
{
    struct mix_store *store = store_with("{}", 0);
    struct mix_safetensors *st;
    struct mix_err err = { 0 };

    (void)state;
    assert_int_equal(mix_safetensors_open(store, "n.safetensors", &st, &err), MIX_NOT_FOUND);
    assert_text(err.text, "n.safetensors: ");
    assert_null(st);
    mix_store_close(store);
}

static void test_safetensors_read__checks_names(void **state)
{
    static const struct {
        const char *name;
        bool fine;
    } row[] = {
        { "model.norm.weight", true }, { "", true }, { "a b/%", true }, { "\xd0\xba", true },
        { "w@exp_avg", true }, { "w@exp_avg_sq", true }, { "w@master", true },
        { "w@", false }, { "w@exp", false }, { "w@exp_avg@master", false }, { "@x", false },
        { "\x1f", false }, { "\x7f", false }, { "a\x80", false }, { "\xff", false },
        { "\xe2\x82", false },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_err err = { 0 };

        test_row(row[i].name);
        assert_int_equal(mix_tensor_name_check(row[i].name, &err),
                         row[i].fine ? MIX_OK : MIX_BAD_FORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_read__names_the_broken_rule),
        cmocka_unit_test(test_safetensors_read__says_which_bytes_are_lost),
        cmocka_unit_test(test_safetensors_read__checks_the_length),
        cmocka_unit_test(test_safetensors_read__parses_a_header_alone),
        cmocka_unit_test(test_safetensors_read__accepts_the_odd_and_warns),
        cmocka_unit_test(test_safetensors_read__warnings_are_bounded),
        cmocka_unit_test(test_safetensors_read__lists_in_file_order),
        cmocka_unit_test(test_safetensors_read__hands_out_metadata),
        cmocka_unit_test(test_safetensors_read__there_is_no_such_file),
        cmocka_unit_test(test_safetensors_read__checks_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
