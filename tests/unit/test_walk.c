/* Threads over groups: every group and slice once, the first error wins, shares that add up. */
#include "ckpt/walk.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "ckpt/digest_tree.h"
#include "tests/support/test.h"

/* ---- shares ---- */

static unsigned long long seed = 3;

static uint64_t pick(uint64_t n) /* 0 .. n - 1 */
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % n;
}

static void check_shares(const uint64_t *bytes, size_t groups, unsigned n)
{
    uint64_t total = 0, largest = 0;
    size_t next = 0;

    for (size_t g = 0; g < groups; g++) {
        total += bytes[g] + 1;
        largest = mix_max(largest, bytes[g] + 1);
    }
    for (unsigned i = 0; i < n; i++) {
        size_t first, count;
        uint64_t mine = 0;

        mix_walk_share(bytes, groups, i, n, &first, &count);
        if (!count)
            continue;
        assert_int_equal(first, next); /* neighbours, each group once */
        next = first + count;
        for (size_t g = first; g < next; g++)
            mine += bytes[g] + 1;
        /* Nobody does more than a fair share and one group. */
        assert_true(mine <= total / n + largest + 1);
    }
    assert_int_equal(next, groups);
}

static void test_walk__shares_cover_all_groups_once_for_any_number_of_workers(void **state)
{
    static uint64_t bytes[400];

    (void)state;
    for (int round = 0; round < 60; round++) {
        size_t groups = pick(round % 3 ? 40 : 400);
        uint64_t largest = (uint64_t)1 << pick(44);

        for (size_t g = 0; g < groups; g++)
            bytes[g] = pick(5) ? pick(largest) : 0;
        for (unsigned n = 1; n <= 70; n++)
            check_shares(bytes, groups, n);
        check_shares(bytes, groups, 4096);
    }
}

static void test_walk__equal_groups_are_shared_equally(void **state)
{
    uint64_t bytes[64];
    size_t first, count;

    (void)state;
    for (size_t g = 0; g < 64; g++)
        bytes[g] = 1000;
    for (unsigned n = 1; n <= 64; n *= 2)
        for (unsigned i = 0; i < n; i++) {
            mix_walk_share(bytes, 64, i, n, &first, &count);
            assert_int_equal(count, 64 / n);
            assert_int_equal(first, i * (64 / n));
        }
}

/*
 * ---- the walk ----
 *
 * Every tenth group has several slices, every tenth has none, the others have one. What
 * threads see is counted and looked at by the main thread: there a check may fail.
 */

enum { GROUPS = 50, ITEM_BYTES = 1000 };

struct job {
    struct mix_ckpt_tensor tensor;
    uint64_t shape[1];
    _Atomic unsigned built[GROUPS], slices[GROUPS], ended[GROUPS];
    _Atomic uint64_t bytes;
    _Atomic unsigned threads; /* at work now */
    _Atomic unsigned begun;   /* ever */
    size_t slice_count[GROUPS];
    size_t fail_build, fail_slice, fail_begin; /* group, or SIZE_MAX */
    bool done_before;
    _Atomic unsigned wrong;    /* how often a thread saw what it should not */
};

static enum mix_rc read_zeros(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                              void *buf, struct mix_err *err)
{
    struct job *job = context;

    (void)tensor, (void)err;
    memset(buf, 0, end - begin);
    atomic_fetch_add(&job->bytes, end - begin);
    return MIX_OK;
}

static enum mix_rc thread_begin(void *context, struct mix_walk_thread *thread,
                                struct mix_err *err)
{
    struct job *job = context;

    atomic_fetch_add(&job->threads, 1);
    if (atomic_fetch_add(&job->begun, 1) == job->fail_begin) {
        atomic_fetch_sub(&job->threads, 1);
        return mix_fail(err, MIX_NO_MEMORY, "no thread");
    }
    thread->source = (struct mix_source){ job, read_zeros };
    return MIX_OK;
}

static void thread_end(void *context, struct mix_walk_thread *thread)
{
    struct job *job = context;

    (void)thread;
    atomic_fetch_sub(&job->threads, 1);
}

static enum mix_rc build(void *context, struct mix_walk_thread *thread, size_t g,
                         struct mix_group *group, struct mix_err *err)
{
    struct job *job = context;
    const struct mix_group_file file = { .name = "f", .fd = -1 };
    struct mix_item item = { .end = g % 10 == 8 ? job->shape[0] : ITEM_BYTES };
    const struct mix_part part = { .column_end = 1 };
    enum mix_rc rc = MIX_OK;

    (void)thread;
    job->built[g]++;
    if (g == job->fail_build)
        return mix_fail(err, MIX_CORRUPT, "group %zu", g);
    if (g % 10 == 3)
        return MIX_OK; /* nothing to do */
    if ((rc = mix_group_add_file(group, &file, err)) ||
        (rc = mix_group_add_item(group, &item, &part, 1, err)) ||
        (rc = mix_group_settle(group, err)))
        return rc;
    job->slice_count[g] = group->slice_count;
    return MIX_OK;
}

static bool is_done(void *context, size_t g, size_t slice)
{
    struct job *job = context;

    return job->done_before && (g % 2 || slice == 1);
}

