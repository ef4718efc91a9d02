/*
 * stream.c - one slice at a time, one thread each.
 *
 *   source --read--> stage of a file --hash leaves, CRC--> sink.write
 *                    (1 MiB, in the L2 cache)
 *
 * An item with one part is read straight into the stage of its file. An item whose
 * columns go to several files is read into `weave` and dealt out row by row. Leaves are
 * queued as pointers into those buffers, and always hashed before a buffer that they
 * point into is used again. Hashing is the dearest step, and fastest with exactly as many
 * leaves as the CPU takes at once: so a block ends where that many are queued, whatever
 * items they come from, and a stage is a little larger than they are.
 */
#include "ckpt/stream.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/cancel.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/progress.h"
#include "ckpt/digest_tree.h"

enum {
    BATCH = MIX_SHA256_BATCH,
    /* A batch of leaves, what comes before the first of them, and some gaps and small ones. */
    STAGE_BYTES = (BATCH + 2) * MIX_LEAF_BYTES,
    MAX_SLICES = 1 << 20,             /* 64 TiB */
    QUEUE = 256,                      /* leaves of many small tensors */
    TAILS = BATCH,                    /* leaves that end behind their item */
    GAP_FILLED = 4096,                /* alignment between pieces is written, more is left */
};

/* ---- groups ---- */

enum mix_rc mix_group_add_file(struct mix_group *group, const struct mix_group_file *file,
                               struct mix_err *err)
{
    enum mix_rc rc = mix_grow(&group->file, &group->file_capacity, group->file_count,
                              sizeof *group->file, err);

    if (!rc)
        group->file[group->file_count++] = *file;
    return rc;
}

enum mix_rc mix_group_add_item(struct mix_group *group, const struct mix_item *item,
                               const struct mix_part *part, uint32_t part_count,
                               struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = mix_grow(&group->item, &group->item_capacity, group->item_count,
                       sizeof *group->item, err)))
        return rc;
    group->item[group->item_count] = *item;
    group->item[group->item_count].part_first = (uint32_t)group->part_count;
    group->item[group->item_count].part_count = part_count;
    for (uint32_t i = 0; i < part_count; i++) {
        if ((rc = mix_grow(&group->part, &group->part_capacity, group->part_count,
                           sizeof *group->part, err)))
            return rc;
        group->part[group->part_count++] = part[i];
    }
    group->item_count++;
    if (!mix_add(group->bytes, item->end - item->begin, &group->bytes))
        group->bytes = UINT64_MAX; /* from a hostile manifest; refused when it is settled */
    return MIX_OK;
}

/*
 * Walk the items and cut where 64 MiB are full: between items, or in a large one where
 * a leaf begins. Counts only, if `slice` is NULL.
 */
static size_t cut_slices(const struct mix_group *group, struct mix_slice *slice)
{
    size_t count = 0;
    uint64_t filled = MIX_SLICE_BYTES; /* so that the first item begins a slice */

    for (size_t i = 0; i < group->item_count; i++) {
        const struct mix_item *item = &group->item[i];

        for (uint64_t at = item->begin;;) {
            if (filled >= MIX_SLICE_BYTES) {
                if (slice)
                    slice[count] = (struct mix_slice){ i, at };
                count++;
                filled = 0;
            }

            uint64_t next = at + (MIX_SLICE_BYTES - filled);

            next -= next % MIX_LEAF_BYTES;
            if (next <= at)
                next = at + MIX_LEAF_BYTES - at % MIX_LEAF_BYTES;
            if (next >= item->end) {
                filled += item->end - at;
                break;
            }
            filled = MIX_SLICE_BYTES;
            at = next;
        }
    }
    if (slice)
        slice[count] = (struct mix_slice){ group->item_count, 0 };
    return count;
}

enum mix_rc mix_group_settle(struct mix_group *group, struct mix_err *err)
{
    size_t count;
    enum mix_rc rc;

