/* Local files for writing: whole, durable, and never through a link. */
#include "ckpt/base/file.h"

#include <errno.h>
#include <fcntl.h>
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

static bool there_is(const char *path)
{
    struct mix_err err = { 0 };
    bool there;

    assert_ok(mix_path_find(path, &there, &err), &err);
    return there;
}

static void assert_holds(const char *path, const char *text)
{
    struct mix_buf found = MIX_BUF_INIT;

    test_file_get(path, &found);
    assert_string_equal(found.data, text);
    mix_buf_release(&found);
}

static void test_file__written_ranges_read_back(void **state)
{
    const char *path = test_path(&tmp, "f");
    struct mix_err err = { 0 };
    char buf[8] = "";
    struct stat st;
    int fd;

    (void)state;
    assert_ok(mix_file_open(path, &fd, &err), &err);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_ok(mix_file_write(fd, path, 4, "5678", 4, &err), &err);
    assert_ok(mix_file_write(fd, path, 0, "1234", 4, &err), &err);
    assert_ok(mix_file_write(fd, path, 100, "", 0, &err), &err);
    assert_ok(mix_file_sync(fd, path, &err), &err);
    assert_ok(mix_file_read(fd, path, 2, buf, 5, &err), &err);
    assert_string_equal(buf, "34567");
    assert_int_equal(mix_file_read(fd, path, 6, buf, 5, &err), MIX_TRUNCATED);
    assert_text(err.text, "ends at byte 8, 3 bytes too early");
    assert_ok(mix_file_resize(fd, path, 6, &err), &err);
    assert_ok(mix_file_close(&fd, path, &err), &err);
    assert_int_equal(fd, -1);
    assert_ok(mix_file_close(&fd, path, &err), &err); /* of nothing */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 6);
    assert_ok(mix_file_open(path, &fd, &err), &err); /* and keeps what is there */
    assert_ok(mix_file_read(fd, path, 0, buf, 6, &err), &err);
    assert_memory_equal(buf, "123456", 6);
    assert_ok(mix_file_close(&fd, path, &err), &err);
}

static void test_file__an_error_names_the_path_and_the_reason(void **state)
{
    const char *path = test_path(&tmp, "no/such/folder");
    struct mix_err err = { 0 };
    int fd = open("/dev/null", O_RDONLY);

    (void)state;
    assert_int_equal(mix_file_write(fd, "x", 5, "abc", 3, &err), MIX_IO);
    assert_text(err.text, "x: cannot write 3 bytes at 5: Bad file descriptor");
    close(fd);
    assert_int_equal(mix_file_open(path, &fd, &err), MIX_IO);
    assert_text(err.text, path);
    assert_text(err.text, "No such file");
    fd = open("/dev/full", O_WRONLY);
    if (fd >= 0) {
        assert_int_equal(mix_file_write(fd, "full", 0, "abc", 3, &err), MIX_IO);
        assert_text(err.text, "No space left");
        close(fd);
    }
}

static void test_file__open_does_not_follow_a_link(void **state)
{
    const char *link = test_path(&tmp, "link");
    struct mix_err err = { 0 };
    int fd;

    (void)state;
    test_file_put(test_path(&tmp, "victim"), "mine", 4);
    assert_int_equal(symlink("victim", link), 0);
    assert_int_equal(mix_file_open(link, &fd, &err), MIX_IO);
    assert_text(err.text, link);
    assert_int_equal(fd, -1);
    assert_holds(test_path(&tmp, "victim"), "mine");
}

static void test_file__put_replaces_at_once_and_follows_no_link(void **state)
{
    const char *path = test_path(&tmp, "f");
    struct mix_err err = { 0 };
    struct stat st;

    (void)state;
    test_file_put(test_path(&tmp, "victim"), "mine", 4);
    assert_ok(mix_file_put(path, "one", 3, false, &err), &err);
    assert_holds(path, "one");
    assert_ok(mix_file_put(path, "", 0, true, &err), &err);
    assert_holds(path, "");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("victim", path), 0);
    assert_int_equal(symlink("victim", test_path(&tmp, "f.tmp")), 0);
    assert_ok(mix_file_put(path, "two", 3, true, &err), &err);
    assert_holds(path, "two");
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_holds(test_path(&tmp, "victim"), "mine");
    assert_false(there_is(test_path(&tmp, "f.tmp")));
}

