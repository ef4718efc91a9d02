/*
 * execute.c - the job: begin (commit.h), walk the groups that are this worker's share
 * (walk.h), wait for the others, write what describes the whole, publish.
 *
 * Every leaf is hashed once, as it passes. If the source says what a leaf's hash should
 * be, a damaged source is found before anything that it taints can be published.
 */
#include "reshard/execute.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/cancel.h"
#include "ckpt/base/file.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/progress.h"
#include "ckpt/digest_tree.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"
#include "ckpt/walk.h"
#include "reshard/change_dtype.h"
#include "reshard/random_source.h"
#include "reshard/run.h"

/* What a thread needs at most to change a block's dtype: twice a block, and two leaves. */
enum { CHANGE_BYTES = 2 * MIX_STREAM_MOST + 2 * MIX_LEAF_BYTES };

/* ---- what is to be made ---- */

/* Optimizer state belongs in a Hugging Face folder only if it came out of one. */
static bool origin_has_state(const struct mix_checkpoint *ckpt)
{
    for (size_t f = 0; f < ckpt->origin_count; f++) {
        size_t count;
        const struct mix_tensor *list = mix_safetensors_list(ckpt->origin[f].header, &count);

        for (size_t i = 0; i < count; i++)
            if (strchr(list[i].name, '@'))
                return true;
    }
    return false;
}

enum mix_rc mix_job_target(const struct mix_job *job, struct mix_target *target,
                           struct mix_err *err)
{
    const struct mix_geometry *geometry = job->ckpt ? &job->ckpt->geometry
                                                    : &job->random->geometry;
    bool weights_only = job->weights_only ||
                        (job->to_hf && !(job->ckpt && origin_has_state(job->ckpt)));
    enum mix_rc rc;

    if (!(rc = mix_target_take(target, mix_run_source(job), weights_only, err)) &&
        !(job->has_dtype && (rc = mix_target_change_dtype(target, job->dtype, err))))
        rc = job->to_hf ? mix_target_hf(target, job->ckpt ? job->ckpt->origin : NULL,
                                        job->ckpt ? job->ckpt->origin_count : 0,
                                        job->max_shard_bytes, err)
                        : mix_target_shards(target, geometry, job->container, &job->mesh, err);
    if (rc)
        mix_target_release(target);
    return rc;
}

/* A thread: its stream, its reader, and the group that it may be building. */
static uint64_t thread_memory(const struct mix_job *job, const struct mix_target *target)
{
    uint64_t files = job->to_hf ? 1 : job->mesh.tp;
    uint64_t tensors = target->m.tensor_count;

    return mix_stream_memory(files) + (512 << 10) + tensors * 1024 +
           (job->has_dtype ? CHANGE_BYTES : 0);
}

static uint64_t metadata_memory(const struct mix_target *target)
{
    const struct mix_manifest *m = &target->m;

    return m->tensor_count * UINT64_C(2500) + m->file_count * UINT64_C(1000) +
           m->piece_count * 12;
}

enum mix_rc mix_job_threads(const struct mix_job *job, const struct mix_target *target,
                            unsigned *threads, struct mix_err *err)
{
    uint64_t one = thread_memory(job, target);

    if (job->memory < one)
        return mix_fail(err, MIX_USAGE, "--memory %" PRIu64 " is too little: one thread needs %"
                        PRIu64 " bytes", job->memory, one);
    *threads = (unsigned)mix_min(job->jobs, job->memory / one);
    return MIX_OK;
}

uint64_t mix_job_memory(const struct mix_job *job, const struct mix_target *target,
                        unsigned threads)
{
    return (UINT64_C(8) << 20) + metadata_memory(target) + threads * thread_memory(job, target);
}

/* ---- which job this is ---- */

