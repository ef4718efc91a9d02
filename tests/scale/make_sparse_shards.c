/*
 * make_sparse_shards - a mixckpt checkpoint of any size that takes next to no room.
 *
 *   make_sparse_shards SOURCE DST EP HSD TP hdf5|safetensors [--bare]
 *
 * The tensors are those of SOURCE, a checkpoint whose bytes are all zero (a sparse one,
 * see make_sparse.py); nothing but its headers is read. What is written is what `convert`
 * would write: the files have their headers and sizes and are otherwise holes, the
 * records say where the pieces lie, and all digests are right, because the hash of a
 * leaf of zeros is a constant. So every command can be tried on it.
 *
 * --bare leaves out what only bytes need: headers of files, their checksums and the leaf
 * hashes, which for terabytes are gigabytes. Enough for `inspect` and `plan`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/file.h"
#include "ckpt/digest_tree.h"
#include "reshard/execute.h"

enum { BATCH = 4096, LEVELS = 64 };

struct maker {
    const char *dst;
    bool bare;
    struct mix_target target;
    uint64_t *piece_offset; /* by piece */
    uint32_t *piece_file;
    unsigned char perfect[LEVELS][32]; /* roots of 1, 2, 4, ... whole leaves of zeros */
    struct mix_ckpt_side side[2];
};

static void hash_of_zeros(size_t len, unsigned char out[32])
{
    static const unsigned char zero[MIX_LEAF_BYTES];
    const struct mix_sha256_job job = { zero, len, out };

    mix_sha256_prefixed(0x00, &job, 1);
}

/* The root of n leaves that are all whole but for the last. */
static void root_of_zeros(const struct maker *maker, uint64_t n, const unsigned char last[32],
                          unsigned char root[32])
{
    unsigned level = 0;

    if (n < 2) {
        memcpy(root, last, 32);
        return;
    }
    while (UINT64_C(2) << level < n)
        level++;
    root_of_zeros(maker, n - (UINT64_C(1) << level), last, root);
    mix_sha256_node(maker->perfect[level], root, root);
}

static void digest_of_zeros(const struct maker *maker, struct mix_ckpt_tensor *t)
{
    uint64_t leaves = mix_leaf_count(t->bytes);
    unsigned char last[32], root[32];

    if (leaves) {
        hash_of_zeros((t->bytes - 1) % MIX_LEAF_BYTES + 1, last);
        root_of_zeros(maker, leaves, last, root);
    } else {
        mix_sha256("", 0, root);
    }
    mix_tensor_digest(t->dtype, t->rank, t->shape, root, t->digest);
}

static enum mix_rc write_file(struct maker *maker, const struct mix_group_file *file,
                              struct mix_err *err)
{
    struct mix_ckpt_file *said = &maker->target.m.file[file->id];
    struct mix_buf path = MIX_BUF_INIT;
    int fd = -1;
    enum mix_rc rc;

    said->bytes = file->bytes;
    if (maker->bare)
        return MIX_OK;
    said->crc64 = mix_crc64_zeros(mix_crc64(0, file->header.data, file->header.len),
                                  file->bytes - file->header.len);
    if (!(rc = mix_path_join(&path, maker->dst, file->name, err)) &&
        !(rc = mix_folder_make_parents(path.data, err)) &&
        !(rc = mix_file_open(path.data, &fd, err)) &&
        !(rc = mix_file_write(fd, path.data, 0, file->header.data, file->header.len, err)) &&
        !(rc = mix_file_resize(fd, path.data, file->bytes, err)))
        rc = mix_file_close(&fd, path.data, err);
    mix_buf_release(&path);
    return rc;
}

