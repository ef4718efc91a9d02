/* commit.c - begin a job or go on with it, note what is done, publish. */
#include "ckpt/commit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/cancel.h"
#include "ckpt/base/file.h"
#include "ckpt/base/hash.h"
#include "ckpt/base/json.h"
#include "ckpt/base/progress.h"
#include "ckpt/store/store.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

enum {
    SYNCFS_FILES = 64,       /* more files than this are synced all at once */
    RECORD_HEAD = 16,        /* magic, group, slice, file count: u32 each */
    RECORD_SUM = 24,         /* start, bytes, crc64 */
    RECORD_MAX_FILES = 65536,
    STATUS_MS = 500,
    NAMED = 20,              /* missing workers that a message names */
};
static const uint32_t record_magic = 0x4c53584d; /* "MXSL" */

/* A slice that is done: from a journal, or waiting to be noted in ours. */
struct record {
    uint32_t group, slice, file_count;
    struct mix_file_sum *sum;
};

struct records {
    struct record *record;
    size_t count, capacity;
};

struct mix_commit {
    struct mix_commit_options options;
    char *dst, *partial, *old;       /* <dst>, <dst>.partial, <dst>.old */
    char *moved_job;                 /* <dst>.partial.job */
    char *job;                       /* <dst>.partial/job; where it was moved, if published */
    struct records done;             /* of all journals, sorted by group and slice */
    int journal, digests;            /* descriptors */
    uint64_t journal_bytes;
    char *journal_path, *digests_path;

    pthread_mutex_t lock;            /* of what follows */
    struct records pending;
    struct mix_names pending_files;  /* paths to sync before the pending are noted */
    enum mix_rc flush_rc;            /* of the first flush that failed; there is no second */
    struct mix_err flush_err;
    pthread_mutex_t flush_lock;      /* one thread flushes at a time */

    uint64_t mark;                   /* of progress: what it counts is nobody's business */
    int64_t began_ns, status_ns;     /* this process; its last status */
    struct mix_buf *old_status;      /* of other workers, as they were at the beginning */
    int *leaf_fd;                    /* worker 0: the digests of all workers */
    unsigned leaf_fd_count;
    bool resumed, published;
    bool waiting;                    /* in mix_commit_wait(), which says what our status is */
};

/* ---- paths ---- */

static enum mix_rc text(char **out, struct mix_err *err, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(out, fmt, ap);
    va_end(ap);
    if (n >= 0)
        return MIX_OK;
    *out = NULL;
    return mix_fail(err, MIX_NO_MEMORY, "out of memory");
}

static enum mix_rc worker_path(struct mix_commit *c, unsigned worker, const char *ending,
                               char **out, struct mix_err *err)
{
    return text(out, err, "%s/worker-%05u.%s", c->job, worker, ending);
}

/* The absolute path without links of something that may not exist yet. */
static enum mix_rc real_path(const char *path, char out[PATH_MAX], struct mix_err *err)
{
    char copy[PATH_MAX], parent[PATH_MAX];
    char *slash;
    const char *name;

    if (realpath(path, out))
        return MIX_OK;
    if (errno != ENOENT)
        return mix_fail_errno(err, "%s", path);
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy)
        return mix_fail(err, MIX_IO, "%s: the path is too long", path);
    slash = strrchr(copy, '/');
    name = slash ? slash + 1 : copy;
    if (slash == copy)
        strcpy(parent, "/");
    else if (slash)
        *slash = '\0';
    if (slash != copy) {
        if (!slash)
            strcpy(parent, ".");
        else {
            enum mix_rc rc = real_path(copy, parent, err);

            if (rc)
                return rc;
        }
    }
    if (!realpath(parent, out)) {
        if (errno != ENOENT)
            return mix_fail_errno(err, "%s", parent);
        snprintf(out, PATH_MAX, "%s", parent);
    }

    size_t len = strlen(out);

    if (len + strlen(name) + 2 > PATH_MAX)
        return mix_fail(err, MIX_IO, "%s: the path is too long", path);
    if (len && out[len - 1] != '/')
        out[len++] = '/';
    strcpy(out + len, name);
    return MIX_OK;
}

static bool lies_in(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return !strncmp(path, folder, len) &&
           (!path[len] || path[len] == '/' || (len && folder[len - 1] == '/'));
}

static enum mix_rc check_apart(const char *dst, const char *src, struct mix_err *err)
{
    char a[PATH_MAX], b[PATH_MAX];
    enum mix_rc rc;

    if (!src)
        return MIX_OK;
    if ((rc = real_path(dst, a, err)) || (rc = real_path(src, b, err)))
        return rc;
    if (!strcmp(a, b))
        return mix_fail(err, MIX_USAGE, "%s: is the source itself; choose another destination",
                        dst);
    if (lies_in(a, b))
        return mix_fail(err, MIX_USAGE, "%s: lies inside the source %s", dst, src);
    if (lies_in(b, a))
        return mix_fail(err, MIX_USAGE, "%s: the source %s lies inside it", dst, src);
    return MIX_OK;
}

static enum mix_rc set_paths(struct mix_commit *c, const char *dst, struct mix_err *err)
{
    size_t len = strlen(dst);
    enum mix_rc rc;

    while (len > 1 && dst[len - 1] == '/')
        len--;
    if (strstr(dst, "://"))
        return mix_fail(err, MIX_UNSUPPORTED, "%s: this program writes to local folders only",
                        dst);
    if (!len || (len == 1 && (*dst == '/' || *dst == '.')) || (len == 2 && !memcmp(dst, "..", 2)))
        return mix_fail(err, MIX_USAGE, "'%s' cannot be a destination: name the folder to make",
                        dst);
    if ((rc = text(&c->dst, err, "%.*s", (int)len, dst)) ||
        (rc = text(&c->partial, err, "%s.partial", c->dst)) ||
        (rc = text(&c->old, err, "%s.old", c->dst)) ||
        (rc = text(&c->moved_job, err, "%s.partial.job", c->dst)))
        return rc;
    return text(&c->job, err, "%s/job", c->partial);
}

