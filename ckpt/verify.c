/* verify.c - walk everything, collect defects. */
#include "ckpt/verify.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/cancel.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/progress.h"
#include "ckpt/digest_tree.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/inventory.h"
#include "ckpt/store/store.h"
#include "ckpt/walk.h"

enum { READ_BYTES = 256 << 10, BAD_LEAVES_KEPT = 10000 };

/* A leaf whose hash is wrong; whose fault that is, the checksums of the files will say. */
struct bad_leaf {
    uint32_t tensor;
    uint64_t leaf;
};

enum file_state { UNKNOWN, GOOD, BAD, UNREADABLE };

struct tensor_values { /* --deep */
    _Atomic uint64_t nan_count, inf_count;
    _Atomic bool not_zero;
};

struct run {
    const struct mix_checkpoint *ckpt;
    const struct mix_verify_options *options;
    struct mix_verify_report *report;
    struct mix_inventory inventory;
    bool trust_digests;            /* mixckpt.digests is what the manifest says it is */
    _Atomic unsigned char *file_state;
    struct mix_file_sum **sums;    /* of each group at hand: [slice][file] */
    struct tensor_values *values;
    _Atomic uint64_t bytes_read;
    pthread_mutex_t lock;          /* of the list */
    struct bad_leaf *bad;
    size_t bad_count, bad_capacity;
    bool *file_blamed;             /* some leaf of it is wrong */
};

struct thread {
    struct run *run;
    struct mix_reader reader, against;
    unsigned char *other;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- files that are checked whole, by their SHA-256 ---- */

static enum mix_rc sha_of_file(struct run *run, const char *name, uint64_t bytes,
                               unsigned char sha[32], struct mix_err *err)
{
    struct mix_sha256 state;
    char *buf = NULL;
    enum mix_rc rc = mix_new(&buf, READ_BYTES, err);

    mix_sha256_init(&state);
    for (uint64_t at = 0; at < bytes && !rc; at += READ_BYTES) {
        size_t n = (size_t)mix_min(READ_BYTES, bytes - at);

        if ((rc = mix_cancel_check(err)) ||
            (rc = mix_store_read(run->ckpt->store, name, at, buf, n, err)))
            break;
        mix_sha256_put(&state, buf, n);
        atomic_fetch_add(&run->bytes_read, n);
        mix_progress_tick(run->options->progress);
    }
    mix_sha256_end(&state, sha);
    free(buf);
    return rc;
}

/* The size first: a file that is too short or too long is told from one that is wrong. */
static enum mix_rc check_size(struct run *run, const char *name, uint64_t bytes,
                              struct mix_err *err)
{
    struct mix_stat st;
    enum mix_rc rc;

    if ((rc = mix_store_stat(run->ckpt->store, name, &st, err)))
        return rc;
    if (st.is_folder)
        return mix_fail(err, MIX_NOT_FOUND, "is a folder; a file was expected");
    if (st.bytes < bytes)
        return mix_fail(err, MIX_TRUNCATED, "holds %" PRIu64 " bytes, %" PRIu64 " were expected",
                        st.bytes, bytes);
    if (st.bytes > bytes)
        return mix_fail(err, MIX_BAD_FORMAT, "holds %" PRIu64 " bytes, %" PRIu64
                        " were expected", st.bytes, bytes);
    return MIX_OK;
}

static enum mix_rc check_side(struct run *run, const struct mix_ckpt_side *side,
                              struct mix_err *err)
{
    unsigned char sha[32];
    enum mix_rc rc;

    if ((rc = check_size(run, side->name, side->bytes, err)) ||
        (rc = sha_of_file(run, side->name, side->bytes, sha, err)))
        return rc;
    if (memcmp(sha, side->sha256, 32))
        return mix_fail(err, MIX_CORRUPT, "its SHA-256 differs from the one in the manifest");
    return MIX_OK;
}

/* All files beside the shards. *pieces_good: the records can be walked. */
static enum mix_rc check_sides(struct run *run, bool *pieces_good, struct mix_err *err)
{
    const struct mix_manifest *m = &run->ckpt->m;

