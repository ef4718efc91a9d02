/*
 * walk.h - all groups of a job, by a few threads.
 *
 * A thread takes the slices of one group after the other, so that threads write
 * different files while there are enough of them (two threads in one file are half as
 * fast), and help each other with the last large one. The caller's thread waits, lets
 * the progress be shown, and returns the first error.
 */
#ifndef MIXCKPT_CKPT_WALK_H
#define MIXCKPT_CKPT_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/stream.h"

struct mix_progress;

/* What a thread works with; made and unmade by the job's functions below. */
struct mix_walk_thread {
    struct mix_source source;
    struct mix_sink sink;
    void *own; /* the job's */
};

struct mix_walk {
    void *context;               /* first argument of the functions below */
    const struct mix_ckpt_tensor *tensor; /* the list that items speak of */
    size_t group_count;
    unsigned jobs;               /* threads; at least 1 */
    bool with_crc;
    struct mix_progress *progress; /* may be NULL */

    enum mix_rc (*thread_begin)(void *context, struct mix_walk_thread *thread,
                                struct mix_err *err);
    void (*thread_end)(void *context, struct mix_walk_thread *thread);

    /* Fill an empty group. May leave it without items: then nothing more happens to it. */
    enum mix_rc (*build)(void *context, struct mix_walk_thread *thread, size_t g,
                         struct mix_group *group, struct mix_err *err);
    /* True if an earlier run did this slice. May be NULL. */
    bool (*is_done)(void *context, size_t g, size_t slice);
    /* After a slice; sum has one element a file of the group. */
    enum mix_rc (*slice_end)(void *context, struct mix_walk_thread *thread, size_t g,
                             const struct mix_group *group, size_t slice,
                             const struct mix_file_sum *sum, struct mix_err *err);
    /* After the last slice of a group; also called for a group whose slices were all done. */
    enum mix_rc (*group_end)(void *context, struct mix_walk_thread *thread, size_t g,
                             struct mix_group *group, struct mix_err *err);
};

/* Do groups first, first + 1, ... first + count - 1. Returns the first error. */
enum mix_rc mix_walk_run(const struct mix_walk *walk, size_t first, size_t count,
                         struct mix_err *err);

/*
 * Groups [*first, *first + *count) of all that have these sizes are worker i's of n:
 * neighbours, about as many bytes for each. It follows from its arguments alone.
 */
void mix_walk_share(const uint64_t *group_bytes, size_t group_count, unsigned i, unsigned n,
                    size_t *first, size_t *count);

#endif
