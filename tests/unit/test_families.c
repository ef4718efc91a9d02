/* Names of tensors: the Mixtral table against the published models, matching, walking. */
#include "ckpt/names/families.h"

#include "ckpt/names/geometry.h"
#include "tests/support/test.h"

static struct mix_geometry geometry_8x7b(void)
{
    struct mix_geometry g = {
        .model_type = "mixtral", .family = mix_family_find("mixtral"), .hidden = 4096,
        .intermediate = 14336, .layers = 32, .heads = 32, .kv_heads = 8, .head_dim = 128,
        .experts = 8, .topk = 2, .vocab = 32000,
    };

    return g;
}

static struct mix_geometry geometry_8x22b(void)
{
    struct mix_geometry g = geometry_8x7b();

    g.hidden = 6144;
    g.intermediate = 16384;
    g.layers = 56;
    g.heads = 48;
    return g;
}

/* Counts, and checks that a name that is made is matched as what it was made from. */
struct tally {
    const struct mix_geometry *geometry;
    uint64_t tensors, parameters, experts, norms;
    char first[128], last[128];
};

static enum mix_rc count(void *context, const char *name, const struct mix_family_tensor *tensor,
                         struct mix_err *err)
{
    struct tally *tally = context;
    struct mix_name_match match;
    uint64_t shape[2], elements;
    size_t rank = mix_family_shape(tensor, tally->geometry, shape);

    (void)err;
    test_row(name);
    assert_true(strlen(name) < sizeof tally->first);
    mix_family_match(tally->geometry->family, name, strlen(name), &match);
    assert_ptr_equal(match.tensor, tensor);
    assert_true(!match.has_layer || match.layer < tally->geometry->layers);
    assert_true(!match.has_expert || match.expert < tally->geometry->experts);

    elements = rank == 2 ? shape[0] * shape[1] : shape[0];
    tally->tensors++;
    tally->parameters += elements;
    tally->experts += match.has_expert ? elements : 0;
    tally->norms += tensor->init == MIX_INIT_ONE;
    if (tally->tensors == 1)
        strcpy(tally->first, name);
    strcpy(tally->last, name);
    return MIX_OK;
}

static struct tally tally_of(const struct mix_geometry *g)
{
    struct tally tally = { .geometry = g };
    struct mix_err err = { 0 };

    assert_ok(mix_family_walk(g, count, &tally, &err), &err);
    return tally;
}

static void test_families__mixtral_has_the_published_sizes(void **state)
{
    struct mix_geometry small = geometry_8x7b(), large = geometry_8x22b();
    struct tally tally = tally_of(&small);

    (void)state;
    assert_true(tally.tensors == 995);
    assert_true(tally.parameters == 46702792704);
    assert_true(tally.experts == 45097156608);
    assert_true(tally.norms == 65);
    assert_string_equal(tally.first, "model.embed_tokens.weight");
    assert_string_equal(tally.last, "lm_head.weight");

    tally = tally_of(&large);
    assert_true(tally.tensors == 1739);
    assert_true(tally.parameters == 140620634112);
    assert_true(tally.experts == 135291469824);

    small.tied = true;
    tally = tally_of(&small);
    assert_true(tally.tensors == 994);
    assert_string_equal(tally.last, "model.norm.weight");
}

