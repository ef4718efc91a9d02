/*
 * progress.h - how far a long job is: counters that its threads feed, and a callback
 * with which its main thread lets somebody look at them. Every function accepts NULL
 * for a job that nobody watches.
 */
#ifndef MIXCKPT_CKPT_BASE_PROGRESS_H
#define MIXCKPT_CKPT_BASE_PROGRESS_H

#include <stdatomic.h>
#include <stdint.h>

struct mix_progress {
    _Atomic uint64_t bytes_total;   /* of the whole job; 0 while unknown */
    _Atomic uint64_t bytes_done;    /* those of an earlier run included */
    _Atomic uint64_t bytes_resumed; /* the part of bytes_done that an earlier run did */
    void (*tick)(void *context);    /* may be NULL */
    void *context;
};
#define MIX_PROGRESS_INIT { .tick = NULL }

/* Add to a counter; from any thread. */
void mix_progress_total(struct mix_progress *progress, uint64_t bytes);
void mix_progress_done(struct mix_progress *progress, uint64_t bytes);
void mix_progress_resumed(struct mix_progress *progress, uint64_t bytes); /* done earlier */

/* Call tick: from the main thread only, about every MIX_PROGRESS_TICK_MS. */
enum { MIX_PROGRESS_TICK_MS = 50 };
void mix_progress_tick(struct mix_progress *progress);

#endif
