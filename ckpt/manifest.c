/* manifest.c - mixckpt.json, written and read in its one canonical spelling. */
#include "ckpt/manifest.h"

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

enum { MAX_DEGREE = 65536 };

enum mix_rc mix_manifest_number(struct mix_manifest *m, struct mix_err *err)
{
    uint64_t pieces = 0, leaves = 0;

    for (size_t i = 0; i < m->tensor_count; i++) {
        struct mix_ckpt_tensor *t = &m->tensor[i];

        t->first_piece = pieces;
        t->first_leaf = leaves;
        if (!mix_add(pieces, mix_cut_pieces(&t->cut), &pieces) ||
            !mix_add(leaves, mix_leaf_count(t->bytes), &leaves) || leaves > UINT64_MAX / 32 ||
            pieces > UINT64_MAX / MIX_PIECE_RECORD_BYTES)
            return mix_fail(err, MIX_BAD_FORMAT, "more pieces or leaves than can be counted");
    }
    m->piece_count = pieces;
    m->leaf_count = leaves;
    return MIX_OK;
}

/* ---- writing ---- */

static enum mix_rc put_name(struct mix_buf *out, const char *name, struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = mix_buf_putf(out, err, "{\"name\":")))
        return rc;
    return mix_json_put_string(out, name, err);
}

static enum mix_rc put_side(struct mix_buf *out, const struct mix_ckpt_side *s,
                            struct mix_err *err)
{
    char hex[MIX_SHA256_HEX];
    enum mix_rc rc;

    mix_hex(s->sha256, 32, hex);
    if ((rc = put_name(out, s->name, err)))
        return rc;
    return mix_buf_putf(out, err, ",\"bytes\":%" PRIu64 ",\"sha256\":\"%s\"}", s->bytes, hex);
}

static enum mix_rc put_file(struct mix_buf *out, const struct mix_ckpt_file *f,
                            struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = put_name(out, f->name, err)))
        return rc;
    return mix_buf_putf(out, err, ",\"bytes\":%" PRIu64 ",\"crc64nvme\":\"%016" PRIx64 "\"}",
                        f->bytes, f->crc64);
}

/* The number of parts per dimension; and how rows were cut twice, where they were. */
static enum mix_rc put_grid(struct mix_buf *out, const struct mix_ckpt_tensor *t,
                            struct mix_err *err)
{
    enum mix_rc rc = mix_buf_putf(out, err, "\"grid\":[");

    for (uint32_t i = 0; i < t->rank && !rc; i++)
        rc = mix_buf_putf(out, err, "%s%" PRIu64, i ? "," : "",
                          i == 0 ? t->cut.row_parts : i == 1 ? t->cut.column_parts : 1);
    if (!rc && t->cut.outer > 1)
        return mix_buf_putf(out, err, "],\"nest\":[%" PRIu64 ",%" PRIu64 "]", t->cut.outer,
                            t->cut.inner);
    return rc ? rc : mix_buf_put(out, "]", 1, err);
}

static enum mix_rc put_tensor(struct mix_buf *out, const struct mix_ckpt_tensor *t,
                              struct mix_err *err)
{
    char shape[MIX_SHAPE_TEXT], hex[MIX_SHA256_HEX];
    enum mix_rc rc;

    mix_hex(t->digest, 32, hex);
    if ((rc = put_name(out, t->name, err)) ||
        (rc = mix_buf_putf(out, err, ",\"dtype\":\"%s\",\"shape\":%s,", mix_dtype_name(t->dtype),
                           mix_shape_text(t->rank, t->shape, shape))) ||
        (rc = put_grid(out, t, err)))
        return rc;
    return mix_buf_putf(out, err, ",\"digest\":\"%s\"}", hex);
}

static enum mix_rc put_lists(struct mix_buf *out, const struct mix_manifest *m,
                             struct mix_err *err)
{
    enum mix_rc rc = mix_buf_putf(out, err, "\"side\":[");

