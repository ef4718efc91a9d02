/* Signals: the first sets the flag, the second ends the process, some are ignored. */
#include "ckpt/base/cancel.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"

/* The status of a child that installs the handlers and then gets these signals. */
static int status_after(enum mix_cancel_mode mode, int first, int second)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        if (mix_cancel_install(mode, NULL))
            _exit(1);
        raise(first);
        if (second)
            raise(second);
        _exit(mix_cancel_requested() ? mix_cancel_signal() : 0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_cancel__first_signal_sets_the_flag(void **state)
{
    (void)state;
    assert_int_equal(status_after(MIX_CANCEL_ASK, SIGINT, 0), SIGINT);
    assert_int_equal(status_after(MIX_CANCEL_ASK, SIGTERM, 0), SIGTERM);
    assert_int_equal(status_after(MIX_CANCEL_ASK, SIGINT, SIGTERM), SIGINT); /* the first */
    assert_int_equal(status_after(MIX_CANCEL_ASK, SIGTERM, SIGTERM), SIGTERM);
}

static void test_cancel__second_interrupt_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(status_after(MIX_CANCEL_ASK, SIGINT, SIGINT), 130);
    assert_int_equal(status_after(MIX_CANCEL_ASK, SIGTERM, SIGINT), 130);
}

static void test_cancel__at_once_ends_with_the_first(void **state)
{
    (void)state;
    assert_int_equal(status_after(MIX_CANCEL_AT_ONCE, SIGINT, 0), 130);
    assert_int_equal(status_after(MIX_CANCEL_AT_ONCE, SIGTERM, 0), 143);
}

static void test_cancel__check_says_which_signal(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_cancel_install(MIX_CANCEL_ASK, &err), &err);
    assert_ok(mix_cancel_check(&err), &err);
    raise(SIGTERM);
    assert_int_equal(mix_cancel_check(&err), MIX_INTERRUPTED);
    assert_text(err.text, "SIGTERM");
    mix_cancel_reset();
    assert_false(mix_cancel_requested());
    raise(SIGINT);
    assert_int_equal(mix_cancel_check(&err), MIX_INTERRUPTED);
    assert_text(err.text, "SIGINT");
    mix_cancel_reset();
}

static void test_cancel__blocked_read_comes_back(void **state)
{
    int ends[2];
    char byte;
    struct mix_err err = { 0 };
    pid_t parent = getpid(), child;

    (void)state;
    assert_ok(mix_cancel_install(MIX_CANCEL_ASK, &err), &err);
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) { /* more than one: the first may come before the read begins */
        for (int i = 0; i < 50 && getppid() == parent; i++) {
            usleep(20000);
            kill(parent, SIGTERM);
        }
        if (write(ends[1], "x", 1) != 1) /* let it go on, to fail */
            _exit(1);
        _exit(0);
    }
    assert_true(child > 0);
    ssize_t got = read(ends[0], &byte, 1);
    int number = errno;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
    mix_cancel_reset();
    assert_int_equal(got, -1);
    assert_int_equal(number, EINTR);
}

static void test_cancel__broken_pipe_and_file_limit_are_errors(void **state)
{
    const struct rlimit small = { 10, 10 };
    char path[] = "/tmp/mixckpt-limit-XXXXXX";
    int ends[2], status, file = mkstemp(path);
    pid_t child;

    (void)state;
    assert_true(file >= 0);
    unlink(path);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    child = fork();
    if (child == 0) {
        if (mix_cancel_install(MIX_CANCEL_ASK, NULL) || setrlimit(RLIMIT_FSIZE, &small))
            _exit(1);
        if (write(ends[1], "x", 1) != -1 || errno != EPIPE)
            _exit(2);
        if (pwrite(file, "x", 1, 10) != -1 || errno != EFBIG)
            _exit(3);
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[1]);
    close(file);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel__first_signal_sets_the_flag),
        cmocka_unit_test(test_cancel__second_interrupt_ends_the_process),
        cmocka_unit_test(test_cancel__at_once_ends_with_the_first),
        cmocka_unit_test(test_cancel__check_says_which_signal),
        cmocka_unit_test(test_cancel__blocked_read_comes_back),
        cmocka_unit_test(test_cancel__broken_pipe_and_file_limit_are_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
