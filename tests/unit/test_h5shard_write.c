/*
 * HDF5 shards, written: the bytes that H5SHARD.md promises, links that can be found as
 * libhdf5 finds them, and data where the header says. h5py and h5dump read such files
 * in tests/interop/test_h5shard.py.
 */
#include <stdlib.h>

#include "ckpt/base/hash.h"
#include "ckpt/format/h5parts.h"
#include "ckpt/format/shard.h"

#include "tests/support/test.h"

static const uint64_t zeros[MIX_MAX_RANK + 1];

/* A whole tensor as one piece. */
static struct mix_shard_piece whole(const char *name, enum mix_dtype dtype, uint32_t rank,
                                    const uint64_t *shape)
{
    struct mix_shard_piece piece = { name, dtype, rank, shape, zeros, shape, 0, 0 };

    mix_dtype_bytes(dtype, rank, shape, &piece.bytes, NULL);
    return piece;
}

static uint64_t at(const struct mix_buf *header, uint64_t offset, int bytes)
{
    assert_true(offset + (uint64_t)bytes <= header->len);
    return mix_load_le(header->data + offset, bytes);
}

static const char *text(const struct mix_buf *header, uint64_t offset)
{
    assert_true(offset < header->len);
    return header->data + offset;
}

/*
 * Where the object of that link name stands, looked up as libhdf5 does: down the tree
 * to the leaf with left key < name <= right key, then by name. 0: there is none.
 */
static uint64_t find_link(const struct mix_buf *header, const char *name)
{
    uint64_t tree = at(header, 80, 8), heap = at(header, 88, 8);
    uint64_t names = at(header, heap + 24, 8);
    uint64_t leaves = at(header, tree + 6, 2), k = at(header, 18, 2);

    assert_memory_equal(text(header, tree), "TREE\0\0", 6);
    assert_memory_equal(text(header, heap), "HEAP\0\0\0\0", 8);
    assert_true(leaves <= 2 * k);
    assert_true(tree + 24 + 32 * k + 8 <= header->len); /* libhdf5 reads a whole node */
    for (uint64_t i = 0; i < leaves; i++) {
        uint64_t key = tree + 24 + 16 * i;
        uint64_t leaf = at(header, key + 8, 8);

        if (strcmp(text(header, names + at(header, key, 8)), name) >= 0 ||
            strcmp(name, text(header, names + at(header, key + 16, 8))) > 0)
            continue;
        assert_memory_equal(text(header, leaf), "SNOD\1\0", 6);
        assert_true(at(header, leaf + 6, 2) <= 2 * at(header, 16, 2));
        assert_true(leaf + 8 + 2 * at(header, 16, 2) * 40 <= header->len);
        for (uint64_t j = 0; j < at(header, leaf + 6, 2); j++) {
            uint64_t link = leaf + 8 + 40 * j;

            /* libhdf5 looks for it by halving. */
            assert_true(!j || strcmp(text(header, names + at(header, link - 40, 8)),
                                     text(header, names + at(header, link, 8))) < 0);
            if (!strcmp(text(header, names + at(header, link, 8)), name))
                return at(header, link + 8, 8);
        }
    }
    return 0;
}

/* The body of the first message of that type in the object's header. */
static uint64_t find_message(const struct mix_buf *header, uint64_t object, unsigned type)
{
    uint64_t message = object + 16, end = message + at(header, object + 8, 4);

    while (message < end && at(header, message, 2) != type)
        message += 8 + at(header, message + 2, 2);
    assert_true(message < end);
    return message + 8;
}

/* Every piece can be found by its link name, and its data where it was promised. */
static void check_layout(struct mix_shard_piece *piece, size_t count)
{
    struct mix_buf header = MIX_BUF_INIT;
    uint64_t file_bytes, last = 0;
    struct mix_err err = { 0 };

    assert_ok(mix_shard_layout(MIX_HDF5, piece, count, &header, &file_bytes, &err), &err);
    assert_int_equal(at(&header, 40, 8), file_bytes);
    last = header.len;
    for (size_t i = 0; i < count; i++) {
        char *link = malloc(mix_h5_link_name_bytes(piece[i].name) + 1);
        uint64_t object, layout;

        assert_non_null(link);
        mix_h5_link_name_put(piece[i].name, link);
        test_row(link);
        assert_int_not_equal(object = find_link(&header, link), 0);
        layout = find_message(&header, object, MIX_H5_LAYOUT);
        assert_int_equal(piece[i].offset % 4096, 0);
        assert_true(piece[i].offset >= last && piece[i].offset - last < 4096);
        assert_int_equal(at(&header, layout + 2, 8),
                         piece[i].bytes ? piece[i].offset : UINT64_MAX);
        assert_int_equal(at(&header, layout + 10, 8), piece[i].bytes);
        last = piece[i].offset + piece[i].bytes;
        free(link);
    }
    assert_int_equal(file_bytes, last);
    assert_int_equal(find_link(&header, "no such link"), 0);
    mix_buf_release(&header);
}