enum mix_rc mix_commit_path(struct mix_commit *c, const char *name, struct mix_buf *out,
                            struct mix_err *err)
{
    enum mix_rc rc = mix_path_join(out, c->partial, name, err);

    /* Below <dst>.partial only: if worker 0 has removed that, it must not come back. */
    for (char *at = rc ? NULL : strchr(out->data + strlen(c->partial) + 1, '/'); at && !rc;
         at = strchr(at + 1, '/')) {
        *at = '\0';
        rc = mix_folder_make(out->data, err);
        *at = '/';
    }
    return rc;
}

/* ---- journals ---- */

static void records_release(struct records *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->record[i].sum);
    free(list->record);
    *list = (struct records){ 0 };
}

static enum mix_rc records_add(struct records *list, uint32_t group, uint32_t slice,
                               uint32_t file_count, const struct mix_file_sum *sum,
                               struct mix_err *err)
{
    struct record r = { group, slice, file_count, NULL };
    enum mix_rc rc;

    if ((rc = mix_grow(&list->record, &list->capacity, list->count, sizeof r, err)) ||
        (rc = mix_new_array(&r.sum, file_count, sizeof *r.sum, err)))
        return rc;
    memcpy(r.sum, sum, file_count * sizeof *sum);
    list->record[list->count++] = r;
    return MIX_OK;
}

/*
 *   u32 magic, u32 group, u32 slice, u32 files, { u64 start, bytes, crc64 } a file,
 *   u64 crc64 of all that
 */
static enum mix_rc put_record(struct mix_buf *out, const struct record *r, struct mix_err *err)
{
    size_t begin = out->len;
    unsigned char bytes[RECORD_SUM];
    enum mix_rc rc;

    mix_store_le(bytes, record_magic, 4);
    mix_store_le(bytes + 4, r->group, 4);
    mix_store_le(bytes + 8, r->slice, 4);
    mix_store_le(bytes + 12, r->file_count, 4);
    if ((rc = mix_buf_put(out, bytes, RECORD_HEAD, err)))
        return rc;
    for (uint32_t i = 0; i < r->file_count; i++) {
        mix_store_le(bytes, r->sum[i].start, 8);
        mix_store_le(bytes + 8, r->sum[i].bytes, 8);
        mix_store_le(bytes + 16, r->sum[i].crc64, 8);
        if ((rc = mix_buf_put(out, bytes, RECORD_SUM, err)))
            return rc;
    }
    mix_store_le(bytes, mix_crc64(0, out->data + begin, out->len - begin), 8);
    return mix_buf_put(out, bytes, 8, err);
}

/* The records of one journal up to the first that is not whole; *used are their bytes. */
static enum mix_rc parse_journal(struct records *list, const unsigned char *data, size_t len,
                                 uint64_t *used, struct mix_err *err)
{
    size_t at = 0;

    while (len - at >= RECORD_HEAD + 8) {
        const unsigned char *p = data + at;
        uint64_t files = mix_load_le(p + 12, 4), bytes = RECORD_HEAD + files * RECORD_SUM;
        struct mix_file_sum *sum;
        enum mix_rc rc;

        if (mix_load_le(p, 4) != record_magic || files > RECORD_MAX_FILES ||
            bytes + 8 > len - at || mix_load_le(p + bytes, 8) != mix_crc64(0, p, bytes))
            break;
        if ((rc = mix_new_array(&sum, files, sizeof *sum, err)))
            return rc;
        for (uint64_t i = 0; i < files; i++) {
            const unsigned char *q = p + RECORD_HEAD + i * RECORD_SUM;

            sum[i] = (struct mix_file_sum){ mix_load_le(q, 8), mix_load_le(q + 8, 8),
                                            mix_load_le(q + 16, 8), 0 };
        }
        rc = records_add(list, (uint32_t)mix_load_le(p + 4, 4), (uint32_t)mix_load_le(p + 8, 4),
                         (uint32_t)files, sum, err);
        free(sum);
        if (rc)
            return rc;
        at += bytes + 8;
    }
    *used = at;
    return MIX_OK;
}

static int by_group_and_slice(const void *pa, const void *pb)
{
    const struct record *a = pa, *b = pb;

    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    return a->slice < b->slice ? -1 : a->slice > b->slice;
}

/* Call `each` for the index of every worker that has a file of that ending. */
static enum mix_rc for_each_worker(struct mix_commit *c, const char *ending,
                                   enum mix_rc (*each)(struct mix_commit *c, unsigned worker,
                                                       const char *path, struct mix_err *err),
                                   struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    struct dirent *entry;
    DIR *dir = mix_folder_open(c->job);
    enum mix_rc rc = MIX_OK;

    if (!dir)
        return mix_fail_errno(err, "%s: cannot open the folder", c->job);
    while (!rc && (errno = 0, entry = readdir(dir))) {
        unsigned worker;
        int used = 0;

        if (sscanf(entry->d_name, "worker-%5u.%n", &worker, &used) == 1 && used &&
            !strcmp(entry->d_name + used, ending) &&
            !(rc = mix_path_join(&path, c->job, entry->d_name, err)))
            rc = each(c, worker, path.data, err);
    }
    if (!rc && errno)
        rc = mix_fail_errno(err, "%s: cannot list", c->job);
    closedir(dir);
    mix_buf_release(&path);
    return rc;
}

static enum mix_rc load_journal(struct mix_commit *c, unsigned worker, const char *path,
                                struct mix_err *err)
{
    struct mix_buf data = MIX_BUF_INIT;
    uint64_t used = 0;
    enum mix_rc rc = mix_file_get(path, UINT32_MAX, &data, err);

    if (!rc)
        rc = parse_journal(&c->done, (unsigned char *)data.data, data.len, &used, err);
    if (worker == c->options.worker)
        c->journal_bytes = used;
    mix_buf_release(&data);
    return rc;
}

static enum mix_rc load_journals(struct mix_commit *c, struct mix_err *err)
{
    enum mix_rc rc;

    records_release(&c->done);
    if ((rc = for_each_worker(c, "journal", load_journal, err)))
        return rc;
    if (c->done.count)
        qsort(c->done.record, c->done.count, sizeof *c->done.record, by_group_and_slice);
    return MIX_OK;
}

