/*
 * shard.h - how a shard file is laid out, as a pure function of its pieces.
 *
 *   0                header.len       offset[0]       offset[1]           file_bytes
 *   +----------------+----------------+---------------+-------------------+
 *   | header         | zeros          | piece 0       | zeros, piece 1 ...|
 *   +----------------+----------------+---------------+-------------------+
 *
 * Both containers look like this: all metadata stands in front, so offsets are
 * known before a byte of data is, files can be written in any order by raw writes,
 * and a reader can check a header by making it again and comparing the bytes.
 */
#ifndef MIXCKPT_CKPT_FORMAT_SHARD_H
#define MIXCKPT_CKPT_FORMAT_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"
#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

enum mix_container { MIX_HDF5, MIX_SAFETENSORS };

const char *mix_container_name(enum mix_container container);      /* "hdf5" */
const char *mix_container_extension(enum mix_container container); /* "h5", "safetensors" */

/* One piece: the box [start, start + shape) of a tensor of shape tensor_shape. */
struct mix_shard_piece {
    const char *name;             /* the tensor's */
    enum mix_dtype dtype;
    uint32_t rank;
    const uint64_t *shape;        /* the piece's */
    const uint64_t *start;
    const uint64_t *tensor_shape;
    uint64_t bytes;               /* the piece's */
    uint64_t offset;              /* out: where its bytes begin in the file */
};

/*
 * Lay out `count` pieces, which stand sorted by name as bytes (strictly: a name
 * occurs once a file): append the header to `header` (empty before), set each
 * piece's offset and the size of the file. Pieces keep their order in the file and
 * everything that neither header nor pieces cover is zero.
 *
 *   HDF5: offsets are multiples of 4096 (H5SHARD.md has every byte).
 *   safetensors: no gaps; `__metadata__` carries DCP_SHARDING_INFO.
 */
enum mix_rc mix_shard_layout(enum mix_container container, struct mix_shard_piece *piece,
                             size_t count, struct mix_buf *header, uint64_t *file_bytes,
                             struct mix_err *err);

/* The two behind it, each in its own file. */
enum mix_rc mix_h5shard_layout(struct mix_shard_piece *piece, size_t count,
                               struct mix_buf *header, uint64_t *file_bytes,
                               struct mix_err *err);
enum mix_rc mix_safetensors_shard_layout(struct mix_shard_piece *piece, size_t count,
                                         struct mix_buf *header, uint64_t *file_bytes,
                                         struct mix_err *err);

#endif