    *pieces_good = run->trust_digests = true;
    for (size_t i = 0; i < m->side_count; i++) {
        const char *name = m->side[i].name;
        bool is_pieces = !strcmp(name, "mixckpt.pieces");
        bool is_digests = !strcmp(name, "mixckpt.digests");
        enum mix_rc rc;

        /* Each worker needs to know about these two; the rest is worker 0's. */
        if (run->options->worker && !is_pieces && !is_digests)
            continue;
        if (!(rc = check_side(run, &m->side[i], err)))
            continue;
        if (is_pieces)
            *pieces_good = false;
        if (is_digests)
            run->trust_digests = false;
        if (run->options->worker)
            continue; /* worker 0 reports it */
        if ((rc = mix_defects_take(&run->report->defects, name, rc, err)))
            return mix_err_file(err, name);
    }
    return MIX_OK;
}

/* ---- the walk over shards ---- */

static enum mix_rc read_source(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                               void *buf, struct mix_err *err)
{
    struct thread *t = context;

    return mix_reader_read(&t->reader, &t->run->ckpt->m.tensor[tensor], begin, end, buf, err);
}

static enum mix_rc add_bad_leaf(struct run *run, uint32_t tensor, uint64_t leaf,
                                struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    pthread_mutex_lock(&run->lock);
    if (run->bad_count >= BAD_LEAVES_KEPT)
        run->report->defects.left_out++;
    else if (!(rc = mix_grow(&run->bad, &run->bad_capacity, run->bad_count, sizeof *run->bad,
                             err)))
        run->bad[run->bad_count++] = (struct bad_leaf){ tensor, leaf };
    pthread_mutex_unlock(&run->lock);
    return rc;
}

static enum mix_rc check_leaves(void *context, uint32_t tensor, uint64_t first,
                                const unsigned char *hash, size_t count, struct mix_err *err)
{
    struct thread *t = context;
    const struct mix_ckpt_tensor *ct = &t->run->ckpt->m.tensor[tensor];
    unsigned char said[64 * 32];
    enum mix_rc rc;

    if (!t->run->trust_digests)
        return MIX_OK;
    for (size_t at = 0; at < count;) {
        size_t n = (size_t)mix_min(count - at, sizeof said / 32);

        if ((rc = mix_store_read(t->run->ckpt->store, "mixckpt.digests",
                                 (ct->first_leaf + first + at) * 32, said, n * 32, err)))
            return mix_err_file(err, "mixckpt.digests");
        for (size_t i = 0; i < n; i++)
            if (memcmp(said + i * 32, hash + (at + i) * 32, 32) &&
                (rc = add_bad_leaf(t->run, tensor, first + at + i, err)))
                return rc;
        at += n;
    }
    return MIX_OK;
}

/* What cannot be read is the fault of a file, and said once a file. */
static enum mix_rc unreadable(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                              enum mix_rc rc, struct mix_err *err)
{
    struct run *run = ((struct thread *)context)->run;
    const struct mix_manifest *m = &run->ckpt->m;

    (void)tensor, (void)begin, (void)end;
    for (size_t f = 0; f < m->file_count; f++) {
        if (strcmp(m->file[f].name, err->file))
            continue;
        if (atomic_exchange(&run->file_state[f], UNREADABLE) == UNREADABLE)
            return MIX_OK;
        break;
    }
    return mix_defects_take(&run->report->defects, NULL, rc, err);
}

/* One defect a leaf, exactly the bytes that differ. */
static enum mix_rc report_mismatch(struct run *run, const struct mix_ckpt_tensor *t,
                                   uint64_t begin, const unsigned char *a,
                                   const unsigned char *b, size_t len, struct mix_err *err)
{
    enum mix_rc rc;

    for (size_t at = 0; at < len;) {
        size_t end = (size_t)mix_min(len, at + MIX_LEAF_BYTES - (begin + at) % MIX_LEAF_BYTES);
        size_t first = at, last = end;

        while (first < end && a[first] == b[first])
            first++;
        while (last > first && a[last - 1] == b[last - 1])
            last--;
        if (first < last &&
            (rc = mix_defects_add(&run->report->defects, "mismatch", "", t->name, begin + first,
                                  begin + last, err, "differs from the other checkpoint; the "
                                  "first such byte is 0x%02x here and 0x%02x there", a[first],
                                  b[first])))
            return rc;
        at = end;
    }
    return MIX_OK;
}

static bool same_kind(const struct mix_ckpt_tensor *a, const struct mix_ckpt_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           (!a->rank || !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape));
}

