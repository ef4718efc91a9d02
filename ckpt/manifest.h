/*
 * manifest.h - what a checkpoint holds: its files, its tensors and how they are cut.
 *
 * struct mix_manifest serves every checkpoint, whatever its format; mix_manifest_emit()
 * and _parse() are its one canonical spelling as mixckpt.json (MANIFEST.md).
 */
#ifndef MIXCKPT_CKPT_MANIFEST_H
#define MIXCKPT_CKPT_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"
#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"
#include "ckpt/cut.h"
#include "ckpt/format/shard.h"

enum {
    MIX_PIECE_RECORD_BYTES = 24, /* u32 file, u32 zero, u64 offset, u64 stored bytes */
};

struct mix_mesh {
    uint64_t ep, hsd, tp;
};

struct mix_ckpt_file { /* a file of weights or optimizer state */
    const char *name;  /* relative to the checkpoint */
    uint64_t bytes;
    uint64_t crc64;    /* CRC-64/NVME of the whole file; only of mixckpt checkpoints */
};

struct mix_ckpt_side { /* any other file that belongs to a mixckpt checkpoint */
    const char *name;
    uint64_t bytes;
    unsigned char sha256[32];
};

struct mix_ckpt_tensor {
    const char *name;
    enum mix_dtype dtype;
    uint32_t rank;
    const uint64_t *shape;
    uint64_t bytes;
    struct mix_cut cut;
    uint64_t first_piece;      /* index of its first record in mixckpt.pieces */
    uint64_t first_leaf;       /* index of its first hash in mixckpt.digests */
    unsigned char digest[32];  /* only of mixckpt checkpoints */
    uint32_t file;             /* only of others, where every tensor is whole: */
    uint64_t offset;           /*   its file and place */
};

struct mix_manifest {
    struct mix_arena arena;    /* holds all that the pointers below point to */
    enum mix_container container;
    struct mix_mesh mesh;
    bool has_step;
    uint64_t step;
    const char *model;         /* config.json in canonical spelling, or NULL */
    const char *trainer;       /* state of a training run as JSON, or NULL */
    struct mix_ckpt_file *file;
    size_t file_count;
    struct mix_ckpt_side *side;
    size_t side_count;
    struct mix_ckpt_tensor *tensor; /* sorted by name as bytes */
    size_t tensor_count;
    uint64_t piece_count, leaf_count; /* sums, set by mix_manifest_number() */
    unsigned char self[32];
};

/* Set first_piece and first_leaf of every tensor, and the sums. MIX_BAD_FORMAT if they wrap. */
enum mix_rc mix_manifest_number(struct mix_manifest *m, struct mix_err *err);

/* Append mixckpt.json to `out`; sets m->self. */
enum mix_rc mix_manifest_emit(struct mix_manifest *m, struct mix_buf *out,
                              struct mix_err *err);

/*
 * Parse mixckpt.json. MIX_CORRUPT: the bytes are not those that `self` vouches for.
 * MIX_BAD_FORMAT: a rule is broken, or the spelling is not the canonical one.
 * `m` is zeroed first, and empty on failure; release it with mix_manifest_release().
 */
enum mix_rc mix_manifest_parse(const char *text, size_t len, struct mix_manifest *m,
                               struct mix_err *err);
void mix_manifest_release(struct mix_manifest *m);

/*
 * A path in a checkpoint: relative, no empty part, no "..", UTF-8 without control
 * characters. MIX_BAD_FORMAT if it is not that.
 */
enum mix_rc mix_path_check(const char *path, struct mix_err *err);

/* The tensor of that name, or NULL: binary search. */
struct mix_ckpt_tensor *mix_manifest_find(const struct mix_manifest *m, const char *name);
/* The side file of that name in a manifest that was parsed, or NULL: likewise. */
const struct mix_ckpt_side *mix_manifest_side(const struct mix_manifest *m, const char *name);

#endif
