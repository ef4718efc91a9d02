/*
 * Shards on a mesh, against the rules of MANIFEST.md spelled out once more here: for
 * random models and meshes every byte of every tensor lies in exactly one place, in the
 * file of the rank that the rules say.
 */
#include "reshard/target.h"

#include <stdlib.h>

#include "ckpt/digest_tree.h"
#include "reshard/random_source.h"
#include "tests/support/test.h"

static unsigned long long seed = 1;

/* 1, 2, ... n */
static uint64_t pick(uint64_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return 1 + (seed >> 33) % n;
}

/* A model whose sizes are multiples of what must be divisible, and of nothing else. */
struct sizes {
    uint64_t hidden, intermediate, layers, heads, kv_heads, experts, vocab;
    struct mix_mesh mesh;
};

static struct sizes random_sizes(void)
{
    struct sizes s = { .mesh = { pick(4), pick(9), pick(3) } };

    s.kv_heads = s.mesh.tp * pick(2);
    s.heads = s.kv_heads * pick(2);
    s.hidden = s.heads * 2 * pick(4);
    s.intermediate = s.mesh.tp * pick(13);
    s.experts = s.mesh.ep * pick(3);
    s.layers = pick(2);
    s.vocab = pick(40);
    return s;
}

static void open_source(const struct sizes *s, bool optimizer, struct mix_random_source *source)
{
    const struct mix_random_options options = { .has_dtype = true, .dtype = MIX_BF16,
                                                .optimizer = optimizer };
    struct mix_err err = { 0 };
    char config[1024];

    snprintf(config, sizeof config,
             "{\"model_type\":\"mixtral\",\"hidden_size\":%llu,\"intermediate_size\":%llu,"
             "\"num_hidden_layers\":%llu,\"num_attention_heads\":%llu,"
             "\"num_key_value_heads\":%llu,\"num_local_experts\":%llu,"
             "\"num_experts_per_tok\":1,\"vocab_size\":%llu}",
             (unsigned long long)s->hidden, (unsigned long long)s->intermediate,
             (unsigned long long)s->layers, (unsigned long long)s->heads,
             (unsigned long long)s->kv_heads, (unsigned long long)s->experts,
             (unsigned long long)s->vocab);
    test_row(config);
    assert_ok(mix_random_open(config, strlen(config), &options, source, &err), &err);
}

/* ---- the rules, again ---- */

struct rule {
    bool state, expert;
    uint64_t ep;
    enum { UNCUT, ROWS, COLUMNS } tp;
};

static struct rule rule_of(const char *name, const struct sizes *s)
{
    static const char *const by_rows[] = { "q_proj", "k_proj", "v_proj", ".w1.", ".w3.",
                                           "embed_tokens", "lm_head" };
    static const char *const by_columns[] = { "o_proj", ".w2." };
    const char *expert = strstr(name, ".experts.");
    struct rule r = { .state = strchr(name, '@') != NULL, .expert = expert != NULL };

    for (size_t i = 0; i < MIX_ARRAY_LEN(by_rows); i++)
        if (strstr(name, by_rows[i]))
            r.tp = ROWS;
    for (size_t i = 0; i < MIX_ARRAY_LEN(by_columns); i++)
        if (strstr(name, by_columns[i]))
            r.tp = COLUMNS;
    if (expert)
        r.ep = strtoull(expert + strlen(".experts."), NULL, 10) * s->mesh.ep / s->experts;
    return r;
}

/* Chunk r of D rows over W, relative to where the D rows begin. */
static void chunk(uint64_t d, uint64_t w, uint64_t r, uint64_t *begin, uint64_t *end)
{
    uint64_t c = (d + w - 1) / w;

    *begin = r * c < d ? r * c : d;
    *end = (r + 1) * c < d ? (r + 1) * c : d;
}

/* The rows and columns of a tensor that (hsd, tp) stores, or, if cut alike, holds. */
static void box_of(const struct rule *r, const struct mix_ckpt_tensor *t, const struct sizes *s,
                   uint64_t hsd, uint64_t tp, uint64_t rows[2], uint64_t columns[2])
{
    uint64_t d = t->rank ? t->shape[0] : 1, begin = 0, end = d;

    columns[0] = 0;
    columns[1] = t->rank > 1 ? t->shape[1] : 1;
    if (r->tp == ROWS)
        chunk(d, s->mesh.tp, tp, &begin, &end);
    if (r->tp == COLUMNS)
        chunk(t->shape[1], s->mesh.tp, tp, &columns[0], &columns[1]);
    chunk(end - begin, s->mesh.hsd, hsd, &rows[0], &rows[1]);
    rows[0] += begin;
    rows[1] += begin;
}

