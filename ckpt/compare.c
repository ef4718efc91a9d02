/*
 * compare.c - walks that go tensor by tensor rather than file by file: digests of any
 * checkpoint, and one checkpoint against another.
 *
 * A group is one tensor, its only file a name for it that nobody writes to.
 */
#include "ckpt/compare.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/file.h"
#include "ckpt/base/progress.h"
#include "ckpt/digest_tree.h"
#include "ckpt/walk.h"

struct run {
    const struct mix_checkpoint *a;
    const uint32_t *tensor;        /* of a, for each group */
    _Atomic uint64_t bytes_read;

    /* digests: */
    int leaf_fd;                   /* the hashes of all leaves, at first_leaf - leaf_base */
    uint64_t leaf_base;

    /* comparison: */
    const struct mix_checkpoint *b;
    bool numeric;
    struct sums *sums;             /* one a tensor of a */
};

struct sums { /* of the differences of a tensor */
    pthread_mutex_t lock;
    bool differs;
    double max_abs, sum_abs;
};

struct thread {
    struct run *run;
    struct mix_reader a, b;
    unsigned char *other; /* bytes of b */
    size_t other_bytes;
};

static enum mix_rc read_a(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                          void *buf, struct mix_err *err)
{
    struct thread *t = context;

    return mix_reader_read(&t->a, &t->run->a->m.tensor[tensor], begin, end, buf, err);
}

static enum mix_rc build(void *context, struct mix_walk_thread *thread, size_t g,
                         struct mix_group *group, struct mix_err *err)
{
    struct run *run = context;
    const struct mix_ckpt_tensor *t = &run->a->m.tensor[run->tensor[g]];
    const struct mix_group_file file = { .name = t->name, .bytes = t->bytes, .fd = -1 };
    const struct mix_item item = { .tensor = run->tensor[g], .end = t->bytes };
    const struct mix_part part = { .column_end = t->cut.row_bytes };
    enum mix_rc rc;

    (void)thread;
    if ((rc = mix_group_add_file(group, &file, err)) ||
        (rc = mix_group_add_item(group, &item, &part, 1, err)))
        return rc;
    return mix_group_settle(group, err);
}

static void thread_end(void *context, struct mix_walk_thread *thread)
{
    struct run *run = context;
    struct thread *t = thread->own;

    atomic_fetch_add(&run->bytes_read, t->a.bytes_read + t->b.bytes_read);
    mix_reader_release(&t->a);
    mix_reader_release(&t->b);
    free(t->other);
    free(t);
}

static enum mix_rc thread_new(struct run *run, struct mix_walk_thread *thread,
                              struct thread **out, struct mix_err *err)
{
    struct thread *t;
    enum mix_rc rc;

    if ((rc = mix_new(&t, sizeof *t, err)))
        return rc;
    t->run = run;
    thread->own = *out = t;
    thread->source = (struct mix_source){ t, read_a };
    if ((rc = mix_reader_init(&t->a, run->a, err)))
        free(t);
    return rc;
}

/* ---- digests ---- */

static enum mix_rc keep_leaves(void *context, uint32_t tensor, uint64_t first,
                               const unsigned char *hash, size_t count, struct mix_err *err)
{
    struct run *run = ((struct thread *)context)->run;
    uint64_t leaf = run->a->m.tensor[tensor].first_leaf - run->leaf_base + first;

    return mix_file_write(run->leaf_fd, "scratch", leaf * 32, hash, count * 32, err);
}

static enum mix_rc begin_digests(void *context, struct mix_walk_thread *thread,
                                 struct mix_err *err)
{
    struct thread *t = NULL;
    enum mix_rc rc = thread_new(context, thread, &t, err);

    thread->sink = (struct mix_sink){ .context = t, .leaves = keep_leaves };
    return rc;
}

