/*
 * The one door in: what a place holds is found by looking, its rules are checked with
 * words that name file and tensor, and any bytes of any tensor can be read.
 */
#include "ckpt/checkpoint.h"

#include <stdlib.h>

#include "ckpt/checkpoint_open.h"
#include "ckpt/store/store.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"
#include "tests/support/tiny.h"

/* ---- places in memory ---- */

static struct mix_store *memory(void)
{
    struct mix_store *store;
    struct mix_err err = { 0 };

    assert_ok(mix_store_open_memory(&store, &err), &err);
    return store;
}

static void put(struct mix_store *store, const char *path, const char *text)
{
    struct mix_err err = { 0 };

    assert_ok(mix_store_memory_put(store, path, text, strlen(text), &err), &err);
}

/* A .safetensors file of `names`, each U8 [4]. */
static void put_weights(struct mix_store *store, const char *path, const char *names)
{
    struct mix_buf file = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    unsigned end = 0;

    assert_ok(mix_buf_put(&file, "01234567{", 9, &err), &err);
    for (const char *p = names; *p; p++, end += 4)
        assert_ok(mix_buf_putf(&file, &err, "%s\"%c\":{\"dtype\":\"U8\",\"shape\":[4],"
                               "\"data_offsets\":[%u,%u]}", end ? "," : "", *p, end, end + 4),
                  &err);
    assert_ok(mix_buf_put(&file, "}", 1, &err), &err);
    mix_store_le(file.data, file.len - 8, 8);
    for (unsigned i = 0; i < end; i++)
        assert_ok(mix_buf_put(&file, &(char){ (char)i }, 1, &err), &err);
    assert_ok(mix_store_memory_put(store, path, file.data, file.len, &err), &err);
    mix_buf_release(&file);
}

static const char *all_warnings(const struct mix_checkpoint *ckpt)
{
    static char text[4096];
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < ckpt->warnings.count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\n", ckpt->warnings.text[i]);
    return text;
}

/* ---- what a folder holds ---- */

static const struct {
    const char *what;
    const char *file[4]; /* empty, but for weights */
    const char *form;    /* NULL: refused */
    const char *says;    /* in the error or, with a form, in the warnings */
    enum mix_rc rc;
} places[] = {
    { "one weight file", { "model.safetensors" }, "hf", "there is no config.json" },
    { "weights of another name", { "weights.safetensors" }, NULL, "holds no checkpoint", MIX_NOT_FOUND },
    { "nothing", { NULL }, NULL, "holds no checkpoint: neither mixckpt.json nor", MIX_NOT_FOUND },
    { "shards alone", { "model/dense-hsd00000of00001.h5" }, NULL, "shards under model/ and no manifest",
      MIX_NOT_FOUND },
    { "a job's work", { "job/job.json", "mixckpt.json", "model.safetensors" }, NULL,
      "is the unfinished work of a job", MIX_BAD_FORMAT },
    { "a manifest goes before weights", { "mixckpt.json", "model.safetensors" }, NULL,
      "mixckpt.json: does not end in its own digest", MIX_CORRUPT },
    { "an index goes before a single file", { "model.safetensors.index.json", "model.safetensors" },
      NULL, "model.safetensors.index.json: not JSON", MIX_BAD_FORMAT },
    { "weights go before .metadata", { ".metadata", "model.safetensors" }, "hf", "" },
    { "a torch checkpoint", { ".metadata" }, NULL, "torch.distributed.checkpoint folder",
      MIX_UNSUPPORTED },
    { "Mistral's own", { "params.json" }, NULL, "Mistral's own format", MIX_UNSUPPORTED },
    { "other weights beside", { "model.safetensors", "consolidated.00.pth", "pytorch_model.bin" },
      "hf", "2 weight files that the index does not name are left out (consolidated.00.pth, ...)" },
    { "another shard beside", { "model.safetensors", "model-00002-of-00002.safetensors" }, "hf",
      "1 weight file that the index does not name is left out (model-00002-of-00002.safetensors)" },
    { "folders and litter", { "model.safetensors", "onnx/model.onnx", ".nfs000123" }, "hf",
      "onnx/: folders are not carried along" },
    { "a name that is taken", { "model.safetensors", "job" }, "hf",
      "job: no file of this name can be carried along, left out" },
    { "a name that is taken by headers", { "model.safetensors", ".weights" }, "hf",
      ".weights: no file of this name can be carried along, left out" },
    { "a name that no text can hold", { "model.safetensors", "a\nb" }, "hf",
      "a?b: no file of this name can be carried along, left out" },
    { "a name that is not UTF-8", { "model.safetensors", "a\xff" "b" }, "hf", "left out" },
};