static enum mix_rc identity_of_files(const struct mix_checkpoint *ckpt, struct mix_buf *out,
                                     struct mix_err *err)
{
    struct mix_stat st;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < ckpt->m.file_count && !rc; i++) {
        const char *name = ckpt->m.file[i].name;

        if ((rc = mix_store_stat(ckpt->store, name, &st, err)))
            return mix_err_file(err, name);
        rc = mix_buf_putf(out, err, "weights %s %" PRIu64 " %" PRId64 "\n", name, st.bytes,
                          st.mtime_ns);
    }
    for (size_t i = 0; i < ckpt->carried_count && !rc; i++) {
        const char *name = ckpt->carried[i].path;

        if ((rc = mix_store_stat(ckpt->store, name, &st, err)))
            return mix_err_file(err, name);
        rc = mix_buf_putf(out, err, "file %s %" PRIu64 " %" PRId64 "\n", name, st.bytes,
                          st.mtime_ns);
    }
    return rc;
}

/* All that decides what the result will be, and nothing else. */
static enum mix_rc identity(const struct mix_job *job, struct mix_buf *out, struct mix_err *err)
{
    const struct mix_manifest *m = mix_run_source(job);
    char hex[MIX_SHA256_HEX];
    unsigned char sha[32];
    enum mix_rc rc;

    /* Journals speak of slices, so a build that cuts them otherwise does another job. */
    if ((rc = mix_buf_putf(out, err, "to %s\nweights-only %d\nslices %d\n",
                           job->to_hf ? "hf" : "mixckpt", job->weights_only, MIX_SLICE_BYTES)) ||
        (rc = job->to_hf
                  ? mix_buf_putf(out, err, "max-shard-size %" PRIu64 "\n", job->max_shard_bytes)
                  : mix_buf_putf(out, err, "container %s\nep %" PRIu64 " hsd %" PRIu64 " tp %"
                                 PRIu64 "\n", mix_container_name(job->container), job->mesh.ep,
                                 job->mesh.hsd, job->mesh.tp)))
        return rc;
    if (job->has_dtype &&
        (rc = mix_buf_putf(out, err, "dtype %s\n", mix_dtype_name(job->dtype))))
        return rc;
    if (!job->ckpt) {
        mix_sha256(job->random->config, job->random->config_len, sha);
        mix_hex(sha, 32, hex);
        return mix_buf_putf(out, err, "random %" PRIu64 " %zu %s %s\n", job->random->seed,
                            m->tensor_count, mix_dtype_name(m->tensor[0].dtype), hex);
    }
    if (job->ckpt->form == MIX_FORM_MIXCKPT) {
        mix_hex(m->self, 32, hex);
        return mix_buf_putf(out, err, "mixckpt %s\n", hex);
    }
    return identity_of_files(job->ckpt, out, err);
}

/*
 * The edges of leaves are read twice: by the piece that hashes them, and by the piece that
 * writes them. So that both are sure to have seen the same bytes, the files of the source
 * must be at the end what they were before the first byte was read.
 */
static enum mix_rc stamp_files(struct mix_run *run, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    enum mix_rc rc = MIX_OK;

    if (!ckpt || (rc = mix_new_array(&run->stamp, ckpt->m.file_count, sizeof *run->stamp, err)))
        return rc;
    for (size_t i = 0; i < ckpt->m.file_count; i++)
        if ((rc = mix_store_stat(ckpt->store, ckpt->m.file[i].name, &run->stamp[i], err)))
            return mix_err_file(err, ckpt->m.file[i].name);
    return MIX_OK;
}

static enum mix_rc check_stamps(const struct mix_run *run, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    struct mix_stat st;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; ckpt && i < ckpt->m.file_count && !rc; i++) {
        rc = mix_store_stat(ckpt->store, ckpt->m.file[i].name, &st, err);
        if (!rc && (st.bytes != run->stamp[i].bytes || st.mtime_ns != run->stamp[i].mtime_ns))
            rc = mix_fail(err, MIX_MISMATCH, "was changed while it was read: it had %" PRIu64
                          " bytes and has %" PRIu64, run->stamp[i].bytes, st.bytes);
        if (rc)
            mix_err_file(err, ckpt->m.file[i].name);
    }
    return rc;
}