static enum mix_rc digest_of(struct run *run, const struct mix_ckpt_tensor *t,
                             unsigned char *hash, size_t chunk, unsigned char digest[32],
                             struct mix_err *err)
{
    struct mix_merkle tree = MIX_MERKLE_INIT;
    uint64_t leaves = mix_leaf_count(t->bytes);
    unsigned char root[32];
    enum mix_rc rc;

    for (uint64_t at = 0; at < leaves;) {
        size_t n = (size_t)mix_min(chunk, leaves - at);

        if ((rc = mix_file_read(run->leaf_fd, "scratch",
                                (t->first_leaf - run->leaf_base + at) * 32, hash, n * 32, err)))
            return rc;
        for (size_t i = 0; i < n; i++)
            mix_merkle_put(&tree, hash + i * 32);
        at += n;
    }
    mix_merkle_root(&tree, root);
    mix_tensor_digest(t->dtype, t->rank, t->shape, root, digest);
    return MIX_OK;
}

enum mix_rc mix_compute_digests(const struct mix_checkpoint *ckpt, size_t first, size_t count,
                                unsigned threads, struct mix_progress *progress,
                                unsigned char (*digest)[32], uint64_t *bytes_read,
                                struct mix_err *err)
{
    enum { CHUNK = 2048 };
    struct run run = { .a = ckpt, .leaf_fd = -1 };
    struct mix_walk walk = { .context = &run, .tensor = ckpt->m.tensor, .group_count = count,
                             .jobs = threads, .progress = progress,
                             .thread_begin = begin_digests, .thread_end = thread_end,
                             .build = build };
    uint32_t *tensor = NULL;
    unsigned char *hash = NULL;
    uint64_t leaves = 0;
    enum mix_rc rc;

    if ((rc = mix_new_array(&tensor, count, sizeof *tensor, err)) ||
        (rc = mix_new(&hash, CHUNK * 32, err)))
        goto out;
    run.tensor = tensor;
    run.leaf_base = count ? ckpt->m.tensor[first].first_leaf : 0;
    for (size_t i = 0; i < count; i++) {
        tensor[i] = (uint32_t)(first + i);
        leaves += mix_leaf_count(ckpt->m.tensor[first + i].bytes);
        mix_progress_total(progress, ckpt->m.tensor[first + i].bytes);
    }
    if ((rc = mix_file_scratch(leaves * 32, &run.leaf_fd, err)) ||
        (rc = mix_walk_run(&walk, 0, count, err)))
        goto out;
    for (size_t i = 0; i < count && !rc; i++)
        rc = digest_of(&run, &ckpt->m.tensor[first + i], hash, CHUNK, digest[i], err);
    *bytes_read += run.bytes_read;
out:
    if (run.leaf_fd >= 0)
        close(run.leaf_fd);
    free(tensor);
    free(hash);
    return rc;
}

/* ---- comparison ---- */

/* The tensor of b that a tensor of a is compared with: same name and shape. */
static const struct mix_ckpt_tensor *partner(const struct run *run, uint32_t tensor)
{
    return mix_manifest_find(&run->b->m, run->a->m.tensor[tensor].name);
}

static void add_difference(struct sums *s, const double max_abs, const double sum_abs)
{
    pthread_mutex_lock(&s->lock);
    s->differs = true;
    if (max_abs > s->max_abs)
        s->max_abs = max_abs;
    s->sum_abs += sum_abs;
    pthread_mutex_unlock(&s->lock);
}

/* Elements of one type against elements of another, the same number of both. */
static void compare_values(struct sums *s, enum mix_dtype type_a, const void *a,
                           enum mix_dtype type_b, const void *b, size_t count)
{
    double max_abs = 0, sum_abs = 0;

    for (size_t i = 0; i < count; i++) {
        double x = mix_dtype_value(type_a, a, i), y = mix_dtype_value(type_b, b, i);
        double d = x == y || (isnan(x) && isnan(y)) ? 0 : fabs(x - y);

        if (isnan(d))
            d = INFINITY;
        if (d > max_abs)
            max_abs = d;
        sum_abs += d;
    }
    add_difference(s, max_abs, sum_abs);
}

