/* Files in memory: what a test puts is what a reader gets, with the same refusals as on disk. */
#include "ckpt/store/store.h"

#include "tests/support/test.h"

static struct mix_store *store_with_files(void)
{
    struct mix_store *store;
    struct mix_err err = { 0 };

    assert_ok(mix_store_open_memory(&store, &err), &err);
    assert_ok(mix_store_memory_put(store, "b", "old", 3, &err), &err);
    assert_ok(mix_store_memory_put(store, "model/x", "12345", 5, &err), &err);
    assert_ok(mix_store_memory_put(store, "model/deep/y", "", 0, &err), &err);
    assert_ok(mix_store_memory_put(store, "models", "no folder", 9, &err), &err);
    assert_ok(mix_store_memory_put(store, "b", "newer", 5, &err), &err); /* replaces */
    return store;
}

static void test_store_mem__gives_back_what_was_put(void **state)
{
    struct mix_store *store = store_with_files();
    struct mix_buf buf = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    struct mix_stat st;
    char data[8] = "";

    (void)state;
    assert_ok(mix_store_read_all(store, "b", 100, &buf, &err), &err);
    assert_string_equal(buf.data, "newer");
    assert_ok(mix_store_read(store, "model/x", 1, data, 3, &err), &err);
    assert_string_equal(data, "234");
    assert_ok(mix_store_stat(store, "model/x", &st, &err), &err);
    assert_true(st.bytes == 5 && !st.is_folder);
    assert_ok(mix_store_stat(store, "model", &st, &err), &err);
    assert_true(st.is_folder);
    assert_ok(mix_store_stat(store, ".", &st, &err), &err);
    assert_true(st.is_folder);
    assert_ok(mix_store_link_target(store, "b", &buf, &err), &err);
    assert_int_equal(buf.len, 0);
    mix_buf_release(&buf);
    mix_store_close(store);
}

static void test_store_mem__refuses_what_is_not_there(void **state)
{
    struct mix_store *store = store_with_files();
    struct mix_err err = { 0 };
    struct mix_stat st;
    char data[8];

    (void)state;
    assert_int_equal(mix_store_stat(store, "mod", &st, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_store_read(store, "model/z", 0, data, 1, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_store_read(store, "model/x", 3, data, 3, &err), MIX_TRUNCATED);
    assert_text(err.text, "ends at byte 5; bytes 3..6");
    assert_int_equal(mix_store_read(store, "model/x", 6, data, 1, &err), MIX_TRUNCATED);
    assert_int_equal(mix_store_read(store, "model/x", UINT64_MAX, data, 2, &err), MIX_TRUNCATED);
    assert_int_equal(mix_store_read(store, "../b", 0, data, 1, &err), MIX_BAD_FORMAT);
    mix_store_close(store);
}

static void test_store_mem__lists_files_and_folders(void **state)
{
    static const char *const top[] = { "b", "model/", "models" };
    struct mix_store *store = store_with_files();
    struct mix_names names = MIX_NAMES_INIT;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_store_list(store, "", &names, &err), &err);
    assert_int_equal(names.count, MIX_ARRAY_LEN(top));
    for (size_t i = 0; i < names.count; i++)
        assert_string_equal(names.name[i], top[i]);
    mix_names_release(&names);
    assert_ok(mix_store_list(store, "model", &names, &err), &err);
    assert_int_equal(names.count, 2);
    assert_string_equal(names.name[0], "deep/");
    assert_string_equal(names.name[1], "x");
    mix_names_release(&names);
    assert_int_equal(mix_store_list(store, "none", &names, &err), MIX_NOT_FOUND);
    mix_names_release(&names);
    mix_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_mem__gives_back_what_was_put),
        cmocka_unit_test(test_store_mem__refuses_what_is_not_there),
        cmocka_unit_test(test_store_mem__lists_files_and_folders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
