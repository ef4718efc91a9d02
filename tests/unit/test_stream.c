/*
 * The bytes of shard files as they pass: written where they belong, each once; the
 * leaves hashed once, as SHA-256 defines; the checksums those of the whole files.
 */
#include "ckpt/stream.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "ckpt/base/cancel.h"
#include "ckpt/base/hash.h"
#include "ckpt/digest_tree.h"
#include "tests/support/test.h"

static unsigned long long seed = 7;

static uint64_t pick(uint64_t n) /* 0 .. n - 1 */
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % n;
}

enum { TENSORS = 400, FILES = 5 };

/* Tensors and what happened to them. */
struct world {
    struct mix_ckpt_tensor tensor[TENSORS];
    uint64_t shape[TENSORS][2];
    size_t tensor_count;
    unsigned char *data[TENSORS];
    unsigned char *leaves[TENSORS];   /* 32 bytes each */
    unsigned char *hashed[TENSORS];   /* how often, of each leaf */
    unsigned char *passed[TENSORS];   /* how often each byte was shown to block() */

    unsigned char *file[FILES];       /* what was written */
    uint64_t file_bytes[FILES], file_end[FILES];
    uint64_t bytes_read;
    uint32_t broken_tensor;           /* reading its first byte fails */
    size_t complaints;
};

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof *w);

    assert_non_null(w);
    w->broken_tensor = UINT32_MAX;
    return w;
}

static uint32_t add_tensor(struct world *w, uint64_t rows, uint64_t row_bytes)
{
    uint32_t i = (uint32_t)w->tensor_count++;
    uint64_t bytes = rows * row_bytes;

    w->shape[i][0] = rows;
    w->shape[i][1] = row_bytes;
    w->tensor[i] = (struct mix_ckpt_tensor){ .name = "t", .dtype = MIX_U8, .rank = 2,
                                             .shape = w->shape[i], .bytes = bytes };
    mix_cut_init(&w->tensor[i].cut, MIX_U8, 2, w->shape[i], 1, 1, 1);
    w->data[i] = malloc(bytes + 1);
    for (uint64_t b = 0; b < bytes; b++)
        w->data[i][b] = (unsigned char)pick(256);
    w->leaves[i] = calloc(mix_leaf_count(bytes) + 1, 32);
    w->hashed[i] = calloc(mix_leaf_count(bytes) + 1, 1);
    w->passed[i] = calloc(bytes + 1, 1);
    return i;
}

static void world_free(struct world *w)
{
    for (size_t i = 0; i < w->tensor_count; i++) {
        free(w->data[i]);
        free(w->leaves[i]);
        free(w->hashed[i]);
        free(w->passed[i]);
    }
    for (size_t f = 0; f < FILES; f++)
        free(w->file[f]);
    free(w);
}

static enum mix_rc read_data(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                             void *buf, struct mix_err *err)
{
    struct world *w = context;

    assert_true(begin < end && end <= w->tensor[tensor].bytes);
    if (tensor == w->broken_tensor && begin == 0)
        return mix_fail(err, MIX_TRUNCATED, "broken");
    w->bytes_read += end - begin;
    memcpy(buf, w->data[tensor] + begin, end - begin);
    return MIX_OK;
}

static enum mix_rc write_data(void *context, const struct mix_group *group, uint32_t file,
                              uint64_t offset, const void *data, size_t len, struct mix_err *err)
{
    struct world *w = context;

    (void)group, (void)err;
    assert_true(offset >= w->file_end[file] && offset + len <= w->file_bytes[file]);
    memcpy(w->file[file] + offset, data, len);
    w->file_end[file] = offset + len;
    return MIX_OK;
}

static enum mix_rc take_leaves(void *context, uint32_t tensor, uint64_t first,
                               const unsigned char *hash, size_t count, struct mix_err *err)
{
    struct world *w = context;

    (void)err;
    assert_true(count > 0 && first + count <= mix_leaf_count(w->tensor[tensor].bytes));
    memcpy(w->leaves[tensor] + 32 * first, hash, 32 * count);
    for (size_t i = 0; i < count; i++)
        w->hashed[tensor][first + i]++;
    return MIX_OK;
}