static const struct record *find_record(const struct mix_commit *c, size_t group,
                                        size_t slice)
{
    struct record key = { (uint32_t)group, (uint32_t)slice, 0, NULL };

    return c->done.count ? bsearch(&key, c->done.record, c->done.count, sizeof key,
                                   by_group_and_slice)
                         : NULL;
}

bool mix_commit_has(const struct mix_commit *c, size_t group, size_t slice)
{
    return find_record(c, group, slice) != NULL;
}

bool mix_commit_is_resumed(const struct mix_commit *c)
{
    return c->resumed;
}

bool mix_commit_is_published(const struct mix_commit *c)
{
    return c->published;
}

const struct mix_file_sum *mix_commit_done(const struct mix_commit *c, size_t group,
                                           size_t slice, size_t file_count)
{
    const struct record *r = find_record(c, group, slice);

    return r && r->file_count == file_count ? r->sum : NULL;
}

/* ---- begin ---- */

/* Is this folder, if it exists, one that a new job may take over? */
static enum mix_rc check_destination(struct mix_commit *c, struct mix_err *err)
{
    bool empty = true;
    enum mix_rc rc = MIX_OK;
    struct stat st;

    if (lstat(c->dst, &st))
        return errno == ENOENT ? MIX_OK : mix_fail_errno(err, "%s: cannot stat", c->dst);
    if (!S_ISDIR(st.st_mode))
        return mix_fail(err, MIX_EXISTS, "%s: exists and is not a folder", c->dst);
    if (!c->options.force && !(rc = mix_folder_is_empty(c->dst, &empty, err)) && !empty)
        rc = mix_fail(err, MIX_EXISTS, "%s: exists and is not empty (--force replaces it)",
                      c->dst);
    return rc;
}

static enum mix_rc job_text(const char *identity, struct mix_buf *out, struct mix_err *err)
{
    unsigned char sha[32];
    char hex[MIX_SHA256_HEX];
    enum mix_rc rc;

    mix_sha256(identity, strlen(identity), sha);
    mix_hex(sha, 32, hex);
    if ((rc = mix_buf_putf(out, err, "{\"job\":\"%s\",\n\"of\":", hex)) ||
        (rc = mix_json_put_string(out, identity, err)))
        return rc;
    return mix_buf_putf(out, err, "}\n");
}

/*
 * While job/ is moved away, a kill may leave the new checkpoint at <dst>.partial or at
 * <dst>, and the old one, if it is replaced, at <dst>, <dst>.partial or <dst>.old. The
 * record <dst>.partial.job/folders says which folder is which: inode numbers, and the
 * new one's time of change, for a number may come back.
 */
struct folders {
    unsigned long long new_inode, old_inode; /* 0: there is none */
    long long new_time_ns;
};

static long long change_ns(const struct stat *st)
{
    return st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
}

static enum mix_rc put_folders(struct mix_commit *c, bool replaces, struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    struct stat new, old = { .st_ino = 0 };
    char line[80];
    enum mix_rc rc;

    if (stat(c->partial, &new))
        return mix_fail_errno(err, "%s: cannot stat", c->partial);
    if (replaces && stat(c->dst, &old))
        return mix_fail_errno(err, "%s: cannot stat", c->dst);
    snprintf(line, sizeof line, "%llu %llu %lld\n", (unsigned long long)new.st_ino,
             (unsigned long long)old.st_ino, change_ns(&new));
    if (!(rc = mix_path_join(&path, c->moved_job, "folders", err)))
        rc = mix_file_put(path.data, line, strlen(line), c->options.sync, err);
    mix_buf_release(&path);
    return rc;
}

/* All zero if nothing was renamed yet. */
static enum mix_rc get_folders(struct mix_commit *c, struct folders *out, struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT, line = MIX_BUF_INIT;
    enum mix_rc rc = mix_path_join(&path, c->moved_job, "folders", err);

    memset(out, 0, sizeof *out);
    if (!rc && (rc = mix_file_get(path.data, 80, &line, err)) == MIX_NOT_FOUND)
        rc = MIX_OK;
    else if (!rc && sscanf(line.data, "%llu %llu %lld", &out->new_inode, &out->old_inode,
                           &out->new_time_ns) != 3)
        memset(out, 0, sizeof *out);
    mix_buf_release(&path);
    mix_buf_release(&line);
    return rc;
}

/* The folder's inode number and time of change; zeros if nothing stands there. */
static enum mix_rc look_at_folder(const char *path, unsigned long long *inode,
                                  long long *time_ns, struct mix_err *err)
{
    struct stat st = { .st_ino = 0 };

    if (lstat(path, &st) && errno != ENOENT)
        return mix_fail_errno(err, "%s: cannot stat", path);
    *inode = st.st_ino;
    *time_ns = change_ns(&st);
    return MIX_OK;
}

/* job.json goes first: without it nobody takes the rest for something to go on with. */
static enum mix_rc remove_moved_job(struct mix_commit *c, struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    enum mix_rc rc;

    if (!(rc = mix_path_join(&path, c->moved_job, "job.json", err)) &&
        !(rc = mix_path_remove(path.data, err)))
        rc = mix_path_remove(c->moved_job, err);
    mix_buf_release(&path);
    return rc;
}

/*
 * Remove <dst>.partial. It is moved away first, in one step: other workers may still be
 * writing files into it, and what a kill leaves is no job's, and gone with the next run.
 */
static enum mix_rc discard_partial(struct mix_commit *c, struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = mix_path_remove(c->moved_job, err)) ||
        (rc = mix_path_rename(c->partial, c->moved_job, err)))
        return rc;
    return mix_path_remove(c->moved_job, err);
}

static enum mix_rc is_our_job(const char *folder, const struct mix_buf *job, bool *ours,
                              struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT, there = MIX_BUF_INIT;
    enum mix_rc rc = mix_path_join(&path, folder, "job.json", err);

    if (!rc)
        rc = mix_file_get(path.data, 64 << 20, &there, err);
    *ours = !rc && there.len == job->len && !memcmp(there.data, job->data, job->len);
    mix_buf_release(&path);
    mix_buf_release(&there);
    return rc;
}