/* ---- the walk ---- */

enum { LEAVES = 256 }; /* hashes that are read, or written, at once */

struct thread {
    struct mix_run *run;
    struct mix_reader reader;
    unsigned char *change; /* bytes of the source whose dtype is changed */
    /* Leaves of the whole checkpoint: made and not yet handed on; and as the source says. */
    uint64_t made_first, said_first;
    size_t made_count, said_count;
    unsigned char made[LEAVES * 32], said[LEAVES * 32];
};

/* Read a file of the source whole: is its checksum not the one in the manifest? */
static bool has_wrong_checksum(void *context, uint32_t file)
{
    enum { CHUNK = 256 << 10 };
    const struct mix_checkpoint *ckpt = context;
    const struct mix_ckpt_file *f = &ckpt->m.file[file];
    struct mix_err ignored;
    uint64_t crc = 0, at = 0;
    void *buf;

    if (mix_new(&buf, CHUNK, &ignored))
        return false;
    while (at < f->bytes && !mix_cancel_requested()) {
        size_t n = (size_t)mix_min(CHUNK, f->bytes - at);

        if (mix_store_read(ckpt->store, f->name, at, buf, n, &ignored))
            break;
        crc = mix_crc64(crc, buf, n);
        at += n;
    }
    free(buf);
    return at == f->bytes && crc != f->crc64;
}

/* A leaf of the source is not what its manifest promises: say which file is to blame. */
static enum mix_rc wrong_leaf(struct thread *t, const struct mix_ckpt_tensor *source,
                              uint64_t leaf, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = t->run->job->ckpt;
    uint64_t begin = leaf * MIX_LEAF_BYTES;
    uint64_t end = mix_min(begin + MIX_LEAF_BYTES, source->bytes);
    uint32_t file;
    enum mix_rc rc = mix_reader_blame(&t->reader, source, leaf, has_wrong_checksum, (void *)ckpt,
                                      &file, err);

    if (rc)
        return rc;
    mix_fail(err, MIX_CORRUPT, "tensor '%s', bytes [%" PRIu64 ", %" PRIu64 "): their SHA-256 "
             "differs from the one in mixckpt.digests; the source is damaged", source->name,
             begin, end);
    mix_err_tensor(err, source->name, begin, end);
    return mix_err_file(err, ckpt->m.file[file].name);
}

/* What the source says a leaf's hash should be. Neighbours are asked for one by one. */
static enum mix_rc said_hash(struct thread *t, uint64_t leaf, const unsigned char **hash,
                             struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = t->run->job->ckpt;
    enum mix_rc rc;

    if (leaf < t->said_first || leaf - t->said_first >= t->said_count) {
        size_t n = (size_t)mix_min(LEAVES, ckpt->m.leaf_count - leaf);

        t->said_count = 0;
        if ((rc = mix_store_read(ckpt->store, "mixckpt.digests", leaf * 32, t->said, n * 32,
                                 err)))
            return mix_err_file(err, "mixckpt.digests");
        t->said_first = leaf;
        t->said_count = n;
    }
    *hash = t->said + (leaf - t->said_first) * 32;
    return MIX_OK;
}

static enum mix_rc compare_leaves(struct thread *t, const struct mix_ckpt_tensor *source,
                                  uint64_t first, const unsigned char *hash, size_t count,
                                  struct mix_err *err)
{
    const unsigned char *said = NULL;
    enum mix_rc rc;

    for (size_t i = 0; i < count; i++) {
        if ((rc = said_hash(t, source->first_leaf + first + i, &said, err)))
            return rc;
        if (memcmp(said, hash + i * 32, 32))
            return wrong_leaf(t, source, first + i, err);
    }
    return MIX_OK;
}

