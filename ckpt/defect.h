/*
 * defect.h - what is wrong with a checkpoint, as a list: for `verify`, which goes on
 * after the first. The list keeps the first 10,000 and counts the rest, so that a
 * checkpoint of two terabytes that is wrong everywhere still fits in memory.
 */
#ifndef MIXCKPT_CKPT_DEFECT_H
#define MIXCKPT_CKPT_DEFECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

struct mix_defect {
    const char *kind;    /* "corrupt", "missing", ...: the contract's list */
    const char *file;    /* relative to the checkpoint, or "" */
    const char *tensor;  /* or "" */
    uint64_t begin, end; /* bytes of the tensor; both 0 if no range applies */
    const char *message;
};

struct mix_defects {
    pthread_mutex_t lock;
    struct mix_arena arena;
    struct mix_defect *defect;
    size_t count, capacity;
    uint64_t left_out; /* beyond the first 10,000 */
};

void mix_defects_init(struct mix_defects *list);
void mix_defects_release(struct mix_defects *list);

/* Copies all texts. NULL counts as "". May be called by several threads. */
enum mix_rc mix_defects_add(struct mix_defects *list, const char *kind, const char *file,
                            const char *tensor, uint64_t begin, uint64_t end,
                            struct mix_err *err, const char *fmt, ...)
    __attribute__((format(printf, 8, 9)));

/*
 * Turn a failure into a defect, if it is one: MIX_NOT_FOUND is "missing", MIX_TRUNCATED
 * "truncated", MIX_BAD_FORMAT "bad-format", and so on. What is no fault of the
 * checkpoint (I/O, memory, a signal, an unsupported feature) is given back as it is.
 */
enum mix_rc mix_defects_take(struct mix_defects *list, const char *file, enum mix_rc rc,
                             struct mix_err *err);

/* Sort by file, tensor, bytes: the same list whichever thread came first. */
void mix_defects_sort(struct mix_defects *list);

/* A list of one-line texts: warnings. */
struct mix_texts {
    pthread_mutex_t lock;
    char **text;
    size_t count, capacity;
};
void mix_texts_init(struct mix_texts *list);
void mix_texts_release(struct mix_texts *list);
enum mix_rc mix_texts_add(struct mix_texts *list, struct mix_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