/* Remove the copy that was replaced, wherever the renames have left it. */
static enum mix_rc remove_old(struct mix_commit *c, unsigned long long old_inode,
                              struct mix_err *err)
{
    const char *place[] = { c->partial, c->old };
    unsigned long long inode;
    long long ignored;
    enum mix_rc rc;

    for (size_t i = 0; old_inode && i < 2; i++)
        if ((rc = look_at_folder(place[i], &inode, &ignored, err)) ||
            (inode == old_inode && (rc = mix_path_remove(place[i], err))))
            return rc;
    return MIX_OK;
}

/* The new checkpoint stands at <dst>. If it is this job's, mix_commit_publish() tidies up. */
static enum mix_rc go_on_published(struct mix_commit *c, const struct mix_buf *job,
                                   const struct folders *folders, struct mix_err *err)
{
    bool ours;
    enum mix_rc rc = is_our_job(c->moved_job, job, &ours, err);

    if (rc && rc != MIX_NOT_FOUND)
        return rc;
    if (!ours)
        return (rc = remove_old(c, folders->old_inode, err)) ? rc : remove_moved_job(c, err);
    c->published = true;
    free(c->job);
    c->job = NULL;
    return text(&c->job, err, "%s", c->moved_job);
}

/* The new checkpoint stands at <dst>.partial: the old one and job/ go back to their places. */
static enum mix_rc undo_publishing(struct mix_commit *c, const struct folders *folders,
                                   struct mix_err *err)
{
    unsigned long long dst, old;
    long long ignored;
    enum mix_rc rc;

    if ((rc = look_at_folder(c->dst, &dst, &ignored, err)) ||
        (rc = look_at_folder(c->old, &old, &ignored, err)) ||
        (!dst && old && old == folders->old_inode && (rc = mix_path_rename(c->old, c->dst, err))))
        return rc;
    return mix_path_rename(c->moved_job, c->job, err);
}

/* Killed while publishing: find out how far it got, and bring things where they can go on. */
static enum mix_rc resume_publishing(struct mix_commit *c, const struct mix_buf *job,
                                     struct mix_err *err)
{
    unsigned long long dst, partial;
    long long dst_ns, ignored;
    struct folders folders;
    bool moved, has_job;
    enum mix_rc rc;

    if ((rc = mix_path_find(c->moved_job, &moved, err)) || !moved)
        return rc;
    if ((rc = get_folders(c, &folders, err)) || (rc = mix_path_find(c->job, &has_job, err)) ||
        (rc = look_at_folder(c->dst, &dst, &dst_ns, err)) ||
        (rc = look_at_folder(c->partial, &partial, &ignored, err)))
        return rc;
    if (partial && !has_job && (!folders.new_inode || partial == folders.new_inode))
        return undo_publishing(c, &folders, err);
    if (folders.new_inode && dst == folders.new_inode && dst_ns == folders.new_time_ns)
        return go_on_published(c, job, &folders, err);
    return remove_moved_job(c, err); /* somebody has changed things since */
}

/* What stands at <dst>.partial. */
enum found { NOTHING, OURS, ANOTHER };

static enum mix_rc look_at_partial(struct mix_commit *c, const struct mix_buf *job,
                                   enum found *found, struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    bool there, ours, empty = true;
    enum mix_rc rc;

    *found = NOTHING;
    if ((rc = mix_path_find(c->partial, &there, err)) || !there)
        return rc;
    rc = is_our_job(c->job, job, &ours, err);
    if (rc == MIX_NOT_FOUND) {
        /* Killed before it knew what it was: an empty folder, or one with an empty job/. */
        *found = ANOTHER;
        if ((rc = mix_path_join(&path, c->job, "job.json.tmp", err)) ||
            (rc = mix_path_remove(path.data, err)))
            goto out;
        if (rmdir(c->job) && errno != ENOENT && errno != ENOTDIR)
            goto out;
        if ((rc = mix_folder_is_empty(c->partial, &empty, err)))
            goto out;
        if (empty)
            *found = NOTHING;
    } else if (!rc) {
        *found = ours ? OURS : ANOTHER;
    }
out:
    mix_buf_release(&path);
    return rc;
}

static enum mix_rc begin_first(struct mix_commit *c, const struct mix_buf *job,
                               struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    enum found found;
    enum mix_rc rc;

    if ((rc = look_at_partial(c, job, &found, err)))
        return rc;
    if (found == ANOTHER && !c->options.force)
        return mix_fail(err, MIX_EXISTS,
                        "%s: is the unfinished work of another job: another source, or other "
                        "options (--force removes it)", c->partial);
    if ((found == ANOTHER && (rc = discard_partial(c, err))) ||
        (rc = mix_folder_make_parents(c->partial, err)) ||
        (rc = mix_folder_make(c->partial, err)) || (rc = mix_folder_make(c->job, err)) ||
        (rc = mix_path_join(&path, c->job, "job.json", err)) ||
        (found != OURS &&
         (rc = mix_file_put(path.data, job->data, job->len, c->options.sync, err))))
        goto out;
    c->resumed = found == OURS;
out:
    mix_buf_release(&path);
    return rc;
}

static void sleep_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

    nanosleep(&t, NULL); /* a signal may cut it short, and is looked at right after */
}

/* Workers but the first wait for job.json to say that this is their job. */
static enum mix_rc begin_other(struct mix_commit *c, const struct mix_buf *job,
                               struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;
    bool ours;

    for (uint64_t waited = 0; !rc; waited += 50) {
        rc = is_our_job(c->job, job, &ours, err);
        if (ours || (rc && rc != MIX_NOT_FOUND))
            break;
        if (waited >= c->options.wait_ms)
            rc = mix_fail(err, MIX_IO,
                          "worker %u of %u: worker 0 has not begun this job at %s for %" PRIu64
                          " s", c->options.worker, c->options.worker_count, c->partial,
                          c->options.wait_ms / 1000);
        else if (!(rc = mix_cancel_check(err)))
            sleep_ms(50);
    }
    return rc;
}