    for (size_t i = 0; i < m->side_count && !rc; i++)
        if (!(rc = mix_buf_putf(out, err, "%s\n", i ? "," : "")))
            rc = put_side(out, &m->side[i], err);
    if (!rc)
        rc = mix_buf_putf(out, err, "\n],\n\"files\":[");
    for (size_t i = 0; i < m->file_count && !rc; i++)
        if (!(rc = mix_buf_putf(out, err, "%s\n", i ? "," : "")))
            rc = put_file(out, &m->file[i], err);
    if (!rc)
        rc = mix_buf_putf(out, err, "\n],\n\"tensors\":[");
    for (size_t i = 0; i < m->tensor_count && !rc; i++)
        if (!(rc = mix_buf_putf(out, err, "%s\n", i ? "," : "")))
            rc = put_tensor(out, &m->tensor[i], err);
    return rc ? rc : mix_buf_putf(out, err, "\n],\n");
}

enum mix_rc mix_manifest_emit(struct mix_manifest *m, struct mix_buf *out,
                              struct mix_err *err)
{
    char step[24] = "null", hex[MIX_SHA256_HEX];
    size_t begin = out->len;
    enum mix_rc rc;

    if (m->has_step)
        snprintf(step, sizeof step, "%" PRIu64, m->step);
    if ((rc = mix_buf_putf(out, err,
                           "{\n\"format\":\"mixckpt\",\n\"version\":1,\n\"container\":\"%s\",\n"
                           "\"mesh\":{\"ep\":%" PRIu64 ",\"hsd\":%" PRIu64 ",\"tp\":%" PRIu64
                           "},\n\"step\":%s,\n",
                           mix_container_name(m->container), m->mesh.ep, m->mesh.hsd,
                           m->mesh.tp, step)) ||
        (rc = mix_buf_putf(out, err, "\"model\":%s,\n\"trainer\":%s,\n",
                           m->model ? m->model : "null", m->trainer ? m->trainer : "null")) ||
        (rc = put_lists(out, m, err)))
        return rc;
    mix_sha256(out->data + begin, out->len - begin, m->self);
    mix_hex(m->self, 32, hex);
    return mix_buf_putf(out, err, "\"self\":\"%s\"\n}\n", hex);
}

/* ---- reading ---- */

enum mix_rc mix_path_check(const char *path, struct mix_err *err)
{
    for (size_t left = strlen(path), at = 0, n; at < left; at += n) {
        n = mix_utf8_sequence(path + at, left - at);
        if (!n || (unsigned char)path[at] < 0x20 || path[at] == 0x7f)
            return mix_fail(err, MIX_BAD_FORMAT, "the path '%s' holds a control character or is "
                            "not UTF-8", path);
    }
    if (!mix_path_stays_below(path))
        return mix_fail(err, MIX_BAD_FORMAT, "the path '%s' leaves the checkpoint", path);
    return MIX_OK;
}

/* Behind everything that `self` vouches for. */
enum { SELF_TAIL = sizeof "\"self\":\"\"\n}\n" - 1 + 64 };

static enum mix_rc check_self(const char *text, size_t len, struct mix_manifest *m,
                              struct mix_err *err)
{
    const char *tail = text + len - SELF_TAIL;
    unsigned char said[32];

    if (len < SELF_TAIL || memcmp(tail, "\"self\":\"", 8) || memcmp(tail + 72, "\"\n}\n", 4) ||
        !mix_unhex(tail + 8, said, 32))
        return mix_fail(err, MIX_CORRUPT, "does not end in its own digest ('self')");
    mix_sha256(text, len - SELF_TAIL, m->self);
    if (memcmp(said, m->self, 32)) {
        char found[MIX_SHA256_HEX];

        mix_hex(m->self, 32, found);
        return mix_fail(err, MIX_CORRUPT, "its bytes have SHA-256 %s, 'self' says %.64s", found,
                        tail + 8);
    }
    return MIX_OK;
}

static enum mix_rc get_u64(const struct mix_json *object, const char *key, uint64_t low,
                           uint64_t high, uint64_t *out, struct mix_err *err)
{
    if (!mix_json_u64(mix_json_get(object, key), out) || *out < low || *out > high)
        return mix_fail(err, MIX_BAD_FORMAT,
                        "'%s' is not an integer from %" PRIu64 " to %" PRIu64, key, low, high);
    return MIX_OK;
}

static enum mix_rc get_text(const struct mix_json *object, const char *key, const char **out,
                            struct mix_err *err)
{
    *out = mix_json_string(mix_json_get(object, key));
    return *out ? MIX_OK : mix_fail(err, MIX_BAD_FORMAT, "'%s' is not a string", key);
}

