/*
 * run.h - a job under way: what execute.c (walk the bytes) and describe.c (write what
 * describes the whole) share.
 */
#ifndef MIXCKPT_RESHARD_RUN_H
#define MIXCKPT_RESHARD_RUN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/commit.h"
#include "ckpt/store/store.h"
#include "reshard/execute.h"

struct mix_run {
    const struct mix_job *job;
    struct mix_target target;
    uint32_t *source_tensor;      /* tensor of the target -> tensor of the source */
    struct mix_stat *stamp;       /* size and time of each source file, before it is read */
    struct mix_commit *commit;
    struct mix_job_result *result;
    _Atomic uint64_t bytes_read, bytes_written, bytes_resumed, overflowed;

    /* Worker 0, for the end: */
    uint32_t *slice_count, *file_count; /* of each group */
    uint64_t *piece_offset;       /* by piece, as mixckpt.pieces wants them */
    uint32_t *piece_file;
    struct mix_ckpt_side *side;   /* what was written beside the shards */
    size_t side_count, side_capacity;
};

/* The tensors of the source. */
const struct mix_manifest *mix_run_source(const struct mix_job *job);

/* The tensor of the source whose leaves are those of a target's tensor, if it says them. */
const struct mix_ckpt_tensor *mix_run_said_by_source(const struct mix_run *run, size_t tensor);

/*
 * Worker 0, before it waits for the others: how many slices each group has. Then, as
 * mix_commit_wait() asks it: are all of them in the journals? If not, whose are missing.
 */
enum mix_rc mix_run_count_slices(struct mix_run *run, struct mix_err *err);
bool mix_run_is_complete(void *run, const char **missing);

/*
 * Worker 0, when all slices are done: the digests of all tensors, from the leaves of all
 * workers, compared with what the source promises; with `write`, mixckpt.digests too.
 */
enum mix_rc mix_run_digests(struct mix_run *run, bool write, struct mix_err *err);

/* Then: all files of the new checkpoint but the weights and mixckpt.digests. */
enum mix_rc mix_run_describe(struct mix_run *run, struct mix_err *err);

#endif