static void name_of(const struct rule *r, const struct sizes *s, uint64_t hsd, uint64_t tp,
                    const char *ending, char out[160])
{
    int n = sprintf(out, r->state ? "optimizer/" : "model/");

    n += r->expert ? sprintf(out + n, "experts-ep%05uof%05u", (unsigned)r->ep,
                             (unsigned)s->mesh.ep)
                   : sprintf(out + n, "dense");
    n += sprintf(out + n, "-hsd%05uof%05u", (unsigned)hsd, (unsigned)s->mesh.hsd);
    if (s->mesh.tp > 1)
        n += sprintf(out + n, "-tp%05uof%05u", (unsigned)tp, (unsigned)s->mesh.tp);
    sprintf(out + n, ".%s", ending);
}

/* ---- what the groups say ---- */

struct check {
    const struct mix_target *target;
    const struct sizes *sizes;
    unsigned char **painted;   /* [tensor][byte]: how often it is stored */
    bool *seen;                /* files */
    uint64_t tail_bytes;
};

/* A part of an item must be the box of some (hsd, tp), in the file of that name. */
static void check_part(struct check *c, const struct mix_group *group,
                       const struct mix_item *item, const struct mix_part *part)
{
    const struct mix_ckpt_tensor *t = &c->target->m.tensor[item->tensor];
    struct rule r = rule_of(t->name, c->sizes);
    uint64_t row_bytes = t->cut.row_bytes, matches = 0;
    char wanted[160];

    for (uint64_t hsd = 0; hsd < c->sizes->mesh.hsd; hsd++) {
        for (uint64_t tp = 0; tp < (r.tp == UNCUT ? 1 : c->sizes->mesh.tp); tp++) {
            uint64_t rows[2], columns[2], columns_all = t->rank > 1 ? t->shape[1] : 1;

            box_of(&r, t, c->sizes, hsd, tp, rows, columns);
            if (rows[0] == rows[1] || rows[0] * row_bytes != item->begin ||
                rows[1] * row_bytes != item->end ||
                columns[0] * row_bytes / columns_all != part->column_begin ||
                columns[1] * row_bytes / columns_all != part->column_end)
                continue;
            matches++;
            name_of(&r, c->sizes, hsd, tp,
                    mix_container_extension(c->target->m.container), wanted);
            assert_string_equal(group->file[part->file].name, wanted);
        }
    }
    assert_int_equal(matches, 1);
    for (uint64_t at = item->begin; at < item->end; at += row_bytes)
        for (uint64_t b = part->column_begin; b < part->column_end; b++)
            c->painted[item->tensor][at + b]++;
}

/* Pieces of a file: behind its header, in order, apart, within its size; names ascend. */
static void check_files(const struct check *c, const struct mix_group *group)
{
    for (uint32_t f = 0; f < group->file_count; f++) {
        const struct mix_group_file *file = &group->file[f];
        uint64_t at = file->header.len;
        const char *last = "";

        assert_string_equal(file->name, c->target->m.file[file->id].name);
        assert_false(c->seen[file->id]);
        c->seen[file->id] = true;
        for (size_t i = 0; i < group->item_count; i++) {
            const struct mix_item *item = &group->item[i];
            const struct mix_ckpt_tensor *t = &c->target->m.tensor[item->tensor];

            for (uint32_t k = 0; k < item->part_count; k++) {
                const struct mix_part *p = &group->part[item->part_first + k];

                if (p->file != f)
                    continue;
                assert_true(p->offset >= at);
                at = p->offset + (item->end - item->begin) / t->cut.row_bytes *
                                     (p->column_end - p->column_begin);
                assert_true(strcmp(last, t->name) < 0);
                last = t->name;
            }
        }
        assert_true(*last && at <= file->bytes);
    }
}

