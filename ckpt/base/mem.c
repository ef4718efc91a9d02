/* mem.c - objects, growing buffers, arenas. */
#include "ckpt/base/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"

static enum mix_rc no_memory(struct mix_err *err, uint64_t bytes)
{
    return mix_fail(err, MIX_NO_MEMORY, "out of memory: %llu bytes",
                    (unsigned long long)bytes);
}

enum mix_rc mix_new(void *out, size_t bytes, struct mix_err *err)
{
    void *p = calloc(1, bytes ? bytes : 1);

    *(void **)out = p;
    return p ? MIX_OK : no_memory(err, bytes);
}

enum mix_rc mix_new_array(void *out, size_t count, size_t bytes, struct mix_err *err)
{
    uint64_t total = UINT64_MAX;

    *(void **)out = NULL;
    if (!mix_mul(count, bytes, &total) || total > SIZE_MAX)
        return no_memory(err, total);
    return mix_new(out, (size_t)total, err);
}

enum mix_rc mix_grow(void *items, size_t *capacity, size_t count, size_t bytes,
                     struct mix_err *err)
{
    if (count < *capacity)
        return MIX_OK;

    size_t want = *capacity ? *capacity * 2 : 16;
    void *p = want > SIZE_MAX / 2 / bytes ? NULL : realloc(*(void **)items, want * bytes);

    if (!p)
        return no_memory(err, (uint64_t)want * bytes);
    *(void **)items = p;
    *capacity = want;
    return MIX_OK;
}

enum mix_rc mix_buf_reserve(struct mix_buf *buf, size_t more, struct mix_err *err)
{
    if (more >= SIZE_MAX / 2 - buf->len)
        return no_memory(err, more);

    size_t want = buf->len + more + 1;
    if (want <= buf->capacity)
        return MIX_OK;
    if (want < buf->capacity * 2)
        want = buf->capacity * 2;
    char *p = realloc(buf->data, want);
    if (!p)
        return no_memory(err, want);
    buf->data = p;
    buf->capacity = want;
    return MIX_OK;
}

enum mix_rc mix_buf_put(struct mix_buf *buf, const void *data, size_t len,
                        struct mix_err *err)
{
    enum mix_rc rc = mix_buf_reserve(buf, len, err);

    if (rc)
        return rc;
    if (len)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return MIX_OK;
}

enum mix_rc mix_buf_putf(struct mix_buf *buf, struct mix_err *err, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    enum mix_rc rc;

    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (len < 0)
        return mix_fail(err, MIX_IO, "cannot format '%s'", fmt);
    if ((size_t)len < sizeof text)
        return mix_buf_put(buf, text, (size_t)len, err);

    if ((rc = mix_buf_reserve(buf, (size_t)len, err)))
        return rc;
    va_start(ap, fmt);
    vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, ap);
    va_end(ap);
    buf->len += (size_t)len;
    return MIX_OK;
}

void mix_buf_clear(struct mix_buf *buf)
{
    buf->len = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

void mix_buf_release(struct mix_buf *buf)
{
    free(buf->data);
    *buf = (struct mix_buf)MIX_BUF_INIT;
}

struct mix_arena_block {
    struct mix_arena_block *next;
    size_t used, capacity;
    max_align_t data[];
};

enum mix_rc mix_arena_new(struct mix_arena *arena, void *out, size_t bytes,
                          struct mix_err *err)
{
    /* Small at first, because there may be ten thousand arenas; doubled up to 64 KiB. */
    const size_t least = 1 << 10, most = 64 << 10;
    struct mix_arena_block *block = arena->block;

    *(void **)out = NULL;
    if (bytes > SIZE_MAX / 2)
        return no_memory(err, bytes);
    bytes = mix_round_up(bytes ? bytes : 1, _Alignof(max_align_t));
    if (!block || block->capacity - block->used < bytes) {
        size_t usual = block ? mix_min(mix_max(2 * block->capacity, least), most) : least;
        size_t capacity = bytes > usual ? bytes : usual;
        enum mix_rc rc = mix_new(&block, sizeof *block + capacity, err);

        if (rc)
            return rc;
        block->capacity = capacity;
        block->next = arena->block;
        arena->block = block;
    }
    *(void **)out = (char *)block->data + block->used;
    block->used += bytes;
    return MIX_OK;
}

enum mix_rc mix_arena_text(struct mix_arena *arena, const char *text, size_t len,
                           const char **out, struct mix_err *err)
{
    char *copy;
    enum mix_rc rc = mix_arena_new(arena, &copy, len + 1, err);

    *out = copy;
    if (!rc)
        memcpy(copy, text, len);
    return rc;
}

void mix_arena_release(struct mix_arena *arena)
{
    for (struct mix_arena_block *block = arena->block, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    arena->block = NULL;
}
