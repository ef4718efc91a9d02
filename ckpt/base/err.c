/* err.c - codes and words of errors. */
#include "ckpt/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Without words nobody knows the code any more; but never MIX_OK, for something failed. */
static const enum mix_rc UNSAID = MIX_IO;

static void set(struct mix_err *err, enum mix_rc rc, const char *fmt, va_list ap)
{
    memset(err, 0, sizeof *err);
    err->rc = rc;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    /* One line, whatever a hostile name holds. */
    for (char *p = err->text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

enum mix_rc mix_fail(struct mix_err *err, enum mix_rc rc, const char *fmt, ...)
{
    va_list ap;

    if (err) {
        va_start(ap, fmt);
        set(err, rc, fmt, ap);
        va_end(ap);
    }
    return rc;
}

enum mix_rc mix_fail_errno(struct mix_err *err, const char *fmt, ...)
{
    int number = errno;
    va_list ap;

    if (err) {
        va_start(ap, fmt);
        set(err, MIX_IO, fmt, ap);
        va_end(ap);
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(number));
    }
    return MIX_IO;
}

static void put_in_front(struct mix_err *err, const char *where)
{
    char all[sizeof err->text + 1024];

    snprintf(all, sizeof all, "%.1000s: %s", where, err->text);
    memcpy(err->text, all, sizeof err->text - 1); /* cut at the end, where it is least missed */
    for (char *p = err->text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

enum mix_rc mix_err_at(struct mix_err *err, const char *fmt, ...)
{
    char where[600];
    va_list ap;

    if (!err)
        return UNSAID;
    va_start(ap, fmt);
    vsnprintf(where, sizeof where, fmt, ap);
    va_end(ap);
    put_in_front(err, where);
    return err->rc;
}

enum mix_rc mix_err_file(struct mix_err *err, const char *path)
{
    if (!err)
        return UNSAID;
    put_in_front(err, path);
    if (!err->file[0])
        snprintf(err->file, sizeof err->file, "%s", path);
    return err->rc;
}

enum mix_rc mix_err_tensor(struct mix_err *err, const char *name, uint64_t begin,
                           uint64_t end)
{
    if (!err)
        return UNSAID;
    snprintf(err->tensor, sizeof err->tensor, "%s", name);
    err->begin = begin;
    err->end = end;
    err->has_range = true;
    return err->rc;
}

const char *mix_rc_name(enum mix_rc rc)
{
    static const char *const name[] = {
        [MIX_OK] = "ok",
        [MIX_NO_MEMORY] = "no-memory",
        [MIX_IO] = "io",
        [MIX_NOT_FOUND] = "not-found",
        [MIX_BAD_FORMAT] = "bad-format",
        [MIX_OVERLAP] = "overlap",
        [MIX_HOLE] = "hole",
        [MIX_TRUNCATED] = "truncated",
        [MIX_CORRUPT] = "corrupt",
        [MIX_MISMATCH] = "mismatch",
        [MIX_UNSUPPORTED] = "unsupported",
        [MIX_USAGE] = "usage",
        [MIX_EXISTS] = "exists",
        [MIX_INTERRUPTED] = "interrupted",
    };

    return (unsigned)rc < sizeof name / sizeof *name ? name[rc] : "unknown";
}