static void note_pieces(struct maker *maker, const struct mix_group *group)
{
    for (size_t i = 0; i < group->item_count; i++) {
        const struct mix_item *item = &group->item[i];
        const struct mix_ckpt_tensor *t = &maker->target.m.tensor[item->tensor];
        uint64_t row = t->cut.row_bytes ? item->begin / t->cut.row_bytes : 0;
        uint64_t piece = t->first_piece +
                         mix_cut_part_of_row(&t->cut, row) * t->cut.column_parts;

        for (uint32_t j = 0; j < item->part_count; j++) {
            const struct mix_part *part = &group->part[item->part_first + j];

            maker->piece_offset[piece + j] = part->offset;
            maker->piece_file[piece + j] = group->file[part->file].id;
        }
    }
}

static enum mix_rc write_files(struct maker *maker, struct mix_err *err)
{
    const struct mix_target *target = &maker->target;
    enum mix_rc rc;

    if ((rc = mix_new_array(&maker->piece_offset, target->m.piece_count, 8, err)) ||
        (rc = mix_new_array(&maker->piece_file, target->m.piece_count, 4, err)))
        return rc;
    for (size_t g = 0; g < target->group_count && !rc; g++) {
        struct mix_group group = MIX_GROUP_INIT;

        if (!(rc = target->build(target, g, &group, err)))
            note_pieces(maker, &group);
        for (size_t f = 0; f < group.file_count && !rc; f++)
            rc = write_file(maker, &group.file[f], err);
        mix_group_release(&group);
    }
    return rc;
}

/* A side file of records that are asked for one by one. */
static enum mix_rc write_side(struct maker *maker, struct mix_ckpt_side *side, const char *name,
                              size_t record_bytes, uint64_t count,
                              void (*record)(const struct maker *maker, uint64_t i,
                                             unsigned char *out),
                              struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    unsigned char *buf = NULL;
    struct mix_sha256 sha;
    int fd = -1;
    enum mix_rc rc;

    *side = (struct mix_ckpt_side){ .name = name, .bytes = count * record_bytes };
    mix_sha256_init(&sha);
    if ((rc = mix_path_join(&path, maker->dst, name, err)) ||
        (rc = mix_file_open(path.data, &fd, err)) ||
        (rc = mix_file_resize(fd, path.data, side->bytes, err)) ||
        (rc = mix_new(&buf, BATCH * record_bytes, err)))
        goto out;
    for (uint64_t at = 0; record && at < count && !rc; at += BATCH) {
        size_t n = (size_t)mix_min(BATCH, count - at);

        for (size_t i = 0; i < n; i++)
            record(maker, at + i, buf + i * record_bytes);
        mix_sha256_put(&sha, buf, n * record_bytes);
        rc = mix_file_write(fd, path.data, at * record_bytes, buf, n * record_bytes, err);
    }
    mix_sha256_end(&sha, side->sha256);
    if (!rc)
        rc = mix_file_close(&fd, path.data, err);
out:
    free(buf);
    mix_buf_release(&path);
    return rc;
}

static const struct mix_ckpt_tensor *tensor_of(const struct maker *maker, uint64_t number,
                                               bool by_leaf)
{
    const struct mix_manifest *m = &maker->target.m;
    size_t low = 0, high = m->tensor_count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        const struct mix_ckpt_tensor *t = &m->tensor[middle];

        if ((by_leaf ? t->first_leaf : t->first_piece) <= number)
            low = middle;
        else
            high = middle;
    }
    return &m->tensor[low];
}

static void piece_record(const struct maker *maker, uint64_t piece, unsigned char *out)
{
    const struct mix_ckpt_tensor *t = tensor_of(maker, piece, false);
    uint64_t k = piece - t->first_piece;

    mix_store_le(out, maker->piece_file[piece], 4);
    mix_store_le(out + 4, 0, 4);
    mix_store_le(out + 8, maker->piece_offset[piece], 8);
    mix_store_le(out + 16, mix_cut_piece_bytes(&t->cut, k / t->cut.column_parts,
                                               k % t->cut.column_parts), 8);
}

