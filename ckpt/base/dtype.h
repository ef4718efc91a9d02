/*
 * dtype.h - the element types of tensors: one table, spelled as safetensors
 * spells them, in the order of safetensors' own enum (its writer sorts by it).
 */
#ifndef MIXCKPT_CKPT_BASE_DTYPE_H
#define MIXCKPT_CKPT_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"

enum mix_dtype {
    MIX_BOOL, MIX_F4, MIX_F6_E2M3, MIX_F6_E3M2, MIX_U8, MIX_I8, MIX_F8_E5M2, MIX_F8_E4M3,
    MIX_F8_E8M0, MIX_F8_E4M3FNUZ, MIX_F8_E5M2FNUZ, MIX_I16, MIX_U16, MIX_F16, MIX_BF16,
    MIX_I32, MIX_U32, MIX_F32, MIX_C64, MIX_F64, MIX_I64, MIX_U64, MIX_DTYPE_COUNT
};

enum { MIX_MAX_RANK = 32 }; /* what HDF5 allows; torch and safetensors set no limit */

const char *mix_dtype_name(enum mix_dtype dtype); /* "BF16" */
unsigned mix_dtype_bits(enum mix_dtype dtype);    /* 16 */

/* Case matters, as in safetensors. False if there is no such type. */
bool mix_dtype_find(const char *name, enum mix_dtype *out);

/*
 * Bytes of a tensor. MIX_BAD_FORMAT if the product wraps, where the product is
 * taken from the left (so [huge, huge, 0] wraps and [0, huge, huge] does not, as
 * in safetensors), or if sub-byte elements do not fill whole bytes.
 */
enum mix_rc mix_dtype_bytes(enum mix_dtype dtype, size_t rank, const uint64_t *shape,
                            uint64_t *bytes, struct mix_err *err);

/*
 * Values that are not finite among `bytes` of elements: how many NaN, how many
 * Inf. Types that have neither count none. `bytes` is a whole number of elements.
 */
void mix_dtype_count_non_finite(enum mix_dtype dtype, const void *data, size_t bytes,
                                uint64_t *nan_count, uint64_t *inf_count);

/*
 * The value of element i of `data` as a double (integers rounded); complex
 * numbers as their magnitude is not useful, so C64 counts as two F32 elements
 * and i runs over both. F4 and F6 have no value here: mix_dtype_has_values().
 */
bool mix_dtype_has_values(enum mix_dtype dtype);
double mix_dtype_value(enum mix_dtype dtype, const void *data, size_t i);

float mix_bf16_to_f32(uint16_t bits);
uint16_t mix_f32_to_bf16(float value); /* to nearest even; NaN stays NaN */
float mix_f16_to_f32(uint16_t bits);
uint16_t mix_f32_to_f16(float value); /* to nearest even; overflow to Inf */

#endif
