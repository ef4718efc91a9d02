/* tiny.h - a small Mixtral with uneven sizes, made up, and checkpoints of it on disk. */
#ifndef MIXCKPT_TESTS_SUPPORT_TINY_H
#define MIXCKPT_TESTS_SUPPORT_TINY_H

#include <stdbool.h>

#include "reshard/execute.h"
#include "reshard/random_source.h"

/*
 * A config.json: 2 layers, 4 experts, 4 heads, 2 key-value heads, hidden size 40,
 * intermediate size 52, 101 words. Few divisors, so that cuts come out uneven.
 */
extern const char test_tiny_config[];

/* The model that it describes; close it with mix_random_close(). */
void test_tiny_open(struct mix_random_source *source, enum mix_dtype dtype, bool optimizer);

/* A job with defaults: one thread, one worker, nothing synced. */
struct mix_job test_job(const char *dst);

/* The tiny model in BF16 with these degrees, in a new checkpoint at `dst`. */
void test_tiny_shards(const char *dst, enum mix_container container, struct mix_mesh mesh,
                      bool optimizer);
/* The same as a Hugging Face folder, in files of at most `max_shard_bytes`. */
void test_tiny_hf(const char *dst, uint64_t max_shard_bytes);

#endif
