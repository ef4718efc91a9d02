/* JSON from outside: what is taken, what is refused and in which words, and the limits. */
#include "ckpt/base/json.h"

#include <math.h>
#include <stdlib.h>

#include "tests/support/test.h"

/* Parse what must parse; the caller frees it. */
static struct mix_json_doc *parsed(const char *text)
{
    struct mix_json_doc *doc;
    struct mix_err err = { 0 };

    test_row(text);
    assert_ok(mix_json_parse(text, strlen(text), &doc, &err), &err);
    return doc;
}

static const struct mix_json *root(const char *text, struct mix_json_doc **doc)
{
    *doc = parsed(text);
    return mix_json_root(*doc);
}

static void test_json__keeps_order_and_spelling(void **state)
{
    static const struct {
        const char *text, *emitted;
    } row[] = {
        { " {\"b\" : 1 ,\n\"a\":[ true,false , null]\t}\r\n",
          "{\"b\":1,\"a\":[true,false,null]}" },
        { "[1.50, -0, 1E+5, 0.0e-0, 18446744073709551615, 9007199254740993]",
          "[1.50,-0,1E+5,0.0e-0,18446744073709551615,9007199254740993]" },
        { "\"\\u0041\\/\\b\\f\\n\\r\\t\\\"\\\\\\u001F\x7f\"",
          "\"A/\\b\\f\\n\\r\\t\\\"\\\\\\u001f\x7f\"" },
        { "\"\\ud83d\\ude00 \xf0\x9f\x98\x80 \\u00ff \xc3\xbf\"",
          "\"\xf0\x9f\x98\x80 \xf0\x9f\x98\x80 \xc3\xbf \xc3\xbf\"" },
        { "{}", "{}" },
        { "[]", "[]" },
        { "[[],{},[[]]]", "[[],{},[[]]]" },
        { "7", "7" },
        { "\"\"", "\"\"" },
        { "null", "null" },
        { "{\"\":{\"A\":1,\"a\":2}}", "{\"\":{\"A\":1,\"a\":2}}" },
    };
    struct mix_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_buf out = MIX_BUF_INIT;
        struct mix_json_doc *doc = parsed(row[i].text);

        assert_ok(mix_json_emit(mix_json_root(doc), &out, &err), &err);
        assert_string_equal(out.data, row[i].emitted);
        mix_buf_release(&out);
        mix_json_free(doc);
    }
}

