/*
 * checkpoint_mixckpt.c - open a mixckpt checkpoint: its manifest, the headers of the
 * weight files that it came from, and the files that travel with it.
 */
#include <inttypes.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/hash.h"
#include "ckpt/checkpoint_open.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"

enum { MANIFEST_LIMIT = 100 << 20 };

static const char weights_folder[] = "hf/.weights/", header_ending[] = ".header";

/* The two side files must be listed with exactly the size that the tensors imply. */
static enum mix_rc check_side_sizes(const struct mix_manifest *m, struct mix_err *err)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } wanted[] = {
        { "mixckpt.pieces", m->piece_count * MIX_PIECE_RECORD_BYTES },
        { "mixckpt.digests", m->leaf_count * 32 },
    };

    for (size_t i = 0; i < MIX_ARRAY_LEN(wanted); i++) {
        const struct mix_ckpt_side *side = mix_manifest_side(m, wanted[i].name);

        if (!side || side->bytes != wanted[i].bytes)
            return mix_fail(err, MIX_BAD_FORMAT,
                            "lists %s with %" PRIu64 " bytes; its tensors need %" PRIu64,
                            wanted[i].name, side ? side->bytes : 0, wanted[i].bytes);
    }
    return MIX_OK;
}

/* A small side file, whole and checked against its SHA-256. */
static enum mix_rc read_side(struct mix_opening *o, const struct mix_ckpt_side *side,
                             struct mix_buf *out, struct mix_err *err)
{
    unsigned char sha[32];
    enum mix_rc rc = mix_store_read_all(o->ckpt->store, side->name, side->bytes, out, err);

    if (rc)
        return rc;
    mix_sha256(out->data, out->len, sha);
    if (out->len != side->bytes || memcmp(sha, side->sha256, 32))
        return mix_fail(err, MIX_CORRUPT, "differs from the SHA-256 in the manifest");
    return MIX_OK;
}

/*
 * The names under hf/ become names in a folder that is exported: none may be that of a
 * weight file, of another file, or lead elsewhere.
 */
static enum mix_rc check_side_names(const struct mix_manifest *m, struct mix_err *err)
{
    for (size_t i = 0; i < m->side_count; i++) {
        const char *name = m->side[i].name;
        bool right;

        if (!strncmp(name, weights_folder, strlen(weights_folder))) {
            name += strlen(weights_folder);
            right = !strchr(name, '/') && (!strcmp(name, "model.safetensors.index.json") ||
                                           mix_has_ending(name, ".safetensors.header"));
        } else {
            right = strncmp(name, "hf/", 3) || mix_is_carried_name(name + 3);
        }
        if (!right)
            return mix_fail(err, MIX_BAD_FORMAT, "lists '%s'; no such file travels with weights",
                            m->side[i].name);
    }
    return MIX_OK;
}

static enum mix_rc add_origin(struct mix_opening *o, const struct mix_ckpt_side *side,
                              struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    const char *base = side->name + strlen(weights_folder);
    size_t len = strlen(base), ending = strlen(header_ending);
    struct mix_buf text = MIX_BUF_INIT;
    enum mix_rc rc;

    if ((rc = read_side(o, side, &text, err)))
        goto out;
    if (mix_has_ending(base, header_ending)) {
        struct mix_origin_file *origin = &ckpt->origin[ckpt->origin_count];

        if ((rc = mix_arena_text(&ckpt->m.arena, base, len - ending, &origin->name, err)) ||
            (rc = mix_safetensors_parse(text.data, text.len, UINT64_MAX, &origin->header, err)))
            goto out;
        ckpt->origin_count++;
    } else {
        if ((rc = mix_arena_text(&ckpt->m.arena, text.data, text.len, &ckpt->index, err)))
            goto out;
        ckpt->index_len = text.len;
    }
out:
    mix_buf_release(&text);
    return mix_opening_fault(o, side->name, rc, err);
}

/* Sort the files under hf/ into those to carry and those that describe old weight files. */
static enum mix_rc take_sides(struct mix_opening *o, struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_manifest *m = &ckpt->m;
    enum mix_rc rc;

    if ((rc = mix_arena_new(&m->arena, &ckpt->origin, m->side_count * sizeof *ckpt->origin,
                            err)) ||
        (rc = mix_arena_new(&m->arena, &ckpt->carried, m->side_count * sizeof *ckpt->carried,
                            err)))
        return rc;
    for (size_t i = 0; i < m->side_count && !rc; i++) {
        const struct mix_ckpt_side *side = &m->side[i];

        if (!strncmp(side->name, weights_folder, strlen(weights_folder)))
            rc = add_origin(o, side, err);
        else if (!strncmp(side->name, "hf/", 3))
            ckpt->carried[ckpt->carried_count++] =
                (struct mix_carried_file){ side->name + 3, side->name, side->bytes };
    }
    return rc;
}

enum mix_rc mix_opening_mixckpt(struct mix_opening *o, struct mix_err *err)
{
    static const char path[] = "mixckpt.json";
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_buf text = MIX_BUF_INIT;
    enum mix_rc rc;

    ckpt->form = MIX_FORM_MIXCKPT;
    if ((rc = mix_store_read_all(ckpt->store, path, MANIFEST_LIMIT, &text, err)) ||
        (rc = mix_manifest_parse(text.data, text.len, &ckpt->m, err)) ||
        (rc = check_side_sizes(&ckpt->m, err)) || (rc = check_side_names(&ckpt->m, err)))
        goto out;
    if (ckpt->m.model)
        rc = mix_geometry_parse(ckpt->m.model, strlen(ckpt->m.model), &ckpt->geometry, err);
out:
    mix_buf_release(&text);
    if (rc) {
        mix_manifest_release(&ckpt->m);
        return mix_opening_fault(o, path, rc, err);
    }
    return take_sides(o, err);
}
