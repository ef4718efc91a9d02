/*
 * h5shard_write.c - the bytes in front of the data of an HDF5 shard.
 *
 *   0            96            136                                        header.len
 *   +------------+-------------+-----------+--------+--------+------+--------+
 *   | superblock | root group  | datasets  | link   | leaves | tree | zeros, |
 *   |            | (a header)  | (headers) | names  |        |      | data   |
 *   +------------+-------------+-----------+--------+--------+------+--------+
 *
 * We write the file format ourselves instead of asking libhdf5 for a file: the header
 * is then a pure function of the pieces, today and with every later library; data
 * offsets are known before a byte of data is; thousands of datasets cost microseconds
 * each; and a reader can check a header by making it again. libhdf5, h5py and h5dump
 * read the result, and the tests let them.
 *
 * Each part points back at parts that stand before it, so one pass writes them all.
 * Only two things are known late and patched in: the superblock and the root, which
 * point at the tree, and where each dataset's data lies, which follows the header.
 * H5SHARD.md is the specification.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/format/h5parts.h"
#include "ckpt/format/shard.h"

enum {
    DATA_ALIGN = 4096, /* a page, and what O_DIRECT and most file systems want */
    ROOT_AT = MIX_H5_SUPERBLOCK,
    ROOT_BYTES = MIX_H5_OBJECT_PREFIX + MIX_H5_MESSAGE_PREFIX + 16,

    /*
     * A leaf holds 64 links. The tree is one node above the leaves, however many there
     * are: its capacity, a field of the superblock, is chosen to hold them. A capacity
     * is written as K, half of the entries; libhdf5 takes K up to 32,767.
     */
    LEAF_LINKS = 64,
    TREE_MIN_K = 16, /* the library's default */
    TREE_MAX_K = 32767,
    MAX_PIECES = LEAF_LINKS * 2 * TREE_MAX_K, /* 4,194,176 */

    /* An object header without its name: five arrays of 32 numbers, and small change. */
    OBJECT_MAX = 4096,
};

/* The layout in the making. Arrays run over the pieces. */
struct emitter {
    struct mix_shard_piece *piece;
    size_t count;
    struct mix_buf *out;
    size_t *object_at;  /* where the dataset's header stands in `out` */
    size_t *address_at; /* where the address of its data is to be written, 0: no data */
    size_t *link_at;    /* where its link name stands in the heap */
    size_t *order;      /* pieces in the order of their link names */
    size_t heap_at, leaves_at, tree_at;
};

static void *end_of(struct mix_buf *out)
{
    return out->data + out->len;
}

static unsigned char *put_le(unsigned char *p, uint64_t value, int bytes)
{
    mix_store_le(p, value, bytes);
    return p + bytes;
}

static unsigned char *put_bytes(unsigned char *p, const void *data, size_t len)
{
    memcpy(p, data, len);
    return p + len;
}

/* Zeros up to the next multiple of 8, counted from `start`. */
static unsigned char *put_padding(unsigned char *p, const unsigned char *start)
{
    while ((p - start) % 8)
        *p++ = 0;
    return p;
}

static unsigned char *message_begin(unsigned char *p, enum mix_h5_message type, unsigned flags)
{
    p = put_le(p, type, 2);
    p = put_le(p, 0, 2); /* the size: message_end() */
    return put_le(p, flags, 4);
}

/* Pad the message whose body began at `body`, and set its size. */
static unsigned char *message_end(unsigned char *p, unsigned char *body)
{
    p = put_padding(p, body);
    assert(p - body <= MIX_H5_MAX_MESSAGE);
    mix_store_le(body - MIX_H5_MESSAGE_PREFIX + 2, (uint64_t)(p - body), 2);
    return p;
}

/* Version 1, no largest sizes: what was written is all there will be. */
static unsigned char *put_dataspace(unsigned char *p, size_t rank, const uint64_t *shape)
{
    p = put_le(p, 1 | (uint64_t)rank << 8, 8);
    for (size_t i = 0; i < rank; i++)
        p = put_le(p, shape[i], 8);
    return p;
}