static enum mix_rc compare_block(struct thread *t, const struct mix_ckpt_tensor *a,
                                 uint64_t begin, const void *data, size_t len,
                                 struct mix_err *err)
{
    struct run *run = t->run;
    const struct mix_ckpt_tensor *b = mix_manifest_find(&run->options->against->m, a->name);
    enum mix_rc rc;

    if (!b || !same_kind(a, b))
        return MIX_OK; /* said already */
    if ((rc = mix_reader_read(&t->against, b, begin, begin + len, t->other, err)))
        return mix_err_at(err, "the other checkpoint");
    return memcmp(data, t->other, len)
               ? report_mismatch(run, a, begin, data, t->other, len, err)
               : MIX_OK;
}

static bool all_zero(const unsigned char *data, size_t len)
{
    return !len || (!data[0] && !memcmp(data, data + 1, len - 1));
}

static void look_at_values(struct run *run, uint32_t tensor, const void *data, size_t len)
{
    struct tensor_values *v = &run->values[tensor];
    uint64_t nan_count = 0, inf_count = 0;

    mix_dtype_count_non_finite(run->ckpt->m.tensor[tensor].dtype, data, len, &nan_count,
                               &inf_count);
    if (nan_count)
        atomic_fetch_add(&v->nan_count, nan_count);
    if (inf_count)
        atomic_fetch_add(&v->inf_count, inf_count);
    if (!atomic_load_explicit(&v->not_zero, memory_order_relaxed) && !all_zero(data, len))
        atomic_store(&v->not_zero, true);
}

static enum mix_rc check_block(void *context, uint32_t tensor, uint64_t begin,
                               const void *data, size_t len, struct mix_err *err)
{
    struct thread *t = context;

    if (t->run->options->deep)
        look_at_values(t->run, tensor, data, len);
    return t->run->options->against
               ? compare_block(t, &t->run->ckpt->m.tensor[tensor], begin, data, len, err)
               : MIX_OK;
}

static void thread_end(void *context, struct mix_walk_thread *thread)
{
    struct run *run = context;
    struct thread *t = thread->own;

    atomic_fetch_add(&run->bytes_read, t->reader.bytes_read + t->against.bytes_read);
    mix_reader_release(&t->reader);
    mix_reader_release(&t->against);
    free(t->other);
    free(t);
}

static enum mix_rc thread_begin(void *context, struct mix_walk_thread *thread,
                                struct mix_err *err)
{
    struct run *run = context;
    const struct mix_verify_options *o = run->options;
    bool ours = run->ckpt->form == MIX_FORM_MIXCKPT;
    struct thread *t;
    enum mix_rc rc;

    if ((rc = mix_new(&t, sizeof *t, err)))
        return rc;
    t->run = run;
    thread->own = t;
    thread->source = (struct mix_source){ t, read_source };
    thread->sink = (struct mix_sink){ .context = t, .unreadable = unreadable };
    if (ours)
        thread->sink.leaves = check_leaves;
    if (o->deep || o->against)
        thread->sink.block = check_block;
    if ((rc = mix_reader_init(&t->reader, run->ckpt, err)) ||
        (o->against && ((rc = mix_reader_init(&t->against, o->against, err)) ||
                        (rc = mix_new(&t->other, MIX_STREAM_MOST, err)))))
        thread_end(run, thread);
    return rc;
}

static enum mix_rc build(void *context, struct mix_walk_thread *thread, size_t g,
                         struct mix_group *group, struct mix_err *err)
{
    struct run *run = context;
    struct thread *t = thread->own;
    enum mix_rc rc;

