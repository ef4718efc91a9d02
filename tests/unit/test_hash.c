/*
 * SHA-256 and CRC-64/NVME. SHA-256 is checked against published vectors and, engine
 * by engine, against OpenSSL's one-shot function; the CRC against one bit at a time.
 */
#include "ckpt/base/hash.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "ckpt/base/hash_engine.h"
#include "tests/support/test.h"

enum { LEAF = 65536, MANY = 301, BYTES = LEAF + 4096 };

/* Numbers that look random and are the same in each run (splitmix64). */
static uint64_t seed;

static uint64_t random_number(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static unsigned char *random_bytes(size_t len)
{
    unsigned char *data = malloc(len);

    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)random_number();
    return data;
}

static void assert_digest(const unsigned char digest[32], const char *hex)
{
    char text[MIX_SHA256_HEX];

    mix_hex(digest, 32, text);
    assert_string_equal(text, hex);
}

/* What mix_sha256_prefixed() must give for one message. */
static void expected_hash(unsigned char prefix, const void *data, size_t len,
                          unsigned char out[32])
{
    unsigned char *message = malloc(len + 1);

    assert_non_null(message);
    message[0] = prefix;
    if (len)
        memcpy(message + 1, data, len);
    SHA256(message, len + 1, out);
    free(message);
}

/* Do all jobs in one call, and compare each with OpenSSL. */
static void check_jobs(const struct mix_sha256_engine *engine, unsigned char prefix,
                       struct mix_sha256_job *job, size_t count)
{
    unsigned char *out = calloc(count + 1, 32), expected[32];

    assert_non_null(out);
    for (size_t i = 0; i < count; i++)
        job[i].out = out + 32 * i;
    mix_sha256_prefixed_with(engine, prefix, job, count);
    for (size_t i = 0; i < count; i++) {
        expected_hash(prefix, job[i].data, job[i].len, expected);
        if (memcmp(expected, job[i].out, 32))
            fail_msg("%s: job %zu of %zu, %zu bytes, prefix %02x: wrong hash", engine->name,
                     i, count, job[i].len, prefix);
    }
    memset(expected, 0, 32);
    assert_memory_equal(out + 32 * count, expected, 32); /* nothing behind the last */
    free(out);
}

/* Run `check` with each engine that this CPU has, and name those that it lacks. */
static void each_engine(void (*check)(const struct mix_sha256_engine *engine))
{
    for (size_t i = 0; i < mix_sha256_engine_count; i++) {
        if (mix_sha256_engines[i]->available())
            check(mix_sha256_engines[i]);
        else
            print_message("SKIPPED: this CPU has no %s\n", mix_sha256_engines[i]->name);
    }
}

