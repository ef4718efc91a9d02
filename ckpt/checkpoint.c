/* checkpoint.c - find out what a URL holds, open it, read tensors from it. */
#include "ckpt/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/json.h"
#include "ckpt/checkpoint_open.h"
#include "ckpt/digest_tree.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/format/tensor.h"
#include "ckpt/names/families.h"
#include "ckpt/store/store.h"

const char *mix_form_name(enum mix_form form)
{
    static const char *const name[] = {
        [MIX_FORM_HF] = "hf",
        [MIX_FORM_MIXCKPT] = "mixckpt",
        [MIX_FORM_SAFETENSORS] = "safetensors",
        [MIX_FORM_HDF5] = "hdf5",
    };

    return name[form];
}

/* ---- opening ---- */

enum mix_rc mix_opening_fault(struct mix_opening *o, const char *file, enum mix_rc rc,
                              struct mix_err *err)
{
    if (rc && o->defects)
        rc = mix_defects_take(o->defects, file, rc, err);
    return rc ? mix_err_file(err, file) : MIX_OK;
}

bool mix_has_ending(const char *name, const char *ending)
{
    size_t len = strlen(name), n = strlen(ending);

    return len >= n && !strcmp(name + len - n, ending);
}

bool mix_is_weight_file(const char *name)
{
    static const char *const ending[] = { ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5" };

    for (size_t i = 0; i < MIX_ARRAY_LEN(ending); i++)
        if (mix_has_ending(name, ending[i]))
            return true;
    return false;
}

bool mix_is_carried_name(const char *name)
{
    /* The last three: hf/.weights/, <dst>.partial/job/, and what makes a folder ours. */
    static const char *const taken[] = { "model.safetensors.index.json", ".weights", "job",
                                         "mixckpt.json" };

    for (size_t i = 0; i < MIX_ARRAY_LEN(taken); i++)
        if (!strcmp(name, taken[i]))
            return false;
    return !strchr(name, '/') && !mix_is_weight_file(name);
}

enum mix_rc mix_opening_config(struct mix_opening *o, const char *path, const char *text,
                               size_t len, struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_json_doc *doc = NULL;
    struct mix_buf canonical = MIX_BUF_INIT;
    enum mix_rc rc;

    if ((rc = mix_json_parse(text, len, &doc, err)))
        goto out;
    if (mix_json_kind(mix_json_root(doc)) != MIX_JSON_OBJECT) {
        rc = mix_fail(err, MIX_BAD_FORMAT, "is not a JSON object");
        goto out;
    }
    if ((rc = mix_json_emit(mix_json_root(doc), &canonical, err)) ||
        (rc = mix_geometry_parse(text, len, &ckpt->geometry, err)) ||
        (rc = mix_arena_text(&ckpt->m.arena, canonical.data, canonical.len, &ckpt->m.model, err)))
        goto out;
out:
    if (rc)
        memset(&ckpt->geometry, 0, sizeof ckpt->geometry);
    mix_buf_release(&canonical);
    mix_json_free(doc);
    return mix_opening_fault(o, path, rc, err);
}

static enum mix_rc add_tensor(struct mix_opening *o, const struct mix_tensor *from,
                              struct mix_err *err)
{
    struct mix_arena *arena = &o->ckpt->m.arena;
    struct mix_ckpt_tensor *t;
    uint64_t *shape;
    enum mix_rc rc;

    if (from->rank > MIX_MAX_RANK)
        return mix_fail(err, MIX_UNSUPPORTED, "tensor '%s' has %u dimensions, at most %d work",
                        from->name, from->rank, MIX_MAX_RANK);
    if ((rc = mix_grow(&o->tensor, &o->tensor_capacity, o->tensor_count, sizeof *t, err)))
        return rc;
    t = &o->tensor[o->tensor_count];
    memset(t, 0, sizeof *t);
    if ((rc = mix_arena_text(arena, from->name, strlen(from->name), &t->name, err)) ||
        (rc = mix_arena_new(arena, &shape, from->rank * sizeof *shape, err)))
        return rc;
    if (from->rank)
        memcpy(shape, from->shape, from->rank * sizeof *shape);
    t->dtype = from->dtype;
    t->rank = from->rank;
    t->shape = shape;
    t->bytes = from->end - from->begin;
    t->offset = from->begin;
    t->file = (uint32_t)o->file_count;
    mix_cut_init(&t->cut, t->dtype, t->rank, t->shape, 1, 1, 1);
    o->tensor_count++;
    return MIX_OK;
}

enum mix_rc mix_opening_add(struct mix_opening *o, const char *file, uint64_t file_bytes,
                            const struct mix_tensor *tensor, size_t count,
                            struct mix_err *err)
{
    struct mix_ckpt_file *f;
    enum mix_rc rc;

    if ((rc = mix_grow(&o->file, &o->file_capacity, o->file_count, sizeof *f, err)))
        return rc;
    f = &o->file[o->file_count];
    memset(f, 0, sizeof *f);
    f->bytes = file_bytes;
    if ((rc = mix_arena_text(&o->ckpt->m.arena, file, strlen(file), &f->name, err)))
        return rc;
    for (size_t i = 0; i < count; i++)
        if ((rc = add_tensor(o, &tensor[i], err)))
            return rc;
    o->file_count++;
    return MIX_OK;
}

static int by_name_then_file(const void *pa, const void *pb)
{
    const struct mix_ckpt_tensor *a = pa, *b = pb;
    int order = strcmp(a->name, b->name);

    return order ? order : a->file < b->file ? -1 : a->file > b->file;
}

/* Sort what was collected, refuse names that stand twice, and hand it to the manifest. */
static enum mix_rc settle(struct mix_opening *o, struct mix_err *err)
{
    struct mix_manifest *m = &o->ckpt->m;
    size_t kept = 0;
    enum mix_rc rc;

    if ((rc = mix_arena_new(&m->arena, &m->tensor, o->tensor_count * sizeof *m->tensor, err)) ||
        (rc = mix_arena_new(&m->arena, &m->file, o->file_count * sizeof *m->file, err)))
        return rc;
    if (o->file_count)
        memcpy(m->file, o->file, o->file_count * sizeof *m->file);
    m->file_count = o->file_count;
    if (o->tensor_count)
        qsort(o->tensor, o->tensor_count, sizeof *o->tensor, by_name_then_file);
    for (size_t i = 0; i < o->tensor_count; i++) {
        const struct mix_ckpt_tensor *t = &o->tensor[i];

        if (kept && !strcmp(m->tensor[kept - 1].name, t->name)) {
            rc = mix_fail(err, MIX_OVERLAP, "tensor '%s' stands in %s too", t->name,
                          m->file[m->tensor[kept - 1].file].name);
            mix_err_tensor(err, t->name, 0, t->bytes);
            if ((rc = mix_opening_fault(o, m->file[t->file].name, rc, err)))
                return rc;
            continue;
        }
        m->tensor[kept++] = *t;
    }
    m->tensor_count = kept;
    return mix_manifest_number(m, err);
}

/* What a folder may hold, in the order in which it is looked for. */
static const struct mark {
    const char *path;
    enum { UNFINISHED, OURS, HUGGING_FACE, UNREAD, ORPHANS } is;
    const char *words; /* why it is not read */
} marks[] = {
    { "job/job.json", UNFINISHED,
      "is the unfinished work of a job, not a checkpoint; run the job again" },
    { "mixckpt.json", OURS, NULL },
    { "model.safetensors.index.json", HUGGING_FACE, NULL },
    { "model.safetensors", HUGGING_FACE, NULL },
    { ".metadata", UNREAD, "is a torch.distributed.checkpoint folder; this version does not "
                           "read that format" },
    { "params.json", UNREAD, "is a folder in Mistral's own format; this version does not read "
                             "that format" },
    { "model", ORPHANS, "holds shards under model/ and no manifest" },
};

static enum mix_rc find_mark(struct mix_store *store, const struct mark **out,
                             struct mix_err *err)
{
    struct mix_stat st;
    enum mix_rc rc;

    for (*out = marks; *out < marks + MIX_ARRAY_LEN(marks); ++*out) {
        rc = mix_store_stat(store, (*out)->path, &st, err);
        if (!rc && ((*out)->is == ORPHANS) == st.is_folder)
            return MIX_OK;
        if (rc && rc != MIX_NOT_FOUND)
            return mix_err_file(err, (*out)->path);
    }
    *out = NULL;
    return MIX_OK;
}

/* A single file: named as such, so its ending and its first bytes decide. */
static enum mix_rc open_file(struct mix_opening *o, const char *name, struct mix_err *err)
{
    static const unsigned char hdf5_signature[8] = { 0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n' };
    unsigned char first[8];
    enum mix_rc rc = mix_store_read(o->ckpt->store, name, 0, first, 8, err);

    if (rc && rc != MIX_TRUNCATED)
        return mix_err_file(err, name);
    if (!rc && !memcmp(first, hdf5_signature, 8))
        return mix_opening_h5(o, name, err);
    if (mix_has_ending(name, ".h5"))
        return mix_opening_h5(o, name, err); /* says what is wrong with it */
    if (mix_has_ending(name, ".safetensors"))
        return mix_opening_hf(o, name, err);
    if (!strcmp(name, "mixckpt.json"))
        return mix_opening_mixckpt(o, err);
    if (!strcmp(name, "model.safetensors.index.json"))
        return mix_opening_hf(o, NULL, err);
    return mix_opening_fault(o, name,
                             mix_fail(err, MIX_BAD_FORMAT,
                                      "neither a .safetensors nor an HDF5 file, and the name "
                                      "of no checkpoint's index"),
                             err);
}

static enum mix_rc open_folder(struct mix_opening *o, const char *url, struct mix_err *err)
{
    const struct mark *mark;
    enum mix_rc rc;

    if ((rc = find_mark(o->ckpt->store, &mark, err)))
        return rc;
    if (mark && mark->is == OURS)
        return mix_opening_mixckpt(o, err);
    if (mark && mark->is == HUGGING_FACE)
        return mix_opening_hf(o, NULL, err);
    if (mark && mark->is == UNREAD)
        return mix_fail(err, MIX_UNSUPPORTED, "%s: %s", url, mark->words);
    if (mark && mark->is == UNFINISHED)
        rc = mix_fail(err, MIX_BAD_FORMAT, "%s %s", url, mark->words);
    else
        rc = mix_fail(err, MIX_NOT_FOUND, "%s %s", url,
                      mark ? mark->words
                           : "holds no checkpoint: neither mixckpt.json nor "
                             "model.safetensors[.index.json]");
    return mix_opening_fault(o, "mixckpt.json", rc, err);
}

/*
 * Nothing is at `url`: while a checkpoint is replaced on a file system that cannot
 * exchange folders, there is a moment in which that is so.
 */
static enum mix_rc point_at_copies(const char *url, struct mix_err *err)
{
    char old[4096], partial[4096];
    struct mix_store *store;
    struct mix_err ignored;

    if (snprintf(old, sizeof old, "%s.old", url) >= (int)sizeof old ||
        snprintf(partial, sizeof partial, "%s.partial", url) >= (int)sizeof partial ||
        mix_store_open(old, &store, &ignored))
        return MIX_NOT_FOUND;
    mix_store_close(store);
    return mix_fail(err, MIX_NOT_FOUND, "%s: there is no such file or folder, but it was about to "
                    "be replaced: the old checkpoint is whole at %s, the new one at %s", url, old,
                    partial);
}

enum mix_rc mix_checkpoint_open_in(struct mix_store *store, struct mix_defects *defects,
                                   struct mix_checkpoint **out, struct mix_err *err)
{
    struct mix_opening o = { .defects = defects };
    const char *file = mix_store_file(store); /* the store is the folder that it lies in */
    struct mix_checkpoint *ckpt = NULL;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&ckpt, sizeof *ckpt, err))) {
        mix_store_close(store);
        return rc;
    }
    mix_texts_init(&ckpt->warnings);
    ckpt->store = store;
    o.ckpt = ckpt;
    rc = file ? open_file(&o, file, err) : open_folder(&o, mix_store_url(store), err);
    if (!rc && ckpt->form != MIX_FORM_MIXCKPT)
        rc = settle(&o, err);
    if (!rc && ckpt->form == MIX_FORM_HF)
        rc = mix_opening_hf_index(&o, err);
    free(o.tensor);
    free(o.file);
    if (rc)
        mix_checkpoint_close(ckpt);
    else
        *out = ckpt;
    return rc;
}

