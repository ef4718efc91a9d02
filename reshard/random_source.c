/* random_source.c - the tensors of a model from its config.json, and values for them. */
#include "reshard/random_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/json.h"
#include "ckpt/names/families.h"

struct mix_random_tensor {
    uint64_t key;  /* of (seed, name): where its numbers come from */
    float scale;   /* of z, or the constant */
    enum { CONSTANT, NORMAL, SQUARE } kind;
};

static const struct {
    const char *suffix;
    float scale;
    int kind;
} states[] = {
    { "@exp_avg", 1e-3f, NORMAL },
    { "@exp_avg_sq", 1e-6f, SQUARE },
};

/* ---- numbers ---- */

/* The finaliser of splitmix64: every bit of the input moves every bit of the output. */
static inline uint64_t mix64(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* The four 16-bit numbers of a word, added. */
static inline uint32_t add4(uint64_t x)
{
    x = (x & UINT64_C(0x0000ffff0000ffff)) + (x >> 16 & UINT64_C(0x0000ffff0000ffff));
    return (uint32_t)x + (uint32_t)(x >> 32);
}

/* Nearly normal: mean 0, variance 1, within +-6. Twelve uniforms, as integers. */
static inline float z_value(uint64_t key, uint64_t i)
{
    uint64_t at = key + 3 * i * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t sum = add4(mix64(at)) + add4(mix64(at + UINT64_C(0x9e3779b97f4a7c15))) +
                   add4(mix64(at + 2 * UINT64_C(0x9e3779b97f4a7c15)));

    /* 12 numbers have a mean of 6 * 65535; the difference fits a float exactly. */
    return (float)((int32_t)sum - 6 * 65535) * (1.0f / 65536);
}

static void make_values(const struct mix_random_tensor *how, uint64_t first, size_t count,
                        float *out)
{
    for (size_t i = 0; i < count; i++) {
        float z = how->kind == CONSTANT ? 1.0f : z_value(how->key, first + i);

        out[i] = how->scale * (how->kind == SQUARE ? z * z : z);
    }
}

static void round_values(enum mix_dtype dtype, const float *from, size_t count, void *to)
{
    uint16_t *half = to;

    if (dtype == MIX_F32)
        memcpy(to, from, count * sizeof *from);
    else if (dtype == MIX_BF16)
        for (size_t i = 0; i < count; i++)
            half[i] = mix_f32_to_bf16(from[i]);
    else
        for (size_t i = 0; i < count; i++)
            half[i] = mix_f32_to_f16(from[i]);
}

void mix_random_read(const struct mix_random_source *source, uint32_t tensor, uint64_t begin,
                     uint64_t end, void *buf)
{
    enum { BLOCK = 1024 };
    enum mix_dtype dtype = source->m.tensor[tensor].dtype;
    unsigned width = mix_dtype_bits(dtype) / 8;
    float value[BLOCK];
    unsigned char rounded[BLOCK * 4];

    for (uint64_t at = begin; at < end;) {
        uint64_t first = at / width;
        size_t count = (size_t)mix_min(BLOCK, mix_div_up(end, width) - first);
        uint64_t skip = at - first * width, n = mix_min(count * width - skip, end - at);

        make_values(&source->how[tensor], first, count, value);
        round_values(dtype, value, count, rounded);
        memcpy((unsigned char *)buf + (at - begin), rounded + skip, n);
        at += n;
    }
}

/* ---- tensors ---- */

struct listing {
    struct mix_random_source *source;
    struct mix_ckpt_tensor *tensor; /* unsorted */
    struct mix_random_tensor *how;
    size_t count, tensor_capacity, how_capacity;
    enum mix_dtype dtype;
    bool optimizer;
};

static uint64_t key_of(uint64_t seed, const char *name)
{
    struct mix_sha256 sha;
    unsigned char bytes[32];

    mix_store_le(bytes, seed, 8);
    mix_sha256_init(&sha);
    mix_sha256_put(&sha, bytes, 8);
    mix_sha256_put(&sha, name, strlen(name));
    mix_sha256_end(&sha, bytes);
    return mix_load_le(bytes, 8);
}

static enum mix_rc add(struct listing *l, const char *name, const char *suffix,
                       const struct mix_family_tensor *row, enum mix_dtype dtype,
                       struct mix_random_tensor how, struct mix_err *err)
{
    struct mix_arena *arena = &l->source->m.arena;
    struct mix_buf full = MIX_BUF_INIT;
    struct mix_ckpt_tensor *t;
    uint64_t *shape;
    enum mix_rc rc;

    if ((rc = mix_grow(&l->tensor, &l->tensor_capacity, l->count, sizeof *l->tensor, err)) ||
        (rc = mix_grow(&l->how, &l->how_capacity, l->count, sizeof *l->how, err)) ||
        (rc = mix_arena_new(arena, &shape, 2 * sizeof *shape, err)) ||
        (rc = mix_buf_putf(&full, err, "%s%s", name, suffix)))
        goto out;
    t = &l->tensor[l->count];
    *t = (struct mix_ckpt_tensor){ .dtype = dtype, .shape = shape };
    t->rank = (uint32_t)mix_family_shape(row, &l->source->geometry, shape);
    if ((rc = mix_arena_text(arena, full.data, full.len, &t->name, err)) ||
        (rc = mix_dtype_bytes(dtype, t->rank, shape, &t->bytes, err)))
        goto out;
    mix_cut_init(&t->cut, t->dtype, t->rank, t->shape, 1, 1, 1);
    t->offset = l->count; /* for now: its place in `how`, kept over the sorting */
    l->how[l->count++] = how;
out:
    mix_buf_release(&full);
    return rc;
}

static enum mix_rc add_tensor(void *context, const char *name,
                              const struct mix_family_tensor *row, struct mix_err *err)
{
    struct listing *l = context;
    uint64_t seed = l->source->seed;
    struct mix_random_tensor how = {
        .key = key_of(seed, name),
        .scale = row->init == MIX_INIT_ONE ? 1.0f : (float)l->source->geometry.initializer_range,
        .kind = row->init == MIX_INIT_ONE ? CONSTANT : NORMAL,
    };
    char full[512];
    enum mix_rc rc;

    if ((rc = add(l, name, "", row, l->dtype, how, err)) || !l->optimizer)
        return rc;
    if ((rc = add(l, name, "@master", row, MIX_F32, how, err)))
        return rc;
    for (size_t i = 0; i < MIX_ARRAY_LEN(states) && !rc; i++) {
        snprintf(full, sizeof full, "%s%s", name, states[i].suffix);
        rc = add(l, name, states[i].suffix, row, MIX_F32,
                 (struct mix_random_tensor){ key_of(seed, full), states[i].scale,
                                             states[i].kind }, err);
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mix_ckpt_tensor *)a)->name,
                  ((const struct mix_ckpt_tensor *)b)->name);
}