static const struct {
    const char *name;
    size_t rank;
    uint64_t shape[2]; /* of 8x22B, where q and hidden differ from kv */
    enum mix_tp_cut tp;
    enum mix_init init;
    int64_t layer, expert; /* -1: has none */
} known[] = {
    { "model.embed_tokens.weight", 2, { 32000, 6144 }, MIX_TP_ROWS, MIX_INIT_NORMAL, -1, -1 },
    { "model.layers.0.input_layernorm.weight", 1, { 6144 }, MIX_TP_NONE, MIX_INIT_ONE, 0, -1 },
    { "model.layers.9.self_attn.q_proj.weight", 2, { 6144, 6144 }, MIX_TP_ROWS, MIX_INIT_NORMAL,
      9, -1 },
    { "model.layers.10.self_attn.k_proj.weight", 2, { 1024, 6144 }, MIX_TP_ROWS,
      MIX_INIT_NORMAL, 10, -1 },
    { "model.layers.55.self_attn.v_proj.weight", 2, { 1024, 6144 }, MIX_TP_ROWS,
      MIX_INIT_NORMAL, 55, -1 },
    { "model.layers.1.self_attn.o_proj.weight", 2, { 6144, 6144 }, MIX_TP_COLUMNS,
      MIX_INIT_NORMAL, 1, -1 },
    { "model.layers.1.post_attention_layernorm.weight", 1, { 6144 }, MIX_TP_NONE, MIX_INIT_ONE,
      1, -1 },
    { "model.layers.1.block_sparse_moe.gate.weight", 2, { 8, 6144 }, MIX_TP_NONE,
      MIX_INIT_NORMAL, 1, -1 },
    { "model.layers.1.block_sparse_moe.experts.0.w1.weight", 2, { 16384, 6144 }, MIX_TP_ROWS,
      MIX_INIT_NORMAL, 1, 0 },
    { "model.layers.1.block_sparse_moe.experts.7.w2.weight", 2, { 6144, 16384 },
      MIX_TP_COLUMNS, MIX_INIT_NORMAL, 1, 7 },
    { "model.layers.1.block_sparse_moe.experts.255.w3.weight", 2, { 16384, 6144 }, MIX_TP_ROWS,
      MIX_INIT_NORMAL, 1, 255 },
    { "model.layers.18446744073709551615.input_layernorm.weight", 1, { 6144 }, MIX_TP_NONE,
      MIX_INIT_ONE, -1 /* as a signed number */, -1 },
    { "model.norm.weight", 1, { 6144 }, MIX_TP_NONE, MIX_INIT_ONE, -1, -1 },
    { "lm_head.weight", 2, { 32000, 6144 }, MIX_TP_ROWS, MIX_INIT_NORMAL, -1, -1 },
};

static void test_families__rows_say_shape_and_cut(void **state)
{
    struct mix_geometry g = geometry_8x22b();

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(known); i++) {
        struct mix_name_match m;
        uint64_t shape[2];

        test_row(known[i].name);
        mix_family_match(g.family, known[i].name, strlen(known[i].name), &m);
        assert_non_null(m.tensor);
        assert_int_equal(mix_family_shape(m.tensor, &g, shape), known[i].rank);
        assert_int_equal(shape[0], known[i].shape[0]);
        assert_int_equal(shape[1], known[i].shape[1]);
        assert_int_equal(m.tensor->tp, known[i].tp);
        assert_int_equal(m.tensor->init, known[i].init);
        assert_int_equal(m.tensor->untied_only, !strcmp(known[i].name, "lm_head.weight"));
        assert_int_equal(m.has_layer, !!strstr(known[i].name, "layers"));
        assert_int_equal(m.has_expert, known[i].expert >= 0);
        if (m.has_layer)
            assert_true((int64_t)m.layer == known[i].layer);
        if (m.has_expert)
            assert_true((int64_t)m.expert == known[i].expert);
    }
}

static void test_families__names_that_no_rule_knows(void **state)
{
    static const char *const name[] = {
        "", "model", "lm_head.weight2", "lm_head.weigh", "lm_head.bias", "xlm_head.weight",
        "model.layers..input_layernorm.weight", "model.layers.01.input_layernorm.weight",
        "model.layers.-1.input_layernorm.weight", "model.layers.+1.input_layernorm.weight",
        "model.layers. 1.input_layernorm.weight", "model.layers.1", "model.layers.{L}",
        "model.layers.{L}.input_layernorm.weight", "model.layers.1x.input_layernorm.weight",
        "model.layers.18446744073709551616.input_layernorm.weight",
        "model.layers.0.block_sparse_moe.experts.00.w1.weight",
        "model.layers.0.block_sparse_moe.experts.w1.weight",
        "model.layers.0.block_sparse_moe.experts.0.w4.weight",
        "model.layers.0.block_sparse_moe.experts.0.w1.weight@master",
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(name); i++) {
        struct mix_name_match m;

        test_row(name[i]);
        mix_family_match(mix_family_find("mixtral"), name[i], strlen(name[i]), &m);
        assert_null(m.tensor);
        assert_false(m.has_layer || m.has_expert);
    }
    /* Only the length that is given counts. */
    struct mix_name_match m;
    mix_family_match(mix_family_find("mixtral"), "lm_head.weight@master", 14, &m);
    assert_non_null(m.tensor);
    mix_family_match(mix_family_find("mixtral"), "lm_head.weight", 13, &m);
    assert_null(m.tensor);
}

