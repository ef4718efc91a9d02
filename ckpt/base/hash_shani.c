/*
 * hash_shani.c - SHA-256 blocks with the SHA instructions of x86, on one, two or four
 * messages at a time.
 *
 * sha256rnds2 takes four cycles and a new one can start every second cycle, but the
 * rounds of one message wait for each other. A second message fills the gap.
 */
#include "ckpt/base/hash_engine.h"

#ifdef MIX_HASH_X86

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("sha,sse4.1")))
#define INLINE static inline __attribute__((always_inline)) TARGET

bool mix_cpu_has_shani(void)
{
    unsigned a, b, c, d;

    /* Leaf 7, EBX bit 29: the name "sha" is unknown to some compilers in use. */
    return __builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           b >> 29 & 1;
}

/* The instructions want the words of the state as ABEF and CDGH. */
INLINE void load_state(const uint32_t *state, __m128i *abef, __m128i *cdgh)
{
    __m128i dcba = _mm_loadu_si128((const __m128i *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
    __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);

    *abef = _mm_alignr_epi8(cdab, efgh, 8);
    *cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
}

INLINE void store_state(uint32_t *state, __m128i abef, __m128i cdgh)
{
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);

    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

INLINE __m128i load_words(const unsigned char *data)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);

    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data), big_endian);
}

/* Rounds 4g to 4g + 3 of one message, whose last 16 schedule words are in w. */
INLINE void four_rounds(int g, __m128i *abef, __m128i *cdgh, __m128i w[4])
{
    const __m128i *k = (const __m128i *)mix_sha256_constants;
    __m128i sum = _mm_add_epi32(w[g & 3], _mm_load_si128(k + g));

    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sum, 0x0e));
    if (g < 12) { /* words 4g + 16 and on take the place of those just used */
        __m128i last = w[(g + 3) & 3];
        __m128i part = _mm_sha256msg1_epu32(w[g & 3], w[(g + 1) & 3]);

        part = _mm_add_epi32(part, _mm_alignr_epi8(last, w[(g + 2) & 3], 4));
        w[g & 3] = _mm_sha256msg2_epu32(part, last);
    }
}

/* `lanes` is a constant in each caller, so the loops over it disappear. */
INLINE void compress(int lanes, uint32_t *const state[], const unsigned char *const data[],
                     size_t blocks)
{
    __m128i abef[4], cdgh[4], w[4][4];

    for (int i = 0; i < lanes; i++)
        load_state(state[i], &abef[i], &cdgh[i]);
    for (size_t block = 0; block < blocks; block++) {
        __m128i abef_before[4], cdgh_before[4];

#pragma GCC unroll 4
        for (int i = 0; i < lanes; i++) {
            abef_before[i] = abef[i];
            cdgh_before[i] = cdgh[i];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                w[i][j] = load_words(data[i] + 64 * block + 16 * j);
        }
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++) {
#pragma GCC unroll 4
            for (int i = 0; i < lanes; i++)
                four_rounds(g, &abef[i], &cdgh[i], w[i]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < lanes; i++) {
            abef[i] = _mm_add_epi32(abef[i], abef_before[i]);
            cdgh[i] = _mm_add_epi32(cdgh[i], cdgh_before[i]);
        }
    }
    for (int i = 0; i < lanes; i++)
        store_state(state[i], abef[i], cdgh[i]);
}

TARGET void mix_sha256_shani_x1(uint32_t *const state[], const unsigned char *const data[],
                                size_t blocks)
{
    compress(1, state, data, blocks);
}

TARGET void mix_sha256_shani_x2(uint32_t *const state[], const unsigned char *const data[],
                                size_t blocks)
{
    compress(2, state, data, blocks);
}

TARGET void mix_sha256_shani_x4(uint32_t *const state[], const unsigned char *const data[],
                                size_t blocks)
{
    compress(4, state, data, blocks);
}

#endif
