/*
 * geometry.h - the sizes of a model, from its config.json.
 */
#ifndef MIXCKPT_CKPT_NAMES_GEOMETRY_H
#define MIXCKPT_CKPT_NAMES_GEOMETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"
#include "ckpt/base/err.h"

/* Zero where config.json does not say. */
struct mix_geometry {
    char model_type[64];        /* "mixtral", or what config.json says, or "" */
    const struct mix_family *family; /* families.h; NULL for a type that no table knows */
    uint64_t hidden, intermediate, layers, heads, kv_heads, head_dim, experts, topk, vocab;
    double initializer_range;   /* default 0.02 */
    bool tied;                  /* tie_word_embeddings; default false */
    bool has_dtype;             /* torch_dtype or dtype was there and is known */
    enum mix_dtype dtype;
};

/*
 * Parse the text of a config.json (transformers 4 or 5). A model type that no table
 * knows is no error: only its name is taken. For a known one the sizes must be there,
 * be positive, at most 2^31, and fit together (heads a multiple of kv_heads,
 * topk <= experts); MIX_BAD_FORMAT names the field, what it holds and what is legal.
 */
enum mix_rc mix_geometry_parse(const char *text, size_t len, struct mix_geometry *out,
                               struct mix_err *err);

#endif
