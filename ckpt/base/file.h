/*
 * file.h - local files for writing: whole writes, and folders and files that are
 * there, whole, after a crash. Every function survives EINTR.
 */
#ifndef MIXCKPT_CKPT_BASE_FILE_H
#define MIXCKPT_CKPT_BASE_FILE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

/* "folder/name" in out; `out` grows as needed and holds only that. */
enum mix_rc mix_path_join(struct mix_buf *out, const char *folder, const char *name,
                          struct mix_err *err);

/* Of parts between '/', none empty, "." or "..": a path from outside that leaves no folder. */
bool mix_path_stays_below(const char *path);

/* Open for reading and writing, created if not there; never through a symbolic link. */
enum mix_rc mix_file_open(const char *path, int *fd, struct mix_err *err);
/* The same, and empty. */
enum mix_rc mix_file_create(const char *path, int *fd, struct mix_err *err);
/* Open what a job has written, to read or to sync it; likewise never through a link. */
enum mix_rc mix_file_open_again(const char *path, int *fd, struct mix_err *err);
enum mix_rc mix_file_close(int *fd, const char *path, struct mix_err *err); /* sets -1 */
enum mix_rc mix_file_write(int fd, const char *path, uint64_t offset, const void *data,
                           size_t len, struct mix_err *err);
/* Exactly `len` bytes, or MIX_TRUNCATED. */
enum mix_rc mix_file_read(int fd, const char *path, uint64_t offset, void *data, size_t len,
                          struct mix_err *err);
enum mix_rc mix_file_sync(int fd, const char *path, struct mix_err *err);
enum mix_rc mix_file_resize(int fd, const char *path, uint64_t bytes, struct mix_err *err);

/* Create or replace a whole small file, at once: a temporary one beside it, renamed. */
enum mix_rc mix_file_put(const char *path, const void *data, size_t len, bool sync,
                         struct mix_err *err);
/* A whole file, at most `limit` bytes; MIX_NOT_FOUND. */
enum mix_rc mix_file_get(const char *path, uint64_t limit, struct mix_buf *out,
                         struct mix_err *err);

/* Whether anything stands there, a dangling link too. Not to know is an error, never a no. */
enum mix_rc mix_path_find(const char *path, bool *there, struct mix_err *err);
bool mix_path_is_folder(const char *path);
DIR *mix_folder_open(const char *path); /* opendir() that survives EINTR */
/* Make a folder; one that is there is fine, a symbolic link to one is not. */
enum mix_rc mix_folder_make(const char *path, struct mix_err *err);
/* Make the folders that `path` lies in. */
enum mix_rc mix_folder_make_parents(const char *path, struct mix_err *err);
enum mix_rc mix_folder_sync(const char *path, struct mix_err *err);
/* fsync the folder and every folder and file below it. */
enum mix_rc mix_folder_sync_tree(const char *path, struct mix_err *err);
enum mix_rc mix_folder_is_empty(const char *path, bool *empty, struct mix_err *err);
/* Remove a file or a folder with all that it holds; follows no links; absent is fine. */
enum mix_rc mix_path_remove(const char *path, struct mix_err *err);
enum mix_rc mix_path_rename(const char *from, const char *to, struct mix_err *err);
enum mix_rc mix_path_sync_parent(const char *path, struct mix_err *err);

/* Free space of the file system that `path` lies on. */
enum mix_rc mix_path_free_bytes(const char *path, uint64_t *bytes, struct mix_err *err);

/* A file without a name, for `bytes` of scratch: in memory if small, else in TMPDIR. */
enum mix_rc mix_file_scratch(uint64_t bytes, int *fd, struct mix_err *err);

#endif
