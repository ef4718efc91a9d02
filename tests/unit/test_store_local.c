/* A folder of the file system as a store: bounded descriptors, links followed, paths kept in. */
#include "ckpt/store/store.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/folder.h"
#include "tests/support/test.h"

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

static struct mix_store *open_store(const char *url)
{
    struct mix_store *store;
    struct mix_err err = { 0 };

    assert_ok(mix_store_open(url, &store, &err), &err);
    return store;
}

static size_t descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

enum { MANY = 700, KEPT_OPEN = 256 };

static void make_many(void)
{
    char name[32];

    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "many/%03u", i);
        test_file_put(test_path(&tmp, name), name + 5, 3);
    }
}

/* Read file i; its three bytes are its name. */
static bool reads_itself(struct mix_store *store, unsigned i)
{
    char name[32], buf[4] = "";
    struct mix_err err = { 0 };

    snprintf(name, sizeof name, "many/%03u", i);
    return !mix_store_read(store, name, 0, buf, 3, &err) && !strcmp(buf, name + 5);
}

static void test_store_local__keeps_at_most_256_files_open(void **state)
{
    struct mix_store *store = open_store(tmp.path);
    size_t before = descriptors(), most = 0;
    unsigned random = 1;

    (void)state;
    make_many();
    for (unsigned i = 0; i < 2 * MANY; i++) /* in order, then again */
        assert_true(reads_itself(store, i % MANY));
    for (unsigned i = 0; i < 10000; i++) {
        random = random * 1664525 + 1013904223;
        assert_true(reads_itself(store, (random >> 8) % MANY));
        if (i % 500 == 0 && descriptors() > most)
            most = descriptors();
    }
    assert_int_equal(most, before + KEPT_OPEN);
    mix_store_close(store);
    assert_int_equal(descriptors(), before);
}

/* The file read last is served from the descriptor that is open: also when it is gone. */
static void test_store_local__closes_the_one_unused_for_longest(void **state)
{
    struct mix_store *store = open_store(tmp.path);

    (void)state;
    make_many();
    for (unsigned i = 0; i < KEPT_OPEN; i++)
        assert_true(reads_itself(store, i));
    assert_true(reads_itself(store, 0));   /* now 1 is the oldest */
    assert_true(reads_itself(store, 300)); /* and goes */
    for (unsigned i = 0; i <= 300; i++) {
        char name[32];

        snprintf(name, sizeof name, "many/%03u", i);
        assert_int_equal(unlink(test_path(&tmp, name)), 0);
    }
    assert_false(reads_itself(store, 1));
    assert_true(reads_itself(store, 0));
    assert_true(reads_itself(store, 2));
    assert_true(reads_itself(store, 300));
    mix_store_close(store);
}

struct reading {
    pthread_t id;
    struct mix_store *store;
    unsigned seed, wrong;
};

static void *read_many(void *argument)
{
    struct reading *r = argument;

    for (unsigned i = 0; i < 5000; i++) {
        r->seed = r->seed * 1664525 + 1013904223;
        r->wrong += !reads_itself(r->store, (r->seed >> 8) % MANY);
    }
    return NULL;
}

static void test_store_local__threads_share_it(void **state)
{
    struct mix_store *store = open_store(tmp.path);
    struct reading reading[8];

    (void)state;
    make_many();
    for (unsigned i = 0; i < MIX_ARRAY_LEN(reading); i++) {
        reading[i] = (struct reading){ .store = store, .seed = i };
        assert_int_equal(pthread_create(&reading[i].id, NULL, read_many, &reading[i]), 0);
    }
    for (unsigned i = 0; i < MIX_ARRAY_LEN(reading); i++) {
        pthread_join(reading[i].id, NULL);
        assert_int_equal(reading[i].wrong, 0);
    }
    mix_store_close(store);
}

