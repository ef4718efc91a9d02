/* job.c - options, sources and reports of the commands that make checkpoints. */
#include "cli/job.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/base/bytes.h"
#include "cli/worker.h"

int cli_default_jobs(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    return cores < 1 ? 1 : cores > 8 ? 8 : (int)cores;
}

void cli_warn_of(const struct mix_checkpoint *ckpt, const struct cli_common *common)
{
    for (size_t i = 0; i < ckpt->warnings.count; i++)
        cli_warn(common, "%s", ckpt->warnings.text[i]);
}

enum mix_rc cli_open_source(const char *url, const struct cli_common *common,
                            struct mix_checkpoint **out, struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = mix_checkpoint_open(url, NULL, out, err)))
        return rc;
    rc = mix_checkpoint_check_model(*out, NULL, err);
    cli_warn_of(*out, common);
    if (rc) {
        mix_checkpoint_close(*out);
        *out = NULL;
        return mix_err_at(err, "%s", url);
    }
    return MIX_OK;
}

enum mix_rc cli_job_fill(const struct cli_job *o, struct mix_job *job, struct mix_err *err)
{
    job->mesh = (struct mix_mesh){ mix_max(o->ep, 1), mix_max(o->hsd, 1), mix_max(o->tp, 1) };
    job->container = o->container && !strcmp(o->container, "safetensors") ? MIX_SAFETENSORS
                                                                          : MIX_HDF5;
    job->weights_only = o->weights_only;
    job->has_dtype = o->dtype && mix_dtype_find(o->dtype, &job->dtype);
    job->max_shard_bytes = o->max_shard_bytes;
    job->jobs = (unsigned)o->jobs;
    job->memory = o->memory;
    job->force = o->force;
    job->sync = !o->no_fsync;
    job->wait_ms = (uint64_t)o->wait_seconds * 1000;
    return cli_worker_find(o->worker, &job->worker, &job->worker_count, err);
}

void cli_json_texts(struct cli_json *json, const char *key, const struct mix_texts *texts)
{
    cli_json_begin_array(json, key);
    for (size_t i = 0; texts && i < texts->count; i++)
        cli_json_string(json, NULL, texts->text[i]);
    cli_json_end_array(json);
}

static void print_json(const struct mix_job *job, const struct mix_job_result *r,
                       const struct mix_texts *warnings)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_u64(&json, "tensors", r->tensors);
    cli_json_u64(&json, "files", r->files);
    cli_json_u64(&json, "bytes_read", r->bytes_read);
    cli_json_u64(&json, "bytes_written", r->bytes_written);
    cli_json_u64(&json, "bytes_resumed", r->bytes_resumed);
    cli_json_double(&json, "seconds", r->seconds);
    /* Only worker 0 sees all leaves, and so the digests. */
    cli_json_string(&json, "model", job->worker ? NULL : r->digests.model);
    cli_json_string(&json, "optimizer",
                    job->worker || !r->digests.has_optimizer ? NULL : r->digests.optimizer);
    cli_json_texts(&json, "warnings", warnings);
    if (job->worker_count > 1) {
        cli_json_begin_array(&json, "worker");
        cli_json_u64(&json, NULL, job->worker);
        cli_json_u64(&json, NULL, job->worker_count);
        cli_json_end_array(&json);
    }
    cli_json_end_object(&json);
}

static void print_text(const struct mix_job *job, const struct mix_job_result *r)
{
    char bytes[CLI_TEXT], resumed[CLI_TEXT], seconds[CLI_TEXT];

    printf("%s: %llu tensors in %llu files, %s written in %s", job->dst,
           (unsigned long long)r->tensors, (unsigned long long)r->files,
           cli_bytes_text(r->bytes_written, bytes), cli_seconds_text(r->seconds, seconds));
    if (r->bytes_resumed)
        printf(" (%s were done before)", cli_bytes_text(r->bytes_resumed, resumed));
    printf("\n");
    if (job->worker)
        return;
    printf("%s  model\n", r->digests.model);
    if (r->digests.has_optimizer)
        printf("%s  optimizer\n", r->digests.optimizer);
}

int cli_job_run(const char *title, struct mix_job *job, struct mix_texts *warnings,
                const struct cli_common *common)
{
    struct mix_progress progress = MIX_PROGRESS_INIT;
    struct mix_job_result result;
    struct mix_err err = { 0 };
    struct cli_bar bar;
    enum mix_rc rc;

    job->progress = &progress;
    cli_bar_begin(&bar, common, title, &progress);
    rc = mix_job_run(job, &result, &err);
    cli_bar_end(&bar);
    if (rc)
        return cli_failed(common, &err);
    if (*result.remade && job->ckpt && job->worker == 0)
        cli_note(common, "the weight files are newly cut, not those that came in: %s",
                 result.remade);
    if (result.overflowed) {
        cli_warn(common, "%llu values were too large for %s and became Inf",
                 (unsigned long long)result.overflowed, mix_dtype_name(job->dtype));
        if (mix_texts_add(warnings, &err, "%llu values were too large for %s and became Inf",
                          (unsigned long long)result.overflowed, mix_dtype_name(job->dtype)))
            return cli_failed(common, &err);
    }
    if (common->json)
        print_json(job, &result, warnings);
    else
        print_text(job, &result);
    return CLI_OK;
}
