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
#include "ckpt/base/json.h"
#include "ckpt/base/progress.h"
#include "ckpt/commit.h"
#include "ckpt/digest_tree.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"
#include "ckpt/walk.h"
#include "reshard/change_dtype.h"
#include "reshard/random_source.h"

static const char index_name[] = "model.safetensors.index.json";

/* What a thread needs at most to change a block's dtype: twice a block, and two leaves. */
enum { CHANGE_BYTES = 2 * MIX_STREAM_MOST + 2 * MIX_LEAF_BYTES };

struct run {
    const struct mix_job *job;
    struct mix_target target;
    uint32_t *source_tensor;      /* tensor of the target -> tensor of the source */
    struct mix_commit *commit;
    struct mix_job_result *result;
    _Atomic uint64_t bytes_read, bytes_written, bytes_resumed, overflowed;

    /* Worker 0, for the end: */
    uint32_t *slice_count, *file_count; /* of each group */
    uint64_t *piece_offset;       /* by piece, as mixckpt.pieces wants them */
    uint32_t *piece_file;
    struct mix_ckpt_side *side;   /* what was written beside the shards */
    size_t side_count, side_capacity;
};

static const struct mix_manifest *source_list(const struct mix_job *job)
{
    return job->ckpt ? &job->ckpt->m : &job->random->m;
}

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

    if (!(rc = mix_target_take(target, source_list(job), weights_only, err)) &&
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
    const struct mix_manifest *m = source_list(job);
    char hex[MIX_SHA256_HEX];
    unsigned char sha[32];
    enum mix_rc rc;

    if ((rc = mix_buf_putf(out, err, "to %s\nweights-only %d\n", job->to_hf ? "hf" : "mixckpt",
                           job->weights_only)) ||
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

/* ---- the walk ---- */

enum { LEAVES = 256 }; /* hashes that are read, or written, at once */

struct thread {
    struct run *run;
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
    struct run *run = t->run;
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
    struct run *run = ((struct thread *)context)->run;
    const struct mix_group_file *f = &group->file[file];
    enum mix_rc rc = mix_file_write(f->fd, f->name, offset, data, len, err);

    return rc ? mix_err_at(err, "%s.partial", run->job->dst) : MIX_OK;
}

/* The tensor of the source whose leaves are those of a target's tensor, if it says them. */
static const struct mix_ckpt_tensor *said_by_source(const struct run *run, size_t tensor)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    const struct mix_ckpt_tensor *source;

    if (!ckpt || ckpt->form != MIX_FORM_MIXCKPT)
        return NULL;
    source = &ckpt->m.tensor[run->source_tensor[tensor]];
    return source->dtype == run->target.m.tensor[tensor].dtype ? source : NULL;
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
    const struct mix_ckpt_tensor *source = said_by_source(t->run, tensor);
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
    struct run *run = context;
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
    struct run *run = context;
    struct thread *t = thread->own;

    atomic_fetch_add(&run->bytes_read, t->reader.bytes_read);
    mix_reader_release(&t->reader);
    free(t->change);
    free(t);
}

static bool is_done(void *context, size_t g, size_t slice)
{
    struct run *run = context;

    /* A record with another number of files is not of this slice; found out at the end. */
    return mix_commit_has(run->commit, g, slice);
}

/* Make a file of its full size, with its header; the rest follows in any order. */
static enum mix_rc create_file(struct run *run, struct mix_group_file *f, struct mix_err *err)
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
static enum mix_rc check_file(struct run *run, const struct mix_group_file *f,
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
    struct run *run = context;
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
    struct run *run = context;
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

static enum mix_rc walk_share(struct run *run, struct mix_err *err)
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

/* ---- the end: what describes the whole ---- */

static enum mix_rc count_slices(struct run *run, struct mix_err *err)
{
    size_t n = run->target.group_count;
    enum mix_rc rc;

    if ((rc = mix_new_array(&run->slice_count, n, sizeof *run->slice_count, err)) ||
        (rc = mix_new_array(&run->file_count, n, sizeof *run->file_count, err)))
        return rc;
    for (size_t g = 0; g < n && !rc; g++) {
        struct mix_group group = MIX_GROUP_INIT;

        rc = run->target.build(&run->target, g, &group, err);
        run->slice_count[g] = (uint32_t)group.slice_count;
        run->file_count[g] = (uint32_t)group.file_count;
        mix_group_release(&group);
    }
    return rc;
}

static bool is_complete(void *context, const char **missing)
{
    static char words[160];
    struct run *run = context;
    size_t groups = run->target.group_count, left = 0, first = 0;

    for (size_t g = 0; g < groups; g++) {
        for (uint32_t s = 0; s < run->slice_count[g]; s++) {
            if (mix_commit_done(run->commit, g, s, run->file_count[g]))
                continue;
            if (!left++)
                first = g;
            break;
        }
    }
    if (!left)
        return true;
    for (unsigned i = 0; i < run->job->worker_count; i++) {
        size_t begin, count;

        mix_walk_share(run->target.group_bytes, groups, i, run->job->worker_count, &begin, &count);
        if (first >= begin && first < begin + count)
            snprintf(words, sizeof words, "%zu of %zu file groups are not done, the first is "
                     "the share of worker %u of %u", left, groups, i, run->job->worker_count);
    }
    *missing = words;
    return false;
}

/* Join the checksums of a file: header, slices, and zeros between. */
static uint64_t file_crc(struct run *run, size_t g, const struct mix_group *group, size_t f)
{
    const struct mix_group_file *file = &group->file[f];
    uint64_t crc = mix_crc64(0, file->header.data, file->header.len), at = file->header.len;

    for (size_t s = 0; s < group->slice_count; s++) {
        const struct mix_file_sum *sum = mix_commit_done(run->commit, g, s, group->file_count);

        sum += f;
        if (!sum->bytes)
            continue;
        crc = mix_crc64_zeros(crc, sum->start - at);
        crc = mix_crc64_join(crc, sum->crc64, sum->bytes);
        at = sum->start + sum->bytes;
    }
    return mix_crc64_zeros(crc, file->bytes - at);
}

static void note_pieces(struct run *run, const struct mix_group *group)
{
    for (size_t i = 0; i < group->item_count; i++) {
        const struct mix_item *item = &group->item[i];
        const struct mix_ckpt_tensor *t = &run->target.m.tensor[item->tensor];
        uint64_t row = t->cut.row_bytes ? item->begin / t->cut.row_bytes : 0;
        uint64_t piece = t->first_piece +
                         mix_cut_part_of_row(&t->cut, row) * t->cut.column_parts;

        for (uint32_t j = 0; j < item->part_count; j++) {
            const struct mix_part *part = &group->part[item->part_first + j];

            run->piece_offset[piece + j] = part->offset;
            run->piece_file[piece + j] = group->file[part->file].id;
        }
    }
}

/* Sizes and checksums of all files, and where the pieces lie in them. */
static enum mix_rc describe_files(struct run *run, struct mix_err *err)
{
    struct mix_manifest *m = &run->target.m;
    enum mix_rc rc;

    if ((rc = mix_new_array(&run->piece_offset, m->piece_count, sizeof *run->piece_offset, err)) ||
        (rc = mix_new_array(&run->piece_file, m->piece_count, sizeof *run->piece_file, err)))
        return rc;
    for (size_t g = 0; g < run->target.group_count && !rc; g++) {
        struct mix_group group = MIX_GROUP_INIT;

        if (!(rc = run->target.build(&run->target, g, &group, err))) {
            for (size_t f = 0; f < group.file_count; f++) {
                m->file[group.file[f].id].bytes = group.file[f].bytes;
                m->file[group.file[f].id].crc64 = file_crc(run, g, &group, f);
            }
            note_pieces(run, &group);
        }
        mix_group_release(&group);
    }
    return rc;
}

/* A file beside the shards, written from front to back with its SHA-256. */
struct side_writer {
    struct run *run;
    struct mix_buf path;
    const char *name;
    int fd;
    uint64_t at;
    struct mix_sha256 sha;
};

static enum mix_rc side_open(struct side_writer *w, struct run *run, const char *name,
                             struct mix_err *err)
{
    enum mix_rc rc;

    *w = (struct side_writer){ .run = run, .name = name, .fd = -1 };
    mix_sha256_init(&w->sha);
    if ((rc = mix_commit_path(run->commit, name, &w->path, err)))
        return rc;
    return mix_file_create(w->path.data, &w->fd, err);
}

static enum mix_rc side_put(struct side_writer *w, const void *data, size_t len,
                            struct mix_err *err)
{
    enum mix_rc rc = mix_file_write(w->fd, w->path.data, w->at, data, len, err);

    mix_sha256_put(&w->sha, data, len);
    w->at += len;
    return rc;
}

/* Close; if all went well, list it for the manifest. */
static enum mix_rc side_close(struct side_writer *w, enum mix_rc rc, struct mix_err *err)
{
    struct run *run = w->run;
    struct mix_ckpt_side *side;
    enum mix_rc closed = mix_file_close(&w->fd, w->path.data, rc ? NULL : err);

    rc = rc ? rc : closed;
    mix_buf_release(&w->path);
    if (rc || (rc = mix_grow(&run->side, &run->side_capacity, run->side_count,
                             sizeof *run->side, err)))
        return rc;
    side = &run->side[run->side_count++];
    side->bytes = w->at;
    mix_sha256_end(&w->sha, side->sha256);
    return mix_arena_text(&run->target.m.arena, w->name, strlen(w->name), &side->name, err);
}

static enum mix_rc put_side(struct run *run, const char *name, const void *data, size_t len,
                            struct mix_err *err)
{
    struct side_writer w;
    enum mix_rc rc = side_open(&w, run, name, err);

    if (!rc)
        rc = side_put(&w, data, len, err);
    return side_close(&w, rc, err);
}

/* The tensors' digests from the leaves of all workers; for ours, mixckpt.digests too. */
static enum mix_rc make_digests(struct run *run, struct side_writer *w, struct mix_err *err)
{
    enum { CHUNK = 2048 };
    struct mix_manifest *m = &run->target.m;
    uint64_t leaf = 0, chunk_end = 0;
    unsigned char *hash = NULL, root[32];
    enum mix_rc rc = mix_new(&hash, CHUNK * 32, err);

    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        struct mix_ckpt_tensor *t = &m->tensor[i];
        uint64_t end = t->first_leaf + mix_leaf_count(t->bytes);
        struct mix_merkle tree = MIX_MERKLE_INIT;

        for (; leaf < end && !rc; leaf++) {
            if (leaf == chunk_end) {
                size_t n = (size_t)mix_min(CHUNK, m->leaf_count - leaf);

                chunk_end += n;
                if ((rc = mix_commit_read_leaves(run->commit, leaf, n, hash, err)) ||
                    (w && (rc = side_put(w, hash, n * 32, err))))
                    break;
            }
            mix_merkle_put(&tree, hash + leaf % CHUNK * 32);
        }
        mix_merkle_root(&tree, root);
        mix_tensor_digest(t->dtype, t->rank, t->shape, root, t->digest);
    }
    free(hash);
    return rc;
}

/* Leaves that agree with mixckpt.digests must also agree with the digest in the manifest. */
static enum mix_rc compare_digests(struct run *run, struct mix_err *err)
{
    const struct mix_manifest *m = &run->target.m;

    for (size_t i = 0; i < m->tensor_count; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i], *source = said_by_source(run, i);

        if (!source || !memcmp(t->digest, source->digest, 32))
            continue;
        mix_fail(err, MIX_CORRUPT, "tensor '%s': its leaves do not give the digest in "
                 "mixckpt.json; the source is damaged", t->name);
        mix_err_tensor(err, t->name, 0, t->bytes);
        return mix_err_file(err, "mixckpt.digests");
    }
    return MIX_OK;
}

