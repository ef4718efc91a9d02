/* Lists of defects and warnings: which failures are defects, their order, their bound. */
#include "ckpt/defect.h"

#include "tests/support/test.h"

static const struct {
    enum mix_rc rc;
    const char *kind; /* NULL: no fault of the checkpoint */
} takes[] = {
    { MIX_NO_MEMORY, NULL },        { MIX_IO, NULL },
    { MIX_NOT_FOUND, "missing" },   { MIX_BAD_FORMAT, "bad-format" },
    { MIX_OVERLAP, "overlap" },     { MIX_HOLE, "hole" },
    { MIX_TRUNCATED, "truncated" }, { MIX_CORRUPT, "corrupt" },
    { MIX_MISMATCH, "bad-format" }, { MIX_UNSUPPORTED, NULL },
    { MIX_USAGE, NULL },            { MIX_EXISTS, NULL },
    { MIX_INTERRUPTED, NULL },
};

static void test_defect__only_faults_of_the_checkpoint_are_taken(void **state)
{
    (void)state;
    assert_int_equal(MIX_ARRAY_LEN(takes), MIX_INTERRUPTED);
    for (size_t i = 0; i < MIX_ARRAY_LEN(takes); i++) {
        struct mix_defects list;
        struct mix_err err = { 0 };

        test_row(mix_rc_name(takes[i].rc));
        mix_defects_init(&list);
        mix_fail(&err, takes[i].rc, "words");
        mix_err_tensor(&err, "t", 5, 9);
        assert_int_equal(mix_defects_take(&list, "f", takes[i].rc, &err),
                         takes[i].kind ? MIX_OK : takes[i].rc);
        assert_int_equal(list.count, takes[i].kind ? 1 : 0);
        if (takes[i].kind) {
            assert_string_equal(list.defect[0].kind, takes[i].kind);
            assert_string_equal(list.defect[0].file, "f");
            assert_string_equal(list.defect[0].tensor, "t");
            assert_true(list.defect[0].begin == 5 && list.defect[0].end == 9);
            assert_string_equal(list.defect[0].message, "words");
        } else {
            assert_string_equal(err.text, "words"); /* for whoever gets it */
        }
        mix_defects_release(&list);
    }
}

/* Without a file from the caller, the one in the words. */
static void test_defect__takes_the_file_of_the_words(void **state)
{
    struct mix_defects list;
    struct mix_err err = { 0 };

    (void)state;
    mix_defects_init(&list);
    mix_fail(&err, MIX_CORRUPT, "words");
    mix_err_file(&err, "inner");
    assert_ok(mix_defects_take(&list, NULL, MIX_CORRUPT, &err), &err);
    assert_string_equal(list.defect[0].file, "inner");
    assert_true(list.defect[0].begin == 0 && list.defect[0].end == 0);
    mix_defects_release(&list);
}

static void test_defect__are_sorted_by_place(void **state)
{
    static const struct {
        const char *file, *tensor;
        uint64_t begin;
        const char *message;
    } sorted[] = {
        { "", "z", 0, "m" },  { "a", "", 0, "m" },  { "a", "t", 0, "m" }, { "a", "t", 9, "k" },
        { "a", "t", 9, "m" }, { "a", "t", 10, "m" }, { "a", "u", 1, "m" }, { "b", "t", 0, "m" },
    };
    enum { COUNT = sizeof sorted / sizeof *sorted };
    struct mix_defects list;
    struct mix_err err = { 0 };

    (void)state;
    mix_defects_init(&list);
    mix_defects_sort(&list); /* none */
    for (size_t i = 0; i < COUNT; i++) {
        size_t k = (i * 5 + 3) % COUNT;

        assert_ok(mix_defects_add(&list, "hole", sorted[k].file, sorted[k].tensor,
                                  sorted[k].begin, 11, &err, "%s", sorted[k].message), &err);
    }
    mix_defects_sort(&list);
    for (size_t i = 0; i < COUNT; i++) {
        assert_string_equal(list.defect[i].file, sorted[i].file);
        assert_string_equal(list.defect[i].tensor, sorted[i].tensor);
        assert_true(list.defect[i].begin == sorted[i].begin);
        assert_string_equal(list.defect[i].message, sorted[i].message);
    }
    mix_defects_release(&list);
}

static void test_defect__keeps_ten_thousand_and_counts_the_rest(void **state)
{
    struct mix_defects list;
    struct mix_err err = { 0 };

    (void)state;
    mix_defects_init(&list);
    for (unsigned i = 0; i < 10007; i++)
        assert_ok(mix_defects_add(&list, "corrupt", NULL, NULL, i, i + 1, &err, "%u", i), &err);
    assert_int_equal(list.count, 10000);
    assert_int_equal(list.left_out, 7);
    assert_string_equal(list.defect[9999].message, "9999");
    assert_string_equal(list.defect[0].file, "");
    assert_string_equal(list.defect[0].tensor, "");
    mix_defects_release(&list);
}

static void test_defect__texts_are_copies_of_one_line(void **state)
{
    struct mix_defects list;
    struct mix_texts texts;
    struct mix_err err = { 0 };
    char file[] = "f", tensor[] = "t";

    (void)state;
    mix_defects_init(&list);
    mix_texts_init(&texts);
    assert_ok(mix_defects_add(&list, "hole", file, tensor, 0, 1, &err, "a\nb\x1b" "c"), &err);
    assert_ok(mix_texts_add(&texts, &err, "%s\n%d", "warning", 7), &err);
    file[0] = tensor[0] = 'x';
    assert_string_equal(list.defect[0].file, "f");
    assert_string_equal(list.defect[0].tensor, "t");
    assert_string_equal(list.defect[0].message, "a?b?c");
    assert_int_equal(texts.count, 1);
    assert_string_equal(texts.text[0], "warning?7");
    mix_texts_release(&texts);
    mix_defects_release(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defect__only_faults_of_the_checkpoint_are_taken),
        cmocka_unit_test(test_defect__takes_the_file_of_the_words),
        cmocka_unit_test(test_defect__are_sorted_by_place),
        cmocka_unit_test(test_defect__keeps_ten_thousand_and_counts_the_rest),
        cmocka_unit_test(test_defect__texts_are_copies_of_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