static void test_checkpoint__what_a_folder_holds_is_found_by_looking(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(places); i++) {
        struct mix_store *store = memory();
        struct mix_checkpoint *ckpt;
        struct mix_err err = { 0 };

        test_row(places[i].what);
        for (size_t f = 0; f < 4 && places[i].file[f]; f++) {
            if (!strcmp(places[i].file[f], "model.safetensors"))
                put_weights(store, places[i].file[f], "ab");
            else
                put(store, places[i].file[f], "");
        }
        assert_rc(mix_checkpoint_open_in(store, NULL, &ckpt, &err), places[i].rc, &err);
        if (places[i].form) {
            assert_string_equal(mix_form_name(ckpt->form), places[i].form);
            assert_text(all_warnings(ckpt), places[i].says);
            assert_int_equal(ckpt->m.tensor_count, 2);
        } else {
            assert_null(ckpt);
            assert_text(err.text, places[i].says);
        }
        mix_checkpoint_close(ckpt);
    }
}

static void test_checkpoint__carries_what_lies_beside_the_weights(void **state)
{
    static const char *const beside[] = { "README.md", "config.json", "tokenizer.json" };
    struct mix_store *store = memory();
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    (void)state;
    put_weights(store, "model.safetensors", "ab");
    put(store, "tokenizer.json", "12345");
    put(store, "README.md", "");
    put(store, "config.json", "{\"model_type\": \"else\", \"x\": [1, 2.50]}");
    put(store, "other.h5", "weights");
    assert_ok(mix_checkpoint_open_in(store, NULL, &ckpt, &err), &err);
    assert_int_equal(ckpt->carried_count, MIX_ARRAY_LEN(beside));
    for (size_t i = 0; i < ckpt->carried_count; i++) {
        assert_string_equal(ckpt->carried[i].name, beside[i]);
        assert_string_equal(ckpt->carried[i].path, beside[i]);
    }
    assert_int_equal(ckpt->carried[2].bytes, 5);
    assert_string_equal(ckpt->m.model, "{\"model_type\":\"else\",\"x\":[1,2.50]}");
    assert_string_equal(ckpt->geometry.model_type, "else");
    assert_null(ckpt->geometry.family);
    assert_int_equal(ckpt->origin_count, 1);
    mix_checkpoint_close(ckpt);
    mix_checkpoint_close(NULL);
}

/* ---- the rules of an index ---- */

#define MAP(a, b) "{\"weight_map\":{\"a\":\"" a "\",\"b\":\"" b "\"}}"
#define RIGHT "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}"

