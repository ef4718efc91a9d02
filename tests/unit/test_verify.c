/* Is this checkpoint whole? Every kind of damage has a row, and the defect it must be. */
#include "ckpt/verify.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/base/file.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"
#include "tests/support/tiny.h"

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

static void verify(const char *path, struct mix_verify_options options,
                   struct mix_verify_report *report)
{
    struct mix_err err = { 0 };

    options.threads = options.threads ? options.threads : 2;
    options.worker_count = options.worker_count ? options.worker_count : 1;
    assert_ok(mix_verify(path, &options, report, &err), &err);
}

static const struct mix_verify_options plain = { 0 };

static const struct mix_defect *find(const struct mix_verify_report *report, const char *kind,
                                     const char *file, const char *tensor)
{
    for (size_t i = 0; i < report->defects.count; i++) {
        const struct mix_defect *d = &report->defects.defect[i];

        if (!strcmp(d->kind, kind) && !strcmp(d->file, file) &&
            (!tensor || !strcmp(d->tensor, tensor)))
            return d;
    }
    for (size_t i = 0; i < report->defects.count; i++)
        print_error("%s %s %s: %s\n", report->defects.defect[i].kind,
                    report->defects.defect[i].file, report->defects.defect[i].tensor,
                    report->defects.defect[i].message);
    test_assert_text("", kind, __FILE__, __LINE__);
    return NULL;
}

static uint64_t bytes_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void test_verify__reads_every_byte_of_a_whole_one(void **state)
{
    struct mix_verify_report report;

    (void)state;
    for (int container = 0; container < 2; container++) {
        char name[16];
        struct mix_buf manifest = MIX_BUF_INIT;

        snprintf(name, sizeof name, "c%d", container);
        test_tiny_shards(test_path(&tmp, name), (enum mix_container)container,
                         (struct mix_mesh){ 2, 3, 2 }, true);
        verify(test_path(&tmp, name), plain, &report);
        assert_int_equal(report.defects.count, 0);
        assert_int_equal(report.warnings.count, 0);
        assert_string_equal(report.proof, "digests");
        assert_true(report.bytes_read > 7 * 150000 && report.seconds > 0);
        mix_verify_report_release(&report);
        mix_buf_release(&manifest);
    }
    test_tiny_hf(test_path(&tmp, "hf"), 60000);
    verify(test_path(&tmp, "hf"), plain, &report);
    assert_int_equal(report.defects.count, 0);
    assert_string_equal(report.proof, "structure");
    mix_verify_report_release(&report);
}

/* Dense file 1 of 2 holds rows 51..100 of lm_head (8,080 bytes) first, at byte 12,288. */
#define DENSE "model/dense-hsd00001of00002.h5"

static const struct {
    const char *what, *path;
    enum { FLIP, CUT, GROW, REMOVE, FOLDER, ADD } how;
    uint64_t at;        /* byte, or for CUT the size that is left */
    const char *kind, *file, *tensor, *says;
} damages[] = {
    { "a byte of a tensor", DENSE, FLIP, 13000, "corrupt", DENSE, "lm_head.weight",
      "the SHA-256 of these bytes differs" },
    { "the signature", DENSE, FLIP, 1, "corrupt", DENSE, "", "byte 1 of its header is not what its pieces imply" },
    { "a byte between pieces", DENSE, FLIP, 12288 + 4000 + 50, "corrupt", DENSE, "", "between two pieces, is not zero" },
    { "a shard cut short", DENSE, CUT, 13000, "truncated", DENSE, "", "holds 13000 bytes" },
    { "a shard without bytes", DENSE, CUT, 0, "truncated", DENSE, "", "holds 0 bytes" },
    { "a shard too long", DENSE, GROW, 0, "bad-format", DENSE, "", "bytes, " },
    { "a shard that is gone", DENSE, REMOVE, 0, "missing", DENSE, "", "there is no such file" },
    { "a shard that is a folder", DENSE, FOLDER, 0, "missing", DENSE, "", "is a folder" },
    { "a record", "mixckpt.pieces", FLIP, 30, "corrupt", "mixckpt.pieces", "", "its SHA-256 differs" },
    { "no records", "mixckpt.pieces", REMOVE, 0, "missing", "mixckpt.pieces", "", "no such file" },
    { "too few records", "mixckpt.pieces", CUT, 24, "truncated", "mixckpt.pieces", "", "holds 24 bytes" },
    { "a leaf hash", "mixckpt.digests", FLIP, 40, "corrupt", "mixckpt.digests", "", "its SHA-256 differs" },
    { "no leaf hashes", "mixckpt.digests", REMOVE, 0, "missing", "mixckpt.digests", "", "no such file" },
    { "a side file", "hf/config.json", FLIP, 3, "corrupt", "hf/config.json", "", "its SHA-256 differs" },
    { "no side file", "hf/config.json", REMOVE, 0, "missing", "hf/config.json", "", "no such file" },
    { "the manifest", "mixckpt.json", FLIP, 60, "corrupt", "mixckpt.json", "", "'self' says" },
    { "no manifest", "mixckpt.json", REMOVE, 0, "missing", "mixckpt.json", "", "no manifest" },
    { "a shard that nobody lists", "model/dense-hsd00002of00003.h5", ADD, 0, "unexpected",
      "model/dense-hsd00002of00003.h5", "", "does not list this shard" },
    { "state that nobody lists", "optimizer/experts-x.safetensors", ADD, 0, "unexpected",
      "optimizer/experts-x.safetensors", "", "does not list this shard" },
};

