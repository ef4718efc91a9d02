/* hash_avx512.c - SHA-256 blocks of sixteen messages at a time with AVX-512. */
#include "ckpt/base/hash_engine.h"

#ifdef MIX_HASH_X86

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw")))
#define LANES 16
#define VEC __m512i
#define SET1(x) _mm512_set1_epi32((int)(x))
#define ADD(x, y) _mm512_add_epi32(x, y)
#define SHR(x, n) _mm512_srli_epi32(x, n)
#define ROTR(x, n) _mm512_ror_epi32(x, n)
/* The last number is the truth table of the three inputs. */
#define XOR3(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0x96)
#define CH(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xca)
#define MAJ(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xe8)

/* Turn sixteen rows (a block of each message) into columns: w[t] = word t of them all. */
static inline __attribute__((always_inline)) TARGET void load_words(
    __m512i w[16], const unsigned char *const data[], size_t block)
{
    const __m512i big_endian = _mm512_broadcast_i32x4(
        _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    __m512i r[16], s[16];

#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[i] + 64 * block), big_endian);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) { /* pairs of words */
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* fours: r[i + t] holds words t, t + 4, t + 8, t + 12 */
        r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) { /* a 4 x 4 of quarters, turned in two steps */
        __m512i low01 = _mm512_shuffle_i32x4(r[t], r[t + 4], 0x44);
        __m512i high01 = _mm512_shuffle_i32x4(r[t], r[t + 4], 0xee);
        __m512i low23 = _mm512_shuffle_i32x4(r[t + 8], r[t + 12], 0x44);
        __m512i high23 = _mm512_shuffle_i32x4(r[t + 8], r[t + 12], 0xee);

        w[t] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        w[t + 4] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
        w[t + 8] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        w[t + 12] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
    }
}

#include "ckpt/base/hash_lanes.h"

TARGET void mix_sha256_avx512_x16(uint32_t *const state[], const unsigned char *const data[],
                                  size_t blocks)
{
    compress(state, data, blocks);
}

#endif
