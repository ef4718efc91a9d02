/* store.c - which backend serves a URL, and the checks that all of them share. */
#include "ckpt/store/store.h"

#include <stdlib.h>
#include <string.h>

#include "ckpt/base/file.h"
#include "ckpt/store/store_backend.h"

enum mix_rc mix_store_open(const char *url, struct mix_store **out, struct mix_err *err)
{
    const char *scheme_end = strstr(url, "://");

    *out = NULL;
    if (!*url)
        return mix_fail(err, MIX_USAGE, "an empty path names nothing");
    if (!scheme_end)
        return mix_store_open_local(url, out, err);
    if (!strncmp(url, "file://", 7))
        return mix_store_open_local(url + 7, out, err);
    return mix_fail(err, MIX_UNSUPPORTED, "%s: this program does not read %.*s:// URLs", url,
                    (int)(scheme_end - url), url);
}

void mix_store_close(struct mix_store *store)
{
    if (store)
        store->ops->close(store);
}

const char *mix_store_url(const struct mix_store *store)
{
    return store->url;
}

const char *mix_store_file(const struct mix_store *store)
{
    return store->file;
}

/* Whoever names a path may be a hostile file: it must stay below the URL. */
static enum mix_rc check_path(const char *path, struct mix_err *err)
{
    if (strcmp(path, ".") && !mix_path_stays_below(path))
        return mix_fail(err, MIX_BAD_FORMAT,
                        "the path '%s' leaves its folder or has an empty part", path);
    return MIX_OK;
}

enum mix_rc mix_store_stat(struct mix_store *store, const char *path, struct mix_stat *out,
                           struct mix_err *err)
{
    enum mix_rc rc = check_path(path, err);

    return rc ? rc : store->ops->stat(store, path, out, err);
}

enum mix_rc mix_store_read(struct mix_store *store, const char *path, uint64_t offset,
                           void *buf, size_t len, struct mix_err *err)
{
    enum mix_rc rc = check_path(path, err);

    return rc || !len ? rc : store->ops->read(store, path, offset, buf, len, err);
}

enum mix_rc mix_store_read_all(struct mix_store *store, const char *path, uint64_t limit,
                               struct mix_buf *out, struct mix_err *err)
{
    struct mix_stat st;
    enum mix_rc rc;

    if ((rc = mix_store_stat(store, path, &st, err)))
        return rc;
    if (st.is_folder)
        return mix_fail(err, MIX_BAD_FORMAT, "is a folder, a file was expected");
    if (st.bytes > limit)
        return mix_fail(err, MIX_BAD_FORMAT, "holds %llu bytes, at most %llu are allowed",
                        (unsigned long long)st.bytes, (unsigned long long)limit);
    if ((rc = mix_buf_reserve(out, (size_t)st.bytes, err)) ||
        (rc = mix_store_read(store, path, 0, out->data + out->len, (size_t)st.bytes, err)))
        return rc;
    out->len += (size_t)st.bytes;
    out->data[out->len] = '\0';
    return MIX_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum mix_rc mix_store_list(struct mix_store *store, const char *path, struct mix_names *out,
                           struct mix_err *err)
{
    enum mix_rc rc;

    if (!*path)
        path = ".";
    if ((rc = check_path(path, err)) || (rc = store->ops->list(store, path, out, err)))
        return rc;
    if (out->count)
        qsort(out->name, out->count, sizeof *out->name, by_bytes);
    return MIX_OK;
}

enum mix_rc mix_names_add(struct mix_names *names, const char *name, bool is_folder,
                          struct mix_err *err)
{
    size_t len = strlen(name);
    char *copy;
    enum mix_rc rc;

    if ((rc = mix_grow(&names->name, &names->capacity, names->count, sizeof *names->name, err)) ||
        (rc = mix_new(&copy, len + 2, err)))
        return rc;
    memcpy(copy, name, len);
    if (is_folder)
        copy[len] = '/';
    names->name[names->count++] = copy;
    return MIX_OK;
}

void mix_names_release(struct mix_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->name[i]);
    free(names->name);
    *names = (struct mix_names)MIX_NAMES_INIT;
}

enum mix_rc mix_store_link_target(struct mix_store *store, const char *path,
                                  struct mix_buf *out, struct mix_err *err)
{
    enum mix_rc rc = check_path(path, err);

    mix_buf_clear(out);
    return rc ? rc : store->ops->link_target(store, path, out, err);
}
