/*
 * store_local.c - a folder of the file system.
 *
 * A checkpoint may have ten thousand files, and a process may have a thousand
 * descriptors: the last 256 files that were read stay open (fewer where fewer are
 * allowed), the one unused for longest goes first. A descriptor that some thread is
 * reading from is pinned.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/file.h"
#include "ckpt/store/store_backend.h"

enum { SLOTS = 256, BUCKETS = 512 };

struct slot {
    char *path;
    int fd;
    int users;
    int next_in_bucket;      /* index of a slot, or -1 */
    uint64_t last_used;
};

struct local {
    struct mix_store store;
    pthread_mutex_t lock;
    struct slot slot[SLOTS];
    int slot_count;          /* of them are used */
    int bucket[BUCKETS];     /* first slot of each hash, or -1 */
    uint64_t clock;
};

static unsigned hash(const char *text)
{
    unsigned h = 2166136261u; /* FNV-1a */

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h % BUCKETS;
}

static enum mix_rc full_path(struct local *local, const char *path, struct mix_buf *out,
                             struct mix_err *err)
{
    return mix_path_join(out, local->store.url, path, err);
}

static struct slot *find_slot(struct local *local, const char *path)
{
    for (int i = local->bucket[hash(path)]; i >= 0; i = local->slot[i].next_in_bucket)
        if (!strcmp(local->slot[i].path, path))
            return &local->slot[i];
    return NULL;
}

/* Empty the unpinned slot that was unused for longest; NULL if all are pinned. */
static struct slot *free_slot(struct local *local)
{
    struct slot *oldest = NULL;

    for (int i = 0; i < local->slot_count; i++) {
        struct slot *slot = &local->slot[i];

        if (!slot->path)
            return slot;
        if (!slot->users && (!oldest || slot->last_used < oldest->last_used))
            oldest = slot;
    }
    if (!oldest)
        return NULL;

    int *link = &local->bucket[hash(oldest->path)];
    while (&local->slot[*link] != oldest)
        link = &local->slot[*link].next_in_bucket;
    *link = oldest->next_in_bucket;
    close(oldest->fd);
    free(oldest->path);
    oldest->path = NULL;
    return oldest;
}

static enum mix_rc open_file(struct local *local, const char *path, int *fd,
                             struct mix_err *err)
{
    struct mix_buf full = MIX_BUF_INIT;
    enum mix_rc rc = full_path(local, path, &full, err);

    *fd = -1;
    if (!rc) {
        do
            *fd = open(full.data, O_RDONLY | O_CLOEXEC);
        while (*fd < 0 && errno == EINTR);
        if (*fd < 0 && (errno == ENOENT || errno == ENOTDIR))
            rc = mix_fail(err, MIX_NOT_FOUND, "there is no such file");
        else if (*fd < 0)
            rc = mix_fail_errno(err, "cannot open");
    }
    mix_buf_release(&full);
    return rc;
}

/* A pinned descriptor of `path`, in *slot; or one of the caller's own, when all are pinned. */
static enum mix_rc acquire(struct local *local, const char *path, struct slot **slot, int *fd,
                           struct mix_err *err)
{
    char *copy = NULL;
    enum mix_rc rc = MIX_OK;

    pthread_mutex_lock(&local->lock);
    *slot = find_slot(local, path);
    if (!*slot) {
        if ((rc = open_file(local, path, fd, err)))
            goto out;
        if (!(copy = strdup(path)) || !(*slot = free_slot(local)))
            goto out; /* works without a slot, only slower */

        unsigned h = hash(path);
        **slot = (struct slot){ .path = copy, .fd = *fd, .next_in_bucket = local->bucket[h] };
        local->bucket[h] = (int)(*slot - local->slot);
        copy = NULL;
    }
    (*slot)->users++;
    (*slot)->last_used = ++local->clock;
    *fd = (*slot)->fd;
out:
    pthread_mutex_unlock(&local->lock);
    free(copy);
    return rc;
}

static void release(struct local *local, struct slot *slot, int fd)
{
    if (!slot) {
        close(fd);
        return;
    }
    pthread_mutex_lock(&local->lock);
    slot->users--;
    pthread_mutex_unlock(&local->lock);
}