static enum mix_rc write_digests(struct run *run, struct mix_err *err)
{
    struct side_writer w;
    enum mix_rc rc;

    if (run->job->to_hf)
        return make_digests(run, NULL, err);
    if (!(rc = side_open(&w, run, "mixckpt.digests", err)))
        rc = make_digests(run, &w, err);
    return side_close(&w, rc, err);
}

static enum mix_rc write_pieces(struct run *run, struct mix_err *err)
{
    enum { CHUNK = 4096 };
    const struct mix_manifest *m = &run->target.m;
    unsigned char *buf = NULL;
    size_t used = 0;
    struct side_writer w;
    enum mix_rc rc;

    if ((rc = side_open(&w, run, "mixckpt.pieces", err)) ||
        (rc = mix_new(&buf, CHUNK * MIX_PIECE_RECORD_BYTES, err)))
        return side_close(&w, rc, err);
    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i];
        uint64_t pieces = mix_cut_pieces(&t->cut);

        for (uint64_t k = 0; k < pieces && !rc; k++) {
            unsigned char *r = buf + used;

            mix_store_le(r, run->piece_file[t->first_piece + k], 4);
            mix_store_le(r + 4, 0, 4);
            mix_store_le(r + 8, run->piece_offset[t->first_piece + k], 8);
            mix_store_le(r + 16, mix_cut_piece_bytes(&t->cut, k / t->cut.column_parts,
                                                     k % t->cut.column_parts), 8);
            used += MIX_PIECE_RECORD_BYTES;
            if (used == CHUNK * MIX_PIECE_RECORD_BYTES) {
                rc = side_put(&w, buf, used, err);
                used = 0;
            }
        }
    }
    if (!rc)
        rc = side_put(&w, buf, used, err);
    free(buf);
    return side_close(&w, rc, err);
}

