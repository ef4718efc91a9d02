/*
 * err.h - what went wrong: a code for programs and one line of words for people.
 *
 * The words are set once, where the fault is found: what was seen, what was
 * expected, with the numbers. On the way up callers only add where:
 * mix_err_file() and mix_err_at() put text in front, and never reword.
 */
#ifndef MIXCKPT_CKPT_BASE_ERR_H
#define MIXCKPT_CKPT_BASE_ERR_H

#include <stdbool.h>
#include <stdint.h>

enum mix_rc {
    MIX_OK = 0,
    MIX_NO_MEMORY,   /* an allocation failed */
    MIX_IO,          /* the system refused: errno is in the words */
    MIX_NOT_FOUND,   /* there is no such file, folder or tensor */
    MIX_BAD_FORMAT,  /* bytes that break the rules of their format */
    MIX_OVERLAP,     /* two tensors claim the same bytes of a file */
    MIX_HOLE,        /* bytes of a file that no tensor claims */
    MIX_TRUNCATED,   /* a file ends before the bytes that it promises */
    MIX_CORRUPT,     /* bytes that differ from their digest or checksum */
    MIX_MISMATCH,    /* two things that must agree do not */
    MIX_UNSUPPORTED, /* well formed, and beyond what this program does */
    MIX_USAGE,       /* the command line asks for something impossible */
    MIX_EXISTS,      /* a destination that is already there */
    MIX_INTERRUPTED, /* SIGINT or SIGTERM was received */
};

/* The caller's, on its stack; start it as `struct mix_err err = { 0 };`. */
struct mix_err {
    enum mix_rc rc;
    char text[1024];         /* one line, no newline, valid even when cut */
    char file[512];          /* which file, or "" */
    char tensor[512];        /* which tensor, or "" */
    uint64_t begin, end;     /* bytes [begin, end), when has_range */
    bool has_range;
};

/*
 * Set code and words, and return the code: `return mix_fail(err, MIX_IO, ...)`.
 * Forgets what stood there. `err` may be NULL when nobody wants the words.
 */
enum mix_rc mix_fail(struct mix_err *err, enum mix_rc rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with ": " and strerror(errno) behind the words; the code is MIX_IO. */
enum mix_rc mix_fail_errno(struct mix_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * Put "where: " in front of the words that are there, and return their code. Without
 * words (`err` is NULL) the code is lost: these three give MIX_IO then, never MIX_OK.
 */
enum mix_rc mix_err_at(struct mix_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* As mix_err_at(), and note the file for --json, unless one is noted already. */
enum mix_rc mix_err_file(struct mix_err *err, const char *path);

/* Note tensor and bytes for --json; the words should already hold them. */
enum mix_rc mix_err_tensor(struct mix_err *err, const char *name, uint64_t begin,
                           uint64_t end);

/* "no-memory", "io", ...: the `kind` of --json. */
const char *mix_rc_name(enum mix_rc rc);

#endif
