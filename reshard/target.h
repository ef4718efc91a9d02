/*
 * target.h - what a job is to make: the tensors of the new checkpoint, its files, and
 * what goes where in them. Pure: no file and no clock is touched.
 *
 * A target lists its tensors and files in `m` and hands out its groups (stream.h) one
 * at a time, made when they are asked for: a checkpoint with millions of pieces is
 * never spelled out whole.
 */
#ifndef MIXCKPT_RESHARD_TARGET_H
#define MIXCKPT_RESHARD_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/checkpoint.h"
#include "ckpt/manifest.h"
#include "ckpt/stream.h"

struct mix_target {
    struct mix_manifest m;        /* tensors with their cuts; names of the files */
    bool is_hf;                   /* a Hugging Face folder, otherwise a mixckpt one */
    size_t group_count;
    uint64_t *group_bytes;        /* of its items */
    uint64_t bytes;               /* of all tensors */
    uint64_t tail_bytes;          /* read once more, for leaves that end in another piece */
    const char *remade;           /* hf: why the files are not those that came in, or NULL */

    enum mix_rc (*build)(const struct mix_target *target, size_t g, struct mix_group *group,
                         struct mix_err *err);
    void (*release)(struct mix_target *target);
    void *own;                    /* of the kind of target */
};

/*
 * Begin a target: take over from `list` the tensors to be made (name, dtype, shape),
 * which need not live longer; without those of optimizer state, if so wanted.
 */
enum mix_rc mix_target_take(struct mix_target *target, const struct mix_manifest *list,
                            bool weights_only, struct mix_err *err);
/* Make weights of BF16, F16 and F32 of this type (change_dtype.h). Right after taking. */
enum mix_rc mix_target_change_dtype(struct mix_target *target, enum mix_dtype dtype,
                                    struct mix_err *err);
void mix_target_release(struct mix_target *target);

/*
 * Shards on a mesh, cut as the rules say (layout.c). MIX_USAGE names the degree that
 * does not fit, and those that would.
 */
enum mix_rc mix_target_shards(struct mix_target *target, const struct mix_geometry *geometry,
                              enum mix_container container, const struct mix_mesh *mesh,
                              struct mix_err *err);

/*
 * A Hugging Face folder: with `origin`, the weight files that once came in, if they hold
 * exactly these tensors, dtypes and shapes; otherwise, or with max_shard_bytes, files as
 * transformers cuts them.
 */
enum mix_rc mix_target_hf(struct mix_target *target, const struct mix_origin_file *origin,
                          size_t origin_count, uint64_t max_shard_bytes,
                          struct mix_err *err);

enum { MIX_DEFAULT_SHARD_GB = 50 }; /* transformers 5 */

/* Bytes that a rank of the mesh holds in memory: its share of all that is cut, and all else. */
uint64_t mix_target_rank_bytes(const struct mix_target *target, uint64_t ep, uint64_t hsd,
                               uint64_t tp);

/* Degrees that would be legal, for messages: "1, 2, 4 and 8". */
const char *mix_divisors_text(uint64_t number, char out[256]);

#endif