static void test_h5shard_write__places_every_dtype(void **state)
{
    const uint64_t shape[] = { 3, 8 }, none[] = { 0, 8 };
    struct mix_shard_piece piece[3 * MIX_DTYPE_COUNT];
    char name[MIX_ARRAY_LEN(piece)][16];
    size_t count = 0;

    (void)state;
    for (int i = 0; i < 3 * MIX_DTYPE_COUNT; i++) {
        enum mix_dtype dtype = (enum mix_dtype)(i / 3);

        if (i % 3 == 2 && mix_dtype_bits(dtype) < 8)
            continue; /* half a byte is no scalar */
        snprintf(name[count], sizeof name[count], "t%03d", i);
        piece[count] = whole(name[count], dtype, i % 3 == 2 ? 0 : 2, i % 3 == 1 ? none : shape);
        count++;
    }
    check_layout(piece, count);
}

static void test_h5shard_write__finds_names_that_escaping_reorders(void **state)
{
    static const char *const name[] = {
        "", "%", "%2E", ".", "..", "/", "//", "a", "a b", "a$b", "a%", "a%2Fb", "a&b", "a-b",
        "a.b", "a/b", "a0b", "b/%", "\xc3\xbc", "\xe6\x97\xa5",
    };
    const uint64_t shape[] = { 3 };
    struct mix_shard_piece piece[MIX_ARRAY_LEN(name)];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(name); i++)
        piece[i] = whole(name[i], MIX_BF16, 1, shape);
    check_layout(piece, MIX_ARRAY_LEN(name));
}

/* The link names themselves, as H5SHARD.md lists them. */
static void test_h5shard_write__escapes_link_names(void **state)
{
    static const struct {
        const char *name, *link;
    } table[] = {
        { "a.b", "a.b" },    { "", "%" },      { ".", "%2E" }, { "..", ".." }, { "%", "%25" },
        { "a/b", "a%2Fb" }, { "/%", "%2F%25" },
    };
    char link[16];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(table); i++) {
        mix_h5_link_name_put(table[i].name, link);
        assert_string_equal(link, table[i].link);
        assert_int_equal(mix_h5_link_name_bytes(table[i].name), strlen(table[i].link));
    }
}

/* 50,000 pieces of one element, and every size where a leaf or the tree just fills. */
static void test_h5shard_write__holds_many_pieces(void **state)
{
    static const size_t count[] = { 0, 1, 9, 63, 64, 65, 1000, 2048, 2049, 50000 };
    const size_t most = 50000;
    const uint64_t shape[] = { 1 };
    char (*name)[16] = calloc(most, sizeof *name);
    struct mix_shard_piece *piece = calloc(most, sizeof *piece);

    (void)state;
    assert_true(name && piece);
    for (size_t i = 0; i < most; i++) {
        snprintf(name[i], sizeof name[i], "tensor.%05zu", i);
        piece[i] = whole(name[i], MIX_F32, 1, shape);
    }
    for (size_t i = 0; i < MIX_ARRAY_LEN(count) - 1; i++)
        check_layout(piece, count[i]);

    /* The lookups are linear here, so of the largest look only at the tree. */
    struct mix_buf header = MIX_BUF_INIT;
    uint64_t file_bytes;
    struct mix_err err = { 0 };

    assert_ok(mix_h5shard_layout(piece, most, &header, &file_bytes, &err), &err);
    assert_int_equal(at(&header, 16, 2), 32);
    assert_int_equal(at(&header, 18, 2), 391); /* half of 782 leaves of 64 */
    assert_int_not_equal(find_link(&header, "tensor.00000"), 0);
    assert_int_not_equal(find_link(&header, "tensor.25000"), 0);
    assert_int_not_equal(find_link(&header, "tensor.49999"), 0);
    assert_int_equal(find_link(&header, "tensor.50000"), 0);
    mix_buf_release(&header);
    free(name);
    free(piece);
}