/* An attribute up to its value; all lengths here are below 64 KiB. */
static unsigned char *put_attribute(unsigned char *p, const char *name, const void *datatype,
                                    size_t datatype_bytes, size_t rank, uint64_t elements)
{
    const unsigned char *start = p;
    size_t name_bytes = strlen(name) + 1;

    p = put_le(p, 1, 2); /* version */
    p = put_le(p, name_bytes, 2);
    p = put_le(p, datatype_bytes, 2);
    p = put_le(p, 8 + 8 * rank, 2);
    p = put_padding(put_bytes(p, name, name_bytes), start);
    p = put_padding(put_bytes(p, datatype, datatype_bytes), start);
    return put_dataspace(p, rank, &elements);
}

/* A fixed-length UTF-8 string, padded with NULs; empty: one NUL, for HDF5 has no size 0. */
static unsigned char *put_text_attribute(unsigned char *p, const char *name, const char *text)
{
    unsigned char *body = message_begin(p, MIX_H5_ATTRIBUTE, 0);
    size_t len = *text ? strlen(text) : 1;
    unsigned char datatype[8] = { 0x13, 0x11 }; /* class string; NUL-padded, UTF-8 */

    mix_store_le(datatype + 4, len, 4);
    p = put_attribute(body, name, datatype, sizeof datatype, 0, 0);
    return message_end(put_bytes(p, text, len), body);
}

/* An array of numbers as long as the tensor's rank; no attribute at all for rank 0. */
static unsigned char *put_array_attribute(unsigned char *p, const char *name, size_t rank,
                                          const uint64_t *value, unsigned *messages)
{
    size_t datatype_bytes;
    const unsigned char *datatype = mix_h5_datatype(MIX_U64, &datatype_bytes);

    if (!rank)
        return p;

    unsigned char *body = message_begin(p, MIX_H5_ATTRIBUTE, 0);

    p = put_attribute(body, name, datatype, datatype_bytes, 1, rank);
    for (size_t i = 0; i < rank; i++)
        p = put_le(p, value[i], 8);
    (*messages)++;
    return message_end(p, body);
}

/* Elements of whole bytes keep their shape; packed ones are a row of bytes. */
static unsigned char *put_piece_dataspace(unsigned char *p, const struct mix_shard_piece *piece)
{
    unsigned char *body = message_begin(p, MIX_H5_DATASPACE, 0);

    p = mix_dtype_bits(piece->dtype) < 8 ? put_dataspace(body, 1, &piece->bytes)
                                         : put_dataspace(body, piece->rank, piece->shape);
    return message_end(p, body);
}

static unsigned char *put_piece_datatype(unsigned char *p, const struct mix_shard_piece *piece)
{
    unsigned char *body = message_begin(p, MIX_H5_DATATYPE, 1 /* never changes */);
    size_t len;
    const unsigned char *datatype = mix_h5_datatype(mix_h5_stored_dtype(piece->dtype), &len);

    return message_end(put_bytes(body, datatype, len), body);
}

/*
 * Version 2: the fill value is the default (zero, hence of size 0) and is never
 * written. An undefined one would do, but h5py's `fillvalue` fails on that.
 */
static unsigned char *put_fill_value(unsigned char *p)
{
    unsigned char *body = message_begin(p, MIX_H5_FILL, 1 /* never changes */);

    return message_end(put_bytes(body, "\2\2\1\1\0\0\0\0", 8), body);
}

/*
 * Version 3, contiguous. The address is patched in later; a dataset without elements
 * keeps none, which is how libhdf5 says it, and newer ones refuse anything else.
 */
static unsigned char *put_data_layout(unsigned char *p, uint64_t bytes, unsigned char **address)
{
    unsigned char *body = message_begin(p, MIX_H5_LAYOUT, 0);

    p = put_bytes(body, "\3\1", 2);
    *address = p;
    p = put_le(p, MIX_H5_NOWHERE, 8);
    return message_end(put_le(p, bytes, 8), body);
}

/* The dataset of one piece: an object header, version 1. */
static enum mix_rc emit_object(struct emitter *e, size_t i, struct mix_err *err)
{
    const struct mix_shard_piece *piece = &e->piece[i];
    unsigned messages = 6; /* the first four, name, dtype */
    enum mix_rc rc = mix_buf_reserve(e->out, OBJECT_MAX + strlen(piece->name), err);

