/*
 * HDF5 files, read without libhdf5: what our writer and h5py make is listed, and each
 * rule has a file that breaks it. The files of h5py lie in tests/fuzz/corpus/h5shard;
 * tests/interop/test_h5shard.py makes them, and holds them against h5py itself.
 */
#include "ckpt/format/h5shard.h"

#include <stdlib.h>

#include "ckpt/base/mem.h"
#include "ckpt/format/h5parts.h"
#include "ckpt/format/shard.h"
#include "ckpt/store/store.h"

#include "tests/support/test.h"

#define CORPUS "tests/fuzz/corpus/h5shard/"

/* Read these bytes as the file f.h5. */
static enum mix_rc open_bytes(const void *data, size_t len, struct mix_h5shard **h5,
                              struct mix_err *err)
{
    struct mix_store *store;
    enum mix_rc rc;

    assert_ok(mix_store_open_memory(&store, err), err);
    assert_ok(mix_store_memory_put(store, "f.h5", data, len, err), err);
    rc = mix_h5shard_open(store, "f.h5", h5, err);
    mix_store_close(store);
    return rc;
}

static void assert_refused(const void *data, size_t len, enum mix_rc rc, const char *says)
{
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };

    open_bytes(data, len, &h5, &err);
    assert_null(h5);
    assert_text(err.text, "f.h5: ");
    assert_text(err.text, says); /* first: words tell more than the code */
    assert_int_equal(err.rc, rc);
    assert_string_equal(err.file, "f.h5");
}

static struct mix_buf read_corpus(const char *name)
{
    struct mix_store *store;
    struct mix_buf bytes = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    assert_ok(mix_store_open(CORPUS, &store, &err), &err);
    assert_ok(mix_store_read_all(store, name, 1 << 20, &bytes, &err), &err);
    mix_store_close(store);
    return bytes;
}

/* ---- what must be read ---- */

/* Lay out pieces, data zero; the caller releases the bytes. */
static struct mix_buf write_shard(struct mix_shard_piece *piece, size_t count)
{
    struct mix_buf file = MIX_BUF_INIT;
    uint64_t file_bytes;
    struct mix_err err = { 0 };

    assert_ok(mix_h5shard_layout(piece, count, &file, &file_bytes, &err), &err);
    assert_ok(mix_buf_reserve(&file, file_bytes - file.len, &err), &err);
    memset(file.data + file.len, 0, file_bytes - file.len);
    file.len = file_bytes;
    return file;
}

static void assert_numbers(const uint64_t *a, const uint64_t *b, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++)
        assert_int_equal(a[i], b[i]);
}

static void assert_same(const struct mix_h5shard *h5, size_t i, const struct mix_tensor *t,
                        const struct mix_shard_piece *piece)
{
    test_row(piece->name);
    assert_string_equal(t->name, piece->name);
    assert_int_equal(t->dtype, piece->dtype);
    assert_int_equal(t->rank, piece->rank);
    assert_int_equal(t->begin, piece->bytes ? piece->offset : 0);
    assert_int_equal(t->end - t->begin, piece->bytes);
    assert_numbers(t->shape, piece->shape, t->rank);
    if (t->rank) {
        assert_numbers(mix_h5shard_start(h5, i), piece->start, t->rank);
        assert_numbers(mix_h5shard_tensor_shape(h5, i), piece->tensor_shape, t->rank);
    } else {
        assert_null(t->shape);
        assert_null(mix_h5shard_start(h5, i));
        assert_null(mix_h5shard_tensor_shape(h5, i));
    }
}

/* `piece` sorted by name, as the list is. */
static void check_round_trip(struct mix_shard_piece *piece, size_t count)
{
    struct mix_buf file = write_shard(piece, count);
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };
    size_t found;

    assert_ok(open_bytes(file.data, file.len, &h5, &err), &err);

    const struct mix_tensor *t = mix_h5shard_list(h5, &found);

    assert_int_equal(found, count);
    for (size_t i = 0; i < count; i++)
        assert_same(h5, i, &t[i], &piece[i]);
    mix_h5shard_close(h5);
    mix_buf_release(&file);
}

static void test_h5shard_read__gives_back_every_dtype(void **state)
{
    static const uint64_t shape[3][2] = { { 2, 8 }, { 0, 8 }, { 0 } }, start[] = { 5, 0 };
    static const uint64_t tensor_shape[] = { 7, 8 };
    struct mix_shard_piece piece[3 * MIX_DTYPE_COUNT];
    char name[MIX_ARRAY_LEN(piece)][16];
    size_t count = 0;

    (void)state;
    for (int i = 0; i < 3 * MIX_DTYPE_COUNT; i++) {
        struct mix_shard_piece *p = &piece[count];
        enum mix_dtype dtype = (enum mix_dtype)(i / 3);

        if (i % 3 == 2 && mix_dtype_bits(dtype) < 8)
            continue; /* half a byte is no scalar */
        snprintf(name[count], sizeof name[count], "t%03d", i);
        *p = (struct mix_shard_piece){ name[count], dtype, i % 3 == 2 ? 0 : 2, shape[i % 3],
                                       start, tensor_shape, 0, 0 };
        mix_dtype_bytes(dtype, p->rank, p->shape, &p->bytes, NULL);
        count++;
    }
    check_round_trip(piece, count);
}