static enum mix_rc get_hex(const struct mix_json *object, const char *key, unsigned char *out,
                           size_t len, struct mix_err *err)
{
    const char *text = mix_json_string(mix_json_get(object, key));

    if (!text || strlen(text) != 2 * len || !mix_unhex(text, out, len))
        return mix_fail(err, MIX_BAD_FORMAT, "'%s' is not %zu lower-case hex digits", key,
                        2 * len);
    return MIX_OK;
}

static enum mix_rc get_list(const struct mix_json *root, const char *key, size_t *count,
                            const struct mix_json **first, struct mix_err *err)
{
    const struct mix_json *list = mix_json_get(root, key);

    if (!list || mix_json_kind(list) != MIX_JSON_ARRAY)
        return mix_fail(err, MIX_BAD_FORMAT, "'%s' is not a list", key);
    *count = mix_json_count(list);
    *first = mix_json_first(list);
    return MIX_OK;
}

/* Canonical spelling of a member that is an object or null. */
static enum mix_rc get_object_text(struct mix_manifest *m, const struct mix_json *root,
                                   const char *key, const char **out, struct mix_err *err)
{
    const struct mix_json *value = mix_json_get(root, key);
    struct mix_buf text = MIX_BUF_INIT;
    enum mix_rc rc;

    *out = NULL;
    if (value && mix_json_kind(value) == MIX_JSON_NULL)
        return MIX_OK;
    if (!value || mix_json_kind(value) != MIX_JSON_OBJECT)
        return mix_fail(err, MIX_BAD_FORMAT, "'%s' is neither an object nor null", key);
    if (!(rc = mix_json_emit(value, &text, err)))
        rc = mix_arena_text(&m->arena, text.data, text.len, out, err);
    mix_buf_release(&text);
    return rc;
}

static enum mix_rc get_path(struct mix_manifest *m, const struct mix_json *object,
                            const char **out, struct mix_err *err)
{
    const char *text;
    enum mix_rc rc;

    if ((rc = get_text(object, "name", &text, err)) || (rc = mix_path_check(text, err)))
        return rc;
    return mix_arena_text(&m->arena, text, strlen(text), out, err);
}

static enum mix_rc parse_sides(struct mix_manifest *m, const struct mix_json *root,
                               struct mix_err *err)
{
    const struct mix_json *at;
    enum mix_rc rc;

    if ((rc = get_list(root, "side", &m->side_count, &at, err)) ||
        (rc = mix_arena_new(&m->arena, &m->side, m->side_count * sizeof *m->side, err)))
        return rc;
    for (size_t i = 0; i < m->side_count; i++, at = mix_json_next(at)) {
        if ((rc = get_path(m, at, &m->side[i].name, err)) ||
            (rc = get_u64(at, "bytes", 0, INT64_MAX, &m->side[i].bytes, err)) ||
            (rc = get_hex(at, "sha256", m->side[i].sha256, 32, err)))
            return rc;
        if (i && strcmp(m->side[i - 1].name, m->side[i].name) >= 0)
            return mix_fail(err, MIX_BAD_FORMAT, "the file '%s' is out of order",
                            m->side[i].name);
    }
    return MIX_OK;
}

static enum mix_rc parse_files(struct mix_manifest *m, const struct mix_json *root,
                               struct mix_err *err)
{
    const struct mix_json *at;
    unsigned char crc[8];
    enum mix_rc rc;

    if ((rc = get_list(root, "files", &m->file_count, &at, err)) ||
        (rc = mix_arena_new(&m->arena, &m->file, m->file_count * sizeof *m->file, err)))
        return rc;
    for (size_t i = 0; i < m->file_count; i++, at = mix_json_next(at)) {
        struct mix_ckpt_file *f = &m->file[i];

        if ((rc = get_path(m, at, &f->name, err)) ||
            (rc = get_u64(at, "bytes", 0, INT64_MAX, &f->bytes, err)) ||
            (rc = get_hex(at, "crc64nvme", crc, 8, err)))
            return rc;
        for (int k = 0; k < 8; k++)
            f->crc64 = f->crc64 << 8 | crc[k];
        if (i && strcmp(m->file[i - 1].name, f->name) >= 0)
            return mix_fail(err, MIX_BAD_FORMAT, "the file '%s' is out of order", f->name);
    }
    return MIX_OK;
}

