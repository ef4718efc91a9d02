/*
 * sparse_writes - preloaded into a program, it leaves zeros unwritten where a file has
 * them already, so that the copy of a sparse file is sparse too:
 *
 *   LD_PRELOAD=libsparse_writes.so mixckpt convert ...
 *
 * Terabytes of holes can then be converted on a disk that has no room for them. Such a
 * file system also says that it has room for everything.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool all_zero(const char *data, size_t len)
{
    return !len || (!data[0] && !memcmp(data, data + 1, len - 1));
}

/* The names that _FILE_OFFSET_BITS=64 makes of pwrite() and statvfs(). */

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    struct stat st;

    if (all_zero(data, len) && !fstat(fd, &st) && st.st_size >= offset + (off64_t)len)
        return (ssize_t)len;
    if (!real) /* every thread finds the same */
        real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, data, len, offset);
}

int statvfs64(const char *path, struct statvfs64 *fs)
{
    static int (*real)(const char *, struct statvfs64 *);
    int failed;

    if (!real)
        real = (int (*)(const char *, struct statvfs64 *))dlsym(RTLD_NEXT, "statvfs64");
    failed = real(path, fs);
    if (!failed)
        fs->f_bavail = fs->f_bfree = UINT64_C(1) << 40;
    return failed;
}