static enum mix_rc take_block(void *context, uint32_t tensor, uint64_t begin, const void *data,
                              size_t len, struct mix_err *err)
{
    struct world *w = context;

    (void)err;
    assert_memory_equal(data, w->data[tensor] + begin, len);
    for (size_t i = 0; i < len; i++)
        w->passed[tensor][begin + i]++;
    return MIX_OK;
}

static enum mix_rc complain(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                            enum mix_rc rc, struct mix_err *err)
{
    struct world *w = context;

    (void)begin, (void)end, (void)err;
    assert_int_equal(tensor, w->broken_tensor);
    assert_int_equal(rc, MIX_TRUNCATED);
    w->complaints++;
    return MIX_OK;
}

/* ---- groups ---- */

static void add_file(struct world *w, struct mix_group *group, uint64_t bytes)
{
    const struct mix_group_file file = { .name = "f", .bytes = bytes, .fd = -1 };
    struct mix_err err = { 0 };

    free(w->file[group->file_count]);
    w->file[group->file_count] = calloc(bytes + 1, 1);
    w->file_bytes[group->file_count] = bytes;
    w->file_end[group->file_count] = 0;
    assert_ok(mix_group_add_file(group, &file, &err), &err);
}

/* Rows [begin, end) of a tensor, its columns cut over `parts` files from file `first` on. */
static void add_item(struct world *w, struct mix_group *group, uint32_t tensor,
                     uint64_t row_begin, uint64_t row_end, uint32_t first, uint32_t parts,
                     uint64_t *at)
{
    uint64_t row = w->shape[tensor][1];
    struct mix_item item = { .tensor = tensor, .begin = row_begin * row, .end = row_end * row };
    struct mix_part part[FILES];
    struct mix_err err = { 0 };

    for (uint32_t j = 0; j < parts; j++) {
        part[j] = (struct mix_part){ .file = first + j, .offset = at[first + j],
                                     .column_begin = row * j / parts,
                                     .column_end = row * (j + 1) / parts };
        at[first + j] += (row_end - row_begin) * (part[j].column_end - part[j].column_begin);
    }
    assert_ok(mix_group_add_item(group, &item, part, parts, &err), &err);
}

/* What the items say that the files must hold. */
static void expected_files(const struct world *w, const struct mix_group *group,
                           unsigned char *expected[FILES])
{
    for (size_t f = 0; f < group->file_count; f++)
        expected[f] = calloc(w->file_bytes[f] + 1, 1);
    for (size_t i = 0; i < group->item_count; i++) {
        const struct mix_item *item = &group->item[i];
        uint64_t row = w->shape[item->tensor][1];

        for (uint32_t k = 0; k < item->part_count; k++) {
            const struct mix_part *p = &group->part[item->part_first + k];
            unsigned char *to = expected[p->file] + p->offset;

            for (uint64_t at = item->begin; at < item->end; at += row) {
                uint64_t width = p->column_end - p->column_begin;

                memcpy(to, w->data[item->tensor] + at + p->column_begin, width);
                to += width;
            }
        }
    }
}

static void run_slices(struct world *w, struct mix_group *group, const struct mix_sink *sink,
                       struct mix_file_sum (*sums)[FILES])
{
    const struct mix_source source = { w, read_data };
    struct mix_stream *stream;
    struct mix_err err = { 0 };
    _Atomic int stop = 0;

    assert_ok(mix_stream_new(w->tensor, 1, &stream, &err), &err);
    for (size_t s = 0; s < group->slice_count; s++) {
        for (size_t f = 0; f < FILES; f++)
            w->file_end[f] = 0; /* in a slice, each file's come in order */
        assert_ok(mix_stream_slice(stream, group, s, &source, sink, sums[s], NULL, &stop, &err),
                  &err);
    }
    mix_stream_free(stream);
}

/* The CRC of each file from the sums of its slices, against the file's own. */
static void check_sums(const struct world *w, const struct mix_group *group,
                       struct mix_file_sum (*sums)[FILES])
{
    for (size_t f = 0; f < group->file_count; f++) {
        uint64_t crc = 0, at = 0;

        for (size_t s = 0; s < group->slice_count; s++) {
            const struct mix_file_sum *sum = &sums[s][f];

            assert_false(sum->broken);
            if (!sum->bytes)
                continue;
            assert_true(sum->start >= at);
            crc = mix_crc64_join(mix_crc64_zeros(crc, sum->start - at), sum->crc64, sum->bytes);
            at = sum->start + sum->bytes;
        }
        crc = mix_crc64_zeros(crc, w->file_bytes[f] - at);
        assert_true(crc == mix_crc64(0, w->file[f], w->file_bytes[f]));
    }
}

