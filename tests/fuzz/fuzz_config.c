/*
 * fuzz_config.c - any bytes as a config.json: no crash, and a geometry that is handed
 * out keeps its promises: every tensor of it has a name that is matched and a shape.
 */
#include <stdlib.h>
#include <string.h>

#include "ckpt/names/families.h"
#include "ckpt/names/geometry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

struct walk {
    const struct mix_geometry *geometry;
    size_t left; /* a hostile config has 2^31 layers */
};

static enum mix_rc check_tensor(void *context, const char *name,
                                const struct mix_family_tensor *tensor, struct mix_err *err)
{
    struct walk *walk = context;
    struct mix_name_match match;
    uint64_t shape[2];
    size_t rank = mix_family_shape(tensor, walk->geometry, shape);

    mix_family_match(walk->geometry->family, name, strlen(name), &match);
    check(match.tensor == tensor);
    check((rank == 1 || rank == 2) && shape[0] && (rank == 1 || shape[1]));
    return --walk->left ? MIX_OK : mix_fail(err, MIX_INTERRUPTED, "enough");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mix_geometry g;
    struct mix_err err = { 0 };
    struct mix_name_match match;

    /* The same bytes as a tensor's name, too. */
    mix_family_match(mix_family_find("mixtral"), (const char *)data, size, &match);
    if (mix_geometry_parse((const char *)data, size, &g, &err)) {
        check(err.text[0] && !g.family && !g.hidden);
        return 0;
    }
    if (!g.family)
        return 0;
    check(g.heads % g.kv_heads == 0 && g.topk <= g.experts && g.head_dim > 0);
    check(g.initializer_range >= 0);
    struct walk walk = { &g, 300 };
    enum mix_rc rc = mix_family_walk(&g, check_tensor, &walk, &err);
    check(!rc || rc == MIX_INTERRUPTED);
    return 0;
}