enum mix_rc mix_checkpoint_open(const char *url, struct mix_defects *defects,
                                struct mix_checkpoint **out, struct mix_err *err)
{
    struct mix_store *store;
    enum mix_rc rc = mix_store_open(url, &store, err);

    *out = NULL;
    if (rc)
        return rc == MIX_NOT_FOUND ? point_at_copies(url, err) : rc;
    return mix_checkpoint_open_in(store, defects, out, err);
}

void mix_checkpoint_close(struct mix_checkpoint *ckpt)
{
    if (!ckpt)
        return;
    for (size_t i = 0; i < ckpt->origin_count; i++)
        mix_safetensors_close(ckpt->origin[i].header);
    mix_texts_release(&ckpt->warnings);
    mix_manifest_release(&ckpt->m);
    mix_store_close(ckpt->store);
    free(ckpt);
}

/* ---- the model's table ---- */

/* A config.json may imply 10^10 tensors; so many that are missing say enough. */
enum { MOST_MISSING = 10000 };

struct model_check {
    struct mix_checkpoint *ckpt;
    struct mix_defects *defects;
    size_t missing;
};

static enum mix_rc model_fault(struct model_check *check, const char *file, enum mix_rc rc,
                               struct mix_err *err)
{
    return check->defects ? mix_defects_take(check->defects, file, rc, err) : rc;
}

