/* mixckpt init - random weights from a config.json. */
#include <string.h>

#include "ckpt/base/file.h"
#include "ckpt/checkpoint_open.h"
#include "cli/job.h"
#include "reshard/random_source.h"

/* The form of the result; without --to, what the other options speak of. */
static bool is_hf(const struct cli_job *o, const char *to, bool optimizer)
{
    return to ? !strcmp(to, "hf") : !(o->ep || o->hsd || o->tp || o->container || optimizer);
}

static enum mix_rc check_options(const struct cli_job *o, const char *to, bool optimizer,
                                 struct mix_err *err)
{
    if (to && !strcmp(to, "hf") && (o->ep || o->hsd || o->tp || o->container || o->compress))
        return mix_fail(err, MIX_USAGE, "--ep, --hsd, --tp, --container and --compress are for "
                        "--to mixckpt");
    if (to && !strcmp(to, "hf") && optimizer)
        return mix_fail(err, MIX_USAGE, "--optimizer is for --to mixckpt: a Hugging Face folder "
                        "has no optimizer state");
    if (o->max_shard_bytes && !is_hf(o, to, optimizer))
        return mix_fail(err, MIX_USAGE, "--max-shard-size is for --to hf");
    return MIX_OK;
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    struct cli_job o = CLI_JOB_INIT;
    struct mix_random_options random = { .seed = 12345 };
    const char *config = NULL, *dst = NULL, *to = NULL, *dtype = NULL;
    const struct cli_opt opts[] = {
        OPT_ARG("config.json", &config, "the model's configuration"),
        OPT_ARG("dst", &dst, "the folder to make"),
        OPT_CHOICE(0, "to", &to, "hf|mixckpt", "the form of the result (default: mixckpt if "
                   "degrees, a container or --optimizer are given, else hf)"),
        CLI_OPTS_DEGREES(o),
        OPT_U64(0, "seed", &random.seed, 0, "what the values follow from (default 12345)"),
        OPT_CHOICE(0, "dtype", &dtype, "BF16|F16|F32", "of the weights (default: as config.json "
                   "says, else BF16)"),
        OPT_FLAG(0, "optimizer", &random.optimizer, "add made-up optimizer state: @exp_avg, "
                 "@exp_avg_sq and @master for every weight, in F32"),
        CLI_OPTS_CONTAINER(o, "what shards are (default hdf5)"),
        OPT_SIZE(0, "max-shard-size", &o.max_shard_bytes, 1, "with --to hf: size of the weight "
                 "files (default 50GB)"),
        CLI_OPTS_WRITE(o),
        OPT_DONE,
    };
    struct mix_random_source source = { 0 };
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    int code;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;

    struct mix_job job = { .src = config, .dst = dst, .random = &source };

    random.has_dtype = dtype && mix_dtype_find(dtype, &random.dtype);
    if (check_options(&o, to, random.optimizer, &err) || cli_job_fill(&o, &job, &err) ||
        mix_file_get(config, MIX_CONFIG_LIMIT, &text, &err)) {
        code = cli_failed(&common, &err);
    } else if (mix_random_open(text.data, text.len, &random, &source, &err)) {
        mix_err_file(&err, config);
        code = cli_failed(&common, &err);
    } else {
        job.to_hf = is_hf(&o, to, random.optimizer);
        code = cli_job_run("init", &job, NULL, &common);
    }
    mix_random_close(&source);
    mix_buf_release(&text);
    return code;
}

const struct cli_cmd cmd_init = {
    .name = "init",
    .summary = "random weights from a config.json",
    .usage = "<config.json> <dst> [--to hf|mixckpt] [--ep N --hsd N --tp N] [options]",
    .help = "Makes a checkpoint of a model that does not exist yet: the tensors that its "
            "config.json implies, with random values of the standard deviation "
            "initializer_range, norm weights 1. The values follow from the seed, the tensor's "
            "name and the element alone, so they are the same in every layout and on every "
            "machine. With --optimizer it tries the capacity and speed of a training run that "
            "has not begun.",
    .examples = { "mixckpt init config.json random-mixtral --to hf",
                  "mixckpt init config.json run0 --ep 8 --hsd 2 --optimizer --seed 7" },
    .group = CLI_MAKE,
    .needs = CLI_NEEDS_CANCEL,
    .run = run,
};