    if (group->bytes / MIX_SLICE_BYTES > MAX_SLICES)
        return mix_fail(err, MIX_UNSUPPORTED, "files that belong together hold %" PRIu64
                        " bytes; at most %" PRIu64 " can be walked", group->bytes,
                        (uint64_t)MAX_SLICES * MIX_SLICE_BYTES);
    count = cut_slices(group, NULL);
    if ((rc = mix_new_array(&group->slice, count + 1, sizeof *group->slice, err)))
        return rc;
    cut_slices(group, group->slice);
    group->slice_count = count;
    return MIX_OK;
}

void mix_group_release(struct mix_group *group)
{
    for (size_t i = 0; i < group->file_count; i++) {
        mix_buf_release(&group->file[i].header);
        if (group->file[i].fd >= 0)
            close(group->file[i].fd); /* whoever cares has closed it, and looked */
    }
    free(group->file);
    free(group->item);
    free(group->part);
    free(group->slice);
    mix_arena_release(&group->arena);
    *group = (struct mix_group)MIX_GROUP_INIT;
}

/* The bytes [*begin, *end) of item i that slice s holds; false if none. */
static bool slice_range(const struct mix_group *group, size_t s, size_t i, uint64_t *begin,
                        uint64_t *end)
{
    const struct mix_slice *from = &group->slice[s], *to = from + 1;

    if (i < from->item || i > to->item || (i == to->item && i == group->item_count))
        return false;
    *begin = i == from->item ? from->at : group->item[i].begin;
    *end = i == to->item ? to->at : group->item[i].end;
    return i != to->item || *end > *begin;
}

uint64_t mix_group_slice_bytes(const struct mix_group *group, size_t slice)
{
    uint64_t bytes = 0, begin, end;

    for (size_t i = group->slice[slice].item; i <= group->slice[slice + 1].item; i++)
        if (slice_range(group, slice, i, &begin, &end))
            bytes += end - begin;
    return bytes;
}

/* ---- buffers ---- */

/* What waits to be written to one file: bytes [offset, offset + len). */
struct stage {
    unsigned char *data;
    uint64_t offset;
    size_t len;
};

struct leaf {
    uint32_t tensor;
    uint64_t index;
};

struct mix_stream {
    const struct mix_ckpt_tensor *tensor;
    int with_crc;
    struct stage *stage; /* one a file of the group at hand */
    size_t stage_count;
    unsigned char *weave;
    unsigned char *tail; /* TAILS leaves */
    unsigned tails_used;
    struct leaf leaf[QUEUE];
    struct mix_sha256_job job[QUEUE];
    unsigned char hash[QUEUE][32];
    size_t queued, queued_whole; /* leaves, and those of them that have 64 KiB */

    /* the slice at hand */
    const struct mix_group *group;
    const struct mix_source *source;
    const struct mix_sink *sink;
    struct mix_file_sum *sum;
};

uint64_t mix_stream_memory(size_t file_count)
{
    return (file_count + 1) * STAGE_BYTES + TAILS * MIX_LEAF_BYTES + sizeof(struct mix_stream);
}

enum mix_rc mix_stream_new(const struct mix_ckpt_tensor *tensor, int with_crc,
                           struct mix_stream **out, struct mix_err *err)
{
    struct mix_stream *s;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&s, sizeof *s, err)))
        return rc;
    s->tensor = tensor;
    s->with_crc = with_crc;
    if ((rc = mix_new(&s->weave, STAGE_BYTES, err)) ||
        (rc = mix_new(&s->tail, TAILS * MIX_LEAF_BYTES, err))) {
        mix_stream_free(s);
        return rc;
    }
    *out = s;
    return MIX_OK;
}

void mix_stream_free(struct mix_stream *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->stage_count; i++)
        free(s->stage[i].data);
    free(s->stage);
    free(s->weave);
    free(s->tail);
    free(s);
}

static enum mix_rc need_stages(struct mix_stream *s, size_t count, struct mix_err *err)
{
    struct stage *grown;

