/* bar.c - one line on stderr, drawn over itself. */
#include "cli/bar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ckpt/base/progress.h"
#include "cli/cmd.h"
#include "cli/report.h"

/* To the first column, and erase to the end of the line: every terminal since the VT100. */
#define ERASE "\r\033[K"

static bool drawn; /* a bar stands in the last line of the terminal */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col)
        return 80;
    return size.ws_col;
}

static bool terminal_can_erase(void)
{
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

/* 100 only when everything is done. */
static int percent(uint64_t done, uint64_t total)
{
    int value;

    if (done >= total) /* also when the file grew: the quotient need not fit an int */
        return 100;
    value = (int)((double)done / (double)total * 100);
    return value > 99 ? 99 : value;
}

/* "  42%  39.2 GB of 93.4 GB  1.2 GB/s  0:45 left"; without a total, no more than is known. */
static void numbers(uint64_t done, uint64_t total, uint64_t resumed, double seconds,
                    char *out, size_t out_bytes)
{
    char is[CLI_TEXT], all[CLI_TEXT], each[CLI_TEXT], left[CLI_TEXT];
    /* What an earlier run did says nothing of this run's speed. */
    double rate = seconds > 0 && done > resumed ? (double)(done - resumed) / seconds : 0;
    size_t used;

    cli_bytes_text(done, is);
    if (total)
        snprintf(out, out_bytes, "%3d%%  %s of %s", percent(done, total), is,
                 cli_bytes_text(total, all));
    else
        snprintf(out, out_bytes, "%s", is);
    if (rate < 1 || rate > 1e18) /* nothing yet, or no number to believe */
        return;
    used = strlen(out);
    snprintf(out + used, out_bytes - used, "  %s/s", cli_bytes_text((uint64_t)rate, each));
    if (total <= done)
        return;
    used = strlen(out);
    cli_seconds_text((double)(total - done) / rate, left);
    snprintf(out + used, out_bytes - used, "  %s left", left);
}

void cli_bar_line(const char *title, uint64_t bytes_done, uint64_t bytes_total,
                  uint64_t bytes_resumed, double seconds, int width, char *out,
                  size_t out_bytes)
{
    enum { SMALLEST = 8, LARGEST = 30 };
    char tail[5 * CLI_TEXT], picture[LARGEST + 1];
    int cells, filled;

    numbers(bytes_done, bytes_total, bytes_resumed, seconds, tail, sizeof tail);
    cells = width - (int)strlen(title) - (int)strlen(tail) - 6; /* "  [" "]  " */
    if (cells > LARGEST)
        cells = LARGEST;
    if (bytes_total && cells >= SMALLEST) {
        filled = percent(bytes_done, bytes_total) * cells / 100;
        memset(picture, ' ', (size_t)cells);
        memset(picture, '=', (size_t)filled);
        picture[cells] = '\0';
        snprintf(out, out_bytes, "%s  [%s]  %s", title, picture, tail);
    } else {
        snprintf(out, out_bytes, "%s  %s", title, tail);
    }
    if (width >= 0 && (size_t)width < out_bytes)
        out[width] = '\0'; /* a line that wraps cannot be erased */
}

void cli_bar_begin(struct cli_bar *bar, const struct cli_common *common, const char *title,
                   struct mix_progress *progress)
{
    *bar = (struct cli_bar){ .progress = progress, .title = title, .begin_ns = now_ns() };
    bar->on = !common->quiet && !common->json && terminal_can_erase();
    if (bar->on) {
        progress->tick = cli_bar_tick;
        progress->context = bar;
    }
}

void cli_bar_tick(void *context)
{
    struct cli_bar *bar = context;
    uint64_t now = now_ns();
    char line[256];

    if (!bar->on || (bar->drawn_ns && now - bar->drawn_ns < MIX_PROGRESS_TICK_MS * 1000000ull))
        return;
    bar->drawn_ns = now;
    cli_bar_line(bar->title, bar->progress->bytes_done, bar->progress->bytes_total,
                 bar->progress->bytes_resumed, (double)(now - bar->begin_ns) / 1e9,
                 terminal_width() - 1, line, sizeof line);
    fprintf(stderr, ERASE "%s", line);
    drawn = true;
}

void cli_bar_hide(void)
{
    if (drawn)
        fputs(ERASE, stderr);
    drawn = false;
}

void cli_bar_end(struct cli_bar *bar)
{
    cli_bar_hide();
    if (bar->on)
        bar->progress->tick = NULL;
    bar->on = false;
}