    if (rc)
        return rc;

    unsigned char *start = end_of(e->out), *address;
    unsigned char *p = start + MIX_H5_OBJECT_PREFIX;

    p = put_piece_dataspace(p, piece);
    p = put_piece_datatype(p, piece);
    p = put_fill_value(p);
    p = put_data_layout(p, piece->bytes, &address);
    p = put_text_attribute(p, "name", piece->name);
    p = put_text_attribute(p, "dtype", mix_dtype_name(piece->dtype));
    p = put_array_attribute(p, "start", piece->rank, piece->start, &messages);
    p = put_array_attribute(p, "tensor_shape", piece->rank, piece->tensor_shape, &messages);
    if (mix_h5_stored_dtype(piece->dtype) != piece->dtype)
        p = put_array_attribute(p, "shape", piece->rank, piece->shape, &messages);

    mix_store_le(start, 1 | messages << 16, 4); /* version, count */
    mix_store_le(start + 4, 1, 4);              /* one link leads here */
    mix_store_le(start + 8, (uint64_t)(p - start - MIX_H5_OBJECT_PREFIX), 8);

    e->object_at[i] = e->out->len;
    e->address_at[i] = piece->bytes ? e->out->len + (size_t)(address - start) : 0;
    e->out->len += (size_t)(p - start);
    return MIX_OK;
}

/*
 * The local heap: all link names. It begins with the empty name, which is the left
 * edge of the tree; 1 stands for "no free space".
 */
static enum mix_rc emit_heap(struct emitter *e, struct mix_err *err)
{
    size_t used = 8;

    for (size_t i = 0; i < e->count; i++) {
        e->link_at[i] = used;
        used += mix_round_up(mix_h5_link_name_bytes(e->piece[i].name) + 1, 8);
    }

    enum mix_rc rc = mix_buf_reserve(e->out, MIX_H5_HEAP_PREFIX + used, err);

    if (rc)
        return rc;

    unsigned char *p = end_of(e->out);

    e->heap_at = e->out->len;
    memset(p, 0, MIX_H5_HEAP_PREFIX + used);
    p = put_bytes(p, "HEAP\0\0\0\0", 8);
    p = put_le(p, used, 8);
    p = put_le(p, 1, 8);
    p = put_le(p, e->heap_at + MIX_H5_HEAP_PREFIX, 8);
    for (size_t i = 0; i < e->count; i++)
        mix_h5_link_name_put(e->piece[i].name, (char *)p + e->link_at[i]);
    e->out->len += MIX_H5_HEAP_PREFIX + used;
    return MIX_OK;
}

static int compare_links(const void *a, const void *b, void *heap)
{
    const struct emitter *e = heap;
    const char *names = e->out->data + e->heap_at + MIX_H5_HEAP_PREFIX;

    return strcmp(names + e->link_at[*(const size_t *)a], names + e->link_at[*(const size_t *)b]);
}

/*
 * libhdf5 finds a link by strcmp() of link names, and escaping may have changed the
 * order ('%' sorts before '-', '/' after it). Sorted already, as nearly always: one pass.
 */
static void sort_links(struct emitter *e)
{
    bool sorted = true;

    for (size_t i = 0; i < e->count; i++) {
        e->order[i] = i;
        sorted = sorted && (!i || compare_links(&e->order[i - 1], &e->order[i], e) < 0);
    }
    if (!sorted)
        qsort_r(e->order, e->count, sizeof *e->order, compare_links, e);
}

static size_t leaf_count(const struct emitter *e)
{
    return mix_div_up(e->count, LEAF_LINKS);
}

static size_t leaf_bytes(void)
{
    return MIX_H5_LEAF_PREFIX + LEAF_LINKS * MIX_H5_LINK;
}

/* Symbol table nodes: up to 64 links each, and always as large as if there were 64. */
static enum mix_rc emit_leaves(struct emitter *e, struct mix_err *err)
{
    size_t total = leaf_count(e) * leaf_bytes();
    enum mix_rc rc = mix_buf_reserve(e->out, total, err);