/* `len` stands where the text holds a NUL; 0: strlen. */
static const struct {
    const char *text, *says;
    size_t len;
} broken[] = {
    { "", "not JSON at byte 0: the text ends where a value" },
    { "  ", "not JSON at byte 2: the text ends where a value" },
    { "\xef\xbb\xbf{}", "not JSON at byte 0: a value" },
    { "{} x", "not JSON at byte 3: more text" },
    { "{}\0", "not JSON at byte 2: more text", 3 },
    { "{}{}", "byte 2: more text" },
    { "nul", "byte 0: an unknown word" },
    { "[True]", "byte 1: a value" },
    { "NaN", "byte 0: a value" },
    { "-Infinity", "byte 1: a number without digits" },
    { "[1,]", "byte 3: a value" },
    { "[1 2]", "byte 3: ',' or ']'" },
    { "[1", "byte 2: ',' or ']'" },
    { "[", "byte 1: the text ends" },
    { "{\"a\":1,}", "byte 7: a key" },
    { "{\"a\" 1}", "byte 5: ':'" },
    { "{\"a\":1", "byte 6: ',' or '}'" },
    { "{a:1}", "byte 1: a key" },
    { "{1:1}", "byte 1: a key" },
    { "{\"a\":}", "byte 5: a value" },
    { "[}", "byte 1: a value" },
    { "/**/1", "byte 0: a value" },
    { "01", "byte 1: a number with a leading zero" },
    { "-01", "byte 2: a number with a leading zero" },
    { "-", "byte 1: a number without digits" },
    { "+1", "byte 0: a value" },
    { ".5", "byte 0: a value" },
    { "1.", "byte 2: no digit" },
    { "1.e5", "byte 2: no digit" },
    { "1e", "byte 2: an exponent" },
    { "1e+", "byte 3: an exponent" },
    { "0x10", "byte 1: more text" },
    { "[1e999]", "byte 1: a number that is out of range" },
    { "[-1e999]", "byte 1: a number that is out of range" },
    { "\"a", "byte 2: the text ends within a string" },
    { "\"a\nb\"", "byte 2: a control character" },
    { "\"a\0b\"", "byte 2: a control character", 5 },
    { "\"\x1f\"", "byte 1: a control character" },
    { "\"\\x41\"", "byte 2: an unknown escape" },
    { "\"\\\0\"", "byte 2: an unknown escape", 4 },
    { "\"\\", "byte 2: an unknown escape" },
    { "\"\\u12g4\"", "byte 3: \\u needs four" },
    { "\"\\u123", "byte 3: \\u needs four" },
    { "\"\\u0000\"", "byte 3: \\u0000 is not allowed" },
    { "{\"\\u0000\":1}", "byte 4: \\u0000 is not allowed" },
    { "\"\\ud800\"", "a high surrogate" },
    { "\"\\ud800\\u0041\"", "a high surrogate" },
    { "\"\\ud800\\n\"", "a high surrogate" },
    { "\"\\udc00\"", "byte 3: a low surrogate" },
    { "\"\\udc00\\ud800\"", "byte 3: a low surrogate" },
    { "\"\x80\"", "byte 1: a string that is not UTF-8" },
    { "\"\xff\"", "not UTF-8" },
    { "\"\xc3\"", "not UTF-8" },
    { "\"\xc0\xaf\"", "not UTF-8" },         /* '/', overlong */
    { "\"\xe0\x80\xaf\"", "not UTF-8" },
    { "\"\xf0\x80\x80\xaf\"", "not UTF-8" },
    { "\"\xed\xa0\x80\"", "not UTF-8" },     /* a surrogate */
    { "\"\xf4\x90\x80\x80\"", "not UTF-8" }, /* U+110000 */
    { "\"\xe2\x82", "not UTF-8" },
    { "{\"a\":1,\"b\":2,\"a\":3}", "the key 'a' stands twice" },
    { "{\"a\":1,\"\\u0061\":2}", "the key 'a' stands twice" },
    { "[{\"x\":[{\"k\":1,\"k\":1}]}]", "the key 'k' stands twice" },
    { "{\"\":1,\"\":2}", "the key '' stands twice" },
    /* In order but for the repetition, and too many to compare each with each. */
    { "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"i\":1}",
      "the key 'i' stands twice" },
};

static void test_json__names_byte_and_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(broken); i++) {
        size_t len = broken[i].len ? broken[i].len : strlen(broken[i].text);
        char *text = malloc(len ? len : 1); /* so that a sanitizer sees one byte too many */
        struct mix_json_doc *doc = (struct mix_json_doc *)&doc;
        struct mix_err err = { 0 };

        assert_non_null(text);
        memcpy(text, broken[i].text, len);
        test_row(broken[i].text);
        assert_int_equal(mix_json_parse(text, len, &doc, &err), MIX_BAD_FORMAT);
        assert_null(doc);
        assert_text(err.text, broken[i].says);
        free(text);
    }
}

/* An array of `count` - 1 values in one of its own: `count` values in all. */
static enum mix_rc parse_many(size_t count, struct mix_err *err)
{
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_json_doc *doc;
    enum mix_rc rc;

    assert_ok(mix_buf_put(&text, "[0", 2, err), err);
    for (size_t i = 2; i < count; i++)
        assert_ok(mix_buf_put(&text, ",0", 2, err), err);
    assert_ok(mix_buf_put(&text, "]", 1, err), err);
    rc = mix_json_parse(text.data, text.len, &doc, err);
    if (!rc)
        assert_int_equal(mix_json_count(mix_json_root(doc)), count - 1);
    mix_json_free(doc);
    mix_buf_release(&text);
    return rc;
}

static enum mix_rc parse_deep(int depth, struct mix_err *err)
{
    char text[200];
    struct mix_json_doc *doc;
    enum mix_rc rc;

    memset(text, '[', (size_t)depth);
    memset(text + depth, ']', (size_t)depth);
    rc = mix_json_parse(text, 2 * (size_t)depth, &doc, err);
    mix_json_free(doc);
    return rc;
}