static enum mix_rc check_expected(void *context, const char *name,
                                  const struct mix_family_tensor *tensor, struct mix_err *err)
{
    struct model_check *check = context;
    struct mix_checkpoint *ckpt = check->ckpt;
    const struct mix_ckpt_tensor *t = mix_manifest_find(&ckpt->m, name);
    uint64_t shape[2];
    size_t rank = mix_family_shape(tensor, &ckpt->geometry, shape);
    char found[MIX_SHAPE_TEXT], wanted[MIX_SHAPE_TEXT];
    enum mix_rc rc;

    if (!t) {
        rc = mix_fail(err, MIX_NOT_FOUND, "tensor '%s' is missing; config.json implies it with "
                      "shape %s", name, mix_shape_text(rank, shape, wanted));
        mix_err_tensor(err, name, 0, 0);
        if ((rc = model_fault(check, "", rc, err)))
            return rc;
        return ++check->missing < MOST_MISSING ? MIX_OK : MIX_NOT_FOUND; /* ends the walk */
    }
    if (t->rank == rank && !memcmp(t->shape, shape, rank * sizeof *shape))
        return MIX_OK;
    rc = mix_fail(err, MIX_MISMATCH, "tensor '%s' has shape %s; config.json implies %s", name,
                  mix_shape_text(t->rank, t->shape, found), mix_shape_text(rank, shape, wanted));
    mix_err_tensor(err, name, 0, t->bytes);
    return model_fault(check, ckpt->form == MIX_FORM_MIXCKPT ? "" : ckpt->m.file[t->file].name,
                       rc, err);
}

