/*
 * safetensors.h - one .safetensors file, seen as a list of named tensors.
 *
 *   0        8             data_start                      file_bytes
 *   +--------+-------------+-------------------------------+
 *   | u64 LE | JSON header | tensor bytes, without a hole  |
 *   +--------+-------------+-------------------------------+
 *
 * The header is read and checked whole when the file is opened; tensor bytes are
 * read only when asked for. The JSON counts offsets from data_start; this interface
 * hands out absolute ones, so no caller ever adds data_start itself.
 *
 * Accepts what the reference implementation accepts, and refuses on top: a name that
 * stands twice; a name with bytes below 0x20 or 0x7f; an '@' in a name that does not
 * end in @exp_avg, @exp_avg_sq or @master.
 */
#ifndef MIXCKPT_CKPT_FORMAT_SAFETENSORS_H
#define MIXCKPT_CKPT_FORMAT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"
#include "ckpt/format/tensor.h"

struct mix_store;
struct mix_safetensors; /* opaque, and immutable once open: threads may share it */

/*
 * Open `path` in `store`. On success the caller owns `*out`; `store` is needed only
 * during the call. On failure `*out` is NULL:
 *
 *   MIX_NOT_FOUND   there is no such file
 *   MIX_TRUNCATED   the file ends before its header or its last tensor does
 *   MIX_OVERLAP, MIX_HOLE   tensors share bytes, or leave some to nobody
 *   MIX_BAD_FORMAT  the file breaks the format otherwise; `err` names rule and place
 *   MIX_UNSUPPORTED a tensor with more than MIX_MAX_RANK dimensions
 */
enum mix_rc mix_safetensors_open(struct mix_store *store, const char *path,
                                 struct mix_safetensors **out, struct mix_err *err);

/*
 * The same from the header bytes alone (8 + N of them, the length prefix included),
 * for a file of `file_bytes`; UINT64_MAX: whatever size the header implies.
 */
enum mix_rc mix_safetensors_parse(const void *header, size_t header_len, uint64_t file_bytes,
                                  struct mix_safetensors **out, struct mix_err *err);
void mix_safetensors_close(struct mix_safetensors *st); /* accepts NULL */

/* All tensors in file order (by begin, then by end, then as listed). Lives as long as `st`. */
const struct mix_tensor *mix_safetensors_list(const struct mix_safetensors *st,
                                              size_t *count);
/* The first 8 + N bytes of the file, untouched. Lives as long as `st`. */
const char *mix_safetensors_header(const struct mix_safetensors *st, size_t *len);
uint64_t mix_safetensors_file_bytes(const struct mix_safetensors *st);
/* Text of `__metadata__`[key], or NULL. */
const char *mix_safetensors_metadata(const struct mix_safetensors *st, const char *key);

/*
 * What is allowed but odd, one text each ("unknown field 'x' of tensor 'y'",
 * misaligned data, an empty name, an entry written as an array); NULL-terminated.
 */
const char *const *mix_safetensors_warnings(const struct mix_safetensors *st);

/*
 * Append the header that the reference writer makes for these tensors: sorted by
 * dtype descending, then name; `{"__metadata__":{"format":"pt"},...}`, padded with
 * spaces to a multiple of 8. Sorts `tensor` into file order and sets begin and end,
 * absolute in the file.
 */
enum mix_rc mix_safetensors_write_header(struct mix_tensor *tensor, size_t count,
                                         struct mix_buf *header, struct mix_err *err);

/* True if `name` may name a tensor (see above). Otherwise the words are in `err`. */
enum mix_rc mix_tensor_name_check(const char *name, struct mix_err *err);

#endif
