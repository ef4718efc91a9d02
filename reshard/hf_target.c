/*
 * hf_target.c - a Hugging Face folder: the weight files that once came in, header byte
 * for header byte, or new ones cut as transformers cuts them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/format/safetensors.h"
#include "reshard/target.h"

struct hf {
    struct mix_safetensors **made; /* headers made here; NULL if they came in */
    const struct mix_safetensors **header; /* one a file */
    size_t count;
    char reason[640];
};

static void release(struct mix_target *target)
{
    struct hf *hf = target->own;

    if (!hf)
        return;
    for (size_t i = 0; hf->made && i < hf->count; i++)
        mix_safetensors_close(hf->made[i]);
    free(hf->made);
    free(hf->header);
    free(hf);
}

/* ---- the files that came in ---- */

static bool same_tensor(const struct mix_ckpt_tensor *a, const struct mix_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           (!a->rank || !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape));
}

/* Why the old files cannot be made again, in hf->reason; "" if they can. */
static enum mix_rc compare_with_origin(const struct mix_target *target, struct hf *hf,
                                       const struct mix_origin_file *origin, size_t count,
                                       struct mix_err *err)
{
    const struct mix_manifest *m = &target->m;
    bool *seen;
    enum mix_rc rc = mix_new_array(&seen, m->tensor_count, sizeof *seen, err);

    for (size_t f = 0; !rc && f < count && !*hf->reason; f++) {
        size_t tensors;
        const struct mix_tensor *list = mix_safetensors_list(origin[f].header, &tensors);

        for (size_t i = 0; i < tensors && !*hf->reason; i++) {
            const struct mix_ckpt_tensor *t = mix_manifest_find(m, list[i].name);

            if (!t)
                snprintf(hf->reason, sizeof hf->reason, "the tensor '%s' is not there any more",
                         list[i].name);
            else if (!same_tensor(t, &list[i]))
                snprintf(hf->reason, sizeof hf->reason,
                         "the tensor '%s' has another dtype or shape now", t->name);
            else
                seen[t - m->tensor] = true;
        }
    }
    for (size_t i = 0; !rc && i < m->tensor_count && !*hf->reason; i++)
        if (!seen[i])
            snprintf(hf->reason, sizeof hf->reason, "the tensor '%s' was not in them",
                     m->tensor[i].name);
    free(seen);
    return rc;
}

static enum mix_rc use_origin(struct mix_target *target, struct hf *hf,
                              const struct mix_origin_file *origin, size_t count,
                              struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    enum mix_rc rc;

    if ((rc = mix_new_array(&hf->header, count, sizeof *hf->header, err)) ||
        (rc = mix_arena_new(&m->arena, &m->file, count * sizeof *m->file, err)))
        return rc;
    for (size_t f = 0; f < count && !rc; f++) {
        hf->header[f] = origin[f].header;
        rc = mix_arena_text(&m->arena, origin[f].name, strlen(origin[f].name), &m->file[f].name,
                            err);
    }
    hf->count = m->file_count = count;
    return rc;
}

/* ---- new files ---- */

enum { NO_FILE_YET = UINT32_MAX };

/*
 * Which file each tensor goes into, as transformers decides: in the order of names, as
 * many as fit. A tensor above the limit is a file of its own at once, and the file at
 * hand goes on behind it; files are numbered as they are closed. Returns how many.
 */
static size_t assign_files(const struct mix_manifest *m, uint64_t max_bytes, uint32_t *file_of)
{
    size_t count = 0, begun = 0; /* the first tensor that may lie in the file at hand */
    uint64_t bytes = 0;          /* in the file at hand */

    for (size_t i = 0; i <= m->tensor_count; i++) {
        uint64_t size = i < m->tensor_count ? m->tensor[i].bytes : 0;
        bool full = i == m->tensor_count || (size <= max_bytes && bytes > max_bytes - size);
        bool any = false;

        for (; full && begun < i; begun++) {
            if (file_of[begun] != NO_FILE_YET)
                continue;
            file_of[begun] = (uint32_t)count;
            any = true;
        }
        if (full)
            bytes = 0;
        count += any;
        if (i == m->tensor_count)
            break;
        file_of[i] = size > max_bytes ? (uint32_t)count++ : NO_FILE_YET;
        bytes += size > max_bytes ? 0 : size;
    }
    return count ? count : 1; /* a model without tensors is one file without tensors */
}

static enum mix_rc make_header(const struct mix_manifest *m, const uint32_t *tensor, size_t count,
                               struct mix_safetensors **out, struct mix_err *err)
{
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_tensor *list;
    enum mix_rc rc = mix_new_array(&list, count, sizeof *list, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[tensor[i]];

        list[i] = (struct mix_tensor){ .name = t->name, .dtype = t->dtype, .rank = t->rank,
                                       .shape = t->shape, .end = t->bytes };
    }
    if (!(rc = mix_safetensors_write_header(list, count, &header, err)))
        rc = mix_safetensors_parse(header.data, header.len, UINT64_MAX, out, err);
    free(list);
    mix_buf_release(&header);
    return rc;
}

