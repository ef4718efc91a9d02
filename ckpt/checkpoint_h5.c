/* checkpoint_h5.c - open one HDF5 file as a checkpoint: a shard, or h5py's. */
#include <string.h>

#include "ckpt/checkpoint_open.h"
#include "ckpt/format/h5shard.h"
#include "ckpt/store/store.h"

/* A shard named alone shows its pieces, and says that they are pieces. */
static enum mix_rc warn_of_pieces(struct mix_opening *o, const struct mix_h5shard *h5,
                                  const struct mix_tensor *tensor, size_t count,
                                  struct mix_err *err)
{
    size_t pieces = 0;

    for (size_t i = 0; i < count; i++) {
        const uint64_t *whole = mix_h5shard_tensor_shape(h5, i);

        pieces += whole && tensor[i].rank &&
                  memcmp(whole, tensor[i].shape, tensor[i].rank * sizeof *whole) != 0;
    }
    return pieces ? mix_texts_add(&o->ckpt->warnings, err,
                                  "%zu of %zu datasets are pieces of larger tensors; open the "
                                  "checkpoint that this file belongs to for the whole",
                                  pieces, count)
                  : MIX_OK;
}

enum mix_rc mix_opening_h5(struct mix_opening *o, const char *only, struct mix_err *err)
{
    struct mix_h5shard *h5 = NULL;
    const struct mix_tensor *tensor;
    struct mix_stat st;
    size_t count;
    enum mix_rc rc;

    o->ckpt->form = MIX_FORM_HDF5;
    o->ckpt->m.container = MIX_HDF5;
    if ((rc = mix_h5shard_open(o->ckpt->store, only, &h5, err)))
        return o->defects ? mix_defects_take(o->defects, only, rc, err) : rc;
    tensor = mix_h5shard_list(h5, &count);
    if ((rc = mix_store_stat(o->ckpt->store, only, &st, err)) ||
        (rc = mix_opening_add(o, only, st.bytes, tensor, count, err)))
        mix_err_file(err, only);
    else
        rc = warn_of_pieces(o, h5, tensor, count, err);
    mix_h5shard_close(h5);
    return rc;
}