    if (count <= s->stage_count)
        return MIX_OK;
    if (!(grown = realloc(s->stage, count * sizeof *grown)))
        return mix_fail(err, MIX_NO_MEMORY, "out of memory");
    s->stage = grown;
    for (; s->stage_count < count; s->stage_count++) {
        struct stage *stage = &s->stage[s->stage_count];
        enum mix_rc rc;

        memset(stage, 0, sizeof *stage);
        if ((rc = mix_new(&stage->data, STAGE_BYTES, err)))
            return rc;
    }
    return MIX_OK;
}

/* Hash what is queued and hand it on, neighbouring leaves of a tensor together. */
static enum mix_rc flush_leaves(struct mix_stream *s, struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    mix_sha256_prefixed(0x00, s->job, s->queued);
    for (size_t i = 0, n; i < s->queued && !rc; i += n) {
        for (n = 1; i + n < s->queued; n++)
            if (s->leaf[i + n].tensor != s->leaf[i].tensor ||
                s->leaf[i + n].index != s->leaf[i].index + n)
                break;
        rc = s->sink->leaves(s->sink->context, s->leaf[i].tensor, s->leaf[i].index, s->hash[i],
                             n, err);
    }
    s->queued = s->queued_whole = 0;
    s->tails_used = 0;
    return rc;
}

static enum mix_rc flush_stage(struct mix_stream *s, uint32_t file, struct mix_err *err)
{
    struct stage *stage = &s->stage[file];
    struct mix_file_sum *sum = &s->sum[file];
    enum mix_rc rc;

    if (!stage->len)
        return MIX_OK;
    if ((rc = flush_leaves(s, err)))
        return rc;
    if (!sum->bytes)
        sum->start = stage->offset;
    if (s->with_crc) {
        uint64_t gap = stage->offset - (sum->start + sum->bytes);

        sum->crc64 = mix_crc64(mix_crc64_zeros(sum->crc64, gap), stage->data, stage->len);
    }
    sum->bytes = stage->offset + stage->len - sum->start;
    if (s->sink->write && (rc = s->sink->write(s->sink->context, s->group, file, stage->offset,
                                               stage->data, stage->len, err)))
        return rc;
    stage->len = 0;
    return MIX_OK;
}

/* Room for `len` bytes at `offset` of a file, behind what waits there if that is near. */
static enum mix_rc reserve(struct mix_stream *s, uint32_t file, uint64_t offset, size_t len,
                           unsigned char **out, struct mix_err *err)
{
    struct stage *stage = &s->stage[file];
    uint64_t gap = offset - (stage->offset + stage->len);
    enum mix_rc rc;

    if (stage->len && (gap > GAP_FILLED || stage->len + gap + len > STAGE_BYTES) &&
        (rc = flush_stage(s, file, err)))
        return rc;
    if (!stage->len) {
        stage->offset = offset;
    } else if (gap) {
        memset(stage->data + stage->len, 0, gap);
        stage->len += gap;
    }
    *out = stage->data + stage->len;
    return MIX_OK;
}

/* ---- leaves ---- */

static enum mix_rc queue_leaf(struct mix_stream *s, uint32_t tensor, uint64_t begin,
                              const void *data, size_t len, struct mix_err *err)
{
    enum mix_rc rc;

    if (s->queued == QUEUE && (rc = flush_leaves(s, err)))
        return rc;
    s->leaf[s->queued] = (struct leaf){ tensor, begin / MIX_LEAF_BYTES };
    s->job[s->queued] = (struct mix_sha256_job){ data, len, s->hash[s->queued] };
    s->queued++;
    s->queued_whole += len == MIX_LEAF_BYTES;
    return MIX_OK;
}

