/*
 * Hugging Face folders: the files that came in are made again if they still fit, and
 * new ones are cut as transformers cuts them.
 */
#include "reshard/target.h"

#include "ckpt/format/safetensors.h"
#include "tests/support/test.h"

enum { MOST = 12 };

/* Tensors t00, t01, ... of U8 with these sizes. */
static void make_list(const uint64_t *size, size_t count, struct mix_ckpt_tensor *tensor)
{
    static const char *const name[MOST] = { "t00", "t01", "t02", "t03", "t04", "t05",
                                            "t06", "t07", "t08", "t09", "t10", "t11" };

    for (size_t i = 0; i < count; i++) {
        tensor[i] = (struct mix_ckpt_tensor){ .name = name[i], .dtype = MIX_U8, .rank = 1,
                                              .shape = &size[i], .bytes = size[i] };
        mix_cut_init(&tensor[i].cut, MIX_U8, 1, &size[i], 1, 1, 1);
    }
}

/*
 * Which file each tensor goes into ("a" the first): what huggingface_hub's
 * split_state_dict_into_shards_factory() answers for these sizes.
 */
static const struct {
    uint64_t size[MOST];
    size_t count;
    uint64_t limit;
    const char *file;
} cuts[] = {
    { { 5 }, 1, 10, "a" },
    { { 10, 10 }, 2, 10, "ab" },
    { { 11, 11 }, 2, 10, "ab" },
    { { 5, 20, 5 }, 3, 10, "bab" },
    { { 5, 5, 1 }, 3, 10, "aab" },
    { { 20, 1, 1 }, 3, 10, "abb" },
    { { 1, 20 }, 2, 10, "ba" },
    { { 1, 20, 20, 9, 1 }, 5, 10, "cabcd" },
    { { 0, 0, 0 }, 3, 10, "aaa" },
    { { 10, 0, 10 }, 3, 10, "aab" },
    { { 3, 3, 3, 3, 30, 3, 3 }, 7, 9, "aaacbcc" },
    { { 5, 1, 8, 12, 2, 1, 1 }, 7, 7, "ccabddd" },
    { { 40, 5, 0, 3, 40, 40, 7, 5, 2, 1 }, 10, 9, "adddbcefff" },
    { { 0, 5, 5, 3, 2, 5, 5 }, 7, 10, "aaabbbc" },
    { { 1, 7, 8, 40, 3, 2, 3, 12, 5 }, 9, 7, "adbceegfh" },
    { { 5, 0, 5, 5, 40, 3, 8, 8, 5, 8, 12, 2 }, 12, 7, "aabdcgefjhij" },
    { { 5, 0, 1, 0, 12, 5, 40, 40 }, 8, 10, "bbbbaecd" },
    { { 7, 2, 3, 1, 8, 3, 12, 5, 2, 7, 8 }, 11, 10, "aabbcedeefg" },
    { { 40, 3, 7, 1, 0, 3, 5, 3, 1 }, 9, 9, "abcccddee" },
};

/* The groups of a target tile its files: every tensor whole, in header order. */
static void check_groups(const struct mix_target *target)
{
    uint64_t bytes = 0;
    size_t tensors = 0;

    for (size_t g = 0; g < target->group_count; g++) {
        struct mix_group group = MIX_GROUP_INIT;
        struct mix_err err = { 0 };
        uint64_t at;

        assert_ok(target->build(target, g, &group, &err), &err);
        assert_int_equal(group.file_count, 1);
        assert_int_equal(group.bytes, target->group_bytes[g]);
        at = group.file[0].header.len;
        for (size_t i = 0; i < group.item_count; i++) {
            const struct mix_item *item = &group.item[i];
            const struct mix_ckpt_tensor *t = &target->m.tensor[item->tensor];

            assert_int_equal(item->part_count, 1);
            assert_true(item->begin == 0 && item->end == t->bytes);
            assert_true(group.part[item->part_first].offset == at && t->offset == at);
            assert_int_equal(t->file, g);
            at += t->bytes;
            tensors++;
        }
        assert_int_equal(at, group.file[0].bytes);
        assert_int_equal(at, target->m.file[g].bytes);
        bytes += group.bytes;
        mix_group_release(&group);
    }
    assert_int_equal(bytes, target->bytes);
    assert_int_equal(tensors, target->m.tensor_count);
}

static void test_hf_target__cuts_files_as_transformers_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(cuts); i++) {
        struct mix_ckpt_tensor tensor[MOST];
        const struct mix_manifest list = { .tensor = tensor, .tensor_count = cuts[i].count };
        struct mix_target target;
        struct mix_err err = { 0 };
        char file[MOST + 1] = "", name[64];
        size_t files = 0;

        test_row(cuts[i].file);
        make_list(cuts[i].size, cuts[i].count, tensor);
        assert_ok(mix_target_take(&target, &list, false, &err), &err);
        assert_ok(mix_target_hf(&target, NULL, 0, cuts[i].limit, &err), &err);
        for (size_t k = 0; k < cuts[i].count; k++) {
            file[k] = (char)('a' + target.m.tensor[k].file);
            files = mix_max(files, target.m.tensor[k].file + 1);
        }
        assert_string_equal(file, cuts[i].file);
        assert_int_equal(target.m.file_count, files);
        for (size_t f = 0; f < files; f++) {
            snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", (unsigned)f + 1,
                     (unsigned)files);
            assert_string_equal(target.m.file[f].name, files > 1 ? name : "model.safetensors");
        }
        check_groups(&target);
        assert_non_null(target.remade);
        mix_target_release(&target);
    }
}

