/* mixckpt verify - every byte of a checkpoint against its manifest and the rules. */
#include <inttypes.h>
#include <stdio.h>

#include "ckpt/verify.h"
#include "cli/job.h"
#include "cli/worker.h"

static void print_json(const struct mix_verify_options *o, const struct mix_verify_report *r)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_bool(&json, "ok", !r->defects.count);
    cli_json_string(&json, "proof", r->proof);
    cli_json_u64(&json, "bytes_read", r->bytes_read);
    cli_json_double(&json, "seconds", r->seconds);
    cli_json_begin_array(&json, "defects");
    for (size_t i = 0; i < r->defects.count; i++) {
        const struct mix_defect *d = &r->defects.defect[i];

        cli_json_begin_object(&json, NULL);
        cli_json_string(&json, "kind", d->kind);
        cli_json_string(&json, "file", *d->file ? d->file : NULL);
        cli_json_string(&json, "tensor", *d->tensor ? d->tensor : NULL);
        if (*d->tensor) {
            cli_json_u64(&json, "begin", d->begin);
            cli_json_u64(&json, "end", d->end);
        } else {
            cli_json_null(&json, "begin");
            cli_json_null(&json, "end");
        }
        cli_json_string(&json, "message", d->message);
        cli_json_end_object(&json);
    }
    cli_json_end_array(&json);
    cli_json_texts(&json, "warnings", &r->warnings);
    if (o->worker_count > 1) {
        cli_json_begin_array(&json, "worker");
        cli_json_u64(&json, NULL, o->worker);
        cli_json_u64(&json, NULL, o->worker_count);
        cli_json_end_array(&json);
    }
    cli_json_end_object(&json);
}

/* A name, or what a damaged index says is one: the terminal shall not obey it. */
static void put_name(const char *name)
{
    putchar(' ');
    for (const char *p = *name ? name : "-"; *p; p++)
        putchar((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
}

static void print_text(const struct mix_verify_report *r)
{
    char bytes[CLI_TEXT], seconds[CLI_TEXT];

    for (size_t i = 0; i < r->defects.count; i++) {
        const struct mix_defect *d = &r->defects.defect[i];

        fputs(d->kind, stdout);
        put_name(d->file);
        put_name(d->tensor);
        printf(" [%" PRIu64 ", %" PRIu64 ") %s\n", d->begin, d->end, d->message);
    }
    if (!r->defects.count)
        printf("ok: proved by %s, %s read in %s\n", r->proof,
               cli_bytes_text(r->bytes_read, bytes), cli_seconds_text(r->seconds, seconds));
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    const char *url = NULL, *against_url = NULL, *worker = NULL;
    int jobs = cli_default_jobs();
    struct mix_progress progress = MIX_PROGRESS_INIT;
    struct mix_verify_options o = { .progress = &progress };
    const struct cli_opt opts[] = {
        OPT_ARG("url", &url, "the checkpoint"),
        OPT_TEXT(0, "against", &against_url, "<url>", "compare every tensor with this "
                 "checkpoint, in any layout"),
        OPT_FLAG(0, "deep", &o.deep, "also look at the values: NaN and Inf, tensors that are all "
                 "zero"),
        OPT_INT('j', "jobs", &jobs, 1, "threads (default: one a core, at most 8)"),
        OPT_TEXT(0, "worker", &worker, "I/N", "do share I (from 0) of N of the files"),
        OPT_DONE,
    };
    struct mix_verify_report report = { 0 };
    struct mix_checkpoint *against = NULL;
    struct mix_err err = { 0 };
    struct cli_bar bar;
    enum mix_rc rc;
    int code = CLI_OK;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    o.threads = (unsigned)jobs;
    if (cli_worker_find(worker, &o.worker, &o.worker_count, &err) ||
        (against_url && mix_checkpoint_open(against_url, NULL, &against, &err)))
        return cli_failed(&common, &err);
    if (against)
        cli_warn_of(against, &common);
    o.against = against;
    cli_bar_begin(&bar, &common, "verify", &progress);
    rc = mix_verify(url, &o, &report, &err);
    cli_bar_end(&bar);
    for (size_t i = 0; i < report.warnings.count && !rc; i++)
        cli_warn(&common, "%s", report.warnings.text[i]);
    if (report.defects.left_out && !rc)
        cli_warn(&common, "%" PRIu64 " more defects are not listed", report.defects.left_out);
    if (rc)
        code = cli_failed(&common, &err);
    else if (common.json)
        print_json(&o, &report);
    else
        print_text(&report);
    if (!rc)
        code = report.defects.count ? CLI_FOUND : CLI_OK;
    mix_verify_report_release(&report);
    mix_checkpoint_close(against);
    return code;
}

const struct cli_cmd cmd_verify = {
    .name = "verify",
    .summary = "check every byte against the manifest and the rules",
    .usage = "<url> [--against <url>] [--deep] [--jobs N]",
    .help = "Reads a checkpoint and lists everything that is wrong with it, one line a defect: "
            "kind, file, tensor, bytes, words. A mixckpt checkpoint is checked to the last byte "
            "against its digests; a Hugging Face folder against the rules of its format, and "
            "in a hub's cache against the SHA-256 that its blobs are named by. The last line, "
            "or `proof` in --json, says which it was. Exit code 0 if all is right, 1 if "
            "something is not, 3 if it could not be read.",
    .examples = { "mixckpt verify step-00001000",
                  "mixckpt verify shards --against Mixtral-8x7B-v0.1 --deep --json" },
    .group = CLI_PROVE,
    .needs = CLI_NEEDS_CANCEL,
    .run = run,
};