static void test_h5shard_read__gives_back_every_name(void **state)
{
    static char long_name[MIX_H5_MAX_NAME + 1];
    const char *const name[] = {
        "", "%", "%2E", ".", "..", "/", "//", "a", "a b", "a$b", "a%", "a%2Fb", "a-b", "a/b",
        long_name, "w@exp_avg", "\xc3\xbc", "\xe6\x97\xa5",
    };
    static const uint64_t shape[] = { 3 }, start[] = { 0 };
    struct mix_shard_piece piece[MIX_ARRAY_LEN(name)];

    (void)state;
    memset(long_name, 'a', sizeof long_name - 1);
    memset(long_name + 1, '/', 30000); /* three bytes each in the link */
    for (size_t i = 0; i < MIX_ARRAY_LEN(name); i++)
        piece[i] = (struct mix_shard_piece){ name[i], MIX_BF16, 1, shape, start, shape, 6, 0 };

    struct mix_shard_piece last = piece[14]; /* "a//..." sorts before "a/b" */

    memmove(piece + 14, piece + 13, sizeof last);
    piece[13] = last;
    check_round_trip(piece, MIX_ARRAY_LEN(name));
}

static void test_h5shard_read__gives_back_many_pieces(void **state)
{
    static const size_t counts[] = { 0, 1, 9, 64, 65, 1000, 20000 };
    static const uint64_t none[] = { 0 };
    char (*name)[16] = calloc(20000, sizeof *name);
    struct mix_shard_piece *piece = calloc(20000, sizeof *piece);

    (void)state;
    assert_true(name && piece);
    for (size_t i = 0; i < 20000; i++) {
        snprintf(name[i], sizeof name[i], "tensor.%05zu", i);
        piece[i] = (struct mix_shard_piece){ name[i], MIX_F32, 1, none, none, none, 0, 0 };
    }
    for (size_t i = 0; i < MIX_ARRAY_LEN(counts); i++)
        check_round_trip(piece, counts[i]);
    free(name);
    free(piece);
}

/* One tensor of a file of h5py: what it must look like, and its first bytes. */
static const struct {
    const char *file, *name;
    enum mix_dtype dtype;
    uint32_t rank;
    uint64_t shape[4];
    const char *bytes;
    size_t len;
} from_h5py[] = {
    { "default", "a/b/c/d", MIX_I32, 1, { 4 }, "\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0", 16 },
    { "default", "scalar", MIX_F32, 0, { 0 }, "\0\0\x40\x40", 4 },
    { "default", "t/BOOL", MIX_BOOL, 2, { 2, 3 }, "\1\0\1\0\1\1", 6 },
    { "default", "t/C64", MIX_C64, 2, { 2, 3 }, "\0\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\0", 16 },
    { "default", "t/F16", MIX_F16, 2, { 2, 3 }, "\0\0\0\x3c\0\x40", 6 },
    { "default", "t/F32", MIX_F32, 2, { 2, 3 }, "\0\0\0\0\0\0\x80\x3f", 8 },
    { "default", "t/F64", MIX_F64, 2, { 2, 3 }, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xf0\x3f", 16 },
    { "default", "t/I8", MIX_I8, 2, { 2, 3 }, "\0\1\2\3\4\5", 6 },
    { "default", "t/U16", MIX_U16, 2, { 2, 3 }, "\0\0\1\0\2\0", 6 },
    { "default", "zero", MIX_F32, 2, { 0, 3 }, "", 0 },
    { "attributes", "g/x", MIX_I16, 1, { 3 }, "\1\0\1\0\1\0", 6 },
    { "attributes", "times", MIX_F32, 1, { 6 }, "\0\0\0\0\0\0\x80\x3f", 8 },
    { "shard", "f4", MIX_F4, 2, { 3, 4 }, "\0\1\2\3\4\5", 6 },
    { "shard", "f8", MIX_F8_E4M3, 2, { 2, 3 }, "\0\1\2\3\4\5", 6 },
    { "shard", "w/x", MIX_F32, 1, { 6 }, "\0\0\0\0\0\0\x80\x3f", 8 },
    { "many", "d00", MIX_I16, 0, { 0 }, "\0\0", 2 },
    { "many", "d19", MIX_I16, 0, { 0 }, "\x13\0", 2 },
    { "compact", "compact", MIX_F32, 1, { 5 }, "\0\0\0\0\0\0\x80\x3f", 8 },
};

static void test_h5shard_read__reads_what_h5py_writes(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(from_h5py); i++) {
        char path[64];
        struct mix_h5shard *h5;
        struct mix_err err = { 0 };
        size_t count, k;

        test_row(from_h5py[i].name);
        snprintf(path, sizeof path, "h5py-%s.h5", from_h5py[i].file);

        struct mix_buf file = read_corpus(path);

        assert_ok(open_bytes(file.data, file.len, &h5, &err), &err);

        const struct mix_tensor *t = mix_h5shard_list(h5, &count);

        for (k = 0; k < count && strcmp(t[k].name, from_h5py[i].name);)
            k++;
        assert_true(k < count);
        assert_int_equal(t[k].dtype, from_h5py[i].dtype);
        assert_int_equal(t[k].rank, from_h5py[i].rank);
        assert_numbers(t[k].shape, from_h5py[i].shape, t[k].rank);
        assert_true(t[k].end - t[k].begin >= from_h5py[i].len);
        assert_memory_equal(file.data + t[k].begin, from_h5py[i].bytes, from_h5py[i].len);
        /* Only the last dataset of "shard" is a piece; "start" alone makes none. */
        assert_true(!mix_h5shard_start(h5, k) == (strcmp(t[k].name, "w/x") != 0));
        if (mix_h5shard_start(h5, k)) {
            assert_int_equal(mix_h5shard_start(h5, k)[0], 4);
            assert_int_equal(mix_h5shard_tensor_shape(h5, k)[0], 20);
        }
        mix_h5shard_close(h5);
        mix_buf_release(&file);
    }
}