/* Whether a rule of the family covers this tensor, in the range that config.json says. */
static bool is_known(const struct mix_checkpoint *ckpt, const struct mix_ckpt_tensor *t)
{
    const struct mix_geometry *g = &ckpt->geometry;
    const char *suffix;
    struct mix_name_match match;

    mix_family_match(g->family, t->name, mix_name_split(t->name, &suffix), &match);
    return match.tensor && (!match.has_layer || match.layer < g->layers) &&
           (!match.has_expert || match.expert < g->experts);
}

enum mix_rc mix_checkpoint_check_model(struct mix_checkpoint *ckpt,
                                       struct mix_defects *defects, struct mix_err *err)
{
    const size_t named = 10; /* unknown tensors that are named one by one */
    struct model_check check = { ckpt, defects, 0 };
    size_t unknown = 0;
    enum mix_rc rc;

    if (!ckpt->geometry.family)
        return MIX_OK;
    if ((rc = mix_family_walk(&ckpt->geometry, check_expected, &check, err)) &&
        check.missing < MOST_MISSING)
        return rc;
    for (size_t i = 0; i < ckpt->m.tensor_count; i++)
        if (!is_known(ckpt, &ckpt->m.tensor[i]) && ++unknown <= named &&
            (rc = mix_texts_add(&ckpt->warnings, err,
                                "no rule knows the tensor '%s'; it is carried along, cut by rows",
                                ckpt->m.tensor[i].name)))
            return rc;
    if (unknown > named)
        return mix_texts_add(&ckpt->warnings, err, "and %zu more tensors that no rule knows",
                             unknown - named);
    return MIX_OK;
}