/* ---- the files that travel with the weights ---- */

static const struct mix_ckpt_side *side_of_source(const struct mix_checkpoint *ckpt,
                                                  const char *path)
{
    for (size_t i = 0; i < ckpt->m.side_count; i++)
        if (!strcmp(ckpt->m.side[i].name, path))
            return &ckpt->m.side[i];
    return NULL;
}

/* config.json as it travels when --dtype changes the weights that it speaks of. */
static enum mix_rc copy_config(struct run *run, const struct mix_carried_file *c,
                               const char *name, struct mix_err *err)
{
    struct mix_buf text = MIX_BUF_INIT, changed = MIX_BUF_INIT;
    enum mix_rc rc = mix_store_read_all(run->job->ckpt->store, c->path, c->bytes, &text, err);

    if (rc)
        mix_err_file(err, c->path);
    else if (!(rc = mix_config_change_dtype(text.data, text.len, run->job->dtype, &changed, err)))
        rc = put_side(run, name, changed.data, changed.len, err);
    mix_buf_release(&text);
    mix_buf_release(&changed);
    return rc;
}

static enum mix_rc copy_carried(struct run *run, const struct mix_carried_file *c,
                                const char *name, struct mix_err *err)
{
    enum { CHUNK = 256 << 10 };
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    const struct mix_ckpt_side *said = side_of_source(ckpt, c->path);
    char *buf = NULL;
    struct side_writer w;
    enum mix_rc rc;

    if ((rc = side_open(&w, run, name, err)) || (rc = mix_new(&buf, CHUNK, err)))
        return side_close(&w, rc, err);
    for (uint64_t at = 0; at < c->bytes && !rc; at += CHUNK) {
        size_t n = (size_t)mix_min(CHUNK, c->bytes - at);

        if ((rc = mix_store_read(ckpt->store, c->path, at, buf, n, err)))
            mix_err_file(err, c->path);
        else
            rc = side_put(&w, buf, n, err);
    }
    free(buf);
    if ((rc = side_close(&w, rc, err)))
        return rc;
    if (said && memcmp(said->sha256, run->side[run->side_count - 1].sha256, 32)) {
        mix_fail(err, MIX_CORRUPT, "differs from the SHA-256 in the manifest");
        return mix_err_file(err, c->path);
    }
    return MIX_OK;
}

