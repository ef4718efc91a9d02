/*
 * hash_engine.h - the engines behind hash.h, for hash.c and the tests.
 *
 * An engine is a list of kernels, widest first. A kernel takes whole 64-byte blocks
 * of several messages at once, one message a lane; it knows nothing of prefixes,
 * padding or lengths, which hash.c adds. So a kernel is the only part that exists
 * once for each CPU.
 */
#ifndef MIXCKPT_CKPT_BASE_HASH_ENGINE_H
#define MIXCKPT_CKPT_BASE_HASH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/hash.h"

/* Kernels for x86-64 are there; MIX_HASH_PORTABLE leaves them out, to test the rest. */
#if defined(__x86_64__) && !defined(MIX_HASH_PORTABLE)
#define MIX_HASH_X86 1
#endif

enum { MIX_SHA256_MAX_LANES = 16, MIX_SHA256_MAX_KERNELS = 4 };

/*
 * For each lane i, continue state[i] with the `blocks` blocks at data[i]. Data need
 * not be aligned, and nothing outside the blocks is read. Lanes may be the same one.
 */
typedef void mix_sha256_kernel(uint32_t *const state[], const unsigned char *const data[],
                               size_t blocks);

struct mix_sha256_engine {
    const char *name;
    bool (*available)(void); /* can this CPU run it? */
    struct {
        mix_sha256_kernel *compress;
        size_t lanes;
        size_t pays_from; /* with fewer messages than this the next kernel is faster */
    } kernel[MIX_SHA256_MAX_KERNELS]; /* the last one has one lane */
};

/* Every engine that was built, best first; the last, "openssl", is always available. */
extern const struct mix_sha256_engine *const mix_sha256_engines[];
extern const size_t mix_sha256_engine_count;

/* mix_sha256_prefixed() with a given engine, which must be available. */
void mix_sha256_prefixed_with(const struct mix_sha256_engine *engine, unsigned char prefix,
                              const struct mix_sha256_job *job, size_t count);

/* K of FIPS 180-4, section 4.2.2; aligned for vector loads. */
extern const uint32_t mix_sha256_constants[64];

mix_sha256_kernel mix_sha256_openssl;
#ifdef MIX_HASH_X86
bool mix_cpu_has_shani(void);
mix_sha256_kernel mix_sha256_shani_x1, mix_sha256_shani_x2, mix_sha256_shani_x4;
mix_sha256_kernel mix_sha256_avx2_x8;
mix_sha256_kernel mix_sha256_avx512_x16;
#endif

/* CRC-64 in the same way: the register (not inverted) before and after `data`. */
uint64_t mix_crc64_table(uint64_t reg, const unsigned char *data, size_t len);
#ifdef MIX_HASH_X86
bool mix_cpu_has_pclmul(void), mix_cpu_has_vpclmul(void);
uint64_t mix_crc64_pclmul(uint64_t reg, const unsigned char *data, size_t len);
uint64_t mix_crc64_vpclmul(uint64_t reg, const unsigned char *data, size_t len);
#endif

#endif