static void test_hf_target__no_tensors_are_one_file(void **state)
{
    const struct mix_manifest list = { .tensor_count = 0 };
    struct mix_target target;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_target_take(&target, &list, false, &err), &err);
    assert_ok(mix_target_hf(&target, NULL, 0, 0, &err), &err);
    assert_int_equal(target.m.file_count, 1);
    assert_string_equal(target.m.file[0].name, "model.safetensors");
    check_groups(&target);
    mix_target_release(&target);
}

/* ---- the files that came in ---- */

#define ENTRY(name, dtype, shape, begin, end) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" \
    shape ",\"data_offsets\":[" #begin "," #end "]}"

static struct mix_safetensors *header_of(const char *json)
{
    struct mix_safetensors *st;
    struct mix_err err = { 0 };
    char text[1024];

    mix_store_le(text, strlen(json), 8);
    strcpy(text + 8, json);
    assert_ok(mix_safetensors_parse(text, 8 + strlen(json), UINT64_MAX, &st, &err), &err);
    return st;
}

static const struct {
    const char *what, *first, *second;
    const char *remade; /* NULL: the files are made again */
    uint64_t limit;
} origins[] = {
    { "as they came", "{" ENTRY("t01", "U8", "[3]", 0, 3) "," ENTRY("t00", "U8", "[2]", 3, 5) "}   ",
      "{\"__metadata__\":{\"x\":\"y\"}," ENTRY("t02", "U8", "[4]", 0, 4) "}", NULL, 0 },
    { "one is gone", "{" ENTRY("t01", "U8", "[3]", 0, 3) "," ENTRY("t00", "U8", "[2]", 3, 5) "}",
      "{" ENTRY("t02", "U8", "[4]", 0, 4) "," ENTRY("t03", "U8", "[1]", 4, 5) "}",
      "the tensor 't03' is not there any more", 0 },
    { "one is new", "{" ENTRY("t01", "U8", "[3]", 0, 3) "}", "{" ENTRY("t02", "U8", "[4]", 0, 4) "}",
      "the tensor 't00' was not in them", 0 },
    { "another dtype", "{" ENTRY("t01", "I8", "[3]", 0, 3) "," ENTRY("t00", "U8", "[2]", 3, 5) "}",
      "{" ENTRY("t02", "U8", "[4]", 0, 4) "}", "the tensor 't01' has another dtype or shape now", 0 },
    { "another shape", "{" ENTRY("t01", "U8", "[3]", 0, 3) "," ENTRY("t00", "U8", "[2]", 3, 5) "}",
      "{" ENTRY("t02", "U8", "[2,2]", 0, 4) "}", "the tensor 't02' has another dtype or shape now", 0 },
    { "a size was asked for", "{" ENTRY("t01", "U8", "[3]", 0, 3) "," ENTRY("t00", "U8", "[2]", 3, 5)
      "}", "{" ENTRY("t02", "U8", "[4]", 0, 4) "}", "--max-shard-size was given", 4 },
};

static void test_hf_target__makes_the_files_again_that_came_in(void **state)
{
    const uint64_t size[] = { 2, 3, 4 };
    struct mix_ckpt_tensor tensor[3];
    const struct mix_manifest list = { .tensor = tensor, .tensor_count = 3 };

    (void)state;
    make_list(size, 3, tensor);
    for (size_t i = 0; i < MIX_ARRAY_LEN(origins); i++) {
        const struct mix_origin_file origin[] = { { "b.safetensors", header_of(origins[i].first) },
                                                  { "a.safetensors", header_of(origins[i].second) } };
        struct mix_target target;
        struct mix_group group = MIX_GROUP_INIT;
        struct mix_err err = { 0 };
        size_t len;
        const char *header = mix_safetensors_header(origin[0].header, &len);

        test_row(origins[i].what);
        assert_ok(mix_target_take(&target, &list, false, &err), &err);
        assert_ok(mix_target_hf(&target, origin, 2, origins[i].limit, &err), &err);
        check_groups(&target);
        if (origins[i].remade) {
            assert_non_null(target.remade);
            assert_text(target.remade, origins[i].remade);
        } else {
            assert_null(target.remade);
            assert_string_equal(target.m.file[0].name, "b.safetensors");
            assert_string_equal(target.m.file[1].name, "a.safetensors");
            assert_ok(target.build(&target, 0, &group, &err), &err);
            assert_int_equal(group.file[0].header.len, len); /* to the last space */
            assert_memory_equal(group.file[0].header.data, header, len);
            mix_group_release(&group);
        }
        mix_target_release(&target);
        mix_safetensors_close(origin[0].header);
        mix_safetensors_close(origin[1].header);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hf_target__cuts_files_as_transformers_does),
        cmocka_unit_test(test_hf_target__no_tensors_are_one_file),
        cmocka_unit_test(test_hf_target__makes_the_files_again_that_came_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
