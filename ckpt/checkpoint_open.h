/* checkpoint_open.h - what checkpoint.c and the openers of the formats share. */
#ifndef MIXCKPT_CKPT_CHECKPOINT_OPEN_H
#define MIXCKPT_CKPT_CHECKPOINT_OPEN_H

#include "ckpt/checkpoint.h"

/* An opening in progress. */
struct mix_opening {
    struct mix_checkpoint *ckpt;
    struct mix_defects *defects; /* may be NULL */
    size_t tensor_capacity, file_capacity;
    struct mix_ckpt_tensor *tensor; /* grown here, then moved into the manifest's arena */
    struct mix_ckpt_file *file;
    size_t tensor_count, file_count;
};

/* A fault of one part: noted as a defect and MIX_OK, or given back with `file` in front. */
enum mix_rc mix_opening_fault(struct mix_opening *o, const char *file, enum mix_rc rc,
                              struct mix_err *err);

/* A Hugging Face folder, or with `only` that one .safetensors file. */
enum mix_rc mix_opening_hf(struct mix_opening *o, const char *only, struct mix_err *err);
/* Afterwards, when all tensors are known: the index against them. */
enum mix_rc mix_opening_hf_index(struct mix_opening *o, struct mix_err *err);
enum mix_rc mix_opening_h5(struct mix_opening *o, const char *only, struct mix_err *err);
enum mix_rc mix_opening_mixckpt(struct mix_opening *o, struct mix_err *err);

/* Parse `config.json` text into m.model and geometry. `path` is for messages. */
enum mix_rc mix_opening_config(struct mix_opening *o, const char *path, const char *text,
                               size_t len, struct mix_err *err);

/* Take the tensors of one file into the list; names are copied. */
struct mix_tensor;
enum mix_rc mix_opening_add(struct mix_opening *o, const char *file, uint64_t file_bytes,
                            const struct mix_tensor *tensor, size_t count,
                            struct mix_err *err);

bool mix_has_ending(const char *name, const char *ending);
/* True for what never travels as a file: weights by their ending. */
bool mix_is_weight_file(const char *name);
/*
 * Whether a file beside the weights can travel under this name: not those of weights and
 * of their index, nor those that the folder it travels in needs itself.
 */
bool mix_is_carried_name(const char *name);

enum {
    MIX_CARRIED_LIMIT = 64 << 20,  /* larger files beside the weights are left out */
    MIX_CONFIG_LIMIT = 16 << 20,
    MIX_INDEX_LIMIT = 100 << 20,
};

#endif
