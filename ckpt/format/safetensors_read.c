/*
 * safetensors_read.c - the header of a .safetensors file, checked whole.
 *
 *   length prefix -> JSON -> one tensor an entry -> sorted -> no hole, no overlap
 *
 * The rules are those of the reference implementation, and a few more (see the
 * header). Offsets in the JSON count from the data section; they become absolute as
 * they are read, and from then on nobody adds anything.
 */
#include "ckpt/format/safetensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/json.h"
#include "ckpt/store/store.h"

enum {
    PREFIX_BYTES = 8,
    FIRST_BYTES = 512,      /* read with the prefix: the whole header of a small file */
    MAX_HEADER = 100000000, /* the reference's own limit for N */
    MAX_WARNINGS = 100,     /* a hostile header has a million oddities; nobody reads them */
};

struct mix_safetensors {
    char *header; /* prefix and JSON, as they stand in the file */
    size_t header_len;
    uint64_t file_bytes;
    struct mix_tensor *tensor;
    size_t count;
    struct mix_arena arena; /* names, shapes, metadata, warnings */
    const char **metadata;  /* key, value, key, value, ... */
    size_t metadata_count;  /* of pairs */
    const char **warning;
    size_t warning_count, oddity_count;
};

typedef unsigned long long ull; /* what printf's %llu takes */

/* ---- names ---- */

/* Only optimizer state has an '@', and only as one of these endings. */
static bool is_suffix(const char *text)
{
    return !strcmp(text, "@exp_avg") || !strcmp(text, "@exp_avg_sq") ||
           !strcmp(text, "@master");
}

enum mix_rc mix_tensor_name_check(const char *name, struct mix_err *err)
{
    size_t left = strlen(name), len;

    for (const char *p = name; left; p += len, left -= len) {
        unsigned char c = (unsigned char)*p;

        len = c < 0x80 ? 1 : mix_utf8_sequence(p, left);
        if (!len)
            return mix_fail(err, MIX_BAD_FORMAT, "the tensor name '%s' is not UTF-8", name);
        if (c < 0x20 || c == 0x7f)
            return mix_fail(err, MIX_BAD_FORMAT,
                            "the tensor name '%s' holds the control character 0x%02x", name,
                            c);
        if (c == '@')
            return is_suffix(p) ? MIX_OK
                : mix_fail(err, MIX_BAD_FORMAT, "the tensor name '%s' holds an '@' that does "
                           "not begin @exp_avg, @exp_avg_sq or @master at its end", name);
    }
    return MIX_OK;
}

/* ---- oddities ---- */

/* How much of `text` is whole characters: a name that was cut may end within one. */
static size_t whole_characters(const char *text)
{
    size_t at = 0, len = strlen(text), step;

    while (at < len && (step = mix_utf8_sequence(text + at, len - at)))
        at += step;
    return at;
}