/* Sort the tensors, and how they are made along with them. */
static enum mix_rc settle(struct listing *l, struct mix_err *err)
{
    struct mix_random_source *source = l->source;
    struct mix_manifest *m = &source->m;
    enum mix_rc rc;

    if ((rc = mix_arena_new(&m->arena, &m->tensor, l->count * sizeof *m->tensor, err)) ||
        (rc = mix_arena_new(&m->arena, &source->how, l->count * sizeof *l->how, err)))
        return rc;
    qsort(l->tensor, l->count, sizeof *l->tensor, by_name);
    for (size_t i = 0; i < l->count; i++) {
        source->how[i] = l->how[l->tensor[i].offset];
        m->tensor[i] = l->tensor[i];
        m->tensor[i].offset = 0;
    }
    m->tensor_count = l->count;
    return mix_manifest_number(m, err);
}

static enum mix_rc keep_config(struct mix_random_source *source, const char *config,
                               size_t len, struct mix_err *err)
{
    struct mix_json_doc *doc = NULL;
    struct mix_buf canonical = MIX_BUF_INIT;
    enum mix_rc rc;

    if (!(rc = mix_json_parse(config, len, &doc, err)) &&
        !(rc = mix_json_emit(mix_json_root(doc), &canonical, err)) &&
        !(rc = mix_arena_text(&source->m.arena, canonical.data, canonical.len, &source->m.model,
                              err)))
        rc = mix_arena_text(&source->m.arena, config, len, &source->config, err);
    source->config_len = len;
    mix_json_free(doc);
    mix_buf_release(&canonical);
    return rc;
}

enum mix_rc mix_random_open(const char *config, size_t len,
                            const struct mix_random_options *options,
                            struct mix_random_source *out, struct mix_err *err)
{
    struct listing l = { .source = out, .optimizer = options->optimizer };
    enum mix_rc rc;

    memset(out, 0, sizeof *out);
    out->seed = options->seed;
    if ((rc = mix_geometry_parse(config, len, &out->geometry, err)))
        return rc;
    if (!out->geometry.family)
        return mix_fail(err, MIX_UNSUPPORTED, "model_type '%s' is not one whose tensors are known",
                        out->geometry.model_type);
    l.dtype = options->has_dtype        ? options->dtype
              : out->geometry.has_dtype ? out->geometry.dtype
                                        : MIX_BF16;
    if (l.dtype != MIX_BF16 && l.dtype != MIX_F16 && l.dtype != MIX_F32)
        return mix_fail(err, MIX_UNSUPPORTED, "random weights come as BF16, F16 or F32, not %s",
                        mix_dtype_name(l.dtype));
    if ((rc = keep_config(out, config, len, err)) ||
        (rc = mix_family_walk(&out->geometry, add_tensor, &l, err)) || (rc = settle(&l, err)))
        mix_random_close(out);
    free(l.tensor);
    free(l.how);
    return rc;
}

void mix_random_close(struct mix_random_source *source)
{
    mix_manifest_release(&source->m);
    memset(source, 0, sizeof *source);
}
