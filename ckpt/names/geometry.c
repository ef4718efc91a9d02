/*
 * geometry.c - config.json, as transformers 4 and 5 write it, to the sizes of a model.
 * Fields that say nothing about sizes (rope, dropout, tokens) are not looked at.
 */
#include "ckpt/names/geometry.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/json.h"
#include "ckpt/names/families.h"

typedef unsigned long long ull; /* what printf's %llu takes */

/* No model is near it, and products of two such sizes cannot wrap. */
static const uint64_t max_size = 1ull << 31;

/* A value as the words of an error show it: as JSON, cut if it is long. */
static const char *shown(const struct mix_json *value, char *out, size_t room)
{
    struct mix_buf text = MIX_BUF_INIT;
    size_t cut = room - sizeof "...";

    if (!value) {
        snprintf(out, room, "absent");
    } else if (mix_json_emit(value, &text, NULL)) {
        snprintf(out, room, "something else");
    } else if (text.len < room) {
        snprintf(out, room, "%s", text.data);
    } else {
        while ((text.data[cut] & 0xc0) == 0x80) /* never within a character */
            cut--;
        snprintf(out, room, "%.*s...", (int)cut, text.data);
    }
    mix_buf_release(&text);
    return out;
}

static enum mix_rc read_size(const struct mix_json *config, const char *field, uint64_t *out,
                             struct mix_err *err)
{
    const struct mix_json *value = mix_json_get(config, field);
    char text[80];

    if (mix_json_u64(value, out) && *out > 0 && *out <= max_size)
        return MIX_OK;
    return mix_fail(err, MIX_BAD_FORMAT, "%s is %s; a whole number from 1 to %llu is needed",
                    field, shown(value, text, sizeof text), (ull)max_size);
}

static enum mix_rc read_sizes(const struct mix_json *config, struct mix_geometry *g,
                              struct mix_err *err)
{
    static const struct {
        const char *field;
        size_t place;
    } table[] = {
        { "hidden_size", offsetof(struct mix_geometry, hidden) },
        { "intermediate_size", offsetof(struct mix_geometry, intermediate) },
        { "num_hidden_layers", offsetof(struct mix_geometry, layers) },
        { "num_attention_heads", offsetof(struct mix_geometry, heads) },
        { "num_key_value_heads", offsetof(struct mix_geometry, kv_heads) },
        { "num_local_experts", offsetof(struct mix_geometry, experts) },
        { "num_experts_per_tok", offsetof(struct mix_geometry, topk) },
        { "vocab_size", offsetof(struct mix_geometry, vocab) },
    };
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < MIX_ARRAY_LEN(table) && !rc; i++)
        rc = read_size(config, table[i].field, (uint64_t *)((char *)g + table[i].place), err);
    return rc;
}

static bool absent(const struct mix_json *value)
{
    return !value || mix_json_kind(value) == MIX_JSON_NULL;
}

/* Where it is not said, the heads share the hidden size; transformers rounds down too. */
static enum mix_rc read_head_dim(const struct mix_json *config, struct mix_geometry *g,
                                 struct mix_err *err)
{
    if (!absent(mix_json_get(config, "head_dim")))
        return read_size(config, "head_dim", &g->head_dim, err);
    g->head_dim = g->hidden / g->heads;
    if (!g->head_dim)
        return mix_fail(err, MIX_BAD_FORMAT, "num_attention_heads is %llu; with hidden_size "
                        "%llu and no head_dim at most %llu are possible", (ull)g->heads,
                        (ull)g->hidden, (ull)g->hidden);
    return MIX_OK;
}

static enum mix_rc check_fit(const struct mix_geometry *g, struct mix_err *err)
{
    if (g->heads % g->kv_heads)
        return mix_fail(err, MIX_BAD_FORMAT, "num_attention_heads is %llu, which is no "
                        "multiple of num_key_value_heads, %llu", (ull)g->heads,
                        (ull)g->kv_heads);
    if (g->topk > g->experts)
        return mix_fail(err, MIX_BAD_FORMAT, "num_experts_per_tok is %llu; num_local_experts "
                        "allows at most %llu", (ull)g->topk, (ull)g->experts);
    return MIX_OK;
}