/* ---- what h5py can write and tensors cannot be ---- */

static const struct {
    const char *file;
    enum mix_rc rc;
    const char *says;
} refused[] = {
    { "array", MIX_UNSUPPORTED, "not one that tensors have: array of 12 bytes" },
    { "big-endian-float", MIX_UNSUPPORTED, "big-endian float of 4 bytes" },
    { "big-endian-int", MIX_UNSUPPORTED, "big-endian integer of 8 bytes" },
    { "box", MIX_BAD_FORMAT, "in dimension 0 it begins at 8 and has 3 of its tensor's 10" },
    { "chunked", MIX_UNSUPPORTED, "dataset 'g/x': it is chunked; only contiguous data" },
    { "committed", MIX_UNSUPPORTED, "dataset 'a': it uses a named (committed) datatype" },
    { "complex128", MIX_UNSUPPORTED, "compound of 16 bytes" },
    { "compound", MIX_UNSUPPORTED, "compound of 8 bytes" },
    { "cycle", MIX_UNSUPPORTED, "object 'g/up': the object at byte 96 is linked a second time" },
    { "dtype-differs", MIX_BAD_FORMAT, "its attribute 'dtype' says F16, but it holds F32" },
    { "dtype-unknown", MIX_UNSUPPORTED, "'float32', which is no dtype of safetensors" },
    { "empty", MIX_UNSUPPORTED, "dataset 'x': it has a null dataspace (h5py.Empty)" },
    { "external", MIX_UNSUPPORTED, "dataset 'x': its data lies in external files" },
    { "external-link", MIX_UNSUPPORTED, "it uses links of the new format (external links" },
    { "gzip", MIX_UNSUPPORTED, "it is chunked, and compressed or filtered (gzip, filter 1" },
    { "half-box", MIX_BAD_FORMAT, "'start' and 'tensor_shape' without the other" },
    { "hard-link", MIX_UNSUPPORTED, "is linked a second time; hard links" },
    { "latest", MIX_UNSUPPORTED, "its superblock has version 3" },
    { "longdouble", MIX_UNSUPPORTED, "float of 16 bytes" },
    { "name-differs", MIX_BAD_FORMAT, "says 'y/z', which would be linked as 'y%2Fz'" },
    { "named-type", MIX_UNSUPPORTED, "object 'x': it is a named datatype" },
    { "opaque", MIX_UNSUPPORTED, "opaque of 3 bytes" },
    { "packed-without-shape", MIX_BAD_FORMAT, "holds packed F4 but has no attribute 'shape'" },
    { "reference", MIX_UNSUPPORTED, "reference of 8 bytes" },
    { "soft-link", MIX_UNSUPPORTED, "link 'x' is a soft link; only hard links are read" },
    { "string", MIX_UNSUPPORTED, "string of 3 bytes" },
    { "track-order", MIX_UNSUPPORTED, "object 'g': its object header has version 2" },
    { "unwritten", MIX_UNSUPPORTED, "it was never written: 12 bytes of data" },
    { "user-block", MIX_BAD_FORMAT, "this is no HDF5 file" },
    { "virtual", MIX_UNSUPPORTED, "dataset 'x': it is virtual" },
    { "vlen", MIX_UNSUPPORTED, "variable-length of 16 bytes" },
};

static void test_h5shard_read__refuses_the_rest_of_hdf5_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(refused); i++) {
        char path[64];

        test_row(refused[i].file);
        snprintf(path, sizeof path, "refused-%s.h5", refused[i].file);

        struct mix_buf file = read_corpus(path);

        assert_refused(file.data, file.len, refused[i].rc, refused[i].says);
        mix_buf_release(&file);
    }
}

/* ---- bytes that break a rule ---- */

/*
 * A shard of two pieces, "a" F32 [2, 3] and "b" F4 [4], which the rows below break in
 * one place each. The places, in the order of the file:
 */