static void check_group(struct check *c, size_t g)
{
    struct mix_group group = MIX_GROUP_INIT;
    struct mix_err err = { 0 };

    assert_ok(c->target->build(c->target, g, &group, &err), &err);
    assert_true(group.item_count > 0);
    assert_int_equal(group.bytes, c->target->group_bytes[g]);
    for (size_t i = 0; i < group.item_count; i++) {
        const struct mix_item *item = &group.item[i];
        uint64_t all = c->target->m.tensor[item->tensor].bytes;

        for (uint32_t k = 0; k < item->part_count; k++)
            check_part(c, &group, item, &group.part[item->part_first + k]);
        for (uint64_t leaf = 0; leaf < all; leaf += MIX_LEAF_BYTES) {
            uint64_t end = leaf + MIX_LEAF_BYTES < all ? leaf + MIX_LEAF_BYTES : all;

            if (leaf >= item->begin && leaf < item->end && end > item->end)
                c->tail_bytes += end - item->end;
        }
    }
    check_files(c, &group);
    mix_group_release(&group);
}

/* A rank of the mesh holds its box of everything but the experts of other EP ranks. */
static void check_rank_bytes(const struct check *c)
{
    const struct mix_mesh *mesh = &c->sizes->mesh;

    for (uint64_t ep = 0; ep < mesh->ep; ep++) {
        for (uint64_t hsd = 0; hsd < mesh->hsd; hsd++) {
            for (uint64_t tp = 0; tp < mesh->tp; tp++) {
                uint64_t wanted = 0;

                for (size_t i = 0; i < c->target->m.tensor_count; i++) {
                    const struct mix_ckpt_tensor *t = &c->target->m.tensor[i];
                    struct rule r = rule_of(t->name, c->sizes);
                    uint64_t rows[2], columns[2], wide = t->rank > 1 ? t->shape[1] : 1;

                    box_of(&r, t, c->sizes, hsd, tp, rows, columns);
                    if (!r.expert || r.ep == ep)
                        wanted += (rows[1] - rows[0]) * (t->cut.row_bytes / wide) *
                                  (columns[1] - columns[0]);
                }
                assert_int_equal(mix_target_rank_bytes(c->target, ep, hsd, tp), wanted);
            }
        }
    }
}

static void check_target(const struct mix_target *target, const struct sizes *sizes)
{
    struct check c = { .target = target, .sizes = sizes };
    uint64_t bytes = 0;

    c.painted = calloc(target->m.tensor_count, sizeof *c.painted);
    c.seen = calloc(target->m.file_count, sizeof *c.seen);
    for (size_t i = 0; i < target->m.tensor_count; i++)
        c.painted[i] = calloc(target->m.tensor[i].bytes, 1);
    for (size_t g = 0; g < target->group_count; g++) {
        check_group(&c, g);
        bytes += target->group_bytes[g];
    }
    assert_int_equal(bytes, target->bytes);
    assert_int_equal(c.tail_bytes, target->tail_bytes);
    for (size_t i = 0; i < target->m.tensor_count; i++) {
        for (uint64_t b = 0; b < target->m.tensor[i].bytes; b++)
            assert_int_equal(c.painted[i][b], 1);
        free(c.painted[i]);
    }
    for (size_t f = 0; f < target->m.file_count; f++) {
        assert_true(c.seen[f]);
        assert_true(!f || strcmp(target->m.file[f - 1].name, target->m.file[f].name) < 0);
    }
    check_rank_bytes(&c);
    free(c.painted);
    free(c.seen);
}

static void test_layout__every_byte_lies_in_one_place_on_any_mesh(void **state)
{
    (void)state;
    for (int round = 0; round < 150; round++) {
        struct sizes sizes = random_sizes();
        struct mix_random_source source;
        struct mix_target target;
        struct mix_err err = { 0 };

        open_source(&sizes, round % 3 == 0, &source);
        assert_ok(mix_target_take(&target, &source.m, false, &err), &err);
        assert_ok(mix_target_shards(&target, &source.geometry,
                                    round % 2 ? MIX_HDF5 : MIX_SAFETENSORS, &sizes.mesh, &err),
                  &err);
        check_target(&target, &sizes);
        mix_target_release(&target);
        mix_random_close(&source);
    }
}

/* Leaves that end in another piece are counted: sizes above 65,536 bytes. */
static void test_layout__large_pieces(void **state)
{
    const struct sizes sizes = { .hidden = 136, .intermediate = 300, .layers = 1, .heads = 2,
                                 .kv_heads = 2, .experts = 2, .vocab = 997,
                                 .mesh = { 2, 3, 2 } };
    struct mix_random_source source;
    struct mix_target target;
    struct mix_err err = { 0 };

    (void)state;
    open_source(&sizes, true, &source);
    assert_ok(mix_target_take(&target, &source.m, false, &err), &err);
    assert_ok(mix_target_shards(&target, &source.geometry, MIX_HDF5, &sizes.mesh, &err), &err);
    assert_true(target.tail_bytes > 0);
    check_target(&target, &sizes);
    mix_target_release(&target);
    mix_random_close(&source);
}