static enum mix_rc local_read(struct mix_store *store, const char *path, uint64_t offset,
                              void *buf, size_t len, struct mix_err *err)
{
    struct local *local = (struct local *)store;
    uint64_t at = offset, left = len;
    struct slot *slot;
    enum mix_rc rc;
    int fd;

    if ((rc = acquire(local, path, &slot, &fd, err)))
        return rc;
    while (left) {
        ssize_t n = pread(fd, (char *)buf + (at - offset), left, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EISDIR)
            rc = mix_fail(err, MIX_NOT_FOUND, "is a folder; a file was expected");
        else if (n < 0)
            rc = mix_fail_errno(err, "cannot read bytes %llu..%llu", (unsigned long long)at,
                                (unsigned long long)(at + left));
        else if (n == 0)
            rc = mix_fail(err, MIX_TRUNCATED,
                          "the file ends at or before byte %llu; bytes %llu..%llu were expected",
                          (unsigned long long)at, (unsigned long long)offset,
                          (unsigned long long)(offset + len));
        if (rc)
            break;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    release(local, slot, fd);
    return rc;
}

static enum mix_rc local_stat(struct mix_store *store, const char *path, struct mix_stat *out,
                              struct mix_err *err)
{
    struct mix_buf full = MIX_BUF_INIT;
    enum mix_rc rc = full_path((struct local *)store, path, &full, err);
    struct stat st;

    if (!rc && stat(full.data, &st)) {
        rc = errno == ENOENT || errno == ENOTDIR
                 ? mix_fail(err, MIX_NOT_FOUND, "there is no such file")
                 : mix_fail_errno(err, "cannot stat");
    } else if (!rc) {
        *out = (struct mix_stat){
            .bytes = (uint64_t)st.st_size,
            .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
            .is_folder = S_ISDIR(st.st_mode),
        };
    }
    mix_buf_release(&full);
    return rc;
}

/* Whether an entry is a folder; links are looked through, as everywhere on this side. */
static bool entry_is_folder(DIR *dir, const struct dirent *entry)
{
    struct stat st;

    if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK)
        return entry->d_type == DT_DIR;
    return fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static enum mix_rc local_list(struct mix_store *store, const char *path, struct mix_names *out,
                              struct mix_err *err)
{
    struct mix_buf full = MIX_BUF_INIT;
    enum mix_rc rc = full_path((struct local *)store, path, &full, err);
    struct dirent *entry;
    DIR *dir = NULL;

    if (!rc && !(dir = mix_folder_open(full.data)))
        rc = errno == ENOENT ? mix_fail(err, MIX_NOT_FOUND, "%s: there is no such folder", path)
                             : mix_fail_errno(err, "%s: cannot open the folder", path);
    while (!rc && (errno = 0, entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            rc = mix_names_add(out, entry->d_name, entry_is_folder(dir, entry), err);
    if (!rc && errno)
        rc = mix_fail_errno(err, "%s: cannot list", path);
    if (dir)
        closedir(dir);
    mix_buf_release(&full);
    return rc;
}

static enum mix_rc local_link_target(struct mix_store *store, const char *path,
                                     struct mix_buf *out, struct mix_err *err)
{
    struct mix_buf full = MIX_BUF_INIT;
    enum mix_rc rc = full_path((struct local *)store, path, &full, err);
    char target[4096];

    if (!rc) {
        ssize_t n = readlink(full.data, target, sizeof target);

        rc = mix_buf_put(out, target, n > 0 ? (size_t)n : 0, err);
    }
    mix_buf_release(&full);
    return rc;
}

static void local_close(struct mix_store *store)
{
    struct local *local = (struct local *)store;

    for (int i = 0; i < SLOTS; i++) {
        if (local->slot[i].path) {
            close(local->slot[i].fd);
            free(local->slot[i].path);
        }
    }
    pthread_mutex_destroy(&local->lock);
    free(local->store.url);
    free(local->store.file);
    free(local);
}

/* A quarter of what the process may open: others read, and write, at the same time. */
static int count_slots(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur / 4 >= SLOTS)
        return SLOTS;
    return limit.rlim_cur < 8 ? 1 : (int)(limit.rlim_cur / 4);
}

static const struct mix_store_ops local_ops = {
    .close = local_close,
    .stat = local_stat,
    .read = local_read,
    .list = local_list,
    .link_target = local_link_target,
};

enum mix_rc mix_store_open_local(const char *url, struct mix_store **out, struct mix_err *err)
{
    struct local *local;
    struct stat st;
    enum mix_rc rc;

    if (stat(url, &st))
        return errno == ENOENT ? mix_fail(err, MIX_NOT_FOUND, "%s: there is no such file or folder", url)
                               : mix_fail_errno(err, "%s: cannot open", url);
    if ((rc = mix_new(&local, sizeof *local, err)))
        return rc;
    local->store.ops = &local_ops;
    local->slot_count = count_slots();
    pthread_mutex_init(&local->lock, NULL);
    memset(local->bucket, -1, sizeof local->bucket);
    if (!(local->store.url = strdup(url))) {
        local_close(&local->store);
        return mix_fail(err, MIX_NO_MEMORY, "out of memory");
    }

    /* Cut "/" off the end, and the file's name if it is one: the rest is the folder. */
    char *text = local->store.url;
    size_t len = strlen(text);

    while (len > 1 && text[len - 1] == '/')
        text[--len] = '\0';
    if (!S_ISDIR(st.st_mode)) {
        char *slash = strrchr(text, '/');

        if (!(local->store.file = strdup(slash ? slash + 1 : text))) {
            local_close(&local->store);
            return mix_fail(err, MIX_NO_MEMORY, "out of memory");
        }
        if (!slash)
            strcpy(text, "."); /* a file's name is at least one byte long */
        else
            slash[slash == text ? 1 : 0] = '\0';
    }
    *out = &local->store;
    return MIX_OK;
}