static enum mix_rc parse_numbers(struct mix_manifest *m, const struct mix_json *list,
                                 const char *key, uint32_t *count, const uint64_t **out,
                                 struct mix_err *err)
{
    size_t n = list ? mix_json_count(list) : 0;
    const struct mix_json *at = list ? mix_json_first(list) : NULL;
    uint64_t *number;
    enum mix_rc rc;

    if (!list || mix_json_kind(list) != MIX_JSON_ARRAY || n > MIX_MAX_RANK)
        return mix_fail(err, MIX_BAD_FORMAT, "'%s' is not a list of at most %d sizes", key,
                        MIX_MAX_RANK);
    if ((rc = mix_arena_new(&m->arena, &number, n * sizeof *number, err)))
        return rc;
    for (size_t i = 0; i < n; i++, at = mix_json_next(at))
        if (!mix_json_u64(at, &number[i]))
            return mix_fail(err, MIX_BAD_FORMAT, "'%s' holds something that is no size", key);
    *count = (uint32_t)n;
    *out = number;
    return MIX_OK;
}

static enum mix_rc parse_grid(struct mix_manifest *m, const struct mix_json *at,
                              struct mix_ckpt_tensor *t, struct mix_err *err)
{
    const struct mix_json *nest_list = mix_json_get(at, "nest");
    const uint64_t *grid, *nest = NULL;
    uint32_t dimensions, levels = 0;
    enum mix_rc rc;

    if ((rc = parse_numbers(m, mix_json_get(at, "grid"), "grid", &dimensions, &grid, err)) ||
        (nest_list && (rc = parse_numbers(m, nest_list, "nest", &levels, &nest, err))))
        return rc;
    if (dimensions != t->rank || (nest_list && (levels != 2 || nest[0] < 2)))
        return mix_fail(err, MIX_BAD_FORMAT, "'grid' or 'nest' has the wrong length");
    for (uint32_t i = 0; i < dimensions; i++)
        if (!grid[i] || (i > 1 && grid[i] != 1))
            return mix_fail(err, MIX_BAD_FORMAT, "'grid' cuts dimension %u into %" PRIu64, i,
                            grid[i]);
    mix_cut_init(&t->cut, t->dtype, t->rank, t->shape, nest ? nest[0] : 1,
                 nest ? nest[1] : t->rank ? grid[0] : 1, t->rank > 1 ? grid[1] : 1);
    if ((t->rank && grid[0] != t->cut.row_parts) ||
        (t->rank > 1 && grid[1] != t->cut.column_parts))
        return mix_fail(err, MIX_BAD_FORMAT,
                        "'grid' asks for more parts than there are rows or columns");
    return MIX_OK;
}

static enum mix_rc parse_tensor(struct mix_manifest *m, const struct mix_json *at,
                                struct mix_ckpt_tensor *t, struct mix_err *err)
{
    const char *name, *dtype;
    enum mix_rc rc;

    if ((rc = get_text(at, "name", &name, err)) || (rc = mix_tensor_name_check(name, err)) ||
        (rc = mix_arena_text(&m->arena, name, strlen(name), &t->name, err)) ||
        (rc = get_text(at, "dtype", &dtype, err)))
        return rc;
    if (!mix_dtype_find(dtype, &t->dtype))
        rc = mix_fail(err, MIX_BAD_FORMAT, "there is no dtype '%s'", dtype);
    if (rc || (rc = parse_numbers(m, mix_json_get(at, "shape"), "shape", &t->rank, &t->shape, err)) ||
        (rc = mix_dtype_bytes(t->dtype, t->rank, t->shape, &t->bytes, err)) ||
        (rc = parse_grid(m, at, t, err)) || (rc = get_hex(at, "digest", t->digest, 32, err)))
        return mix_err_at(err, "tensor '%s'", t->name);
    return MIX_OK;
}

static enum mix_rc parse_tensors(struct mix_manifest *m, const struct mix_json *root,
                                 struct mix_err *err)
{
    const struct mix_json *at;
    enum mix_rc rc;

    if ((rc = get_list(root, "tensors", &m->tensor_count, &at, err)) ||
        (rc = mix_arena_new(&m->arena, &m->tensor, m->tensor_count * sizeof *m->tensor, err)))
        return rc;
    for (size_t i = 0; i < m->tensor_count; i++, at = mix_json_next(at)) {
        if ((rc = parse_tensor(m, at, &m->tensor[i], err)))
            return rc;
        if (i && strcmp(m->tensor[i - 1].name, m->tensor[i].name) >= 0)
            return mix_fail(err, MIX_BAD_FORMAT, "the tensor '%s' is out of order",
                            m->tensor[i].name);
    }
    return mix_manifest_number(m, err);
}

