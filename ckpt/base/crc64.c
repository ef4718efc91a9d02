/*
 * crc64.c - CRC-64/NVME by table, the choice of the fastest way here, and the
 * arithmetic to join checksums.
 *
 * Bits are reflected: bit 63 of a word is the coefficient of x^0. The register after
 * a message is (ones x^n + message) x^64 mod P, and the checksum is its inverse; so
 * everything that is done to a register by bytes behind it is a product with x^(8 n).
 */
#include <pthread.h>
#include <stdatomic.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/hash_engine.h"

static const uint64_t polynomial = 0x9a6c9329ac4bc9b5; /* 0xad93d23594c93659 reflected */

static uint64_t slice[8][256]; /* slice[i][b]: byte b, and i zero bytes behind it */
static uint64_t power[64];     /* power[k] = x^(8 2^k) mod P */

static uint64_t times_x(uint64_t a)
{
    return a >> 1 ^ (polynomial & -(a & 1)); /* a branch here would be a coin toss */
}

static uint64_t product(uint64_t a, uint64_t b)
{
    uint64_t sum = 0;

    for (int i = 63; i >= 0; i--) { /* the term x^(63 - i) of a */
        sum ^= b & -(a >> i & 1);
        b = times_x(b);
    }
    return sum;
}

static void make_tables(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        slice[0][byte] = byte;
        for (int bit = 0; bit < 8; bit++)
            slice[0][byte] = times_x(slice[0][byte]);
    }
    for (int i = 1; i < 8; i++)
        for (unsigned byte = 0; byte < 256; byte++)
            slice[i][byte] = slice[i - 1][byte] >> 8 ^ slice[0][slice[i - 1][byte] & 0xff];

    power[0] = 1ull << (63 - 8);
    for (int k = 1; k < 64; k++)
        power[k] = product(power[k - 1], power[k - 1]);
}

static void need_tables(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_tables); /* fails for a bad `once` only */
}

uint64_t mix_crc64_table(uint64_t reg, const unsigned char *data, size_t len)
{
    need_tables();
    for (; len >= 8; data += 8, len -= 8) {
        uint64_t word = reg ^ mix_load_le(data, 8);

        reg = 0;
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            reg ^= slice[7 - i][word >> 8 * i & 0xff];
    }
    for (; len; data++, len--)
        reg = reg >> 8 ^ slice[0][(reg ^ *data) & 0xff];
    return reg;
}

typedef uint64_t crc64_function(uint64_t reg, const unsigned char *data, size_t len);

/* The fastest way here. Threads that look for it together find the same one. */
static crc64_function *best_function(void)
{
    static crc64_function *_Atomic found;
    crc64_function *function = atomic_load_explicit(&found, memory_order_relaxed);

    if (!function) {
        function = mix_crc64_table;
#ifdef MIX_HASH_X86
        if (mix_cpu_has_vpclmul())
            function = mix_crc64_vpclmul;
        else if (mix_cpu_has_pclmul())
            function = mix_crc64_pclmul;
#endif
        atomic_store_explicit(&found, function, memory_order_relaxed);
    }
    return function;
}

uint64_t mix_crc64(uint64_t crc, const void *data, size_t len)
{
    return ~best_function()(~crc, data, len);
}

/* a x^(8 len) mod P: a product for each bit that is set in len. */
static uint64_t shift_bytes(uint64_t a, uint64_t len)
{
    need_tables();
    for (int k = 0; len; k++, len >>= 1)
        if (len & 1)
            a = product(power[k], a);
    return a;
}

/* The ones that both checksums start and end with cancel each other, as in zlib. */
uint64_t mix_crc64_join(uint64_t crc_a, uint64_t crc_b, uint64_t len_b)
{
    return shift_bytes(crc_a, len_b) ^ crc_b;
}

uint64_t mix_crc64_zeros(uint64_t crc, uint64_t len)
{
    return ~shift_bytes(~crc, len);
}