/* ---- reading ---- */

enum {
    SCRATCH_BYTES = 256 << 10,
    WINDOW_RECORDS = 2048,
    AHEAD_BYTES = 64 << 10,
    AHEAD_SMALL = 8 << 10, /* what is larger is read by itself */
};

enum mix_rc mix_reader_init(struct mix_reader *reader, const struct mix_checkpoint *ckpt,
                            struct mix_err *err)
{
    enum mix_rc rc;

    memset(reader, 0, sizeof *reader);
    reader->ckpt = ckpt;
    if ((rc = mix_new(&reader->scratch, SCRATCH_BYTES, err)) ||
        (rc = mix_new(&reader->ahead, AHEAD_BYTES, err)) ||
        (rc = mix_new(&reader->record, WINDOW_RECORDS * MIX_PIECE_RECORD_BYTES, err)))
        mix_reader_release(reader);
    return rc;
}

void mix_reader_release(struct mix_reader *reader)
{
    free(reader->scratch);
    free(reader->ahead);
    free(reader->record);
    memset(reader, 0, sizeof *reader);
}

/* The record of a piece, from the window; the window moves to begin with it if need be. */
static enum mix_rc find_record(struct mix_reader *reader, uint64_t piece,
                               const unsigned char **record, struct mix_err *err)
{
    const char *path = "mixckpt.pieces";
    uint64_t total = reader->ckpt->m.piece_count;
    enum mix_rc rc;

    if (piece < reader->record_first || piece - reader->record_first >= reader->record_count) {
        uint64_t count = mix_min(WINDOW_RECORDS, total - piece);

        reader->record_count = 0;
        if ((rc = mix_store_read(reader->ckpt->store, path, piece * MIX_PIECE_RECORD_BYTES,
                                 reader->record, count * MIX_PIECE_RECORD_BYTES, err)))
            return mix_err_file(err, path);
        reader->record_first = piece;
        reader->record_count = count;
    }
    *record = reader->record + (piece - reader->record_first) * MIX_PIECE_RECORD_BYTES;
    return MIX_OK;
}

enum mix_rc mix_reader_place(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                             uint64_t part, struct mix_place *out, struct mix_err *err)
{
    const struct mix_manifest *m = &reader->ckpt->m;
    const unsigned char *record = NULL;
    uint64_t want = mix_cut_piece_bytes(&t->cut, part / t->cut.column_parts,
                                        part % t->cut.column_parts);
    enum mix_rc rc;