static void test_store_local__follows_links(void **state)
{
    struct mix_store *store;
    struct mix_stat st;
    struct mix_err err = { 0 };
    struct mix_buf target = MIX_BUF_INIT;
    struct mix_names names = MIX_NAMES_INIT;
    char buf[5] = "";

    (void)state;
    /* As a hub's cache is: snapshots link to blobs outside. */
    test_file_put(test_path(&tmp, "blobs/0123"), "blob", 4);
    assert_int_equal(mkdir(test_path(&tmp, "snapshot"), 0777), 0);
    assert_int_equal(symlink("../blobs/0123", test_path(&tmp, "snapshot/file")), 0);
    assert_int_equal(symlink("../blobs", test_path(&tmp, "snapshot/folder")), 0);
    assert_int_equal(symlink("nowhere", test_path(&tmp, "snapshot/dangling")), 0);
    store = open_store(test_path(&tmp, "snapshot"));
    assert_ok(mix_store_read(store, "file", 0, buf, 4, &err), &err);
    assert_string_equal(buf, "blob");
    assert_ok(mix_store_stat(store, "file", &st, &err), &err);
    assert_true(st.bytes == 4 && !st.is_folder);
    assert_ok(mix_store_read(store, "folder/0123", 1, buf, 3, &err), &err);
    assert_memory_equal(buf, "lob", 3);
    assert_ok(mix_store_link_target(store, "file", &target, &err), &err);
    assert_string_equal(target.data, "../blobs/0123");
    assert_ok(mix_store_link_target(store, "folder/0123", &target, &err), &err);
    assert_string_equal(target.data, ""); /* no link itself */
    assert_int_equal(mix_store_stat(store, "dangling", &st, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_store_read(store, "dangling", 0, buf, 1, &err), MIX_NOT_FOUND);
    assert_ok(mix_store_list(store, ".", &names, &err), &err);
    assert_int_equal(names.count, 3);
    assert_string_equal(names.name[0], "dangling");
    assert_string_equal(names.name[1], "file");
    assert_string_equal(names.name[2], "folder/");
    mix_names_release(&names);
    mix_buf_release(&target);
    mix_store_close(store);
}

static void test_store_local__no_path_leaves_the_folder(void **state)
{
    static const char *const hostile[] = {
        "..", "../outside", "a/..", "a/../../outside", "/etc/passwd", "", "a//b", "a/", "./a",
        "a/./b", "/", "//", "../", "a/../b",
    };
    struct mix_store *store;
    struct mix_stat st;
    struct mix_err err;
    struct mix_names names = MIX_NAMES_INIT;
    struct mix_buf buf = MIX_BUF_INIT;
    char byte;

    (void)state;
    test_file_put(test_path(&tmp, "in/a/b"), "x", 1);
    test_file_put(test_path(&tmp, "outside"), "y", 1);
    store = open_store(test_path(&tmp, "in"));
    for (size_t i = 0; i < MIX_ARRAY_LEN(hostile); i++) {
        test_row(hostile[i]);
        assert_int_equal(mix_store_stat(store, hostile[i], &st, &err), MIX_BAD_FORMAT);
        assert_text(err.text, "leaves its folder or has an empty part");
        assert_int_equal(mix_store_read(store, hostile[i], 0, &byte, 1, &err), MIX_BAD_FORMAT);
        assert_int_equal(mix_store_read_all(store, hostile[i], 9, &buf, &err), MIX_BAD_FORMAT);
        assert_int_equal(mix_store_link_target(store, hostile[i], &buf, &err), MIX_BAD_FORMAT);
        if (*hostile[i]) /* "" is the top */
            assert_int_equal(mix_store_list(store, hostile[i], &names, &err), MIX_BAD_FORMAT);
    }
    /* Names that only look like it. */
    test_file_put(test_path(&tmp, "in/..."), "1", 1);
    test_file_put(test_path(&tmp, "in/..a/.b"), "2", 1);
    assert_ok(mix_store_read(store, "...", 0, &byte, 1, &err), &err);
    assert_ok(mix_store_read(store, "..a/.b", 0, &byte, 1, &err), &err);
    mix_buf_release(&buf);
    mix_store_close(store);
}

static void test_store_local__says_what_is_missing_or_too_short(void **state)
{
    struct mix_store *store;
    struct mix_stat st;
    struct mix_err err = { 0 };
    struct mix_names names = MIX_NAMES_INIT;
    struct mix_buf buf = MIX_BUF_INIT;
    char data[8];

    (void)state;
    test_file_put(test_path(&tmp, "f"), "12345", 5);
    test_file_put(test_path(&tmp, "empty"), "", 0);
    store = open_store(tmp.path);
    assert_int_equal(mix_store_read(store, "f", 2, data, 4, &err), MIX_TRUNCATED);
    assert_text(err.text, "ends at or before byte 5; bytes 2..6 were expected");
    assert_int_equal(mix_store_read(store, "f", 9, data, 1, &err), MIX_TRUNCATED);
    assert_int_equal(mix_store_read(store, "empty", 0, data, 1, &err), MIX_TRUNCATED);
    assert_int_equal(mix_store_read(store, "g", 0, data, 1, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_store_read(store, "f/g", 0, data, 1, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_store_read(store, ".", 0, data, 1, &err), MIX_NOT_FOUND);
    assert_text(err.text, "is a folder");
    assert_int_equal(mix_store_stat(store, "f/g", &st, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_store_list(store, "g", &names, &err), MIX_NOT_FOUND);
    assert_ok(mix_store_read_all(store, "empty", 0, &buf, &err), &err);
    assert_int_equal(buf.len, 0);
    assert_ok(mix_store_read_all(store, "f", 5, &buf, &err), &err);
    assert_string_equal(buf.data, "12345");
    assert_int_equal(mix_store_read_all(store, "f", 4, &buf, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "5 bytes, at most 4");
    assert_int_equal(mix_store_read_all(store, ".", 4096, &buf, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "folder");
    mix_names_release(&names);
    mix_buf_release(&buf);
    mix_store_close(store);
}

static void test_store_local__a_url_names_a_folder_or_a_file(void **state)
{
    struct mix_store *store;
    struct mix_err err = { 0 };
    char url[256], here[512], byte;

    (void)state;
    test_file_put(test_path(&tmp, "folder/file"), "x", 1);
    store = open_store(test_path(&tmp, "folder///"));
    assert_string_equal(mix_store_url(store), test_path(&tmp, "folder"));
    assert_null(mix_store_file(store));
    mix_store_close(store);

    snprintf(url, sizeof url, "file://%s", test_path(&tmp, "folder/file"));
    store = open_store(url);
    assert_string_equal(mix_store_url(store), test_path(&tmp, "folder"));
    assert_string_equal(mix_store_file(store), "file");
    assert_ok(mix_store_read(store, "file", 0, &byte, 1, &err), &err);
    mix_store_close(store);

    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(test_path(&tmp, "folder")), 0);
    store = open_store("file");
    assert_string_equal(mix_store_url(store), ".");
    assert_string_equal(mix_store_file(store), "file");
    mix_store_close(store);
    assert_int_equal(chdir(here), 0);

    assert_int_equal(mix_store_open(test_path(&tmp, "none"), &store, &err), MIX_NOT_FOUND);
    assert_null(store);
    assert_text(err.text, test_path(&tmp, "none"));
    assert_int_equal(mix_store_open("", &store, &err), MIX_USAGE);
    assert_int_equal(mix_store_open("gopher://a/b", &store, &err), MIX_UNSUPPORTED);
    assert_text(err.text, "does not read gopher:// URLs");
    assert_null(store);
    mix_store_close(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_store_local__keeps_at_most_256_files_open),
        TEST(test_store_local__closes_the_one_unused_for_longest),
        TEST(test_store_local__threads_share_it),
        TEST(test_store_local__follows_links),
        TEST(test_store_local__no_path_leaves_the_folder),
        TEST(test_store_local__says_what_is_missing_or_too_short),
        TEST(test_store_local__a_url_names_a_folder_or_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
