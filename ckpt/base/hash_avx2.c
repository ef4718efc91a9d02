/* hash_avx2.c - SHA-256 blocks of eight messages at a time with AVX2. */
#include "ckpt/base/hash_engine.h"

#ifdef MIX_HASH_X86

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2")))
#define LANES 8
#define VEC __m256i
#define SET1(x) _mm256_set1_epi32((int)(x))
#define ADD(x, y) _mm256_add_epi32(x, y)
#define XOR3(x, y, z) _mm256_xor_si256(_mm256_xor_si256(x, y), z)
#define SHR(x, n) _mm256_srli_epi32(x, n)
#define ROTR(x, n) _mm256_or_si256(_mm256_srli_epi32(x, n), _mm256_slli_epi32(x, 32 - (n)))
#define CH(x, y, z) _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)))
#define MAJ(x, y, z) \
    _mm256_or_si256(_mm256_and_si256(x, y), _mm256_and_si256(z, _mm256_or_si256(x, y)))

/* Turn eight rows (32 bytes of each message) into columns: w[t] = word t of them all. */
static inline __attribute__((always_inline)) TARGET void load_half(
    __m256i w[8], const unsigned char *const data[], size_t offset)
{
    const __m256i big_endian = _mm256_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203,
                                                 0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m256i r[8], s[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_shuffle_epi8(
            _mm256_loadu_si256((const __m256i *)(data[i] + offset)), big_endian);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) { /* pairs of words */
        s[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { /* four words: r[i + t] holds words t and t + 4 */
        r[i] = _mm256_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) { /* all eight */
        w[t] = _mm256_permute2x128_si256(r[t], r[t + 4], 0x20);
        w[t + 4] = _mm256_permute2x128_si256(r[t], r[t + 4], 0x31);
    }
}

static inline __attribute__((always_inline)) TARGET void load_words(
    __m256i w[16], const unsigned char *const data[], size_t block)
{
    load_half(w, data, 64 * block);
    load_half(w + 8, data, 64 * block + 32);
}

#include "ckpt/base/hash_lanes.h"

TARGET void mix_sha256_avx2_x8(uint32_t *const state[], const unsigned char *const data[],
                               size_t blocks)
{
    compress(state, data, blocks);
}

#endif