/* Files 1.safetensors with the tensor a, and 2.safetensors with b, and this index. */
static const struct {
    const char *what, *index;
    const char *kind, *file, *tensor; /* of the defect; NULL: none */
    const char *says;
    bool goes_on; /* a warning for whoever does not verify */
} indexes[] = {
    { "right", RIGHT, NULL, NULL, NULL, NULL, true },
    { "no total_size", MAP("1.safetensors", "2.safetensors"), NULL, NULL, NULL, NULL, true },
    { "total_size as text", "{\"metadata\":{\"total_size\":\"9\"},\"weight_map\":{\"a\":"
      "\"1.safetensors\",\"b\":\"2.safetensors\"}}", NULL, NULL, NULL, NULL, true },
    { "no JSON", "{\"weight_map\":", "bad-format", "model.safetensors.index.json", "", "not JSON at byte",
      false },
    { "key twice", "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\"}}", "bad-format",
      "model.safetensors.index.json", "", "the key 'a' stands twice", false },
    { "no map", "{\"weight_mop\":{}}", "bad-format", "model.safetensors.index.json", "",
      "there is no object 'weight_map'", false },
    { "map a list", "{\"weight_map\":[]}", "bad-format", "model.safetensors.index.json", "",
      "there is no object 'weight_map'", false },
    { "no object", "[]", "bad-format", "model.safetensors.index.json", "",
      "there is no object 'weight_map'", false },
    { "file a number", "{\"weight_map\":{\"a\":1}}", "bad-format", "model.safetensors.index.json", "",
      "puts 'a' into '?'", false },
    { "file without letters", MAP("", "2.safetensors"), "bad-format", "model.safetensors.index.json",
      "", "puts 'a' into ''", false },
    { "file in a folder", MAP("x/1.safetensors", "2.safetensors"), "bad-format",
      "model.safetensors.index.json", "", "names no .safetensors file of the folder", false },
    { "file outside", MAP("../1.safetensors", "2.safetensors"), "bad-format",
      "model.safetensors.index.json", "", "'../1.safetensors'", false },
    { "file absolute", MAP("/etc/passwd", "2.safetensors"), "bad-format",
      "model.safetensors.index.json", "", "'/etc/passwd'", false },
    { "file above", MAP("..", "2.safetensors"), "bad-format", "model.safetensors.index.json", "",
      "names no .safetensors file", false },
    { "file that is no weights", MAP("config.json", "2.safetensors"), "bad-format",
      "model.safetensors.index.json", "", "names no .safetensors file", false },
    { "file with a control character", MAP("\\u001b.safetensors", "2.safetensors"), "bad-format",
      "\x1b.safetensors", "", "control character", false },
    { "file that is missing", MAP("1.safetensors", "3.safetensors"), "missing", "3.safetensors", "",
      "there is no such file", false },
    { "tensor in another file", MAP("2.safetensors", "1.safetensors"), "missing", "1.safetensors", "b",
      "is not in this file, where model.safetensors.index.json says it is", false },
    { "tensor that is missing", "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\","
      "\"c\":\"2.safetensors\"}}", "missing", "2.safetensors", "c", "tensor 'c' is not in this file", false },
    { "total_size too small", "{\"metadata\":{\"total_size\":7},\"weight_map\":{\"a\":"
      "\"1.safetensors\",\"b\":\"2.safetensors\"}}", "bad-format", "model.safetensors.index.json", "",
      "total_size is 7, the tensors have 8 bytes", true },
    { "total_size huge", "{\"metadata\":{\"total_size\":18446744073709551615},\"weight_map\":{\"a\":"
      "\"1.safetensors\",\"b\":\"2.safetensors\"}}", "bad-format", "model.safetensors.index.json", "",
      "total_size is 18446744073709551615", true },
};

static struct mix_store *store_with_index(const char *index)
{
    struct mix_store *store = memory();

    put_weights(store, "1.safetensors", "a");
    put_weights(store, "2.safetensors", "b");
    put(store, "config.json", "{}");
    put(store, "model.safetensors.index.json", index);
    return store;
}

static const struct mix_defect *find_defect(const struct mix_defects *list, const char *kind,
                                            const char *file, const char *tensor)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->defect[i].kind, kind) && !strcmp(list->defect[i].file, file) &&
            !strcmp(list->defect[i].tensor, tensor))
            return &list->defect[i];
    return NULL;
}

