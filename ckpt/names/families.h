/*
 * families.h - what the tensors of a model are called, as data: one table a family.
 * A new family is a new table.
 */
#ifndef MIXCKPT_CKPT_NAMES_FAMILIES_H
#define MIXCKPT_CKPT_NAMES_FAMILIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

struct mix_geometry;

/* How tensor parallelism cuts a tensor. */
enum mix_tp_cut { MIX_TP_NONE, MIX_TP_ROWS /* dimension 0 */, MIX_TP_COLUMNS /* dimension 1 */ };

/* Sizes that a shape is made of; the products that occur have a symbol of their own. */
enum mix_size {
    MIX_SIZE_NONE, MIX_SIZE_HIDDEN, MIX_SIZE_INTERMEDIATE, MIX_SIZE_VOCAB, MIX_SIZE_EXPERTS,
    MIX_SIZE_Q /* heads * head_dim */, MIX_SIZE_KV /* kv_heads * head_dim */
};

enum mix_init { MIX_INIT_NORMAL, MIX_INIT_ONE };

struct mix_family_tensor {
    const char *pattern;    /* "model.layers.{L}.self_attn.q_proj.weight"; {L} layer, {E} expert */
    enum mix_size shape[2]; /* the second MIX_SIZE_NONE for vectors */
    enum mix_tp_cut tp;
    enum mix_init init;
    bool untied_only;       /* absent when the embeddings are tied (lm_head) */
};

struct mix_family {
    const char *model_type;
    const struct mix_family_tensor *tensor;
    size_t tensor_count;
};

/* The table of a model type, or NULL. */
const struct mix_family *mix_family_find(const char *model_type);

/* What a name means in a family. */
struct mix_name_match {
    const struct mix_family_tensor *tensor; /* NULL: no rule knows this name */
    bool has_layer, has_expert;
    uint64_t layer, expert;
};

/*
 * Match a weight's name (without an optimizer suffix). Numbers are decimal without
 * leading zeros. Whether layer and expert lie in range is not checked here.
 */
void mix_family_match(const struct mix_family *family, const char *name, size_t name_len,
                      struct mix_name_match *out);

/* The sizes of one table row under a geometry: rank 1 or 2. */
size_t mix_family_shape(const struct mix_family_tensor *tensor,
                        const struct mix_geometry *geometry, uint64_t shape[2]);

/*
 * Call `each` for every tensor that a model of this geometry has, layer by layer and
 * expert by expert in table order, until it returns anything but MIX_OK.
 */
enum mix_rc mix_family_walk(const struct mix_geometry *geometry,
                            enum mix_rc (*each)(void *context, const char *name,
                                                const struct mix_family_tensor *tensor,
                                                struct mix_err *err),
                            void *context, struct mix_err *err);

/*
 * Optimizer state carries its weight's name with a suffix. Returns the length of the
 * weight's name, and the suffix ("@exp_avg", ...) in *suffix, or NULL if it is a weight.
 */
size_t mix_name_split(const char *name, const char **suffix);

#endif