static enum mix_rc parse_root(struct mix_manifest *m, const struct mix_json *root,
                              struct mix_err *err)
{
    const struct mix_json *mesh = mix_json_get(root, "mesh"), *step = mix_json_get(root, "step");
    const char *format, *container;
    uint64_t version;
    enum mix_rc rc;

    if ((rc = get_text(root, "format", &format, err)) ||
        (rc = get_u64(root, "version", 1, UINT64_MAX, &version, err)))
        return rc;
    if (strcmp(format, "mixckpt"))
        return mix_fail(err, MIX_BAD_FORMAT, "'format' is '%s', not 'mixckpt'", format);
    if (version != 1)
        return mix_fail(err, MIX_UNSUPPORTED,
                        "format version %" PRIu64 "; this program reads version 1", version);
    if ((rc = get_text(root, "container", &container, err)))
        return rc;
    m->container = !strcmp(container, "hdf5") ? MIX_HDF5 : MIX_SAFETENSORS;
    if (strcmp(container, mix_container_name(m->container)))
        return mix_fail(err, MIX_BAD_FORMAT, "there is no container '%s'", container);
    m->has_step = step && mix_json_kind(step) != MIX_JSON_NULL;
    if ((m->has_step && (rc = get_u64(root, "step", 0, INT64_MAX, &m->step, err))) ||
        (rc = get_u64(mesh, "ep", 1, MAX_DEGREE, &m->mesh.ep, err)) ||
        (rc = get_u64(mesh, "hsd", 1, MAX_DEGREE, &m->mesh.hsd, err)) ||
        (rc = get_u64(mesh, "tp", 1, MAX_DEGREE, &m->mesh.tp, err)) ||
        (rc = get_object_text(m, root, "model", &m->model, err)) ||
        (rc = get_object_text(m, root, "trainer", &m->trainer, err)) ||
        (rc = parse_sides(m, root, err)) || (rc = parse_files(m, root, err)))
        return rc;
    return parse_tensors(m, root, err);
}

/* Writing what was read must give the same bytes: then nothing was overlooked. */
static enum mix_rc check_spelling(const char *text, size_t len, struct mix_manifest *m,
                                  struct mix_err *err)
{
    struct mix_buf again = MIX_BUF_INIT;
    enum mix_rc rc = mix_manifest_emit(m, &again, err);

    if (!rc && (again.len != len || memcmp(again.data, text, len))) {
        size_t at = 0;

        while (at < len && at < again.len && text[at] == again.data[at])
            at++;
        rc = mix_fail(err, MIX_BAD_FORMAT,
                      "is not in its canonical spelling: byte %zu differs", at);
    }
    mix_buf_release(&again);
    return rc;
}

enum mix_rc mix_manifest_parse(const char *text, size_t len, struct mix_manifest *m,
                               struct mix_err *err)
{
    struct mix_json_doc *doc = NULL;
    enum mix_rc rc;

    memset(m, 0, sizeof *m);
    if ((rc = check_self(text, len, m, err)) || (rc = mix_json_parse(text, len, &doc, err)) ||
        (rc = parse_root(m, mix_json_root(doc), err)) || (rc = check_spelling(text, len, m, err)))
        mix_manifest_release(m);
    mix_json_free(doc);
    return rc;
}

void mix_manifest_release(struct mix_manifest *m)
{
    mix_arena_release(&m->arena);
    memset(m, 0, sizeof *m);
}

static int name_against(const void *key, const void *element)
{
    return strcmp(key, ((const struct mix_ckpt_tensor *)element)->name);
}

struct mix_ckpt_tensor *mix_manifest_find(const struct mix_manifest *m, const char *name)
{
    return m->tensor_count
               ? bsearch(name, m->tensor, m->tensor_count, sizeof *m->tensor, name_against)
               : NULL;
}

static int name_against_side(const void *key, const void *element)
{
    return strcmp(key, ((const struct mix_ckpt_side *)element)->name);
}

const struct mix_ckpt_side *mix_manifest_side(const struct mix_manifest *m, const char *name)
{
    return m->side_count
               ? bsearch(name, m->side, m->side_count, sizeof *m->side, name_against_side)
               : NULL;
}