enum {
    ROOT = 96,             /* object header of the root group */
    A = 136,               /* of "a"; its messages: */
    A_SPACE = A + 24,
    A_TYPE = A_SPACE + 32,
    A_FILL = A_TYPE + 32,
    A_LAYOUT = A_FILL + 16,
    A_NAME = A_LAYOUT + 32,
    A_DTYPE = A_NAME + 48,
    A_START = A_DTYPE + 48,
    A_TENSOR_SHAPE = A_START + 72,
    B = A_TENSOR_SHAPE + 72,
    HEAP = B + 16 + 24 + 24 + 16 + 32 + 48 + 48 + 64 + 72 + 64,
    LEAF = HEAP + 32 + 8 + 2 * 8,
    TREE = LEAF + 8 + 64 * 40,
    END = TREE + 24 + 32 * 16 + 8,
};

static struct mix_buf write_victim(void)
{
    static const uint64_t shape[] = { 2, 3 }, four[] = { 4 }, start[] = { 0, 0 };
    struct mix_shard_piece piece[] = {
        { "a", MIX_F32, 2, shape, start, shape, 24, 0 },
        { "b", MIX_F4, 1, four, start, four, 2, 0 },
    };

    return write_shard(piece, MIX_ARRAY_LEN(piece));
}

static const struct {
    const char *what;
    size_t at;
    int bytes;
    uint64_t value;
    enum mix_rc rc;
    const char *says;
    size_t also_at; /* and 8 bytes there, unless 0 */
    uint64_t also;
} broken[] = {
    { "signature", 0, 1, 0, MIX_BAD_FORMAT, "this is no HDF5 file" },
    { "superblock version", 8, 1, 2, MIX_UNSUPPORTED, "superblock has version 2" },
    { "small offsets", 13, 1, 4, MIX_UNSUPPORTED, "offsets and lengths have 4 and 8 bytes" },
    { "base address", 24, 8, 512, MIX_UNSUPPORTED, "base address" },
    { "driver", 48, 8, 512, MIX_UNSUPPORTED, "driver" },
    { "end beyond the file", 40, 8, 8195, MIX_TRUNCATED,
      "the file has 8194 bytes; its superblock says 8195" },
    { "end before the data", 40, 8, 8193, MIX_BAD_FORMAT, "dataset 'b': its 2 bytes of data" },
    { "end before the root", 40, 8, 96, MIX_BAD_FORMAT, "outside of bytes 96..96" },
    { "root outside", 64, 8, UINT64_MAX, MIX_BAD_FORMAT, "the root group: the object at byte" },
    { "root in the superblock", 64, 8, 95, MIX_BAD_FORMAT, "outside of bytes 96.." },
    { "root is a dataset", 64, 8, A, MIX_BAD_FORMAT, "the root group: it is no group" },

    { "object version", A, 1, 2, MIX_BAD_FORMAT, "there is no object header at byte 136" },
    { "new object", A, 8, 0x025244484f, MIX_UNSUPPORTED, "its object header has version 2" },
    { "header beyond the file", A + 8, 4, 8192, MIX_BAD_FORMAT, "reaches beyond the end" },
    { "header huge", A + 8, 4, UINT32_MAX, MIX_BAD_FORMAT, "4294967295 bytes at byte 152" },
    { "header cut in a message", A + 8, 4, 40, MIX_BAD_FORMAT, "leaves its header" },
    { "header without datatype", A + 8, 4, 32, MIX_BAD_FORMAT, "it has no datatype message" },
    { "header without layout", A + 8, 4, 80, MIX_BAD_FORMAT, "it has no layout message" },
    { "header without dataspace", A_SPACE - 8, 2, 0, MIX_BAD_FORMAT, "no dataspace message" },
    { "empty header", A + 8, 4, 0, MIX_BAD_FORMAT, "it has no datatype message" },
    { "message beyond its header", A_START - 8 + 2, 2, 0x8000, MIX_BAD_FORMAT,
      "leaves its header" },
    { "unknown message", A_FILL - 8, 2, 0x77, MIX_UNSUPPORTED, "message 0x77" },
    { "group and dataset", A_START - 8, 2, MIX_H5_SYMBOL_TABLE, MIX_BAD_FORMAT,
      "both a group and a dataset" },
    { "two dataspaces", A_FILL - 8, 2, MIX_H5_DATASPACE, MIX_BAD_FORMAT, "two dataspace" },
    { "two datatypes", A_FILL - 8, 2, MIX_H5_DATATYPE, MIX_BAD_FORMAT, "two datatype" },
    { "no room for a dataspace", A_SPACE - 6, 2, 0, MIX_BAD_FORMAT, "dataspace message is cut" },
    { "no room for a layout", A_LAYOUT - 6, 2, 0, MIX_BAD_FORMAT, "layout message is cut" },
    { "no room for a data size", A_LAYOUT - 6, 2, 16, MIX_BAD_FORMAT, "layout message is cut" },
    { "no room for a filter", A_FILL - 8, 4, MIX_H5_FILTERS, MIX_BAD_FORMAT,
      "filter message is cut" },
    { "no room for a heap", ROOT + 18, 2, 8, MIX_BAD_FORMAT, "symbol table message is cut" },
    { "two layouts", A_DTYPE - 8, 2, MIX_H5_LAYOUT, MIX_BAD_FORMAT, "two layout" },
    { "two symbol tables", A_START - 8, 2, MIX_H5_SYMBOL_TABLE, MIX_BAD_FORMAT, "both a group" },
    { "filtered but contiguous", A_FILL - 8, 2, MIX_H5_FILTERS, MIX_BAD_FORMAT,
      "its layout is of class 1 with 2 filters" },
    { "shared dataspace", A_SPACE - 4, 1, 2, MIX_UNSUPPORTED, "a shared header message" },
    { "continuation outside", A_FILL - 8, 2, MIX_H5_CONTINUATION, MIX_BAD_FORMAT,
      "its continuation message is cut short: 8 bytes" },
    { "dense attributes", A_FILL - 8, 2, MIX_H5_ATTRIBUTE_INFO, MIX_UNSUPPORTED,
      "attributes in dense storage" },

    { "dataspace version", A_SPACE, 1, 3, MIX_UNSUPPORTED, "its dataspace has version 3" },
    { "33 dimensions", A_SPACE + 1, 1, 33, MIX_UNSUPPORTED, "it has 33 dimensions" },
    { "dimensions cut short", A_SPACE + 1, 1, 3, MIX_BAD_FORMAT, "dataspace message is cut" },
    { "dataspace flags", A_SPACE + 2, 1, 2, MIX_BAD_FORMAT, "dataspace has flags 0x02" },
    { "elements beyond 2^64", A_SPACE + 8, 8, UINT64_MAX, MIX_BAD_FORMAT, "passes 2^64" },
    { "shape too large", A_SPACE + 8, 8, 3, MIX_BAD_FORMAT,
      "its data has 24 bytes, but dtype and shape make it 36" },
    { "big-endian", A_TYPE + 1, 1, 0x21, MIX_UNSUPPORTED, "big-endian float of 4 bytes" },
    { "datatype of no class", A_TYPE, 1, 0x1f, MIX_UNSUPPORTED, "an unknown class" },
    { "datatype of a size", A_TYPE + 4, 4, 8, MIX_UNSUPPORTED, "float of 8 bytes" },

    { "layout version", A_LAYOUT, 1, 1, MIX_UNSUPPORTED, "its layout has version 1" },
    { "layout class", A_LAYOUT + 1, 1, 9, MIX_BAD_FORMAT, "its layout is of class 9" },
    { "new chunks", A_LAYOUT, 2, 0x0204, MIX_UNSUPPORTED, "it is chunked; only" },
    { "compact, too large", A_LAYOUT + 1, 2, 0xff00, MIX_BAD_FORMAT, "layout message is cut" },
    { "no address", A_LAYOUT + 2, 8, UINT64_MAX, MIX_UNSUPPORTED, "it was never written" },
    { "data outside", A_LAYOUT + 2, 8, 8192, MIX_BAD_FORMAT,
      "its 24 bytes of data at byte 8192 do not lie in the file" },
    { "data wraps", A_LAYOUT + 2, 8, UINT64_MAX - 1, MIX_BAD_FORMAT, "do not lie in the file" },
    { "data in the superblock", A_LAYOUT + 2, 8, 0, MIX_BAD_FORMAT, "do not lie in the file" },
    { "data overlaps", A_LAYOUT + 2, 8, 8192 - 23, MIX_OVERLAP,
      "tensor 'b' covers bytes 8192..8194, but 'a' covers 8169..8193: they overlap" },
    { "data size", A_LAYOUT + 10, 8, 23, MIX_BAD_FORMAT, "its data has 23 bytes, but" },

    { "attribute version", A_NAME, 1, 9, MIX_BAD_FORMAT, "an attribute message of 40 bytes" },
    { "attribute name length", A_NAME + 2, 2, 99, MIX_BAD_FORMAT, "an attribute message" },
    { "attribute name without end", A_NAME + 2, 2, 4, MIX_BAD_FORMAT, "an attribute message" },
    { "attribute type length", A_NAME + 4, 2, 99, MIX_BAD_FORMAT, "an attribute message" },
    { "attribute space length", A_NAME + 6, 2, 99, MIX_BAD_FORMAT, "an attribute message" },
    { "another name", A_NAME + 32, 1, 'c', MIX_BAD_FORMAT, "its attribute 'name' says 'c'" },
    { "name with control byte", HEAP + 32 + 8, 1, 1, MIX_BAD_FORMAT, "says 'a'" },
    { "another dtype", A_DTYPE + 32, 1, 'I', MIX_BAD_FORMAT, "'dtype' says I32, but it holds F32" },
    { "unknown dtype", A_DTYPE + 32, 1, 'X', MIX_UNSUPPORTED, "'X32', which is no dtype" },
    { "box too far", A_START + 48, 8, 1, MIX_BAD_FORMAT,
      "in dimension 0 it begins at 1 and has 2 of its tensor's 2" },
    { "box wraps", A_START + 56, 8, UINT64_MAX, MIX_BAD_FORMAT, "in dimension 1" },
    { "box of other rank", A_START + 40, 8, 1, MIX_BAD_FORMAT, "have 1 and 2 numbers" },
    { "two starts", A_TENSOR_SHAPE + 8, 8, 0x7472617473 /* "start" */, MIX_BAD_FORMAT,
      "it has two attributes 'start'" },
    { "two names", A_DTYPE + 8, 8, 0x656d616e /* "name" */, MIX_BAD_FORMAT,
      "it has two attributes 'name'" },
    { "name with a NUL", A_NAME + 20, 4, 3, MIX_BAD_FORMAT, "'name' holds a NUL",
      A_NAME + 32, 0x620061 /* "a", NUL, "b" */ },
    { "start of a shared type", A_START, 2, 0x0102, MIX_BAD_FORMAT, "without the other" },
    { "packed shape", B + 16 + 24 + 24 + 16 + 32 + 48 + 48 + 64 + 72 + 8 + 48, 8, 6, MIX_BAD_FORMAT,
      "its attribute 'shape' makes 3 bytes of F4, but it holds 2" },
    { "packed bits", B + 16 + 24 + 24 + 16 + 32 + 48 + 48 + 64 + 72 + 8 + 48, 8, 3, MIX_BAD_FORMAT,
      "do not fill whole bytes" },

    { "heap signature", HEAP, 1, 0, MIX_BAD_FORMAT, "there is no local heap at byte" },
    { "heap version", HEAP + 4, 1, 1, MIX_BAD_FORMAT, "there is no local heap at byte" },
    { "heap outside", ROOT + 16 + 16, 8, 9000, MIX_BAD_FORMAT, "a local heap at byte 9000" },
    { "heap too large", HEAP + 8, 8, UINT64_MAX, MIX_BAD_FORMAT, "beyond the end of the file" },
    { "heap data outside", HEAP + 24, 8, 8195, MIX_BAD_FORMAT, "beyond the end of the file" },
    { "link name outside", LEAF + 8, 8, 24, MIX_BAD_FORMAT, "a link's name has no end" },
    { "link name without end", HEAP + 8, 8, 17, MIX_BAD_FORMAT, "a link's name has no end" },
    { "link name empty", LEAF + 8, 8, 0, MIX_BAD_FORMAT, "a link is called ''" },
    { "link name a dot", HEAP + 32 + 8, 1, '.', MIX_BAD_FORMAT, "a link is called '.'" },
    { "link name a slash", HEAP + 32 + 8, 1, '/', MIX_BAD_FORMAT, "a link is called '/'" },
    { "a name twice", HEAP + 32 + 16, 1, 'a', MIX_BAD_FORMAT, "says 'b', which would be" },
    { "soft link", LEAF + 8 + 16, 4, 2, MIX_UNSUPPORTED, "link 'a' is a soft link" },
    { "an object twice", LEAF + 8 + 40 + 8, 8, A, MIX_UNSUPPORTED, "linked a second time" },
    { "a cycle", LEAF + 8 + 8, 8, ROOT, MIX_UNSUPPORTED, "object 'a': the object at byte 96" },

    { "leaf signature", LEAF, 1, 0, MIX_BAD_FORMAT, "there is no symbol table node at byte" },
    { "leaf too long", LEAF + 6, 2, 200, MIX_BAD_FORMAT, "" },
    { "tree signature", TREE, 1, 0, MIX_BAD_FORMAT, "there is no B-tree node of a group" },
    { "tree of chunks", TREE + 4, 1, 1, MIX_BAD_FORMAT, "there is no B-tree node of a group" },
    { "tree too high", TREE + 5, 1, 16, MIX_UNSUPPORTED, "is of level 16; up to 15 are read" },
    { "tree above a leaf", TREE + 5, 1, 1, MIX_BAD_FORMAT, "there is no B-tree node" },
    { "tree too wide", TREE + 6, 2, 65535, MIX_BAD_FORMAT, "a B-tree node at byte" },
    { "tree outside", ROOT + 16 + 8, 8, 1 << 20, MIX_BAD_FORMAT, "a B-tree node at byte 1048576" },
    { "tree is a leaf", ROOT + 16 + 8, 8, LEAF, MIX_BAD_FORMAT, "there is no B-tree node" },
    { "leaf outside", TREE + 32, 8, 1 << 20, MIX_BAD_FORMAT, "a symbol table node at byte" },
    { "leaf is the tree", TREE + 32, 8, TREE, MIX_UNSUPPORTED, "is linked a second time" },
};