static enum mix_rc warn(struct mix_safetensors *st, struct mix_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static enum mix_rc warn(struct mix_safetensors *st, struct mix_err *err, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    enum mix_rc rc;

    if (st->oddity_count++ >= MAX_WARNINGS)
        return MIX_OK; /* counted, and summed up by end_warnings() */
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (len < 0)
        return mix_fail(err, MIX_BAD_FORMAT, "cannot format '%s'", fmt);
    /* Room for all of them, the sum and the NULL behind them, at the first. */
    if (!st->warning && (rc = mix_arena_new(&st->arena, &st->warning,
                                            (MAX_WARNINGS + 2) * sizeof *st->warning, err)))
        return rc;
    return mix_arena_text(&st->arena, text, whole_characters(text),
                          &st->warning[st->warning_count++], err);
}

static enum mix_rc end_warnings(struct mix_safetensors *st, struct mix_err *err)
{
    char text[64];

    if (st->oddity_count <= MAX_WARNINGS)
        return MIX_OK;
    snprintf(text, sizeof text, "and %zu more like these", st->oddity_count - MAX_WARNINGS);
    return mix_arena_text(&st->arena, text, strlen(text),
                          &st->warning[st->warning_count++], err);
}

/* ---- one entry ---- */

/* The three fields of an entry, wherever they stood. */
struct fields {
    const struct mix_json *dtype, *shape, *offsets;
};

static enum mix_rc find_in_object(struct mix_safetensors *st, const char *name,
                                  const struct mix_json *entry, struct fields *out,
                                  struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    for (const struct mix_json *v = mix_json_first(entry); v && !rc; v = mix_json_next(v)) {
        const char *key = mix_json_key(v);

        if (!strcmp(key, "dtype"))
            out->dtype = v;
        else if (!strcmp(key, "shape"))
            out->shape = v;
        else if (!strcmp(key, "data_offsets"))
            out->offsets = v;
        else
            rc = warn(st, err, "unknown field '%s' of tensor '%s'", key, name);
    }
    return rc;
}

/* ["F32",[2],[0,8]]: serde reads a struct from an array too, so such files exist. */
static enum mix_rc find_in_array(struct mix_safetensors *st, const char *name,
                                 const struct mix_json *entry, struct fields *out,
                                 struct mix_err *err)
{
    size_t count = mix_json_count(entry);

    if (count != 3)
        return mix_fail(err, MIX_BAD_FORMAT,
                        "tensor '%s' is an array of %zu values; 3 were expected", name, count);
    out->dtype = mix_json_first(entry);
    out->shape = mix_json_next(out->dtype);
    out->offsets = mix_json_next(out->shape);
    return warn(st, err, "tensor '%s' is written as an array", name);
}

static enum mix_rc find_fields(struct mix_safetensors *st, const char *name,
                               const struct mix_json *entry, struct fields *out,
                               struct mix_err *err)
{
    enum mix_rc rc;

    *out = (struct fields){ 0 };
    if (mix_json_kind(entry) == MIX_JSON_OBJECT)
        rc = find_in_object(st, name, entry, out, err);
    else if (mix_json_kind(entry) == MIX_JSON_ARRAY)
        rc = find_in_array(st, name, entry, out, err);
    else
        rc = mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' is no object", name);
    if (rc)
        return rc;
    const char *missing = !out->dtype ? "dtype" : !out->shape ? "shape"
                        : !out->offsets ? "data_offsets" : NULL;
    return missing ? mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' has no %s", name, missing)
                   : MIX_OK;
}

/* `likely` is the dtype of the entry before, as most are: the search is long. */
static enum mix_rc read_dtype(const struct mix_json *value, enum mix_dtype likely,
                              struct mix_tensor *t, struct mix_err *err)
{
    const char *text = mix_json_string(value);

    if (!text)
        return mix_fail(err, MIX_BAD_FORMAT, "the dtype of tensor '%s' is no string", t->name);
    t->dtype = likely;
    if (!strcmp(text, mix_dtype_name(likely)))
        return MIX_OK;
    if (!mix_dtype_find(text, &t->dtype))
        return mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' has the unknown dtype '%s'",
                        t->name, text);
    return MIX_OK;
}

static enum mix_rc read_shape(struct mix_safetensors *st, const struct mix_json *value,
                              struct mix_tensor *t, struct mix_err *err)
{
    size_t rank = mix_json_count(value);
    uint64_t *shape;
    enum mix_rc rc;

    if (mix_json_kind(value) != MIX_JSON_ARRAY)
        return mix_fail(err, MIX_BAD_FORMAT, "the shape of tensor '%s' is no array", t->name);
    if (rank > MIX_MAX_RANK)
        return mix_fail(err, MIX_UNSUPPORTED, "tensor '%s' has %zu dimensions; at most %d "
                        "are supported", t->name, rank, MIX_MAX_RANK);
    t->rank = (uint32_t)rank;
    if (!rank)
        return MIX_OK;
    if ((rc = mix_arena_new(&st->arena, &shape, rank * sizeof *shape, err)))
        return rc;
    t->shape = shape;
    for (const struct mix_json *v = mix_json_first(value); v; v = mix_json_next(v))
        if (!mix_json_u64(v, shape++))
            return mix_fail(err, MIX_BAD_FORMAT, "the shape of tensor '%s' holds what is no "
                            "integer of 64 bits without a sign", t->name);
    return MIX_OK;
}

