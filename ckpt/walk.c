/* walk.c - threads over groups and slices. */
#include "ckpt/walk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/cancel.h"
#include "ckpt/base/progress.h"

/* A group at hand: some thread has built it, and not all of its slices are done. */
struct active {
    size_t g;
    struct mix_group group;
    size_t next_slice; /* not yet taken */
    size_t left;       /* not yet done */
    bool in_use, ready;
};

struct run {
    const struct mix_walk *walk;
    size_t next_group, end_group;
    /*
     * Two places a thread: it may work on one group while another thread still does
     * the last slice of the one that it began.
     */
    struct active *active;
    size_t places;
    unsigned threads_left;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic int stop;
    enum mix_rc rc;
    struct mix_err err;    /* of the first failure */
};

static void fail(struct run *run, enum mix_rc rc, const struct mix_err *err)
{
    pthread_mutex_lock(&run->lock);
    if (!run->rc) {
        run->rc = rc;
        run->err = *err;
    }
    atomic_store(&run->stop, 1);
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->lock);
}

static bool was_done(const struct run *run, const struct active *a, size_t slice)
{
    return run->walk->is_done && run->walk->is_done(run->walk->context, a->g, slice);
}

/* Take the next slice of a group, if one is left. Called with the lock held. */
static bool take_slice(struct run *run, struct active *a, size_t *slice)
{
    if (!a->in_use || !a->ready)
        return false;
    while (a->next_slice < a->group.slice_count) {
        *slice = a->next_slice++;
        if (!was_done(run, a, *slice))
            return true;
    }
    return false;
}

/* Finish a group that has no slice left, and free its place. The lock is not held. */
static enum mix_rc finish(struct run *run, struct mix_walk_thread *thread, struct active *a,
                          struct mix_err *err)
{
    const struct mix_walk *walk = run->walk;
    enum mix_rc rc = MIX_OK;

    if (walk->group_end && a->group.file_count)
        rc = walk->group_end(walk->context, thread, a->g, &a->group, err);
    mix_group_release(&a->group);
    pthread_mutex_lock(&run->lock);
    a->in_use = false;
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->lock);
    return rc;
}

static enum mix_rc do_slice(struct run *run, struct mix_walk_thread *thread,
                            struct mix_stream *stream, struct active *a, size_t slice,
                            struct mix_err *err)
{
    const struct mix_walk *walk = run->walk;
    struct mix_file_sum *sum;
    bool last;
    enum mix_rc rc;

    if ((rc = mix_new_array(&sum, a->group.file_count, sizeof *sum, err)))
        return rc;
    rc = mix_stream_slice(stream, &a->group, slice, &thread->source, &thread->sink, sum,
                          walk->progress, &run->stop, err);
    if (!rc && walk->slice_end)
        rc = walk->slice_end(walk->context, thread, a->g, &a->group, slice, sum, err);
    free(sum);
    if (rc)
        return rc;
    pthread_mutex_lock(&run->lock);
    last = --a->left == 0;
    if (last)
        a->ready = false; /* nobody looks at it any more but this thread */
    pthread_mutex_unlock(&run->lock);
    return last ? finish(run, thread, a, err) : MIX_OK;
}

/* Build the group that `a` has been reserved for, and let everybody take its slices. */
static enum mix_rc build(struct run *run, struct mix_walk_thread *thread, struct active *a,
                         struct mix_err *err)
{
    const struct mix_walk *walk = run->walk;
    size_t left = 0;
    enum mix_rc rc = walk->build(walk->context, thread, a->g, &a->group, err);

    if (rc)
        return rc;
    for (size_t s = 0; s < a->group.slice_count; s++)
        left += !was_done(run, a, s);
    if (!left)
        return finish(run, thread, a, err);
    pthread_mutex_lock(&run->lock);
    a->left = left;
    a->ready = true;
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->lock);
    return MIX_OK;
}

/* What a thread should do next. Called with the lock held. */
enum next { DO_SLICE, BUILD_GROUP, WAIT, LEAVE };

static enum next find_work(struct run *run, struct active **mine, size_t *slice)
{
    struct active *free_place = NULL;
    bool building = false;

    if (*mine && take_slice(run, *mine, slice))
        return DO_SLICE;
    *mine = NULL;
    for (size_t i = 0; i < run->places; i++)
        if (!run->active[i].in_use)
            free_place = &run->active[i];
    if (run->next_group < run->end_group && free_place) {
        *mine = free_place;
        **mine = (struct active){ .g = run->next_group++, .in_use = true };
        return BUILD_GROUP;
    }
    for (size_t i = 0; i < run->places; i++) {
        if (take_slice(run, &run->active[i], slice)) {
            *mine = &run->active[i];
            return DO_SLICE;
        }
        building |= run->active[i].in_use && !run->active[i].ready;
    }
    return building ? WAIT : LEAVE;
}

