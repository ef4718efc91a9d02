/* tiny.c - a small made-up model and its checkpoints. */
#include "tests/support/tiny.h"

#include "ckpt/base/progress.h"
#include "tests/support/test.h"

const char test_tiny_config[] =
    "{\"model_type\": \"mixtral\", \"hidden_size\": 40, \"intermediate_size\": 52, "
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"num_local_experts\": 4, \"num_experts_per_tok\": 2, \"vocab_size\": 101, "
    "\"initializer_range\": 0.02, \"torch_dtype\": \"bfloat16\"}\n";

void test_tiny_open(struct mix_random_source *source, enum mix_dtype dtype, bool optimizer)
{
    const struct mix_random_options options = { .seed = 5, .has_dtype = true, .dtype = dtype,
                                                .optimizer = optimizer };
    struct mix_err err = { 0 };

    assert_ok(mix_random_open(test_tiny_config, strlen(test_tiny_config), &options, source, &err),
              &err);
}

struct mix_job test_job(const char *dst)
{
    static struct mix_progress progress;

    memset(&progress, 0, sizeof progress);
    return (struct mix_job){ .dst = dst, .mesh = { 1, 1, 1 }, .jobs = 1, .memory = 256 << 20,
                             .worker_count = 1, .wait_ms = 1000, .progress = &progress };
}

static void make(const char *dst, struct mix_job job, bool optimizer)
{
    struct mix_random_source source;
    struct mix_job_result result;
    struct mix_err err = { 0 };

    test_tiny_open(&source, MIX_BF16, optimizer);
    job.random = &source;
    job.dst = dst;
    assert_ok(mix_job_run(&job, &result, &err), &err);
    mix_random_close(&source);
}

void test_tiny_shards(const char *dst, enum mix_container container, struct mix_mesh mesh,
                      bool optimizer)
{
    struct mix_job job = test_job(dst);

    job.container = container;
    job.mesh = mesh;
    make(dst, job, optimizer);
}

void test_tiny_hf(const char *dst, uint64_t max_shard_bytes)
{
    struct mix_job job = test_job(dst);

    job.to_hf = true;
    job.max_shard_bytes = max_shard_bytes;
    make(dst, job, false);
}