static void test_checkpoint__names_the_broken_rule_of_an_index(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(indexes); i++) {
        struct mix_checkpoint *ckpt;
        struct mix_defects defects;
        struct mix_err err = { 0 };
        enum mix_rc rc;

        test_row(indexes[i].what);
        mix_defects_init(&defects);
        assert_ok(mix_checkpoint_open_in(store_with_index(indexes[i].index), &defects, &ckpt, &err),
                  &err);
        if (indexes[i].kind) {
            const struct mix_defect *d = find_defect(&defects, indexes[i].kind, indexes[i].file,
                                                     indexes[i].tensor);

            if (!d)
                test_assert_text("", indexes[i].kind, __FILE__, __LINE__);
            assert_text(d->message, indexes[i].says);
        } else {
            assert_int_equal(defects.count, 0);
        }
        mix_checkpoint_close(ckpt);
        mix_defects_release(&defects);

        rc = mix_checkpoint_open_in(store_with_index(indexes[i].index), NULL, &ckpt, &err);
        if (indexes[i].goes_on) {
            assert_rc(rc, MIX_OK, &err);
            assert_text(all_warnings(ckpt), indexes[i].says ? indexes[i].says : "");
        } else {
            assert_true(rc);
            assert_text(err.text, indexes[i].says);
            assert_null(ckpt);
        }
        mix_checkpoint_close(ckpt);
    }
}

/* Nothing is lost by it: a defect for who verifies, a warning for all others. */
static void test_checkpoint__a_tensor_that_the_index_does_not_name(void **state)
{
    static const char says[] = "does not name the tensor 'c' of 2.safetensors";
    struct mix_checkpoint *ckpt;
    struct mix_defects defects;
    struct mix_err err = { 0 };

    (void)state;
    for (int pass = 0; pass < 2; pass++) {
        struct mix_store *store = store_with_index(MAP("1.safetensors", "2.safetensors"));

        put_weights(store, "2.safetensors", "bc");
        mix_defects_init(&defects);
        assert_ok(mix_checkpoint_open_in(store, pass ? &defects : NULL, &ckpt, &err), &err);
        assert_non_null(mix_manifest_find(&ckpt->m, "c"));
        if (pass)
            assert_text(find_defect(&defects, "bad-format", "model.safetensors.index.json", "c")
                            ->message, says);
        else
            assert_text(all_warnings(ckpt), says);
        mix_checkpoint_close(ckpt);
        mix_defects_release(&defects);
    }
}

static void test_checkpoint__a_tensor_in_two_files_is_an_overlap(void **state)
{
    struct mix_store *store = store_with_index(MAP("1.safetensors", "2.safetensors"));
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    (void)state;
    put_weights(store, "2.safetensors", "ba");
    assert_rc(mix_checkpoint_open_in(store, NULL, &ckpt, &err), MIX_OVERLAP, &err);
    assert_text(err.text, "2.safetensors: tensor 'a' stands in 1.safetensors too");
    assert_string_equal(err.file, "2.safetensors");
    assert_string_equal(err.tensor, "a");
}

/* With a list for defects, a file that is broken does not hide the others. */
static void test_checkpoint__goes_on_behind_a_broken_file(void **state)
{
    struct mix_store *store = store_with_index(RIGHT);
    struct mix_checkpoint *ckpt;
    struct mix_defects defects;
    struct mix_err err = { 0 };

    (void)state;
    put(store, "1.safetensors", "\7");
    mix_defects_init(&defects);
    assert_ok(mix_checkpoint_open_in(store, &defects, &ckpt, &err), &err);
    assert_non_null(find_defect(&defects, "truncated", "1.safetensors", ""));
    assert_int_equal(ckpt->m.tensor_count, 1);
    assert_string_equal(ckpt->m.tensor[0].name, "b");
    mix_checkpoint_close(ckpt);
    mix_defects_release(&defects);
}

/* ---- config.json ---- */

static const struct {
    const char *what, *config, *says;
} configs[] = {
    { "no JSON", "{", "config.json: not JSON at byte 1" },
    { "no object", "[]", "config.json: is not a JSON object" },
    { "key twice", "{\"a\":1,\"a\":1}", "config.json: the key 'a' stands twice" },
    { "without sizes", "{\"model_type\":\"mixtral\"}", "config.json: " },
};