static enum mix_rc work(struct run *run, struct mix_walk_thread *thread, struct mix_err *err)
{
    struct mix_stream *stream = NULL;
    struct active *mine = NULL;
    enum next next = WAIT;
    size_t slice;
    enum mix_rc rc;

    if ((rc = mix_stream_new(run->walk->tensor, run->walk->with_crc, &stream, err)))
        return rc;
    while (!rc && next != LEAVE && !atomic_load(&run->stop)) {
        pthread_mutex_lock(&run->lock);
        while ((next = find_work(run, &mine, &slice)) == WAIT && !atomic_load(&run->stop))
            pthread_cond_wait(&run->changed, &run->lock);
        pthread_mutex_unlock(&run->lock);
        if (next == DO_SLICE)
            rc = do_slice(run, thread, stream, mine, slice, err);
        else if (next == BUILD_GROUP)
            rc = build(run, thread, mine, err);
    }
    mix_stream_free(stream);
    return rc;
}

struct thread_start {
    struct run *run;
    pthread_t id;
};

static void *thread_main(void *argument)
{
    struct thread_start *start = argument;
    struct run *run = start->run;
    const struct mix_walk *walk = run->walk;
    struct mix_walk_thread thread = { 0 };
    struct mix_err err = { 0 };
    enum mix_rc rc = walk->thread_begin(walk->context, &thread, &err);

    if (!rc) {
        rc = work(run, &thread, &err);
        walk->thread_end(walk->context, &thread);
    }
    if (rc)
        fail(run, rc, &err);
    pthread_mutex_lock(&run->lock);
    run->threads_left--;
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

/* Wait for the threads; meanwhile somebody may look at the progress. */
static void wait_for_threads(struct run *run)
{
    struct timespec until;

    pthread_mutex_lock(&run->lock);
    while (run->threads_left) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += MIX_PROGRESS_TICK_MS * 1000000l;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&run->changed, &run->lock, &until);
        pthread_mutex_unlock(&run->lock);
        mix_progress_tick(run->walk->progress);
        pthread_mutex_lock(&run->lock);
    }
    pthread_mutex_unlock(&run->lock);
}

enum mix_rc mix_walk_run(const struct mix_walk *walk, size_t first, size_t count,
                         struct mix_err *err)
{
    struct run run = { .walk = walk, .next_group = first, .end_group = first + count,
                       .places = (size_t)walk->jobs * 2 };
    struct thread_start *start = NULL;
    unsigned started = 0;
    enum mix_rc rc;

    if ((rc = mix_new_array(&run.active, run.places, sizeof *run.active, err)) ||
        (rc = mix_new_array(&start, walk->jobs, sizeof *start, err)))
        goto out;
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.changed, NULL);
    run.threads_left = walk->jobs;
    for (; started < walk->jobs; started++) {
        start[started] = (struct thread_start){ .run = &run };
        int number = pthread_create(&start[started].id, NULL, thread_main, &start[started]);

        if (number) {
            struct mix_err words;

            mix_fail(&words, MIX_IO, "cannot start a thread: %s", strerror(number));
            fail(&run, MIX_IO, &words);
            break;
        }
    }
    pthread_mutex_lock(&run.lock);
    run.threads_left -= walk->jobs - started;
    pthread_mutex_unlock(&run.lock);
    wait_for_threads(&run);
    for (unsigned i = 0; i < started; i++)
        pthread_join(start[i].id, NULL);
    for (size_t i = 0; i < run.places; i++)
        if (run.active[i].in_use)
            mix_group_release(&run.active[i].group);
    rc = run.rc;
    if (rc && err)
        *err = run.err;
    pthread_cond_destroy(&run.changed);
    pthread_mutex_destroy(&run.lock);
out:
    free(run.active);
    free(start);
    return rc;
}

void mix_walk_share(const uint64_t *group_bytes, size_t group_count, unsigned i, unsigned n,
                    size_t *first, size_t *count)
{
    double total = 0, before = 0;

    for (size_t g = 0; g < group_count; g++)
        total += (double)group_bytes[g] + 1; /* empty files are shared out too */
    *first = *count = 0;
    for (size_t g = 0; g < group_count; g++) {
        double middle = before + ((double)group_bytes[g] + 1) / 2;
        unsigned owner = (unsigned)(middle / total * n);

        before += (double)group_bytes[g] + 1;
        if (owner >= n)
            owner = n - 1;
        if (owner != i)
            continue;
        if (!(*count)++)
            *first = g;
    }
}