static void test_json__has_limits(void **state)
{
    struct mix_json_doc *doc;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(parse_deep(64, &err), &err);
    assert_int_equal(parse_deep(65, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "nested deeper than 64");

    assert_ok(parse_many(1500000, &err), &err);
    assert_int_equal(parse_many(1500001, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "more than 1500000 values");

    /* Refused by its length, before a byte of it is looked at. */
    assert_int_equal(mix_json_parse("1", (100 << 20) + 1, &doc, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "at most 104857600");
}

/* Members in an order that makes them neighbours of nothing equal. */
static enum mix_rc parse_object(size_t count, size_t step, const char *more,
                                struct mix_err *err)
{
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_json_doc *doc;
    enum mix_rc rc;

    for (size_t i = 0; i < count; i++)
        assert_ok(mix_buf_putf(&text, err, "%c\"key.%06zu\":%zu", i ? ',' : '{',
                               i * step % count, i), err);
    assert_ok(mix_buf_putf(&text, err, "%s}", more), err);
    rc = mix_json_parse(text.data, text.len, &doc, err);
    mix_json_free(doc);
    mix_buf_release(&text);
    return rc;
}

static void test_json__finds_a_key_that_stands_twice(void **state)
{
    static const size_t count[] = { 2, 7, 8, 9, 10, 1000, 200000 };
    struct mix_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(count); i++) {
        test_row("sorted");
        assert_ok(parse_object(count[i], 1, "", &err), &err);
        assert_int_equal(parse_object(count[i], 1, ",\"key.000001\":0", &err), MIX_BAD_FORMAT);
        assert_text(err.text, "the key 'key.000001' stands twice");
        test_row("in no order"); /* 7919 is prime and divides no count */
        assert_ok(parse_object(count[i], 7919, "", &err), &err);
        assert_int_equal(parse_object(count[i], 7919, ",\"\\u006bey.000000\":0", &err),
                         MIX_BAD_FORMAT);
        assert_text(err.text, "the key 'key.000000' stands twice");
    }
}

static void test_json__integers_are_exact(void **state)
{
    static const struct {
        const char *text;
        bool is_u64, is_i64;
        uint64_t u64;
        int64_t i64;
    } row[] = {
        { "0", true, true, 0, 0 },
        { "9007199254740993", true, true, 9007199254740993u, 9007199254740993 },
        { "9223372036854775807", true, true, INT64_MAX, INT64_MAX },
        { "9223372036854775808", true, false, (uint64_t)INT64_MAX + 1, 0 },
        { "9999999999999999999", true, false, 9999999999999999999u, 0 },
        { "10000000000000000000", true, false, 10000000000000000000u, 0 },
        { "18446744073709551615", true, false, UINT64_MAX, 0 },
        { "18446744073709551616", false, false, 0, 0 },
        { "18446744073709551620", false, false, 0, 0 },
        { "100000000000000000000", false, false, 0, 0 },
        { "-1", false, true, 0, -1 },
        { "-9223372036854775808", false, true, 0, INT64_MIN },
        { "-9223372036854775809", false, false, 0, 0 },
        { "-18446744073709551617", false, false, 0, 0 },
        { "-0", false, false, 0, 0 },
        { "1.0", false, false, 0, 0 },
        { "1e3", false, false, 0, 0 },
        { "\"1\"", false, false, 0, 0 },
        { "true", false, false, 0, 0 },
        { "[1]", false, false, 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_json_doc *doc;
        const struct mix_json *value = root(row[i].text, &doc);
        uint64_t u64 = 0;
        int64_t i64 = 0;

        assert_int_equal(mix_json_u64(value, &u64), row[i].is_u64);
        assert_int_equal(mix_json_i64(value, &i64), row[i].is_i64);
        assert_true(u64 == row[i].u64 && i64 == row[i].i64);
        mix_json_free(doc);
    }
}

static void test_json__doubles_are_those_of_strtod(void **state)
{
    static const char *const text[] = { "0", "-0", "0.02", "-1.5e-3", "1e308", "1e-400",
                                        "9007199254740993", "123456789012345678901234567890" };
    double value;

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(text); i++) {
        struct mix_json_doc *doc;

        assert_true(mix_json_double(root(text[i], &doc), &value));
        assert_true(value == strtod(text[i], NULL));
        assert_true(signbit(value) == signbit(strtod(text[i], NULL)));
        mix_json_free(doc);
    }
    struct mix_json_doc *doc;
    assert_false(mix_json_double(root("\"1\"", &doc), &value));
    mix_json_free(doc);
}

/* No string may pass for a number, whatever it begins with. */
static void test_json__strings_are_no_numbers(void **state)
{
    static const struct {
        const char *text, *string;
    } row[] = {
        { "\"5\"", "5" },         { "\"\\u00015\"", "\x01" "5" },
        { "\"\\u00ff5\"", "\xc3\xbf" "5" }, { "\"\xc3\xbf" "5\"", "\xc3\xbf" "5" },
        { "\"\"", "" },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_json_doc *doc;
        const struct mix_json *value = root(row[i].text, &doc);

        assert_int_equal(mix_json_kind(value), MIX_JSON_STRING);
        assert_null(mix_json_number_text(value));
        assert_string_equal(mix_json_string(value), row[i].string);
        mix_json_free(doc);
    }
    struct mix_json_doc *doc;
    const struct mix_json *value = root("5", &doc);
    assert_int_equal(mix_json_kind(value), MIX_JSON_NUMBER);
    assert_string_equal(mix_json_number_text(value), "5");
    assert_null(mix_json_string(value));
    mix_json_free(doc);
}

static void test_json__members_and_children(void **state)
{
    struct mix_json_doc *doc;
    const struct mix_json *value =
        root("{\"b\":{\"x\":true},\"B\":[1,\"two\"],\"n\":null}", &doc);
    const struct mix_json *list = mix_json_get(value, "B");
    bool yes = false;

    (void)state;
    assert_int_equal(mix_json_kind(value), MIX_JSON_OBJECT);
    assert_int_equal(mix_json_count(value), 3);
    assert_string_equal(mix_json_key(mix_json_first(value)), "b");
    assert_string_equal(mix_json_key(mix_json_next(mix_json_first(value))), "B");
    assert_int_equal(mix_json_kind(mix_json_get(value, "n")), MIX_JSON_NULL);
    assert_true(mix_json_bool(mix_json_get(mix_json_get(value, "b"), "x"), &yes) && yes);

    assert_int_equal(mix_json_kind(list), MIX_JSON_ARRAY);
    assert_string_equal(mix_json_string(mix_json_next(mix_json_first(list))), "two");
    assert_null(mix_json_next(mix_json_next(mix_json_first(list))));

    /* What is not there can be asked further. */
    assert_null(mix_json_get(value, "N"));
    assert_null(mix_json_get(mix_json_get(value, "c"), "x"));
    assert_null(mix_json_get(list, "two"));
    assert_null(mix_json_string(NULL));
    assert_null(mix_json_number_text(NULL));
    assert_false(mix_json_bool(NULL, &yes) || mix_json_bool(list, &yes));
    assert_int_equal(mix_json_count(NULL), 0);
    mix_json_free(doc);
    mix_json_free(NULL);
}

static void test_json__writes_strings_as_serde_does(void **state)
{
    static const struct {
        const char *text, *written;
    } row[] = {
        { "", "\"\"" },
        { "a\"b\\c/", "\"a\\\"b\\\\c/\"" },
        { "\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\"" },
        { "\x01\x0b\x1f\x7f", "\"\\u0001\\u000b\\u001f\x7f\"" },
        { "\xc3\xa9\xf0\x9f\x98\x80", "\"\xc3\xa9\xf0\x9f\x98\x80\"" },
    };
    struct mix_err err = { 0 };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_buf out = MIX_BUF_INIT;

        assert_ok(mix_json_put_string(&out, row[i].text, &err), &err);
        assert_string_equal(out.data, row[i].written);
        mix_buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json__keeps_order_and_spelling),
        cmocka_unit_test(test_json__names_byte_and_rule),
        cmocka_unit_test(test_json__has_limits),
        cmocka_unit_test(test_json__finds_a_key_that_stands_twice),
        cmocka_unit_test(test_json__integers_are_exact),
        cmocka_unit_test(test_json__doubles_are_those_of_strtod),
        cmocka_unit_test(test_json__strings_are_no_numbers),
        cmocka_unit_test(test_json__members_and_children),
        cmocka_unit_test(test_json__writes_strings_as_serde_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