    if (rc)
        return rc;

    unsigned char *leaf = end_of(e->out);

    e->leaves_at = e->out->len;
    memset(leaf, 0, total);
    for (size_t first = 0; first < e->count; first += LEAF_LINKS, leaf += leaf_bytes()) {
        size_t links = mix_min(LEAF_LINKS, e->count - first);
        unsigned char *p = put_bytes(leaf, "SNOD\1\0", 6);

        put_le(p, links, 2);
        for (size_t k = 0; k < links; k++) {
            size_t i = e->order[first + k];

            p = leaf + MIX_H5_LEAF_PREFIX + k * MIX_H5_LINK;
            put_le(put_le(p, e->link_at[i], 8), e->object_at[i], 8);
        }
    }
    e->out->len += total;
    return MIX_OK;
}

static size_t tree_k(const struct emitter *e)
{
    return mix_max(TREE_MIN_K, mix_div_up(leaf_count(e), 2));
}

/* A B-tree node, version 1: key, leaf, key, leaf, ..., key; a key is the name before it. */
static enum mix_rc emit_tree(struct emitter *e, struct mix_err *err)
{
    size_t leaves = leaf_count(e), total = MIX_H5_TREE_PREFIX + tree_k(e) * 32 + 8;
    enum mix_rc rc = mix_buf_reserve(e->out, total, err);

    if (rc)
        return rc;

    unsigned char *p = end_of(e->out);

    e->tree_at = e->out->len;
    memset(p, 0, total);
    p = put_bytes(p, "TREE\0\0", 6); /* of a group, just above the leaves */
    p = put_le(p, leaves, 2);
    p = put_le(p, MIX_H5_NOWHERE, 8); /* no siblings */
    p = put_le(p, MIX_H5_NOWHERE, 8);
    p = put_le(p, 0, 8); /* the empty name */
    for (size_t i = 0; i < leaves; i++) {
        size_t last = mix_min((i + 1) * LEAF_LINKS, e->count) - 1;

        p = put_le(p, e->leaves_at + i * leaf_bytes(), 8);
        p = put_le(p, e->link_at[e->order[last]], 8);
    }
    e->out->len += total;
    return MIX_OK;
}

/* The root group's object header: one message, which points at tree and heap. */
static void emit_root(const struct emitter *e)
{
    unsigned char *p = (unsigned char *)e->out->data + ROOT_AT;

    p = put_le(p, 1 | 1 << 16, 4); /* version, one message */
    p = put_le(p, 1, 4);           /* one link leads here */
    p = put_le(p, MIX_H5_MESSAGE_PREFIX + 16, 8);
    p = message_begin(p, MIX_H5_SYMBOL_TABLE, 0);
    message_end(put_le(put_le(p, e->tree_at, 8), e->heap_at, 8), p);
}

static void emit_superblock(const struct emitter *e, uint64_t file_bytes)
{
    unsigned char *p = (unsigned char *)e->out->data;

    p = put_bytes(p, MIX_H5_SIGNATURE, 8);
    p = put_bytes(p, "\0\0\0\0\0\x08\x08\0", 8); /* versions; 8-byte offsets and lengths */
    p = put_le(p, LEAF_LINKS / 2, 2);
    p = put_le(p, tree_k(e), 2);
    p = put_le(p, 0, 4);              /* consistency flags */
    p = put_le(p, 0, 8);              /* base address */
    p = put_le(p, MIX_H5_NOWHERE, 8); /* free-space information */
    p = put_le(p, file_bytes, 8);
    p = put_le(p, MIX_H5_NOWHERE, 8); /* driver information */
    p = put_le(p, 0, 8);              /* the root's link name */
    p = put_le(p, ROOT_AT, 8);
    p = put_le(p, 1, 8); /* what follows is a copy of the root's message */
    p = put_le(p, e->tree_at, 8);
    put_le(p, e->heap_at, 8);
}

/*
 * Give each piece its place, in the order given. A piece without bytes stands where
 * the next one would, so that offsets never fall and lie in the file.
 */
