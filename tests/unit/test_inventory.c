/*
 * The files of a checkpoint that exists, as groups: every byte of every tensor is walked
 * once, in the order of the files, and what a shard must begin with is known.
 */
#include "ckpt/inventory.h"

#include <stdlib.h>

#include "ckpt/store/store.h"
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

static struct mix_checkpoint *open_path(const char *path)
{
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    assert_ok(mix_checkpoint_open(path, NULL, &ckpt, &err), &err);
    return ckpt;
}

/* The header that a shard must have is the one that it has, and its size its size. */
static void check_header(const struct mix_inventory *inv, const struct mix_group *group, size_t f)
{
    struct mix_buf wanted = MIX_BUF_INIT, found = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    assert_ok(mix_inventory_header(inv, group, f, &wanted, &err), &err);
    assert_ok(mix_store_read_all(inv->ckpt->store, group->file[f].name, UINT32_MAX, &found, &err),
              &err);
    assert_int_equal(found.len, group->file[f].bytes);
    assert_true(wanted.len <= found.len);
    assert_memory_equal(found.data, wanted.data, wanted.len);
    mix_buf_release(&wanted);
    mix_buf_release(&found);
}

static void check_group(const struct mix_inventory *inv, struct mix_reader *reader, size_t g,
                        unsigned char **painted, unsigned *files)
{
    struct mix_group group = MIX_GROUP_INIT;
    struct mix_err err = { 0 };
    uint64_t bytes = 0, at[64] = { 0 };

    assert_ok(mix_inventory_build(inv, reader, g, &group, &err), &err);
    for (size_t f = 0; f < group.file_count; f++) {
        files[group.file[f].id]++;
        assert_int_equal(inv->group_of_file[group.file[f].id], g);
        if (inv->ckpt->form == MIX_FORM_MIXCKPT)
            check_header(inv, &group, f);
    }
    for (size_t i = 0; i < group.item_count; i++) {
        const struct mix_item *item = &group.item[i];
        const struct mix_cut *cut = &inv->ckpt->m.tensor[item->tensor].cut;

        for (uint32_t k = 0; k < item->part_count; k++) {
            const struct mix_part *p = &group.part[item->part_first + k];

            assert_true(p->offset >= at[p->file]); /* in the order of the file */
            at[p->file] = p->offset;
            for (uint64_t row = item->begin; row < item->end; row += cut->row_bytes)
                for (uint64_t b = p->column_begin; b < p->column_end; b++, bytes++)
                    painted[item->tensor][row + b]++;
        }
    }
    assert_int_equal(bytes, inv->group_bytes[g]);
    assert_int_equal(bytes, group.bytes);
    mix_group_release(&group);
}

static void check_inventory(const char *path, size_t groups)
{
    struct mix_checkpoint *ckpt = open_path(path);
    const struct mix_manifest *m = &ckpt->m;
    struct mix_inventory inv;
    struct mix_reader reader;
    struct mix_err err = { 0 };
    unsigned char **painted = calloc(m->tensor_count, sizeof *painted);
    unsigned *files = calloc(m->file_count, sizeof *files);

    test_row(path);
    for (size_t i = 0; i < m->tensor_count; i++)
        painted[i] = calloc(m->tensor[i].bytes + 1, 1);
    assert_ok(mix_inventory_init(&inv, ckpt, NULL, &err), &err);
    assert_ok(mix_reader_init(&reader, ckpt, &err), &err);
    assert_int_equal(inv.group_count, groups);
    for (size_t g = 0; g < inv.group_count; g++)
        check_group(&inv, &reader, g, painted, files);
    for (size_t i = 0; i < m->tensor_count; i++) {
        for (uint64_t b = 0; b < m->tensor[i].bytes; b++)
            assert_int_equal(painted[i][b], 1);
        free(painted[i]);
    }
    for (size_t f = 0; f < m->file_count; f++)
        assert_int_equal(files[f], 1);
    free(painted);
    free(files);
    mix_reader_release(&reader);
    mix_inventory_release(&inv);
    mix_inventory_release(&inv); /* of nothing */
    mix_checkpoint_close(ckpt);
}

/* Files that share rows by tp are one group; all others are groups of their own. */
static void test_inventory__walks_every_byte_once_in_file_order(void **state)
{
    static const struct {
        struct mix_mesh mesh;
        size_t groups; /* dense and each ep, times hsd; twice with optimizer state */
    } row[] = {
        { { 1, 1, 1 }, 2 }, { { 2, 3, 2 }, 9 }, { { 4, 2, 1 }, 10 }, { { 1, 5, 2 }, 10 },
    };
    char name[32];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        for (int container = 0; container < 2; container++) {
            bool optimizer = i == 1;

            snprintf(name, sizeof name, "c%zu-%d", i, container);
            test_tiny_shards(test_path(&tmp, name), (enum mix_container)container, row[i].mesh,
                             optimizer);
            check_inventory(test_path(&tmp, name), row[i].groups * (optimizer ? 2 : 1));
        }
    }
    test_tiny_hf(test_path(&tmp, "hf"), 60000);
    check_inventory(test_path(&tmp, "hf"), 3);
}

/* In a file of somebody else, tensors stand in an order that is not that of their names. */
static void test_inventory__goes_by_offset_in_files_of_others(void **state)
{
    static const char file[] = "01234567{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                               "\"c\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]},"
                               "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}12345";
    char text[sizeof file];

    (void)state;
    memcpy(text, file, sizeof file);
    mix_store_le(text, sizeof file - 1 - 8 - 5, 8);
    test_file_put(test_path(&tmp, "m.safetensors"), text, sizeof file - 1);
    check_inventory(test_path(&tmp, "m.safetensors"), 1);
}