    if ((rc = mix_inventory_build(&run->inventory, &t->reader, g, group, err)))
        return rc;
    for (size_t f = 0; f < group->file_count; f++) {
        if (!(rc = check_size(run, group->file[f].name, group->file[f].bytes, err)))
            continue;
        if (rc != MIX_BAD_FORMAT) /* too long can still be read */
            run->file_state[group->file[f].id] = UNREADABLE;
        if ((rc = mix_defects_take(&run->report->defects, group->file[f].name, rc, err)))
            return mix_err_file(err, group->file[f].name);
    }
    return mix_new_array(&run->sums[g], group->slice_count * group->file_count,
                         sizeof **run->sums, err);
}

static enum mix_rc slice_end(void *context, struct mix_walk_thread *thread, size_t g,
                             const struct mix_group *group, size_t slice,
                             const struct mix_file_sum *sum, struct mix_err *err)
{
    struct run *run = context;

    (void)thread, (void)err;
    memcpy(run->sums[g] + slice * group->file_count, sum, group->file_count * sizeof *sum);
    return MIX_OK;
}

/* Bytes [begin, end) of a file against `want`, or against zeros. *differs: at which byte. */
static enum mix_rc check_bytes(struct run *run, const char *name, uint64_t begin, uint64_t end,
                               const char *want, bool *same, uint64_t *differs,
                               struct mix_err *err)
{
    unsigned char buf[8192];
    enum mix_rc rc;

    *same = true;
    for (uint64_t at = begin; at < end && *same;) {
        size_t n = (size_t)mix_min(sizeof buf, end - at);

        if ((rc = mix_store_read(run->ckpt->store, name, at, buf, n, err)))
            return rc;
        atomic_fetch_add(&run->bytes_read, n);
        for (size_t i = 0; i < n && *same; i++) {
            if (buf[i] == (unsigned char)(want ? want[at - begin + i] : 0))
                continue;
            *same = false;
            *differs = at + i;
        }
        at += n;
    }
    return MIX_OK;
}

static enum mix_rc check_gap(struct run *run, const char *name, uint64_t begin, uint64_t end,
                             bool *good, struct mix_err *err)
{
    uint64_t at;
    bool same;
    enum mix_rc rc;

    if (begin >= end)
        return MIX_OK;
    if ((rc = check_bytes(run, name, begin, end, NULL, &same, &at, err)) || same)
        return rc;
    *good = false;
    return mix_fail(err, MIX_CORRUPT, "byte %" PRIu64 ", between two pieces, is not zero", at);
}

/* Everything of a shard that no leaf covers: its header, and the zeros between pieces. */
static enum mix_rc check_frame(struct run *run, const struct mix_group *group, size_t f,
                               struct mix_buf *header, bool *good, struct mix_err *err)
{
    const char *name = group->file[f].name;
    uint64_t at;
    bool same;
    enum mix_rc rc;

    if ((rc = mix_inventory_header(&run->inventory, group, f, header, err)) ||
        (rc = check_bytes(run, name, 0, header->len, header->data, &same, &at, err))) {
        *good = false;
        return rc;
    }
    if (!same) {
        *good = false;
        return mix_fail(err, MIX_CORRUPT, "byte %" PRIu64 " of its header is not what its pieces "
                        "imply", at);
    }
    at = header->len;
    for (size_t i = 0; i < group->item_count; i++) {
        const struct mix_item *item = &group->item[i];

        for (uint32_t j = 0; j < item->part_count; j++) {
            const struct mix_part *p = &group->part[item->part_first + j];
            uint64_t rows = run->ckpt->m.tensor[item->tensor].cut.row_bytes;

            if (p->file != f || item->end == item->begin)
                continue;
            if ((rc = check_gap(run, name, at, p->offset, good, err)))
                return rc;
            at = p->offset + (item->end - item->begin) / rows * (p->column_end - p->column_begin);
        }
    }
    return check_gap(run, name, at, group->file[f].bytes, good, err);
}

/* The checksum of a file from its parts, as far as all of them could be read. */
static bool join_sums(const struct run *run, size_t g, const struct mix_group *group, size_t f,
                      const struct mix_buf *header, uint64_t *crc)
{
    uint64_t at = header->len;

    *crc = mix_crc64(0, header->data, header->len);
    for (size_t s = 0; s < group->slice_count; s++) {
        const struct mix_file_sum *sum = &run->sums[g][s * group->file_count + f];

        if (sum->broken)
            return false;
        if (!sum->bytes)
            continue;
        *crc = mix_crc64_join(mix_crc64_zeros(*crc, sum->start - at), sum->crc64, sum->bytes);
        at = sum->start + sum->bytes;
    }
    *crc = mix_crc64_zeros(*crc, group->file[f].bytes - at);
    return true;
}