static void test_h5shard_read__names_the_broken_rule(void **state)
{
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };

    (void)state;

    struct mix_buf whole = write_victim();

    assert_memory_equal(whole.data + HEAP, "HEAP", 4);
    assert_memory_equal(whole.data + LEAF, "SNOD", 4);
    assert_memory_equal(whole.data + TREE, "TREE", 4);
    assert_int_equal(whole.len, 8194);
    assert_ok(open_bytes(whole.data, whole.len, &h5, &err), &err);
    mix_h5shard_close(h5);
    for (size_t i = 0; i < MIX_ARRAY_LEN(broken); i++) {
        struct mix_buf file = MIX_BUF_INIT;

        test_row(broken[i].what);
        assert_ok(mix_buf_put(&file, whole.data, whole.len, &err), &err);
        mix_store_le(file.data + broken[i].at, broken[i].value, broken[i].bytes);
        if (broken[i].also_at)
            mix_store_le(file.data + broken[i].also_at, broken[i].also, 8);
        assert_refused(file.data, file.len, broken[i].rc, broken[i].says);
        mix_buf_release(&file);
    }
    mix_buf_release(&whole);
}

/* Two links of one name, to two datasets that do not say what they are called. */
static void test_h5shard_read__refuses_a_tensor_that_stands_twice(void **state)
{
    struct mix_buf file = read_corpus("h5py-many.h5");
    char *name = memmem(file.data, file.len, "d01", 4);

    (void)state;
    assert_non_null(name);
    memcpy(name, "d02", 3);
    assert_refused(file.data, file.len, MIX_BAD_FORMAT, "tensor 'd02' stands in it twice");
    mix_buf_release(&file);
}

