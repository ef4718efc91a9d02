/*
 * compare.h - two checkpoints, tensor by tensor, whatever their layouts: what is only in
 * one of them, what differs, and by how much.
 */
#ifndef MIXCKPT_CKPT_COMPARE_H
#define MIXCKPT_CKPT_COMPARE_H

#include <stdbool.h>
#include <stddef.h>

#include "ckpt/checkpoint.h"
#include "ckpt/digest.h"

struct mix_progress;

struct mix_difference {
    const char *name;    /* borrowed from a */
    char what[128];      /* "dtype BF16 and F32", "shape [2] and [3]", "values" */
    bool has_values;     /* with `numeric`, where shapes agree and the types have values */
    double max_abs, mean_abs; /* of a - b; an infinite or NaN difference counts as +Inf */
};

struct mix_comparison {
    const char **only_in_a, **only_in_b; /* names, borrowed */
    size_t only_in_a_count, only_in_b_count;
    struct mix_difference *different;
    size_t different_count;
};

/* Every byte of both is read. `threads` at least 1. */
enum mix_rc mix_compare(const struct mix_checkpoint *a, const struct mix_checkpoint *b,
                        bool numeric, unsigned threads, struct mix_progress *progress,
                        struct mix_comparison *out, struct mix_err *err);
void mix_comparison_release(struct mix_comparison *comparison);

/*
 * Digests of all tensors [first, first + count) of the manifest's list, from their bytes:
 * digest[i] of tensor first + i. *bytes_read grows by what was read.
 */
enum mix_rc mix_compute_digests(const struct mix_checkpoint *ckpt, size_t first, size_t count,
                                unsigned threads, struct mix_progress *progress,
                                unsigned char (*digest)[32], uint64_t *bytes_read,
                                struct mix_err *err);

#endif