static void damage(const char *path, int how, uint64_t at)
{
    struct mix_err err = { 0 };
    FILE *file;

    switch (how) {
    case FLIP:
        test_file_flip(path, at);
        break;
    case CUT:
        assert_int_equal(truncate(path, (off_t)at), 0);
        break;
    case GROW:
        file = fopen(path, "ab");
        assert_non_null(file);
        fputc(0, file);
        fclose(file);
        break;
    case ADD:
        test_file_put(path, "x", 1);
        break;
    default:
        assert_ok(mix_path_remove(path, &err), &err);
        if (how == FOLDER)
            assert_ok(mix_folder_make(path, &err), &err);
    }
}

static void test_verify__names_every_damage(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(damages); i++) {
        struct mix_verify_report report;
        const struct mix_defect *d;
        struct mix_err err = { 0 };
        char path[256];

        test_row(damages[i].what);
        test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, false);
        snprintf(path, sizeof path, "%s/c/%s", tmp.path, damages[i].path);
        damage(path, damages[i].how, damages[i].at);
        verify(test_path(&tmp, "c"), plain, &report);
        d = find(&report, damages[i].kind, damages[i].file, damages[i].tensor);
        assert_text(d->message, damages[i].says);
        for (size_t k = 0; k < report.defects.count; k++) /* and blames nobody else */
            assert_string_equal(report.defects.defect[k].file, damages[i].file);
        mix_verify_report_release(&report);
        assert_ok(mix_path_remove(test_path(&tmp, "c"), &err), &err);
    }
}

/* Where piece `part` of a tensor begins in its file. */
static uint64_t place_of(const char *path, const char *tensor, uint64_t part)
{
    struct mix_checkpoint *ckpt;
    struct mix_reader reader;
    struct mix_place place;
    struct mix_err err = { 0 };

    assert_ok(mix_checkpoint_open(path, NULL, &ckpt, &err), &err);
    assert_ok(mix_reader_init(&reader, ckpt, &err), &err);
    assert_ok(mix_reader_place(&reader, mix_manifest_find(&ckpt->m, tensor), part, &place, &err),
              &err);
    mix_reader_release(&reader);
    mix_checkpoint_close(ckpt);
    return place.offset;
}

/* With column cuts the bytes of a leaf lie in several files: the checksums tell which. */
static void test_verify__blames_the_file_whose_checksum_is_wrong(void **state)
{
    static const char *const files[] = { "model/dense-hsd00000of00001-tp00000of00002.safetensors",
                                         "model/dense-hsd00000of00001-tp00001of00002.safetensors" };
    static const char name[] = "model.layers.1.self_attn.o_proj.weight";

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct mix_verify_report report;
        struct mix_err err = { 0 };
        char path[256];

        test_tiny_shards(test_path(&tmp, "c"), MIX_SAFETENSORS, (struct mix_mesh){ 1, 1, 2 }, false);
        snprintf(path, sizeof path, "%s/c/%s", tmp.path, files[i]);
        test_file_flip(path, place_of(test_path(&tmp, "c"), name, (uint64_t)i) + 7);
        verify(test_path(&tmp, "c"), plain, &report);
        assert_int_equal(report.defects.count, 1);
        find(&report, "corrupt", files[i], name);
        mix_verify_report_release(&report);
        assert_ok(mix_path_remove(test_path(&tmp, "c"), &err), &err);
    }
}