/* Cut anywhere, with the superblock telling the truth about the end, or not. */
static void test_h5shard_read__refuses_every_cut(void **state)
{
    struct mix_buf whole = write_victim();

    (void)state;
    for (size_t len = 0; len < whole.len; len += len < END ? 1 : 97) {
        struct mix_h5shard *h5;
        struct mix_err err = { 0 };
        char *cut = malloc(len ? len : 1); /* as large as it says, for the sanitizer */

        assert_non_null(cut);
        memcpy(cut, whole.data, len);
        assert_int_equal(open_bytes(cut, len, &h5, &err),
                         len < 9 ? MIX_BAD_FORMAT : MIX_TRUNCATED);
        if (len >= 48) {
            mix_store_le(cut + 40, len, 8);
            assert_int_not_equal(open_bytes(cut, len, &h5, &err), MIX_OK);
        }
        free(cut);
    }
    mix_buf_release(&whole);
}

static void test_h5shard_read__says_that_a_file_is_missing(void **state)
{
    struct mix_store *store;
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_store_open_memory(&store, &err), &err);
    assert_int_equal(mix_h5shard_open(store, "f.h5", &h5, &err), MIX_NOT_FOUND);
    assert_null(h5);
    mix_store_close(store);
}

/* ---- files made by hand: what no writer makes ---- */

