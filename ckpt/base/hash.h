/*
 * hash.h - SHA-256 (with several messages at a time where the CPU allows it) and
 * CRC-64/NVME, with the arithmetic to join checksums of neighbouring ranges.
 */
#ifndef MIXCKPT_CKPT_BASE_HASH_H
#define MIXCKPT_CKPT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"

enum { MIX_SHA256_BYTES = 32, MIX_SHA256_HEX = 65 /* with NUL */ };

/* SHA-256 of one message held in memory. */
void mix_sha256(const void *data, size_t len, unsigned char out[32]);

/* SHA-256 of a message that comes in parts. */
struct mix_sha256 {
    uint32_t state[8];
    uint64_t len;
    unsigned char block[64];
};
void mix_sha256_init(struct mix_sha256 *sha);
void mix_sha256_put(struct mix_sha256 *sha, const void *data, size_t len);
void mix_sha256_end(struct mix_sha256 *sha, unsigned char out[32]);

/*
 * Many independent messages: out[i] = SHA-256(prefix byte || data[i]), which is
 * what Merkle tree leaves (prefix 0x00) are. The messages may differ in length and
 * lie anywhere. Fastest when given MIX_SHA256_BATCH, or a multiple, of equal length;
 * four at a time take half as long again.
 */
enum { MIX_SHA256_BATCH = 16 }; /* as many as the widest engine takes at once */
struct mix_sha256_job {
    const void *data;
    size_t len;
    unsigned char *out; /* 32 bytes */
};
void mix_sha256_prefixed(unsigned char prefix, const struct mix_sha256_job *job, size_t count);

/* SHA-256(0x01 || left || right): an inner node of the tree. `out` may be one of them. */
void mix_sha256_node(const unsigned char left[32], const unsigned char right[32],
                     unsigned char out[32]);

/* "sha-ni x4", "avx2 x8", "openssl", ...: what mix_sha256_prefixed() uses here. */
const char *mix_sha256_engine(void);

void mix_hex(const unsigned char *bytes, size_t len, char *out /* 2 len + 1 */);
/* Exactly `len` bytes from 2 * len lower-case hex digits; false if it is not that. */
int mix_unhex(const char *text, unsigned char *out, size_t len);

/*
 * CRC-64/NVME (polynomial 0xad93d23594c93659 reflected, init and xorout all ones;
 * "123456789" gives ae8b14860a799888). Start with 0, feed the result back in.
 */
uint64_t mix_crc64(uint64_t crc, const void *data, size_t len);
/* The CRC of a || b, from the CRC of a, the CRC of b, and the length of b. */
uint64_t mix_crc64_join(uint64_t crc_a, uint64_t crc_b, uint64_t len_b);
/* The CRC of `len` zero bytes behind what `crc` covers, without touching them. */
uint64_t mix_crc64_zeros(uint64_t crc, uint64_t len);

#endif
