/* Writing .safetensors headers: the reference's bytes, and shards that can be read again. */
#include "ckpt/format/safetensors.h"

#include <stdlib.h>

#include "ckpt/base/mem.h"
#include "ckpt/format/shard.h"
#include "ckpt/store/store.h"
#include "tests/support/test.h"

static const uint64_t s1[] = { 1 }, s2[] = { 2 }, s3[] = { 3 }, s23[] = { 2, 3 }, s07[] = { 0, 7 };

/* The prefix says how long the rest is, and that is a multiple of 8. */
static void assert_header(const struct mix_buf *header, const char *json, size_t spaces)
{
    size_t len = strlen(json);

    assert_int_equal(header->len, 8 + len + spaces);
    assert_int_equal(header->len % 8, 0);
    assert_int_equal(mix_load_le(header->data, 8), len + spaces);
    assert_memory_equal(header->data + 8, json, len);
    for (size_t i = 0; i < spaces; i++)
        assert_int_equal(header->data[8 + len + i], ' ');
}

/* What safetensors 0.8.0 wrote for these tensors, given in this order. */
static void test_safetensors_write__gives_the_bytes_of_the_reference(void **state)
{
    static const char json[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"u\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8]},"
        "\"i\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[8,24]},"
        "\"c\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[24,32]},"
        "\"z\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[32,32]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[32,34]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[34,46]},"
        "\"\xc3\xa9\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[46,48]},"
        "\"q\\\"\\\\\\n\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[48,50]},"
        "\"f8\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[50,51]},"
        "\"m\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[51,54]}}";
    struct mix_tensor tensor[] = {
        { "b", MIX_BF16, 2, s23, 0, 0 },  { "a", MIX_BF16, 0, NULL, 0, 0 },
        { "m", MIX_BOOL, 1, s3, 0, 0 },   { "f8", MIX_F8_E4M3, 1, s1, 0, 0 },
        { "z", MIX_F32, 2, s07, 0, 0 },   { "c", MIX_C64, 1, s1, 0, 0 },
        { "i", MIX_I64, 1, s2, 0, 0 },    { "q\"\\\n", MIX_F16, 1, s1, 0, 0 },
        { "\xc3\xa9", MIX_BF16, 1, s1, 0, 0 }, { "u", MIX_U64, 1, s1, 0, 0 },
    };
    static const char order[] = "uiczab\xc3qfm";
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_safetensors_write_header(tensor, MIX_ARRAY_LEN(tensor), &header, &err), &err);
    assert_header(&header, json, 2);
    /* The tensors stand in file order now, and know where. */
    for (size_t i = 0; i < MIX_ARRAY_LEN(tensor); i++)
        assert_int_equal(tensor[i].name[0], order[i]);
    assert_int_equal(tensor[0].begin, header.len);
    assert_int_equal(tensor[5].begin, header.len + 34);
    assert_int_equal(tensor[9].end, header.len + 54);
    mix_buf_release(&header);

    assert_ok(mix_safetensors_write_header(NULL, 0, &header, &err), &err);
    assert_header(&header, "{\"__metadata__\":{\"format\":\"pt\"}}", 0);
    mix_buf_release(&header);
}

/* Behind other bytes in the buffer the header is the same. */
static void test_safetensors_write__appends(void **state)
{
    struct mix_tensor tensor = { "w", MIX_F32, 1, s2, 0, 0 };
    struct mix_buf buf = MIX_BUF_INIT, alone = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    (void)state;
    assert_ok(mix_safetensors_write_header(&tensor, 1, &alone, &err), &err);
    assert_ok(mix_buf_put(&buf, "xyz", 3, &err), &err);
    assert_ok(mix_safetensors_write_header(&tensor, 1, &buf, &err), &err);
    assert_int_equal(buf.len, 3 + alone.len);
    assert_memory_equal(buf.data + 3, alone.data, alone.len);
    assert_int_equal(tensor.begin, alone.len);
    mix_buf_release(&buf);
    mix_buf_release(&alone);
}