static void put(struct mix_buf *file, const void *data, size_t len)
{
    struct mix_err err = { 0 };

    assert_ok(mix_buf_put(file, data, len, &err), &err);
}

static void put_le(struct mix_buf *file, uint64_t value, int bytes)
{
    unsigned char raw[8];

    mix_store_le(raw, value, bytes);
    put(file, raw, (size_t)bytes);
}

static void put_superblock(struct mix_buf *file, uint64_t root)
{
    put(file, MIX_H5_SIGNATURE "\0\0\0\0\0\x08\x08\0", 16);
    put_le(file, 4 | 16 << 16, 8);
    put_le(file, 0, 8);
    put_le(file, UINT64_MAX, 8);
    put_le(file, 0, 8); /* the end: finish() */
    put_le(file, UINT64_MAX, 8);
    put_le(file, 0, 8);
    put_le(file, root, 8);
    put_le(file, 0, 8);
    put_le(file, 0, 8);
    put_le(file, 0, 8);
}

static void finish(struct mix_buf *file)
{
    mix_store_le(file->data + 40, file->len, 8);
}

/*
 * A group with `links` links whose names begin `step` bytes apart in `names`, and which
 * lead to the objects from `object` on, 16 bytes apart. Returns its address.
 */
static uint64_t put_group(struct mix_buf *file, const char *names, size_t names_bytes,
                          size_t step, size_t links, uint64_t object)
{
    uint64_t group = file->len, tree = group + 40, leaf = tree + 24 + 24;
    uint64_t heap = leaf + 8 + 40 * links;

    put(file, "\1\0\1\0\1\0\0\0\x18\0\0\0\0\0\0\0" "\x11\0\x10\0\0\0\0\0", 24);
    put_le(file, tree, 8);
    put_le(file, heap, 8);
    put(file, "TREE\0\0\1\0", 8);
    for (int i = 0; i < 3; i++)
        put_le(file, UINT64_MAX, 8);
    put_le(file, leaf, 8);
    put_le(file, 0, 8);
    put(file, "SNOD\1\0", 6);
    put_le(file, links, 2);
    for (size_t i = 0; i < links; i++) {
        put_le(file, i * step, 8);
        put_le(file, object + 16 * i, 8);
        for (int k = 0; k < 3; k++)
            put_le(file, 0, 8);
    }
    put(file, "HEAP\0\0\0\0", 8);
    put_le(file, names_bytes, 8);
    put_le(file, 1, 8);
    put_le(file, heap + 32, 8);
    put(file, names, names_bytes);
    return group;
}

/* Groups in groups, the innermost without links. */
static struct mix_buf write_nested(int groups)
{
    struct mix_buf file = MIX_BUF_INIT;

    put_superblock(&file, 96);
    for (int i = 1; i < groups; i++)
        put_group(&file, "g\0\0\0\0\0\0\0", 8, 0, 1, file.len + 40 + 48 + 48 + 40);
    put_group(&file, "g\0\0\0\0\0\0\0", 8, 0, 0, 0);
    finish(&file);
    return file;
}