static unsigned value_bytes(enum mix_dtype dtype)
{
    return dtype == MIX_C64 ? 4 : mix_dtype_bits(dtype) / 8;
}

/* Whether two types have values that can be told apart; complex with complex only. */
static bool comparable(enum mix_dtype a, enum mix_dtype b)
{
    return mix_dtype_has_values(a) && mix_dtype_has_values(b) &&
           (a == b || (a != MIX_C64 && b != MIX_C64));
}

static enum mix_rc need_other(struct thread *t, size_t bytes, struct mix_err *err)
{
    unsigned char *grown;

    if (bytes <= t->other_bytes)
        return MIX_OK;
    if (!(grown = realloc(t->other, bytes)))
        return mix_fail(err, MIX_NO_MEMORY, "out of memory");
    t->other = grown;
    t->other_bytes = bytes;
    return MIX_OK;
}

static enum mix_rc compare_block(void *context, uint32_t tensor, uint64_t begin,
                                 const void *data, size_t len, struct mix_err *err)
{
    struct thread *t = context;
    struct run *run = t->run;
    const struct mix_ckpt_tensor *a = &run->a->m.tensor[tensor], *b = partner(run, tensor);
    struct sums *s = &run->sums[tensor];
    bool same_type = a->dtype == b->dtype;
    bool values = run->numeric && comparable(a->dtype, b->dtype);
    uint64_t b_begin = begin, b_len = len;
    enum mix_rc rc;

    if (!same_type) { /* only the values can be compared; blocks hold whole elements */
        if (!values)
            return MIX_OK;
        b_begin = begin / value_bytes(a->dtype) * value_bytes(b->dtype);
        b_len = len / value_bytes(a->dtype) * value_bytes(b->dtype);
    }
    if ((rc = need_other(t, b_len, err)) ||
        (rc = mix_reader_read(&t->b, b, b_begin, b_begin + b_len, t->other, err)))
        return rc;
    if (same_type && !memcmp(data, t->other, len))
        return MIX_OK;
    if (values)
        compare_values(s, a->dtype, data, b->dtype, t->other, len / value_bytes(a->dtype));
    else
        add_difference(s, 0, 0);
    return MIX_OK;
}

static enum mix_rc begin_comparison(void *context, struct mix_walk_thread *thread,
                                    struct mix_err *err)
{
    struct run *run = context;
    struct thread *t;
    enum mix_rc rc;

    if ((rc = thread_new(run, thread, &t, err)))
        return rc;
    thread->sink = (struct mix_sink){ .context = t, .block = compare_block };
    if ((rc = mix_reader_init(&t->b, run->b, err)))
        thread_end(run, thread);
    return rc;
}

static bool same_shape(const struct mix_ckpt_tensor *a, const struct mix_ckpt_tensor *b)
{
    return a->rank == b->rank &&
           (!a->rank || !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape));
}

/* What differs about a tensor without looking at its bytes; false if nothing does. */
static bool describe(const struct mix_ckpt_tensor *a, const struct mix_ckpt_tensor *b,
                     struct mix_difference *d)
{
    char x[MIX_SHAPE_TEXT], y[MIX_SHAPE_TEXT];

    if (a->dtype != b->dtype)
        snprintf(d->what, sizeof d->what, "dtype %s and %s", mix_dtype_name(a->dtype),
                 mix_dtype_name(b->dtype));
    else if (!same_shape(a, b))
        snprintf(d->what, sizeof d->what, "shape %.50s and %.50s",
                 mix_shape_text(a->rank, a->shape, x), mix_shape_text(b->rank, b->shape, y));
    else
        return false;
    return true;
}