static const struct {
    const char *message, *hex;
} published[] = { /* NIST's examples for SHA-256 */
    { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
    { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
    { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
      "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
      "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
};

static void test_hash__gives_the_published_digests(void **state)
{
    struct mix_sha256 sha;
    unsigned char digest[32];

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(published); i++) {
        mix_sha256(published[i].message, strlen(published[i].message), digest);
        assert_digest(digest, published[i].hex);
    }
    mix_sha256_init(&sha);
    for (int i = 0; i < 100000; i++)
        mix_sha256_put(&sha, "aaaaaaaaaa", 10);
    mix_sha256_end(&sha, digest);
    assert_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void check_published(const struct mix_sha256_engine *engine)
{
    for (size_t i = 1; i < MIX_ARRAY_LEN(published); i++) { /* the first has no first byte */
        const char *message = published[i].message;
        unsigned char digest[32];
        struct mix_sha256_job job = { message + 1, strlen(message) - 1, digest };

        mix_sha256_prefixed_with(engine, (unsigned char)message[0], &job, 1);
        assert_digest(digest, published[i].hex);
    }
}

static void test_hash__each_engine_gives_the_published_digests(void **state)
{
    (void)state;
    each_engine(check_published);
}

/* All lengths up to MANY at once: no two messages of a call are alike. */
static void check_short_messages(const struct mix_sha256_engine *engine)
{
    unsigned char *data = random_bytes(BYTES);
    struct mix_sha256_job job[MANY];

    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < MANY; i++) {
            size_t len = turn ? MANY - 1 - i : i;

            job[i] = (struct mix_sha256_job){ len ? data + i % 67 : NULL, len, NULL };
        }
        check_jobs(engine, turn ? 0x01 : 0x00, job, MANY);
    }
    for (size_t len = 0; len < MANY; len++) { /* alone, and in full and nearly full lanes */
        static const size_t counts[] = { 1, 2, 4, 15, 16, 17 };
        size_t count = counts[len % MIX_ARRAY_LEN(counts)];

        for (size_t i = 0; i < count; i++)
            job[i] = (struct mix_sha256_job){ data + 61 * i + len % 5, len, NULL };
        check_jobs(engine, 0xff, job, count);
    }
    free(data);
}

static void test_hash__engines_agree_with_openssl_on_short_messages(void **state)
{
    (void)state;
    each_engine(check_short_messages);
}

/* Lengths around whole blocks and whole leaves, in batches of each size up to 17. */
static void check_batches(const struct mix_sha256_engine *engine)
{
    static const size_t around[] = { 0, 64, 128, 4096, LEAF / 2, LEAF };
    unsigned char *data = random_bytes(BYTES);
    struct mix_sha256_job job[2 * MIX_SHA256_MAX_LANES];

    for (size_t count = 0; count <= 17; count++) {
        for (size_t i = 0; i < count; i++) { /* leaves of equal length, each elsewhere */
            size_t offset = 63 * i + count;

            job[i] = (struct mix_sha256_job){ data + offset, LEAF + count % 3 - 1, NULL };
        }
        check_jobs(engine, 0x00, job, count);
        for (size_t i = 0; i < count; i++) {
            size_t base = around[random_number() % MIX_ARRAY_LEN(around)];
            size_t len = base + random_number() % 5;

            len = len < 2 ? 0 : len - 2;
            job[i] = (struct mix_sha256_job){ data + random_number() % 1024, len, NULL };
        }
        check_jobs(engine, 0x00, job, count);
    }
    free(data);
}

static void test_hash__engines_agree_with_openssl_in_batches(void **state)
{
    (void)state;
    each_engine(check_batches);
}

/* `bytes` of memory, whole pages, with a page before and behind that may not be touched. */
static unsigned char *fenced_memory(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *memory = mmap(NULL, bytes + 2 * page, PROT_NONE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(memory, MAP_FAILED);
    assert_int_equal(mprotect(memory + page, bytes, PROT_READ | PROT_WRITE), 0);
    for (size_t i = 0; i < bytes; i++)
        memory[page + i] = (unsigned char)random_number();
    return memory + page;
}

static void free_fenced_memory(unsigned char *memory, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    assert_int_equal(munmap(memory - page, bytes + 2 * page), 0);
}

static void check_fences(const struct mix_sha256_engine *engine)
{
    unsigned char *data = fenced_memory(LEAF);
    struct mix_sha256_job job[MIX_SHA256_MAX_LANES];

    for (size_t len = 0; len <= LEAF; len += len < MANY ? 1 : LEAF - MANY) {
        for (size_t i = 0; i < MIX_SHA256_MAX_LANES; i++)
            job[i] = (struct mix_sha256_job){ i & 1 ? data : data + LEAF - len, len, NULL };
        check_jobs(engine, 0x00, job, MIX_SHA256_MAX_LANES);
        check_jobs(engine, 0x00, job, 3);
    }
    free_fenced_memory(data, LEAF);
}

static void test_hash__reads_nothing_outside_the_messages(void **state)
{
    (void)state;
    each_engine(check_fences);
}

static void test_hash__picks_the_first_engine_that_the_cpu_has(void **state)
{
    unsigned char *data = random_bytes(BYTES), out[2][32];
    struct mix_sha256_job job[2] = { { data, LEAF, out[0] }, { data + LEAF, 7, out[1] } };
    unsigned char expected[32];
    size_t i = 0;

    (void)state;
    while (!mix_sha256_engines[i]->available())
        i++;
    assert_string_equal(mix_sha256_engine(), mix_sha256_engines[i]->name);
    print_message("engine: %s\n", mix_sha256_engine());
    mix_sha256_prefixed(0x00, job, 2);
    for (int k = 0; k < 2; k++) {
        expected_hash(0x00, job[k].data, job[k].len, expected);
        assert_memory_equal(out[k], expected, 32);
    }
    free(data);
}

static void test_hash__parts_make_the_same_hash_as_the_whole(void **state)
{
    enum { LEN = 1000 };
    unsigned char *data = random_bytes(LEN), expected[32], digest[32];
    struct mix_sha256 sha;

    (void)state;
    for (size_t len = 0; len <= LEN; len++) {
        SHA256(data, len, expected);
        mix_sha256(data, len, digest);
        assert_memory_equal(digest, expected, 32);
        mix_sha256_init(&sha);
        for (size_t at = 0, part; at < len; at += part) {
            part = random_number() % 150; /* now and then none */
            part = part < len - at ? part : len - at;
            mix_sha256_put(&sha, part ? data + at : NULL, part);
        }
        mix_sha256_end(&sha, digest);
        assert_memory_equal(digest, expected, 32);
    }
    free(data);
}

/* From 2^32 bits on, the length takes both of its words. */
static void test_hash__counts_bits_beyond_32(void **state)
{
    enum { PART = 1 << 20 };
    unsigned char *data = calloc(1, PART), digest[32];
    struct mix_sha256 sha;

    (void)state;
    assert_non_null(data);
    mix_sha256_init(&sha);
    for (int i = 0; i < 513; i++)
        mix_sha256_put(&sha, data, PART);
    mix_sha256_end(&sha, digest);
    /* head -c 513M /dev/zero | sha256sum */
    assert_digest(digest, "a3e2acbb469e4e59dde406f912e754c933c1ac0fb0092a3634d61d5073309c0c");
    free(data);
}

static void test_hash__node_is_the_hash_of_both_sides(void **state)
{
    unsigned char *sides = random_bytes(64), expected[32], digest[32];

    (void)state;
    expected_hash(0x01, sides, 64, expected);
    mix_sha256_node(sides, sides + 32, digest);
    assert_memory_equal(digest, expected, 32);
    mix_sha256_node(sides, sides + 32, sides); /* in place */
    assert_memory_equal(sides, expected, 32);
    free(sides);
}

static void test_hash__hex_goes_there_and_back(void **state)
{
    static const char *const broken[] = { "0", "", "0g", "g0", "0A", "A0", " 1", "0x", "/0", ":0",
                                          "`0", "0`" };
    unsigned char bytes[256], back[256];
    char text[2 * 256 + 1];

    (void)state;
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    mix_hex(bytes, 256, text);
    assert_int_equal(strlen(text), 512);
    assert_memory_equal(text, "000102", 6);
    assert_string_equal(text + 506, "fdfeff");
    assert_true(mix_unhex(text, back, 256));
    assert_memory_equal(back, bytes, 256);
    assert_true(mix_unhex("ab, and more", back, 1)); /* what follows is the caller's */
    assert_int_equal(back[0], 0xab);
    for (size_t i = 0; i < MIX_ARRAY_LEN(broken); i++)
        if (mix_unhex(broken[i], back, 1))
            fail_msg("'%s' was taken for a byte", broken[i]);
}

/* The definition: one bit at a time. */
static uint64_t bitwise_crc(uint64_t crc, const unsigned char *data, size_t len)
{
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x9a6c9329ac4bc9b5 : crc >> 1;
    }
    return ~crc;
}

static void test_hash__crc64_gives_the_published_value(void **state)
{
    (void)state;
    assert_true(mix_crc64(0, "123456789", 9) == 0xae8b14860a799888);
    assert_true(bitwise_crc(0, (const unsigned char *)"123456789", 9) == 0xae8b14860a799888);
    assert_true(mix_crc64(0, NULL, 0) == 0);
    assert_true(mix_crc64(0x123456789abcdef0, NULL, 0) == 0x123456789abcdef0);
}

/* Each way to compute it, over all short lengths, between fences. */
static void check_crc(const char *name,
                      uint64_t (*function)(uint64_t reg, const unsigned char *data, size_t len))
{
    enum { LEN = 1100 };
    unsigned char *data = fenced_memory(4096);

    for (size_t len = 0; len <= LEN; len++) {
        uint64_t start = random_number();
        const unsigned char *at = len & 1 ? data : data + 4096 - len;

        if (~function(~start, at, len) != bitwise_crc(start, at, len))
            fail_msg("%s: wrong CRC of %zu bytes", name, len);
    }
    free_fenced_memory(data, 4096);
}

static uint64_t chosen_crc(uint64_t reg, const unsigned char *data, size_t len)
{
    return ~mix_crc64(~reg, data, len);
}

static void test_hash__crc64_is_right_for_each_length_in_each_way(void **state)
{
    (void)state;
    check_crc("chosen", chosen_crc);
    check_crc("table", mix_crc64_table);
#ifdef MIX_HASH_X86
    if (mix_cpu_has_pclmul())
        check_crc("pclmul", mix_crc64_pclmul);
    else
        print_message("SKIPPED: this CPU has no pclmul\n");
    if (mix_cpu_has_vpclmul())
        check_crc("vpclmul", mix_crc64_vpclmul);
    else
        print_message("SKIPPED: this CPU has no vpclmul\n");
#endif
}

static void test_hash__crc64_of_long_data_at_any_address(void **state)
{
    unsigned char *data = random_bytes(BYTES);

    (void)state;
    for (size_t offset = 0; offset < 70; offset++)
        assert_true(mix_crc64(7, data + offset, LEAF + offset) ==
                    bitwise_crc(7, data + offset, LEAF + offset));
    free(data);
}

static void test_hash__crc64_of_parts_joins_to_that_of_the_whole(void **state)
{
    unsigned char *data = random_bytes(BYTES);

    (void)state;
    for (int i = 0; i < 500; i++) {
        size_t len = random_number() % BYTES, cut = random_number() % (len + 1);
        uint64_t whole = mix_crc64(0, data, len);
        uint64_t a = mix_crc64(0, data, cut), b = mix_crc64(0, data + cut, len - cut);

        assert_true(mix_crc64(a, data + cut, len - cut) == whole); /* fed back in */
        assert_true(mix_crc64_join(a, b, len - cut) == whole);
        assert_true(mix_crc64_join(whole, 0, 0) == whole);
        assert_true(mix_crc64_join(0, whole, len) == whole);
    }
    free(data);
}

static void test_hash__crc64_of_zeros_needs_no_zeros(void **state)
{
    unsigned char *data = calloc(1, BYTES);

    (void)state;
    assert_non_null(data);
    for (int i = 0; i < 500; i++) {
        size_t len = i < 200 ? (size_t)i : random_number() % BYTES;
        uint64_t crc = random_number();

        assert_true(mix_crc64_zeros(crc, len) == mix_crc64(crc, data, len));
    }
    /* Too far to walk: but one zero more takes the step to the next power of two. */
    for (int k = 0; k < 64; k++) {
        uint64_t crc = random_number(), len = 1ull << k;
        uint64_t whole = mix_crc64_zeros(crc, len);

        assert_true(mix_crc64(mix_crc64_zeros(crc, len - 1), data, 1) == whole);
        assert_true(mix_crc64_join(crc, mix_crc64_zeros(0, len), len) == whole);
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash__gives_the_published_digests),
        cmocka_unit_test(test_hash__each_engine_gives_the_published_digests),
        cmocka_unit_test(test_hash__engines_agree_with_openssl_on_short_messages),
        cmocka_unit_test(test_hash__engines_agree_with_openssl_in_batches),
        cmocka_unit_test(test_hash__reads_nothing_outside_the_messages),
        cmocka_unit_test(test_hash__picks_the_first_engine_that_the_cpu_has),
        cmocka_unit_test(test_hash__parts_make_the_same_hash_as_the_whole),
        cmocka_unit_test(test_hash__counts_bits_beyond_32),
        cmocka_unit_test(test_hash__node_is_the_hash_of_both_sides),
        cmocka_unit_test(test_hash__hex_goes_there_and_back),
        cmocka_unit_test(test_hash__crc64_gives_the_published_value),
        cmocka_unit_test(test_hash__crc64_is_right_for_each_length_in_each_way),
        cmocka_unit_test(test_hash__crc64_of_long_data_at_any_address),
        cmocka_unit_test(test_hash__crc64_of_parts_joins_to_that_of_the_whole),
        cmocka_unit_test(test_hash__crc64_of_zeros_needs_no_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
