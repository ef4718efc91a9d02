/* What commands print: JSON, errors, warnings, words for people, columns. */
#include "cli/report.h"

#include <math.h>
#include <signal.h>
#include <unistd.h>

#include "ckpt/base/cancel.h"
#include "cli/cmd.h"
#include "tests/support/capture.h"
#include "tests/support/test.h"

/* Must run first: later documents of this process are not errors. */
static void test_report__prints_one_error_document(void **state)
{
    const struct cli_common common = { .json = true, .quiet = true };
    struct mix_err err = { 0 };
    const char *out, *said;
    int code;

    (void)state;
    mix_fail(&err, MIX_CORRUPT, "leaf 3 differs");
    mix_err_tensor(&err, "w", 196608, UINT64_MAX);
    mix_err_file(&err, "model/a\"b\xff.h5");
    test_capture_begin(STDOUT_FILENO);
    test_capture_begin(STDERR_FILENO);
    code = cli_failed(&common, &err);
    said = test_capture_end(STDERR_FILENO);
    out = test_capture_end(STDOUT_FILENO);
    assert_string_equal(said, "mixckpt: model/a\"b\xff.h5: leaf 3 differs\n");
    assert_string_equal(out, "{\"error\":{\"kind\":\"corrupt\","
                             "\"message\":\"model/a\\\"b\xef\xbf\xbd.h5: leaf 3 differs\","
                             "\"file\":\"model/a\\\"b\xef\xbf\xbd.h5\",\"tensor\":\"w\","
                             "\"begin\":196608,\"end\":18446744073709551615}}\n");
    assert_int_equal(code, CLI_FAILED);

    /* A second document would make the first one unreadable. */
    test_capture_begin(STDOUT_FILENO);
    test_capture_begin(STDERR_FILENO);
    cli_failed(&common, &err);
    test_capture_end(STDERR_FILENO);
    assert_string_equal(test_capture_end(STDOUT_FILENO), "");
}

static int quiet_code(enum mix_rc rc)
{
    const struct cli_common common = CLI_COMMON_INIT;
    struct mix_err err = { 0 };
    int code;

    mix_fail(&err, rc, "words");
    test_capture_begin(STDERR_FILENO);
    code = cli_failed(&common, &err);
    test_capture_end(STDERR_FILENO);
    return code;
}

static void test_report__errors_have_exit_codes(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    assert_int_equal(quiet_code(MIX_IO), CLI_FAILED);
    assert_int_equal(quiet_code(MIX_BAD_FORMAT), CLI_FAILED);
    assert_int_equal(quiet_code(MIX_EXISTS), CLI_FAILED);
    assert_int_equal(quiet_code(MIX_USAGE), CLI_USAGE);
    assert_ok(mix_cancel_install(MIX_CANCEL_ASK, &err), &err);
    raise(SIGTERM);
    assert_int_equal(quiet_code(MIX_INTERRUPTED), CLI_TERMINATED);
    mix_cancel_reset();
    raise(SIGINT);
    assert_int_equal(quiet_code(MIX_INTERRUPTED), CLI_INTERRUPTED);
    mix_cancel_reset();
}

static void test_report__quiet_silences_warnings_and_notes(void **state)
{
    const struct cli_common talks = CLI_COMMON_INIT, quiet = { .quiet = true };

    (void)state;
    test_capture_begin(STDERR_FILENO);
    cli_warn(&quiet, "not %d", 1);
    cli_note(&quiet, "not %d", 2);
    cli_warn(&talks, "a%sb", "\033[2J\n");
    cli_note(&talks, "read %d", 3);
    assert_string_equal(test_capture_end(STDERR_FILENO),
                        "mixckpt: warning: a?[2J?b\nmixckpt: read 3\n");
}

static void test_report__json_nests_and_separates(void **state)
{
    static const unsigned char bytes[] = { 0x00, 0xaf, 0x10 };
    struct cli_json json = CLI_JSON_INIT;

    (void)state;
    test_capture_begin(STDOUT_FILENO);
    cli_json_begin_object(&json, NULL);
    cli_json_begin_array(&json, "empty");
    cli_json_end_array(&json);
    cli_json_begin_array(&json, "list");
    cli_json_u64(&json, NULL, UINT64_MAX);
    cli_json_i64(&json, NULL, INT64_MIN);
    cli_json_begin_object(&json, NULL);
    cli_json_end_object(&json);
    cli_json_begin_object(&json, NULL);
    cli_json_bool(&json, "yes", true);
    cli_json_bool(&json, "no", false);
    cli_json_end_object(&json);
    cli_json_end_array(&json);
    cli_json_null(&json, "nothing");
    cli_json_string(&json, "none", NULL);
    cli_json_hex(&json, "hex", bytes, sizeof bytes);
    cli_json_end_object(&json);
    assert_string_equal(test_capture_end(STDOUT_FILENO),
                        "{\"empty\":[],\"list\":[18446744073709551615,-9223372036854775808,{},"
                        "{\"yes\":true,\"no\":false}],\"nothing\":null,\"none\":null,"
                        "\"hex\":\"00af10\"}\n");
}

