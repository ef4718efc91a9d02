/*
 * shim.c - faults on demand: a library to preload, between the program and libc.
 *
 *   LD_PRELOAD=shim.so FAULTS="pwrite64,fsync:7:EIO" mixckpt convert ...
 *
 * FAULTS holds rules, separated by ';', of three fields:
 *
 *   calls   names of functions, separated by ','; "*" is all that can change a file
 *           system, "alloc" all that give out memory
 *   when    "7" the seventh such call of the whole process, "7+" all from then on
 *   what    a name of errno, "EIO": the call is not made and fails with it
 *           "KILL"  the process dies before the call, as if by SIGKILL
 *           "STOP"  it stops before the call until somebody sends SIGCONT
 *           "SLOW"  it takes 10 ms longer
 *           "HALF"  the call is made for half of the bytes (pread64, pwrite64)
 *
 * Calls are counted over all threads, which `strace -e inject` does not do. At the end
 * FAULTS_REPORT, if set, is written: how many calls each rule saw, a line a rule.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { RULES = 16, DO_NOTHING = 0, DO_KILL = -1, DO_STOP = -2, DO_HALF = -3, DO_SLOW = -4 };

static struct rule {
    char calls[256]; /* ",a,b,c," */
    long first, last;
    int what;        /* an errno, or one of the above */
    _Atomic long seen;
} rule[RULES];
static int rule_count;
static bool ready; /* set before main(), when there is one thread */

static const struct {
    const char *name;
    int value;
} words[] = {
    { "KILL", DO_KILL }, { "STOP", DO_STOP }, { "HALF", DO_HALF }, { "SLOW", DO_SLOW },
    { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EINTR", EINTR }, { "EMFILE", EMFILE }, { "ENOMEM", ENOMEM },
    { "EAGAIN", EAGAIN }, { "EINVAL", EINVAL }, { "EACCES", EACCES }, { "EDQUOT", EDQUOT },
};

static void give_up(const char *why)
{
    fprintf(stderr, "shim: %s in FAULTS\n", why);
    abort();
}

static void parse_rule(char *text)
{
    struct rule *r = &rule[rule_count];
    char *when = strchr(text, ':'), *what = when ? strchr(when + 1, ':') : NULL, *end;

    if (!what || rule_count++ == RULES)
        give_up("a rule without three fields, or too many rules");
    *when++ = *what++ = '\0';
    snprintf(r->calls, sizeof r->calls, ",%s,", text);
    r->first = r->last = strtol(when, &end, 10);
    if (*end == '+')
        r->last = INT32_MAX;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(what, words[i].name))
            r->what = words[i].value;
    if (!r->what)
        give_up("an unknown fault");
}

__attribute__((constructor)) static void begin(void)
{
    static char text[1024];
    char *at = text, *one;

    snprintf(text, sizeof text, "%s", getenv("FAULTS") ? getenv("FAULTS") : "");
    while ((one = strsep(&at, ";")))
        if (*one)
            parse_rule(one);
    ready = true;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAULTS_REPORT");
    FILE *file;

    ready = false;
    if (!path || !(file = fopen(path, "w")))
        return;
    for (int i = 0; i < rule_count; i++)
        fprintf(file, "%ld\n", rule[i].seen);
    fclose(file);
}

static bool names(const struct rule *r, const char *call, const char *kind)
{
    size_t len = strlen(call);

    for (const char *at = r->calls; (at = strstr(at, call)); at++)
        if (at[-1] == ',' && at[len] == ',')
            return true;
    return kind && strstr(r->calls, kind);
}

/* What shall happen to this call. `kind` is ",*,", ",alloc," or NULL. */
static int fault(const char *call, const char *kind)
{
    for (int i = 0; ready && i < rule_count; i++) {
        long n;

        if (!names(&rule[i], call, kind))
            continue;
        n = atomic_fetch_add(&rule[i].seen, 1) + 1;
        if (n < rule[i].first || n > rule[i].last)
            continue;
        if (rule[i].what == DO_KILL)
            kill(getpid(), SIGKILL);
        if (rule[i].what == DO_STOP)
            kill(getpid(), SIGSTOP);
        if (rule[i].what == DO_SLOW)
            usleep(10000);
        if (rule[i].what > 0) {
            errno = rule[i].what;
            return rule[i].what;
        }
        if (rule[i].what == DO_HALF)
            return DO_HALF;
    }
    return DO_NOTHING;
}