/* Blocks that begin within a leaf and are as large as they get; a range for each leaf. */
static void test_verify__gives_the_range_of_each_leaf(void **state)
{
    static const char config[] =
        "{\"model_type\":\"mixtral\",\"hidden_size\":40,\"intermediate_size\":52,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"num_local_experts\":2,\"num_experts_per_tok\":2,\"vocab_size\":30001}";
    const struct mix_random_options options = { .seed = 1 };
    struct mix_random_source source;
    struct mix_job job = test_job(test_path(&tmp, "c"));
    struct mix_job_result result;
    struct mix_verify_report report;
    struct mix_checkpoint *other;
    struct mix_err err = { 0 };
    uint64_t bytes = 30001 * 80, at; /* of lm_head: the second half begins at byte 1,200,080 */
    const struct mix_defect *d;

    (void)state;
    assert_ok(mix_random_open(config, strlen(config), &options, &source, &err), &err);
    job.random = &source;
    job.mesh.hsd = 2;
    assert_ok(mix_job_run(&job, &result, &err), &err);
    job = test_job(test_path(&tmp, "hf"));
    job.random = &source;
    job.to_hf = true;
    assert_ok(mix_job_run(&job, &result, &err), &err);
    mix_random_close(&source);

    assert_ok(mix_checkpoint_open(test_path(&tmp, "hf"), NULL, &other, &err), &err);
    verify(test_path(&tmp, "c"), (struct mix_verify_options){ .against = other, .deep = true },
           &report);
    assert_int_equal(report.defects.count, 0);
    mix_verify_report_release(&report);

    at = place_of(test_path(&tmp, "c"), "lm_head.weight", 1);
    test_file_flip(test_path(&tmp, "c/" DENSE), at + 5);
    test_file_flip(test_path(&tmp, "c/" DENSE), at + (bytes - 1200080) - 1);
    verify(test_path(&tmp, "c"), (struct mix_verify_options){ .against = other }, &report);
    assert_int_equal(report.defects.count, 4);
    d = find(&report, "corrupt", DENSE, "lm_head.weight");
    assert_true(d->begin == 1200080 / 65536 * 65536 && d->end == d->begin + 65536);
    assert_true(d[1].begin == bytes / 65536 * 65536 && d[1].end == bytes);
    d = find(&report, "mismatch", "", "lm_head.weight");
    assert_true(d->begin == 1200085 && d->end == 1200086); /* exactly what differs */
    assert_true(d[1].begin == bytes - 1 && d[1].end == bytes);
    mix_verify_report_release(&report);
    mix_checkpoint_close(other);
}

static void test_verify__against_names_what_only_one_has(void **state)
{
    struct mix_verify_report report;
    struct mix_checkpoint *other;
    struct mix_err err = { 0 };

    (void)state;
    test_tiny_shards(test_path(&tmp, "a"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, true);
    test_tiny_shards(test_path(&tmp, "b"), MIX_SAFETENSORS, (struct mix_mesh){ 2, 1, 2 }, false);
    assert_ok(mix_checkpoint_open(test_path(&tmp, "b"), NULL, &other, &err), &err);
    verify(test_path(&tmp, "a"), (struct mix_verify_options){ .against = other }, &report);
    assert_int_equal(report.defects.count, other->m.tensor_count * 3);
    assert_text(find(&report, "mismatch", "", "lm_head.weight@master")->message,
                "is not in the other checkpoint");
    mix_verify_report_release(&report);
    mix_checkpoint_close(other);

    assert_ok(mix_checkpoint_open(test_path(&tmp, "a"), NULL, &other, &err), &err);
    verify(test_path(&tmp, "b"), (struct mix_verify_options){ .against = other }, &report);
    assert_text(find(&report, "mismatch", "", "lm_head.weight@master")->message,
                "is only in the other checkpoint");
    mix_verify_report_release(&report);
    mix_checkpoint_close(other);
}

/* --deep: a weight of zeros, and one with NaN and Inf; state may be zero. */
static void test_verify__deep_looks_at_the_values(void **state)
{
    static const char file[] =
        "01234567{\"bad\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
        "\"zero\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]},"
        "\"zero@exp_avg\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[20,28]},"
        "\"none\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[28,28]}}";
    const struct mix_verify_options deep = { .deep = true };
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_verify_report report;
    struct mix_err err = { 0 };
    char zeros[28] = "";

    (void)state;
    assert_ok(mix_buf_put(&text, file, sizeof file - 1, &err), &err);
    mix_store_le(text.data, text.len - 8, 8);
    mix_store_le(zeros, 0x7fc00000, 4);
    mix_store_le(zeros + 8, 0xff800000, 4);
    assert_ok(mix_buf_put(&text, zeros, sizeof zeros, &err), &err);
    test_file_put(test_path(&tmp, "m.safetensors"), text.data, text.len);
    verify(test_path(&tmp, "m.safetensors"), plain, &report);
    assert_int_equal(report.defects.count, 0);
    mix_verify_report_release(&report);
    verify(test_path(&tmp, "m.safetensors"), deep, &report);
    assert_int_equal(report.defects.count, 2);
    assert_text(find(&report, "non-finite", "m.safetensors", "bad")->message,
                "1 NaN and 1 Inf values");
    find(&report, "all-zero", "m.safetensors", "zero");
    mix_verify_report_release(&report);
    mix_buf_release(&text);
}

/* Workers report each its own share, and all of it together; side files are worker 0's. */
static void test_verify__workers_share_the_files(void **state)
{
    struct mix_verify_report report;
    size_t found = 0;
    uint64_t bytes = 0;

    (void)state;
    test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 2, 3, 1 }, false);
    test_file_flip(test_path(&tmp, "c/model/dense-hsd00001of00003.h5"), 1);
    test_file_flip(test_path(&tmp, "c/model/experts-ep00001of00002-hsd00002of00003.h5"), 1);
    test_file_flip(test_path(&tmp, "c/hf/config.json"), 1);
    for (unsigned i = 0; i < 4; i++) {
        verify(test_path(&tmp, "c"), (struct mix_verify_options){ .worker = i, .worker_count = 4 },
               &report);
        found += report.defects.count;
        bytes += report.bytes_read;
        mix_verify_report_release(&report);
    }
    assert_int_equal(found, 3);
    assert_true(bytes >= bytes_of(test_path(&tmp, "c/model/dense-hsd00001of00003.h5")));
}