    if (reader->ckpt->form != MIX_FORM_MIXCKPT) {
        *out = (struct mix_place){ t->file, t->offset, t->bytes };
        return MIX_OK;
    }
    if ((rc = find_record(reader, t->first_piece + part, &record, err)))
        return rc;
    *out = (struct mix_place){ (uint32_t)mix_load_le(record, 4), mix_load_le(record + 8, 8),
                               mix_load_le(record + 16, 8) };
    if (mix_load_le(record + 4, 4) || out->file >= m->file_count || out->bytes != want ||
        out->offset > m->file[out->file].bytes ||
        out->bytes > m->file[out->file].bytes - out->offset) {
        mix_fail(err, MIX_BAD_FORMAT,
                 "record %" PRIu64 " (tensor '%s', piece %" PRIu64 "): %" PRIu64
                 " bytes at %" PRIu64 " of file %u; %" PRIu64 " bytes in one of %zu files "
                 "were expected", t->first_piece + part, t->name, part, out->bytes, out->offset,
                 out->file, want, m->file_count);
        mix_err_tensor(err, t->name, 0, t->bytes);
        return mix_err_file(err, "mixckpt.pieces");
    }
    return MIX_OK;
}

/*
 * Bytes of a weight file. Ten thousand small tensors that stand side by side are not ten
 * thousand system calls: a small read that goes on near where the last one ended fetches
 * what follows too. If that fails, the bytes that are wanted may still be readable.
 */
static enum mix_rc read_file(struct mix_reader *reader, uint32_t file, uint64_t offset,
                             void *buf, uint64_t len, struct mix_err *err)
{
    const struct mix_checkpoint *ckpt = reader->ckpt;
    const struct mix_ckpt_file *f = &ckpt->m.file[file];
    bool near = file == reader->ahead_file && offset >= reader->last_end &&
                offset - reader->last_end < AHEAD_BYTES - AHEAD_SMALL;
    struct mix_err ignored;

    if (file != reader->ahead_file)
        reader->ahead_end = reader->ahead_begin;
    reader->ahead_file = file;
    reader->last_end = offset + len;
    if (len > AHEAD_SMALL)
        return mix_store_read(ckpt->store, f->name, offset, buf, len, err);
    if (near && (offset < reader->ahead_begin || offset + len > reader->ahead_end) &&
        offset < f->bytes) {
        uint64_t window = mix_min(AHEAD_BYTES, f->bytes - offset);

        reader->ahead_begin = reader->ahead_end = offset;
        if (!mix_store_read(ckpt->store, f->name, offset, reader->ahead, window, &ignored))
            reader->ahead_end = offset + window;
    }
    if (offset < reader->ahead_begin || offset + len > reader->ahead_end)
        return mix_store_read(ckpt->store, f->name, offset, buf, len, err);
    memcpy(buf, reader->ahead + (offset - reader->ahead_begin), len);
    return MIX_OK;
}

/* `len` bytes at `at` within piece `part`, which are bytes `begin`... of the tensor. */
static enum mix_rc read_piece(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                              uint64_t part, uint64_t at, void *buf, uint64_t len,
                              uint64_t begin, struct mix_err *err)
{
    struct mix_place place;
    const char *name;
    enum mix_rc rc;

    if ((rc = mix_reader_place(reader, t, part, &place, err)))
        return rc;
    name = reader->ckpt->m.file[place.file].name;
    reader->bytes_read += len;
    if (!(rc = read_file(reader, place.file, place.offset + at, buf, len, err)))
        return MIX_OK;
    mix_err_at(err, "tensor '%s', bytes [%" PRIu64 ", %" PRIu64 ")", t->name, begin,
               begin + len);
    mix_err_tensor(err, t->name, begin, begin + len);
    return mix_err_file(err, name);
}

/*
 * Columns are cut: a row lies in several pieces. Whole rows are read as blocks of
 * rows, one block a piece, and woven together; what is less than a row, run by run.
 */
