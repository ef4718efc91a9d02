/*
 * describe.c - what describes a new checkpoint as a whole, once all of its slices are
 * there: digests, records of the pieces, the files that travel with the weights, the
 * index or the manifest.
 */
#include "reshard/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/file.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/json.h"
#include "ckpt/digest_tree.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"
#include "ckpt/walk.h"
#include "reshard/change_dtype.h"
#include "reshard/random_source.h"

static const char index_name[] = "model.safetensors.index.json";

const struct mix_manifest *mix_run_source(const struct mix_job *job)
{
    return job->ckpt ? &job->ckpt->m : &job->random->m;
}

const struct mix_ckpt_tensor *mix_run_said_by_source(const struct mix_run *run, size_t tensor)
{
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    const struct mix_ckpt_tensor *source;

    if (!ckpt || ckpt->form != MIX_FORM_MIXCKPT)
        return NULL;
    source = &ckpt->m.tensor[run->source_tensor[tensor]];
    return source->dtype == run->target.m.tensor[tensor].dtype ? source : NULL;
}

enum mix_rc mix_run_count_slices(struct mix_run *run, struct mix_err *err)
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

bool mix_run_is_complete(void *context, const char **missing)
{
    static char words[160];
    struct mix_run *run = context;
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
static uint64_t file_crc(struct mix_run *run, size_t g, const struct mix_group *group, size_t f)
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

static void note_pieces(struct mix_run *run, const struct mix_group *group)
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
static enum mix_rc describe_files(struct mix_run *run, struct mix_err *err)
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
    struct mix_run *run;
    struct mix_buf path;
    const char *name;
    int fd;
    uint64_t at;
    struct mix_sha256 sha;
};

static enum mix_rc side_open(struct side_writer *w, struct mix_run *run, const char *name,
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
    struct mix_run *run = w->run;
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

static enum mix_rc put_side(struct mix_run *run, const char *name, const void *data, size_t len,
                            struct mix_err *err)
{
    struct side_writer w;
    enum mix_rc rc = side_open(&w, run, name, err);

    if (!rc)
        rc = side_put(&w, data, len, err);
    return side_close(&w, rc, err);
}

/* The tensors' digests from the leaves of all workers; for ours, mixckpt.digests too. */
static enum mix_rc make_digests(struct mix_run *run, struct side_writer *w, struct mix_err *err)
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
static enum mix_rc compare_digests(struct mix_run *run, struct mix_err *err)
{
    const struct mix_manifest *m = &run->target.m;

    for (size_t i = 0; i < m->tensor_count; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i], *source = mix_run_said_by_source(run, i);

        if (!source || !memcmp(t->digest, source->digest, 32))
            continue;
        mix_fail(err, MIX_CORRUPT, "tensor '%s': its leaves do not give the digest in "
                 "mixckpt.json; the source is damaged", t->name);
        mix_err_tensor(err, t->name, 0, t->bytes);
        return mix_err_file(err, "mixckpt.digests");
    }
    return MIX_OK;
}

enum mix_rc mix_run_digests(struct mix_run *run, bool write, struct mix_err *err)
{
    struct side_writer w;
    enum mix_rc rc;

    if (!write) {
        rc = make_digests(run, NULL, err);
    } else {
        if (!(rc = side_open(&w, run, "mixckpt.digests", err)))
            rc = make_digests(run, &w, err);
        rc = side_close(&w, rc, err);
    }
    if (rc || (rc = compare_digests(run, err)))
        return rc;
    return mix_digest_totals(&run->target.m, &run->result->digests, err);
}

static enum mix_rc write_pieces(struct mix_run *run, struct mix_err *err)
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

/* config.json as it travels when --dtype changes the weights that it speaks of. */
static enum mix_rc copy_config(struct mix_run *run, const struct mix_carried_file *c,
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

static enum mix_rc copy_carried(struct mix_run *run, const struct mix_carried_file *c,
                                const char *name, struct mix_err *err)
{
    enum { CHUNK = 256 << 10 };
    const struct mix_checkpoint *ckpt = run->job->ckpt;
    const struct mix_ckpt_side *said = mix_manifest_side(&ckpt->m, c->path);
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
static enum mix_rc copy_all_carried(struct mix_run *run, const char *folder, struct mix_err *err)
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
static enum mix_rc keep_origin(struct mix_run *run, struct mix_err *err)
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
static enum mix_rc put_index(struct mix_run *run, const char *name, const uint32_t *file_of,
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

static enum mix_rc put_new_index(struct mix_run *run, const char *name, bool whole_pieces,
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

static enum mix_rc finish_hf(struct mix_run *run, struct mix_err *err)
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

static enum mix_rc put_manifest(struct mix_run *run, struct mix_err *err)
{
    const struct mix_job *job = run->job;
    const struct mix_manifest *from = mix_run_source(job);
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

static enum mix_rc finish_shards(struct mix_run *run, struct mix_err *err)
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

enum mix_rc mix_run_describe(struct mix_run *run, struct mix_err *err)
{
    return run->job->to_hf ? finish_hf(run, err) : finish_shards(run, err);
}
