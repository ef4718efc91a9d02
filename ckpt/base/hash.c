/*
 * hash.c - SHA-256: which engine runs, and everything about a message but its blocks.
 *
 * A message prefix || data || padding is at most three runs of whole blocks:
 *
 *   data:        0         63                        63 + 64 b      len
 *                +---------+--------------------------+--------------+
 *   blocks:  [p|   head    ][   b blocks, in place    ][ rest|80 0.. len ]
 *             own memory      read where they lie       one or two, own memory
 *
 * The prefix shifts the data by one byte against the blocks, so blocks in place begin
 * at data + 63 and are not aligned; nothing is read outside of the data.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_*: no allocation, no look-up for each call */
#include "ckpt/base/hash.h"

#include <stdatomic.h>
#include <string.h>

#include <openssl/sha.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/hash_engine.h"

const uint32_t mix_sha256_constants[64] __attribute__((aligned(64))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint32_t initial_state[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/*
 * The portable kernel. A context in the middle of a message, with nothing buffered,
 * is only its state; so OpenSSL can be made to take blocks from any state.
 */
void mix_sha256_openssl(uint32_t *const state[], const unsigned char *const data[],
                        size_t blocks)
{
    SHA256_CTX ctx = { .md_len = SHA256_DIGEST_LENGTH };

    for (int i = 0; i < 8; i++)
        ctx.h[i] = state[0][i];
    SHA256_Update(&ctx, data[0], 64 * blocks);
    for (int i = 0; i < 8; i++)
        state[0][i] = ctx.h[i];
}

static bool always(void)
{
    return true;
}

static const struct mix_sha256_engine openssl_engine = {
    "openssl", always, { { mix_sha256_openssl, 1, 1 } },
};

#ifdef MIX_HASH_X86
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

static bool has_avx512_and_shani(void)
{
    return has_avx512() && mix_cpu_has_shani();
}

/*
 * Where the narrower kernel stops being faster was measured on leaves of 64 KiB: the
 * time of a wide kernel is the same however few of its lanes are in use.
 */
static const struct mix_sha256_engine avx512_shani_engine = {
    "avx512 x16, sha-ni x4", has_avx512_and_shani,
    { { mix_sha256_avx512_x16, 16, 11 }, { mix_sha256_shani_x4, 4, 4 },
      { mix_sha256_shani_x2, 2, 2 }, { mix_sha256_shani_x1, 1, 1 } },
};

static const struct mix_sha256_engine shani_engine = {
    "sha-ni x4", mix_cpu_has_shani,
    { { mix_sha256_shani_x4, 4, 4 }, { mix_sha256_shani_x2, 2, 2 },
      { mix_sha256_shani_x1, 1, 1 } },
};

static const struct mix_sha256_engine avx512_engine = {
    "avx512 x16", has_avx512,
    { { mix_sha256_avx512_x16, 16, 3 }, { mix_sha256_openssl, 1, 1 } },
};

static const struct mix_sha256_engine avx2_engine = {
    "avx2 x8", has_avx2, { { mix_sha256_avx2_x8, 8, 3 }, { mix_sha256_openssl, 1, 1 } },
};
#endif

const struct mix_sha256_engine *const mix_sha256_engines[] = {
#ifdef MIX_HASH_X86
    &avx512_shani_engine, &shani_engine, &avx512_engine, &avx2_engine,
#endif
    &openssl_engine,
};
const size_t mix_sha256_engine_count = MIX_ARRAY_LEN(mix_sha256_engines);

/* The best engine here. Threads that look for it together find the same one. */
static const struct mix_sha256_engine *best_engine(void)
{
    static const struct mix_sha256_engine *_Atomic found;
    const struct mix_sha256_engine *engine =
        atomic_load_explicit(&found, memory_order_relaxed);

    if (!engine) {
        size_t i = 0;

        while (!mix_sha256_engines[i]->available())
            i++;
        engine = mix_sha256_engines[i];
        atomic_store_explicit(&found, engine, memory_order_relaxed);
    }
    return engine;
}

const char *mix_sha256_engine(void)
{
    return best_engine()->name;
}

/* One message, with the narrowest kernel of the best engine. */
static void compress_one(uint32_t state[8], const unsigned char *data, size_t blocks)
{
    const struct mix_sha256_engine *engine = best_engine();
    size_t last = 0;

    while (engine->kernel[last].lanes > 1)
        last++;
    engine->kernel[last].compress(&state, &data, blocks);
}

static void store_be32(unsigned char *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (unsigned char)(value >> (24 - 8 * i));
}

static void store_digest(const uint32_t state[8], unsigned char out[32])
{
    for (int i = 0; i < 8; i++)
        store_be32(out + 4 * i, state[i]);
}

/*
 * Pad the last `used` < 64 bytes of a message of `len` bytes, which stand in `block`,
 * which has room for two blocks. Returns how many there are now.
 */
static size_t pad(unsigned char block[128], size_t used, uint64_t len)
{
    size_t blocks = used + 1 + 8 > 64 ? 2 : 1; /* the byte 0x80, and the length in bits */

    block[used] = 0x80;
    memset(block + used + 1, 0, 64 * blocks - 8 - used - 1);
    store_be32(block + 64 * blocks - 8, (uint32_t)(len >> 29));
    store_be32(block + 64 * blocks - 4, (uint32_t)(len << 3));
    return blocks;
}

void mix_sha256_init(struct mix_sha256 *sha)
{
    memcpy(sha->state, initial_state, sizeof sha->state);
    sha->len = 0;
}

void mix_sha256_put(struct mix_sha256 *sha, const void *data, size_t len)
{
    const unsigned char *p = data;
    size_t used = sha->len % 64;

    if (!len)
        return; /* `data` may be NULL */
    sha->len += len;
    if (used) {
        size_t part = len < 64 - used ? len : 64 - used;

        memcpy(sha->block + used, p, part);
        if (used + part < 64)
            return;
        compress_one(sha->state, sha->block, 1);
        p += part;
        len -= part;
    }
    if (len / 64)
        compress_one(sha->state, p, len / 64);
    memcpy(sha->block, p + len / 64 * 64, len % 64);
}

void mix_sha256_end(struct mix_sha256 *sha, unsigned char out[32])
{
    unsigned char last[128];
    size_t used = sha->len % 64;

    memcpy(last, sha->block, used);
    compress_one(sha->state, last, pad(last, used, sha->len));
    store_digest(sha->state, out);
}

void mix_sha256(const void *data, size_t len, unsigned char out[32])
{
    struct mix_sha256 sha;

    mix_sha256_init(&sha);
    mix_sha256_put(&sha, data, len);
    mix_sha256_end(&sha, out);
}

void mix_sha256_node(const unsigned char left[32], const unsigned char right[32],
                     unsigned char out[32])
{
    unsigned char block[1 + 32 + 32 + 63]; /* two blocks */
    uint32_t state[8];

    block[0] = 0x01;
    memcpy(block + 1, left, 32);
    memcpy(block + 33, right, 32);
    block[65] = 0x80;
    memset(block + 66, 0, 60);
    block[126] = 65 * 8 >> 8;
    block[127] = 65 * 8 & 0xff;
    memcpy(state, initial_state, sizeof state);
    compress_one(state, block, 2);
    store_digest(state, out);
}

/* A message on its way: what it has become, and the runs of blocks still to do. */
struct message {
    uint32_t state[8];
    unsigned char *out;
    struct {
        const unsigned char *data;
        size_t blocks;
    } run[3]; /* done from the last to the first: run[runs - 1] is next */
    size_t runs;
    unsigned char head[64], tail[128];
};

static void push_run(struct message *m, const unsigned char *data, size_t blocks)
{
    m->run[m->runs].data = data;
    m->run[m->runs++].blocks = blocks;
}

static void begin_message(struct message *m, unsigned char prefix,
                          const struct mix_sha256_job *job)
{
    const unsigned char *data = job->data;
    size_t head = job->len < 63 ? 0 : 63; /* bytes of data in the head, if there is one */
    size_t blocks = (job->len - head) / 64, rest = (job->len - head) % 64;
    size_t used = 0;

    memcpy(m->state, initial_state, sizeof m->state);
    m->out = job->out;
    m->runs = 0;
    if (!head)
        m->tail[used++] = prefix;
    if (rest)
        memcpy(m->tail + used, data + job->len - rest, rest);
    push_run(m, m->tail, pad(m->tail, used + rest, (uint64_t)job->len + 1));
    if (blocks)
        push_run(m, data + head, blocks);
    if (head) {
        m->head[0] = prefix;
        memcpy(m->head + 1, data, 63);
        push_run(m, m->head, 1);
    }
}

/* Take `blocks` blocks of up to as many messages as the engine's widest kernel. */
static void compress_messages(const struct mix_sha256_engine *engine, struct message *m[],
                              size_t count, size_t blocks)
{
    for (size_t at = 0, k = 0; at < count; at += engine->kernel[k].lanes) {
        uint32_t *state[MIX_SHA256_MAX_LANES];
        const unsigned char *data[MIX_SHA256_MAX_LANES];

        while (count - at < engine->kernel[k].pays_from)
            k++;
        for (size_t i = 0; i < engine->kernel[k].lanes; i++) {
            struct message *mine = m[at + i < count ? at + i : at]; /* idle lanes repeat one */

            state[i] = mine->state;
            data[i] = mine->run[mine->runs - 1].data;
        }
        engine->kernel[k].compress(state, data, blocks);
    }
}

/* The blocks that all messages can take before one of them has to change its run. */
static size_t common_blocks(struct message *const m[], size_t count)
{
    size_t blocks = SIZE_MAX;

    for (size_t i = 0; i < count; i++)
        blocks = mix_min(blocks, m[i]->run[m[i]->runs - 1].blocks);
    return blocks;
}

/* Move on by `blocks`; true if the message is done, and its hash written. */
static bool advance(struct message *m, size_t blocks)
{
    m->run[m->runs - 1].data += 64 * blocks;
    m->run[m->runs - 1].blocks -= blocks;
    if (!m->run[m->runs - 1].blocks)
        m->runs--;
    if (!m->runs)
        store_digest(m->state, m->out);
    return !m->runs;
}

void mix_sha256_prefixed_with(const struct mix_sha256_engine *engine, unsigned char prefix,
                              const struct mix_sha256_job *job, size_t count)
{
    struct message memory[MIX_SHA256_MAX_LANES], *m[MIX_SHA256_MAX_LANES];
    size_t lanes = engine->kernel[0].lanes, busy = 0, next = 0;

    for (size_t i = 0; i < lanes; i++)
        m[i] = &memory[i];
    for (;;) {
        while (busy < lanes && next < count)
            begin_message(m[busy++], prefix, &job[next++]);
        if (!busy)
            return;

        size_t blocks = common_blocks(m, busy);

        compress_messages(engine, m, busy, blocks);
        for (size_t i = busy; i-- > 0;) {
            if (advance(m[i], blocks)) { /* busy ones stand first */
                struct message *done = m[i];

                m[i] = m[--busy];
                m[busy] = done;
            }
        }
    }
}

void mix_sha256_prefixed(unsigned char prefix, const struct mix_sha256_job *job, size_t count)
{
    mix_sha256_prefixed_with(best_engine(), prefix, job, count);
}

void mix_hex(const unsigned char *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++) {
        *out++ = "0123456789abcdef"[bytes[i] >> 4];
        *out++ = "0123456789abcdef"[bytes[i] & 15];
    }
    *out = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int mix_unhex(const char *text, unsigned char *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]); /* never read behind a NUL */

        if (low < 0)
            return 0;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return 1;
}
