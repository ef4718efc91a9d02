/*
 * digest_tree.h - the digest of a tensor, the same in every layout.
 *
 * A tensor's row-major little-endian bytes are cut into leaves of 65,536 bytes (the
 * last may be shorter; no bytes, no leaf). The tree over them is RFC 6962's Merkle
 * Tree Hash with SHA-256, and the tensor's digest binds dtype and shape to the root.
 * docs/digest.md is the definition for everyone.
 */
#ifndef MIXCKPT_CKPT_DIGEST_TREE_H
#define MIXCKPT_CKPT_DIGEST_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"
#include "ckpt/base/hash.h"

enum { MIX_LEAF_BYTES = 65536 };

/* Number of leaves of a tensor of that many bytes. */
static inline uint64_t mix_leaf_count(uint64_t bytes)
{
    return bytes / MIX_LEAF_BYTES + (bytes % MIX_LEAF_BYTES != 0);
}

/*
 * The root over leaf hashes that come in order, in constant memory: a stack of the
 * perfect subtrees seen so far, at most one a level.
 */
struct mix_merkle {
    unsigned char node[64][32];
    uint64_t count;
};
#define MIX_MERKLE_INIT { .count = 0 }
void mix_merkle_put(struct mix_merkle *tree, const unsigned char leaf[32]);
void mix_merkle_root(const struct mix_merkle *tree, unsigned char root[32]);

/* SHA-256("mixckpt-tensor-v1\n" || dtype || "\n" || shape || "\n" || root). */
void mix_tensor_digest(enum mix_dtype dtype, size_t rank, const uint64_t *shape,
                       const unsigned char root[32], unsigned char digest[32]);

enum { MIX_SHAPE_TEXT = 32 * 21 + 3 };
/* "[4096,14336]", "[]" for a scalar. Returns `out`. */
char *mix_shape_text(size_t rank, const uint64_t *shape, char out[MIX_SHAPE_TEXT]);

#endif