static enum mix_rc read_source(struct mix_stream *s, uint32_t tensor, uint64_t begin,
                               uint64_t end, void *buf, bool *readable, struct mix_err *err)
{
    enum mix_rc rc = s->source->read(s->source->context, tensor, begin, end, buf, err);

    *readable = !rc;
    if (rc && s->sink->unreadable)
        return s->sink->unreadable(s->sink->context, tensor, begin, end, rc, err);
    return rc;
}

/* A leaf that begins in this item and ends behind it: fetch the rest. */
static enum mix_rc queue_tail(struct mix_stream *s, uint32_t tensor, uint64_t begin,
                              uint64_t end, const void *data, uint64_t have,
                              struct mix_err *err)
{
    unsigned char *tail;
    bool readable;
    enum mix_rc rc;

    /* A queue that is full now would be flushed below, and this buffer counted as free. */
    if ((s->tails_used == TAILS || s->queued == QUEUE) && (rc = flush_leaves(s, err)))
        return rc;
    tail = s->tail + (size_t)s->tails_used * MIX_LEAF_BYTES;
    memcpy(tail, data, have);
    if ((rc = read_source(s, tensor, begin + have, end, tail + have, &readable, err)) ||
        !readable)
        return rc;
    s->tails_used++;
    return queue_leaf(s, tensor, begin, tail, end - begin, err);
}

/* Queue the leaves that begin in bytes [begin, end) of a tensor, which are at `data`. */
static enum mix_rc queue_leaves(struct mix_stream *s, uint32_t tensor, uint64_t begin,
                                uint64_t end, const unsigned char *data, struct mix_err *err)
{
    uint64_t leaf = mix_div_up(begin, MIX_LEAF_BYTES) * MIX_LEAF_BYTES;
    enum mix_rc rc = MIX_OK;

    for (; leaf < end && !rc; leaf += MIX_LEAF_BYTES) {
        uint64_t leaf_end = mix_min(leaf + MIX_LEAF_BYTES, s->tensor[tensor].bytes);

        if (leaf_end <= end)
            rc = queue_leaf(s, tensor, leaf, data + (leaf - begin), leaf_end - leaf, err);
        else
            rc = queue_tail(s, tensor, leaf, leaf_end, data + (leaf - begin), end - leaf, err);
    }
    return rc;
}

/* ---- items ---- */

/* Where byte `at` of an item that has columns goes in the file of one part. */
static uint64_t place_in_part(const struct mix_item *item, const struct mix_part *part,
                              uint64_t row_bytes, uint64_t at)
{
    uint64_t row = (at - item->begin) / row_bytes, in_row = (at - item->begin) % row_bytes;
    uint64_t width = part->column_end - part->column_begin;
    uint64_t column = mix_min(mix_max(in_row, part->column_begin), part->column_end);

    return part->offset + row * width + (column - part->column_begin);
}

/* Deal bytes [begin, end) of an item out to the files of its parts. */
static enum mix_rc deal(struct mix_stream *s, const struct mix_item *item, uint64_t begin,
                        uint64_t end, const unsigned char *data, struct mix_err *err)
{
    uint64_t row_bytes = s->tensor[item->tensor].cut.row_bytes;
    const struct mix_part *parts = &s->group->part[item->part_first];
    enum mix_rc rc;

    for (uint64_t at = begin; at < end;) {
        uint64_t in_row = (at - item->begin) % row_bytes;
        const struct mix_part *part = parts;

        while (part->column_end <= in_row)
            part++; /* they tile the row */

        uint64_t n = mix_min(part->column_end - in_row, end - at);
        unsigned char *to;

        if ((rc = reserve(s, part->file, place_in_part(item, part, row_bytes, at), n, &to, err)))
            return rc;
        memcpy(to, data + (at - begin), n);
        s->stage[part->file].len += n;
        at += n;
    }
    return MIX_OK;
}

/* Mark every file of an item as not fully read. */
static void mark_broken(struct mix_stream *s, const struct mix_item *item)
{
    for (uint32_t i = 0; i < item->part_count; i++)
        s->sum[s->group->part[item->part_first + i].file].broken = 1;
}

