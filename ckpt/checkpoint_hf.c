/*
 * checkpoint_hf.c - open a Hugging Face folder: config.json, the weight files that
 * the index names (or model.safetensors), and the files beside them; or one
 * .safetensors file alone.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/json.h"
#include "ckpt/checkpoint_open.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"

static const char index_name[] = "model.safetensors.index.json";

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* One weight file: parse its header, note its oddities, take its tensors. */
static enum mix_rc add_weight_file(struct mix_opening *o, const char *name,
                                   struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_safetensors *st = NULL;
    const struct mix_tensor *tensor;
    const char *const *warning;
    size_t count;
    enum mix_rc rc;

    if ((rc = mix_path_check(name, err)) ||
        (rc = mix_safetensors_open(ckpt->store, name, &st, err))) {
        /* The words start with the path already. */
        return o->defects ? mix_defects_take(o->defects, name, rc, err) : rc;
    }
    tensor = mix_safetensors_list(st, &count);
    if ((rc = mix_opening_add(o, name, mix_safetensors_file_bytes(st), tensor, count, err))) {
        mix_safetensors_close(st);
        return mix_err_file(err, name);
    }
    ckpt->origin[ckpt->origin_count++] =
        (struct mix_origin_file){ o->file[o->file_count - 1].name, st };
    for (warning = mix_safetensors_warnings(st); *warning && !rc; warning++)
        rc = mix_texts_add(&ckpt->warnings, err, "%s: %s", name, *warning);
    return rc;
}

static enum mix_rc add_weight_files(struct mix_opening *o, const char **name, size_t count,
                                    struct mix_err *err)
{
    enum mix_rc rc = mix_arena_new(&o->ckpt->m.arena, &o->ckpt->origin,
                                   count * sizeof *o->ckpt->origin, err);

    for (size_t i = 0; i < count && !rc; i++)
        rc = add_weight_file(o, name[i], err);
    return rc;
}

/* The files that an index names, sorted, each once. */
static enum mix_rc files_of_index(struct mix_opening *o, const struct mix_json *map,
                                  const char ***out, size_t *count, struct mix_err *err)
{
    size_t entries = mix_json_count(map), kept = 0;
    const char **name;
    enum mix_rc rc = mix_arena_new(&o->ckpt->m.arena, &name, entries * sizeof *name, err);

    if (rc)
        return rc;
    *count = 0;
    for (const struct mix_json *at = mix_json_first(map); at; at = mix_json_next(at)) {
        const char *file = mix_json_string(at);

        if (!file || strchr(file, '/') || !mix_has_ending(file, ".safetensors"))
            return mix_fail(err, MIX_BAD_FORMAT, "weight_map puts '%s' into '%s', which names no "
                            ".safetensors file of the folder", mix_json_key(at), file ? file : "?");
        if ((rc = mix_arena_text(&o->ckpt->m.arena, file, strlen(file), &name[kept++], err)))
            return rc;
    }
    if (kept)
        qsort(name, kept, sizeof *name, by_bytes);
    for (size_t i = 0; i < kept; i++)
        if (!*count || strcmp(name[*count - 1], name[i]))
            name[(*count)++] = name[i];
    *out = name;
    return MIX_OK;
}

static enum mix_rc read_index(struct mix_opening *o, const char ***name, size_t *count,
                              struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_json_doc *doc = NULL;
    const struct mix_json *map;
    enum mix_rc rc;

    *count = 0;
    if ((rc = mix_store_read_all(ckpt->store, index_name, MIX_INDEX_LIMIT, &text, err)) ||
        (rc = mix_arena_text(&ckpt->m.arena, text.data, text.len, &ckpt->index, err)) ||
        (rc = mix_json_parse(text.data, text.len, &doc, err)))
        goto out;
    ckpt->index_len = text.len;
    map = mix_json_get(mix_json_root(doc), "weight_map");
    if (!map || mix_json_kind(map) != MIX_JSON_OBJECT)
        rc = mix_fail(err, MIX_BAD_FORMAT, "there is no object 'weight_map'");
    else
        rc = files_of_index(o, map, name, count, err);
out:
    mix_json_free(doc);
    mix_buf_release(&text);
    return mix_opening_fault(o, index_name, rc, err);
}