static void test_checkpoint__names_the_broken_rule_of_a_config(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(configs); i++) {
        struct mix_checkpoint *ckpt;
        struct mix_defects defects;
        struct mix_err err = { 0 };

        test_row(configs[i].what);
        for (int pass = 0; pass < 2; pass++) {
            struct mix_store *store = memory();

            put_weights(store, "model.safetensors", "a");
            put(store, "config.json", configs[i].config);
            mix_defects_init(&defects);
            assert_rc(mix_checkpoint_open_in(store, pass ? &defects : NULL, &ckpt, &err),
                      pass ? MIX_OK : MIX_BAD_FORMAT, &err);
            if (pass)
                assert_non_null(find_defect(&defects, "bad-format", "config.json", ""));
            else
                assert_text(err.text, configs[i].says);
            assert_true(!pass || ckpt->m.tensor_count == 1);
            mix_checkpoint_close(ckpt);
            mix_defects_release(&defects);
        }
    }
}

/* ---- folders on disk ---- */

static struct test_folder tmp;

static int set_up(void **state)
{
    (void)state;
    test_folder_init(&tmp);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_release(&tmp);
    return 0;
}

static struct mix_checkpoint *open_path(const char *path)
{
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    assert_ok(mix_checkpoint_open(path, NULL, &ckpt, &err), &err);
    return ckpt;
}

static void test_checkpoint__naming_a_file_chooses_the_form(void **state)
{
    static const struct {
        const char *path, *form;
    } files[] = {
        { "ours", "mixckpt" },
        { "ours/mixckpt.json", "mixckpt" },
        { "ours/model/dense-hsd00000of00002.h5", "hdf5" },
        { "hf", "hf" },
        { "hf/model.safetensors.index.json", "hf" },
        { "hf/model-00001-of-00003.safetensors", "safetensors" },
        { "hf/shard-without-an-ending", "hdf5" },
    };
    struct mix_checkpoint *ckpt;
    struct mix_buf shard = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    (void)state;
    test_tiny_shards(test_path(&tmp, "ours"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, false);
    test_tiny_hf(test_path(&tmp, "hf"), 60000);
    test_file_get(test_path(&tmp, files[2].path), &shard);
    test_file_put(test_path(&tmp, files[6].path), shard.data, shard.len);
    mix_buf_release(&shard);
    for (size_t i = 0; i < MIX_ARRAY_LEN(files); i++) {
        test_row(files[i].path);
        ckpt = open_path(test_path(&tmp, files[i].path));
        assert_string_equal(mix_form_name(ckpt->form), files[i].form);
        assert_true(ckpt->m.tensor_count > 0);
        mix_checkpoint_close(ckpt);
    }
    test_file_put(test_path(&tmp, "x.txt"), "text", 4);
    assert_rc(mix_checkpoint_open(test_path(&tmp, "x.txt"), NULL, &ckpt, &err), MIX_BAD_FORMAT,
              &err);
    assert_text(err.text, "x.txt: neither a .safetensors nor an HDF5 file");
    assert_rc(mix_checkpoint_open(test_path(&tmp, "none"), NULL, &ckpt, &err), MIX_NOT_FOUND, &err);
    assert_text(err.text, test_path(&tmp, "none"));
}

/* Between two renames the message says where the copies are. */
static void test_checkpoint__points_at_the_copies_of_a_replacement(void **state)
{
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    (void)state;
    test_file_put(test_path(&tmp, "dst.old/mixckpt.json"), "", 0);
    assert_rc(mix_checkpoint_open(test_path(&tmp, "dst"), NULL, &ckpt, &err), MIX_NOT_FOUND, &err);
    assert_text(err.text, "the old checkpoint is whole at");
    assert_text(err.text, test_path(&tmp, "dst.old"));
    assert_text(err.text, test_path(&tmp, "dst.partial"));
}

/* ---- the model's table ---- */

/* A Hugging Face folder of the tiny model without `skip`, with `more` more tensors. */
static struct mix_checkpoint *open_model(const char *skip, unsigned more, bool wrong_shape)
{
    struct mix_store *store = memory();
    struct mix_random_source source;
    struct mix_checkpoint *ckpt;
    struct mix_buf file = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    uint64_t end = 0;

    test_tiny_open(&source, MIX_BF16, false);
    assert_ok(mix_buf_put(&file, "01234567{", 9, &err), &err);
    for (size_t i = 0; i < source.m.tensor_count + more; i++) {
        const struct mix_ckpt_tensor *t = &source.m.tensor[i % source.m.tensor_count];
        char name[160], shape[64];

        snprintf(name, sizeof name, i < source.m.tensor_count ? "%s" : "%s.%02u", t->name,
                 (unsigned)(i - source.m.tensor_count));
        snprintf(shape, sizeof shape, t->rank == 2 ? "%u,%u" : "%u", (unsigned)t->shape[0],
                 t->rank == 2 ? (unsigned)t->shape[1] : 0);
        if (wrong_shape && !strcmp(name, skip))
            snprintf(shape, sizeof shape, "%u", (unsigned)t->bytes / 2);
        else if (!strcmp(name, skip))
            continue;
        assert_ok(mix_buf_putf(&file, &err, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],"
                               "\"data_offsets\":[%u,%u]}", end ? "," : "", name, shape,
                               (unsigned)end, (unsigned)(end + t->bytes)), &err);
        end += t->bytes;
    }
    assert_ok(mix_buf_put(&file, "}", 1, &err), &err);
    mix_store_le(file.data, file.len - 8, 8);
    assert_ok(mix_buf_reserve(&file, end, &err), &err);
    memset(file.data + file.len, 0, end);
    assert_ok(mix_store_memory_put(store, "model.safetensors", file.data, file.len + end, &err),
              &err);
    put(store, "config.json", test_tiny_config);
    mix_random_close(&source);
    mix_buf_release(&file);
    assert_ok(mix_checkpoint_open_in(store, NULL, &ckpt, &err), &err);
    return ckpt;
}

