/* The progress bar: its line, and when it is drawn at all. */
#include "cli/bar.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ckpt/base/progress.h"
#include "cli/cmd.h"
#include "cli/report.h"
#include "tests/support/capture.h"
#include "tests/support/test.h"

#define GB 1000000000ull

static const struct {
    uint64_t done, total, resumed;
    double seconds;
    int width;
    const char *line;
} lines[] = {
    { 39 * GB, 93 * GB, 0, 30, 79,
      "convert  [========             ]   41%  39.0 GB of 93.0 GB  1.3 GB/s  42 s left" },
    { 93 * GB, 93 * GB, 0, 100, 200,
      "convert  [==============================]  100%  93.0 GB of 93.0 GB  930.0 MB/s" },
    /* 100 % only at the end; no room for a picture; cut to the width */
    { 93 * GB - 1, 93 * GB, 0, 100, 50, "convert   99%  93.0 GB of 93.0 GB  930.0 MB/s  0.0" },
    { (1ull << 60) - 1, 1ull << 60, 0, 0, 40, "convert   99%  1.2 EB of 1.2 EB" }, /* rounds to 1 */
    /* what an earlier run did is no speed of this one */
    { 60 * GB, 93 * GB, 57 * GB, 3, 60,
      "convert   64%  60.0 GB of 93.0 GB  1.0 GB/s  33 s left" },
    { 57 * GB, 93 * GB, 57 * GB, 3, 40, "convert   61%  57.0 GB of 93.0 GB" },
    { 5 * GB, 0, 0, 5, 79, "convert  5.0 GB  1.0 GB/s" },
    { 0, 93 * GB, 0, 0, 40, "convert    0%  0 bytes of 93.0 GB" },
    { 99 * GB, 93 * GB, 0, 100, 40, "convert  100%  99.0 GB of 93.0 GB  990.0" },
    { UINT64_MAX, 1, 0, 1e-9, 40, "convert  100%  18.4 EB of 1 byte" },
    { 1, 2, 0, 1, 3, "con" },
};

static void test_bar__line_fits_its_width(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(lines); i++) {
        char line[256];

        cli_bar_line("convert", lines[i].done, lines[i].total, lines[i].resumed,
                     lines[i].seconds, lines[i].width, line, sizeof line);
        assert_string_equal(line, lines[i].line);
    }
}

/* A job of two ticks, and a warning in between, told to stderr. */
static void talk(const struct cli_common *common)
{
    struct mix_progress progress = MIX_PROGRESS_INIT;
    struct cli_bar bar;

    cli_bar_begin(&bar, common, "convert", &progress);
    mix_progress_total(&progress, 4 * GB);
    mix_progress_resumed(&progress, GB);
    mix_progress_tick(&progress);
    mix_progress_done(&progress, GB);
    mix_progress_tick(&progress); /* too early to draw again */
    cli_warn(common, "odd");
    usleep(MIX_PROGRESS_TICK_MS * 1000);
    mix_progress_tick(&progress);
    cli_bar_end(&bar);
    if (progress.tick) /* it would look at a bar that is gone */
        fprintf(stderr, "still ticking\n");
}

/* What talk() shows on a terminal of 40 columns. */
static const char *on_terminal(const struct cli_common *common, const char *term)
{
    static char text[4096];
    const struct winsize size = { .ws_row = 24, .ws_col = 40 };
    int master = posix_openpt(O_RDWR | O_NOCTTY), saved = dup(STDERR_FILENO);
    size_t used = 0;
    ssize_t len;

    assert_true(master >= 0 && saved >= 0);
    assert_int_equal(grantpt(master) || unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    assert_int_equal(ioctl(slave, TIOCSWINSZ, &size), 0);
    setenv("TERM", term, 1);
    dup2(slave, STDERR_FILENO);
    talk(common);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(slave); /* the last one: reading ends with EIO when all has been read */
    while ((len = read(master, text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)len;
    close(master);
    text[used] = '\0';
    return text;
}

static void test_bar__is_drawn_on_a_terminal_and_erased(void **state)
{
    const struct cli_common talks = CLI_COMMON_INIT;

    (void)state;
    const char *shown = on_terminal(&talks, "xterm");
    /* Drawn twice, a warning between, and nothing left at the end. */
    assert_text(shown, "\r\033[Kconvert   25%  1.0 GB of 4.0 GB"
                       "\r\033[Kmixckpt: warning: odd\r\n"
                       "\r\033[Kconvert   50%  2.0 GB of 4.0 GB");
    assert_string_equal(shown + strlen(shown) - strlen("\r\033[K"), "\r\033[K");
}

static void test_bar__needs_a_terminal_and_leave_to_talk(void **state)
{
    const struct cli_common talks = CLI_COMMON_INIT, quiet = { .quiet = true },
                            json = { .json = true };

    (void)state;
    assert_string_equal(on_terminal(&quiet, "xterm"), "");
    assert_string_equal(on_terminal(&json, "xterm"), "mixckpt: warning: odd\r\n");
    assert_string_equal(on_terminal(&talks, "dumb"), "mixckpt: warning: odd\r\n");
    setenv("TERM", "xterm", 1);
    test_capture_begin(STDERR_FILENO);
    talk(&talks);
    assert_string_equal(test_capture_end(STDERR_FILENO), "mixckpt: warning: odd\n");
}

static void *feed(void *context)
{
    for (int i = 0; i < 100000; i++) {
        mix_progress_total(context, 3);
        mix_progress_done(context, 2);
        mix_progress_resumed(context, 1);
    }
    return NULL;
}

static void test_bar__counters_lose_nothing_between_threads(void **state)
{
    struct mix_progress progress = MIX_PROGRESS_INIT;
    pthread_t thread[4];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, feed, &progress), 0);
    for (size_t i = 0; i < MIX_ARRAY_LEN(thread); i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(progress.bytes_total, 1200000);
    assert_int_equal(progress.bytes_done, 1200000);
    assert_int_equal(progress.bytes_resumed, 400000);
    mix_progress_total(NULL, 1); /* a job that nobody watches */
    mix_progress_done(NULL, 1);
    mix_progress_resumed(NULL, 1);
    mix_progress_tick(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar__line_fits_its_width),
        cmocka_unit_test(test_bar__is_drawn_on_a_terminal_and_erased),
        cmocka_unit_test(test_bar__needs_a_terminal_and_leave_to_talk),
        cmocka_unit_test(test_bar__counters_lose_nothing_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