static void test_h5shard_read__follows_groups_to_a_limit(void **state)
{
    struct mix_buf deep = write_nested(65), too_deep = write_nested(66);
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };
    size_t count;

    (void)state;
    assert_ok(open_bytes(deep.data, deep.len, &h5, &err), &err);
    mix_h5shard_list(h5, &count);
    assert_int_equal(count, 0);
    mix_h5shard_close(h5);
    assert_refused(too_deep.data, too_deep.len, MIX_UNSUPPORTED, "deeper in each other than 64");
    mix_buf_release(&deep);
    mix_buf_release(&too_deep);
}

/* A tree above the tree of another group: read if its level is one more. */
static void test_h5shard_read__checks_the_levels_of_a_tree(void **state)
{
    struct mix_buf file = MIX_BUF_INIT;
    struct mix_h5shard *h5;
    struct mix_err err = { 0 };

    (void)state;
    put_superblock(&file, 96);

    uint64_t upper = put_group(&file, "", 0, 0, 0, 0) + 40;
    uint64_t lower = put_group(&file, "", 0, 0, 0, 0) + 40;

    finish(&file);
    mix_store_le(file.data + upper + 32, lower, 8);
    file.data[upper + 5] = 1;
    assert_ok(open_bytes(file.data, file.len, &h5, &err), &err);
    mix_h5shard_close(h5);
    file.data[upper + 5] = 2;
    assert_refused(file.data, file.len, MIX_BAD_FORMAT, "is of level 0 where 1 belongs");
    mix_buf_release(&file);
}

/* 500 names that share the bytes of one long one: little file, much to read. */
static void test_h5shard_read__refuses_metadata_that_is_used_twice(void **state)
{
    static char names[8192];
    struct mix_buf file = MIX_BUF_INIT;

    (void)state;
    memset(names, 'n', sizeof names - 1);
    put_superblock(&file, 96);
    put_group(&file, names, sizeof names, 1, 500, 96);
    finish(&file);
    assert_refused(file.data, file.len, MIX_BAD_FORMAT, "its parts overlap");
    mix_buf_release(&file);
}

/* A group with a long name and 100 links would make paths of 100 times that. */
static void test_h5shard_read__bounds_the_bytes_of_all_paths(void **state)
{
    static char name[100000], short_names[100 * 8];
    struct mix_buf file = MIX_BUF_INIT;

    (void)state;
    memset(name, 'n', sizeof name - 1);
    for (int i = 0; i < 100; i++)
        snprintf(short_names + 8 * i, 8, "x%02d", i % 100);
    put_superblock(&file, 96);
    put_group(&file, name, sizeof name, 0, 1, 96 + 40 + 48 + 48 + 32 + sizeof name);
    put_group(&file, short_names, sizeof short_names, 8, 100, 96);
    finish(&file);
    assert_refused(file.data, file.len, MIX_UNSUPPORTED, "paths of its objects are too long");
    mix_buf_release(&file);
}

static void test_h5shard_read__refuses_a_link_name_without_end(void **state)
{
    static char name[3 * MIX_H5_MAX_NAME + 20000];
    struct mix_buf file = MIX_BUF_INIT;

    (void)state;
    memset(name, 'n', sizeof name - 1);
    put_superblock(&file, 96);
    put_group(&file, name, sizeof name, 0, 1, 96);
    finish(&file);
    assert_refused(file.data, file.len, MIX_BAD_FORMAT, "a link's name has no end");
    mix_buf_release(&file);
}

/* A continuation may not lead back, here to the messages that it stands among. */
static void test_h5shard_read__refuses_a_header_that_continues_in_itself(void **state)
{
    struct mix_buf file = MIX_BUF_INIT;

    (void)state;
    put_superblock(&file, 96);
    put(&file, "\1\0\1\0\1\0\0\0\x18\0\0\0\0\0\0\0" "\x10\0\x10\0\0\0\0\0", 24);
    put_le(&file, 112, 8);
    put_le(&file, 24, 8);
    finish(&file);
    assert_refused(file.data, file.len, MIX_UNSUPPORTED,
                   "a header continuation at byte 112 is linked a second time");
    mix_buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h5shard_read__gives_back_every_dtype),
        cmocka_unit_test(test_h5shard_read__gives_back_every_name),
        cmocka_unit_test(test_h5shard_read__gives_back_many_pieces),
        cmocka_unit_test(test_h5shard_read__reads_what_h5py_writes),
        cmocka_unit_test(test_h5shard_read__refuses_the_rest_of_hdf5_by_name),
        cmocka_unit_test(test_h5shard_read__names_the_broken_rule),
        cmocka_unit_test(test_h5shard_read__refuses_a_tensor_that_stands_twice),
        cmocka_unit_test(test_h5shard_read__refuses_every_cut),
        cmocka_unit_test(test_h5shard_read__says_that_a_file_is_missing),
        cmocka_unit_test(test_h5shard_read__follows_groups_to_a_limit),
        cmocka_unit_test(test_h5shard_read__checks_the_levels_of_a_tree),
        cmocka_unit_test(test_h5shard_read__refuses_metadata_that_is_used_twice),
        cmocka_unit_test(test_h5shard_read__bounds_the_bytes_of_all_paths),
        cmocka_unit_test(test_h5shard_read__refuses_a_link_name_without_end),
        cmocka_unit_test(test_h5shard_read__refuses_a_header_that_continues_in_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