static void test_checkpoint__checks_the_tensors_against_the_config(void **state)
{
    static const char expert[] = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
    struct mix_checkpoint *ckpt = open_model("", 0, false);
    struct mix_defects defects;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_checkpoint_check_model(ckpt, NULL, &err), &err);
    assert_int_equal(ckpt->warnings.count, 0);
    mix_checkpoint_close(ckpt);

    ckpt = open_model(expert, 0, false);
    assert_rc(mix_checkpoint_check_model(ckpt, NULL, &err), MIX_NOT_FOUND, &err);
    assert_text(err.text, expert);
    assert_text(err.text, "is missing; config.json implies it with shape [40,52]");
    mix_defects_init(&defects);
    assert_ok(mix_checkpoint_check_model(ckpt, &defects, &err), &err);
    assert_int_equal(defects.count, 1);
    assert_non_null(find_defect(&defects, "missing", "", expert));
    mix_defects_release(&defects);
    mix_checkpoint_close(ckpt);

    ckpt = open_model(expert, 0, true);
    assert_rc(mix_checkpoint_check_model(ckpt, NULL, &err), MIX_MISMATCH, &err);
    assert_text(err.text, "has shape [2080]; config.json implies [40,52]");
    mix_defects_init(&defects);
    assert_ok(mix_checkpoint_check_model(ckpt, &defects, &err), &err);
    assert_non_null(find_defect(&defects, "bad-format", "model.safetensors", expert));
    mix_defects_release(&defects);
    mix_checkpoint_close(ckpt);
}

static void test_checkpoint__names_what_no_rule_knows(void **state)
{
    struct mix_checkpoint *ckpt = open_model("", 13, false);
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_checkpoint_check_model(ckpt, NULL, &err), &err);
    assert_int_equal(ckpt->warnings.count, 11);
    assert_text(all_warnings(ckpt), "no rule knows the tensor 'lm_head.weight.00'; it is carried along");
    assert_text(all_warnings(ckpt), "and 3 more tensors that no rule knows");
    mix_checkpoint_close(ckpt);
}

/* ---- reading ---- */

static unsigned long long seed = 11;

static uint64_t pick(uint64_t n) /* 0 .. n - 1 */
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % n;
}

