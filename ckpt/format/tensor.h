/*
 * tensor.h - one named tensor in one file, as a format reader hands it out.
 * Offsets are absolute in the file; a reader has checked that they lie in it.
 */
#ifndef MIXCKPT_CKPT_FORMAT_TENSOR_H
#define MIXCKPT_CKPT_FORMAT_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"

struct mix_tensor {
    const char *name;       /* UTF-8, no byte below 0x20, no 0x7f */
    enum mix_dtype dtype;
    uint32_t rank;
    const uint64_t *shape;  /* `rank` sizes, outermost first; NULL for rank 0 */
    uint64_t begin, end;    /* bytes [begin, end) of the file */
};

#endif