static const struct {
    const char *what;
    struct mix_mesh mesh;
    const char *says;
} illegal[] = {
    { "ep does not divide", { 4, 1, 1 }, "ep 4 does not divide the 6 experts; legal are 1, 2, 3 and 6" },
    { "ep above", { 12, 1, 1 }, "legal are 1, 2, 3 and 6" },
    { "ep zero", { 0, 1, 1 }, "ep 0 does not divide" },
    { "ep huge", { UINT64_MAX, 1, 1 }, "does not divide the 6 experts" },
    { "tp does not divide the heads", { 1, 1, 3 }, "tp 3 does not divide the 8 key-value heads; legal are 1, 2, 4 and 8" },
    { "tp does not divide the rows", { 1, 1, 8 }, "tp 8 does not divide the 12 rows of the intermediate size" },
    { "tp zero", { 1, 1, 0 }, "tp 0 does not divide" },
    { "hsd zero", { 1, 0, 1 }, "hsd 0 is not possible; legal are 1 to 65536" },
    { "hsd huge", { 1, 65537, 1 }, "hsd 65537 is not possible" },
    { "too many ranks", { 6, 65536, 4 }, "a mesh of 1572864 ranks; at most 1048576 are possible" },
};

static void test_layout__says_which_degrees_are_legal(void **state)
{
    const struct sizes sizes = { .hidden = 16, .intermediate = 12, .layers = 1, .heads = 8,
                                 .kv_heads = 8, .experts = 6, .vocab = 10 };
    struct mix_random_source source;

    (void)state;
    open_source(&sizes, false, &source);
    for (size_t i = 0; i < MIX_ARRAY_LEN(illegal); i++) {
        struct mix_target target;
        struct mix_err err = { 0 };

        test_row(illegal[i].what);
        assert_ok(mix_target_take(&target, &source.m, false, &err), &err);
        assert_rc(mix_target_shards(&target, &source.geometry, MIX_HDF5, &illegal[i].mesh, &err),
                  MIX_USAGE, &err);
        assert_text(err.text, illegal[i].says);
        mix_target_release(&target);
    }
    mix_random_close(&source);
}

/* A model type that no table knows: rows by hsd, in dense files, and nothing else. */
static void test_layout__an_unknown_model_is_cut_by_rows(void **state)
{
    const uint64_t shape[] = { 5, 3 }, empty[] = { 0, 3 };
    struct mix_ckpt_tensor tensor[] = {
        { .name = "model.layers.0.block_sparse_moe.experts.1.w2.weight", .dtype = MIX_U8,
          .rank = 2, .shape = shape, .bytes = 15 },
        { .name = "none", .dtype = MIX_U8, .rank = 2, .shape = empty },
        { .name = "scalar", .dtype = MIX_F32, .bytes = 4 },
    };
    const struct mix_manifest list = { .tensor = tensor, .tensor_count = MIX_ARRAY_LEN(tensor) };
    const struct mix_mesh meshes[] = { { 1, 4, 1 }, { 2, 4, 1 }, { 1, 4, 2 } };
    struct mix_geometry geometry = { .model_type = "else" };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(meshes); i++) {
        struct mix_target target;
        struct mix_group group = MIX_GROUP_INIT;
        struct mix_err err = { 0 };

        assert_ok(mix_target_take(&target, &list, false, &err), &err);
        assert_rc(mix_target_shards(&target, &geometry, MIX_SAFETENSORS, &meshes[i], &err),
                  i ? MIX_USAGE : MIX_OK, &err);
        if (i) {
            assert_text(err.text, "model type else");
            assert_text(err.text, "only ep 1 and tp 1 are legal");
        } else { /* ceil(5 / 4) = 2 rows each: three files, and what has no rows in the first */
            assert_int_equal(target.m.file_count, 3);
            assert_int_equal(target.group_count, 3);
            assert_ok(target.build(&target, 0, &group, &err), &err);
            assert_int_equal(group.item_count, 3);
            assert_true(group.item[1].begin == 0 && group.item[1].end == 0);
            mix_group_release(&group);
        }
        mix_target_release(&target);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout__every_byte_lies_in_one_place_on_any_mesh),
        cmocka_unit_test(test_layout__large_pieces),
        cmocka_unit_test(test_layout__says_which_degrees_are_legal),
        cmocka_unit_test(test_layout__an_unknown_model_is_cut_by_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
