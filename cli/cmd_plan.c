/* mixckpt plan - what a convert or reshard would do. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/job.h"

static void print_json(const struct mix_target *t, const struct mix_mesh *mesh, uint64_t memory)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_u64(&json, "files", t->m.file_count);
    cli_json_u64(&json, "bytes_read", t->bytes + t->tail_bytes);
    cli_json_u64(&json, "bytes_written", t->bytes);
    cli_json_u64(&json, "peak_memory_bytes", memory);
    cli_json_u64(&json, "pieces", t->m.piece_count);
    cli_json_begin_array(&json, "ranks");
    for (uint64_t ep = 0; ep < mesh->ep; ep++) {
        for (uint64_t hsd = 0; hsd < mesh->hsd; hsd++) {
            for (uint64_t tp = 0; tp < mesh->tp && !cli_out_failed(); tp++) {
                cli_json_begin_object(&json, NULL);
                cli_json_u64(&json, "ep", ep);
                cli_json_u64(&json, "hsd", hsd);
                cli_json_u64(&json, "tp", tp);
                cli_json_u64(&json, "bytes", mix_target_rank_bytes(t, ep, hsd, tp));
                cli_json_end_object(&json);
            }
        }
    }
    cli_json_end_array(&json);
    cli_json_end_object(&json);
}

static void print_text(const struct mix_target *t, const struct mix_mesh *mesh, uint64_t memory)
{
    uint64_t least = UINT64_MAX, most = 0;
    char a[CLI_TEXT], b[CLI_TEXT];

    for (uint64_t ep = 0; ep < mesh->ep; ep++) {
        for (uint64_t hsd = 0; hsd < mesh->hsd; hsd++) {
            for (uint64_t tp = 0; tp < mesh->tp; tp++) {
                uint64_t bytes = mix_target_rank_bytes(t, ep, hsd, tp);

                least = bytes < least ? bytes : least;
                most = bytes > most ? bytes : most;
            }
        }
    }
    printf("mesh           ep %" PRIu64 " x hsd %" PRIu64 " x tp %" PRIu64 ": %" PRIu64
           " ranks\n", mesh->ep, mesh->hsd, mesh->tp, mesh->ep * mesh->hsd * mesh->tp);
    printf("tensors        %s\n", cli_count_text(t->m.tensor_count, a));
    printf("files          %s\n", cli_count_text(t->m.file_count, a));
    printf("pieces         %s\n", cli_count_text(t->m.piece_count, a));
    printf("read           %s\n", cli_bytes_text(t->bytes + t->tail_bytes, a));
    printf("written        %s\n", cli_bytes_text(t->bytes, a));
    printf("peak memory    %s\n", cli_bytes_text(memory, a));
    if (least == most)
        printf("a rank holds   %s\n", cli_bytes_text(most, a));
    else
        printf("a rank holds   %s to %s\n", cli_bytes_text(least, a), cli_bytes_text(most, b));
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    struct cli_job o = CLI_JOB_INIT;
    const char *src = NULL;
    const struct cli_opt opts[] = {
        OPT_ARG("src", &src, "the checkpoint that would be read"),
        CLI_OPTS_DEGREES(o),
        CLI_OPTS_CONTAINER(o, "what shards would be (default hdf5)"),
        OPT_FLAG(0, "weights-only", &o.weights_only, "leave optimizer state out"),
        CLI_OPTS_RESOURCES(o),
        OPT_DONE,
    };
    struct mix_checkpoint *ckpt = NULL;
    struct mix_target target = { 0 };
    struct mix_job job = { 0 };
    struct mix_err err = { 0 };
    unsigned threads;
    int code = CLI_OK;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    if (!o.ep || !o.hsd) {
        mix_fail(&err, MIX_USAGE, "--ep and --hsd are both needed: the degrees to plan for");
        return cli_failed(&common, &err);
    }
    if (cli_job_fill(&o, &job, &err) || cli_open_source(src, &common, &ckpt, &err))
        return cli_failed(&common, &err);
    job.ckpt = ckpt;
    if (mix_job_target(&job, &target, &err) || mix_job_threads(&job, &target, &threads, &err))
        code = cli_failed(&common, &err);
    else if (common.json)
        print_json(&target, &job.mesh, mix_job_memory(&job, &target, threads));
    else
        print_text(&target, &job.mesh, mix_job_memory(&job, &target, threads));
    mix_target_release(&target);
    mix_checkpoint_close(ckpt);
    return code;
}

const struct cli_cmd cmd_plan = {
    .name = "plan",
    .summary = "what a convert or reshard would do; writes nothing",
    .usage = "<src> --ep N --hsd N [--tp N] [options]",
    .help = "Says what converting or resharding <src> to a mesh would do: how many files and "
            "pieces, the bytes read and written, the peak memory, and the bytes that a rank of "
            "the mesh holds in memory (what tensor parallelism does not cut is held by every "
            "rank of its group, and counted so). Only headers and the manifest are read.",
    .examples = { "mixckpt plan Mixtral-8x7B-v0.1 --ep 8 --hsd 2",
                  "mixckpt plan step-00001000 --ep 4 --hsd 2 --tp 2 --json" },
    .group = CLI_LOOK,
    .run = run,
};