/* Every leaf that begins in an item was hashed once, and is the hash of its bytes. */
static void check_leaves(const struct world *w, const struct mix_group *group)
{
    uint64_t tails = 0;

    for (size_t i = 0; i < group->item_count; i++) {
        const struct mix_item *item = &group->item[i];
        uint32_t t = item->tensor;
        uint64_t first = mix_div_up(item->begin, MIX_LEAF_BYTES);

        for (uint64_t leaf = first; leaf * MIX_LEAF_BYTES < item->end; leaf++) {
            uint64_t begin = leaf * MIX_LEAF_BYTES;
            uint64_t end = mix_min(begin + MIX_LEAF_BYTES, w->tensor[t].bytes);
            unsigned char *prefixed = malloc(1 + MIX_LEAF_BYTES), sha[32];

            prefixed[0] = 0;
            memcpy(prefixed + 1, w->data[t] + begin, end - begin);
            mix_sha256(prefixed, 1 + end - begin, sha);
            assert_int_equal(w->hashed[t][leaf], 1);
            assert_memory_equal(w->leaves[t] + 32 * leaf, sha, 32);
            tails += end > item->end ? end - item->end : 0;
            free(prefixed);
        }
    }
    assert_int_equal(w->bytes_read, group->bytes + tails);
}

static void check_passed(const struct world *w, const struct mix_group *group)
{
    for (size_t i = 0; i < group->item_count; i++)
        for (uint64_t b = group->item[i].begin; b < group->item[i].end; b++)
            assert_int_equal(w->passed[group->item[i].tensor][b], 1);
}

static void check_group(struct world *w, struct mix_group *group)
{
    const struct mix_sink sink = { .context = w, .write = write_data, .leaves = take_leaves,
                                   .block = take_block };
    struct mix_file_sum (*sums)[FILES];
    unsigned char *expected[FILES] = { NULL };
    struct mix_err err = { 0 };
    uint64_t bytes = 0;

    assert_ok(mix_group_settle(group, &err), &err);
    sums = calloc(group->slice_count + 1, sizeof *sums);
    for (size_t s = 0; s < group->slice_count; s++)
        bytes += mix_group_slice_bytes(group, s);
    assert_int_equal(bytes, group->bytes);
    run_slices(w, group, &sink, sums);
    expected_files(w, group, expected);
    for (size_t f = 0; f < group->file_count; f++) {
        assert_memory_equal(w->file[f], expected[f], w->file_bytes[f]);
        free(expected[f]);
    }
    check_sums(w, group, sums);
    check_leaves(w, group);
    check_passed(w, group);
    free(sums);
}

/* ---- tests ---- */

/* Whole small tensors, pieces that begin and end within leaves, gaps small and large. */
static void test_stream__one_file(void **state)
{
    static const uint64_t gaps[] = { 0, 0, 1, 7, 4095, 4096, 4097, 70000 };

    (void)state;
    for (int round = 0; round < 40; round++) {
        struct world *w = world_new();
        struct mix_group group = MIX_GROUP_INIT;
        uint64_t at[FILES] = { pick(5000) };

        for (uint64_t i = pick(60); i < 60; i++) {
            uint64_t rows = 1 + pick(9), row = pick(4) ? 1 + pick(300) : 1 + pick(80000);
            uint32_t t = add_tensor(w, rows, row);
            uint64_t from = pick(rows), to = from + 1 + pick(rows - from);

            at[0] += gaps[pick(MIX_ARRAY_LEN(gaps))];
            add_item(w, &group, t, from, to, 0, 1, at);
        }
        add_file(w, &group, at[0] + pick(9000));
        check_group(w, &group);
        mix_group_release(&group);
        world_free(w);
    }
}