/* A hub's cache: weights are links to blobs that are named by their SHA-256. */
static void test_verify__a_hub_cache_is_checked_by_its_names(void **state)
{
    struct mix_verify_report report;
    struct mix_buf file = MIX_BUF_INIT;
    unsigned char sha[32];
    char hex[65], blob[256], target[128];

    (void)state;
    test_tiny_hf(test_path(&tmp, "hf"), 0);
    test_file_get(test_path(&tmp, "hf/model.safetensors"), &file);
    mix_sha256(file.data, file.len, sha);
    mix_hex(sha, 32, hex);
    snprintf(blob, sizeof blob, "%s/blobs/%s", tmp.path, hex);
    snprintf(target, sizeof target, "../blobs/%s", hex);
    test_file_put(blob, file.data, file.len);
    assert_int_equal(unlink(test_path(&tmp, "hf/model.safetensors")), 0);
    assert_int_equal(symlink(target, test_path(&tmp, "hf/model.safetensors")), 0);
    verify(test_path(&tmp, "hf"), plain, &report);
    assert_string_equal(report.proof, "hub-sha256");
    assert_int_equal(report.defects.count, 0);
    assert_true(report.bytes_read >= file.len);
    mix_verify_report_release(&report);
    test_file_flip(blob, file.len - 1);
    verify(test_path(&tmp, "hf"), plain, &report);
    assert_text(find(&report, "corrupt", "model.safetensors", "")->message, "blob is named by");
    mix_verify_report_release(&report);
    mix_buf_release(&file);
}

static void test_verify__a_place_with_nothing(void **state)
{
    const struct mix_verify_options options = { .threads = 1, .worker_count = 1 };
    struct mix_verify_report report;
    struct mix_err err = { 0 };

    (void)state;
    assert_rc(mix_verify(test_path(&tmp, "none"), &options, &report, &err), MIX_NOT_FOUND, &err);
    mix_verify_report_release(&report);
    verify(tmp.path, plain, &report); /* a folder that can be read, and holds none */
    find(&report, "missing", "mixckpt.json", "");
    mix_verify_report_release(&report);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_verify__reads_every_byte_of_a_whole_one),
        TEST(test_verify__names_every_damage),
        TEST(test_verify__blames_the_file_whose_checksum_is_wrong),
        TEST(test_verify__gives_the_range_of_each_leaf),
        TEST(test_verify__against_names_what_only_one_has),
        TEST(test_verify__deep_looks_at_the_values),
        TEST(test_verify__workers_share_the_files),
        TEST(test_verify__a_hub_cache_is_checked_by_its_names),
        TEST(test_verify__a_place_with_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
