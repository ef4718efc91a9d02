/*
 * stream.h - the bytes of shard files, from first to last: read, hashed while they are
 * in the cache, and handed on. Converting, resharding, verifying and digesting are all
 * this, with different ends.
 *
 * A group is the files that must be made together: those that hold column parts of the
 * same rows (tensor parallelism), otherwise a single file. Its items stand in the order
 * of the bytes of its files. It is cut into slices of about 64 MiB, which different
 * threads may do, and which are the unit of what an interrupted job has done.
 *
 * A leaf of the digest tree belongs to the item that holds its first byte; what of it
 * lies behind the item is read from the source once more.
 */
#ifndef MIXCKPT_CKPT_STREAM_H
#define MIXCKPT_CKPT_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/mem.h"
#include "ckpt/digest_tree.h"
#include "ckpt/manifest.h"

/* Where an item's bytes go in one file: all of each row, or columns of it. */
struct mix_part {
    uint32_t file;        /* index in the group */
    uint64_t offset;      /* of the item's first byte in that file */
    uint64_t column_begin, column_end; /* bytes of each row */
};

/* Bytes [begin, end) of a tensor: whole rows if there are several parts. */
struct mix_item {
    uint32_t tensor;      /* index in the list that the stream was made for */
    uint32_t part_first, part_count; /* in the group's parts; they tile the row in order */
    uint64_t begin, end;
};

struct mix_group_file {
    uint32_t id;          /* the owner's number for it */
    const char *name;
    uint64_t bytes;
    struct mix_buf header; /* its first bytes; may be empty when nobody needs them */
    int fd;               /* open for writing, or -1; closed with the group */
};

/* Small, so that threads end at about the same time. Part of what makes a job the same. */
enum { MIX_SLICE_BYTES = 64 << 20 };

struct mix_slice { /* begins at byte `at` of the tensor of item `item` */
    size_t item;
    uint64_t at;
};

struct mix_group {
    struct mix_arena arena; /* names and such that live with the group */
    struct mix_group_file *file;
    size_t file_count, file_capacity;
    struct mix_item *item;
    size_t item_count, item_capacity;
    struct mix_part *part;
    size_t part_count, part_capacity;
    struct mix_slice *slice; /* slice_count of them and one behind the last */
    size_t slice_count;
    uint64_t bytes;          /* of all items */
};
#define MIX_GROUP_INIT { 0 }

/* Add one; part_first and so on are filled in by the caller before. */
enum mix_rc mix_group_add_file(struct mix_group *group, const struct mix_group_file *file,
                               struct mix_err *err);
enum mix_rc mix_group_add_item(struct mix_group *group, const struct mix_item *item,
                               const struct mix_part *part, uint32_t part_count,
                               struct mix_err *err);
/* Once all items are there: cut them into slices. */
enum mix_rc mix_group_settle(struct mix_group *group, struct mix_err *err);
void mix_group_release(struct mix_group *group);
uint64_t mix_group_slice_bytes(const struct mix_group *group, size_t slice);

/* Where the bytes come from. Threads have a source each. */
struct mix_source {
    void *context;
    /* Bytes [begin, end) of tensor `tensor`. */
    enum mix_rc (*read)(void *context, uint32_t tensor, uint64_t begin, uint64_t end, void *buf,
                        struct mix_err *err);
};

/* Where they go. Any of these may be NULL. */
struct mix_sink {
    void *context;
    /* Bytes of a file of the group. In a slice, each file's come in order. */
    enum mix_rc (*write)(void *context, const struct mix_group *group, uint32_t file,
                         uint64_t offset, const void *data, size_t len, struct mix_err *err);
    /* Hashes of leaves first, first + 1, ... of a tensor. Without it nothing is hashed. */
    enum mix_rc (*leaves)(void *context, uint32_t tensor, uint64_t first,
                          const unsigned char *hash, size_t count, struct mix_err *err);
    /* Bytes of the items as they pass, each exactly once. */
    enum mix_rc (*block)(void *context, uint32_t tensor, uint64_t begin, const void *data,
                         size_t len, struct mix_err *err);
    /* Bytes that cannot be read: MIX_OK goes on without them, anything else ends it. */
    enum mix_rc (*unreadable)(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                              enum mix_rc rc, struct mix_err *err);
};

/* What of one file a slice has covered: [start, start + bytes), with zeros in its gaps. */
struct mix_file_sum {
    uint64_t start, bytes, crc64;
    int broken; /* some of it could not be read */
};

/* The most bytes that are read, or shown to `block`, at once. */
enum { MIX_STREAM_MOST = (MIX_SHA256_BATCH + 1) * MIX_LEAF_BYTES };

struct mix_stream; /* a thread's buffers */

/* `tensor` is borrowed: the list that items speak of. `with_crc`: fill mix_file_sum.crc64. */
enum mix_rc mix_stream_new(const struct mix_ckpt_tensor *tensor, int with_crc,
                           struct mix_stream **out, struct mix_err *err);
void mix_stream_free(struct mix_stream *stream); /* accepts NULL */
/* About how much memory a stream takes for groups of that many files. */
uint64_t mix_stream_memory(size_t file_count);

/*
 * Do one slice. sum[i] is filled for each file of the group. *stop is looked at between
 * blocks, and so is mix_cancel_requested(). progress may be NULL.
 */
struct mix_progress;
enum mix_rc mix_stream_slice(struct mix_stream *stream, const struct mix_group *group,
                             size_t slice, const struct mix_source *source,
                             const struct mix_sink *sink, struct mix_file_sum *sum,
                             struct mix_progress *progress, _Atomic int *stop,
                             struct mix_err *err);

#endif