/* Columns that go to several files, beside items that go to one of them. */
static void test_stream__several_files(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct world *w = world_new();
        struct mix_group group = MIX_GROUP_INIT;
        uint64_t at[FILES] = { 0 };
        uint32_t files = 2 + (uint32_t)pick(FILES - 1);

        for (uint64_t i = pick(20); i < 20; i++) {
            uint64_t rows = 1 + pick(50), row = files + (pick(3) ? pick(200) : pick(40000));
            uint32_t t = add_tensor(w, rows, row);
            uint64_t from = pick(rows), to = from + 1 + pick(rows - from);

            for (uint32_t f = 0; f < files; f++)
                at[f] += pick(2) ? pick(5000) : 0;
            if (pick(3))
                add_item(w, &group, t, from, to, 0, files, at);
            else
                add_item(w, &group, t, from, to, (uint32_t)pick(files), 1, at);
        }
        for (uint32_t f = 0; f < files; f++)
            add_file(w, &group, at[f]);
        check_group(w, &group);
        mix_group_release(&group);
        world_free(w);
    }
}

/*
 * Leaves that end behind their item wait in a few buffers of their own. With a queue that
 * is full just then, none of these may be used again before it was hashed.
 */
static void test_stream__tails_survive_a_full_queue(void **state)
{
    (void)state;
    for (unsigned whole = 250; whole < 262; whole++) {
        struct world *w = world_new();
        struct mix_group group = MIX_GROUP_INIT;
        uint64_t at[FILES] = { 0 };

        for (unsigned i = 0; i < 3; i++) /* the first row of two: a tail each */
            add_item(w, &group, add_tensor(w, 2, 10), 0, 1, 0, 1, at);
        for (unsigned i = 0; i < whole; i++)
            add_item(w, &group, add_tensor(w, 1, 3), 0, 1, 0, 1, at);
        for (unsigned i = 0; i < 12; i++)
            add_item(w, &group, add_tensor(w, 2, 11), 0, 1, 0, 1, at);
        add_file(w, &group, at[0]);
        check_group(w, &group);
        mix_group_release(&group);
        world_free(w);
    }
}

/* 64 MiB a slice: cut between items, or in a large one where a leaf begins. */
static void test_stream__slices(void **state)
{
    const uint64_t slice = 64 << 20, sizes[] = { 1, 3 * slice + 12345, slice, 0, slice - 7, 7, 9,
                                                  slice + 1 };
    struct mix_group group = MIX_GROUP_INIT;
    const struct mix_group_file file = { .name = "f", .fd = -1 };
    struct mix_err err = { 0 };
    uint64_t bytes = 0;

    (void)state;
    assert_ok(mix_group_add_file(&group, &file, &err), &err);
    for (size_t i = 0; i < MIX_ARRAY_LEN(sizes); i++) {
        /* begins within a leaf */
        const struct mix_item item = { .tensor = (uint32_t)i, .begin = 100, .end = 100 + sizes[i] };
        const struct mix_part part = { .column_end = 1 };

        assert_ok(mix_group_add_item(&group, &item, &part, 1, &err), &err);
    }
    assert_ok(mix_group_settle(&group, &err), &err);
    for (size_t s = 0; s < group.slice_count; s++) {
        const struct mix_slice *from = &group.slice[s], *to = from + 1;
        uint64_t size = mix_group_slice_bytes(&group, s);

        bytes += size;
        assert_true(size > 0 && size <= slice + MIX_LEAF_BYTES);
        assert_true(to->item > from->item || to->at > from->at);
        if (from->item < group.item_count && from->at != group.item[from->item].begin)
            assert_int_equal(from->at % MIX_LEAF_BYTES, 0);
    }
    assert_int_equal(bytes, group.bytes);
    assert_in_range(group.slice_count, 7, 8);
    assert_int_equal(group.slice[group.slice_count].item, group.item_count);
    mix_group_release(&group);

    assert_ok(mix_group_settle(&group, &err), &err); /* nothing is no slice */
    assert_int_equal(group.slice_count, 0);
    mix_group_release(&group);

    for (int i = 0; i < 20; i++) { /* what a hostile manifest may claim: more than 2^64 in all */
        const struct mix_item item = { .end = UINT64_C(1) << 60 };
        const struct mix_part part = { .column_end = 1 };

        assert_ok(mix_group_add_item(&group, &item, &part, 1, &err), &err);
        assert_rc(mix_group_settle(&group, &err), MIX_UNSUPPORTED, &err);
        assert_text(err.text, "bytes; at most 70368744177664 can be walked");
    }
    mix_group_release(&group);
}

