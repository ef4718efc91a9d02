/* mixckpt reshard - a mixckpt checkpoint to other degrees. */
#include "cli/job.h"

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    struct cli_job o = CLI_JOB_INIT;
    const char *src = NULL, *dst = NULL;
    const struct cli_opt opts[] = {
        OPT_ARG("src", &src, "a mixckpt checkpoint"),
        OPT_ARG("dst", &dst, "the folder to make"),
        CLI_OPTS_DEGREES(o),
        CLI_OPTS_CONTAINER(o, "what shards are (default: as in <src>)"),
        CLI_OPTS_DTYPE(o),
        OPT_FLAG(0, "weights-only", &o.weights_only, "leave optimizer state out"),
        CLI_OPTS_WRITE(o),
        OPT_DONE,
    };
    struct mix_checkpoint *ckpt = NULL;
    struct mix_err err = { 0 };
    int code;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;

    struct mix_job job = { .src = src, .dst = dst };

    if (!o.ep || !o.hsd) {
        mix_fail(&err, MIX_USAGE, "--ep and --hsd are both needed: the degrees to reshard to");
        return cli_failed(&common, &err);
    }
    if (cli_job_fill(&o, &job, &err) || cli_open_source(src, &common, &ckpt, &err))
        return cli_failed(&common, &err);
    if (ckpt->form != MIX_FORM_MIXCKPT) {
        mix_fail(&err, MIX_BAD_FORMAT, "%s: is a checkpoint of the form '%s'; reshard reads "
                 "mixckpt checkpoints (convert --to mixckpt reads this one)", src,
                 mix_form_name(ckpt->form));
        mix_checkpoint_close(ckpt);
        return cli_failed(&common, &err);
    }
    job.ckpt = ckpt;
    if (!o.container)
        job.container = ckpt->m.container;
    code = cli_job_run("reshard", &job, &ckpt->warnings, &common);
    mix_checkpoint_close(ckpt);
    return code;
}

const struct cli_cmd cmd_reshard = {
    .name = "reshard",
    .summary = "a mixckpt checkpoint to other degrees",
    .usage = "<src> <dst> --ep N --hsd N [--tp N] [options]",
    .help = "Cuts a mixckpt checkpoint anew for another mesh of ranks: weights, optimizer state "
            "and all that travels with them. Every leaf of the source is checked against its "
            "hash on the way; a damaged source ends the run and names the bytes. Resharding "
            "there and back gives the same files, byte for byte.",
    .examples = { "mixckpt reshard step-00001000 step-00001000-ep8 --ep 8 --hsd 1",
                  "srun -n 16 mixckpt reshard a b --ep 4 --hsd 2 --tp 2 --memory 512MiB" },
    .group = CLI_MAKE,
    .needs = CLI_NEEDS_CANCEL,
    .run = run,
};
