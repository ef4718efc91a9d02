/*
 * safetensors_write.c - headers of .safetensors files, sized before a byte of data is
 * written. Two kinds: what the reference writer makes of the same tensors, to the byte,
 * and shard files, whose metadata says where in its tensor each piece lies.
 *
 *   u64 N | {"__metadata__":{..},"<name>":{"dtype":..,"shape":..,"data_offsets":..},..} | spaces
 *
 * Compact JSON in serde_json's spelling; spaces make N a multiple of 8, so that the
 * data section, which begins with the widest elements, is aligned.
 */
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/json.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/format/shard.h"

enum {
    PREFIX_BYTES = 8,
    MAX_HEADER = 100000000, /* readers refuse a larger N */
};

typedef unsigned long long ull; /* what printf's %llu takes */

static enum mix_rc put_text(struct mix_buf *out, const char *text, struct mix_err *err)
{
    return mix_buf_put(out, text, strlen(text), err);
}

/* "[4,2]" */
static enum mix_rc put_list(struct mix_buf *out, size_t count, const uint64_t *value,
                            struct mix_err *err)
{
    enum mix_rc rc = put_text(out, "[", err);

    for (size_t i = 0; i < count && !rc; i++)
        rc = mix_buf_putf(out, err, i ? ",%llu" : "%llu", (ull)value[i]);
    return rc ? rc : put_text(out, "]", err);
}

/* One entry behind what stands there; offsets count from the data section. */
static enum mix_rc put_entry(struct mix_buf *out, const char *name, enum mix_dtype dtype,
                             size_t rank, const uint64_t *shape, const uint64_t offsets[2],
                             struct mix_err *err)
{
    enum mix_rc rc;

    if (!strcmp(name, "__metadata__"))
        return mix_fail(err, MIX_UNSUPPORTED,
                        "safetensors cannot hold a tensor of the name '%s'", name);
    if ((rc = put_text(out, ",", err)) || (rc = mix_json_put_string(out, name, err)) ||
        (rc = mix_buf_putf(out, err, ":{\"dtype\":\"%s\",\"shape\":", mix_dtype_name(dtype))) ||
        (rc = put_list(out, rank, shape, err)) ||
        (rc = put_text(out, ",\"data_offsets\":", err)) ||
        (rc = put_list(out, 2, offsets, err)))
        return rc;
    return put_text(out, "}", err);
}

/* Room for the length in front; finish_header() fills it in. */
static enum mix_rc begin_header(struct mix_buf *out, struct mix_err *err)
{
    static const char prefix[PREFIX_BYTES];

    return mix_buf_put(out, prefix, sizeof prefix, err);
}

/* Close and pad the header that begins at byte `begin` of `out`, and set its length. */
static enum mix_rc finish_header(struct mix_buf *out, size_t begin, struct mix_err *err)
{
    enum mix_rc rc = put_text(out, "}", err);

    while (!rc && (out->len - begin) % 8)
        rc = put_text(out, " ", err);
    if (rc)
        return rc;

    size_t len = out->len - begin - PREFIX_BYTES;
    if (len > MAX_HEADER)
        return mix_fail(err, MIX_UNSUPPORTED, "the header takes %zu bytes; safetensors allows "
                        "at most %d", len, MAX_HEADER);
    mix_store_le(out->data + begin, len, PREFIX_BYTES);
    return MIX_OK;
}

static enum mix_rc file_too_large(const char *name, struct mix_err *err)
{
    return mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' would end beyond 2^64 bytes", name);
}

/* ---- as the reference writes them ---- */

