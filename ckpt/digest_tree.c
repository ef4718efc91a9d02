/*
 * digest_tree.c - the Merkle tree over leaves that come in order, and the digest that
 * binds dtype and shape to its root.
 *
 * Bit k of the number of leaves so far says whether a perfect subtree of 2^k leaves
 * waits in node[k]; a new leaf is carried into them as 1 is carried into a binary
 * number. RFC 6962 splits at the largest power of two below n, so its left subtrees
 * are the perfect ones, largest first: the root joins what waits from the right.
 */
#include "ckpt/digest_tree.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void mix_merkle_put(struct mix_merkle *tree, const unsigned char leaf[32])
{
    unsigned char node[32];
    int level = 0;

    memcpy(node, leaf, 32);
    for (; tree->count >> level & 1; level++)
        mix_sha256_node(tree->node[level], node, node);
    memcpy(tree->node[level], node, 32);
    tree->count++;
}

void mix_merkle_root(const struct mix_merkle *tree, unsigned char root[32])
{
    int level = 0;

    if (!tree->count) {
        mix_sha256("", 0, root);
        return;
    }
    while (!(tree->count >> level & 1))
        level++;
    memcpy(root, tree->node[level], 32);
    while (++level < 64)
        if (tree->count >> level & 1)
            mix_sha256_node(tree->node[level], root, root);
}

void mix_tensor_digest(enum mix_dtype dtype, size_t rank, const uint64_t *shape,
                       const unsigned char root[32], unsigned char digest[32])
{
    char text[128 + MIX_SHAPE_TEXT], shape_text[MIX_SHAPE_TEXT];
    struct mix_sha256 sha;
    int len = snprintf(text, sizeof text, "mixckpt-tensor-v1\n%s\n%s\n",
                       mix_dtype_name(dtype), mix_shape_text(rank, shape, shape_text));

    assert(len > 0 && (size_t)len < sizeof text);
    mix_sha256_init(&sha);
    mix_sha256_put(&sha, text, (size_t)len);
    mix_sha256_put(&sha, root, 32);
    mix_sha256_end(&sha, digest);
}

char *mix_shape_text(size_t rank, const uint64_t *shape, char out[MIX_SHAPE_TEXT])
{
    size_t len = 0;

    assert(rank <= MIX_MAX_RANK); /* every reader refuses more */
    out[len++] = '[';
    for (size_t i = 0; i < rank; i++)
        len += (size_t)sprintf(out + len, i ? ",%" PRIu64 : "%" PRIu64, shape[i]);
    memcpy(out + len, "]", 2);
    return out;
}