/* transformers 5 calls it dtype, 4 torch_dtype; a spelling that is not here is no error. */
static void read_dtype(const struct mix_json *config, struct mix_geometry *g)
{
    static const struct {
        const char *name;
        enum mix_dtype dtype;
    } table[] = {
        { "bfloat16", MIX_BF16 }, { "float16", MIX_F16 }, { "float32", MIX_F32 },
        { "float64", MIX_F64 },   { "half", MIX_F16 },    { "float", MIX_F32 },
        { "double", MIX_F64 },
        { "float8_e4m3fn", MIX_F8_E4M3 }, { "float8_e5m2", MIX_F8_E5M2 },
    };
    const char *text = mix_json_string(mix_json_get(config, "dtype"));

    if (!text)
        text = mix_json_string(mix_json_get(config, "torch_dtype"));
    for (size_t i = 0; text && i < MIX_ARRAY_LEN(table); i++) {
        if (!strcmp(table[i].name, text)) {
            g->has_dtype = true;
            g->dtype = table[i].dtype;
        }
    }
}

static enum mix_rc read_options(const struct mix_json *config, struct mix_geometry *g,
                                struct mix_err *err)
{
    const struct mix_json *range = mix_json_get(config, "initializer_range");
    const struct mix_json *tied = mix_json_get(config, "tie_word_embeddings");
    char text[80];

    g->initializer_range = 0.02; /* both defaults are those of the class MixtralConfig */
    g->tied = false;
    if (!absent(range) && !(mix_json_double(range, &g->initializer_range) &&
                            g->initializer_range >= 0))
        return mix_fail(err, MIX_BAD_FORMAT, "initializer_range is %s; a number from 0 on is "
                        "needed", shown(range, text, sizeof text));
    if (!absent(tied) && !mix_json_bool(tied, &g->tied))
        return mix_fail(err, MIX_BAD_FORMAT, "tie_word_embeddings is %s; true or false is "
                        "needed", shown(tied, text, sizeof text));
    read_dtype(config, g);
    return MIX_OK;
}

static enum mix_rc read_model_type(const struct mix_json *config, struct mix_geometry *g,
                                   struct mix_err *err)
{
    const struct mix_json *value = mix_json_get(config, "model_type");
    const char *text = mix_json_string(value);
    char seen[80];

    if (absent(value))
        return MIX_OK;
    if (!text || strlen(text) >= sizeof g->model_type)
        return mix_fail(err, MIX_BAD_FORMAT, "model_type is %s; a string of at most %zu bytes "
                        "is needed", shown(value, seen, sizeof seen),
                        sizeof g->model_type - 1);
    memcpy(g->model_type, text, strlen(text));
    g->family = mix_family_find(text);
    return MIX_OK;
}

static enum mix_rc read_config(const struct mix_json *config, struct mix_geometry *g,
                               struct mix_err *err)
{
    enum mix_rc rc;

    if (mix_json_kind(config) != MIX_JSON_OBJECT)
        return mix_fail(err, MIX_BAD_FORMAT, "the configuration is no JSON object");
    if ((rc = read_model_type(config, g, err)))
        return rc;
    if (!g->family)
        return MIX_OK;
    if ((rc = read_sizes(config, g, err)) || (rc = read_head_dim(config, g, err)) ||
        (rc = check_fit(g, err)))
        return rc;
    return read_options(config, g, err);
}

enum mix_rc mix_geometry_parse(const char *text, size_t len, struct mix_geometry *out,
                               struct mix_err *err)
{
    struct mix_geometry g = { .initializer_range = 0.02 };
    struct mix_json_doc *doc = NULL;
    enum mix_rc rc;

    *out = (struct mix_geometry){ 0 };
    if (!(rc = mix_json_parse(text, len, &doc, err)) &&
        !(rc = read_config(mix_json_root(doc), &g, err)))
        *out = g;
    mix_json_free(doc);
    return rc;
}
