/*
 * bytes.h - little-endian loads and stores, and sums and products that cannot
 * wrap: the only arithmetic that lengths from outside may go through.
 */
#ifndef MIXCKPT_CKPT_BASE_BYTES_H
#define MIXCKPT_CKPT_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIX_ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

static inline uint64_t mix_load_le(const void *from, int bytes)
{
    const unsigned char *p = from;
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)p[i] << 8 * i;
    return value;
}

static inline void mix_store_le(void *to, uint64_t value, int bytes)
{
    unsigned char *p = to;

    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(value >> 8 * i);
}

/* *sum = a + b; false, and *sum untouched, if that does not fit. */
static inline bool mix_add(uint64_t a, uint64_t b, uint64_t *sum)
{
    uint64_t value;

    if (__builtin_add_overflow(a, b, &value))
        return false;
    *sum = value;
    return true;
}

/* *product = a * b; false, and *product untouched, if that does not fit. */
static inline bool mix_mul(uint64_t a, uint64_t b, uint64_t *product)
{
    uint64_t value;

    if (__builtin_mul_overflow(a, b, &value))
        return false;
    *product = value;
    return true;
}

static inline uint64_t mix_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t mix_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* a / b, rounded up; b > 0. */
static inline uint64_t mix_div_up(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

/* The next multiple of `unit` (a power of two), or the value itself. */
static inline uint64_t mix_round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

#endif