/* The whole header of one piece, in the words of H5SHARD.md. */
static void test_h5shard_write__spells_an_object_header_as_specified(void **state)
{
    static const char expected[] =
        "\1\0\x08\0" "\1\0\0\0" "\x68\1\0\0" "\0\0\0\0"
        "\1\0\x18\0" "\0\0\0\0" "\1\2\0\0\0\0\0\0" /* dataspace */
        "\2\0\0\0\0\0\0\0" "\3\0\0\0\0\0\0\0"
        "\3\0\x18\0" "\1\0\0\0" "\x11\x20\x0f\0" "\2\0\0\0" /* datatype: BF16 */
        "\0\0\x10\0" "\7\x08\0\7" "\x7f\0\0\0" "\0\0\0\0"
        "\5\0\x08\0" "\1\0\0\0" "\2\2\1\1" "\0\0\0\0" /* fill value */
        "\x08\0\x18\0" "\0\0\0\0" "\3\1" "\0\x10\0\0\0\0\0\0" /* layout */
        "\x0c\0\0\0\0\0\0\0" "\0\0\0\0\0\0"
        "\x0c\0\x28\0" "\0\0\0\0" "\1\0\5\0\x08\0\x08\0" "name\0\0\0\0"
        "\x13\x11\0\0" "\3\0\0\0" "\1\0\0\0\0\0\0\0" "a/b\0\0\0\0\0"
        "\x0c\0\x28\0" "\0\0\0\0" "\1\0\6\0\x08\0\x08\0" "dtype\0\0\0"
        "\x13\x11\0\0" "\4\0\0\0" "\1\0\0\0\0\0\0\0" "BF16\0\0\0\0"
        "\x0c\0\x40\0" "\0\0\0\0" "\1\0\6\0\x0c\0\x10\0" "start\0\0\0"
        "\x10\0\0\0" "\x08\0\0\0" "\0\0\x40\0" "\0\0\0\0"
        "\1\1\0\0\0\0\0\0" "\2\0\0\0\0\0\0\0" "\4\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\0"
        "\x0c\0\x48\0" "\0\0\0\0" "\1\0\x0d\0\x0c\0\x10\0" "tensor_shape\0\0\0\0"
        "\x10\0\0\0" "\x08\0\0\0" "\0\0\x40\0" "\0\0\0\0"
        "\1\1\0\0\0\0\0\0" "\2\0\0\0\0\0\0\0" "\x09\0\0\0\0\0\0\0" "\3\0\0\0\0\0\0\0";
    const uint64_t shape[] = { 2, 3 }, start[] = { 4, 0 }, tensor_shape[] = { 9, 3 };
    struct mix_shard_piece piece = { "a/b", MIX_BF16, 2, shape, start, tensor_shape, 12, 0 };
    struct mix_buf header = MIX_BUF_INIT;
    uint64_t file_bytes;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_h5shard_layout(&piece, 1, &header, &file_bytes, &err), &err);
    assert_int_equal(find_link(&header, "a%2Fb"), 136); /* behind superblock and root */
    assert_memory_equal(header.data + 136, expected, sizeof expected - 1);
    assert_memory_equal(header.data + 136 + sizeof expected - 1, "HEAP", 4);
    assert_int_equal(file_bytes, 4096 + 12);
    mix_buf_release(&header);
}

/* The header is the same for ever: whoever changes these bytes changes the format. */
static void test_h5shard_write__keeps_every_byte(void **state)
{
    static const char expected[] =
        "f87af609ea6db00b7b0e34cf09896db8ac89f3950c1aeb8e7eaebe795a308d5a";
    const uint64_t shape[] = { 2, 4 }, start[] = { 6, 0 }, tensor_shape[] = { 10, 4 };
    struct mix_shard_piece piece[MIX_DTYPE_COUNT];
    struct mix_buf header = MIX_BUF_INIT;
    unsigned char hash[32];
    char hex[65], name[MIX_DTYPE_COUNT][16];
    uint64_t file_bytes;
    struct mix_err err = { 0 };

    (void)state;
    for (int i = 0; i < MIX_DTYPE_COUNT; i++) {
        snprintf(name[i], sizeof name[i], "a/%02d", i);
        piece[i] = whole(name[i], (enum mix_dtype)i, 2, shape);
        piece[i].start = start;
        piece[i].tensor_shape = tensor_shape;
    }
    assert_ok(mix_h5shard_layout(piece, MIX_DTYPE_COUNT, &header, &file_bytes, &err), &err);
    mix_sha256(header.data, header.len, hash);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    assert_string_equal(hex, expected);
    mix_buf_release(&header);
}