/* Any range of any tensor, in any layout, is what was put in. */
static void check_reading(const char *path, const struct mix_random_source *source)
{
    struct mix_checkpoint *ckpt = open_path(path);
    struct mix_reader reader;
    struct mix_err err = { 0 };
    unsigned char *found = malloc(1 << 20), *wanted = malloc(1 << 20);

    assert_ok(mix_reader_init(&reader, ckpt, &err), &err);
    assert_int_equal(ckpt->m.tensor_count, source->m.tensor_count);
    for (int k = 0; k < 2000; k++) {
        /* now and then another tensor: neighbours are read ahead */
        uint32_t i = (uint32_t)(k < 500 ? (unsigned)k % source->m.tensor_count
                                        : pick(source->m.tensor_count));
        const struct mix_ckpt_tensor *t = &ckpt->m.tensor[i];
        uint64_t begin = pick(t->bytes + 1), end = begin + pick(t->bytes + 1 - begin);

        test_row(t->name);
        found[end - begin] = 0xee;
        assert_ok(mix_reader_read(&reader, t, begin, end, found, &err), &err);
        mix_random_read(source, i, begin, end, wanted);
        assert_memory_equal(found, wanted, end - begin);
        assert_int_equal(found[end - begin], 0xee);
    }
    free(found);
    free(wanted);
    mix_reader_release(&reader);
    mix_checkpoint_close(ckpt);
}

static void test_checkpoint__reads_any_range_in_any_layout(void **state)
{
    static const struct mix_mesh meshes[] = { { 1, 1, 1 }, { 2, 3, 2 }, { 4, 7, 1 }, { 1, 16, 2 } };
    struct mix_random_source source;

    (void)state;
    test_tiny_open(&source, MIX_BF16, false);
    for (size_t i = 0; i < MIX_ARRAY_LEN(meshes); i++) {
        char name[32];

        snprintf(name, sizeof name, "ckpt-%zu", i);
        test_tiny_shards(test_path(&tmp, name), i % 2 ? MIX_HDF5 : MIX_SAFETENSORS, meshes[i],
                         false);
        check_reading(test_path(&tmp, name), &source);
    }
    test_tiny_hf(test_path(&tmp, "hf"), 30000);
    check_reading(test_path(&tmp, "hf"), &source);
    mix_random_close(&source);
}

static const struct {
    const char *what;
    unsigned at, bytes;   /* in record 3 */
    uint64_t value;
    const char *says;
} records[] = {
    { "no such file", 0, 4, 9999, "bytes at 16384 of file 9999; 4000 bytes in one of 4 files" },
    { "reserved field", 4, 4, 1, "record 3 (tensor 'model.embed_tokens.weight', piece 1)" },
    { "offset outside", 8, 8, UINT64_C(1) << 40, "at 1099511627776 of file" },
    { "offset inside, end outside", 8, 8, 0 /* one byte before the end */, "4000 bytes at" },
    { "offset that wraps with the bytes", 8, 8, UINT64_MAX - 8, "at 18446744073709551607 of file" },
    { "too few bytes", 16, 8, 4, "4 bytes at" },
    { "too many bytes", 16, 8, UINT64_MAX, "18446744073709551615 bytes at" },
};

static void test_checkpoint__does_not_believe_a_wrong_record(void **state)
{
    struct mix_buf pieces = MIX_BUF_INIT, shard = MIX_BUF_INIT;

    (void)state;
    test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, false);
    test_file_get(test_path(&tmp, "c/mixckpt.pieces"), &pieces);
    test_file_get(test_path(&tmp, "c/model/dense-hsd00001of00002.h5"), &shard);
    for (size_t i = 0; i < MIX_ARRAY_LEN(records); i++) {
        struct mix_checkpoint *ckpt;
        struct mix_reader reader;
        struct mix_place place;
        struct mix_err err = { 0 };
        unsigned char record[24], *at = (unsigned char *)pieces.data + 3 * 24;

        test_row(records[i].what);
        memcpy(record, at, 24);
        mix_store_le(at + records[i].at, records[i].value ? records[i].value : shard.len - 1,
                     (int)records[i].bytes);
        test_file_put(test_path(&tmp, "c/mixckpt.pieces"), pieces.data, pieces.len);
        memcpy(at, record, 24);
        ckpt = open_path(test_path(&tmp, "c"));
        assert_ok(mix_reader_init(&reader, ckpt, &err), &err);
        assert_ok(mix_reader_place(&reader, &ckpt->m.tensor[1], 0, &place, &err), &err);
        assert_rc(mix_reader_place(&reader, &ckpt->m.tensor[1], 1, &place, &err), MIX_BAD_FORMAT,
                  &err);
        assert_text(err.text, "mixckpt.pieces: record 3");
        assert_text(err.text, records[i].says);
        assert_string_equal(err.file, "mixckpt.pieces");
        assert_string_equal(err.tensor, "model.embed_tokens.weight");
        mix_reader_release(&reader);
        mix_checkpoint_close(ckpt);
    }
    mix_buf_release(&pieces);
    mix_buf_release(&shard);
}

