/* shard.c - the containers that shards come in: names, and which code lays them out. */
#include "ckpt/format/shard.h"

static const struct {
    const char *name, *extension;
    enum mix_rc (*layout)(struct mix_shard_piece *piece, size_t count, struct mix_buf *header,
                          uint64_t *file_bytes, struct mix_err *err);
} container_table[] = {
    [MIX_HDF5] = { "hdf5", "h5", mix_h5shard_layout },
    [MIX_SAFETENSORS] = { "safetensors", "safetensors", mix_safetensors_shard_layout },
};

const char *mix_container_name(enum mix_container container)
{
    return container_table[container].name;
}

const char *mix_container_extension(enum mix_container container)
{
    return container_table[container].extension;
}

enum mix_rc mix_shard_layout(enum mix_container container, struct mix_shard_piece *piece,
                             size_t count, struct mix_buf *header, uint64_t *file_bytes,
                             struct mix_err *err)
{
    return container_table[container].layout(piece, count, header, file_bytes, err);
}