/* All carried files into `folder` ("" or "hf/" or "model/"). */
static enum mix_rc copy_all_carried(struct run *run, const char *folder, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    struct mix_buf name = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;

    if (!ckpt) {
        if (!(rc = mix_buf_putf(&name, err, "%sconfig.json", folder)))
            rc = put_side(run, name.data, run->job->random->config,
                          run->job->random->config_len, err);
        mix_buf_release(&name);
        return rc;
    }
    for (size_t i = 0; i < ckpt->carried_count && !rc; i++) {
        mix_buf_clear(&name);
        if ((rc = mix_buf_putf(&name, err, "%s%s", folder, ckpt->carried[i].name)))
            break;
        rc = run->job->has_dtype && !strcmp(ckpt->carried[i].name, "config.json")
                 ? copy_config(run, &ckpt->carried[i], name.data, err)
                 : copy_carried(run, &ckpt->carried[i], name.data, err);
    }
    mix_buf_release(&name);
    return rc;
}

/* hf/.weights/: the headers and the index of the weight files that came in once. */
static enum mix_rc keep_origin(struct run *run, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    struct mix_buf name = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; ckpt && i < ckpt->origin_count && !rc; i++) {
        size_t len;
        const char *header = mix_safetensors_header(ckpt->origin[i].header, &len);