static void test_checkpoint__says_what_cannot_be_read(void **state)
{
    struct mix_checkpoint *ckpt;
    struct mix_reader reader;
    struct mix_buf shard = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    const struct mix_ckpt_tensor *t;
    char buf[64];

    (void)state;
    test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, false);
    ckpt = open_path(test_path(&tmp, "c"));
    t = mix_manifest_find(&ckpt->m, "model.norm.weight");
    assert_ok(mix_reader_init(&reader, ckpt, &err), &err);
    test_file_get(test_path(&tmp, "c/model/dense-hsd00001of00002.h5"), &shard);
    test_file_put(test_path(&tmp, "c/model/dense-hsd00001of00002.h5"), shard.data, 5000);
    assert_ok(mix_reader_read(&reader, t, 0, 40, buf, &err), &err); /* of the other file */
    assert_rc(mix_reader_read(&reader, t, 36, 44, buf, &err), MIX_TRUNCATED, &err);
    assert_text(err.text, "model/dense-hsd00001of00002.h5: tensor 'model.norm.weight', bytes [40, 44)");
    assert_string_equal(err.file, "model/dense-hsd00001of00002.h5");
    assert_string_equal(err.tensor, "model.norm.weight");
    assert_true(err.has_range && err.begin == 40 && err.end == 44);
    mix_buf_release(&shard);
    mix_reader_release(&reader);
    mix_checkpoint_close(ckpt);
}

static void test_checkpoint__names_that_travel(void **state)
{
    static const struct {
        const char *name;
        bool travels;
    } names[] = {
        { "config.json", true }, { "tokenizer.model", true }, { ".gitattributes", true },
        { "jobs", true }, { "weights", true }, { "safetensors", true }, { "a.h5x", true },
        { "model.safetensors", false }, { "x.bin", false }, { "x.pt", false }, { "x.pth", false },
        { "x.gguf", false }, { "x.h5", false }, { ".safetensors", false },
        { "model.safetensors.index.json", false }, { "job", false }, { ".weights", false },
        { "mixckpt.json", false }, { "a/b", false },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(names); i++) {
        test_row(names[i].name);
        assert_int_equal(mix_is_carried_name(names[i].name), names[i].travels);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__what_a_folder_holds_is_found_by_looking),
        cmocka_unit_test(test_checkpoint__carries_what_lies_beside_the_weights),
        cmocka_unit_test(test_checkpoint__names_the_broken_rule_of_an_index),
        cmocka_unit_test(test_checkpoint__a_tensor_that_the_index_does_not_name),
        cmocka_unit_test(test_checkpoint__a_tensor_in_two_files_is_an_overlap),
        cmocka_unit_test(test_checkpoint__goes_on_behind_a_broken_file),
        cmocka_unit_test(test_checkpoint__names_the_broken_rule_of_a_config),
        TEST(test_checkpoint__naming_a_file_chooses_the_form),
        TEST(test_checkpoint__points_at_the_copies_of_a_replacement),
        cmocka_unit_test(test_checkpoint__checks_the_tensors_against_the_config),
        cmocka_unit_test(test_checkpoint__names_what_no_rule_knows),
        TEST(test_checkpoint__reads_any_range_in_any_layout),
        TEST(test_checkpoint__does_not_believe_a_wrong_record),
        TEST(test_checkpoint__says_what_cannot_be_read),
        cmocka_unit_test(test_checkpoint__names_that_travel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
