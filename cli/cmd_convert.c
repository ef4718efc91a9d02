/* mixckpt convert - any readable checkpoint to another form. */
#include <string.h>

#include "cli/job.h"

/* Options that say nothing for this kind of result are refused, not ignored. */
static enum mix_rc check_options(const struct cli_job *o, const char *to, struct mix_err *err)
{
    if (!to)
        return mix_fail(err, MIX_USAGE, "--to is missing: --to hf or --to mixckpt");
    if (!strcmp(to, "hf") && (o->ep || o->hsd || o->tp))
        return mix_fail(err, MIX_USAGE, "--ep, --hsd and --tp say how shards are cut; --to hf "
                        "makes whole tensors");
    if (!strcmp(to, "hf") && (o->container || o->compress))
        return mix_fail(err, MIX_USAGE, "--container and --compress are for --to mixckpt; --to hf "
                        "makes plain safetensors files");
    if (strcmp(to, "hf") && o->max_shard_bytes)
        return mix_fail(err, MIX_USAGE, "--max-shard-size is for --to hf; shards of --to mixckpt "
                        "are cut by --ep, --hsd and --tp");
    return MIX_OK;
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    struct cli_job o = CLI_JOB_INIT;
    const char *src = NULL, *dst = NULL, *to = NULL;
    const struct cli_opt opts[] = {
        OPT_ARG("src", &src, "the checkpoint to read"),
        OPT_ARG("dst", &dst, "the folder to make"),
        OPT_CHOICE(0, "to", &to, "hf|mixckpt", "the form of the result (must be given)"),
        CLI_OPTS_DEGREES(o),
        CLI_OPTS_CONTAINER(o, "what shards are (default hdf5)"),
        OPT_SIZE(0, "max-shard-size", &o.max_shard_bytes, 1, "with --to hf: cut new weight files "
                 "of at most this size, instead of giving back those that came in (default "
                 "50GB when new ones must be cut)"),
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

    if (check_options(&o, to, &err) || cli_job_fill(&o, &job, &err) ||
        cli_open_source(src, &common, &ckpt, &err))
        return cli_failed(&common, &err);
    job.ckpt = ckpt;
    job.to_hf = !strcmp(to, "hf");
    if (ckpt->form == MIX_FORM_MIXCKPT && !o.ep && !o.hsd && !o.tp)
        job.mesh = ckpt->m.mesh;
    code = cli_job_run("convert", &job, &ckpt->warnings, &common);
    mix_checkpoint_close(ckpt);
    return code;
}

const struct cli_cmd cmd_convert = {
    .name = "convert",
    .summary = "any readable checkpoint to another form",
    .usage = "<src> <dst> --to hf|mixckpt [--ep N --hsd N --tp N] [options]",
    .help = "Reads a checkpoint of any form and makes a new one: a folder of shards for a mesh "
            "of ranks (mixckpt), or a Hugging Face folder (hf). Every byte is hashed on its way "
            "through, and the digest of the whole is printed at the end: it is the same for "
            "every layout. --to hf gives back the very files that once came in, byte for byte, "
            "as long as names, dtypes and shapes are still theirs.\n\n"
            "The result is built in <dst>.partial and renamed at the very end. A run that was "
            "interrupted goes on when the same command is run again. Without --ep, --hsd and "
            "--tp the mesh of a mixckpt source is kept; any other source is not cut.",
    .examples = { "mixckpt convert Mixtral-8x7B-v0.1 shards --to mixckpt --ep 2 --hsd 4",
                  "mpirun -n 8 mixckpt convert shards exported --to hf" },
    .group = CLI_MAKE,
    .needs = CLI_NEEDS_CANCEL,
    .run = run,
};