        mix_buf_clear(&name);
        if (!(rc = mix_buf_putf(&name, err, "hf/.weights/%s.header", ckpt->origin[i].name)))
            rc = put_side(run, name.data, header, len, err);
    }
    mix_buf_release(&name);
    if (!rc && ckpt && ckpt->index)
        rc = put_side(run, "hf/.weights/model.safetensors.index.json", ckpt->index,
                      ckpt->index_len, err);
    return rc;
}

/* A name as Python's json.dumps writes it: what is not ASCII as \uXXXX. */
static enum mix_rc put_ascii(struct mix_buf *out, const char *name, struct mix_err *err)
{
    const unsigned char *p = (const unsigned char *)name;
    enum mix_rc rc = mix_buf_put(out, "\"", 1, err);

    while (*p && !rc) {
        uint32_t code = *p;
        int more = code < 0x80 ? 0 : code < 0xe0 ? 1 : code < 0xf0 ? 2 : 3;

        if (!more) {
            rc = *p == '"' || *p == '\\' ? mix_buf_putf(out, err, "\\%c", *p)
                                         : mix_buf_put(out, p, 1, err);
            p++;
            continue;
        }
        code &= 0x3fu >> more;
        for (p++; more && (*p & 0xc0) == 0x80; more--)
            code = code << 6 | (*p++ & 0x3f);
        if (code >= 0x10000)
            rc = mix_buf_putf(out, err, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                              0xdc00 + ((code - 0x10000) & 0x3ff));
        else
            rc = mix_buf_putf(out, err, "\\u%04x", code);
    }
    return rc ? rc : mix_buf_put(out, "\"", 1, err);
}

static uint64_t elements(const struct mix_ckpt_tensor *t)
{
    return t->bytes * 8 / mix_dtype_bits(t->dtype);
}

/*
 * An index as transformers writes it: json.dumps(indent=2, sort_keys=True) and a newline.
 * `t->file` is found by `file_of`, whose names lose the first `skip` bytes.
 */
static enum mix_rc put_index(struct run *run, const char *name, const uint32_t *file_of,
                             size_t skip, struct mix_err *err)
{
    const struct mix_manifest *m = &run->target.m;
    struct mix_buf out = MIX_BUF_INIT;
    uint64_t parameters = 0, bytes = 0;
    bool first = true;
    enum mix_rc rc;

    for (size_t i = 0; i < m->tensor_count; i++) {
        if (strchr(m->tensor[i].name, '@'))
            continue;
        parameters += elements(&m->tensor[i]);
        bytes += m->tensor[i].bytes;
    }
    rc = mix_buf_putf(&out, err, "{\n  \"metadata\": {\n    \"total_parameters\": %" PRIu64
                      ",\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
                      parameters, bytes);
    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        if (strchr(m->tensor[i].name, '@'))
            continue;
        if ((rc = mix_buf_putf(&out, err, "%s\n    ", first ? "" : ",")) ||
            (rc = put_ascii(&out, m->tensor[i].name, err)) ||
            (rc = mix_buf_putf(&out, err, ": ")) ||
            (rc = put_ascii(&out, m->file[file_of[i]].name + skip, err)))
            break;
        first = false;
    }
    if (!rc && !(rc = mix_buf_putf(&out, err, "%s  }\n}\n", first ? "" : "\n")))
        rc = put_side(run, name, out.data, out.len, err);
    mix_buf_release(&out);
    return rc;
}

static enum mix_rc put_new_index(struct run *run, const char *name, bool whole_pieces,
                                 size_t skip, struct mix_err *err)
{
    const struct mix_manifest *m = &run->target.m;
    uint32_t *file_of;
    enum mix_rc rc = mix_new_array(&file_of, m->tensor_count, sizeof *file_of, err);

    for (size_t i = 0; i < m->tensor_count && !rc; i++)
        file_of[i] = whole_pieces ? run->piece_file[m->tensor[i].first_piece] : m->tensor[i].file;
    if (!rc)
        rc = put_index(run, name, file_of, skip, err);
    free(file_of);
    return rc;
}