/* Files that transformers wrote: their headers come out again from their tensors. */
static void test_safetensors_write__makes_real_headers_again(void **state)
{
    struct mix_names names = MIX_NAMES_INIT;
    struct mix_store *store;
    struct mix_err err = { 0 };
    size_t files = 0;

    (void)state;
    assert_ok(mix_store_open("tests/reference/tiny-mixtral", &store, &err), &err);
    assert_ok(mix_store_list(store, ".", &names, &err), &err);
    for (size_t i = 0; i < names.count; i++) {
        struct mix_safetensors *st;
        struct mix_buf header = MIX_BUF_INIT;
        size_t count, len;

        if (!strstr(names.name[i], ".safetensors") || strstr(names.name[i], ".json"))
            continue;
        test_row(names.name[i]);
        assert_ok(mix_safetensors_open(store, names.name[i], &st, &err), &err);
        const struct mix_tensor *list = mix_safetensors_list(st, &count);
        struct mix_tensor *copy = malloc(count * sizeof *copy);
        assert_non_null(copy);
        for (size_t k = 0; k < count; k++) /* in reverse, without their places */
            copy[k] = (struct mix_tensor){ list[count - 1 - k].name, list[count - 1 - k].dtype,
                                           list[count - 1 - k].rank,
                                           list[count - 1 - k].shape, 0, 0 };
        assert_ok(mix_safetensors_write_header(copy, count, &header, &err), &err);
        const char *original = mix_safetensors_header(st, &len);
        assert_int_equal(header.len, len);
        assert_memory_equal(header.data, original, len);
        for (size_t k = 0; k < count; k++)
            assert_true(copy[k].begin == list[k].begin && copy[k].end == list[k].end);
        free(copy);
        mix_buf_release(&header);
        mix_safetensors_close(st);
        files++;
    }
    assert_int_equal(files, 5);
    mix_names_release(&names);
    mix_store_close(store);
}

static void test_safetensors_write__refuses_what_cannot_be_written(void **state)
{
    static const uint64_t huge[] = { 1ull << 62, 1ull << 62 };
    static const struct {
        struct mix_tensor tensor;
        enum mix_rc rc;
        const char *says;
    } row[] = {
        { { "a", MIX_F32, 2, huge, 0, 0 }, MIX_BAD_FORMAT, "tensor 'a': the number of" },
        { { "a", MIX_F4, 1, s3, 0, 0 }, MIX_BAD_FORMAT, "do not fill whole bytes" },
        { { "__metadata__", MIX_U8, 1, s1, 0, 0 }, MIX_UNSUPPORTED, "'__metadata__'" },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_tensor tensor = row[i].tensor;
        struct mix_buf header = MIX_BUF_INIT;
        struct mix_err err = { 0 };

        test_row(row[i].says);
        assert_int_equal(mix_safetensors_write_header(&tensor, 1, &header, &err), row[i].rc);
        assert_text(err.text, row[i].says);
        mix_buf_release(&header);
    }
}

/* Sixteen times 2^60 bytes are one too many for any file. */
static void test_safetensors_write__refuses_more_than_all_bytes(void **state)
{
    static const uint64_t large[] = { 1ull << 60 };
    static const char *const name[] = { "a", "b", "c", "d", "e", "f", "g", "h",
                                        "i", "j", "k", "l", "m", "n", "o", "p" };
    struct mix_tensor tensor[MIX_ARRAY_LEN(name)];
    struct mix_shard_piece piece[MIX_ARRAY_LEN(name)];
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    uint64_t file_bytes;

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(name); i++) {
        tensor[i] = (struct mix_tensor){ name[i], MIX_U8, 1, large, 0, 0 };
        piece[i] = (struct mix_shard_piece){ name[i], MIX_U8, 1, large, s1, large, large[0], 0 };
    }
    assert_ok(mix_safetensors_write_header(tensor, 15, &header, &err), &err);
    assert_int_equal(mix_safetensors_write_header(tensor, 16, &header, &err), MIX_BAD_FORMAT);
    assert_text(err.text, "tensor 'p' would end beyond 2^64 bytes");
    mix_buf_release(&header);

    assert_ok(mix_safetensors_shard_layout(piece, 15, &header, &file_bytes, &err), &err);
    mix_buf_release(&header);
    assert_int_equal(mix_safetensors_shard_layout(piece, 16, &header, &file_bytes, &err),
                     MIX_BAD_FORMAT);
    assert_text(err.text, "'p' would end beyond 2^64 bytes");
    mix_buf_release(&header);
}

/* ---- shard files ---- */

static const uint64_t zero[] = { 0, 0 }, at_2[] = { 2, 0 }, s43[] = { 4, 3 };