/* Bytes [begin, end) of a source tensor, with the leaves around them checked. */
static enum mix_rc read_checked(struct thread *t, const struct mix_ckpt_tensor *source,
                                uint64_t begin, uint64_t end, const unsigned char **data,
                                struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = t->run->job->ckpt;
    uint64_t from = begin - begin % MIX_LEAF_BYTES;
    uint64_t to = mix_min(mix_div_up(end, MIX_LEAF_BYTES) * MIX_LEAF_BYTES, source->bytes);
    struct mix_sha256_job job[CHANGE_BYTES / MIX_LEAF_BYTES];
    unsigned char hash[CHANGE_BYTES / MIX_LEAF_BYTES][32];
    size_t leaves = 0;
    enum mix_rc rc;

    if (ckpt->form != MIX_FORM_MIXCKPT) {
        from = begin;
        to = end;
    }
    if ((!t->change && (rc = mix_new(&t->change, CHANGE_BYTES, err))) ||
        (rc = mix_reader_read(&t->reader, source, from, to, t->change, err)))
        return rc;
    *data = t->change + (begin - from);
    if (ckpt->form != MIX_FORM_MIXCKPT)
        return MIX_OK;
    for (uint64_t at = from; at < to; at += MIX_LEAF_BYTES, leaves++)
        job[leaves] = (struct mix_sha256_job){ t->change + (at - from),
                                               mix_min(MIX_LEAF_BYTES, to - at), hash[leaves] };
    mix_sha256_prefixed(0x00, job, leaves);
    return compare_leaves(t, source, from / MIX_LEAF_BYTES, hash[0], leaves, err);
}

static enum mix_rc read_changed(struct thread *t, const struct mix_ckpt_tensor *target,
                                const struct mix_ckpt_tensor *source, uint64_t begin,
                                uint64_t end, void *buf, struct mix_err *err)
{
    unsigned width = mix_dtype_bits(target->dtype) / 8;
    unsigned source_width = mix_dtype_bits(source->dtype) / 8;
    size_t count = (size_t)((end - begin) / width);
    const unsigned char *data;
    enum mix_rc rc;

    if ((rc = read_checked(t, source, begin / width * source_width, end / width * source_width,
                           &data, err)))
        return rc;
    atomic_fetch_add(&t->run->overflowed,
                     mix_dtype_change(source->dtype, data, target->dtype, buf, count));
    return MIX_OK;
}

static enum mix_rc read_source(void *context, uint32_t tensor, uint64_t begin, uint64_t end,
                               void *buf, struct mix_err *err)
{
    struct thread *t = context;
    struct mix_run *run = t->run;
    const struct mix_job *job = run->job;
    const struct mix_ckpt_tensor *target = &run->target.m.tensor[tensor], *source;

    if (!job->ckpt) {
        mix_random_read(job->random, run->source_tensor[tensor], begin, end, buf);
        return MIX_OK;
    }
    source = &job->ckpt->m.tensor[run->source_tensor[tensor]];
    return source->dtype == target->dtype
               ? mix_reader_read(&t->reader, source, begin, end, buf, err)
               : read_changed(t, target, source, begin, end, buf, err);
}

static enum mix_rc write_bytes(void *context, const struct mix_group *group, uint32_t file,
                               uint64_t offset, const void *data, size_t len,
                               struct mix_err *err)
{
    struct mix_run *run = ((struct thread *)context)->run;
    const struct mix_group_file *f = &group->file[file];
    enum mix_rc rc = mix_file_write(f->fd, f->name, offset, data, len, err);

    return rc ? mix_err_at(err, "%s.partial", run->job->dst) : MIX_OK;
}

static enum mix_rc hand_on_leaves(struct thread *t, struct mix_err *err)
{
    size_t count = t->made_count;

    t->made_count = 0;
    return count ? mix_commit_leaves(t->run->commit, t->made_first, t->made, count, err) : MIX_OK;
}