static const struct {
    const char *text, *json;
} strings[] = {
    { "", "\"\"\n" },
    { "plain", "\"plain\"\n" },
    { "\"\\/\b\f\n\r\t\x01\x1f\x7f", "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"\n" },
    { "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", /* two, three, four bytes */
      "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"\n" },
    { "\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\"\n" },                     /* U+10FFFF */
    { "a\xff", "\"a\xef\xbf\xbd\"\n" },                                   /* never legal */
    { "\x80z", "\"\xef\xbf\xbdz\"\n" },                                   /* no beginning */
    { "\xc3", "\"\xef\xbf\xbd\"\n" },                                     /* cut short */
    { "\xe2\x82\"", "\"\xef\xbf\xbd\xef\xbf\xbd\\\"\"\n" },               /* cut by a quote */
    { "\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\"\n" },                     /* overlong '/' */
    { "\xe0\x80\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"\n" },
    { "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"\n" },     /* a surrogate */
    { "\xf0\x80\x80\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"\n" },
    { "\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"\n" },
};

static void test_report__json_strings_are_valid(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(strings); i++) {
        struct cli_json json = CLI_JSON_INIT;

        test_capture_begin(STDOUT_FILENO);
        cli_json_string(&json, NULL, strings[i].text);
        assert_string_equal(test_capture_end(STDOUT_FILENO), strings[i].json);
    }
}

static const struct {
    double value;
    const char *json;
} doubles[] = {
    { 0, "0\n" },
    { 0.1, "0.1\n" },
    { -1.5, "-1.5\n" },
    { 0.1 + 0.2, "0.30000000000000004\n" },
    { 1e300, "1e+300\n" },
    { 5e-324, "5e-324\n" },
    { 1.7976931348623157e308, "1.7976931348623157e+308\n" },
    { NAN, "null\n" },
    { INFINITY, "null\n" },
};

static void test_report__json_doubles_are_short_and_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(doubles); i++) {
        struct cli_json json = CLI_JSON_INIT;

        test_capture_begin(STDOUT_FILENO);
        cli_json_double(&json, NULL, doubles[i].value);
        assert_string_equal(test_capture_end(STDOUT_FILENO), doubles[i].json);
    }
}

static void test_report__words_for_people(void **state)
{
    char text[CLI_TEXT];

    (void)state;
    assert_string_equal(cli_bytes_text(0, text), "0 bytes");
    assert_string_equal(cli_bytes_text(1, text), "1 byte");
    assert_string_equal(cli_bytes_text(999, text), "999 bytes");
    assert_string_equal(cli_bytes_text(1000, text), "1.0 KB");
    assert_string_equal(cli_bytes_text(999949, text), "999.9 KB");
    assert_string_equal(cli_bytes_text(999950, text), "1.0 MB"); /* not "1000.0 KB" */
    assert_string_equal(cli_bytes_text(93405714976, text), "93.4 GB");
    assert_string_equal(cli_bytes_text(UINT64_MAX, text), "18.4 EB");

    assert_string_equal(cli_count_text(0, text), "0");
    assert_string_equal(cli_count_text(999, text), "999");
    assert_string_equal(cli_count_text(1000, text), "1,000");
    assert_string_equal(cli_count_text(93405714976, text), "93,405,714,976");
    assert_string_equal(cli_count_text(UINT64_MAX, text), "18,446,744,073,709,551,615");

    assert_string_equal(cli_seconds_text(-1, text), "0.00 s");
    assert_string_equal(cli_seconds_text(0.418, text), "0.42 s");
    assert_string_equal(cli_seconds_text(9.996, text), "10 s");
    assert_string_equal(cli_seconds_text(59.6, text), "1:00");
    assert_string_equal(cli_seconds_text(125, text), "2:05");
    assert_string_equal(cli_seconds_text(3725, text), "1:02:05");
    assert_string_equal(cli_seconds_text(1e300, text), "277777:46:40");
}

static void test_report__columns_are_aligned(void **state)
{
    static const struct cli_column column[] = { { "name", 6 }, { "bytes", 7, true }, { "file" } };
    static const char *const row[][3] = {
        { "w", "4,096", "a.h5" },
        { "\xc3\xa9t\xc3\xa9", "1", "b\x1b[2J" }, /* three characters in five bytes */
        { "too-wide", "12345678", "c" },
    };

    (void)state;
    test_capture_begin(STDOUT_FILENO);
    cli_columns_title(column, MIX_ARRAY_LEN(column));
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++)
        cli_columns_row(column, MIX_ARRAY_LEN(column), row[i]);
    assert_string_equal(test_capture_end(STDOUT_FILENO), "name      bytes  file\n"
                                                         "w         4,096  a.h5\n"
                                                         "\xc3\xa9t\xc3\xa9           1  b?[2J\n"
                                                         "too-wide  12345678  c\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report__prints_one_error_document),
        cmocka_unit_test(test_report__errors_have_exit_codes),
        cmocka_unit_test(test_report__quiet_silences_warnings_and_notes),
        cmocka_unit_test(test_report__json_nests_and_separates),
        cmocka_unit_test(test_report__json_strings_are_valid),
        cmocka_unit_test(test_report__json_doubles_are_short_and_exact),
        cmocka_unit_test(test_report__words_for_people),
        cmocka_unit_test(test_report__columns_are_aligned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