static enum mix_rc open_own_files(struct mix_commit *c, struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = worker_path(c, c->options.worker, "journal", &c->journal_path, err)) ||
        (rc = worker_path(c, c->options.worker, "digests", &c->digests_path, err)) ||
        (rc = mix_file_open(c->journal_path, &c->journal, err)) ||
        (rc = mix_file_open(c->digests_path, &c->digests, err)))
        return rc;
    /* A torn record at the end is cut off before anything is put behind it. */
    if ((rc = mix_file_resize(c->journal, c->journal_path, c->journal_bytes, err)) ||
        !c->options.sync)
        return rc;
    return (rc = mix_folder_sync(c->job, err)) || (rc = mix_folder_sync(c->partial, err))
               ? rc
               : mix_path_sync_parent(c->partial, err);
}

/* ---- signs of life ---- */

static bool is_fault_of_input(enum mix_rc rc)
{
    return rc == MIX_BAD_FORMAT || rc == MIX_CORRUPT || rc == MIX_TRUNCATED ||
           rc == MIX_MISMATCH || rc == MIX_OVERLAP || rc == MIX_HOLE || rc == MIX_NOT_FOUND ||
           rc == MIX_UNSUPPORTED;
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Changes only when this process is another one, or has got further. */
static enum mix_rc put_status(struct mix_commit *c, const char *state, const char *words,
                              struct mix_err *err)
{
    struct mix_buf line = MIX_BUF_INIT;
    char *path = NULL;
    enum mix_rc rc;

    if (c->options.worker_count == 1)
        return MIX_OK;
    if (!(rc = worker_path(c, c->options.worker, "status", &path, err)) &&
        !(rc = mix_buf_putf(&line, err, "%s %ld %" PRId64 " %" PRIu64 "\n%s\n", state,
                            (long)getpid(), c->began_ns, c->mark, words)))
        rc = mix_file_put(path, line.data, line.len, false, err);
    free(path);
    mix_buf_release(&line);
    c->status_ns = now_ns();
    return rc;
}

/* The status of another worker; empty if it has none. */
static enum mix_rc get_status(struct mix_commit *c, unsigned worker, struct mix_buf *out,
                              struct mix_err *err)
{
    char *path = NULL;
    enum mix_rc rc = worker_path(c, worker, "status", &path, err);

    mix_buf_clear(out);
    if (!rc && (rc = mix_file_get(path, 1 << 20, out, err)) == MIX_NOT_FOUND)
        rc = MIX_OK;
    free(path);
    return rc;
}

/* In a new job there are none: whatever worker 0 finds there, is of this run. */
static enum mix_rc remember_statuses(struct mix_commit *c, struct mix_err *err)
{
    unsigned n = c->options.worker_count;
    enum mix_rc rc = mix_new_array(&c->old_status, n, sizeof *c->old_status, err);

    for (unsigned i = 0; i < n && !rc && (c->resumed || c->options.worker); i++)
        rc = get_status(c, i, &c->old_status[i], err);
    return rc;
}

static enum mix_rc begin_work(struct mix_commit *c, const struct mix_buf *job,
                              struct mix_err *err)
{
    enum mix_rc rc;

    if ((rc = check_destination(c, err)) ||
        (rc = c->options.worker ? begin_other(c, job, err) : begin_first(c, job, err)) ||
        (c->options.worker_count > 1 && (rc = remember_statuses(c, err))) ||
        (rc = load_journals(c, err)) || (rc = open_own_files(c, err)))
        return rc;
    return put_status(c, "working", "", err);
}

enum mix_rc mix_commit_begin(const char *dst, const char *src, const char *identity,
                             const struct mix_commit_options *options,
                             struct mix_commit **out, struct mix_err *err)
{
    struct mix_buf job = MIX_BUF_INIT;
    struct mix_commit *c;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&c, sizeof *c, err)))
        return rc;
    c->options = *options;
    c->began_ns = now_ns();
    c->journal = c->digests = -1;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->flush_lock, NULL);
    if ((rc = set_paths(c, dst, err)) || (rc = check_apart(c->dst, src, err)) ||
        (rc = job_text(identity, &job, err)) ||
        (!options->worker && (rc = resume_publishing(c, &job, err))) ||
        (!c->published && (rc = begin_work(c, &job, err)))) {
        mix_commit_end(c, MIX_IO, NULL);
        c = NULL;
    }
    mix_buf_release(&job);
    *out = c;
    return rc;
}

/* ---- what is done ---- */

enum mix_rc mix_commit_leaves(struct mix_commit *c, uint64_t first, const unsigned char *hash,
                              size_t count, struct mix_err *err)
{
    return mix_file_write(c->digests, c->digests_path, first * 32, hash, count * 32, err);
}

static bool same_folder(const char *a, const char *b)
{
    size_t len = (size_t)(strrchr(a, '/') - a);

    return !strncmp(a, b, len + 1) && !strchr(b + len + 1, '/');
}

/* A file is durable when its name is, too, and the name of the folder that it lies in. */
static enum mix_rc sync_folders_of(struct mix_commit *c, const struct mix_names *files,
                                   struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < files->count && !rc; i++)
        if (!i || !same_folder(files->name[i - 1], files->name[i]))
            rc = mix_path_sync_parent(files->name[i], err);
    return rc ? rc : mix_folder_sync(c->partial, err);
}

static enum mix_rc sync_files(struct mix_commit *c, const struct mix_names *files,
                              struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;
    int fd;

    if (files->count > SYNCFS_FILES) {
        if (syncfs(c->journal))
            return mix_fail_errno(err, "%s: cannot sync its file system", c->partial);
        return MIX_OK;
    }
    for (size_t i = 0; i < files->count && !rc; i++) {
        if (i && !strcmp(files->name[i], files->name[i - 1]))
            continue;
        if ((rc = mix_file_open_again(files->name[i], &fd, err)))
            return rc;
        rc = mix_file_sync(fd, files->name[i], err);
        close(fd);
    }
    return rc || (rc = sync_folders_of(c, files, err))
               ? rc
               : mix_file_sync(c->digests, c->digests_path, err);
}