static enum mix_rc read_offsets(const struct mix_json *value, uint64_t data_start,
                                struct mix_tensor *t, struct mix_err *err)
{
    const struct mix_json *begin = mix_json_first(value);
    const struct mix_json *end = begin ? mix_json_next(begin) : NULL;

    if (mix_json_kind(value) != MIX_JSON_ARRAY || !end || mix_json_next(end) ||
        !mix_json_u64(begin, &t->begin) || !mix_json_u64(end, &t->end))
        return mix_fail(err, MIX_BAD_FORMAT, "the data_offsets of tensor '%s' are not two "
                        "integers of 64 bits without a sign", t->name);
    if (t->end < t->begin)
        return mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' has data_offsets %llu..%llu, which "
                        "end before they begin", t->name, (ull)t->begin, (ull)t->end);
    if (!mix_add(t->begin, data_start, &t->begin) || !mix_add(t->end, data_start, &t->end))
        return mix_fail(err, MIX_BAD_FORMAT, "the data_offsets of tensor '%s' pass 2^64",
                        t->name);
    return MIX_OK;
}

static enum mix_rc check_bytes(const struct mix_tensor *t, struct mix_err *err)
{
    uint64_t bytes;
    enum mix_rc rc = mix_dtype_bytes(t->dtype, t->rank, t->shape, &bytes, err);

    if (rc) {
        mix_err_at(err, "tensor '%s'", t->name);
        return rc; /* not what mix_err_at() returns: `err` may be NULL */
    }
    if (bytes != t->end - t->begin)
        return mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' has %llu bytes by its dtype and "
                        "shape, but bytes %llu..%llu are %llu", t->name, (ull)bytes,
                        (ull)t->begin, (ull)t->end, (ull)(t->end - t->begin));
    return MIX_OK;
}

static enum mix_rc warn_of_oddities(struct mix_safetensors *st, const struct mix_tensor *t,
                                    struct mix_err *err)
{
    unsigned unit = mix_dtype_bits(t->dtype) / 8;
    enum mix_rc rc = MIX_OK;

    if (!*t->name)
        rc = warn(st, err, "a tensor has the empty name");
    if (!rc && unit > 1 && t->begin % unit && t->end > t->begin)
        rc = warn(st, err, "tensor '%s' begins at byte %llu, which is no multiple of %u",
                  t->name, (ull)t->begin, unit);
    return rc;
}

static enum mix_rc read_entry(struct mix_safetensors *st, const struct mix_json *entry,
                              struct mix_tensor *t, struct mix_err *err)
{
    const char *key = mix_json_key(entry);
    enum mix_dtype likely = t > st->tensor ? t[-1].dtype : MIX_BF16;
    struct fields f;
    enum mix_rc rc;

    if ((rc = mix_tensor_name_check(key, err)) ||
        (rc = mix_arena_text(&st->arena, key, strlen(key), &t->name, err)))
        return rc;
    if ((rc = find_fields(st, t->name, entry, &f, err)) ||
        (rc = read_dtype(f.dtype, likely, t, err)) || (rc = read_shape(st, f.shape, t, err)) ||
        (rc = read_offsets(f.offsets, st->header_len, t, err)) || (rc = check_bytes(t, err)))
        return rc;
    return warn_of_oddities(st, t, err);
}

/* ---- all entries ---- */

/* `__metadata__` holds strings; null is what serde takes for "none". */
static enum mix_rc read_metadata(struct mix_safetensors *st, const struct mix_json *object,
                                 struct mix_err *err)
{
    enum mix_rc rc;
    size_t count = mix_json_count(object);