/* A large item in several slices, of which each is done alone. */
static void test_stream__slices_join_to_the_file(void **state)
{
    struct world *w = world_new();
    struct mix_group group = MIX_GROUP_INIT;
    uint64_t at[FILES] = { 100, 0 };
    uint32_t t = add_tensor(w, 700, 100003); /* 70 MB */

    (void)state;
    add_item(w, &group, add_tensor(w, 1, 1000), 0, 1, 0, 2, at);
    add_item(w, &group, t, 1, 699, 0, 2, at);
    add_item(w, &group, add_tensor(w, 1, 1000), 0, 1, 1, 1, at);
    add_file(w, &group, at[0]);
    add_file(w, &group, at[1] + 50);
    check_group(w, &group);
    assert_int_equal(group.slice_count, 2);
    mix_group_release(&group);
    world_free(w);
}

/* What cannot be read is zeros in the file, marked, and hashed by nobody. */
static void test_stream__goes_on_behind_what_cannot_be_read(void **state)
{
    struct world *w = world_new();
    const struct mix_sink sink = { .context = w, .write = write_data, .leaves = take_leaves,
                                   .unreadable = complain };
    struct mix_group group = MIX_GROUP_INIT;
    struct mix_file_sum sums[1][FILES];
    struct mix_err err = { 0 };
    uint64_t at[FILES] = { 0 };

    (void)state;
    for (int i = 0; i < 3; i++)
        add_item(w, &group, add_tensor(w, 10, 1000), 0, 10, (uint32_t)i, 1, at);
    for (int i = 0; i < 3; i++)
        add_file(w, &group, at[i]);
    w->broken_tensor = 1;
    assert_ok(mix_group_settle(&group, &err), &err);
    run_slices(w, &group, &sink, sums);
    assert_int_equal(w->complaints, 1);
    assert_true(!sums[0][0].broken && sums[0][1].broken && !sums[0][2].broken);
    assert_int_equal(w->hashed[0][0], 1);
    assert_int_equal(w->hashed[1][0], 0);
    assert_int_equal(w->hashed[2][0], 1);
    for (int b = 0; b < 10000; b++)
        assert_int_equal(w->file[1][b], 0);
    assert_memory_equal(w->file[2], w->data[2], 10000);
    mix_group_release(&group);
    world_free(w);
}

static void test_stream__errors_and_signals_end_it(void **state)
{
    struct world *w = world_new();
    const struct mix_source source = { w, read_data };
    const struct mix_sink sink = { .context = w, .write = write_data };
    struct mix_group group = MIX_GROUP_INIT;
    struct mix_stream *stream;
    struct mix_file_sum sum[FILES];
    struct mix_err err = { 0 };
    uint64_t at[FILES] = { 0 };
    _Atomic int stop = 0;

    (void)state;
    add_item(w, &group, add_tensor(w, 10, 1000), 0, 10, 0, 1, at);
    add_file(w, &group, at[0]);
    assert_ok(mix_group_settle(&group, &err), &err);
    assert_ok(mix_stream_new(w->tensor, 1, &stream, &err), &err);
    w->broken_tensor = 0;
    assert_rc(mix_stream_slice(stream, &group, 0, &source, &sink, sum, NULL, &stop, &err),
              MIX_TRUNCATED, &err);
    assert_string_equal(err.text, "broken");
    w->broken_tensor = UINT32_MAX;
    atomic_store(&stop, 1);
    assert_rc(mix_stream_slice(stream, &group, 0, &source, &sink, sum, NULL, &stop, &err),
              MIX_INTERRUPTED, &err);
    atomic_store(&stop, 0);
    assert_ok(mix_stream_slice(stream, &group, 0, &source, &sink, sum, NULL, &stop, &err), &err);
    assert_memory_equal(w->file[0], w->data[0], 10000); /* and the stream is fit for more */
    mix_stream_free(stream);
    mix_stream_free(NULL);
    mix_group_release(&group);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream__one_file),
        cmocka_unit_test(test_stream__several_files),
        cmocka_unit_test(test_stream__tails_survive_a_full_queue),
        cmocka_unit_test(test_stream__slices),
        cmocka_unit_test(test_stream__slices_join_to_the_file),
        cmocka_unit_test(test_stream__goes_on_behind_what_cannot_be_read),
        cmocka_unit_test(test_stream__errors_and_signals_end_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