static enum mix_rc check_file(struct run *run, size_t g, const struct mix_group *group,
                              size_t f, struct mix_err *err)
{
    const struct mix_group_file *file = &group->file[f];
    struct mix_buf header = MIX_BUF_INIT;
    bool good = true;
    uint64_t crc;
    enum mix_rc rc;

    if (run->file_state[file->id] == UNREADABLE)
        return MIX_OK;
    rc = check_frame(run, group, f, &header, &good, err);
    if (rc) {
        run->file_state[file->id] = good ? UNREADABLE : UNKNOWN;
        rc = mix_defects_take(&run->report->defects, file->name, rc, err);
        if (rc)
            mix_err_file(err, file->name);
    } else if (join_sums(run, g, group, f, &header, &crc)) {
        run->file_state[file->id] = crc == run->ckpt->m.file[file->id].crc64 ? GOOD : BAD;
    }
    mix_buf_release(&header);
    return rc;
}

static enum mix_rc group_end(void *context, struct mix_walk_thread *thread, size_t g,
                             struct mix_group *group, struct mix_err *err)
{
    struct run *run = context;
    enum mix_rc rc = MIX_OK;

    (void)thread;
    for (size_t f = 0; f < group->file_count && !rc; f++)
        if (run->ckpt->form == MIX_FORM_MIXCKPT)
            rc = check_file(run, g, group, f, err);
    free(run->sums[g]);
    run->sums[g] = NULL;
    return rc;
}

/* ---- after the walk ---- */

static bool has_wrong_checksum(void *context, uint32_t file)
{
    struct run *run = context;

    return run->file_state[file] == BAD;
}

static enum mix_rc blame(struct run *run, struct mix_reader *reader, const struct bad_leaf *bad,
                         struct mix_err *err)
{
    const struct mix_manifest *m = &run->ckpt->m;
    const struct mix_ckpt_tensor *t = &m->tensor[bad->tensor];
    uint64_t begin = bad->leaf * MIX_LEAF_BYTES;
    uint32_t guilty;
    enum mix_rc rc = mix_reader_blame(reader, t, bad->leaf, has_wrong_checksum, run, &guilty, err);

    if (rc)
        return rc;
    run->file_blamed[guilty] = true;
    return mix_defects_add(&run->report->defects, "corrupt", m->file[guilty].name, t->name, begin,
                           mix_min(begin + MIX_LEAF_BYTES, t->bytes), err, "the SHA-256 of these "
                           "bytes differs from the one in mixckpt.digests");
}

static enum mix_rc blame_all(struct run *run, struct mix_err *err)
{
    const struct mix_manifest *m = &run->ckpt->m;
    struct mix_reader reader;
    enum mix_rc rc = mix_reader_init(&reader, run->ckpt, err);

    for (size_t i = 0; i < run->bad_count && !rc; i++)
        rc = blame(run, &reader, &run->bad[i], err);
    mix_reader_release(&reader);
    for (size_t f = 0; f < m->file_count && !rc; f++)
        if (run->file_state[f] == BAD && !run->file_blamed[f])
            rc = mix_defects_add(&run->report->defects, "corrupt", m->file[f].name, "", 0, 0, err,
                                 "its CRC-64/NVME differs from the one in the manifest%s",
                                 run->trust_digests ? ", though every leaf is right" : "");
    return rc;
}

