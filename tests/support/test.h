/* test.h - cmocka and the few helpers that the unit tests share. */
#ifndef MIXCKPT_TESTS_SUPPORT_TEST_H
#define MIXCKPT_TESTS_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/err.h"

/* Name the row of a table that is being checked: printed only if a check fails. */
void test_row(const char *name);

/* `text` must hold `part`. */
#define assert_text(text, part) test_assert_text(text, part, __FILE__, __LINE__)
void test_assert_text(const char *text, const char *part, const char *file, int line);

/* A call that must give MIX_OK; prints the words if it does not. */
#define assert_ok(call, err) test_assert_ok(call, err, #call, __FILE__, __LINE__)
void test_assert_ok(enum mix_rc rc, const struct mix_err *err, const char *call,
                    const char *file, int line);

/* A call that must give `want`; prints what it gave, and the words, if it does not. */
#define assert_rc(call, want, err) test_assert_rc(call, want, err, #call, __FILE__, __LINE__)
void test_assert_rc(enum mix_rc rc, enum mix_rc want, const struct mix_err *err,
                    const char *call, const char *file, int line);

#endif