static void test_safetensors_write__lays_out_a_shard(void **state)
{
    static const char json[] =
        "{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{\\\"a\\\":{\\\"saved_offsets\\\":[2,0]},"
        "\\\"b\\\\\\\"\\\":{\\\"saved_offsets\\\":[0]},"
        "\\\"c\\\":{\\\"saved_offsets\\\":[]},\\\"d\\\":{\\\"saved_offsets\\\":[0,0]}}\","
        "\"DCP_VERSION\":\"1.0\",\"format\":\"pt\"},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
        "\"b\\\"\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[12,15]},"
        "\"c\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[15,19]},"
        "\"d\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[19,19]}}";
    static const char info[] =
        "{\"a\":{\"saved_offsets\":[2,0]},\"b\\\"\":{\"saved_offsets\":[0]},"
        "\"c\":{\"saved_offsets\":[]},\"d\":{\"saved_offsets\":[0,0]}}";
    struct mix_shard_piece piece[] = {
        { "a", MIX_BF16, 2, s23, at_2, s43, 12, 0 },
        { "b\"", MIX_U8, 1, s3, zero, s3, 3, 0 },
        { "c", MIX_F32, 0, NULL, NULL, NULL, 4, 0 },
        { "d", MIX_F32, 2, s07, zero, s07, 0, 0 },
    };
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_safetensors *st;
    struct mix_err err = { 0 };
    uint64_t file_bytes;
    size_t count;

    (void)state;
    assert_ok(mix_safetensors_shard_layout(piece, MIX_ARRAY_LEN(piece), &header, &file_bytes,
                                           &err), &err);
    assert_header(&header, json, (8 - strlen(json) % 8) % 8);
    assert_int_equal(file_bytes, header.len + 19);
    assert_int_equal(piece[0].offset, header.len);
    assert_int_equal(piece[3].offset, header.len + 19);

    /* The reader agrees, and gets the text within the text whole. */
    assert_ok(mix_safetensors_parse(header.data, header.len, file_bytes, &st, &err), &err);
    const struct mix_tensor *t = mix_safetensors_list(st, &count);
    assert_int_equal(count, MIX_ARRAY_LEN(piece));
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(t[i].name, piece[i].name);
        assert_int_equal(t[i].begin, piece[i].offset);
    }
    assert_string_equal(mix_safetensors_metadata(st, "DCP_SHARDING_INFO"), info);
    assert_string_equal(mix_safetensors_metadata(st, "DCP_VERSION"), "1.0");
    assert_string_equal(mix_safetensors_metadata(st, "format"), "pt");
    mix_safetensors_close(st);
    mix_buf_release(&header);
}

static void test_safetensors_write__an_empty_shard_is_a_file_too(void **state)
{
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    uint64_t file_bytes;

    (void)state;
    assert_ok(mix_safetensors_shard_layout(NULL, 0, &header, &file_bytes, &err), &err);
    assert_header(&header, "{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{}\","
                  "\"DCP_VERSION\":\"1.0\",\"format\":\"pt\"}}", 3);
    assert_int_equal(file_bytes, header.len);
    mix_buf_release(&header);
}

static void test_safetensors_write__refuses_broken_pieces(void **state)
{
    static const uint64_t large[] = { 1ull << 60 };
    static const struct {
        struct mix_shard_piece piece[2];
        enum mix_rc rc;
        const char *says;
    } row[] = {
        { { { "b", MIX_U8, 1, s1, zero, s1, 1, 0 }, { "a", MIX_U8, 1, s1, zero, s1, 1, 0 } },
          MIX_BAD_FORMAT, "piece 'a' stands behind 'b'" },
        { { { "a", MIX_U8, 1, s1, zero, s1, 1, 0 }, { "a", MIX_U8, 1, s2, zero, s2, 2, 0 } },
          MIX_BAD_FORMAT, "piece 'a' stands behind 'a'" },
        { { { "a", MIX_U8, 1, s1, zero, s1, 1, 0 }, { "b", MIX_U8, 1, s2, zero, s2, 3, 0 } },
          MIX_BAD_FORMAT, "piece 'b' has 3 bytes; its dtype and shape make 2" },
        { { { "a", MIX_U8, 1, s1, zero, s1, 1, 0 }, { "b", MIX_F64, 1, large, zero, large, 0, 0 } },
          MIX_BAD_FORMAT, "piece 'b': the number of bits passes 2^64" },
        { { { "__metadata__", MIX_U8, 1, s1, zero, s1, 1, 0 },
            { "b", MIX_U8, 1, s1, zero, s1, 1, 0 } },
          MIX_UNSUPPORTED, "'__metadata__'" },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(row); i++) {
        struct mix_shard_piece piece[2];
        struct mix_buf header = MIX_BUF_INIT;
        struct mix_err err = { 0 };
        uint64_t file_bytes;

        test_row(row[i].says);
        memcpy(piece, row[i].piece, sizeof piece);
        assert_int_equal(mix_safetensors_shard_layout(piece, 2, &header, &file_bytes, &err),
                         row[i].rc);
        assert_text(err.text, row[i].says);
        mix_buf_release(&header);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_write__gives_the_bytes_of_the_reference),
        cmocka_unit_test(test_safetensors_write__appends),
        cmocka_unit_test(test_safetensors_write__makes_real_headers_again),
        cmocka_unit_test(test_safetensors_write__refuses_what_cannot_be_written),
        cmocka_unit_test(test_safetensors_write__refuses_more_than_all_bytes),
        cmocka_unit_test(test_safetensors_write__lays_out_a_shard),
        cmocka_unit_test(test_safetensors_write__an_empty_shard_is_a_file_too),
        cmocka_unit_test(test_safetensors_write__refuses_broken_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
