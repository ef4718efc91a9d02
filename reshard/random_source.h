/*
 * random_source.h - a model that does not exist yet: its tensors from config.json, its
 * values from counters, so that they are the same in every layout.
 *
 * Element i of the weight `name` is, before rounding to the dtype,
 *
 *   initializer_range * z(i),  z(i) = (sum of 12 uniform 16-bit numbers) / 65536 - 6
 *
 * with the numbers from a hash of (seed, name, i): integer arithmetic, so the same on
 * every machine. Norm weights are 1. Made-up optimizer state: @master (F32) is the value
 * before rounding, @exp_avg (F32) 1e-3 * z'(i), @exp_avg_sq (F32) 1e-6 * z''(i)^2.
 */
#ifndef MIXCKPT_RESHARD_RANDOM_SOURCE_H
#define MIXCKPT_RESHARD_RANDOM_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/manifest.h"
#include "ckpt/names/geometry.h"

struct mix_random_tensor; /* how to make each tensor */

struct mix_random_source {
    struct mix_manifest m;          /* the tensors; m.model is the config */
    struct mix_geometry geometry;
    const char *config;             /* text of config.json as it was given */
    size_t config_len;
    uint64_t seed;
    struct mix_random_tensor *how;  /* one a tensor */
};

struct mix_random_options {
    uint64_t seed;
    bool has_dtype;
    enum mix_dtype dtype;           /* BF16, F16 or F32; default: the config's, else BF16 */
    bool optimizer;
};

/* From the text of a config.json; MIX_UNSUPPORTED for a model type that no table knows. */
enum mix_rc mix_random_open(const char *config, size_t len,
                            const struct mix_random_options *options,
                            struct mix_random_source *out, struct mix_err *err);
void mix_random_close(struct mix_random_source *source);

/* Bytes [begin, end) of tensor `tensor`, any range. */
void mix_random_read(const struct mix_random_source *source, uint32_t tensor, uint64_t begin,
                     uint64_t end, void *buf);

#endif
