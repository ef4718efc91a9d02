/*
 * store.h - bytes at a URL: a folder of files (or one file) that can be listed and
 * read by ranges. Paths are relative to the URL, with '/' between parts, and never
 * leave it: "..", absolute paths and empty parts are refused. Symbolic links are
 * followed (hub caches are made of them).
 *
 * A store may be used by several threads at once.
 */
#ifndef MIXCKPT_CKPT_STORE_STORE_H
#define MIXCKPT_CKPT_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

struct mix_store;

struct mix_stat {
    uint64_t bytes;
    int64_t mtime_ns;
    bool is_folder;
};

/* A folder, or a file: then the store is the folder that it lies in. MIX_NOT_FOUND. */
enum mix_rc mix_store_open(const char *url, struct mix_store **out, struct mix_err *err);
void mix_store_close(struct mix_store *store); /* accepts NULL */
const char *mix_store_url(const struct mix_store *store);
/* The name of the file that the URL named, or NULL if it named a folder. */
const char *mix_store_file(const struct mix_store *store);

/* "." is the folder itself. MIX_NOT_FOUND if there is nothing of that name. */
enum mix_rc mix_store_stat(struct mix_store *store, const char *path, struct mix_stat *out,
                           struct mix_err *err);

/* Exactly [offset, offset + len); MIX_TRUNCATED if the file ends before that. */
enum mix_rc mix_store_read(struct mix_store *store, const char *path, uint64_t offset,
                           void *buf, size_t len, struct mix_err *err);

/* A whole file, appended to `out`; MIX_BAD_FORMAT if it is larger than `limit`. */
enum mix_rc mix_store_read_all(struct mix_store *store, const char *path, uint64_t limit,
                               struct mix_buf *out, struct mix_err *err);

/* The names in a folder ("" or "." for the top), sorted as bytes; folders end in '/'. */
struct mix_names {
    char **name;
    size_t count, capacity;
};
#define MIX_NAMES_INIT { 0 }
enum mix_rc mix_store_list(struct mix_store *store, const char *path, struct mix_names *out,
                           struct mix_err *err);
/* Append a copy of `name`, with '/' behind it for a folder. */
enum mix_rc mix_names_add(struct mix_names *names, const char *name, bool is_folder,
                          struct mix_err *err);
void mix_names_release(struct mix_names *names);

/* What a symbolic link at `path` points to ("" in `out` if it is none): hub caches. */
enum mix_rc mix_store_link_target(struct mix_store *store, const char *path,
                                  struct mix_buf *out, struct mix_err *err);

/* A store in memory, for tests and fuzzers: put whole files, then read as above. */
enum mix_rc mix_store_open_memory(struct mix_store **out, struct mix_err *err);
enum mix_rc mix_store_memory_put(struct mix_store *store, const char *path,
                                 const void *data, size_t len, struct mix_err *err);

#endif
