/* worker.c - worker I of N, from an option or from a launcher's environment. */
#include "cli/worker.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "cli/opt.h"

/*
 * Both variables must be there: SLURM_PROCID alone also stands in the environment of a
 * batch script and of an interactive shell, where no step shares the job.
 */
static const struct launcher {
    const char *index, *count;
} launchers[] = {
    { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE" },
    { "SLURM_PROCID", "SLURM_STEP_NUM_TASKS" },
};

static bool parse_count(const char *text, unsigned *count)
{
    uint64_t value;

    if (!cli_u64_parse(text, &value) || value < 1 || value > CLI_WORKERS_MAX)
        return false;
    *count = (unsigned)value;
    return true;
}

static bool parse_index(const char *text, unsigned count, unsigned *index)
{
    uint64_t value;

    if (!cli_u64_parse(text, &value) || value >= count)
        return false;
    *index = (unsigned)value;
    return true;
}

static enum mix_rc from_option(const char *option, unsigned *index, unsigned *count,
                               struct mix_err *err)
{
    const char *slash = strchr(option, '/');
    char text[32];
    size_t len = slash ? (size_t)(slash - option) : 0;

    if (len > 0 && len < sizeof text && parse_count(slash + 1, count)) {
        memcpy(text, option, len);
        text[len] = '\0';
        if (parse_index(text, *count, index))
            return MIX_OK;
    }
    return mix_fail(err, MIX_USAGE,
                    "--worker takes I/N with 0 <= I < N <= %d, such as 0/4, found '%s'",
                    CLI_WORKERS_MAX, option);
}

static enum mix_rc from_launcher(const struct launcher *launcher, unsigned *index,
                                 unsigned *count, struct mix_err *err)
{
    const char *index_text = getenv(launcher->index), *count_text = getenv(launcher->count);

    if (!parse_count(count_text, count))
        return mix_fail(err, MIX_USAGE,
                        "the environment variable %s must be a number from 1 to %d, found '%s'",
                        launcher->count, CLI_WORKERS_MAX, count_text);
    if (!parse_index(index_text, *count, index))
        return mix_fail(err, MIX_USAGE,
                        "the environment variable %s must be a number from 0 to %u (%s is %u), "
                        "found '%s'",
                        launcher->index, *count - 1, launcher->count, *count, index_text);
    return MIX_OK;
}

enum mix_rc cli_worker_find(const char *option, unsigned *index, unsigned *count,
                            struct mix_err *err)
{
    *index = 0;
    *count = 1;
    if (option)
        return from_option(option, index, count, err);
    for (size_t i = 0; i < MIX_ARRAY_LEN(launchers); i++)
        if (getenv(launchers[i].index) && getenv(launchers[i].count))
            return from_launcher(&launchers[i], index, count, err);
    return MIX_OK;
}