/* Leaves of neighbouring tensors are neighbours: small tensors are handed on together. */
static enum mix_rc take_leaves(void *context, uint32_t tensor, uint64_t first,
                               const unsigned char *hash, size_t count, struct mix_err *err)
{
    struct thread *t = context;
    const struct mix_ckpt_tensor *source = mix_run_said_by_source(t->run, tensor);
    uint64_t leaf = t->run->target.m.tensor[tensor].first_leaf + first;
    enum mix_rc rc;

    if (source && (rc = compare_leaves(t, source, first, hash, count, err)))
        return rc;
    for (size_t i = 0; i < count; i++, leaf++) {
        if ((t->made_count == LEAVES || leaf != t->made_first + t->made_count) &&
            (rc = hand_on_leaves(t, err)))
            return rc;
        if (!t->made_count)
            t->made_first = leaf;
        memcpy(t->made + t->made_count++ * 32, hash + i * 32, 32);
    }
    return MIX_OK;
}

static enum mix_rc thread_begin(void *context, struct mix_walk_thread *thread,
                                struct mix_err *err)
{
    struct mix_run *run = context;
    struct thread *t;
    enum mix_rc rc;

    if ((rc = mix_new(&t, sizeof *t, err)))
        return rc;
    t->run = run;
    if (run->job->ckpt && (rc = mix_reader_init(&t->reader, run->job->ckpt, err))) {
        free(t);
        return rc;
    }
    thread->own = t;
    thread->source = (struct mix_source){ t, read_source };
    thread->sink = (struct mix_sink){ .context = t, .write = write_bytes, .leaves = take_leaves };
    return MIX_OK;
}

static void thread_end(void *context, struct mix_walk_thread *thread)
{
    struct mix_run *run = context;
    struct thread *t = thread->own;

    atomic_fetch_add(&run->bytes_read, t->reader.bytes_read);
    mix_reader_release(&t->reader);
    free(t->change);
    free(t);
}

static bool is_done(void *context, size_t g, size_t slice)
{
    struct mix_run *run = context;

    /* A record with another number of files is not of this slice; found out at the end. */
    return mix_commit_has(run->commit, g, slice);
}

/* Make a file of its full size, with its header; the rest follows in any order. */
static enum mix_rc create_file(struct mix_run *run, struct mix_group_file *f, struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    enum mix_rc rc;

    if ((rc = mix_commit_path(run->commit, f->name, &path, err)) ||
        (rc = mix_file_open(path.data, &f->fd, err)) ||
        (rc = mix_file_write(f->fd, path.data, 0, f->header.data, f->header.len, err)) ||
        (rc = mix_file_resize(f->fd, path.data, f->bytes, err)))
        goto out;
out:
    mix_buf_release(&path);
    return rc;
}

/* What the journal says is done must be there: somebody may have tidied up meanwhile. */
static enum mix_rc check_file(struct mix_run *run, const struct mix_group_file *f,
                              struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    struct stat st = { .st_size = 0 };
    enum mix_rc rc;

    if (!(rc = mix_commit_path(run->commit, f->name, &path, err)) &&
        (lstat(path.data, &st) || (uint64_t)st.st_size != f->bytes))
        rc = mix_fail(err, MIX_IO, "%s: holds %" PRIu64 " bytes, but a finished part of it says "
                      "%" PRIu64 "; remove %s.partial to begin again", path.data,
                      (uint64_t)st.st_size, f->bytes, run->job->dst);
    mix_buf_release(&path);
    return rc;
}

static enum mix_rc build(void *context, struct mix_walk_thread *thread, size_t g,
                         struct mix_group *group, struct mix_err *err)
{
    struct mix_run *run = context;
    uint64_t done = 0;
    enum mix_rc rc;

    (void)thread;
    if ((rc = run->target.build(&run->target, g, group, err)))
        return rc;
    for (size_t s = 0; s < group->slice_count; s++)
        if (is_done(run, g, s))
            done += mix_group_slice_bytes(group, s);
    atomic_fetch_add(&run->bytes_resumed, done);
    mix_progress_resumed(run->job->progress, done);
    for (size_t i = 0; done && i < group->file_count; i++)
        if ((rc = check_file(run, &group->file[i], err)))
            return rc;
    if (group->slice_count && done == group->bytes)
        return MIX_OK;
    for (size_t i = 0; i < group->file_count; i++)
        if ((rc = create_file(run, &group->file[i], err)))
            return rc;
    return MIX_OK;
}