/* The leaves in mixckpt.digests must give the digests in the manifest. */
static enum mix_rc check_roots(struct run *run, struct mix_err *err)
{
    enum { CHUNK = 2048 };
    const struct mix_manifest *m = &run->ckpt->m;
    unsigned char *hash = NULL, root[32], digest[32];
    enum mix_rc rc = mix_new(&hash, CHUNK * 32, err);

    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i];
        uint64_t leaves = mix_leaf_count(t->bytes);
        struct mix_merkle tree = MIX_MERKLE_INIT;

        for (uint64_t at = 0; at < leaves && !rc;) {
            size_t n = (size_t)mix_min(CHUNK, leaves - at);

            rc = mix_store_read(run->ckpt->store, "mixckpt.digests", (t->first_leaf + at) * 32,
                                hash, n * 32, err);
            for (size_t k = 0; k < n && !rc; k++)
                mix_merkle_put(&tree, hash + k * 32);
            at += n;
        }
        if (rc) {
            mix_err_file(err, "mixckpt.digests");
            break;
        }
        mix_merkle_root(&tree, root);
        mix_tensor_digest(t->dtype, t->rank, t->shape, root, digest);
        if (memcmp(digest, t->digest, 32))
            rc = mix_defects_add(&run->report->defects, "corrupt", "mixckpt.digests", t->name, 0,
                                 t->bytes, err, "the leaves of this tensor do not give the digest "
                                 "in the manifest");
    }
    free(hash);
    return rc;
}

static const char *file_of(const struct mix_checkpoint *ckpt, const struct mix_ckpt_tensor *t)
{
    return ckpt->form == MIX_FORM_MIXCKPT ? "" : ckpt->m.file[t->file].name;
}

static enum mix_rc report_values(struct run *run, struct mix_err *err)
{
    const struct mix_manifest *m = &run->ckpt->m;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i];
        struct tensor_values *v = &run->values[i];

        if (v->nan_count || v->inf_count)
            rc = mix_defects_add(&run->report->defects, "non-finite", file_of(run->ckpt, t),
                                 t->name, 0, t->bytes, err, "%" PRIu64 " NaN and %" PRIu64
                                 " Inf values", v->nan_count, v->inf_count);
        /* Moments of an expert that no token reached are zero, and right. */
        if (!rc && t->bytes && !v->not_zero && !strchr(t->name, '@') &&
            run->options->worker_count == 1)
            rc = mix_defects_add(&run->report->defects, "all-zero", file_of(run->ckpt, t),
                                 t->name, 0, t->bytes, err, "every byte is zero");
    }
    return rc;
}

/* Names, dtypes and shapes of the two; the bytes are compared on the walk. */
static enum mix_rc compare_lists(struct run *run, struct mix_err *err)
{
    const struct mix_manifest *a = &run->ckpt->m, *b = &run->options->against->m;
    char x[MIX_SHAPE_TEXT], y[MIX_SHAPE_TEXT];
    struct mix_defects *defects = &run->report->defects;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < a->tensor_count && !rc; i++) {
        const struct mix_ckpt_tensor *t = &a->tensor[i], *o = mix_manifest_find(b, t->name);

        if (!o)
            rc = mix_defects_add(defects, "mismatch", "", t->name, 0, t->bytes, err,
                                 "is not in the other checkpoint");
        else if (!same_kind(t, o))
            rc = mix_defects_add(defects, "mismatch", "", t->name, 0, t->bytes, err,
                                 "is %s %s here, %s %s in the other checkpoint",
                                 mix_dtype_name(t->dtype), mix_shape_text(t->rank, t->shape, x),
                                 mix_dtype_name(o->dtype), mix_shape_text(o->rank, o->shape, y));
    }
    for (size_t i = 0; i < b->tensor_count && !rc; i++)
        if (!mix_manifest_find(a, b->tensor[i].name))
            rc = mix_defects_add(defects, "mismatch", "", b->tensor[i].name, 0, 0, err,
                                 "is only in the other checkpoint");
    return rc;
}

/* ---- what should not be there ---- */

