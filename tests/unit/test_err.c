/* Errors: the code and the words that people meet, whatever a hostile name holds. */
#include "ckpt/base/err.h"

#include <errno.h>

#include "tests/support/test.h"

static void test_err__fail_forgets_what_stood_there(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    mix_fail(&err, MIX_IO, "first");
    mix_err_file(&err, "f");
    mix_err_tensor(&err, "t", 3, 9);
    assert_int_equal(mix_fail(&err, MIX_CORRUPT, "byte %d of %s", 7, "x"), MIX_CORRUPT);
    assert_int_equal(err.rc, MIX_CORRUPT);
    assert_string_equal(err.text, "byte 7 of x");
    assert_string_equal(err.file, "");
    assert_string_equal(err.tensor, "");
    assert_false(err.has_range);
}

static void test_err__errno_is_put_in_words(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    errno = ENOSPC;
    assert_int_equal(mix_fail_errno(&err, "%s: cannot write", "a"), MIX_IO);
    assert_string_equal(err.text, "a: cannot write: No space left on device");
    errno = EIO;
    assert_int_equal(mix_fail_errno(NULL, "nobody listens"), MIX_IO);
}

static void test_err__says_where_in_front(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    mix_fail(&err, MIX_HOLE, "what");
    mix_err_tensor(&err, "t", 3, 9);
    assert_int_equal(mix_err_at(&err, "tensor '%s'", "t"), MIX_HOLE);
    assert_int_equal(mix_err_file(&err, "inner"), MIX_HOLE);
    assert_int_equal(mix_err_file(&err, "outer"), MIX_HOLE);
    assert_string_equal(err.text, "outer: inner: tensor 't': what");
    assert_string_equal(err.file, "inner"); /* the one nearest to the fault */
    assert_string_equal(err.tensor, "t");
    assert_true(err.has_range && err.begin == 3 && err.end == 9);
}

/* Whatever a name holds, the message is one line that a terminal can show. */
static void test_err__words_are_one_line(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    mix_fail(&err, MIX_IO, "a\nb\x1b[31m\x7f\tc\xc3\xa9");
    assert_string_equal(err.text, "a?b?[31m??c\xc3\xa9");
    mix_err_at(&err, "x\ry");
    mix_err_file(&err, "p\nq");
    assert_string_equal(err.text, "p?q: x?y: a?b?[31m??c\xc3\xa9");
}

static void test_err__long_words_are_cut_at_the_end(void **state)
{
    struct mix_err err = { 0 };
    char name[3000];

    (void)state;
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    for (size_t len = sizeof err.text - 3; len < sizeof err.text + 3; len++) {
        mix_fail(&err, MIX_IO, "%.*s", (int)len, name);
        assert_int_equal(strlen(err.text),
                         len < sizeof err.text ? len : sizeof err.text - 1);
        mix_err_at(&err, "where");
        assert_int_equal(strlen(err.text), sizeof err.text - 1);
        assert_memory_equal(err.text, "where: nnn", 10);
    }
    mix_err_at(&err, "%s", name);
    mix_err_file(&err, name);
    mix_err_tensor(&err, name, 0, 1);
    errno = EIO;
    mix_fail_errno(&err, "%s", name);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    mix_err_file(&err, name);
    assert_int_equal(strlen(err.file), sizeof err.file - 1);
}

/* Who passes no words still learns that something failed. */
static void test_err__null_still_fails(void **state)
{
    (void)state;
    assert_int_equal(mix_fail(NULL, MIX_TRUNCATED, "x"), MIX_TRUNCATED);
    assert_int_not_equal(mix_err_at(NULL, "x"), MIX_OK);
    assert_int_not_equal(mix_err_file(NULL, "x"), MIX_OK);
    assert_int_not_equal(mix_err_tensor(NULL, "x", 0, 1), MIX_OK);
}

static void test_err__each_code_has_its_own_name(void **state)
{
    (void)state;
    for (int a = MIX_OK; a <= MIX_INTERRUPTED; a++) {
        assert_true(*mix_rc_name((enum mix_rc)a));
        for (int b = MIX_OK; b < a; b++)
            assert_string_not_equal(mix_rc_name((enum mix_rc)a), mix_rc_name((enum mix_rc)b));
    }
    assert_string_equal(mix_rc_name(MIX_BAD_FORMAT), "bad-format");
    assert_string_equal(mix_rc_name((enum mix_rc)(MIX_INTERRUPTED + 1)), "unknown");
    assert_string_equal(mix_rc_name((enum mix_rc)-1), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err__fail_forgets_what_stood_there),
        cmocka_unit_test(test_err__errno_is_put_in_words),
        cmocka_unit_test(test_err__says_where_in_front),
        cmocka_unit_test(test_err__words_are_one_line),
        cmocka_unit_test(test_err__long_words_are_cut_at_the_end),
        cmocka_unit_test(test_err__null_still_fails),
        cmocka_unit_test(test_err__each_code_has_its_own_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