struct seen {
    char text[4096];
    size_t stop_at, count;
};

static enum mix_rc note(void *context, const char *name, const struct mix_family_tensor *tensor,
                        struct mix_err *err)
{
    struct seen *seen = context;

    (void)tensor;
    strcat(strcat(seen->text, name), "\n");
    return ++seen->count == seen->stop_at ? mix_fail(err, MIX_IO, "stop") : MIX_OK;
}

static void test_families__walks_layer_by_layer_and_stops(void **state)
{
    struct mix_geometry g = geometry_8x7b();
    struct seen seen = { .stop_at = 0 };
    struct mix_err err = { 0 };

    (void)state;
    g.layers = 2;
    g.experts = 2;
    assert_ok(mix_family_walk(&g, note, &seen, &err), &err);
    assert_int_equal(seen.count, 1 + 2 * (7 + 2 * 3) + 2);
    assert_text(seen.text, "model.embed_tokens.weight\n"
                           "model.layers.0.input_layernorm.weight\n"
                           "model.layers.0.self_attn.q_proj.weight\n");
    assert_text(seen.text, "model.layers.0.block_sparse_moe.gate.weight\n"
                           "model.layers.0.block_sparse_moe.experts.0.w1.weight\n"
                           "model.layers.0.block_sparse_moe.experts.0.w2.weight\n"
                           "model.layers.0.block_sparse_moe.experts.0.w3.weight\n"
                           "model.layers.0.block_sparse_moe.experts.1.w1.weight\n"
                           "model.layers.0.block_sparse_moe.experts.1.w2.weight\n"
                           "model.layers.0.block_sparse_moe.experts.1.w3.weight\n"
                           "model.layers.1.input_layernorm.weight\n");
    assert_text(seen.text, "model.layers.1.block_sparse_moe.experts.1.w3.weight\n"
                           "model.norm.weight\nlm_head.weight\n");

    for (size_t stop = 1; stop < seen.count; stop++) {
        struct seen part = { .stop_at = stop };

        assert_int_equal(mix_family_walk(&g, note, &part, &err), MIX_IO);
        assert_int_equal(part.count, stop);
    }

    g.family = NULL;
    strcpy(g.model_type, "llama");
    assert_int_equal(mix_family_walk(&g, note, &seen, &err), MIX_UNSUPPORTED);
    assert_text(err.text, "'llama'");
}

static void test_families__finds_by_model_type(void **state)
{
    (void)state;
    assert_string_equal(mix_family_find("mixtral")->model_type, "mixtral");
    assert_null(mix_family_find("Mixtral"));
    assert_null(mix_family_find("mixtral2"));
    assert_null(mix_family_find(""));
}

static void test_families__splits_the_suffix_off(void **state)
{
    static const struct {
        const char *name, *suffix; /* NULL: a weight */
        size_t len;
    } row[] = {
        { "w.weight", NULL, 8 },          { "w.weight@exp_avg", "@exp_avg", 8 },
        { "w.weight@exp_avg_sq", "@exp_avg_sq", 8 }, { "w.weight@master", "@master", 8 },
        { "w@exp", NULL, 5 },             { "w@exp_avg_", NULL, 10 },
        { "w@master@master", NULL, 15 },  { "@master", "@master", 0 },
        { "", NULL, 0 },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        const char *suffix = "untouched";

        test_row(row[i].name);
        assert_int_equal(mix_name_split(row[i].name, &suffix), row[i].len);
        if (row[i].suffix)
            assert_string_equal(suffix, row[i].suffix);
        else
            assert_null(suffix);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families__mixtral_has_the_published_sizes),
        cmocka_unit_test(test_families__rows_say_shape_and_cut),
        cmocka_unit_test(test_families__names_that_no_rule_knows),
        cmocka_unit_test(test_families__walks_layer_by_layer_and_stops),
        cmocka_unit_test(test_families__finds_by_model_type),
        cmocka_unit_test(test_families__splits_the_suffix_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