/* ---- records that are wrong ---- */

/* Copy record `from` over record `to`, but for its bytes. */
static void move_record(struct mix_buf *pieces, size_t from, size_t to)
{
    memcpy(pieces->data + to * 24, pieces->data + from * 24, 16);
}

static void write_pieces(const struct mix_buf *pieces)
{
    test_file_put(test_path(&tmp, "c/mixckpt.pieces"), pieces->data, pieces->len);
}

static void test_inventory__a_record_that_is_wrong_is_a_defect(void **state)
{
    struct mix_buf pieces = MIX_BUF_INIT;
    struct mix_checkpoint *ckpt;
    struct mix_inventory inv;
    struct mix_defects defects;
    struct mix_err err = { 0 };
    uint64_t units = 0;

    (void)state;
    test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, false);
    test_file_get(test_path(&tmp, "c/mixckpt.pieces"), &pieces);
    mix_store_le(pieces.data + 5 * 24, 77, 4);
    mix_store_le(pieces.data + 9 * 24 + 8, UINT64_MAX, 8);
    write_pieces(&pieces);
    ckpt = open_path(test_path(&tmp, "c"));
    assert_rc(mix_inventory_init(&inv, ckpt, NULL, &err), MIX_BAD_FORMAT, &err);
    assert_text(err.text, "mixckpt.pieces: record 5");
    assert_null(inv.unit);
    mix_defects_init(&defects);
    assert_ok(mix_inventory_init(&inv, ckpt, &defects, &err), &err);
    assert_int_equal(defects.count, 2); /* each once */
    mix_defects_sort(&defects);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(defects.defect[i].kind, "bad-format");
        assert_string_equal(defects.defect[i].file, "mixckpt.pieces");
    }
    for (size_t g = 0; g < inv.group_count; g++)
        units += inv.first[g + 1] - inv.first[g];
    assert_int_equal(units, ckpt->m.piece_count - 2); /* the others are walked */
    mix_inventory_release(&inv);
    mix_defects_release(&defects);
    mix_checkpoint_close(ckpt);
    mix_buf_release(&pieces);
}

static enum mix_rc header_of(const struct mix_checkpoint *ckpt, size_t file, struct mix_err *err)
{
    struct mix_inventory inv;
    struct mix_reader reader;
    struct mix_group group = MIX_GROUP_INIT;
    struct mix_buf header = MIX_BUF_INIT;
    size_t g, f = 0;
    enum mix_rc rc;

    assert_ok(mix_inventory_init(&inv, ckpt, NULL, err), err);
    assert_ok(mix_reader_init(&reader, ckpt, err), err);
    g = inv.group_of_file[file];
    assert_ok(mix_inventory_build(&inv, &reader, g, &group, err), err);
    while (group.file[f].id != file)
        f++;
    rc = mix_inventory_header(&inv, &group, f, &header, err);
    mix_buf_release(&header);
    mix_group_release(&group);
    mix_reader_release(&reader);
    mix_inventory_release(&inv);
    return rc;
}

/* Records that lie in their files, but not where a shard has its pieces. */
static void test_inventory__pieces_that_lie_elsewhere_make_no_shard(void **state)
{
    static const struct {
        const char *what;
        size_t from, to;  /* piece 0 and 1 are lm_head, 2 and 3 embed_tokens */
        size_t file;
        const char *says;
    } row[] = {
        { "two pieces of one tensor", 0, 1, 0, "holds two pieces of the tensor 'lm_head.weight'" },
        { "one on top of another", 0, 2, 0, "is said to begin at byte" },
    };
    struct mix_buf whole = MIX_BUF_INIT, pieces = MIX_BUF_INIT;

    (void)state;
    test_tiny_shards(test_path(&tmp, "c"), MIX_HDF5, (struct mix_mesh){ 1, 2, 1 }, false);
    test_file_get(test_path(&tmp, "c/mixckpt.pieces"), &whole);
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_checkpoint *ckpt;
        struct mix_err err = { 0 };

        test_row(row[i].what);
        test_file_get(test_path(&tmp, "c/mixckpt.pieces"), &pieces);
        move_record(&pieces, row[i].from, row[i].to);
        write_pieces(&pieces);
        ckpt = open_path(test_path(&tmp, "c"));
        assert_rc(header_of(ckpt, row[i].file, &err), MIX_BAD_FORMAT, &err);
        assert_text(err.text, row[i].says);
        mix_checkpoint_close(ckpt);
        write_pieces(&whole);
    }
    mix_buf_release(&whole);
    mix_buf_release(&pieces);
}

/* The manifest says another size than the pieces make. */
static void test_inventory__a_size_that_its_pieces_do_not_make(void **state)
{
    struct mix_checkpoint *ckpt;
    struct mix_err err = { 0 };

    (void)state;
    test_tiny_shards(test_path(&tmp, "c"), MIX_SAFETENSORS, (struct mix_mesh){ 1, 2, 1 }, false);
    ckpt = open_path(test_path(&tmp, "c"));
    ckpt->m.file[0].bytes++;
    assert_rc(header_of(ckpt, 0, &err), MIX_BAD_FORMAT, &err);
    assert_text(err.text, "is said to hold");
    mix_checkpoint_close(ckpt);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_inventory__walks_every_byte_once_in_file_order),
        TEST(test_inventory__goes_by_offset_in_files_of_others),
        TEST(test_inventory__a_record_that_is_wrong_is_a_defect),
        TEST(test_inventory__pieces_that_lie_elsewhere_make_no_shard),
        TEST(test_inventory__a_size_that_its_pieces_do_not_make),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
