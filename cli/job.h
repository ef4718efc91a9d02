/*
 * job.h - what the commands that make checkpoints share: their options, the source they
 * open, and how they report.
 */
#ifndef MIXCKPT_CLI_JOB_H
#define MIXCKPT_CLI_JOB_H

#include "cli/bar.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/report.h"
#include "ckpt/base/progress.h"
#include "ckpt/checkpoint.h"
#include "reshard/execute.h"

/* Threads that are used unless --jobs says otherwise: one a core, at most 8. */
int cli_default_jobs(void);

struct cli_job {
    uint64_t ep, hsd, tp;      /* 0: not given */
    const char *container;     /* NULL: not given */
    const char *compress;      /* NULL: not given */
    const char *dtype;         /* NULL: not given */
    uint64_t max_shard_bytes;  /* 0: not given */
    int jobs;
    uint64_t memory;
    bool weights_only, force, no_fsync;
    const char *worker;
    int wait_seconds;
};
#define CLI_JOB_INIT { .jobs = cli_default_jobs(), .memory = UINT64_C(192) << 20, \
                       .wait_seconds = 600 }

#define CLI_OPTS_DEGREES(job) \
    OPT_U64(0, "ep", &(job).ep, 1, "expert-parallel degree: divides the experts"), \
    OPT_ALIAS("expert-parallel-degree"), \
    OPT_U64(0, "hsd", &(job).hsd, 1, "hybrid-shard degree: cuts the rows of every tensor"), \
    OPT_ALIAS("hybrid-shard-degree"), \
    OPT_U64(0, "tp", &(job).tp, 1, "tensor-parallel degree: divides key-value heads and the " \
            "intermediate size (default 1)"), \
    OPT_ALIAS("tensor-parallel-degree")

#define CLI_OPTS_CONTAINER(job, words) \
    OPT_CHOICE(0, "container", &(job).container, "hdf5|safetensors", words), \
    OPT_CHOICE(0, "compress", &(job).compress, "none", "how pieces are stored; none is what " \
               "this version knows")

#define CLI_OPTS_DTYPE(job) \
    OPT_CHOICE(0, "dtype", &(job).dtype, "BF16|F16|F32", "change the weights of these three " \
               "types to one of them, rounding to nearest even (from @master where there is one); " \
               "config.json is changed to match")

#define CLI_OPTS_RESOURCES(job) \
    OPT_INT('j', "jobs", &(job).jobs, 1, "threads (default: one a core, at most 8)"), \
    OPT_SIZE(0, "memory", &(job).memory, 1, "bound of the buffers; the process stays below it " \
             "plus 64 MiB (default 192MiB: 256 MiB in all)")

#define CLI_OPTS_WRITE(job) \
    CLI_OPTS_RESOURCES(job), \
    OPT_FLAG(0, "force", &(job).force, "replace what stands at <dst>; drop the unfinished work " \
             "of another job"), \
    OPT_FLAG(0, "no-fsync", &(job).no_fsync, "do not wait for the disk: faster, and a lost node " \
             "may lose what was said to be done"), \
    OPT_TEXT(0, "worker", &(job).worker, "I/N", "be worker I (from 0) of N that share this job; " \
             "mpirun and srun say it in the environment"), \
    OPT_INT(0, "wait", &(job).wait_seconds, 1, "how long without progress worker 0 waits for " \
            "the others, in seconds (default 600)")

/* Say the warnings of a checkpoint. */
void cli_warn_of(const struct mix_checkpoint *ckpt, const struct cli_common *common);

/* Open a source, check it against its model's table, and say its warnings. */
enum mix_rc cli_open_source(const char *url, const struct cli_common *common,
                            struct mix_checkpoint **out, struct mix_err *err);

/* Fill the fields of `job` that the options decide; degrees not given are 1. */
enum mix_rc cli_job_fill(const struct cli_job *options, struct mix_job *job,
                         struct mix_err *err);

/* Run the job under a progress bar and report it; `warnings` may grow, and may be NULL for
   a job that changes no dtype. Returns the exit code. */
int cli_job_run(const char *title, struct mix_job *job, struct mix_texts *warnings,
                const struct cli_common *common);

/* The texts as a JSON list. */
void cli_json_texts(struct cli_json *json, const char *key, const struct mix_texts *texts);

#endif
