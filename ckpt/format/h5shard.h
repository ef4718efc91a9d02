/*
 * h5shard.h - one HDF5 file, seen as a list of named tensors.
 *
 * A strict reader of the HDF5 that shards are made of, and that h5py writes by
 * default: superblock version 0, groups as symbol tables, object headers version 1
 * (with continuations), contiguous little-endian datasets without filters. Groups may
 * nest: a dataset /a/b is the tensor "a/b". Attributes `name`, `dtype` and `shape`
 * override, as H5SHARD.md says. Whatever else HDF5 can express (links that leave the
 * file, virtual and external storage, chunks, filters, newer group formats) is
 * refused by name as MIX_UNSUPPORTED; nothing of the file is trusted.
 */
#ifndef MIXCKPT_CKPT_FORMAT_H5SHARD_H
#define MIXCKPT_CKPT_FORMAT_H5SHARD_H

#include <stddef.h>

#include "ckpt/base/err.h"
#include "ckpt/format/tensor.h"

struct mix_store;
struct mix_h5shard; /* opaque, and immutable once open */

enum mix_rc mix_h5shard_open(struct mix_store *store, const char *path,
                             struct mix_h5shard **out, struct mix_err *err);
void mix_h5shard_close(struct mix_h5shard *h5); /* accepts NULL */

/* Sorted by name as bytes. Lives as long as `h5`. */
const struct mix_tensor *mix_h5shard_list(const struct mix_h5shard *h5, size_t *count);

/* In a shard, tensor i is the box that starts here in a tensor of this shape; NULL if not said. */
const uint64_t *mix_h5shard_start(const struct mix_h5shard *h5, size_t i);
const uint64_t *mix_h5shard_tensor_shape(const struct mix_h5shard *h5, size_t i);

#endif
