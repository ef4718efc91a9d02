/* mixckpt diff - two checkpoints, tensor by tensor. */
#include <stdio.h>

#include "ckpt/compare.h"
#include "cli/job.h"

static void print_names(struct cli_json *json, const char *key, const char *const *name,
                        size_t count)
{
    cli_json_begin_array(json, key);
    for (size_t i = 0; i < count; i++)
        cli_json_string(json, NULL, name[i]);
    cli_json_end_array(json);
}

static void print_json(const struct mix_comparison *c, bool equal)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_bool(&json, "equal", equal);
    print_names(&json, "only_in_a", c->only_in_a, c->only_in_a_count);
    print_names(&json, "only_in_b", c->only_in_b, c->only_in_b_count);
    cli_json_begin_array(&json, "different");
    for (size_t i = 0; i < c->different_count; i++) {
        const struct mix_difference *d = &c->different[i];

        cli_json_begin_object(&json, NULL);
        cli_json_string(&json, "name", d->name);
        cli_json_string(&json, "what", d->what);
        if (d->has_values) {
            cli_json_double(&json, "max_abs", d->max_abs);
            cli_json_double(&json, "mean_abs", d->mean_abs);
        } else {
            cli_json_null(&json, "max_abs");
            cli_json_null(&json, "mean_abs");
        }
        cli_json_end_object(&json);
    }
    cli_json_end_array(&json);
    cli_json_end_object(&json);
}

static void print_text(const struct mix_comparison *c, bool equal)
{
    for (size_t i = 0; i < c->only_in_a_count; i++)
        printf("only in a  %s\n", c->only_in_a[i]);
    for (size_t i = 0; i < c->only_in_b_count; i++)
        printf("only in b  %s\n", c->only_in_b[i]);
    for (size_t i = 0; i < c->different_count; i++) {
        const struct mix_difference *d = &c->different[i];

        printf("different  %s: %s", d->name, d->what);
        if (d->has_values)
            printf(", at most %g, on average %g", d->max_abs, d->mean_abs);
        printf("\n");
    }
    if (equal)
        printf("equal\n");
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    const char *url_a = NULL, *url_b = NULL;
    bool numeric = false;
    int jobs = cli_default_jobs();
    const struct cli_opt opts[] = {
        OPT_ARG("a", &url_a, "one checkpoint"),
        OPT_ARG("b", &url_b, "the other"),
        OPT_FLAG(0, "numeric", &numeric, "say by how much values differ: the largest and the "
                 "mean absolute difference of each tensor"),
        OPT_INT('j', "jobs", &jobs, 1, "threads (default: one a core, at most 8)"),
        OPT_DONE,
    };
    struct mix_progress progress = MIX_PROGRESS_INIT;
    struct mix_checkpoint *a = NULL, *b = NULL;
    struct mix_comparison comparison = { 0 };
    struct mix_err err = { 0 };
    struct cli_bar bar;
    enum mix_rc rc;
    int code = CLI_OK;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    cli_bar_begin(&bar, &common, "diff", &progress);
    if (!(rc = mix_checkpoint_open(url_a, NULL, &a, &err)) &&
        !(rc = mix_checkpoint_open(url_b, NULL, &b, &err))) {
        cli_warn_of(a, &common);
        cli_warn_of(b, &common);
        rc = mix_compare(a, b, numeric, (unsigned)jobs, &progress, &comparison, &err);
    }
    cli_bar_end(&bar);
    if (rc) {
        code = cli_failed(&common, &err);
    } else {
        bool equal = !comparison.only_in_a_count && !comparison.only_in_b_count &&
                     !comparison.different_count;

        if (common.json)
            print_json(&comparison, equal);
        else
            print_text(&comparison, equal);
        code = equal ? CLI_OK : CLI_FOUND;
    }
    mix_comparison_release(&comparison);
    mix_checkpoint_close(a);
    mix_checkpoint_close(b);
    return code;
}

const struct cli_cmd cmd_diff = {
    .name = "diff",
    .summary = "two checkpoints: names, shapes, dtypes, bytes",
    .usage = "<a> <b> [--numeric]",
    .help = "Compares two checkpoints tensor by tensor, whatever their layouts and containers: "
            "the tensors that only one of them has, and those whose dtype, shape or bytes "
            "differ. Every byte of both is read; what the manifests claim is not taken for "
            "granted. Exit code 0 if they are equal, 1 if not.",
    .examples = { "mixckpt diff Mixtral-8x7B-v0.1 shards",
                  "mixckpt diff step-00001000 step-00002000 --numeric" },
    .group = CLI_PROVE,
    .needs = CLI_NEEDS_CANCEL,
    .run = run,
};
