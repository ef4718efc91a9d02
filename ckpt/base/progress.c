/* progress.c - counters of a long job. They are only shown, so no order is needed. */
#include "ckpt/base/progress.h"

#include <stddef.h>

void mix_progress_total(struct mix_progress *progress, uint64_t bytes)
{
    if (progress)
        atomic_fetch_add_explicit(&progress->bytes_total, bytes, memory_order_relaxed);
}

void mix_progress_done(struct mix_progress *progress, uint64_t bytes)
{
    if (progress)
        atomic_fetch_add_explicit(&progress->bytes_done, bytes, memory_order_relaxed);
}

void mix_progress_resumed(struct mix_progress *progress, uint64_t bytes)
{
    if (!progress)
        return;
    atomic_fetch_add_explicit(&progress->bytes_resumed, bytes, memory_order_relaxed);
    mix_progress_done(progress, bytes);
}

void mix_progress_tick(struct mix_progress *progress)
{
    if (progress && progress->tick)
        progress->tick(progress->context);
}
