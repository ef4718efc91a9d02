/* folder.c - temporary folders and files of tests. */
#include "tests/support/folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/file.h"
#include "tests/support/test.h"

void test_folder_init(struct test_folder *folder)
{
    strcpy(folder->path, "/tmp/mixckpt-unit-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
}

void test_folder_release(struct test_folder *folder)
{
    struct mix_err err = { 0 };

    assert_ok(mix_path_remove(folder->path, &err), &err);
}

const char *test_path(const struct test_folder *folder, const char *name)
{
    static char text[8][512];
    static unsigned next;
    char *out = text[next++ % 8];

    snprintf(out, sizeof text[0], "%s/%s", folder->path, name);
    return out;
}

void test_file_put(const char *path, const void *data, size_t len)
{
    struct mix_err err = { 0 };
    FILE *file;

    assert_ok(mix_folder_make_parents(path, &err), &err);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

void test_file_get(const char *path, struct mix_buf *out)
{
    struct mix_err err = { 0 };

    mix_buf_clear(out);
    assert_ok(mix_file_get(path, UINT32_MAX, out, &err), &err);
}

void test_file_flip(const char *path, uint64_t at)
{
    FILE *file = fopen(path, "r+b");
    int byte;

    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    byte = fgetc(file);
    assert_true(byte != EOF);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_true(fputc(byte ^ 0x10, file) != EOF);
    assert_int_equal(fclose(file), 0);
}