static enum mix_rc slice_end(void *context, struct mix_walk_thread *thread, size_t g,
                             const struct mix_group *group, size_t slice,
                             const struct mix_file_sum *sum, struct mix_err *err)
{
    struct mix_run *run = context;
    enum mix_rc rc;

    if ((rc = hand_on_leaves(thread->own, err)))
        return rc;
    /* Let the disk begin now, so that the fsync behind it has less to wait for. */
    for (size_t i = 0; run->job->sync && i < group->file_count; i++)
        sync_file_range(group->file[i].fd, (off_t)sum[i].start, (off_t)sum[i].bytes,
                        SYNC_FILE_RANGE_WRITE);
    atomic_fetch_add(&run->bytes_written, mix_group_slice_bytes(group, slice));
    return mix_commit_slice(run->commit, g, slice, group, sum, err);
}

static enum mix_rc group_end(void *context, struct mix_walk_thread *thread, size_t g,
                             struct mix_group *group, struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    (void)context, (void)thread, (void)g;
    for (size_t i = 0; i < group->file_count && !rc; i++)
        rc = mix_file_close(&group->file[i].fd, group->file[i].name, err);
    return rc;
}

static enum mix_rc walk_share(struct mix_run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    struct mix_walk walk = {
        .context = run,
        .tensor = run->target.m.tensor,
        .group_count = run->target.group_count,
        .with_crc = !job->to_hf,
        .progress = job->progress,
        .thread_begin = thread_begin,
        .thread_end = thread_end,
        .build = build,
        .is_done = is_done,
        .slice_end = slice_end,
        .group_end = group_end,
    };
    size_t first, count;
    enum mix_rc rc;

    if ((rc = mix_job_threads(job, &run->target, &walk.jobs, err)))
        return rc;
    mix_walk_share(run->target.group_bytes, run->target.group_count, job->worker,
                  job->worker_count, &first, &count);
    for (size_t g = first; g < first + count; g++)
        mix_progress_total(job->progress, run->target.group_bytes[g]);
    return mix_walk_run(&walk, first, count, err);
}

/* ---- the job ---- */

/* Where the values of a weight come from when they are rounded anew: its @master, if any. */
static uint32_t truth_of(const struct mix_manifest *from, size_t weight)
{
    char name[1024];
    const struct mix_ckpt_tensor *w = &from->tensor[weight], *master = NULL;

    if (snprintf(name, sizeof name, "%s@master", w->name) < (int)sizeof name)
        master = mix_manifest_find(from, name);
    return master && master->dtype == MIX_F32 && master->bytes / 4 * mix_dtype_bits(w->dtype) ==
                                                     w->bytes * 8
               ? (uint32_t)(master - from->tensor) : (uint32_t)weight;
}

static enum mix_rc map_tensors(struct mix_run *run, struct mix_err *err)
{
    const struct mix_manifest *from = mix_run_source(run->job), *to = &run->target.m;
    enum mix_rc rc = mix_new_array(&run->source_tensor, to->tensor_count,
                                   sizeof *run->source_tensor, err);

    /* Both are sorted, and the target's are among the source's. */
    for (size_t i = 0, k = 0; i < to->tensor_count && !rc; i++, k++) {
        while (strcmp(from->tensor[k].name, to->tensor[i].name))
            k++;
        run->source_tensor[i] = from->tensor[k].dtype == to->tensor[i].dtype
                                    ? (uint32_t)k : truth_of(from, k);
    }
    return rc;
}

static enum mix_rc check_space(struct mix_run *run, struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    uint64_t space;
    enum mix_rc rc;

    /* What is there of a job that goes on need not be written again. */
    if (run->job->worker || mix_commit_is_resumed(run->commit))
        return MIX_OK;
    if (!(rc = mix_commit_path(run->commit, "job", &path, err)) &&
        !(rc = mix_path_free_bytes(path.data, &space, err)) && space < run->target.bytes)
        rc = mix_fail(err, MIX_IO, "%s: %" PRIu64 " bytes are needed, %" PRIu64 " are free",
                      run->job->dst, run->target.bytes, space);
    mix_buf_release(&path);
    return rc;
}

