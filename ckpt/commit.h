/*
 * commit.h - the one door out: how a new checkpoint comes to be, whole or not at all.
 *
 *   <dst>.partial/            what is being made, under its final names
 *   <dst>.partial/job/        job.json           which job this is
 *                             worker-00000.journal   slices that are done, and durable
 *                             worker-00000.digests   leaf hashes at their final places
 *                             worker-00000.status    a sign of life, or of failure
 *
 * Publishing: job/ is moved out to <dst>.partial.job, <dst>.partial is renamed to <dst>
 * (an old one there goes to <dst>.partial or <dst>.old), what is left of the old one and
 * <dst>.partial.job are removed. Killed between any two system calls, the same command
 * goes on: from the journals, or with what is left to rename and to remove.
 *
 * Each file is written by one process only: job.json and all that is published by
 * worker 0, data files by the worker whose share they are, the rest by its owner.
 */
#ifndef MIXCKPT_CKPT_COMMIT_H
#define MIXCKPT_CKPT_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"
#include "ckpt/stream.h"

struct mix_progress;

struct mix_commit_options {
    bool force;          /* replace what stands at dst; drop another job's partial */
    bool sync;           /* fsync what is done; without, a lost node may lose it */
    unsigned worker, worker_count;
    uint64_t wait_ms;    /* worker 0 gives up on the others after so long without progress */
};

struct mix_commit; /* one process's part of the job */

/*
 * `src` is the path of a local source that dst must not touch, or NULL. `identity` is a
 * text that is the same for the same job (sources and options) and only for it.
 *
 *   MIX_USAGE    src and dst are the same, or one lies in the other
 *   MIX_EXISTS   dst is not empty, or <dst>.partial is another job's (without force)
 */
enum mix_rc mix_commit_begin(const char *dst, const char *src, const char *identity,
                             const struct mix_commit_options *options,
                             struct mix_commit **out, struct mix_err *err);

/* "<dst>.partial/name", in `out`. The folders that it needs are made. */
enum mix_rc mix_commit_path(struct mix_commit *commit, const char *name, struct mix_buf *out,
                            struct mix_err *err);

/* The sums of a slice that an earlier run finished, or NULL. Lives until the end. */
const struct mix_file_sum *mix_commit_done(const struct mix_commit *commit, size_t group,
                                           size_t slice, size_t file_count);

/* The same question without the sums; and whether an earlier run had begun the job. */
bool mix_commit_has(const struct mix_commit *commit, size_t group, size_t slice);
bool mix_commit_is_resumed(const struct mix_commit *commit);
/*
 * An earlier run was killed after the last rename: the checkpoint is there, and what is
 * left is to read the leaves, if they are wanted, and mix_commit_publish().
 */
bool mix_commit_is_published(const struct mix_commit *commit);

/* Hashes of leaves `first`, ... of the whole checkpoint, kept until the journal has them. */
enum mix_rc mix_commit_leaves(struct mix_commit *commit, uint64_t first,
                              const unsigned char *hash, size_t count, struct mix_err *err);

/* A slice is written: mix_commit_tend() will make it durable and note it in the journal. */
enum mix_rc mix_commit_slice(struct mix_commit *commit, size_t group, size_t slice,
                             const struct mix_group *files, const struct mix_file_sum *sum,
                             struct mix_err *err);
/*
 * Called now and then by the main thread: notes what is written, so that threads never
 * wait for the disk, and shows the other workers how far this one is (`mark` is any
 * number that grows). A failure is returned by the next mix_commit_slice() or _flush().
 */
void mix_commit_tend(struct mix_commit *commit, uint64_t mark);

/* Note all that is not noted yet. */
enum mix_rc mix_commit_flush(struct mix_commit *commit, struct mix_err *err);

/*
 * Worker 0: wait until is_complete() says that the journals, read again, hold all that
 * was to be done; fail if another worker failed or shows no progress. Others: wait until
 * worker 0 has published, or failed.
 */
enum mix_rc mix_commit_wait(struct mix_commit *commit,
                            bool (*is_complete)(void *context, const char **missing),
                            void *context, struct mix_progress *progress,
                            struct mix_err *err);

/*
 * Worker 0, after the wait: hashes [first, first + count) of the whole checkpoint, from
 * whichever worker made them.
 */
enum mix_rc mix_commit_read_leaves(struct mix_commit *commit, uint64_t first, size_t count,
                                   unsigned char *hash, struct mix_err *err);

/* Worker 0: everything is written; make it durable and let it exist, and tidy up. */
enum mix_rc mix_commit_publish(struct mix_commit *commit, struct mix_err *err);

/*
 * End of a job, however it went: `rc` is how. A fault of the input removes what this
 * process may remove; anything else keeps it for the next try. Accepts NULL.
 */
void mix_commit_end(struct mix_commit *commit, enum mix_rc rc, const struct mix_err *why);

#endif
