/*
 * change_dtype.h - --dtype: weights of BF16, F16 and F32 become one of these as they
 * pass, rounded to nearest even; where a weight has an @master, that is what is rounded.
 */
#ifndef MIXCKPT_RESHARD_CHANGE_DTYPE_H
#define MIXCKPT_RESHARD_CHANGE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"
#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

/* True if values of `from` can become `to`: both among BF16, F16 and F32, and not the same. */
bool mix_dtype_can_change(enum mix_dtype from, enum mix_dtype to);

/* `count` values. Returns how many finite ones became infinite. */
uint64_t mix_dtype_change(enum mix_dtype from, const void *data, enum mix_dtype to, void *out,
                          size_t count);

/*
 * Append the text of a config.json with its `dtype` and `torch_dtype` replaced where they
 * stand, and not another byte changed. The text is known to be a JSON object.
 */
enum mix_rc mix_config_change_dtype(const char *text, size_t len, enum mix_dtype dtype,
                                    struct mix_buf *out, struct mix_err *err);

#endif
