/* test.c - the few helpers that the unit tests share. */
#include "tests/support/test.h"

static const char *row = "";

void test_row(const char *name)
{
    row = name;
}

void test_assert_text(const char *text, const char *part, const char *file, int line)
{
    if (strstr(text, part))
        return;
    print_error("[%s] \"%s\" does not hold \"%s\"\n", row, text, part);
    _fail(file, line);
}

void test_assert_ok(enum mix_rc rc, const struct mix_err *err, const char *call,
                    const char *file, int line)
{
    if (rc == MIX_OK)
        return;
    print_error("[%s] %s: %s: %s\n", row, call, mix_rc_name(rc), err->text);
    _fail(file, line);
}

void test_assert_rc(enum mix_rc rc, enum mix_rc want, const struct mix_err *err,
                    const char *call, const char *file, int line)
{
    if (rc == want)
        return;
    print_error("[%s] %s: %s, not %s: %s\n", row, call, mix_rc_name(rc), mix_rc_name(want),
                rc ? err->text : "");
    _fail(file, line);
}
