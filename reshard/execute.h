/*
 * execute.h - do a job: make a new checkpoint from a source, in bounded memory, alone or
 * as one of many workers, beginning or going on.
 */
#ifndef MIXCKPT_RESHARD_EXECUTE_H
#define MIXCKPT_RESHARD_EXECUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "ckpt/checkpoint.h"
#include "ckpt/digest.h"
#include "reshard/target.h"

struct mix_progress;
struct mix_random_source;

struct mix_job {
    const struct mix_checkpoint *ckpt;      /* the source, */
    const struct mix_random_source *random; /* or this one; exactly one is not NULL */
    const char *src;             /* path of a local source, or NULL */
    const char *dst;
    bool to_hf;
    enum mix_container container; /* of a mixckpt checkpoint */
    struct mix_mesh mesh;
    bool weights_only;
    bool has_dtype;              /* change weights to `dtype` */
    enum mix_dtype dtype;
    uint64_t max_shard_bytes;    /* of a Hugging Face folder; 0: as they came, or 50 GB */
    unsigned jobs;               /* threads */
    uint64_t memory;             /* bytes that buffers may take */
    bool force, sync;
    unsigned worker, worker_count;
    uint64_t wait_ms;
    struct mix_progress *progress; /* fed, and its tick called while the job runs */
};

struct mix_job_result {
    /* Bytes are those of tensors: headers and the files beside them are not counted. */
    uint64_t tensors, files, bytes_read, bytes_written, bytes_resumed;
    uint64_t overflowed;         /* finite values that --dtype made infinite */
    double seconds;
    struct mix_digests digests;  /* worker 0 */
    char remade[640];            /* hf: why the files are not those that came in, or "" */
};

/* What the job would make: its target. Release it with mix_target_release(). */
enum mix_rc mix_job_target(const struct mix_job *job, struct mix_target *target,
                           struct mix_err *err);

/* Threads that fit into job->memory; MIX_USAGE if not even one does. */
enum mix_rc mix_job_threads(const struct mix_job *job, const struct mix_target *target,
                            unsigned *threads, struct mix_err *err);
/* About what the job will hold at its peak, the program itself included. */
uint64_t mix_job_memory(const struct mix_job *job, const struct mix_target *target,
                        unsigned threads);

enum mix_rc mix_job_run(const struct mix_job *job, struct mix_job_result *result,
                        struct mix_err *err);

#endif