/* "model-00003-of-00019.safetensors" or "model.safetensors": the format's own pattern. */
static bool has_weight_pattern(const char *name)
{
    int used = 0;

    if (!strcmp(name, "model.safetensors"))
        return true;
    sscanf(name, "model-%*5[0-9]-of-%*5[0-9].safetensors%n", &used);
    return used && !name[used];
}

static int is_origin(const void *name, const void *origin)
{
    return strcmp(name, ((const struct mix_origin_file *)origin)->name);
}

/* The weight files stand sorted, as files_of_index() has left them. */
static bool is_listed(const struct mix_checkpoint *ckpt, const char *name)
{
    return ckpt->origin_count && bsearch(name, ckpt->origin, ckpt->origin_count,
                                         sizeof *ckpt->origin, is_origin);
}

static enum mix_rc add_carried(struct mix_opening *o, const char *name, struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_carried_file *c = &ckpt->carried[ckpt->carried_count];
    struct mix_stat st;
    enum mix_rc rc;

    if ((rc = mix_store_stat(ckpt->store, name, &st, err)))
        return rc == MIX_NOT_FOUND /* a dangling link */
                   ? mix_texts_add(&ckpt->warnings, err, "%s: cannot be read, left out", name)
                   : mix_err_file(err, name);
    if (!mix_is_carried_name(name) || mix_path_check(name, err))
        return mix_texts_add(&ckpt->warnings, err,
                             "%s: no file of this name can be carried along, left out", name);
    if (st.bytes > MIX_CARRIED_LIMIT)
        return mix_texts_add(&ckpt->warnings, err,
                             "%s: %" PRIu64 " bytes are too many to carry along, left out", name,
                             st.bytes);
    if ((rc = mix_arena_text(&ckpt->m.arena, name, strlen(name), &c->name, err)))
        return rc;
    c->path = c->name;
    c->bytes = st.bytes;
    ckpt->carried_count++;
    return MIX_OK;
}

/* Everything beside the weights: what travels, what does not, what should not be there. */
static enum mix_rc look_around(struct mix_opening *o, struct mix_err *err)
{
    struct mix_checkpoint *ckpt = o->ckpt;
    struct mix_names names = MIX_NAMES_INIT;
    size_t weights = 0;
    const char *a_weight = NULL;
    enum mix_rc rc;

    if ((rc = mix_store_list(ckpt->store, ".", &names, err)) ||
        (rc = mix_arena_new(&ckpt->m.arena, &ckpt->carried,
                            names.count * sizeof *ckpt->carried, err)))
        goto out;
    for (size_t i = 0; i < names.count && !rc; i++) {
        const char *name = names.name[i];
        size_t len = strlen(name);

        if (!strcmp(name, index_name) || !strncmp(name, ".nfs", 4))
            continue;
        if (name[len - 1] == '/') {
            if (strcmp(name, "lost+found/"))
                rc = mix_texts_add(&ckpt->warnings, err,
                                   "%s: folders are not carried along, left out", name);
        } else if (!mix_is_weight_file(name)) {
            rc = add_carried(o, name, err);
        } else if (!is_listed(ckpt, name)) {
            if (o->defects && has_weight_pattern(name))
                rc = mix_defects_add(o->defects, "unexpected", name, NULL, 0, 0, err,
                                     "no index lists this weight file");
            a_weight = weights++ ? a_weight : name;
        }
    }
    if (!rc && weights)
        rc = mix_texts_add(&ckpt->warnings, err,
                           weights > 1 ? "%zu weight files that the index does not name are left "
                                         "out (%s, ...)"
                                       : "%zu weight file that the index does not name is left "
                                         "out (%s)", weights, a_weight);
out:
    mix_names_release(&names);
    return rc;
}

static enum mix_rc read_config(struct mix_opening *o, struct mix_err *err)
{
    struct mix_buf text = MIX_BUF_INIT;
    enum mix_rc rc = mix_store_read_all(o->ckpt->store, "config.json", MIX_CONFIG_LIMIT, &text,
                                        err);

    if (rc == MIX_NOT_FOUND)
        rc = mix_texts_add(&o->ckpt->warnings, err,
                           "there is no config.json: names and shapes are not checked");
    else if (rc)
        rc = mix_opening_fault(o, "config.json", rc, err);
    else
        rc = mix_opening_config(o, "config.json", text.data, text.len, err);
    mix_buf_release(&text);
    return rc;
}