    if (mix_json_kind(object) == MIX_JSON_NULL)
        return MIX_OK;
    if (mix_json_kind(object) != MIX_JSON_OBJECT)
        return mix_fail(err, MIX_BAD_FORMAT, "__metadata__ is no object");
    if ((rc = mix_arena_new(&st->arena, &st->metadata, 2 * count * sizeof *st->metadata, err)))
        return rc;
    for (const struct mix_json *v = mix_json_first(object); v && !rc; v = mix_json_next(v)) {
        const char **pair = &st->metadata[2 * st->metadata_count++];
        const char *key = mix_json_key(v), *text = mix_json_string(v);

        if (!text)
            return mix_fail(err, MIX_BAD_FORMAT, "__metadata__ holds '%s', which is no string",
                            key);
        if (!(rc = mix_arena_text(&st->arena, key, strlen(key), &pair[0], err)))
            rc = mix_arena_text(&st->arena, text, strlen(text), &pair[1], err);
    }
    return rc;
}

/* In the order of the header. */
static enum mix_rc read_entries(struct mix_safetensors *st, const struct mix_json *root,
                                struct mix_err *err)
{
    enum mix_rc rc;

    if (mix_json_kind(root) != MIX_JSON_OBJECT)
        return mix_fail(err, MIX_BAD_FORMAT, "the header is no JSON object");
    if ((rc = mix_new_array(&st->tensor, mix_json_count(root), sizeof *st->tensor, err)))
        return rc;
    /* Children are walked, never asked for by name: that would be quadratic. */
    for (const struct mix_json *v = mix_json_first(root); v && !rc; v = mix_json_next(v)) {
        if (!strcmp(mix_json_key(v), "__metadata__"))
            rc = read_metadata(st, v, err);
        else
            rc = read_entry(st, v, &st->tensor[st->count++], err);
    }
    return rc;
}

static enum mix_rc parse_header(struct mix_safetensors *st, struct mix_err *err)
{
    struct mix_json_doc *doc;
    enum mix_rc rc;

    if ((rc = mix_json_parse(st->header + PREFIX_BYTES, st->header_len - PREFIX_BYTES, &doc,
                             err))) {
        mix_err_at(err, "header"); /* its bytes are counted from 0, behind the prefix */
        return rc;
    }
    if (!(rc = read_entries(st, mix_json_root(doc), err)))
        rc = end_warnings(st, err);
    mix_json_free(doc);
    return rc;
}

/* ---- the order in the file ---- */

struct listed {
    struct mix_tensor tensor;
    size_t index; /* in the header */
};

