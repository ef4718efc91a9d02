/*
 * checkpoint.h - the one door in: open what a URL holds, list its tensors under their
 * Hugging Face names, and read any bytes of any tensor in row-major order.
 *
 *   mixckpt.json                       a mixckpt checkpoint
 *   model.safetensors[.index.json]     a Hugging Face folder
 *   a file                             one .safetensors or .h5
 *
 * is found by looking. The weights of an index are the files it names; other weights
 * beside it are left out, and said so once in the warnings.
 */
#ifndef MIXCKPT_CKPT_CHECKPOINT_H
#define MIXCKPT_CKPT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/defect.h"
#include "ckpt/manifest.h"
#include "ckpt/names/geometry.h"

struct mix_store;
struct mix_safetensors;

enum mix_form { MIX_FORM_HF, MIX_FORM_MIXCKPT, MIX_FORM_SAFETENSORS, MIX_FORM_HDF5 };
const char *mix_form_name(enum mix_form form); /* "hf", "mixckpt", ... */

/* A weight file of the Hugging Face folder that the tensors came from once. */
struct mix_origin_file {
    const char *name;               /* "model-00001-of-00019.safetensors" */
    struct mix_safetensors *header; /* its header, parsed and untouched */
};

/* A file to carry along: beside the weights in a Hugging Face folder, under hf/ in ours. */
struct mix_carried_file {
    const char *name; /* "tokenizer.json" */
    const char *path; /* where it lies in the checkpoint */
    uint64_t bytes;
};

struct mix_checkpoint {
    enum mix_form form;
    struct mix_store *store;
    struct mix_manifest m;
    struct mix_geometry geometry;   /* of m.model; all zero without one */
    struct mix_origin_file *origin;
    size_t origin_count;
    const char *index;              /* text of model.safetensors.index.json, or NULL */
    size_t index_len;
    struct mix_carried_file *carried; /* sorted by name */
    size_t carried_count;
    struct mix_texts warnings;
};

/*
 * Open `url`. With `defects`, what is wrong with a part goes into that list and the
 * rest is opened all the same (for `verify`); without, it is an error:
 *
 *   MIX_NOT_FOUND   nothing is there, or nothing that could be a checkpoint
 *   MIX_BAD_FORMAT, MIX_TRUNCATED, ...   a header, index or config.json is broken
 *
 * The caller owns *out. Its struct is read-only from then on, and threads may share it.
 */
enum mix_rc mix_checkpoint_open(const char *url, struct mix_defects *defects,
                                struct mix_checkpoint **out, struct mix_err *err);
/* The same in a store that is open, which the checkpoint takes over, also if this fails. */
enum mix_rc mix_checkpoint_open_in(struct mix_store *store, struct mix_defects *defects,
                                   struct mix_checkpoint **out, struct mix_err *err);
void mix_checkpoint_close(struct mix_checkpoint *ckpt); /* accepts NULL */

/*
 * Check the tensors against the model's table: everything that its config.json implies
 * must be there, in the right shape; what no rule knows is named in the warnings. A
 * fault is an error, or with `defects` a defect each.
 */
enum mix_rc mix_checkpoint_check_model(struct mix_checkpoint *ckpt,
                                       struct mix_defects *defects, struct mix_err *err);

/* Where piece `part` (row part * column parts + column part) of a tensor lies. */
struct mix_place {
    uint32_t file;       /* index in m.file */
    uint64_t offset, bytes;
};

/* One thread's way of reading: holds scratch memory, and windows of what is read next. */
struct mix_reader {
    const struct mix_checkpoint *ckpt;
    unsigned char *scratch;
    unsigned char *record;             /* window of mixckpt.pieces */
    uint64_t record_first, record_count;
    unsigned char *ahead;              /* window of a weight file, for small reads in order */
    uint32_t ahead_file;
    uint64_t ahead_begin, ahead_end;   /* the bytes that it holds; none if they are equal */
    uint64_t last_end;                 /* where the last read of ahead_file ended */
    uint64_t bytes_read;               /* of tensors, so far */
};
enum mix_rc mix_reader_init(struct mix_reader *reader, const struct mix_checkpoint *ckpt,
                            struct mix_err *err);
void mix_reader_release(struct mix_reader *reader);

/* Where a piece lies; checked against the file's size and the piece's box. */
enum mix_rc mix_reader_place(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                             uint64_t part, struct mix_place *out, struct mix_err *err);

/*
 * Which file holds the wrong bytes of a leaf (digest_tree.h) that is known to be wrong:
 * of those that it lies in, the first that is_bad() says so of, else the first.
 */
enum mix_rc mix_reader_blame(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                             uint64_t leaf, bool (*is_bad)(void *context, uint32_t file),
                             void *context, uint32_t *file, struct mix_err *err);

/* Bytes [begin, end) of the tensor's row-major bytes. */
enum mix_rc mix_reader_read(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                            uint64_t begin, uint64_t end, void *buf, struct mix_err *err);

#endif