struct ticker {
    struct mix_run *run;
    void (*tick)(void *context);
    void *context;
};

/* The progress is somebody's to show; ours is to note what is done. */
static void tick(void *context)
{
    struct ticker *t = context;

    mix_commit_tend(t->run->commit, atomic_load(&t->run->bytes_written));
    if (t->tick)
        t->tick(t->context);
}

/* An earlier run was killed when it had only to tidy up: report what it has made. */
static enum mix_rc finish_published(struct mix_run *run, struct mix_err *err)
{
    enum mix_rc rc;

    run->bytes_resumed = run->target.bytes;
    rc = mix_run_digests(run, false, err);
    return rc ? rc : mix_commit_publish(run->commit, err);
}

static enum mix_rc run_all(struct mix_run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    enum mix_rc rc;

    if (mix_commit_is_published(run->commit))
        return finish_published(run, err);
    if ((rc = check_space(run, err)) || (rc = walk_share(run, err)) ||
        (rc = check_stamps(run, err)) ||
        (!job->worker && (rc = mix_run_count_slices(run, err))) ||
        (rc = mix_commit_wait(run->commit, mix_run_is_complete, run, job->progress, err)) ||
        job->worker)
        return rc;
    if ((rc = mix_run_digests(run, !job->to_hf, err)) || (rc = mix_run_describe(run, err)))
        return rc;
    return mix_commit_publish(run->commit, err);
}

static enum mix_rc begin(struct mix_run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    const struct mix_commit_options options = { job->force, job->sync, job->worker,
                                                job->worker_count, job->wait_ms };
    struct mix_buf text = MIX_BUF_INIT;
    unsigned threads;
    enum mix_rc rc;

    if (!(rc = map_tensors(run, err)) && !(rc = stamp_files(run, err)) &&
        !(rc = mix_job_threads(job, &run->target, &threads, err)) &&
        !(rc = identity(job, &text, err)))
        rc = mix_commit_begin(job->dst, job->src, text.data, &options, &run->commit, err);
    mix_buf_release(&text);
    return rc;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void release(struct mix_run *run)
{
    run->target.m.side = NULL;
    free(run->source_tensor);
    free(run->stamp);
    free(run->slice_count);
    free(run->file_count);
    free(run->piece_offset);
    free(run->piece_file);
    free(run->side);
    mix_target_release(&run->target);
}

enum mix_rc mix_job_run(const struct mix_job *job, struct mix_job_result *result,
                        struct mix_err *err)
{
    struct mix_run run = { .job = job, .result = result };
    struct ticker ticker = { .run = &run };
    double began = now();
    enum mix_rc rc;

    memset(result, 0, sizeof *result);
    if ((rc = mix_job_target(job, &run.target, err)))
        return rc;
    if ((rc = begin(&run, err)))
        goto out;
    ticker.tick = job->progress->tick;
    ticker.context = job->progress->context;
    job->progress->tick = tick;
    job->progress->context = &ticker;
    rc = run_all(&run, err);
    mix_commit_end(run.commit, rc, err);
    if (rc && job->worker_count > 1)
        mix_err_at(err, "worker %u of %u", job->worker, job->worker_count);
    job->progress->tick = ticker.tick;
    job->progress->context = ticker.context;
    result->tensors = run.target.m.tensor_count;
    result->files = run.target.m.file_count;
    result->bytes_read = run.bytes_read;
    result->bytes_written = run.bytes_written;
    result->bytes_resumed = run.bytes_resumed;
    result->overflowed = run.overflowed;
    result->seconds = now() - began;
    if (run.target.remade)
        snprintf(result->remade, sizeof result->remade, "%s", run.target.remade);
out:
    release(&run);
    return rc;
}