static enum mix_rc append_journal(struct mix_commit *c, const struct records *list,
                                  struct mix_err *err)
{
    struct mix_buf bytes = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < list->count && !rc; i++)
        rc = put_record(&bytes, &list->record[i], err);
    if (!rc && !(rc = mix_file_write(c->journal, c->journal_path, c->journal_bytes, bytes.data,
                                     bytes.len, err)) &&
        c->options.sync)
        rc = mix_file_sync(c->journal, c->journal_path, err);
    if (!rc)
        c->journal_bytes += bytes.len;
    mix_buf_release(&bytes);
    return rc;
}

static void flush_failed(struct mix_commit *c, enum mix_rc rc, const struct mix_err *err)
{
    pthread_mutex_lock(&c->lock);
    c->flush_rc = rc;
    c->flush_err = *err;
    pthread_mutex_unlock(&c->lock);
}

/*
 * After a failure nothing more is noted: the kernel may have dropped the pages that it
 * could not write, and a second fsync would say that all is well.
 */
enum mix_rc mix_commit_flush(struct mix_commit *c, struct mix_err *err)
{
    struct records list;
    struct mix_names files;
    enum mix_rc rc;

    pthread_mutex_lock(&c->flush_lock);
    pthread_mutex_lock(&c->lock);
    if ((rc = c->flush_rc)) {
        *err = c->flush_err;
        pthread_mutex_unlock(&c->lock);
        pthread_mutex_unlock(&c->flush_lock);
        return rc;
    }
    list = c->pending;
    files = c->pending_files;
    c->pending = (struct records){ 0 };
    c->pending_files = (struct mix_names)MIX_NAMES_INIT;
    pthread_mutex_unlock(&c->lock);

    if (list.count && !(c->options.sync && (rc = sync_files(c, &files, err))))
        rc = append_journal(c, &list, err);
    if (rc)
        flush_failed(c, rc, err);
    records_release(&list);
    mix_names_release(&files);
    pthread_mutex_unlock(&c->flush_lock);
    return rc;
}

/* Called with the lock held. */
static enum mix_rc add_pending(struct mix_commit *c, size_t group, size_t slice,
                               const struct mix_group *files, const struct mix_file_sum *sum,
                               struct mix_err *err)
{
    struct mix_buf path = MIX_BUF_INIT;
    enum mix_rc rc = MIX_OK;

    for (size_t i = 0; i < files->file_count && !rc && c->options.sync; i++)
        if (!(rc = mix_path_join(&path, c->partial, files->file[i].name, err)))
            rc = mix_names_add(&c->pending_files, path.data, false, err);
    mix_buf_release(&path);
    return rc ? rc
              : records_add(&c->pending, (uint32_t)group, (uint32_t)slice,
                            (uint32_t)files->file_count, sum, err);
}

enum mix_rc mix_commit_slice(struct mix_commit *c, size_t group, size_t slice,
                             const struct mix_group *files, const struct mix_file_sum *sum,
                             struct mix_err *err)
{
    enum mix_rc rc;

