/* fuzz_h5shard.c - any bytes as an HDF5 file: refused, or a list that keeps its word. */
#include <stdlib.h>
#include <string.h>

#include "ckpt/format/h5shard.h"
#include "ckpt/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* What the reader promises of every tensor that it hands out. */
static void check_tensor(const struct mix_h5shard *h5, size_t i, const struct mix_tensor *t,
                         size_t file_bytes)
{
    const uint64_t *start = mix_h5shard_start(h5, i);
    const uint64_t *tensor_shape = mix_h5shard_tensor_shape(h5, i);
    uint64_t bytes;

    require(t->begin <= t->end && t->end <= file_bytes && t->rank <= MIX_MAX_RANK);
    require(!mix_dtype_bytes(t->dtype, t->rank, t->shape, &bytes, NULL));
    require(bytes == t->end - t->begin);
    require(!start == !tensor_shape);
    for (uint32_t k = 0; start && k < t->rank; k++)
        require(start[k] <= tensor_shape[k] && t->shape[k] <= tensor_shape[k] - start[k]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mix_store *store;
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };
    size_t count;

    require(!mix_store_open_memory(&store, &err));
    require(!mix_store_memory_put(store, "x.h5", data, size, &err));
    if (mix_h5shard_open(store, "x.h5", &h5, &err)) {
        require(!h5 && !strncmp(err.text, "x.h5: ", 6));
    } else {
        const struct mix_tensor *t = mix_h5shard_list(h5, &count);

        for (size_t i = 0; i < count; i++) {
            require(!i || strcmp(t[i - 1].name, t[i].name) < 0);
            check_tensor(h5, i, &t[i], size);
        }
    }
    mix_h5shard_close(h5);
    mix_store_close(store);
    return 0;
}
