/*
 * hash_lanes.h - SHA-256 blocks on LANES messages at a time, one in each 32-bit lane
 * of a vector: the body that hash_avx2.c and hash_avx512.c share. Included once by
 * each, after it has defined
 *
 *   LANES, VEC                   how many lanes, and the vector that holds them
 *   ADD XOR3 ROTR SHR CH MAJ     on vectors; ROTR and SHR by a constant
 *   load_words(w, data, block)   w[t] = word t of that block of every message
 *   SET1(x)                      x in every lane
 *   TARGET                       the attribute that lets the compiler use all this
 */
#ifndef LANES
#error "define the vectors first: see the top of this file"
#endif

#define INLINE static inline __attribute__((always_inline)) TARGET

/* The functions of FIPS 180-4, section 4.1.2. */
#define BIG_SIGMA0(x) XOR3(ROTR(x, 2), ROTR(x, 13), ROTR(x, 22))
#define BIG_SIGMA1(x) XOR3(ROTR(x, 6), ROTR(x, 11), ROTR(x, 25))
#define SMALL_SIGMA0(x) XOR3(ROTR(x, 7), ROTR(x, 18), SHR(x, 3))
#define SMALL_SIGMA1(x) XOR3(ROTR(x, 17), ROTR(x, 19), SHR(x, 10))

/*
 * Round t. Instead of moving the eight variables on, v[] is read as rotated by t
 * places; after 16 rounds, a multiple of eight, it is in order again.
 */
INLINE void one_round(int t, VEC v[8], VEC word, uint32_t constant)
{
    VEC a = v[-t & 7], b = v[(1 - t) & 7], c = v[(2 - t) & 7];
    VEC e = v[(4 - t) & 7], f = v[(5 - t) & 7], g = v[(6 - t) & 7], h = v[(7 - t) & 7];
    VEC sum = ADD(ADD(h, ADD(word, SET1(constant))), ADD(CH(e, f, g), BIG_SIGMA1(e)));

    v[(3 - t) & 7] = ADD(v[(3 - t) & 7], sum);
    v[(7 - t) & 7] = ADD(sum, ADD(MAJ(a, b, c), BIG_SIGMA0(a)));
}

INLINE void sixteen_rounds(int from, VEC v[8], VEC w[16])
{
#pragma GCC unroll 16
    for (int t = 0; t < 16; t++) {
        if (from)
            w[t] = ADD(ADD(w[t], SMALL_SIGMA0(w[(t + 1) & 15])),
                       ADD(w[(t + 9) & 15], SMALL_SIGMA1(w[(t + 14) & 15])));
        one_round(t, v, w[t], mix_sha256_constants[from + t]);
    }
}

INLINE void compress(uint32_t *const state[], const unsigned char *const data[], size_t blocks)
{
    uint32_t turned[8][LANES] __attribute__((aligned(64)));
    VEC v[8], before[8], w[16];

    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 8; i++)
            turned[i][lane] = state[lane][i];
    memcpy(v, turned, sizeof v);
    for (size_t block = 0; block < blocks; block++) {
        memcpy(before, v, sizeof v);
        load_words(w, data, block);
        sixteen_rounds(0, v, w);
        for (int from = 16; from < 64; from += 16)
            sixteen_rounds(from, v, w);
        for (int i = 0; i < 8; i++)
            v[i] = ADD(v[i], before[i]);
    }
    memcpy(turned, v, sizeof v);
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 8; i++)
            state[lane][i] = turned[i][lane];
}
