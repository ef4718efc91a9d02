/*
 * inventory.h - the files of a checkpoint that exists, as groups of items (stream.h): so
 * that every byte of every file is walked once, in order.
 *
 * For a mixckpt checkpoint the records of mixckpt.pieces say where the pieces lie; files
 * that hold column parts of the same rows are one group. For any other, every file is a
 * group of whole tensors. Memory: four bytes a piece.
 */
#ifndef MIXCKPT_CKPT_INVENTORY_H
#define MIXCKPT_CKPT_INVENTORY_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/checkpoint.h"
#include "ckpt/stream.h"

struct mix_inventory {
    const struct mix_checkpoint *ckpt;
    size_t group_count;
    uint64_t *group_bytes;
    size_t *first;       /* group_count + 1 places in `unit` */
    uint32_t *unit;      /* units (row parts of tensors, all columns) by group, in order */
    uint64_t *first_unit; /* of each tensor, and one behind the last */
    uint32_t *group_of_file;
    size_t *first_file;  /* group_count + 1 places in `file` */
    uint32_t *file;      /* files by group, in order */
};

/*
 * Read all records once and sort. With `defects`, a record that is wrong is noted there,
 * and its unit left out.
 */
enum mix_rc mix_inventory_init(struct mix_inventory *inventory,
                               const struct mix_checkpoint *ckpt, struct mix_defects *defects,
                               struct mix_err *err);
void mix_inventory_release(struct mix_inventory *inventory);

/* Group g. Files carry their index in m.file as id; headers are left empty. */
enum mix_rc mix_inventory_build(const struct mix_inventory *inventory,
                                struct mix_reader *reader, size_t g, struct mix_group *group,
                                struct mix_err *err);

/*
 * What file f of a group of a mixckpt checkpoint must begin with, and its size, made from
 * the pieces that the group says lie in it. MIX_BAD_FORMAT if they do not lie where a
 * shard has them.
 */
enum mix_rc mix_inventory_header(const struct mix_inventory *inventory,
                                 const struct mix_group *group, size_t f,
                                 struct mix_buf *header, struct mix_err *err);

#endif