static enum mix_rc place_data(struct emitter *e, uint64_t *file_bytes, struct mix_err *err)
{
    uint64_t at = e->out->len;

    for (size_t i = 0; i < e->count; i++) {
        struct mix_shard_piece *piece = &e->piece[i];

        at = mix_round_up(at, DATA_ALIGN);
        piece->offset = at;
        if (e->address_at[i])
            mix_store_le(e->out->data + e->address_at[i], at, 8);
        if (!mix_add(at, piece->bytes, &at) || at > INT64_MAX - DATA_ALIGN)
            return mix_fail(err, MIX_UNSUPPORTED,
                            "tensor '%s' would end beyond 2^63, where files end", piece->name);
    }
    *file_bytes = at;
    return MIX_OK;
}

/* What a tensor may be and an HDF5 dataset may not. */
static enum mix_rc check_piece(const struct mix_shard_piece *piece, struct mix_err *err)
{
    size_t len = strlen(piece->name);
    uint64_t bytes;
    enum mix_rc rc;

    if (len > MIX_H5_MAX_NAME)
        return mix_fail(err, MIX_UNSUPPORTED,
                        "tensor '%.60s...' has a name of %zu bytes; HDF5 shards hold up to %d",
                        piece->name, len, MIX_H5_MAX_NAME);
    if (piece->rank > MIX_MAX_RANK)
        return mix_fail(err, MIX_UNSUPPORTED, "tensor '%s' has %" PRIu32
                        " dimensions; HDF5 knows up to %d", piece->name, piece->rank, MIX_MAX_RANK);
    if ((rc = mix_dtype_bytes(piece->dtype, piece->rank, piece->shape, &bytes, err))) {
        mix_err_at(err, "tensor '%s'", piece->name);
        return rc;
    }
    assert(bytes == piece->bytes);
    return MIX_OK;
}

static enum mix_rc check_pieces(const struct mix_shard_piece *piece, size_t count,
                                struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    if (count > MAX_PIECES)
        return mix_fail(err, MIX_UNSUPPORTED, "%zu tensors in one HDF5 shard; it holds up to %d",
                        count, MAX_PIECES);
    for (size_t i = 0; i < count && !rc; i++) {
        assert(!i || strcmp(piece[i - 1].name, piece[i].name) < 0);
        rc = check_piece(&piece[i], err);
    }
    return rc;
}

static enum mix_rc emit(struct emitter *e, uint64_t *file_bytes, struct mix_err *err)
{
    enum mix_rc rc = mix_buf_reserve(e->out, ROOT_AT + ROOT_BYTES, err);

    if (!rc)
        e->out->len = ROOT_AT + ROOT_BYTES; /* filled in last */
    for (size_t i = 0; i < e->count && !rc; i++)
        rc = emit_object(e, i, err);
    if (rc || (rc = emit_heap(e, err)))
        return rc;
    sort_links(e);
    if ((rc = emit_leaves(e, err)) ||
        (rc = emit_tree(e, err)) ||
        (rc = place_data(e, file_bytes, err)))
        return rc;
    emit_root(e);
    emit_superblock(e, *file_bytes);
    *(char *)end_of(e->out) = '\0'; /* as every mix_buf */
    return MIX_OK;
}

enum mix_rc mix_h5shard_layout(struct mix_shard_piece *piece, size_t count,
                               struct mix_buf *header, uint64_t *file_bytes,
                               struct mix_err *err)
{
    struct emitter e = { .piece = piece, .count = count, .out = header };
    enum mix_rc rc;

    assert(!header->len);
    *file_bytes = 0;
    if ((rc = check_pieces(piece, count, err)) ||
        (rc = mix_new_array(&e.object_at, count, sizeof *e.object_at, err)) ||
        (rc = mix_new_array(&e.address_at, count, sizeof *e.address_at, err)) ||
        (rc = mix_new_array(&e.link_at, count, sizeof *e.link_at, err)) ||
        (rc = mix_new_array(&e.order, count, sizeof *e.order, err)) ||
        (rc = emit(&e, file_bytes, err)))
        mix_buf_clear(header);
    free(e.object_at);
    free(e.address_at);
    free(e.link_at);
    free(e.order);
    return rc;
}