/* A folder is in the way of the rename: what was written does not stay behind. */
static void test_file__put_that_fails_leaves_nothing(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    test_file_put(test_path(&tmp, "folder/inside"), "x", 1);
    assert_int_equal(mix_file_put(test_path(&tmp, "folder"), "y", 1, false, &err), MIX_IO);
    assert_text(err.text, "cannot rename");
    assert_false(there_is(test_path(&tmp, "folder.tmp")));
    assert_holds(test_path(&tmp, "folder/inside"), "x");
}

static void test_file__get_is_bounded(void **state)
{
    struct mix_buf buf = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    (void)state;
    test_file_put(test_path(&tmp, "f"), "12345", 5);
    assert_ok(mix_file_get(test_path(&tmp, "f"), 5, &buf, &err), &err);
    assert_ok(mix_file_get(test_path(&tmp, "f"), 5, &buf, &err), &err);
    assert_string_equal(buf.data, "1234512345"); /* appended */
    assert_int_equal(mix_file_get(test_path(&tmp, "f"), 4, &buf, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "5 bytes, at most 4");
    assert_int_equal(mix_file_get(test_path(&tmp, "g"), 4, &buf, &err), MIX_NOT_FOUND);
    assert_int_equal(mix_file_get(tmp.path, 1 << 20, &buf, &err), MIX_IO);
    mix_buf_release(&buf);
}

static void test_file__folders(void **state)
{
    struct mix_err err = { 0 };
    struct mix_buf path = MIX_BUF_INIT;
    bool empty;

    (void)state;
    assert_ok(mix_path_join(&path, tmp.path, "a//b/c/f", &err), &err);
    assert_ok(mix_folder_make_parents(path.data, &err), &err);
    assert_true(mix_path_is_folder(test_path(&tmp, "a/b/c")));
    assert_false(there_is(test_path(&tmp, "a/b/c/f")));
    assert_ok(mix_folder_make_parents(path.data, &err), &err); /* there already */
    assert_ok(mix_folder_make(test_path(&tmp, "a"), &err), &err);
    assert_ok(mix_folder_make_parents("relative", &err), &err);
    assert_ok(mix_folder_is_empty(test_path(&tmp, "a/b/c"), &empty, &err), &err);
    assert_true(empty);
    test_file_put(test_path(&tmp, "a/b/c/f"), "", 0);
    assert_ok(mix_folder_is_empty(test_path(&tmp, "a/b/c"), &empty, &err), &err);
    assert_false(empty);
    assert_int_equal(mix_folder_is_empty(test_path(&tmp, "x"), &empty, &err), MIX_IO);
    assert_int_equal(mix_folder_make(test_path(&tmp, "a/b/c/f"), &err), MIX_IO);
    assert_text(err.text, "a file stands there");
    assert_int_equal(symlink("b", test_path(&tmp, "a/link")), 0);
    assert_int_equal(mix_folder_make(test_path(&tmp, "a/link"), &err), MIX_IO);
    assert_text(err.text, "symbolic link");
    assert_ok(mix_folder_make_parents(test_path(&tmp, "a/link/c/f"), &err), &err); /* on the way */
    assert_int_equal(mix_folder_make(test_path(&tmp, "none/a"), &err), MIX_IO);
    assert_int_equal(mix_folder_make_parents(test_path(&tmp, "a/b/c/f/g/h"), &err), MIX_IO);
    assert_int_equal(symlink("nowhere", test_path(&tmp, "a/dangling")), 0);
    assert_true(there_is(test_path(&tmp, "a/dangling")));
    assert_false(mix_path_is_folder(test_path(&tmp, "a/dangling")));
    assert_false(there_is(test_path(&tmp, "a/b/c/f/below-a-file")));
    assert_ok(mix_folder_sync_tree(test_path(&tmp, "a"), &err), &err);
    assert_ok(mix_folder_sync(test_path(&tmp, "a"), &err), &err);
    assert_int_equal(mix_folder_sync(test_path(&tmp, "x"), &err), MIX_IO);
    assert_ok(mix_path_sync_parent(test_path(&tmp, "a"), &err), &err);
    assert_ok(mix_path_sync_parent(test_path(&tmp, "a///"), &err), &err);
    assert_ok(mix_path_sync_parent("name", &err), &err);
    assert_ok(mix_path_sync_parent("/name", &err), &err);
    assert_int_equal(mix_path_sync_parent(test_path(&tmp, "x/y"), &err), MIX_IO);
    mix_buf_release(&path);
}

static void test_file__remove_takes_all_and_follows_no_link(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    test_file_put(test_path(&tmp, "outside/kept"), "mine", 4);
    test_file_put(test_path(&tmp, "gone/deep/er/file"), "x", 1);
    assert_int_equal(symlink("../outside", test_path(&tmp, "gone/to-folder")), 0);
    assert_int_equal(symlink("../outside/kept", test_path(&tmp, "gone/to-file")), 0);
    assert_int_equal(symlink("nowhere", test_path(&tmp, "gone/dangling")), 0);
    assert_ok(mix_path_remove(test_path(&tmp, "gone"), &err), &err);
    assert_false(there_is(test_path(&tmp, "gone")));
    assert_ok(mix_path_remove(test_path(&tmp, "gone"), &err), &err); /* absent is fine */
    assert_int_equal(symlink("outside", test_path(&tmp, "link")), 0);
    assert_ok(mix_path_remove(test_path(&tmp, "link"), &err), &err);
    assert_false(there_is(test_path(&tmp, "link")));
    assert_holds(test_path(&tmp, "outside/kept"), "mine");
}

static void test_file__rename_replaces(void **state)
{
    struct mix_err err = { 0 };

    (void)state;
    test_file_put(test_path(&tmp, "a"), "new", 3);
    test_file_put(test_path(&tmp, "b"), "old", 3);
    assert_ok(mix_path_rename(test_path(&tmp, "a"), test_path(&tmp, "b"), &err), &err);
    assert_holds(test_path(&tmp, "b"), "new");
    assert_int_equal(mix_path_rename(test_path(&tmp, "a"), test_path(&tmp, "b"), &err), MIX_IO);
    assert_text(err.text, "cannot rename to");
}

static void test_file__scratch_has_no_name(void **state)
{
    static const uint64_t sizes[] = { 1, 64 << 20 }; /* in memory, and in TMPDIR */
    struct mix_err err = { 0 };
    bool empty;
    char byte;
    int fd;

    (void)state;
    assert_int_equal(setenv("TMPDIR", tmp.path, 1), 0);
    for (size_t i = 0; i < MIX_ARRAY_LEN(sizes); i++) {
        assert_ok(mix_file_scratch(sizes[i], &fd, &err), &err);
        assert_ok(mix_file_write(fd, "scratch", sizes[i] - 1, "x", 1, &err), &err);
        assert_ok(mix_file_read(fd, "scratch", sizes[i] - 1, &byte, 1, &err), &err);
        assert_int_equal(byte, 'x');
        assert_ok(mix_folder_is_empty(tmp.path, &empty, &err), &err);
        assert_true(empty);
        assert_ok(mix_file_close(&fd, "scratch", &err), &err);
    }
    assert_int_equal(setenv("TMPDIR", test_path(&tmp, "none"), 1), 0);
    assert_int_equal(mix_file_scratch(64 << 20, &fd, &err), MIX_IO);
    assert_text(err.text, "TMPDIR");
    unsetenv("TMPDIR");
}

static void test_file__free_space_is_known(void **state)
{
    struct mix_err err = { 0 };
    uint64_t bytes = 0;

    (void)state;
    assert_ok(mix_path_free_bytes(tmp.path, &bytes, &err), &err);
    assert_true(bytes > 0);
    assert_int_equal(mix_path_free_bytes(test_path(&tmp, "x"), &bytes, &err), MIX_IO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_file__written_ranges_read_back),
        TEST(test_file__an_error_names_the_path_and_the_reason),
        TEST(test_file__open_does_not_follow_a_link),
        TEST(test_file__put_replaces_at_once_and_follows_no_link),
        TEST(test_file__put_that_fails_leaves_nothing),
        TEST(test_file__get_is_bounded),
        TEST(test_file__folders),
        TEST(test_file__remove_takes_all_and_follows_no_link),
        TEST(test_file__rename_replaces),
        TEST(test_file__scratch_has_no_name),
        TEST(test_file__free_space_is_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