enum mix_rc mix_opening_hf(struct mix_opening *o, const char *only, struct mix_err *err)
{
    static const char *single = "model.safetensors";
    struct mix_stat st;
    const char **name = only ? &only : &single;
    size_t count = 1;
    enum mix_rc rc;

    o->ckpt->form = only ? MIX_FORM_SAFETENSORS : MIX_FORM_HF;
    if (only)
        return add_weight_files(o, name, 1, err);
    rc = mix_store_stat(o->ckpt->store, index_name, &st, err);
    if (!rc)
        rc = read_index(o, &name, &count, err);
    else if (rc == MIX_NOT_FOUND)
        rc = MIX_OK;
    if (rc || (rc = read_config(o, err)) || (rc = add_weight_files(o, name, count, err)))
        return rc;
    return look_around(o, err);
}

/* ---- the index against the files ---- */

/* A disagreement that loses nothing: a defect for `verify`, a warning for everyone else. */
static enum mix_rc disagreement(struct mix_opening *o, const char *tensor, struct mix_err *err,
                                const char *words)
{
    if (o->defects)
        return mix_defects_add(o->defects, "bad-format", index_name, tensor, 0, 0, err, "%s",
                               words);
    return mix_texts_add(&o->ckpt->warnings, err, "%s: %s", index_name, words);
}

/* Every name of the index stands in the file that the index says. */
static enum mix_rc check_map(struct mix_opening *o, const struct mix_json *map, bool *seen,
                             struct mix_err *err)
{
    const struct mix_manifest *m = &o->ckpt->m;
    enum mix_rc rc = MIX_OK;

    for (const struct mix_json *at = mix_json_first(map); at && !rc; at = mix_json_next(at)) {
        const char *name = mix_json_key(at), *file = mix_json_string(at);
        const struct mix_ckpt_tensor *t = mix_manifest_find(m, name);

        if (t && !strcmp(m->file[t->file].name, file)) {
            seen[t - m->tensor] = true;
            continue;
        }
        if (!t && o->defects && !is_listed(o->ckpt, file))
            continue; /* the whole file is missing or broken, and said to be */
        rc = mix_fail(err, MIX_NOT_FOUND, "tensor '%s' is not in this file, where %s says it is",
                      name, index_name);
        mix_err_tensor(err, name, 0, 0);
        rc = mix_opening_fault(o, file, rc, err);
    }
    return rc;
}

static enum mix_rc check_total(struct mix_opening *o, const struct mix_json *root,
                               struct mix_err *err)
{
    const struct mix_manifest *m = &o->ckpt->m;
    uint64_t said, found = 0;
    char words[160];

    if (!mix_json_u64(mix_json_get(mix_json_get(root, "metadata"), "total_size"), &said))
        return MIX_OK;
    for (size_t i = 0; i < m->tensor_count; i++)
        found += m->tensor[i].bytes;
    if (found == said)
        return MIX_OK;
    snprintf(words, sizeof words, "total_size is %" PRIu64 ", the tensors have %" PRIu64 " bytes",
             said, found);
    return disagreement(o, NULL, err, words);
}

enum mix_rc mix_opening_hf_index(struct mix_opening *o, struct mix_err *err)
{
    const struct mix_manifest *m = &o->ckpt->m;
    struct mix_json_doc *doc = NULL;
    const struct mix_json *map;
    bool *seen = NULL;
    char words[640];
    enum mix_rc rc;

    if (!o->ckpt->index)
        return MIX_OK;
    if ((rc = mix_json_parse(o->ckpt->index, o->ckpt->index_len, &doc, err))) {
        rc = o->defects ? MIX_OK : rc; /* said when it was read */
        goto out;
    }
    map = mix_json_get(mix_json_root(doc), "weight_map");
    if (!map || mix_json_kind(map) != MIX_JSON_OBJECT)
        goto out; /* likewise */
    if ((rc = mix_new_array(&seen, m->tensor_count, sizeof *seen, err)) ||
        (rc = check_map(o, map, seen, err)) || (rc = check_total(o, mix_json_root(doc), err)))
        goto out;
    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        if (seen[i])
            continue;
        snprintf(words, sizeof words, "does not name the tensor '%s' of %s", m->tensor[i].name,
                 m->file[m->tensor[i].file].name);
        rc = disagreement(o, m->tensor[i].name, err, words);
    }
out:
    free(seen);
    mix_json_free(doc);
    return rc;
}