static enum mix_rc finish_hf(struct run *run, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    enum mix_rc rc;

    if ((rc = copy_all_carried(run, "", err)))
        return rc;
    /* The index makes the folder a checkpoint, so it comes last. */
    if (!run->target.remade)
        return ckpt->index ? put_side(run, index_name, ckpt->index, ckpt->index_len, err)
                           : MIX_OK;
    return run->target.m.file_count > 1 ? put_new_index(run, index_name, false, 0, err) : MIX_OK;
}

static int side_by_name(const void *a, const void *b)
{
    return strcmp(((const struct mix_ckpt_side *)a)->name,
                  ((const struct mix_ckpt_side *)b)->name);
}

static enum mix_rc put_manifest(struct run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    const struct mix_manifest *from = source_list(job);
    struct mix_manifest *m = &run->target.m;
    struct mix_buf text = MIX_BUF_INIT, path = MIX_BUF_INIT, model = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;

    m->has_step = from->has_step;
    m->step = from->step;
    m->model = from->model;
    m->trainer = job->weights_only ? NULL : from->trainer;
    qsort(run->side, run->side_count, sizeof *run->side, side_by_name);
    m->side = run->side;
    m->side_count = run->side_count;
    if (job->has_dtype && m->model) {
        rc = mix_config_change_dtype(m->model, strlen(m->model), job->dtype, &model, err);
        m->model = model.data;
    }
    if (!rc && !(rc = mix_manifest_emit(m, &text, err)) &&
        !(rc = mix_commit_path(run->commit, "mixckpt.json", &path, err)))
        rc = mix_file_put(path.data, text.data, text.len, job->sync, err);
    m->model = NULL; /* it was borrowed */
    mix_buf_release(&text);
    mix_buf_release(&path);
    mix_buf_release(&model);
    return rc;
}

static enum mix_rc finish_shards(struct run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    enum mix_rc rc;

    if ((rc = describe_files(run, err)) || (rc = write_pieces(run, err)) ||
        (rc = copy_all_carried(run, "hf/", err)) || (rc = keep_origin(run, err)))
        return rc;
    /* Whole tensors in safetensors files: model/ can be a Hugging Face folder, so it is. */
    if (job->container == MIX_SAFETENSORS && job->mesh.hsd == 1 && job->mesh.tp == 1 &&
        ((rc = copy_all_carried(run, "model/", err)) ||
         (rc = put_new_index(run, "model/model.safetensors.index.json", true, strlen("model/"),
                             err))))
        return rc;
    return put_manifest(run, err);
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

static enum mix_rc map_tensors(struct run *run, struct mix_err *err)
{
    const struct mix_manifest *from = source_list(run->job), *to = &run->target.m;
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

static enum mix_rc check_space(struct run *run, struct mix_err *err)
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
    struct run *run;
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
static enum mix_rc finish_published(struct run *run, struct mix_err *err)
{
    enum mix_rc rc;

    run->bytes_resumed = run->target.bytes;
    if ((rc = make_digests(run, NULL, err)) || (rc = compare_digests(run, err)) ||
        (rc = mix_digest_totals(&run->target.m, &run->result->digests, err)))
        return rc;
    return mix_commit_publish(run->commit, err);
}

static enum mix_rc run_all(struct run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    enum mix_rc rc;

    if (mix_commit_is_published(run->commit))
        return finish_published(run, err);
    if ((rc = check_space(run, err)) || (rc = walk_share(run, err)) ||
        (!job->worker && (rc = count_slices(run, err))) ||
        (rc = mix_commit_wait(run->commit, is_complete, run, job->progress, err)) ||
        job->worker)
        return rc;
    if ((rc = write_digests(run, err)) || (rc = compare_digests(run, err)) ||
        (rc = mix_digest_totals(&run->target.m, &run->result->digests, err)) ||
        (rc = job->to_hf ? finish_hf(run, err) : finish_shards(run, err)))
        return rc;
    return mix_commit_publish(run->commit, err);
}

static enum mix_rc begin(struct run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    const struct mix_commit_options options = { job->force, job->sync, job->worker,
                                                job->worker_count, job->wait_ms };
    struct mix_buf text = MIX_BUF_INIT;
    unsigned threads;
    enum mix_rc rc;

    if (!(rc = map_tensors(run, err)) &&
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

static void release(struct run *run)
{
    run->target.m.side = NULL;
    free(run->source_tensor);
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
    struct run run = { .job = job, .result = result };
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
