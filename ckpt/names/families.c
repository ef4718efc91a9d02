/* families.c - the tables of tensor names, and the few functions that read them. */
#include "ckpt/names/families.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/names/geometry.h"

/* ---- the tables ---- */

#define H MIX_SIZE_HIDDEN
#define F MIX_SIZE_INTERMEDIATE
#define V MIX_SIZE_VOCAB
#define E MIX_SIZE_EXPERTS
#define Q MIX_SIZE_Q
#define KV MIX_SIZE_KV
#define LAYER "model.layers.{L}."
#define EXPERT LAYER "block_sparse_moe.experts.{E}."

/*
 * As transformers names them. Rows of a layer stand together, and so do the rows of
 * an expert within it: mix_family_walk() goes by that. Tensor parallelism cuts what
 * widens (q, k, v, w1, w3) by rows and what narrows (o, w2) by columns, as Megatron
 * does; the router and the norms are needed whole by everybody.
 */
static const struct mix_family_tensor mixtral_tensor[] = {
    { "model.embed_tokens.weight", { V, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, false },
    { LAYER "input_layernorm.weight", { H }, MIX_TP_NONE, MIX_INIT_ONE, false },
    { LAYER "self_attn.q_proj.weight", { Q, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, false },
    { LAYER "self_attn.k_proj.weight", { KV, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, false },
    { LAYER "self_attn.v_proj.weight", { KV, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, false },
    { LAYER "self_attn.o_proj.weight", { H, Q }, MIX_TP_COLUMNS, MIX_INIT_NORMAL, false },
    { LAYER "post_attention_layernorm.weight", { H }, MIX_TP_NONE, MIX_INIT_ONE, false },
    { LAYER "block_sparse_moe.gate.weight", { E, H }, MIX_TP_NONE, MIX_INIT_NORMAL, false },
    { EXPERT "w1.weight", { F, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, false },
    { EXPERT "w2.weight", { H, F }, MIX_TP_COLUMNS, MIX_INIT_NORMAL, false },
    { EXPERT "w3.weight", { F, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, false },
    { "model.norm.weight", { H }, MIX_TP_NONE, MIX_INIT_ONE, false },
    { "lm_head.weight", { V, H }, MIX_TP_ROWS, MIX_INIT_NORMAL, true },
};

#undef H
#undef F
#undef V
#undef E
#undef Q
#undef KV
#undef LAYER
#undef EXPERT

static const struct mix_family family_table[] = {
    { "mixtral", mixtral_tensor, MIX_ARRAY_LEN(mixtral_tensor) },
};

const struct mix_family *mix_family_find(const char *model_type)
{
    for (size_t i = 0; i < MIX_ARRAY_LEN(family_table); i++)
        if (!strcmp(family_table[i].model_type, model_type))
            return &family_table[i];
    return NULL;
}

/* ---- names ---- */

/* The decimal number at name[*at, len), without leading zeros; moves *at behind it. */
static bool take_number(const char *name, size_t len, size_t *at, uint64_t *out)
{
    size_t begin = *at;
    uint64_t value = 0;

    for (; *at < len && name[*at] >= '0' && name[*at] <= '9'; ++*at)
        if (!mix_mul(value, 10, &value) ||
            !mix_add(value, (uint64_t)(name[*at] - '0'), &value))
            return false;
    if (*at == begin || (name[begin] == '0' && *at - begin > 1))
        return false;
    *out = value;
    return true;
}

static bool match_row(const struct mix_family_tensor *row, const char *name, size_t len,
                      struct mix_name_match *out)
{
    const char *p = row->pattern;
    size_t at = 0;

    *out = (struct mix_name_match){ .tensor = row };
    while (*p) {
        if (!strncmp(p, "{L}", 3)) {
            out->has_layer = true;
            if (!take_number(name, len, &at, &out->layer))
                return false;
            p += 3;
        } else if (!strncmp(p, "{E}", 3)) {
            out->has_expert = true;
            if (!take_number(name, len, &at, &out->expert))
                return false;
            p += 3;
        } else if (at < len && name[at] == *p) {
            at++;
            p++;
        } else {
            return false;
        }
    }
    return at == len;
}

void mix_family_match(const struct mix_family *family, const char *name, size_t name_len,
                      struct mix_name_match *out)
{
    for (size_t i = 0; i < family->tensor_count; i++)
        if (match_row(&family->tensor[i], name, name_len, out))
            return;
    *out = (struct mix_name_match){ 0 };
}

size_t mix_name_split(const char *name, const char **suffix)
{
    static const char *const known[] = { "@exp_avg", "@exp_avg_sq", "@master" };
    const char *at = strchr(name, '@');

    *suffix = NULL;
    for (size_t i = 0; i < MIX_ARRAY_LEN(known); i++)
        if (at && !strcmp(at, known[i]))
            *suffix = known[i];
    return *suffix ? (size_t)(at - name) : strlen(name);
}

/* ---- shapes ---- */

static uint64_t size_of(enum mix_size size, const struct mix_geometry *g)
{
    switch (size) {
    case MIX_SIZE_HIDDEN:       return g->hidden;
    case MIX_SIZE_INTERMEDIATE: return g->intermediate;
    case MIX_SIZE_VOCAB:        return g->vocab;
    case MIX_SIZE_EXPERTS:      return g->experts;
    case MIX_SIZE_Q:            return g->heads * g->head_dim; /* each at most 2^31 */
    case MIX_SIZE_KV:           return g->kv_heads * g->head_dim;
    case MIX_SIZE_NONE:         break;
    }
    return 0;
}

size_t mix_family_shape(const struct mix_family_tensor *tensor,
                        const struct mix_geometry *geometry, uint64_t shape[2])
{
    shape[0] = size_of(tensor->shape[0], geometry);
    shape[1] = size_of(tensor->shape[1], geometry);
    return tensor->shape[1] == MIX_SIZE_NONE ? 1 : 2;
}

/* ---- the walk ---- */

struct walk {
    const struct mix_geometry *geometry;
    enum mix_rc (*each)(void *context, const char *name,
                        const struct mix_family_tensor *tensor, struct mix_err *err);
    void *context;
    struct mix_err *err;
    uint64_t layer, expert; /* what {L} and {E} stand for now */
};

/* The name of `row` for this layer and expert. */
static void spell(const struct walk *w, const char *pattern, char *out, size_t room)
{
    size_t len = 0;

    while (*pattern && len + 24 < room) { /* a number has at most 20 digits */
        bool layer = !strncmp(pattern, "{L}", 3), expert = !strncmp(pattern, "{E}", 3);

        if (layer || expert) {
            len += (size_t)snprintf(out + len, room - len, "%" PRIu64,
                                    layer ? w->layer : w->expert);
            pattern += 3;
        } else {
            out[len++] = *pattern++;
        }
    }
    out[len] = '\0';
}

static enum mix_rc visit(const struct walk *w, const struct mix_family_tensor *row)
{
    char name[256]; /* patterns are ours, and short */

    if (row->untied_only && w->geometry->tied)
        return MIX_OK;
    spell(w, row->pattern, name, sizeof name);
    return w->each(w->context, name, row, w->err);
}

/* How many rows from `row` on hold `marker`, one behind the other. */
static size_t run_length(const struct mix_family_tensor *row, size_t count, const char *marker)
{
    size_t n = 0;

    while (n < count && strstr(row[n].pattern, marker))
        n++;
    return n;
}

static enum mix_rc walk_layer(struct walk *w, const struct mix_family_tensor *row,
                              size_t count)
{
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < count && !rc;) {
        size_t run = run_length(row + i, count - i, "{E}");

        if (!run) {
            rc = visit(w, &row[i++]);
            continue;
        }
        for (w->expert = 0; w->expert < w->geometry->experts && !rc; w->expert++)
            for (size_t k = 0; k < run && !rc; k++)
                rc = visit(w, &row[i + k]);
        i += run;
    }
    return rc;
}

enum mix_rc mix_family_walk(const struct mix_geometry *geometry,
                            enum mix_rc (*each)(void *context, const char *name,
                                                const struct mix_family_tensor *tensor,
                                                struct mix_err *err),
                            void *context, struct mix_err *err)
{
    const struct mix_family *family = geometry->family;
    struct walk w = { geometry, each, context, err, 0, 0 };
    enum mix_rc rc = MIX_OK;

    if (!family)
        return mix_fail(err, MIX_UNSUPPORTED, "no table of tensors knows the model type '%s'",
                        geometry->model_type);
    for (size_t i = 0; i < family->tensor_count && !rc;) {
        const struct mix_family_tensor *row = &family->tensor[i];
        size_t run = run_length(row, family->tensor_count - i, "{L}");

        if (!run) {
            rc = visit(&w, row);
            i++;
            continue;
        }
        for (w.layer = 0; w.layer < geometry->layers && !rc; w.layer++)
            rc = walk_layer(&w, row, run);
        i += run;
    }
    return rc;
}