static bool is_listed(const struct mix_manifest *m, const char *path)
{
    size_t low = 0, high = m->file_count; /* sorted */

    if (mix_manifest_side(m, path))
        return true;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(m->file[middle].name, path);

        if (!order)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* A shard's own name pattern: dense-... or experts-... with a container's ending. */
static bool looks_like_shard(const char *name)
{
    size_t len = strlen(name);

    if (strncmp(name, "dense-", 6) && strncmp(name, "experts-", 8))
        return false;
    return (len > 3 && !strcmp(name + len - 3, ".h5")) ||
           (len > 12 && !strcmp(name + len - 12, ".safetensors"));
}

static enum mix_rc find_unexpected(struct run *run, const char *folder, struct mix_err *err)
{
    struct mix_names names = MIX_NAMES_INIT;
    struct mix_buf path = MIX_BUF_INIT;
    enum mix_rc rc = mix_store_list(run->ckpt->store, folder, &names, err);

    if (rc == MIX_NOT_FOUND)
        rc = MIX_OK;
    for (size_t i = 0; i < names.count && !rc; i++) {
        mix_buf_clear(&path);
        if (looks_like_shard(names.name[i]) &&
            !(rc = mix_buf_putf(&path, err, "%s/%s", folder, names.name[i])) &&
            !is_listed(&run->ckpt->m, path.data))
            rc = mix_defects_add(&run->report->defects, "unexpected", path.data, NULL, 0, 0, err,
                                 "the manifest does not list this shard file");
    }
    mix_buf_release(&path);
    mix_names_release(&names);
    return rc;
}

/* ---- hub caches ---- */

/* The SHA-256 that a link's target is named by: 64 hex digits. */
static bool hub_sha(struct run *run, const char *name, unsigned char sha[32])
{
    struct mix_buf target = MIX_BUF_INIT;
    struct mix_err ignored;
    bool found = false;

    if (!mix_store_link_target(run->ckpt->store, name, &target, &ignored) && target.len) {
        const char *base = strrchr(target.data, '/');

        base = base ? base + 1 : target.data;
        found = strlen(base) == 64 && mix_unhex(base, sha, 32);
    }
    mix_buf_release(&target);
    return found;
}

static enum mix_rc check_hub_file(struct run *run, const struct mix_ckpt_file *file,
                                  const unsigned char want[32], struct mix_err *err)
{
    unsigned char sha[32];
    enum mix_rc rc;

    if (!(rc = sha_of_file(run, file->name, file->bytes, sha, err)) && memcmp(sha, want, 32))
        rc = mix_fail(err, MIX_CORRUPT, "its SHA-256 is not the one that its blob is named by");
    if (rc && (rc = mix_defects_take(&run->report->defects, file->name, rc, err)))
        mix_err_file(err, file->name);
    return rc;
}

static enum mix_rc check_hub(struct run *run, struct mix_err *err)
{
    const struct mix_manifest *m = &run->ckpt->m;
    unsigned char sha[32];
    enum mix_rc rc = MIX_OK;

    for (size_t f = 0; f < m->file_count; f++)
        if (!hub_sha(run, m->file[f].name, sha))
            return MIX_OK;
    if (!m->file_count)
        return MIX_OK;
    run->report->proof = "hub-sha256";
    for (size_t f = 0; f < m->file_count && !rc; f++)
        if (f % run->options->worker_count == run->options->worker) {
            hub_sha(run, m->file[f].name, sha);
            rc = check_hub_file(run, &m->file[f], sha, err);
        }
    return rc;
}

/* ---- all of it ---- */

static enum mix_rc walk_files(struct run *run, struct mix_err *err)
{
    const struct mix_verify_options *o = run->options;
    struct mix_walk walk = { .context = run, .tensor = run->ckpt->m.tensor, .jobs = o->threads,
                             .with_crc = run->ckpt->form == MIX_FORM_MIXCKPT,
                             .progress = o->progress, .thread_begin = thread_begin,
                             .thread_end = thread_end, .build = build, .slice_end = slice_end,
                             .group_end = group_end };
    size_t first = 0, count;
    enum mix_rc rc;

    if ((rc = mix_inventory_init(&run->inventory, run->ckpt, &run->report->defects, err)))
        return rc;
    walk.group_count = count = run->inventory.group_count;
    mix_walk_share(run->inventory.group_bytes, count, o->worker, o->worker_count, &first, &count);
    for (size_t g = first; g < first + count; g++)
        mix_progress_total(o->progress, run->inventory.group_bytes[g]);
    if ((rc = mix_new_array(&run->sums, walk.group_count, sizeof *run->sums, err)))
        return rc;
    return mix_walk_run(&walk, first, count, err);
}

static enum mix_rc verify_shards(struct run *run, struct mix_err *err)
{
    bool pieces_good;
    enum mix_rc rc;

    run->report->proof = "digests";
    if ((rc = check_sides(run, &pieces_good, err)))
        return rc;
    if (run->options->worker == 0 &&
        ((rc = find_unexpected(run, "model", err)) || (rc = find_unexpected(run, "optimizer", err)) ||
         (run->trust_digests && (rc = check_roots(run, err)))))
        return rc;
    if (!pieces_good)
        return mix_texts_add(&run->report->warnings, err, "mixckpt.pieces is damaged: what the "
                             "shards hold was not checked");
    if (!run->trust_digests &&
        (rc = mix_texts_add(&run->report->warnings, err, "mixckpt.digests is damaged: shards are "
                            "checked by their CRC-64/NVME only")))
        return rc;
    if ((rc = walk_files(run, err)))
        return rc;
    return blame_all(run, err);
}

static enum mix_rc verify_any(struct run *run, struct mix_err *err)
{
    const struct mix_verify_options *o = run->options;
    enum mix_rc rc;

    if (o->against && o->worker == 0 && (rc = compare_lists(run, err)))
        return rc;
    if (run->ckpt->form == MIX_FORM_MIXCKPT)
        rc = verify_shards(run, err);
    else if (!(rc = check_hub(run, err)) && (o->deep || o->against))
        rc = walk_files(run, err);
    if (rc || !o->deep)
        return rc;
    return report_values(run, err);
}

/* Opening has read and checked the header of every weight file. */
static void count_headers(struct run *run)
{
    size_t len;

    for (size_t i = 0; run->ckpt->form != MIX_FORM_MIXCKPT && i < run->ckpt->origin_count; i++) {
        mix_safetensors_header(run->ckpt->origin[i].header, &len);
        run->bytes_read += len;
    }
}

static enum mix_rc take_warnings(struct run *run, struct mix_err *err)
{
    const struct mix_texts *from = &run->ckpt->warnings;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < from->count && !rc; i++)
        rc = mix_texts_add(&run->report->warnings, err, "%s", from->text[i]);
    return rc;
}