static enum mix_rc make_file(struct mix_target *target, struct hf *hf, size_t f,
                             const uint32_t *tensor, size_t count, struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    char name[64];
    enum mix_rc rc;

    if ((rc = make_header(m, tensor, count, &hf->made[f], err)))
        return rc;
    hf->header[f] = hf->made[f];
    if (hf->count == 1)
        snprintf(name, sizeof name, "model.safetensors");
    else
        snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", f + 1, hf->count);
    return mix_arena_text(&m->arena, name, strlen(name), &m->file[f].name, err);
}

static enum mix_rc cut_files(struct mix_target *target, struct hf *hf, uint64_t max_bytes,
                             struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    uint32_t *file_of = NULL, *tensor = NULL; /* tensors by file, in order */
    size_t *first = NULL, count;
    enum mix_rc rc;

    if ((rc = mix_new_array(&file_of, m->tensor_count, sizeof *file_of, err)) ||
        (rc = mix_new_array(&tensor, m->tensor_count, sizeof *tensor, err)))
        goto out;
    count = assign_files(m, max_bytes, file_of);
    if ((rc = mix_new_array(&first, count + 2, sizeof *first, err)) ||
        (rc = mix_new_array(&hf->made, count, sizeof *hf->made, err)) ||
        (rc = mix_new_array(&hf->header, count, sizeof *hf->header, err)) ||
        (rc = mix_arena_new(&m->arena, &m->file, count * sizeof *m->file, err)))
        goto out;
    hf->count = m->file_count = count;
    for (size_t i = 0; i < m->tensor_count; i++)
        first[file_of[i] + 2]++;
    for (size_t f = 0; f < count; f++)
        first[f + 2] += first[f + 1];
    for (size_t i = 0; i < m->tensor_count; i++)
        tensor[first[file_of[i] + 1]++] = (uint32_t)i; /* then first[f] is where f begins */
    for (size_t f = 0; f < count && !rc; f++)
        rc = make_file(target, hf, f, tensor + first[f], first[f + 1] - first[f], err);
out:
    free(file_of);
    free(tensor);
    free(first);
    return rc;
}

/* ---- groups: one a file, its tensors whole ---- */

static enum mix_rc build(const struct mix_target *target, size_t g, struct mix_group *group,
                         struct mix_err *err)
{
    const struct hf *hf = target->own;
    const struct mix_safetensors *st = hf->header[g];
    struct mix_group_file file = { .id = (uint32_t)g, .name = target->m.file[g].name,
                                   .bytes = mix_safetensors_file_bytes(st), .fd = -1 };
    size_t count, header_len;
    const struct mix_tensor *list = mix_safetensors_list(st, &count);
    const char *header = mix_safetensors_header(st, &header_len);
    enum mix_rc rc;

    if ((rc = mix_buf_put(&file.header, header, header_len, err)) ||
        (rc = mix_group_add_file(group, &file, err))) {
        mix_buf_release(&file.header);
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        const struct mix_ckpt_tensor *t = mix_manifest_find(&target->m, list[i].name);
        struct mix_item item = { .tensor = (uint32_t)(t - target->m.tensor), .end = t->bytes };
        struct mix_part part = { .offset = list[i].begin, .column_end = t->cut.row_bytes };

        if ((rc = mix_group_add_item(group, &item, &part, 1, err)))
            return rc;
    }
    return mix_group_settle(group, err);
}

/* Where each tensor goes, for the index; and the sums. */
static enum mix_rc place_tensors(struct mix_target *target, const struct hf *hf,
                                 struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    enum mix_rc rc = mix_new_array(&target->group_bytes, hf->count,
                                   sizeof *target->group_bytes, err);

    for (size_t f = 0; f < hf->count && !rc; f++) {
        size_t count;
        const struct mix_tensor *list = mix_safetensors_list(hf->header[f], &count);

        m->file[f].bytes = mix_safetensors_file_bytes(hf->header[f]);
        for (size_t i = 0; i < count; i++) {
            struct mix_ckpt_tensor *t = mix_manifest_find(m, list[i].name);

            t->file = (uint32_t)f;
            t->offset = list[i].begin;
            target->group_bytes[f] += t->bytes;
        }
    }
    target->group_count = hf->count;
    return rc;
}

enum mix_rc mix_target_hf(struct mix_target *target, const struct mix_origin_file *origin,
                          size_t origin_count, uint64_t max_shard_bytes, struct mix_err *err)
{
    struct hf *hf;
    enum mix_rc rc;

    if ((rc = mix_new(&hf, sizeof *hf, err)))
        return rc;
    target->own = hf;
    target->release = release;
    target->build = build;
    target->is_hf = true;
    if (!origin_count)
        snprintf(hf->reason, sizeof hf->reason, "nothing says how they were cut");
    else if (max_shard_bytes)
        snprintf(hf->reason, sizeof hf->reason, "--max-shard-size was given");
    else if ((rc = compare_with_origin(target, hf, origin, origin_count, err)))
        return rc;
    if (*hf->reason) {
        target->remade = hf->reason;
        if (!max_shard_bytes)
            max_shard_bytes = MIX_DEFAULT_SHARD_GB * UINT64_C(1000000000);
        rc = cut_files(target, hf, max_shard_bytes, err);
    } else {
        rc = use_origin(target, hf, origin, origin_count, err);
    }
    return rc ? rc : place_tensors(target, hf, err);
}