static int compare_listed(const void *pa, const void *pb)
{
    const struct listed *a = pa, *b = pb;

    if (a->tensor.begin != b->tensor.begin)
        return a->tensor.begin < b->tensor.begin ? -1 : 1;
    if (a->tensor.end != b->tensor.end)
        return a->tensor.end < b->tensor.end ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static bool in_file_order(const struct mix_safetensors *st)
{
    for (size_t i = 1; i < st->count; i++) {
        const struct mix_tensor *a = &st->tensor[i - 1], *b = &st->tensor[i];

        if (a->begin > b->begin || (a->begin == b->begin && a->end > b->end))
            return false;
    }
    return true;
}

static enum mix_rc sort_tensors(struct mix_safetensors *st, struct mix_err *err)
{
    struct listed *sorted;
    enum mix_rc rc;

    if (in_file_order(st)) /* as the reference writes them */
        return MIX_OK;
    if ((rc = mix_new_array(&sorted, st->count, sizeof *sorted, err)))
        return rc;
    for (size_t i = 0; i < st->count; i++)
        sorted[i] = (struct listed){ st->tensor[i], i };
    qsort(sorted, st->count, sizeof *sorted, compare_listed);
    for (size_t i = 0; i < st->count; i++)
        st->tensor[i] = sorted[i].tensor;
    free(sorted);
    return MIX_OK;
}

static enum mix_rc off_by(const struct mix_tensor *t, uint64_t next_free, struct mix_err *err)
{
    bool overlap = t->begin < next_free;
    uint64_t bytes = t->end - t->begin;

    mix_fail(err, overlap ? MIX_OVERLAP : MIX_HOLE, "tensor '%s' covers bytes %llu..%llu, but "
             "the next free byte is %llu", t->name, (ull)t->begin, (ull)t->end, (ull)next_free);
    mix_err_tensor(err, t->name, 0, overlap ? mix_min(bytes, next_free - t->begin) : bytes);
    return overlap ? MIX_OVERLAP : MIX_HOLE;
}

/* `t` is the first tensor that the file does not hold whole. */
static enum mix_rc cut_short(const struct mix_tensor *t, uint64_t file_bytes,
                             uint64_t wanted, struct mix_err *err)
{
    uint64_t there = file_bytes > t->begin ? file_bytes - t->begin : 0;

    mix_fail(err, MIX_TRUNCATED, "tensor '%s' covers bytes %llu..%llu, but the file ends at "
             "byte %llu of %llu", t->name, (ull)t->begin, (ull)t->end, (ull)file_bytes,
             (ull)wanted);
    mix_err_tensor(err, t->name, there, t->end - t->begin);
    return MIX_TRUNCATED;
}

/*
 * Tensors must tile the data section: no gap, no overlap, nothing left over. A gap can
 * carry a second file inside this one, and an overlap lets one name rewrite another.
 * Refusing both here, once, means that no later reader has to think of them. A file
 * that is too short is told apart from one that is wrong: it may still be arriving.
 */
static enum mix_rc check_tiling(struct mix_safetensors *st, struct mix_err *err)
{
    uint64_t at = st->header_len;

    for (size_t i = 0; i < st->count; i++) {
        const struct mix_tensor *t = &st->tensor[i];

        if (t->begin != at)
            return off_by(t, at, err);
        at = t->end;
    }
    if (st->file_bytes == UINT64_MAX)
        st->file_bytes = at;
    for (size_t i = 0; i < st->count; i++)
        if (st->tensor[i].end > st->file_bytes)
            return cut_short(&st->tensor[i], st->file_bytes, at, err);
    if (at != st->file_bytes)
        return mix_fail(err, MIX_BAD_FORMAT, "tensors end at byte %llu of %llu", (ull)at,
                        (ull)st->file_bytes);
    return MIX_OK;
}

/* ---- opening ---- */

/* The header's length with its prefix, from the prefix, for a file of `file_bytes`. */
static enum mix_rc header_length(const void *prefix, uint64_t file_bytes, size_t *len,
                                 struct mix_err *err)
{
    uint64_t n = mix_load_le(prefix, PREFIX_BYTES);

    if (n > MAX_HEADER)
        return mix_fail(err, MIX_BAD_FORMAT, "the header claims %llu bytes; at most %d are "
                        "allowed", (ull)n, MAX_HEADER);
    if (n > file_bytes - PREFIX_BYTES)
        return mix_fail(err, MIX_TRUNCATED, "the header covers bytes 8..%llu, but the file "
                        "ends at byte %llu of %llu", (ull)(n + PREFIX_BYTES), (ull)file_bytes,
                        (ull)(n + PREFIX_BYTES));
    *len = (size_t)n + PREFIX_BYTES;
    return MIX_OK;
}

static enum mix_rc too_short(uint64_t bytes, struct mix_err *err)
{
    return mix_fail(err, MIX_TRUNCATED, "the length of the header covers bytes 0..8, but the "
                    "file ends at byte %llu of 8", (ull)bytes);
}

static enum mix_rc check_all(struct mix_safetensors *st, struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = parse_header(st, err)) || (rc = sort_tensors(st, err)))
        return rc;
    return check_tiling(st, err);
}

