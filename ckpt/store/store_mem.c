/* store_mem.c - files in memory, for tests and fuzzers. */
#include <stdlib.h>
#include <string.h>

#include "ckpt/store/store_backend.h"

struct file {
    char *path;
    struct mix_buf data;
};

struct memory {
    struct mix_store store;
    struct file *file;
    size_t count, capacity;
};

static struct file *find(struct memory *memory, const char *path)
{
    for (size_t i = 0; i < memory->count; i++)
        if (!strcmp(memory->file[i].path, path))
            return &memory->file[i];
    return NULL;
}

/* What of a file's path lies below `folder`, or NULL. "." holds everything. */
static const char *below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    if (!strcmp(folder, "."))
        return path;
    return !strncmp(path, folder, len) && path[len] == '/' ? path + len + 1 : NULL;
}

static enum mix_rc memory_stat(struct mix_store *store, const char *path,
                               struct mix_stat *out, struct mix_err *err)
{
    struct memory *memory = (struct memory *)store;
    struct file *file = find(memory, path);

    *out = (struct mix_stat){ .is_folder = !file };
    if (file) {
        out->bytes = file->data.len;
        return MIX_OK;
    }
    for (size_t i = 0; i < memory->count; i++)
        if (below(memory->file[i].path, path))
            return MIX_OK;
    return !strcmp(path, ".") ? MIX_OK : mix_fail(err, MIX_NOT_FOUND, "there is no such file");
}

static enum mix_rc memory_read(struct mix_store *store, const char *path, uint64_t offset,
                               void *buf, size_t len, struct mix_err *err)
{
    struct file *file = find((struct memory *)store, path);

    if (!file)
        return mix_fail(err, MIX_NOT_FOUND, "there is no such file");
    if (offset > file->data.len || len > file->data.len - offset)
        return mix_fail(err, MIX_TRUNCATED,
                        "the file ends at byte %zu; bytes %llu..%llu were expected",
                        file->data.len, (unsigned long long)offset,
                        (unsigned long long)(offset + len));
    memcpy(buf, file->data.data + offset, len);
    return MIX_OK;
}

/* A folder is whatever a path has before a '/': name it once. */
static enum mix_rc add_folder(struct mix_names *out, const char *name, size_t len,
                              struct mix_err *err)
{
    struct mix_buf folder = MIX_BUF_INIT;
    enum mix_rc rc = mix_buf_put(&folder, name, len, err);

    for (size_t i = 0; i < out->count; i++)
        if (!strncmp(out->name[i], name, len + 1)) /* with its '/' */
            goto out;
    if (!rc)
        rc = mix_names_add(out, folder.data, true, err);
out:
    mix_buf_release(&folder);
    return rc;
}

static enum mix_rc memory_list(struct mix_store *store, const char *path,
                               struct mix_names *out, struct mix_err *err)
{
    struct memory *memory = (struct memory *)store;
    bool found = !strcmp(path, ".");
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < memory->count && !rc; i++) {
        const char *rest = below(memory->file[i].path, path), *slash;

        if (!rest)
            continue;
        found = true;
        slash = strchr(rest, '/');
        rc = slash ? add_folder(out, rest, (size_t)(slash - rest), err)
                   : mix_names_add(out, rest, false, err);
    }
    return rc || found ? rc : mix_fail(err, MIX_NOT_FOUND, "there is no such folder");
}

static enum mix_rc memory_link_target(struct mix_store *store, const char *path,
                                      struct mix_buf *out, struct mix_err *err)
{
    (void)store, (void)path;
    return mix_buf_put(out, "", 0, err);
}

static void memory_close(struct mix_store *store)
{
    struct memory *memory = (struct memory *)store;

    for (size_t i = 0; i < memory->count; i++) {
        free(memory->file[i].path);
        mix_buf_release(&memory->file[i].data);
    }
    free(memory->file);
    free(memory->store.url);
    free(memory);
}

static const struct mix_store_ops memory_ops = {
    .close = memory_close,
    .stat = memory_stat,
    .read = memory_read,
    .list = memory_list,
    .link_target = memory_link_target,
};

enum mix_rc mix_store_open_memory(struct mix_store **out, struct mix_err *err)
{
    struct memory *memory;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&memory, sizeof *memory, err)))
        return rc;
    memory->store.ops = &memory_ops;
    if (!(memory->store.url = strdup("memory:"))) {
        memory_close(&memory->store);
        return mix_fail(err, MIX_NO_MEMORY, "out of memory");
    }
    *out = &memory->store;
    return MIX_OK;
}

enum mix_rc mix_store_memory_put(struct mix_store *store, const char *path, const void *data,
                                 size_t len, struct mix_err *err)
{
    struct memory *memory = (struct memory *)store;
    struct file *file = find(memory, path);
    enum mix_rc rc;

    if (!file) {
        if ((rc = mix_grow(&memory->file, &memory->capacity, memory->count,
                           sizeof *memory->file, err)))
            return rc;
        file = &memory->file[memory->count];
        *file = (struct file){ .path = strdup(path) };
        if (!file->path)
            return mix_fail(err, MIX_NO_MEMORY, "out of memory");
        memory->count++;
    }
    mix_buf_clear(&file->data);
    return mix_buf_put(&file->data, data, len, err);
}
