/* mixckpt digest - the layout-independent digests of all tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/compare.h"
#include "ckpt/digest_tree.h"
#include "ckpt/walk.h"
#include "cli/job.h"
#include "cli/worker.h"

struct share {
    unsigned worker, worker_count;
    size_t first, count; /* of the tensors */
};

static void print_json(const struct mix_manifest *m, const struct share *share,
                       const struct mix_digests *totals)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    /* A worker knows its own tensors only. */
    cli_json_string(&json, "model", share->worker_count > 1 ? NULL : totals->model);
    cli_json_string(&json, "optimizer", share->worker_count > 1 || !totals->has_optimizer
                                            ? NULL : totals->optimizer);
    cli_json_begin_object(&json, "tensors");
    for (size_t i = share->first; i < share->first + share->count; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i];

        cli_json_begin_object(&json, t->name);
        cli_json_string(&json, "dtype", mix_dtype_name(t->dtype));
        cli_json_begin_array(&json, "shape");
        for (uint32_t k = 0; k < t->rank; k++)
            cli_json_u64(&json, NULL, t->shape[k]);
        cli_json_end_array(&json);
        cli_json_hex(&json, "digest", t->digest, 32);
        cli_json_end_object(&json);
    }
    cli_json_end_object(&json);
    if (share->worker_count > 1) {
        cli_json_begin_array(&json, "worker");
        cli_json_u64(&json, NULL, share->worker);
        cli_json_u64(&json, NULL, share->worker_count);
        cli_json_end_array(&json);
    }
    cli_json_end_object(&json);
}

static enum mix_rc print_text(const struct mix_manifest *m, const struct share *share,
                              const struct mix_digests *totals, struct mix_err *err)
{
    struct mix_buf line = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;

    for (size_t i = share->first; i < share->first + share->count && !rc; i++) {
        mix_buf_clear(&line);
        if (!(rc = mix_digest_line(&m->tensor[i], &line, err)))
            fwrite(line.data, 1, line.len, stdout);
    }
    mix_buf_release(&line);
    if (share->worker_count > 1)
        return rc;
    printf("%s  model\n", totals->model);
    if (totals->has_optimizer)
        printf("%s  optimizer\n", totals->optimizer);
    return rc;
}

/* Digests of this worker's share, into the tensors of the manifest. */
static enum mix_rc compute(struct mix_checkpoint *ckpt, struct share *share, int jobs,
                           struct mix_progress *progress, struct mix_err *err)
{
    struct mix_manifest *m = &ckpt->m;
    uint64_t *bytes = NULL, bytes_read = 0;
    unsigned char (*digest)[32] = NULL;
    enum mix_rc rc;

    if ((rc = mix_new_array(&bytes, m->tensor_count, sizeof *bytes, err)) ||
        (rc = mix_new_array(&digest, m->tensor_count, sizeof *digest, err)))
        goto out;
    for (size_t i = 0; i < m->tensor_count; i++)
        bytes[i] = m->tensor[i].bytes;
    mix_walk_share(bytes, m->tensor_count, share->worker, share->worker_count, &share->first,
                   &share->count);
    if ((rc = mix_compute_digests(ckpt, share->first, share->count, (unsigned)jobs, progress,
                                  digest, &bytes_read, err)))
        goto out;
    for (size_t i = 0; i < share->count; i++)
        memcpy(m->tensor[share->first + i].digest, digest[i], 32);
out:
    free(bytes);
    free(digest);
    return rc;
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    const char *url = NULL, *worker = NULL;
    int jobs = cli_default_jobs();
    const struct cli_opt opts[] = {
        OPT_ARG("url", &url, "the checkpoint"),
        OPT_INT('j', "jobs", &jobs, 1, "threads (default: one a core, at most 8)"),
        OPT_TEXT(0, "worker", &worker, "I/N", "do share I (from 0) of N of the tensors"),
        OPT_DONE,
    };
    struct mix_progress progress = MIX_PROGRESS_INIT;
    struct mix_checkpoint *ckpt = NULL;
    struct mix_digests totals;
    struct share share = { 0 };
    struct mix_err err = { 0 };
    struct cli_bar bar;
    enum mix_rc rc;
    int code = CLI_OK;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    if (cli_worker_find(worker, &share.worker, &share.worker_count, &err) ||
        mix_checkpoint_open(url, NULL, &ckpt, &err))
        return cli_failed(&common, &err);
    cli_warn_of(ckpt, &common);
    cli_bar_begin(&bar, &common, "digest", &progress);
    rc = compute(ckpt, &share, jobs, &progress, &err);
    cli_bar_end(&bar);
    if (!rc && !(rc = mix_digest_totals(&ckpt->m, &totals, &err))) {
        if (common.json)
            print_json(&ckpt->m, &share, &totals);
        else
            rc = print_text(&ckpt->m, &share, &totals, &err);
    }
    if (rc)
        code = cli_failed(&common, &err);
    mix_checkpoint_close(ckpt);
    return code;
}

const struct cli_cmd cmd_digest = {
    .name = "digest",
    .summary = "the layout-independent digests of all tensors",
    .usage = "<url> [--jobs N] [--worker I/N]",
    .help = "Reads every byte and prints a line a tensor, sorted by name: digest, dtype, shape, "
            "name; then one digest over the lines of the weights and, if there is optimizer "
            "state, one over its lines. They are the same in every layout and container, so two "
            "equal `model` lines prove that nothing was lost. docs/digest.md defines them, with "
            "a Python script that computes them without this program.",
    .examples = { "mixckpt digest Mixtral-8x7B-v0.1 | tail -n 1",
                  "mixckpt digest step-00001000 --json" },
    .group = CLI_PROVE,
    .needs = CLI_NEEDS_CANCEL,
    .run = run,
};