static enum mix_rc read_woven(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                              uint64_t begin, uint64_t end, unsigned char *buf,
                              struct mix_err *err)
{
    const struct mix_cut *cut = &t->cut;
    uint64_t row_begin, row_end, column_begin, column_end;
    enum mix_rc rc;

    for (uint64_t at = begin; at < end;) {
        uint64_t row = at / cut->row_bytes, in_row = at % cut->row_bytes;
        uint64_t i = mix_cut_part_of_row(cut, row);
        uint64_t rows = (end - at) / cut->row_bytes;
        uint64_t first = in_row, last = cut->row_bytes;

        mix_cut_rows(cut, i, &row_begin, &row_end);
        rows = mix_min(mix_min(rows, row_end - row), SCRATCH_BYTES / cut->column_chunk);
        if (in_row || !rows) {
            rows = 1;
            last = mix_min(cut->row_bytes, in_row + (end - at));
        }
        for (uint64_t j = 0; j < cut->column_parts; j++) {
            mix_cut_columns(cut, j, &column_begin, &column_end);

            uint64_t from = mix_max(first, column_begin), to = mix_min(last, column_end);
            uint64_t width = column_end - column_begin;
            uint64_t in_piece = (row - row_begin) * width + (from - column_begin);
            unsigned char *target = buf + (at - begin) + (from - first);

            if (from >= to)
                continue;
            if (rows == 1) {
                rc = read_piece(reader, t, i * cut->column_parts + j, in_piece, target,
                                to - from, at + (from - first), err);
                if (rc)
                    return rc;
                continue;
            }
            if ((rc = read_piece(reader, t, i * cut->column_parts + j, in_piece,
                                 reader->scratch, rows * width, at, err)))
                return rc;
            for (uint64_t r = 0; r < rows; r++)
                memcpy(target + r * cut->row_bytes, reader->scratch + r * width, width);
        }
        at += rows == 1 ? last - first : rows * cut->row_bytes;
    }
    return MIX_OK;
}

enum mix_rc mix_reader_read(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                            uint64_t begin, uint64_t end, void *buf, struct mix_err *err)
{
    const struct mix_cut *cut = &t->cut;
    uint64_t row_begin, row_end;
    enum mix_rc rc;

    if (cut->column_parts > 1)
        return read_woven(reader, t, begin, end, buf, err);
    for (uint64_t at = begin; at < end;) {
        uint64_t i = mix_cut_part_of_row(cut, at / cut->row_bytes);

        mix_cut_rows(cut, i, &row_begin, &row_end);

        uint64_t piece_begin = row_begin * cut->row_bytes;
        uint64_t stop = mix_min(end, row_end * cut->row_bytes);

        if ((rc = read_piece(reader, t, i, at - piece_begin, (char *)buf + (at - begin),
                             stop - at, at, err)))
            return rc;
        at = stop;
    }
    return MIX_OK;
}

enum mix_rc mix_reader_blame(struct mix_reader *reader, const struct mix_ckpt_tensor *t,
                             uint64_t leaf, bool (*is_bad)(void *context, uint32_t file),
                             void *context, uint32_t *file, struct mix_err *err)
{
    const struct mix_cut *cut = &t->cut;
    uint64_t begin = leaf * MIX_LEAF_BYTES, end = mix_min(begin + MIX_LEAF_BYTES, t->bytes);
    uint64_t first = mix_cut_part_of_row(cut, begin / cut->row_bytes);
    uint64_t last = mix_cut_part_of_row(cut, (end - 1) / cut->row_bytes);
    struct mix_place place;
    enum mix_rc rc;

    for (uint64_t part = first * cut->column_parts; part < (last + 1) * cut->column_parts;
         part++) {
        if ((rc = mix_reader_place(reader, t, part, &place, err)))
            return rc;
        if (part == first * cut->column_parts)
            *file = place.file;
        if (is_bad(context, place.file)) {
            *file = place.file;
            break;
        }
    }
    return MIX_OK;
}