static enum mix_rc read_header(struct mix_store *store, const char *path,
                               struct mix_safetensors *st, struct mix_err *err)
{
    unsigned char first[FIRST_BYTES];
    struct mix_stat stat;
    size_t have;
    enum mix_rc rc;

    if ((rc = mix_store_stat(store, path, &stat, err)))
        return rc;
    if (stat.is_folder)
        return mix_fail(err, MIX_BAD_FORMAT, "is a folder, a file was expected");
    if (stat.bytes < PREFIX_BYTES)
        return too_short(stat.bytes, err);
    st->file_bytes = stat.bytes;
    have = (size_t)mix_min(stat.bytes, FIRST_BYTES);
    if ((rc = mix_store_read(store, path, 0, first, have, err)) ||
        (rc = header_length(first, stat.bytes, &st->header_len, err)) ||
        (rc = mix_new(&st->header, st->header_len, err)))
        return rc;
    have = (size_t)mix_min(have, st->header_len);
    memcpy(st->header, first, have);
    return mix_store_read(store, path, have, st->header + have, st->header_len - have, err);
}

enum mix_rc mix_safetensors_open(struct mix_store *store, const char *path,
                                 struct mix_safetensors **out, struct mix_err *err)
{
    struct mix_safetensors *st = NULL;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&st, sizeof *st, err)) || (rc = read_header(store, path, st, err)) ||
        (rc = check_all(st, err)))
        goto out;
    *out = st;
    st = NULL; /* the caller's from here on */
out:
    mix_safetensors_close(st);
    if (rc)
        mix_err_file(err, path);
    return rc;
}

static enum mix_rc copy_header(const void *header, size_t len, struct mix_safetensors *st,
                               struct mix_err *err)
{
    enum mix_rc rc;

    if (len < PREFIX_BYTES || st->file_bytes < PREFIX_BYTES)
        return too_short(mix_min(len, st->file_bytes), err);
    if ((rc = header_length(header, st->file_bytes, &st->header_len, err)))
        return rc;
    if (st->header_len != len)
        return mix_fail(err, len < st->header_len ? MIX_TRUNCATED : MIX_BAD_FORMAT,
                        "a header of %zu bytes ends at byte %zu of %zu", st->header_len, len,
                        st->header_len);
    if ((rc = mix_new(&st->header, len, err)))
        return rc;
    memcpy(st->header, header, len);
    return MIX_OK;
}

enum mix_rc mix_safetensors_parse(const void *header, size_t header_len, uint64_t file_bytes,
                                  struct mix_safetensors **out, struct mix_err *err)
{
    struct mix_safetensors *st = NULL;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&st, sizeof *st, err)))
        return rc;
    st->file_bytes = file_bytes;
    if ((rc = copy_header(header, header_len, st, err)) || (rc = check_all(st, err))) {
        mix_safetensors_close(st);
        return rc;
    }
    *out = st;
    return MIX_OK;
}

void mix_safetensors_close(struct mix_safetensors *st)
{
    if (!st)
        return;
    mix_arena_release(&st->arena);
    free(st->tensor);
    free(st->header);
    free(st);
}

/* ---- what was found ---- */

const struct mix_tensor *mix_safetensors_list(const struct mix_safetensors *st,
                                              size_t *count)
{
    *count = st->count;
    return st->tensor;
}

const char *mix_safetensors_header(const struct mix_safetensors *st, size_t *len)
{
    *len = st->header_len;
    return st->header;
}

uint64_t mix_safetensors_file_bytes(const struct mix_safetensors *st)
{
    return st->file_bytes;
}

const char *mix_safetensors_metadata(const struct mix_safetensors *st, const char *key)
{
    for (size_t i = 0; i < st->metadata_count; i++)
        if (!strcmp(st->metadata[2 * i], key))
            return st->metadata[2 * i + 1];
    return NULL;
}

const char *const *mix_safetensors_warnings(const struct mix_safetensors *st)
{
    static const char *const none[] = { NULL };

    return st->warning ? st->warning : none; /* the arena's zeros end the list */
}
