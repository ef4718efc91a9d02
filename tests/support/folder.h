/* folder.h - a folder of the test's own, and files in it. */
#ifndef MIXCKPT_TESTS_SUPPORT_FOLDER_H
#define MIXCKPT_TESTS_SUPPORT_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mix_buf;

struct test_folder {
    char path[64];
};

/* Make an empty one; remove it with all that it holds. Both stop the test if they fail. */
void test_folder_init(struct test_folder *folder);
void test_folder_release(struct test_folder *folder);

/* "folder/name"; the last 8 results are good at the same time. */
const char *test_path(const struct test_folder *folder, const char *name);

/* A whole file; the folders that it lies in are made. */
void test_file_put(const char *path, const void *data, size_t len);
void test_file_get(const char *path, struct mix_buf *out);

/* Change one byte of a file. */
void test_file_flip(const char *path, uint64_t at);

#endif
