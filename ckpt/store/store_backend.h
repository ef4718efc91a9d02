/* store_backend.h - the table that a backend fills. Paths have been checked. */
#ifndef MIXCKPT_CKPT_STORE_STORE_BACKEND_H
#define MIXCKPT_CKPT_STORE_STORE_BACKEND_H

#include "ckpt/store/store.h"

struct mix_store_ops {
    void (*close)(struct mix_store *store);
    /* stat(2): MIX_NOT_FOUND as ENOENT. */
    enum mix_rc (*stat)(struct mix_store *store, const char *path, struct mix_stat *out,
                        struct mix_err *err);
    /* pread(2), whole. */
    enum mix_rc (*read)(struct mix_store *store, const char *path, uint64_t offset, void *buf,
                        size_t len, struct mix_err *err);
    /* readdir(3), in any order; folders end in '/'. */
    enum mix_rc (*list)(struct mix_store *store, const char *path, struct mix_names *out,
                        struct mix_err *err);
    /* readlink(2); "" for what is no link. */
    enum mix_rc (*link_target)(struct mix_store *store, const char *path, struct mix_buf *out,
                               struct mix_err *err);
};

/* The first member of each backend's own struct. */
struct mix_store {
    const struct mix_store_ops *ops;
    char *url;  /* owned; the part before the paths */
    char *file; /* owned; the file that was named, or NULL */
};

enum mix_rc mix_store_open_local(const char *url, struct mix_store **out, struct mix_err *err);

#endif