/* Names that only one has, and the tensors whose bytes are to be compared. */
static enum mix_rc match_names(struct run *run, struct mix_comparison *out, uint32_t *tensor,
                               size_t *count, struct mix_err *err)
{
    const struct mix_manifest *a = &run->a->m, *b = &run->b->m;
    enum mix_rc rc;

    if ((rc = mix_new_array(&out->only_in_a, a->tensor_count, sizeof *out->only_in_a, err)) ||
        (rc = mix_new_array(&out->only_in_b, b->tensor_count, sizeof *out->only_in_b, err)))
        return rc;
    *count = 0;
    for (uint32_t i = 0; i < a->tensor_count; i++) {
        const struct mix_ckpt_tensor *other = mix_manifest_find(b, a->tensor[i].name);

        if (!other)
            out->only_in_a[out->only_in_a_count++] = a->tensor[i].name;
        else if (same_shape(&a->tensor[i], other))
            tensor[(*count)++] = i;
    }
    for (size_t i = 0; i < b->tensor_count; i++)
        if (!mix_manifest_find(a, b->tensor[i].name))
            out->only_in_b[out->only_in_b_count++] = b->tensor[i].name;
    return MIX_OK;
}

static enum mix_rc list_differences(struct run *run, struct mix_comparison *out,
                                    struct mix_err *err)
{
    const struct mix_manifest *a = &run->a->m;
    enum mix_rc rc = mix_new_array(&out->different, a->tensor_count, sizeof *out->different,
                                   err);

    for (uint32_t i = 0; i < a->tensor_count && !rc; i++) {
        const struct mix_ckpt_tensor *t = &a->tensor[i], *other = partner(run, i);
        struct mix_difference d = { .name = t->name };

        if (!other || (!describe(t, other, &d) && !run->sums[i].differs))
            continue;
        if (!*d.what)
            snprintf(d.what, sizeof d.what, "values");
        if (run->numeric && same_shape(t, other) && comparable(t->dtype, other->dtype) &&
            t->bytes) {
            d.has_values = true;
            d.max_abs = run->sums[i].max_abs;
            d.mean_abs = run->sums[i].sum_abs / (double)(t->bytes / value_bytes(t->dtype));
        }
        out->different[out->different_count++] = d;
    }
    return rc;
}

enum mix_rc mix_compare(const struct mix_checkpoint *a, const struct mix_checkpoint *b,
                        bool numeric, unsigned threads, struct mix_progress *progress,
                        struct mix_comparison *out, struct mix_err *err)
{
    struct run run = { .a = a, .b = b, .numeric = numeric };
    struct mix_walk walk = { .context = &run, .tensor = a->m.tensor, .jobs = threads,
                             .progress = progress, .thread_begin = begin_comparison,
                             .thread_end = thread_end, .build = build };
    uint32_t *tensor = NULL;
    enum mix_rc rc;

    memset(out, 0, sizeof *out);
    if ((rc = mix_new_array(&tensor, a->m.tensor_count, sizeof *tensor, err)) ||
        (rc = mix_new_array(&run.sums, a->m.tensor_count, sizeof *run.sums, err)))
        goto out;
    for (size_t i = 0; i < a->m.tensor_count; i++)
        pthread_mutex_init(&run.sums[i].lock, NULL);
    if ((rc = match_names(&run, out, tensor, &walk.group_count, err)))
        goto out;
    run.tensor = tensor;
    for (size_t i = 0; i < walk.group_count; i++)
        mix_progress_total(progress, a->m.tensor[tensor[i]].bytes);
    if ((rc = mix_walk_run(&walk, 0, walk.group_count, err)) ||
        (rc = list_differences(&run, out, err)))
        goto out;
out:
    for (size_t i = 0; run.sums && i < a->m.tensor_count; i++)
        pthread_mutex_destroy(&run.sums[i].lock);
    free(run.sums);
    free(tensor);
    if (rc)
        mix_comparison_release(out);
    return rc;
}

void mix_comparison_release(struct mix_comparison *c)
{
    free(c->only_in_a);
    free(c->only_in_b);
    free(c->different);
    memset(c, 0, sizeof *c);
}