/* ---- files ---- */

#define CHANGES ",*,"
#define LOOKS NULL

#define HOOK(kind, type, name, parameters, arguments, failed)      \
    type name parameters                                           \
    {                                                              \
        static type (*real) parameters;                            \
                                                                   \
        if (!real)                                                 \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);    \
        return fault(#name, kind) > 0 ? (type)(failed) : real arguments; \
    }

HOOK(CHANGES, int, mkdir, (const char *path, mode_t mode), (path, mode), -1)
HOOK(CHANGES, int, rmdir, (const char *path), (path), -1)
HOOK(CHANGES, int, unlink, (const char *path), (path), -1)
HOOK(CHANGES, int, rename, (const char *from, const char *to), (from, to), -1)
HOOK(CHANGES, int, ftruncate64, (int fd, off64_t bytes), (fd, bytes), -1)
HOOK(CHANGES, int, fsync, (int fd), (fd), -1)
HOOK(CHANGES, int, syncfs, (int fd), (fd), -1)
HOOK(CHANGES, int, mkostemp64, (char *path, int flags), (path, flags), -1)
HOOK(LOOKS, int, memfd_create, (const char *name, unsigned flags), (name, flags), -1)
HOOK(LOOKS, int, lstat64, (const char *path, struct stat64 *st), (path, st), -1)
HOOK(LOOKS, int, stat64, (const char *path, struct stat64 *st), (path, st), -1)
HOOK(LOOKS, int, fstat64, (int fd, struct stat64 *st), (fd, st), -1)
HOOK(LOOKS, int, fstatat64, (int fd, const char *path, struct stat64 *st, int flags),
     (fd, path, st, flags), -1)
HOOK(LOOKS, int, statvfs64, (const char *path, struct statvfs64 *fs), (path, fs), -1)
HOOK(LOOKS, off64_t, lseek64, (int fd, off64_t at, int from), (fd, at, from), -1)
HOOK(LOOKS, ssize_t, readlink, (const char *path, char *out, size_t len), (path, out, len), -1)
HOOK(LOOKS, char *, realpath, (const char *path, char *out), (path, out), 0)
HOOK(LOOKS, DIR *, opendir, (const char *path), (path), 0)
HOOK(LOOKS, struct dirent64 *, readdir64, (DIR *dir), (dir), 0)
HOOK(LOOKS, int, pthread_create,
     (pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *), void *argument),
     (id, attributes, run, argument), errno)

/* Linux closes the descriptor even if it says EINTR or EIO. */
int close(int fd)
{
    static int (*real)(int);
    int what = fault("close", CHANGES);

    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    int failed = real(fd);

    if (what <= 0)
        return failed;
    errno = what;
    return -1;
}

/* Counts as a change only if it makes a file. */
int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    mode_t mode = 0;

    if (!real)
        real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    if (flags & O_CREAT) {
        va_list ap;

        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    return fault("open64", flags & O_CREAT ? CHANGES : LOOKS) > 0 ? -1 : real(path, flags, mode);
}

/* renameat2() is called this way, because not every libc has it. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    va_list ap;

    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    return fault("syscall", CHANGES) > 0 ? -1
                                         : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t at)
{
    static ssize_t (*real)(int, void *, size_t, off64_t);
    int what = fault("pread64", LOOKS);

    if (!real)
        real = (ssize_t(*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    return what > 0 ? -1 : real(fd, buf, what == DO_HALF ? (len + 1) / 2 : len, at);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    int what = fault("pwrite64", CHANGES);

    if (!real)
        real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return what > 0 ? -1 : real(fd, buf, what == DO_HALF ? (len + 1) / 2 : len, at);
}

/* ---- memory ---- */

/* glibc's own names for its allocator: dlsym() may want memory while we look for it. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes)
{
    return fault("malloc", ",alloc,") > 0 ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return fault("calloc", ",alloc,") > 0 ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    return fault("realloc", ",alloc,") > 0 ? NULL : __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return fault("aligned_alloc", ",alloc,") > 0 ? NULL : __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    void *p = fault("posix_memalign", ",alloc,") > 0 ? NULL : __libc_memalign(alignment, bytes);

    if (p)
        *out = p;
    return p ? 0 : ENOMEM;
}
