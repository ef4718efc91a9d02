/*
 * digest.h - the lines of `mixckpt digest`, and the two digests over them (docs/digest.md).
 */
#ifndef MIXCKPT_CKPT_DIGEST_H
#define MIXCKPT_CKPT_DIGEST_H

#include <stdbool.h>

#include "ckpt/base/hash.h"
#include "ckpt/base/mem.h"
#include "ckpt/manifest.h"

/* "<digest hex>  <dtype>  <shape>  <name>\n", appended to `out`. */
enum mix_rc mix_digest_line(const struct mix_ckpt_tensor *tensor, struct mix_buf *out,
                            struct mix_err *err);

struct mix_digests {
    char model[MIX_SHA256_HEX];
    char optimizer[MIX_SHA256_HEX];
    bool has_optimizer; /* there is optimizer state */
};

/* Over the digests that stand in the tensors of `m`. */
enum mix_rc mix_digest_totals(const struct mix_manifest *m, struct mix_digests *out,
                              struct mix_err *err);

#endif