/* Packed elements lie in a row of bytes; `shape` keeps the shape that they have. */
static void test_h5shard_write__packs_small_elements(void **state)
{
    const uint64_t shape[] = { 3, 4 };
    struct mix_shard_piece piece = whole("w", MIX_F4, 2, shape);
    struct mix_buf header = MIX_BUF_INIT;
    uint64_t file_bytes, space;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_h5shard_layout(&piece, 1, &header, &file_bytes, &err), &err);
    space = find_message(&header, 136, MIX_H5_DATASPACE);
    assert_int_equal(at(&header, space + 1, 1), 1); /* dimension */
    assert_int_equal(at(&header, space + 8, 8), 6); /* bytes */
    assert_int_equal(file_bytes, 4096 + 6);
    mix_buf_release(&header);
}

static void test_h5shard_write__refuses_what_hdf5_cannot_hold(void **state)
{
    static char long_name[MIX_H5_MAX_NAME + 2];
    static const uint64_t ones[] = {
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    };
    static const uint64_t huge[] = { UINT64_C(1) << 60 };
    const struct {
        const char *what, *says;
        struct mix_shard_piece piece[9];
        size_t count;
    } table[] = {
        { "a name too long for an attribute", "has a name of 65001 bytes",
          { whole(long_name, MIX_F32, 1, ones) }, 1 },
        { "33 dimensions", "tensor 'w' has 33 dimensions", { whole("w", MIX_F32, 33, ones) }, 1 },
        { "more links than the tree holds", "4194177 tensors in one HDF5 shard",
          { whole("w", MIX_F32, 1, ones) }, 4194177 },
        { "a file beyond 2^63", "tensor 'h' would end beyond 2^63",
          { whole("a", MIX_U8, 1, huge), whole("b", MIX_U8, 1, huge), whole("c", MIX_U8, 1, huge),
            whole("d", MIX_U8, 1, huge), whole("e", MIX_U8, 1, huge), whole("f", MIX_U8, 1, huge),
            whole("g", MIX_U8, 1, huge), whole("h", MIX_U8, 1, huge) }, 8 },
    };

    (void)state;
    memset(long_name, 'n', sizeof long_name - 1);
    for (size_t i = 0; i < MIX_ARRAY_LEN(table); i++) {
        struct mix_shard_piece piece[9];
        struct mix_buf header = MIX_BUF_INIT;
        struct mix_err err = { 0 };
        uint64_t file_bytes;

        memcpy(piece, table[i].piece, sizeof piece);
        test_row(table[i].what);
        assert_int_equal(mix_h5shard_layout(piece, table[i].count, &header, &file_bytes, &err),
                         MIX_UNSUPPORTED);
        assert_text(err.text, table[i].says);
        assert_int_equal(header.len, 0);
        mix_buf_release(&header);
    }

    /* One byte less is fine. */
    long_name[MIX_H5_MAX_NAME] = '\0';
    struct mix_shard_piece longest = whole(long_name, MIX_F32, 32, ones);
    check_layout(&longest, 1);
}

static void test_h5shard_write__names_the_containers(void **state)
{
    (void)state;
    assert_string_equal(mix_container_name(MIX_HDF5), "hdf5");
    assert_string_equal(mix_container_extension(MIX_HDF5), "h5");
    assert_string_equal(mix_container_name(MIX_SAFETENSORS), "safetensors");
    assert_string_equal(mix_container_extension(MIX_SAFETENSORS), "safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h5shard_write__places_every_dtype),
        cmocka_unit_test(test_h5shard_write__finds_names_that_escaping_reorders),
        cmocka_unit_test(test_h5shard_write__escapes_link_names),
        cmocka_unit_test(test_h5shard_write__holds_many_pieces),
        cmocka_unit_test(test_h5shard_write__spells_an_object_header_as_specified),
        cmocka_unit_test(test_h5shard_write__keeps_every_byte),
        cmocka_unit_test(test_h5shard_write__packs_small_elements),
        cmocka_unit_test(test_h5shard_write__refuses_what_hdf5_cannot_hold),
        cmocka_unit_test(test_h5shard_write__names_the_containers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