    pthread_mutex_lock(&c->lock);
    if ((rc = c->flush_rc))
        *err = c->flush_err;
    else
        rc = add_pending(c, group, slice, files, sum, err);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void mix_commit_tend(struct mix_commit *c, uint64_t mark)
{
    struct mix_err err = { 0 };
    enum mix_rc rc = mix_commit_flush(c, &err);

    if (!c->waiting && now_ns() - c->status_ns >= STATUS_MS * INT64_C(1000000)) {
        c->mark = mark;
        if (!rc && (rc = put_status(c, "working", "", &err)))
            flush_failed(c, rc, &err);
    }
}

/* ---- the end ---- */

static bool same_status(const struct mix_buf *a, const struct mix_buf *b)
{
    return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

/* The words of a worker that failed, or NULL; *refused if its input was at fault. */
static const char *last_words(const struct mix_buf *status, bool *refused)
{
    char *words = status->len ? strchr(status->data, '\n') : NULL;

    *refused = words && !strncmp(status->data, "refused ", 8);
    if (!words || (!*refused && strncmp(status->data, "failed ", 7)))
        return NULL;
    words[1 + strcspn(words + 1, "\n")] = '\0';
    return words + 1;
}

/*
 * What the status of another worker says; *fresh if it has changed since we began, and is
 * still there.
 */
static enum mix_rc check_worker(struct mix_commit *c, unsigned worker, struct mix_buf *status,
                                bool *fresh, struct mix_err *err)
{
    const char *words;
    bool refused;
    enum mix_rc rc;

    *fresh = false;
    if ((rc = get_status(c, worker, status, err)) || !status->len ||
        same_status(status, &c->old_status[worker]))
        return rc;
    *fresh = true;
    if (!(words = last_words(status, &refused)))
        return MIX_OK;
    /* What it found in the input ends the job for all: MIX_CORRUPT stands for any of it. */
    return mix_fail(err, refused ? MIX_CORRUPT : MIX_IO, "worker %u of %u failed: %s", worker,
                    c->options.worker_count, words);
}

/*
 * Ask is_complete() now and then. Any change of any worker's status counts as progress;
 * each worker must also have come to wait for this one, so that none finds the job gone
 * while it still writes into it.
 */
static enum mix_rc wait_for_all(struct mix_commit *c,
                                bool (*is_complete)(void *context, const char **missing),
                                void *context, struct mix_progress *progress,
                                struct mix_err *err)
{
    unsigned n = c->options.worker_count;
    struct mix_buf *last = NULL, status = MIX_BUF_INIT, names = MIX_BUF_INIT;
    const char *missing = "";
    char stuck[64];
    uint64_t quiet_ms = 0;
    enum mix_rc rc = mix_new_array(&last, n, sizeof *last, err);

    while (!rc) {
        unsigned absent = 0, busy = 0;
        bool changed = false, fresh, complete;

        mix_buf_clear(&names);

        for (unsigned i = 1; i < n && !rc; i++) {
            if ((rc = check_worker(c, i, &status, &fresh, err)))
                break;
            if (!fresh && absent++ < NAMED &&
                (rc = mix_buf_putf(&names, err, "%s%u", names.len ? ", " : "", i)))
                break;
            if (fresh && strncmp(status.data, "waiting ", 8))
                busy = i;
            if (!same_status(&status, &last[i])) {
                changed = true;
                mix_buf_clear(&last[i]);
                rc = mix_buf_put(&last[i], status.data, status.len, err);
            }
        }
        c->mark++; /* so that the others see that somebody still waits with them */
        if (rc || (rc = load_journals(c, err)) || (rc = put_status(c, "working", "", err)))
            break;
        complete = is_complete(context, &missing);
        if (complete && !absent && !busy)
            break;
        if (complete) {
            snprintf(stuck, sizeof stuck, "worker %u of %u has not ended", busy, n);
            missing = stuck;
        }
        quiet_ms = changed ? 0 : quiet_ms + STATUS_MS;
        if (quiet_ms > c->options.wait_ms)
            rc = absent ? mix_fail(err, MIX_IO, "of %u workers, %u have not shown up for %" PRIu64
                                   " s: %s%s", n, absent, c->options.wait_ms / 1000, names.data,
                                   absent > NAMED ? ", ..." : "")
                        : mix_fail(err, MIX_IO, "no progress for %" PRIu64 " s; %s",
                                   c->options.wait_ms / 1000, missing);
        else if (!(rc = mix_cancel_check(err))) {
            mix_progress_tick(progress);
            sleep_ms(STATUS_MS);
        }
    }
    for (unsigned i = 0; last && i < n; i++)
        mix_buf_release(&last[i]);
    free(last);
    mix_buf_release(&status);
    mix_buf_release(&names);
    return rc;
}

/* Whether worker 0 has nothing more to do: the job was moved away, and is gone from there. */
static enum mix_rc is_over(struct mix_commit *c, bool *over, struct mix_err *err)
{
    bool here, moved;
    enum mix_rc rc;

    if ((rc = mix_path_find(c->journal_path, &here, err)) ||
        (rc = mix_path_find(c->moved_job, &moved, err)))
        return rc;
    *over = !here && !moved;
    return MIX_OK;
}

/* When the process began that a status is of; 0 if there is none. */
static int64_t began_of(const struct mix_buf *status)
{
    int64_t began = 0;

    return status->len && sscanf(status->data, "%*s %*d %" SCNd64, &began) == 1 ? began : 0;
}

/*
 * A worker 0 that began later than we did takes our status for that of an earlier run,
 * until it changes. It waits for that, so the job is there, but for a moment at its start.
 */
static enum mix_rc show_up_again(struct mix_commit *c, struct mix_err *err)
{
    enum mix_rc rc;
    bool over;

    c->mark++;
    if (!(rc = put_status(c, "waiting", "", err)) || is_over(c, &over, err))
        return rc;
    return over ? MIX_OK : rc;
}

static enum mix_rc wait_for_first(struct mix_commit *c, struct mix_progress *progress,
                                  struct mix_err *err)
{
    struct mix_buf status = MIX_BUF_INIT, last = MIX_BUF_INIT;
    int64_t first_began = began_of(&c->old_status[0]);
    uint64_t quiet_ms = 0;
    bool fresh, over = false, there;
    enum mix_rc rc;

    if ((rc = put_status(c, "waiting", "", err)))
        return rc;
    while (!(rc = is_over(c, &over, err)) && !over) {
        /* The job may vanish between any two looks: that is what we wait for. */
        if ((rc = check_worker(c, 0, &status, &fresh, err)) ||
            (began_of(&status) && began_of(&status) != first_began &&
             (rc = show_up_again(c, err))))
            break;
        if (began_of(&status))
            first_began = began_of(&status);

        bool changed = !same_status(&status, &last), refused;

        quiet_ms = changed ? 0 : quiet_ms + STATUS_MS;
        mix_buf_clear(&last);
        if ((rc = mix_buf_put(&last, status.data, status.len, err)))
            break;
        if (quiet_ms > c->options.wait_ms) {
            /* If it failed before we began: of this run or of an earlier one, who knows. */
            const char *words = last_words(&status, &refused);

            rc = mix_fail(err, MIX_IO, "worker 0 of %u shows no progress for %" PRIu64 " s%s%s",
                          c->options.worker_count, c->options.wait_ms / 1000,
                          words ? "; the last that it said was: " : "", words ? words : "");
        } else if (!(rc = mix_cancel_check(err))) {
            mix_progress_tick(progress);
            sleep_ms(STATUS_MS);
        }
        if (rc)
            break;
    }
    if (!rc && !(rc = mix_path_find(c->dst, &there, err)) && !there)
        rc = mix_fail(err, MIX_IO, "worker 0 of %u has given the job up", c->options.worker_count);
    mix_buf_release(&status);
    mix_buf_release(&last);
    return rc;
}

enum mix_rc mix_commit_wait(struct mix_commit *c,
                            bool (*is_complete)(void *context, const char **missing),
                            void *context, struct mix_progress *progress, struct mix_err *err)
{
    const char *missing = "";
    enum mix_rc rc;

    if ((rc = mix_commit_flush(c, err)))
        return rc;
    c->waiting = true;
    if (c->options.worker)
        return wait_for_first(c, progress, err);
    if (c->options.worker_count > 1)
        return wait_for_all(c, is_complete, context, progress, err);
    if ((rc = load_journals(c, err)))
        return rc;
    return is_complete(context, &missing)
               ? MIX_OK
               : mix_fail(err, MIX_IO, "the journal at %s lost what was noted: %s", c->job,
                          missing);
}

static enum mix_rc open_leaves(struct mix_commit *c, unsigned worker, const char *path,
                               struct mix_err *err)
{
    int *grown = realloc(c->leaf_fd, (c->leaf_fd_count + 1) * sizeof *grown);
    enum mix_rc rc;
    int fd;

    (void)worker;
    if (!grown)
        return mix_fail(err, MIX_NO_MEMORY, "out of memory");
    c->leaf_fd = grown;
    if ((rc = mix_file_open_again(path, &fd, err)))
        return rc;
    c->leaf_fd[c->leaf_fd_count++] = fd;
    return MIX_OK;
}

/* Take over the hashes that one worker made: those that are not zero. No hash is zero. */
static enum mix_rc merge_leaves(int fd, uint64_t offset, size_t bytes, unsigned char *part,
                                unsigned char *hash, struct mix_err *err)
{
    static const unsigned char zero[32];
    size_t have = 0;

    while (have < bytes) {
        ssize_t n = pread(fd, part + have, bytes - have, (off_t)(offset + have));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mix_fail_errno(err, "cannot read leaf hashes");
        if (n == 0)
            break; /* the rest was never written */
        have += (size_t)n;
    }
    for (size_t i = 0; i + 32 <= have; i += 32)
        if (memcmp(part + i, zero, 32))
            memcpy(hash + i, part + i, 32);
    return MIX_OK;
}

enum mix_rc mix_commit_read_leaves(struct mix_commit *c, uint64_t first, size_t count,
                                   unsigned char *hash, struct mix_err *err)
{
    static const unsigned char zero[32];
    unsigned char *part = NULL;
    enum mix_rc rc = MIX_OK;

    memset(hash, 0, count * 32);
    if ((!c->leaf_fd_count && (rc = for_each_worker(c, "digests", open_leaves, err))) ||
        (rc = mix_new(&part, count * 32, err)))
        return rc;
    for (unsigned i = 0; i < c->leaf_fd_count && !rc; i++) {
        /* Most of a file is a hole when there are many workers: look before reading. */
        off_t data = lseek(c->leaf_fd[i], (off_t)(first * 32), SEEK_DATA);

        if (data >= 0 && (uint64_t)data >= (first + count) * 32)
            continue;
        if (data < 0 && errno == ENXIO)
            continue;
        rc = merge_leaves(c->leaf_fd[i], first * 32, count * 32, part, hash, err);
    }
    free(part);
    for (size_t i = 0; i < count && !rc; i++)
        if (!memcmp(hash + i * 32, zero, 32))
            rc = mix_fail(err, MIX_IO, "%s: the hash of leaf %" PRIu64 " was lost", c->job,
                          first + i);
    return rc;
}

/* Put the new folder where the old one is, in one step if the file system can. */
static enum mix_rc replace(struct mix_commit *c, struct mix_err *err)
{
    enum mix_rc rc;

    if (syscall(SYS_renameat2, AT_FDCWD, c->partial, AT_FDCWD, c->dst, RENAME_EXCHANGE) == 0)
        return MIX_OK;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return mix_fail_errno(err, "%s: cannot exchange with %s", c->partial, c->dst);
    if ((rc = mix_path_remove(c->old, err)) || (rc = mix_path_rename(c->dst, c->old, err)))
        return rc;
    if ((rc = mix_path_rename(c->partial, c->dst, err)))
        mix_err_at(err, "the old checkpoint is whole at %s, the new one at %s", c->old,
                   c->partial);
    return rc;
}

/* Everything up to the rename with which the checkpoint begins to exist. */
static enum mix_rc let_exist(struct mix_commit *c, struct mix_err *err)
{
    struct mix_buf folders = MIX_BUF_INIT;
    bool there, empty = true;
    enum mix_rc rc;

    if ((c->options.sync && (rc = mix_folder_sync_tree(c->partial, err))) ||
        (rc = mix_path_find(c->dst, &there, err)) ||
        (there && (rc = mix_folder_is_empty(c->dst, &empty, err))))
        return rc;
    if (!empty && !c->options.force)
        return mix_fail(err, MIX_EXISTS, "%s: has been filled meanwhile; the new checkpoint is "
                        "kept at %s", c->dst, c->partial);
    /* Of a run that got as far as this and was killed: of a time that has passed. */
    if ((rc = mix_path_join(&folders, c->job, "folders", err)) ||
        (rc = mix_path_remove(folders.data, err)) || (rc = mix_path_remove(c->moved_job, err)) ||
        (rc = mix_path_rename(c->job, c->moved_job, err)) ||
        (c->options.sync && (rc = mix_folder_sync(c->partial, err))) ||
        (rc = put_folders(c, !empty, err)))
        goto out;
    rc = empty ? mix_path_rename(c->partial, c->dst, err) : replace(c, err);
    c->published = !rc;
out:
    mix_buf_release(&folders);
    return rc;
}

static enum mix_rc tidy_up(struct mix_commit *c, struct mix_err *err)
{
    struct folders folders;
    enum mix_rc rc;

    if ((c->options.sync && (rc = mix_path_sync_parent(c->dst, err))) ||
        (rc = get_folders(c, &folders, err)) || (rc = remove_old(c, folders.old_inode, err)))
        return rc;
    return remove_moved_job(c, err);
}

enum mix_rc mix_commit_publish(struct mix_commit *c, struct mix_err *err)
{
    enum mix_rc rc;

    if (!c->published && (rc = let_exist(c, err)))
        return rc;
    if ((rc = tidy_up(c, err)))
        mix_err_at(err, "the new checkpoint is whole at %s, but", c->dst);
    return rc;
}

void mix_commit_end(struct mix_commit *c, enum mix_rc rc, const struct mix_err *why)
{
    struct mix_err ignored;

    if (!c)
        return;
    if (rc && why) {
        mix_commit_flush(c, &ignored); /* what is done need not be done again */
        put_status(c, is_fault_of_input(rc) ? "refused" : "failed", why->text, &ignored);
    }
    if (c->journal >= 0)
        close(c->journal);
    if (c->digests >= 0)
        close(c->digests);
    for (unsigned i = 0; i < c->leaf_fd_count; i++)
        close(c->leaf_fd[i]);
    if (why && is_fault_of_input(rc) && c->options.worker == 0 && !c->published)
        discard_partial(c, &ignored);
    for (unsigned i = 0; c->old_status && i < c->options.worker_count; i++)
        mix_buf_release(&c->old_status[i]);
    free(c->old_status);
    free(c->leaf_fd);
    records_release(&c->done);
    records_release(&c->pending);
    mix_names_release(&c->pending_files);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->flush_lock);
    free(c->dst);
    free(c->partial);
    free(c->old);
    free(c->moved_job);
    free(c->job);
    free(c->journal_path);
    free(c->digests_path);
    free(c);
}
