/*
 * The digest of a tensor: the tree against the recursion of RFC 6962, 2.1, as it is
 * written there, and digests that docs/digest.md and its Python script give.
 */
#include "ckpt/digest_tree.h"

#include <stdlib.h>

#include "tests/support/test.h"

/* MTH(D[n]), from the leaves' hashes on. */
static void defined_root(const unsigned char (*leaf)[32], size_t n, unsigned char root[32])
{
    unsigned char both[2][32];
    struct mix_sha256 sha;
    size_t k = 1;

    if (n == 0) {
        mix_sha256(NULL, 0, root);
        return;
    }
    if (n == 1) {
        memcpy(root, leaf[0], 32);
        return;
    }
    while (2 * k < n)
        k *= 2; /* the largest power of two smaller than n */
    defined_root(leaf, k, both[0]);
    defined_root(leaf + k, n - k, both[1]);
    mix_sha256_init(&sha);
    mix_sha256_put(&sha, "\1", 1);
    mix_sha256_put(&sha, both, 64);
    mix_sha256_end(&sha, root);
}

static void test_digest_tree__root_is_that_of_rfc_6962(void **state)
{
    enum { MANY = 130 };
    unsigned char leaf[MANY][32], root[32], expected[32];
    struct mix_merkle tree = MIX_MERKLE_INIT;

    (void)state;
    for (size_t n = 0; n <= MANY; n++) {
        mix_merkle_root(&tree, root); /* may be asked at any time */
        defined_root((const unsigned char (*)[32])leaf, n, expected);
        assert_memory_equal(root, expected, 32);
        assert_int_equal(tree.count, n);
        if (n < MANY) {
            mix_sha256(&n, sizeof n, leaf[n]);
            mix_merkle_put(&tree, leaf[n]);
        }
    }
}

/* The subtree of 2^63 leaves is the last that a tree can have. */
static void test_digest_tree__joins_subtrees_of_each_height(void **state)
{
    struct mix_merkle tree = { .count = 1ull << 63 | 1 };
    unsigned char root[32], expected[32];

    (void)state;
    memset(tree.node[63], 0x5a, 32);
    memset(tree.node[0], 0xa5, 32);
    mix_sha256_node(tree.node[63], tree.node[0], expected);
    mix_merkle_root(&tree, root);
    assert_memory_equal(root, expected, 32);
    tree.count = 1ull << 63;
    mix_merkle_root(&tree, root);
    assert_memory_equal(root, tree.node[63], 32);
}

static void test_digest_tree__counts_leaves(void **state)
{
    static const uint64_t rows[][2] = {
        { 0, 0 }, { 1, 1 }, { 65535, 1 }, { 65536, 1 }, { 65537, 2 }, { 131072, 2 },
        { 163840, 3 }, { UINT64_MAX, 1ull << 48 },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(rows); i++)
        assert_int_equal(mix_leaf_count(rows[i][0]), rows[i][1]);
}

/* The example of docs/digest.md. */
static const struct {
    enum mix_dtype dtype;
    size_t rank, bytes;
    uint64_t shape[2];
    unsigned char start[4];
    const char *digest;
} example[] = {
    { MIX_F16, 2, 0, { 0, 4 }, { 0 },
      "3b070fa7c79033f4ba229fc625ff01a6360f5a3d9ac50f97df373dbc9d9346fe" },
    { MIX_BF16, 2, 163840, { 5, 16384 }, { 0, 1, 2, 3 },
      "52960812bd7933995325a76c15d1f9bea111b86779310aee374719888fb19dc2" },
    { MIX_F32, 0, 4, { 0 }, { 0x00, 0x00, 0x80, 0x3f },
      "05d317fb4eb406d6e0b375bf0d07b7a0e8d8a54da45630c3c954c5ab9fd7eca4" },
    { MIX_F32, 0, 4, { 0 }, { 0x00, 0x00, 0x00, 0x3f },
      "424012ce0718b25574c6902bc1a53e3585f1c7647501f89e589f074d63c5d421" },
};

static void test_digest_tree__gives_the_documented_digests(void **state)
{
    (void)state;
    for (size_t k = 0; k < MIX_ARRAY_LEN(example); k++) {
        unsigned char data[163840], root[32], digest[32];
        struct mix_merkle tree = MIX_MERKLE_INIT;
        char hex[MIX_SHA256_HEX];

        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (unsigned char)(i % 251);
        memcpy(data, example[k].start, 4);
        for (size_t at = 0; at < example[k].bytes; at += MIX_LEAF_BYTES) {
            size_t len = mix_min(MIX_LEAF_BYTES, example[k].bytes - at);
            unsigned char leaf[32];
            struct mix_sha256_job job = { data + at, len, leaf };

            mix_sha256_prefixed(0x00, &job, 1);
            mix_merkle_put(&tree, leaf);
        }
        mix_merkle_root(&tree, root);
        mix_tensor_digest(example[k].dtype, example[k].rank, example[k].shape, root, digest);
        mix_hex(digest, 32, hex);
        assert_string_equal(hex, example[k].digest);
    }
}

static void test_digest_tree__spells_shapes(void **state)
{
    char text[MIX_SHAPE_TEXT];
    uint64_t largest[MIX_MAX_RANK];

    (void)state;
    assert_string_equal(mix_shape_text(0, NULL, text), "[]");
    assert_string_equal(mix_shape_text(1, (uint64_t[]){ 4096 }, text), "[4096]");
    assert_string_equal(mix_shape_text(3, (uint64_t[]){ 4096, 0, 14336 }, text), "[4096,0,14336]");
    for (int i = 0; i < MIX_MAX_RANK; i++)
        largest[i] = UINT64_MAX;
    assert_ptr_equal(mix_shape_text(MIX_MAX_RANK, largest, text), text);
    assert_int_equal(strlen(text), 32 * 20 + 31 + 2);
    assert_string_equal(text + strlen(text) - 22, ",18446744073709551615]");
}

/* The longest text of all fits, too. */
static void test_digest_tree__takes_the_largest_shape(void **state)
{
    unsigned char root[32] = { 0 }, digest[32], expected[32];
    char text[MIX_SHAPE_TEXT], line[1024];
    uint64_t largest[MIX_MAX_RANK];

    (void)state;
    for (int i = 0; i < MIX_MAX_RANK; i++)
        largest[i] = UINT64_MAX;
    mix_shape_text(MIX_MAX_RANK, largest, text);

    int len = snprintf(line, sizeof line, "mixckpt-tensor-v1\nF8_E4M3FNUZ\n%s\n", text);

    memcpy(line + len, root, 32);
    mix_sha256(line, (size_t)len + 32, expected);
    mix_tensor_digest(MIX_F8_E4M3FNUZ, MIX_MAX_RANK, largest, root, digest);
    assert_memory_equal(digest, expected, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest_tree__root_is_that_of_rfc_6962),
        cmocka_unit_test(test_digest_tree__joins_subtrees_of_each_height),
        cmocka_unit_test(test_digest_tree__counts_leaves),
        cmocka_unit_test(test_digest_tree__gives_the_documented_digests),
        cmocka_unit_test(test_digest_tree__spells_shapes),
        cmocka_unit_test(test_digest_tree__takes_the_largest_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
