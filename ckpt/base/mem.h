/*
 * mem.h - memory for metadata: single objects, growing buffers, and arenas that
 * die with the object whose metadata they hold. Every allocation may fail.
 */
#ifndef MIXCKPT_CKPT_BASE_MEM_H
#define MIXCKPT_CKPT_BASE_MEM_H

#include <stdarg.h>
#include <stddef.h>

#include "ckpt/base/err.h"

/* *out = `bytes` zeroed bytes, the caller's, for free(). `out` is a T **. */
enum mix_rc mix_new(void *out, size_t bytes, struct mix_err *err);

/* The same for `count` elements of `bytes` each; the product may not wrap. */
enum mix_rc mix_new_array(void *out, size_t count, size_t bytes, struct mix_err *err);

/*
 * Make room for one more element in the array *items of *capacity elements that
 * holds `count`: grows by doubling. `items` is a T **, freed with free().
 */
enum mix_rc mix_grow(void *items, size_t *capacity, size_t count, size_t bytes,
                     struct mix_err *err);

/* A growing buffer. `data` is NUL-terminated behind `len` once anything was put. */
struct mix_buf {
    char *data;
    size_t len, capacity;
};
#define MIX_BUF_INIT { 0 }

enum mix_rc mix_buf_reserve(struct mix_buf *buf, size_t more, struct mix_err *err);
enum mix_rc mix_buf_put(struct mix_buf *buf, const void *data, size_t len,
                        struct mix_err *err);
enum mix_rc mix_buf_putf(struct mix_buf *buf, struct mix_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void mix_buf_clear(struct mix_buf *buf); /* keeps the memory */
void mix_buf_release(struct mix_buf *buf);

/* Memory that is handed out in small parts and given back all at once. */
struct mix_arena {
    struct mix_arena_block *block;
};
#define MIX_ARENA_INIT { 0 }

/* Zeroed, aligned for any type; lives until the arena is released. */
enum mix_rc mix_arena_new(struct mix_arena *arena, void *out, size_t bytes,
                          struct mix_err *err);
/* *out = a NUL-terminated copy of `len` bytes. */
enum mix_rc mix_arena_text(struct mix_arena *arena, const char *text, size_t len,
                           const char **out, struct mix_err *err);
void mix_arena_release(struct mix_arena *arena);

#endif