/* Widest elements first, so that each tensor is aligned; then by name as bytes. */
static int compare_for_writing(const void *pa, const void *pb)
{
    const struct mix_tensor *a = pa, *b = pb;

    if (a->dtype != b->dtype)
        return a->dtype > b->dtype ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Give the tensors their places, one behind the other, from 0. */
static enum mix_rc place_tensors(struct mix_tensor *tensor, size_t count, struct mix_err *err)
{
    uint64_t at = 0, bytes;
    enum mix_rc rc;

    for (size_t i = 0; i < count; i++) {
        struct mix_tensor *t = &tensor[i];

        if ((rc = mix_dtype_bytes(t->dtype, t->rank, t->shape, &bytes, err))) {
            mix_err_at(err, "tensor '%s'", t->name);
            return rc; /* not what mix_err_at() returns: `err` may be NULL */
        }
        t->begin = at;
        if (!mix_add(at, bytes, &at))
            return file_too_large(t->name, err);
        t->end = at;
    }
    return MIX_OK;
}

static enum mix_rc put_tensors(const struct mix_tensor *tensor, size_t count,
                               struct mix_buf *out, struct mix_err *err)
{
    enum mix_rc rc = put_text(out, "{\"__metadata__\":{\"format\":\"pt\"}", err);

    for (size_t i = 0; i < count && !rc; i++) {
        const struct mix_tensor *t = &tensor[i];
        uint64_t offsets[2] = { t->begin, t->end };

        rc = put_entry(out, t->name, t->dtype, t->rank, t->shape, offsets, err);
    }
    return rc;
}

/* From counted from the data section to absolute in the file. */
static enum mix_rc shift_tensors(struct mix_tensor *tensor, size_t count, uint64_t by,
                                 struct mix_err *err)
{
    for (size_t i = 0; i < count; i++) {
        struct mix_tensor *t = &tensor[i];

        if (!mix_add(t->begin, by, &t->begin) || !mix_add(t->end, by, &t->end))
            return file_too_large(t->name, err);
    }
    return MIX_OK;
}

enum mix_rc mix_safetensors_write_header(struct mix_tensor *tensor, size_t count,
                                         struct mix_buf *header, struct mix_err *err)
{
    size_t begin = header->len;
    enum mix_rc rc;

    if (count)
        qsort(tensor, count, sizeof *tensor, compare_for_writing);
    if ((rc = place_tensors(tensor, count, err)) || (rc = begin_header(header, err)) ||
        (rc = put_tensors(tensor, count, header, err)) ||
        (rc = finish_header(header, begin, err)))
        return rc;
    return shift_tensors(tensor, count, header->len - begin, err);
}

/* ---- shard files ---- */

/* What a shard's layout rests on; pieces may come from a manifest that is hostile. */
static enum mix_rc check_piece(const struct mix_shard_piece *piece, const char *before,
                               struct mix_err *err)
{
    uint64_t bytes;
    enum mix_rc rc;

    if (before && strcmp(before, piece->name) >= 0)
        return mix_fail(err, MIX_BAD_FORMAT, "piece '%s' stands behind '%s'; pieces of a file "
                        "are sorted by name, each name once", piece->name, before);
    if ((rc = mix_dtype_bytes(piece->dtype, piece->rank, piece->shape, &bytes, err))) {
        mix_err_at(err, "piece '%s'", piece->name);
        return rc;
    }
    if (bytes != piece->bytes)
        return mix_fail(err, MIX_BAD_FORMAT, "piece '%s' has %llu bytes; its dtype and shape "
                        "make %llu", piece->name, (ull)piece->bytes, (ull)bytes);
    return MIX_OK;
}

/* Check the pieces and place them, counted from the data section; *end is its size. */
static enum mix_rc place_pieces(struct mix_shard_piece *piece, size_t count, uint64_t *end,
                                struct mix_err *err)
{
    enum mix_rc rc;

    *end = 0;
    for (size_t i = 0; i < count; i++) {
        if ((rc = check_piece(&piece[i], i ? piece[i - 1].name : NULL, err)))
            return rc;
        piece[i].offset = *end;
        if (!mix_add(*end, piece[i].bytes, end))
            return file_too_large(piece[i].name, err);
    }
    return MIX_OK;
}

/* {"<name>":{"saved_offsets":[0,128]},...}: torch puts a tensor together from this. */
static enum mix_rc put_sharding_info(const struct mix_shard_piece *piece, size_t count,
                                     struct mix_buf *out, struct mix_err *err)
{
    enum mix_rc rc = put_text(out, "{", err);

    for (size_t i = 0; i < count && !rc; i++) {
        if ((rc = put_text(out, i ? "," : "", err)) ||
            (rc = mix_json_put_string(out, piece[i].name, err)) ||
            (rc = put_text(out, ":{\"saved_offsets\":", err)) ||
            (rc = put_list(out, piece[i].rank, piece[i].start, err)))
            return rc;
        rc = put_text(out, "}", err);
    }
    return rc ? rc : put_text(out, "}", err);
}

static enum mix_rc put_pieces(const struct mix_shard_piece *piece, size_t count,
                              const char *sharding_info, struct mix_buf *out,
                              struct mix_err *err)
{
    enum mix_rc rc;

    /* The info is JSON text within a JSON string: metadata holds strings only. */
    if ((rc = put_text(out, "{\"__metadata__\":{\"DCP_SHARDING_INFO\":", err)) ||
        (rc = mix_json_put_string(out, sharding_info, err)))
        return rc;
    rc = put_text(out, ",\"DCP_VERSION\":\"1.0\",\"format\":\"pt\"}", err);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct mix_shard_piece *p = &piece[i];
        uint64_t offsets[2] = { p->offset, p->offset + p->bytes };

        rc = put_entry(out, p->name, p->dtype, p->rank, p->shape, offsets, err);
    }
    return rc;
}

/* From counted from the data section to absolute in the file. */
static enum mix_rc shift_pieces(struct mix_shard_piece *piece, size_t count, uint64_t by,
                                uint64_t *file_bytes, struct mix_err *err)
{
    if (!mix_add(*file_bytes, by, file_bytes)) /* and so no offset can wrap either */
        return file_too_large(piece[count - 1].name, err);
    for (size_t i = 0; i < count; i++)
        piece[i].offset += by;
    return MIX_OK;
}

enum mix_rc mix_safetensors_shard_layout(struct mix_shard_piece *piece, size_t count,
                                         struct mix_buf *header, uint64_t *file_bytes,
                                         struct mix_err *err)
{
    struct mix_buf info = MIX_BUF_INIT;
    size_t begin = header->len;
    enum mix_rc rc;

    if ((rc = place_pieces(piece, count, file_bytes, err)) ||
        (rc = put_sharding_info(piece, count, &info, err)) ||
        (rc = begin_header(header, err)) ||
        (rc = put_pieces(piece, count, info.data, header, err)) ||
        (rc = finish_header(header, begin, err)))
        goto out;
    rc = shift_pieces(piece, count, header->len - begin, file_bytes, err);
out:
    mix_buf_release(&info);
    return rc;
}
