/*
 * worker.h - which worker this process is, of how many that share one job. No MPI call
 * is needed for that: launchers say it in the environment.
 */
#ifndef MIXCKPT_CLI_WORKER_H
#define MIXCKPT_CLI_WORKER_H

#include "ckpt/base/err.h"

enum { CLI_WORKERS_MAX = 65536 };

/*
 * `option` is the text of --worker ("I/N", I from 0) or NULL. Without it
 * OMPI_COMM_WORLD_RANK and _SIZE (mpirun) say it, or SLURM_PROCID and
 * SLURM_STEP_NUM_TASKS (srun), where both of a pair are set; else this is worker 0 of 1.
 * MIX_USAGE names what is malformed.
 */
enum mix_rc cli_worker_find(const char *option, unsigned *index, unsigned *count,
                            struct mix_err *err);

#endif
