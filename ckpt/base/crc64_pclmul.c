/*
 * crc64_pclmul.c - CRC-64/NVME by folding, with carry-less products of 128 bits, or
 * of four times 128 bits where the CPU has them.
 *
 * Sixteen bytes of the message are H x^64 + L, with H in the low half of the vector,
 * as bits are reflected. Moved D bits on, they are worth
 *
 *   H x^64 x^D + L x^D  =  H (x^(D + 64) mod P) + L (x^D mod P)     modulo P,
 *
 * which has 128 bits again and is added to the bytes that stand there. A product of
 * reflected numbers comes out multiplied by x, so the constants have one x less. What
 * is left is a short message with the same checksum, which the table finishes.
 */
#include "ckpt/base/hash_engine.h"

#ifdef MIX_HASH_X86

#include <immintrin.h>

#define TARGET __attribute__((target("pclmul,sse4.1")))
#define WIDE_TARGET __attribute__((target("vpclmulqdq,avx512f")))

/* x^(D + 63) and x^(D - 1) mod P, reflected. */
#define BY_128 0xeadc41fd2ba3d420, 0x21e9761e252621ac
#define BY_1024 0xa1ca681e733f9c40, 0x5f852fb61e8d92dc
#define BY_2048 0x37ccd3e14069cabc, 0xa043808c0f782663

bool mix_cpu_has_pclmul(void)
{
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

bool mix_cpu_has_vpclmul(void)
{
    return mix_cpu_has_pclmul() && __builtin_cpu_supports("vpclmulqdq") &&
           __builtin_cpu_supports("avx512f");
}

static inline TARGET __m128i constants(uint64_t high_power, uint64_t low_power)
{
    return _mm_set_epi64x((long long)low_power, (long long)high_power);
}

static inline TARGET __m128i fold(__m128i sum, __m128i by, __m128i there)
{
    return _mm_xor_si128(there, _mm_xor_si128(_mm_clmulepi64_si128(sum, by, 0x00),
                                              _mm_clmulepi64_si128(sum, by, 0x11)));
}

static inline TARGET __m128i load(const unsigned char *data)
{
    return _mm_loadu_si128((const __m128i *)data);
}

/* Fold the 128 bytes at *data, and all that follow in whole 128s, into 16. */
static TARGET __m128i fold_by_eight(uint64_t reg, const unsigned char **data, size_t *len)
{
    const __m128i by_1024 = constants(BY_1024), by_128 = constants(BY_128);
    __m128i sum[8]; /* eight, as a product takes about seven cycles */

    for (int i = 0; i < 8; i++)
        sum[i] = load(*data + 16 * i);
    sum[0] = _mm_xor_si128(sum[0], _mm_cvtsi64_si128((long long)reg));
    for (*data += 128, *len -= 128; *len >= 128; *data += 128, *len -= 128) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            sum[i] = fold(sum[i], by_1024, load(*data + 16 * i));
    }
    for (int i = 1; i < 8; i++)
        sum[0] = fold(sum[0], by_128, sum[i]);
    return sum[0];
}

TARGET uint64_t mix_crc64_pclmul(uint64_t reg, const unsigned char *data, size_t len)
{
    unsigned char left[16];
    __m128i sum;

    if (len < 16)
        return mix_crc64_table(reg, data, len);
    if (len >= 128) {
        sum = fold_by_eight(reg, &data, &len);
    } else {
        sum = _mm_xor_si128(load(data), _mm_cvtsi64_si128((long long)reg));
        data += 16;
        len -= 16;
    }
    for (; len >= 16; data += 16, len -= 16)
        sum = fold(sum, constants(BY_128), load(data));
    _mm_storeu_si128((__m128i *)left, sum);
    return mix_crc64_table(mix_crc64_table(0, left, 16), data, len);
}

static inline WIDE_TARGET __m512i fold_wide(__m512i sum, __m512i by, __m512i there)
{
    /* 0x96: the exclusive or of all three */
    return _mm512_ternarylogic_epi64(there, _mm512_clmulepi64_epi128(sum, by, 0x00),
                                     _mm512_clmulepi64_epi128(sum, by, 0x11), 0x96);
}

WIDE_TARGET uint64_t mix_crc64_vpclmul(uint64_t reg, const unsigned char *data, size_t len)
{
    const __m512i by_2048 = _mm512_broadcast_i32x4(constants(BY_2048));
    unsigned char left[256];
    __m512i sum[4];

    if (len < 512)
        return mix_crc64_pclmul(reg, data, len);
    for (int i = 0; i < 4; i++)
        sum[i] = _mm512_loadu_si512(data + 64 * i);
    sum[0] = _mm512_xor_si512(
        sum[0], _mm512_zextsi128_si512(_mm_cvtsi64_si128((long long)reg)));
    for (data += 256, len -= 256; len >= 256; data += 256, len -= 256) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            sum[i] = fold_wide(sum[i], by_2048, _mm512_loadu_si512(data + 64 * i));
    }
    for (int i = 0; i < 4; i++)
        _mm512_storeu_si512(left + 64 * i, sum[i]);
    return mix_crc64_pclmul(mix_crc64_pclmul(0, left, sizeof left), data, len);
}

#endif