static enum mix_rc slice_end(void *context, struct mix_walk_thread *thread, size_t g,
                             const struct mix_group *group, size_t slice,
                             const struct mix_file_sum *sum, struct mix_err *err)
{
    struct job *job = context;

    (void)thread;
    job->wrong += sum[0].bytes != mix_group_slice_bytes(group, slice) || is_done(job, g, slice);
    job->slices[g]++;
    return g == job->fail_slice ? mix_fail(err, MIX_IO, "slice of %zu", g) : MIX_OK;
}

static enum mix_rc group_end(void *context, struct mix_walk_thread *thread, size_t g,
                             struct mix_group *group, struct mix_err *err)
{
    struct job *job = context;
    unsigned wanted = 0;

    (void)thread, (void)err;
    for (size_t s = 0; s < group->slice_count; s++)
        wanted += !is_done(job, g, s);
    job->wrong += group->file_count != 1 || job->slices[g] != wanted; /* the last thing */
    job->ended[g]++;
    return MIX_OK;
}

static struct job new_job(void)
{
    struct job job = { .shape = { (64 << 20) * 2 + 5 }, .fail_build = SIZE_MAX,
                       .fail_slice = SIZE_MAX, .fail_begin = SIZE_MAX };

    return job;
}

static enum mix_rc run(struct job *job, unsigned threads, size_t first, size_t count,
                       struct mix_err *err)
{
    struct mix_walk walk = { .context = job, .tensor = &job->tensor, .group_count = GROUPS,
                             .jobs = threads, .thread_begin = thread_begin,
                             .thread_end = thread_end, .build = build, .is_done = is_done,
                             .slice_end = slice_end, .group_end = group_end };
    enum mix_rc rc;

    job->tensor = (struct mix_ckpt_tensor){ .name = "t", .dtype = MIX_U8, .rank = 1,
                                            .shape = job->shape, .bytes = job->shape[0] };
    mix_cut_init(&job->tensor.cut, MIX_U8, 1, job->shape, 1, 1, 1);
    rc = mix_walk_run(&walk, first, count, err);
    assert_int_equal(job->threads, 0); /* each that began has ended */
    assert_int_equal(job->wrong, 0);
    return rc;
}

static void test_walk__does_each_group_and_slice_once(void **state)
{
    static const unsigned threads[] = { 1, 2, 3, 16 };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(threads); i++) {
        for (int before = 0; before < 2; before++) {
            struct job job = new_job();
            struct mix_err err = { 0 };

            job.done_before = before;
            assert_ok(run(&job, threads[i], 5, 40, &err), &err);
            for (size_t g = 0; g < GROUPS; g++) {
                bool mine = g >= 5 && g < 45;
                unsigned slices = 0;

                for (size_t s = 0; s < job.slice_count[g]; s++)
                    slices += !is_done(&job, g, s);
                assert_int_equal(job.built[g], mine);
                assert_int_equal(job.slices[g], slices);
                assert_int_equal(job.ended[g], mine && g % 10 != 3);
                if (mine && g % 10 == 8)
                    assert_true(job.slice_count[g] > 1);
            }
        }
    }
}

static void test_walk__nothing_to_do_is_done_at_once(void **state)
{
    struct job job = new_job();
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(run(&job, 2, 7, 0, &err), &err);
    assert_int_equal(job.bytes, 0);
}

static void test_walk__returns_the_first_error_and_stops(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct job job = new_job();
        struct mix_err err = { 0 };

        job.fail_build = 20;
        assert_rc(run(&job, threads, 0, GROUPS, &err), MIX_CORRUPT, &err);
        assert_string_equal(err.text, "group 20");
        if (threads == 1) /* others may get to the end before this one says that it failed */
            assert_int_equal(job.built[GROUPS - 1], 0);

        job = new_job();
        job.fail_slice = 17;
        assert_rc(run(&job, threads, 0, GROUPS, &err), MIX_IO, &err);
        assert_string_equal(err.text, "slice of 17");
        assert_int_equal(job.ended[17], 0);
        if (threads == 1)
            assert_int_equal(job.built[GROUPS - 1], 0);

        job = new_job();
        job.fail_slice = 17;
        assert_rc(run(&job, threads, 0, GROUPS, NULL), MIX_IO, &err); /* nobody wants the words */
    }
}

/* A thread that cannot begin ends the walk, also while others wait for work. */
static void test_walk__a_thread_that_cannot_begin_ends_it(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 3; which++) {
        struct job job = new_job();
        struct mix_err err = { 0 };

        job.fail_begin = which;
        assert_rc(run(&job, which + 1, 0, GROUPS, &err), MIX_NO_MEMORY, &err);
        assert_string_equal(err.text, "no thread");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk__shares_cover_all_groups_once_for_any_number_of_workers),
        cmocka_unit_test(test_walk__equal_groups_are_shared_equally),
        cmocka_unit_test(test_walk__does_each_group_and_slice_once),
        cmocka_unit_test(test_walk__nothing_to_do_is_done_at_once),
        cmocka_unit_test(test_walk__returns_the_first_error_and_stops),
        cmocka_unit_test(test_walk__a_thread_that_cannot_begin_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