static void leaf_record(const struct maker *maker, uint64_t leaf, unsigned char *out)
{
    const struct mix_ckpt_tensor *t = tensor_of(maker, leaf, true);
    uint64_t begin = (leaf - t->first_leaf) * MIX_LEAF_BYTES;

    if (t->bytes - begin < MIX_LEAF_BYTES)
        hash_of_zeros(t->bytes - begin, out);
    else
        memcpy(out, maker->perfect[0], 32);
}

static enum mix_rc write_manifest(struct maker *maker, const struct mix_manifest *from,
                                  struct mix_err *err)
{
    struct mix_manifest *m = &maker->target.m;
    struct mix_buf path = MIX_BUF_INIT, text = MIX_BUF_INIT;
    enum mix_rc rc;

    for (size_t i = 0; i < m->tensor_count; i++)
        digest_of_zeros(maker, &m->tensor[i]);
    m->model = from->model;
    m->side = maker->side;
    m->side_count = 2;
    if (!(rc = mix_manifest_emit(m, &text, err)) &&
        !(rc = mix_path_join(&path, maker->dst, "mixckpt.json", err)))
        rc = mix_file_put(path.data, text.data, text.len, false, err);
    m->side = NULL;
    m->side_count = 0;
    mix_buf_release(&path);
    mix_buf_release(&text);
    return rc;
}

static enum mix_rc make(struct maker *maker, struct mix_job *job, struct mix_err *err)
{
    struct mix_checkpoint *ckpt = NULL;
    enum mix_rc rc;

    if ((rc = mix_checkpoint_open(job->src, NULL, &ckpt, err)))
        return rc;
    job->ckpt = ckpt;
    hash_of_zeros(MIX_LEAF_BYTES, maker->perfect[0]);
    for (size_t i = 1; i < LEVELS; i++)
        mix_sha256_node(maker->perfect[i - 1], maker->perfect[i - 1], maker->perfect[i]);
    if (!(rc = mix_job_target(job, &maker->target, err))) {
        const struct mix_manifest *m = &maker->target.m;

        if (!(rc = mix_folder_make(maker->dst, err)) && !(rc = write_files(maker, err)) &&
            !(rc = write_side(maker, &maker->side[0], "mixckpt.digests", 32, m->leaf_count,
                              maker->bare ? NULL : leaf_record, err)) &&
            !(rc = write_side(maker, &maker->side[1], "mixckpt.pieces", MIX_PIECE_RECORD_BYTES,
                              m->piece_count, piece_record, err)))
            rc = write_manifest(maker, &ckpt->m, err);
        printf("%zu tensors, %" PRIu64 " pieces in %zu files, %" PRIu64 " leaves, %" PRIu64
               " bytes\n", m->tensor_count, m->piece_count, m->file_count, m->leaf_count,
               maker->target.bytes);
        mix_target_release(&maker->target);
    }
    free(maker->piece_offset);
    free(maker->piece_file);
    mix_checkpoint_close(ckpt);
    return rc;
}

int main(int argc, char **argv)
{
    struct maker maker = { .bare = argc == 8 && !strcmp(argv[7], "--bare") };
    struct mix_job job = { .jobs = 1 };
    struct mix_err err = { 0 };

    if (argc != 7 && !maker.bare) {
        fprintf(stderr, "usage: make_sparse_shards SOURCE DST EP HSD TP hdf5|safetensors "
                "[--bare]\n");
        return 2;
    }
    job.src = argv[1];
    job.dst = maker.dst = argv[2];
    job.mesh = (struct mix_mesh){ strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
                                  strtoull(argv[5], NULL, 10) };
    job.container = strcmp(argv[6], "hdf5") ? MIX_SAFETENSORS : MIX_HDF5;
    if (make(&maker, &job, &err)) {
        fprintf(stderr, "make_sparse_shards: %s\n", err.text);
        return 3;
    }
    return 0;
}