/* Bytes [begin, end) of an item, at most a leaf more than a batch of them. */
static enum mix_rc do_block(struct mix_stream *s, const struct mix_item *item, uint64_t begin,
                            uint64_t end, struct mix_err *err)
{
    const struct mix_part *part = &s->group->part[item->part_first];
    bool woven = item->part_count > 1, readable;
    unsigned char *data = s->weave;
    enum mix_rc rc;

    if ((!woven && (rc = reserve(s, part->file, part->offset + (begin - item->begin),
                                 end - begin, &data, err))) ||
        (rc = read_source(s, item->tensor, begin, end, data, &readable, err)))
        return rc;
    if (!readable) {
        memset(data, 0, end - begin);
        mark_broken(s, item);
    } else if ((s->sink->block && (rc = s->sink->block(s->sink->context, item->tensor, begin,
                                                       data, end - begin, err))) ||
               (s->sink->leaves &&
                (rc = queue_leaves(s, item->tensor, begin, end, data, err)))) {
        return rc;
    }
    if (woven)
        return deal(s, item, begin, end, data, err);
    s->stage[part->file].len += end - begin;
    return MIX_OK;
}

/*
 * Where a block that begins at byte `at` of an item ends: where a batch of leaves will be
 * queued. Those that are queued may point into `weave`; into a stage, reserve() takes care.
 */
static enum mix_rc find_block_end(struct mix_stream *s, const struct mix_item *item,
                                  uint64_t at, uint64_t *end, struct mix_err *err)
{
    uint64_t leaf = mix_div_up(at, MIX_LEAF_BYTES) * MIX_LEAF_BYTES;
    enum mix_rc rc;

    if ((item->part_count > 1 || s->queued_whole >= BATCH) && (rc = flush_leaves(s, err)))
        return rc;
    *end = leaf + (BATCH - s->queued_whole) * MIX_LEAF_BYTES;
    return MIX_OK;
}

/* Bytes [begin, end) of an item in blocks that end where leaves do. */
static enum mix_rc do_item(struct mix_stream *s, const struct mix_item *item, uint64_t begin,
                           uint64_t end, struct mix_progress *progress, _Atomic int *stop,
                           struct mix_err *err)
{
    enum mix_rc rc;

    for (uint64_t at = begin; at < end;) {
        uint64_t next;

        if (atomic_load_explicit(stop, memory_order_relaxed))
            return mix_fail(err, MIX_INTERRUPTED, "stopped");
        if ((rc = mix_cancel_check(err)) || (rc = find_block_end(s, item, at, &next, err)))
            return rc;
        next = mix_min(next, end);
        if ((rc = do_block(s, item, at, next, err)))
            return rc;
        mix_progress_done(progress, next - at);
        at = next;
    }
    return MIX_OK;
}

enum mix_rc mix_stream_slice(struct mix_stream *s, const struct mix_group *group, size_t slice,
                             const struct mix_source *source, const struct mix_sink *sink,
                             struct mix_file_sum *sum, struct mix_progress *progress,
                             _Atomic int *stop, struct mix_err *err)
{
    uint64_t begin, end;
    enum mix_rc rc;

    memset(sum, 0, group->file_count * sizeof *sum);
    s->group = group;
    s->source = source;
    s->sink = sink;
    s->sum = sum;
    s->queued = s->queued_whole = s->tails_used = 0;
    if ((rc = need_stages(s, group->file_count, err)))
        return rc;
    for (size_t i = 0; i < group->file_count; i++)
        s->stage[i].len = 0;
    for (size_t i = group->slice[slice].item; i <= group->slice[slice + 1].item && !rc; i++)
        if (slice_range(group, slice, i, &begin, &end))
            rc = do_item(s, &group->item[i], begin, end, progress, stop, err);
    for (size_t i = 0; i < group->file_count && !rc; i++)
        rc = flush_stage(s, (uint32_t)i, err);
    return rc ? rc : flush_leaves(s, err);
}