static void release(struct run *run)
{
    for (size_t g = 0; run->sums && g < run->inventory.group_count; g++)
        free(run->sums[g]);
    free(run->sums);
    free((void *)run->file_state);
    free(run->file_blamed);
    free(run->values);
    free(run->bad);
    mix_inventory_release(&run->inventory);
    pthread_mutex_destroy(&run->lock);
}

enum mix_rc mix_verify(const char *url, const struct mix_verify_options *options,
                       struct mix_verify_report *report, struct mix_err *err)
{
    struct run run = { .options = options, .report = report };
    struct mix_checkpoint *ckpt = NULL;
    double began = now();
    enum mix_rc rc;

    memset(report, 0, sizeof *report);
    mix_defects_init(&report->defects);
    mix_texts_init(&report->warnings);
    report->proof = "structure";
    pthread_mutex_init(&run.lock, NULL);
    if ((rc = mix_checkpoint_open(url, &report->defects, &ckpt, err)))
        goto out;
    run.ckpt = ckpt;
    count_headers(&run);
    /* Without a manifest that can be read there is nothing to check against. */
    bool opened = ckpt->m.tensor_count || !report->defects.count;

    if ((opened && (rc = mix_checkpoint_check_model(ckpt, &report->defects, err))) ||
        (rc = mix_new_array(&run.file_state, ckpt->m.file_count, sizeof *run.file_state, err)) ||
        (rc = mix_new_array(&run.file_blamed, ckpt->m.file_count, 1, err)) ||
        (rc = mix_new_array(&run.values, ckpt->m.tensor_count, sizeof *run.values, err)) ||
        (opened && (rc = verify_any(&run, err))) || (rc = take_warnings(&run, err)))
        goto out;
out:
    report->bytes_read = run.bytes_read;
    report->seconds = now() - began;
    mix_defects_sort(&report->defects);
    release(&run);
    mix_checkpoint_close(ckpt);
    return rc;
}

void mix_verify_report_release(struct mix_verify_report *report)
{
    mix_defects_release(&report->defects);
    mix_texts_release(&report->warnings);
}
