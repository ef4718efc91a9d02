/*
 * bar.h - the progress bar: one line on stderr that is drawn over itself, and erased
 * at the end. Only on a terminal, and neither with --quiet nor with --json; otherwise
 * all of this does nothing. For the main thread only.
 *
 *   struct mix_progress progress = MIX_PROGRESS_INIT;
 *   struct cli_bar bar;
 *
 *   cli_bar_begin(&bar, &common, "convert", &progress);   sets progress.tick
 *   rc = mix_convert(..., &progress, &err);               calls mix_progress_tick()
 *   cli_bar_end(&bar);
 */
#ifndef MIXCKPT_CLI_BAR_H
#define MIXCKPT_CLI_BAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_common;
struct mix_progress;

struct cli_bar {
    struct mix_progress *progress;
    const char *title;
    bool on;
    uint64_t begin_ns, drawn_ns; /* monotonic; drawn_ns 0: not yet */
};

void cli_bar_begin(struct cli_bar *bar, const struct cli_common *common, const char *title,
                   struct mix_progress *progress);
void cli_bar_tick(void *bar); /* draws, unless it did so less than 200 ms ago */
void cli_bar_end(struct cli_bar *bar);

/* Erase the bar, if one is drawn, before other words go to stderr. */
void cli_bar_hide(void);

/* What a bar looks like `seconds` after its begin, in at most `width` columns. */
void cli_bar_line(const char *title, uint64_t bytes_done, uint64_t bytes_total,
                  uint64_t bytes_resumed, double seconds, int width, char *out,
                  size_t out_bytes);

#endif
