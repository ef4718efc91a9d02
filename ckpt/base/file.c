/* file.c - whole writes, durable folders. */
#include "ckpt/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "ckpt/base/bytes.h"

enum mix_rc mix_path_join(struct mix_buf *out, const char *folder, const char *name,
                          struct mix_err *err)
{
    mix_buf_clear(out);
    return mix_buf_putf(out, err, "%s/%s", folder, name);
}

bool mix_path_stays_below(const char *path)
{
    for (const char *part = path; part;) {
        const char *end = strchr(part, '/');
        size_t len = end ? (size_t)(end - part) : strlen(part);

        if (!len || (len == 1 && *part == '.') || (len == 2 && !memcmp(part, "..", 2)))
            return false;
        part = end ? end + 1 : NULL;
    }
    return true;
}

static int open_retry(const char *path, int flags, mode_t mode)
{
    int fd;

    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

enum mix_rc mix_file_open(const char *path, int *fd, struct mix_err *err)
{
    *fd = open_retry(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0666);
    return *fd < 0 ? mix_fail_errno(err, "%s: cannot open for writing", path) : MIX_OK;
}

enum mix_rc mix_file_create(const char *path, int *fd, struct mix_err *err)
{
    *fd = open_retry(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
    return *fd < 0 ? mix_fail_errno(err, "%s: cannot open for writing", path) : MIX_OK;
}

enum mix_rc mix_file_open_again(const char *path, int *fd, struct mix_err *err)
{
    *fd = open_retry(path, O_RDONLY | O_NOFOLLOW, 0);
    return *fd < 0 ? mix_fail_errno(err, "%s: cannot open", path) : MIX_OK;
}

enum mix_rc mix_file_close(int *fd, const char *path, struct mix_err *err)
{
    int was = *fd;

    *fd = -1;
    /* Linux has closed the descriptor even when close() says EINTR. */
    if (was >= 0 && close(was) && errno != EINTR)
        return mix_fail_errno(err, "%s: cannot close", path);
    return MIX_OK;
}

enum mix_rc mix_file_write(int fd, const char *path, uint64_t offset, const void *data,
                           size_t len, struct mix_err *err)
{
    const char *p = data;

    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ENOSPC;
        if (n <= 0)
            return mix_fail_errno(err, "%s: cannot write %zu bytes at %llu", path, len,
                                  (unsigned long long)offset);
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return MIX_OK;
}

enum mix_rc mix_file_read(int fd, const char *path, uint64_t offset, void *data, size_t len,
                          struct mix_err *err)
{
    char *p = data;

    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mix_fail_errno(err, "%s: cannot read %zu bytes at %llu", path, len,
                                  (unsigned long long)offset);
        if (n == 0)
            return mix_fail(err, MIX_TRUNCATED, "%s: ends at byte %llu, %zu bytes too early",
                            path, (unsigned long long)offset, len);
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return MIX_OK;
}

enum mix_rc mix_file_sync(int fd, const char *path, struct mix_err *err)
{
    int failed;

    do
        failed = fsync(fd);
    while (failed && errno == EINTR);
    return failed ? mix_fail_errno(err, "%s: cannot fsync", path) : MIX_OK;
}

enum mix_rc mix_file_resize(int fd, const char *path, uint64_t bytes, struct mix_err *err)
{
    int failed;

    do
        failed = ftruncate(fd, (off_t)bytes);
    while (failed && errno == EINTR);
    return failed ? mix_fail_errno(err, "%s: cannot make it %llu bytes", path,
                                   (unsigned long long)bytes)
                  : MIX_OK;
}

enum mix_rc mix_file_put(const char *path, const void *data, size_t len, bool sync,
                         struct mix_err *err)
{
    struct mix_buf temp = MIX_BUF_INIT;
    int fd = -1;
    enum mix_rc rc;

    if ((rc = mix_buf_putf(&temp, err, "%s.tmp", path)) ||
        (rc = mix_path_remove(temp.data, err)) || (rc = mix_file_open(temp.data, &fd, err)) ||
        (rc = mix_file_write(fd, temp.data, 0, data, len, err)) ||
        (sync && (rc = mix_file_sync(fd, temp.data, err))) ||
        (rc = mix_file_close(&fd, temp.data, err)) ||
        (rc = mix_path_rename(temp.data, path, err)))
        goto out;
out:
    if (fd >= 0)
        close(fd);
    if (rc && temp.data)
        unlink(temp.data);
    mix_buf_release(&temp);
    return rc;
}

enum mix_rc mix_file_get(const char *path, uint64_t limit, struct mix_buf *out,
                         struct mix_err *err)
{
    struct stat st;
    enum mix_rc rc = MIX_OK;
    int fd = open_retry(path, O_RDONLY, 0);

    if (fd < 0 && errno == ENOENT)
        return mix_fail(err, MIX_NOT_FOUND, "%s: there is no such file", path);
    if (fd < 0)
        return mix_fail_errno(err, "%s: cannot open", path);
    if (fstat(fd, &st))
        rc = mix_fail_errno(err, "%s: cannot stat", path);
    else if ((uint64_t)st.st_size > limit)
        rc = mix_fail(err, MIX_BAD_FORMAT, "%s: %llu bytes, at most %llu are allowed", path,
                      (unsigned long long)st.st_size, (unsigned long long)limit);
    else if (!(rc = mix_buf_reserve(out, (size_t)st.st_size, err)) &&
             !(rc = mix_file_read(fd, path, 0, out->data + out->len, (size_t)st.st_size, err))) {
        out->len += (size_t)st.st_size;
        out->data[out->len] = '\0';
    }
    close(fd);
    return rc;
}

enum mix_rc mix_path_find(const char *path, bool *there, struct mix_err *err)
{
    struct stat st;

    *there = lstat(path, &st) == 0;
    return *there || errno == ENOENT || errno == ENOTDIR
               ? MIX_OK
               : mix_fail_errno(err, "%s: cannot stat", path);
}

bool mix_path_is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

DIR *mix_folder_open(const char *path)
{
    DIR *dir;

    do
        dir = opendir(path);
    while (!dir && errno == EINTR);
    return dir;
}

enum mix_rc mix_folder_make(const char *path, struct mix_err *err)
{
    struct stat st;

    if (mkdir(path, 0777) == 0)
        return MIX_OK;
    if (errno != EEXIST || lstat(path, &st))
        return mix_fail_errno(err, "%s: cannot make the folder", path);
    if (S_ISDIR(st.st_mode))
        return MIX_OK;
    return mix_fail(err, MIX_IO, "%s: cannot make the folder: %s stands there", path,
                    S_ISLNK(st.st_mode) ? "a symbolic link, which is not followed" : "a file");
}

enum mix_rc mix_folder_make_parents(const char *path, struct mix_err *err)
{
    struct mix_buf part = MIX_BUF_INIT;
    const char *slash = strrchr(path, '/');
    enum mix_rc rc = mix_buf_put(&part, path, strlen(path), err);

    if (!rc && slash && slash > path) {
        part.data[slash - path] = '\0';
        if (mix_path_is_folder(part.data)) /* as it is for all files of a folder but one */
            part.len = 0;
        part.data[slash - path] = '/';
    }
    for (size_t i = 1; !rc && i < part.len; i++) {
        if (part.data[i] != '/' || part.data[i - 1] == '/')
            continue;
        part.data[i] = '\0';
        if (!mix_path_is_folder(part.data))
            rc = mix_folder_make(part.data, err);
        part.data[i] = '/';
    }
    mix_buf_release(&part);
    return rc;
}

enum mix_rc mix_folder_sync(const char *path, struct mix_err *err)
{
    enum mix_rc rc;
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return mix_fail_errno(err, "%s: cannot open the folder", path);
    rc = mix_file_sync(fd, path, err);
    close(fd);
    return rc;
}

/*
 * Call `each` with the path of everything in a folder but "." and "..". A folder
 * that is changed while it is read may show a name or not, never a wrong one.
 */
static enum mix_rc for_each_in(const char *path,
                               enum mix_rc (*each)(const char *path, struct mix_err *err),
                               struct mix_err *err)
{
    struct mix_buf child = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;
    struct dirent *entry;
    DIR *dir = mix_folder_open(path);

    if (!dir)
        return mix_fail_errno(err, "%s: cannot open the folder", path);
    while (!rc && (errno = 0, entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (!(rc = mix_path_join(&child, path, entry->d_name, err)))
            rc = each(child.data, err);
    }
    if (!rc && errno)
        rc = mix_fail_errno(err, "%s: cannot list", path);
    closedir(dir);
    mix_buf_release(&child);
    return rc;
}

/* Whether a folder holds more files than are worth waiting for one by one. */
static enum mix_rc holds_many(const char *path, bool *many, struct mix_err *err)
{
    size_t left = 256;
    DIR *dir = mix_folder_open(path);

    if (!dir)
        return mix_fail_errno(err, "%s: cannot open the folder", path);
    while (left && readdir(dir)) /* what cannot be listed is found out by who lists it */
        left--;
    closedir(dir);
    *many = !left;
    return MIX_OK;
}

/* Everything that waits to be written on the file system that a folder lies on. */
static enum mix_rc sync_file_system(const char *path, struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return mix_fail_errno(err, "%s: cannot open the folder", path);
    if (syncfs(fd))
        rc = mix_fail_errno(err, "%s: cannot sync its file system", path);
    close(fd);
    return rc;
}

static enum mix_rc sync_folder_tree(const char *path, struct mix_err *err)
{
    bool many = false;
    enum mix_rc rc;

    if ((rc = holds_many(path, &many, err)))
        return rc;
    if (many)
        return sync_file_system(path, err);
    if ((rc = for_each_in(path, mix_folder_sync_tree, err)))
        return rc;
    return mix_folder_sync(path, err);
}

enum mix_rc mix_folder_sync_tree(const char *path, struct mix_err *err)
{
    struct stat st;
    enum mix_rc rc;
    int fd;

    if (lstat(path, &st))
        return mix_fail_errno(err, "%s: cannot stat", path);
    if (S_ISDIR(st.st_mode))
        return sync_folder_tree(path, err);
    if (!S_ISREG(st.st_mode))
        return MIX_OK;
    if ((rc = mix_file_open_again(path, &fd, err)))
        return rc;
    rc = mix_file_sync(fd, path, err);
    close(fd);
    return rc;
}

static enum mix_rc found_one(const char *path, struct mix_err *err)
{
    return mix_fail(err, MIX_EXISTS, "%s", path);
}

enum mix_rc mix_folder_is_empty(const char *path, bool *empty, struct mix_err *err)
{
    enum mix_rc rc = for_each_in(path, found_one, err);

    *empty = rc == MIX_OK;
    return rc == MIX_EXISTS ? MIX_OK : rc;
}

enum mix_rc mix_path_remove(const char *path, struct mix_err *err)
{
    struct stat st;
    enum mix_rc rc;

    if (lstat(path, &st)) {
        if (errno == ENOENT)
            return MIX_OK;
        return mix_fail_errno(err, "%s: cannot stat", path);
    }
    if (S_ISDIR(st.st_mode)) {
        if ((rc = for_each_in(path, mix_path_remove, err)))
            return rc;
        if (rmdir(path) && errno != ENOENT)
            return mix_fail_errno(err, "%s: cannot remove the folder", path);
        return MIX_OK;
    }
    if (unlink(path) && errno != ENOENT)
        return mix_fail_errno(err, "%s: cannot remove", path);
    return MIX_OK;
}

enum mix_rc mix_path_rename(const char *from, const char *to, struct mix_err *err)
{
    if (rename(from, to))
        return mix_fail_errno(err, "%s: cannot rename to %s", from, to);
    return MIX_OK;
}

enum mix_rc mix_path_sync_parent(const char *path, struct mix_err *err)
{
    struct mix_buf parent = MIX_BUF_INIT;
    enum mix_rc rc = mix_buf_put(&parent, path, strlen(path), err);

    if (!rc) {
        while (parent.len > 1 && parent.data[parent.len - 1] == '/')
            parent.data[--parent.len] = '\0';
        char *slash = strrchr(parent.data, '/');

        if (!slash)
            strcpy(parent.data, "."); /* a name is at least one byte long */
        else if (slash == parent.data)
            slash[1] = '\0';
        else
            *slash = '\0';
        rc = mix_folder_sync(parent.data, err);
    }
    mix_buf_release(&parent);
    return rc;
}

enum mix_rc mix_path_free_bytes(const char *path, uint64_t *bytes, struct mix_err *err)
{
    struct statvfs fs;

    if (statvfs(path, &fs))
        return mix_fail_errno(err, "%s: cannot ask for its free space", path);
    if (!mix_mul(fs.f_bavail, fs.f_frsize, bytes))
        *bytes = UINT64_MAX;
    return MIX_OK;
}

enum mix_rc mix_file_scratch(uint64_t bytes, int *fd, struct mix_err *err)
{
    const uint64_t in_memory = 32 << 20;
    const char *folder = getenv("TMPDIR");
    char path[4096];

    if (bytes <= in_memory) {
        *fd = memfd_create("mixckpt-scratch", MFD_CLOEXEC);
        return *fd < 0 ? mix_fail_errno(err, "cannot make scratch memory") : MIX_OK;
    }
    if (!folder || !*folder)
        folder = "/tmp";
    if (snprintf(path, sizeof path, "%s/mixckpt-XXXXXX", folder) >= (int)sizeof path)
        return mix_fail(err, MIX_IO, "TMPDIR is longer than a path can be");
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd < 0)
        return mix_fail_errno(err, "%s: cannot make a scratch file (TMPDIR names another place)",
                              path);
    unlink(path);
    return MIX_OK;
}
