/*
 * Cuts, against torch.chunk as its documentation defines it: D rows in W chunks are
 * pieces of ceil(D / W) rows, the last one shorter, and fewer than W if they run out.
 */
#include "ckpt/cut.h"

#include <stdlib.h>

#include "tests/support/test.h"

struct range {
    uint64_t begin, end;
};

enum { MOST = 64 };

/* Returns how many there are. */
static size_t naive_chunk(uint64_t begin, uint64_t size, uint64_t parts, struct range *out)
{
    uint64_t step = size / parts + (size % parts ? 1 : 0);
    size_t count = 0;

    for (uint64_t at = 0; at < size; at += step)
        out[count++] = (struct range){ begin + at, begin + (at + step < size ? at + step : size) };
    return count;
}

/* Rows cut into `outer`, each of those into `inner`. */
static size_t naive_rows(uint64_t rows, uint64_t outer, uint64_t inner, struct range *out,
                         struct range *coordinates)
{
    struct range first[MOST], second[MOST];
    size_t count = 0, outer_count = naive_chunk(0, rows, outer, first);

    for (size_t o = 0; o < outer_count; o++) {
        size_t n = naive_chunk(first[o].begin, first[o].end - first[o].begin, inner, second);

        for (size_t k = 0; k < n; k++, count++) {
            out[count] = second[k];
            coordinates[count] = (struct range){ o, k };
        }
    }
    return count;
}

static const struct {
    enum mix_dtype dtype;
    unsigned width;
} types[] = { { MIX_U8, 1 }, { MIX_F32, 4 } };

/* One cut of a tensor [rows, columns, ...] against the naive one. */
static void check_cut(const struct mix_cut *cut, uint64_t rows, uint64_t outer, uint64_t inner,
                      uint64_t columns, uint64_t column_parts, uint64_t column_bytes)
{
    struct range row[MOST], at[MOST], column[MOST];
    size_t row_count = naive_rows(rows, outer, inner, row, at);
    size_t column_count = naive_chunk(0, columns, column_parts, column);
    uint64_t begin, end, o, k, part;

    assert_int_equal(cut->row_parts, row_count);
    assert_int_equal(cut->column_parts, column_count);
    assert_int_equal(mix_cut_pieces(cut), row_count * column_count);
    for (uint64_t i = 0; i < row_count; i++) {
        mix_cut_rows(cut, i, &begin, &end);
        assert_true(begin == row[i].begin && end == row[i].end);
        for (uint64_t r = begin; r < end; r++)
            assert_int_equal(mix_cut_part_of_row(cut, r), i);
        mix_cut_coordinates(cut, i, &o, &k);
        assert_true(o == at[i].begin && k == at[i].end);
        assert_true(mix_cut_part_at(cut, o, k, &part));
        assert_int_equal(part, i);
    }
    for (uint64_t j = 0; j < column_count; j++) {
        mix_cut_columns(cut, j, &begin, &end);
        assert_true(begin == column[j].begin * column_bytes);
        assert_true(end == column[j].end * column_bytes);
    }
}

/* The number of coordinates that hold something is the number of row parts. */
static void check_coordinates(const struct mix_cut *cut)
{
    uint64_t there = 0, part;

    for (uint64_t o = 0; o < cut->outer + 2; o++)
        for (uint64_t k = 0; k < cut->inner + 2; k++)
            there += mix_cut_part_at(cut, o, k, &part);
    assert_int_equal(there, cut->row_parts);
}

/* Paint every byte of every box: each is painted once, and by the piece that counts it. */
static void check_tiling(const struct mix_cut *cut, uint32_t rank, const uint64_t *shape,
                         unsigned width)
{
    uint64_t elements = 1, start[3], lengths[3];
    unsigned char *painted;

    for (uint32_t d = 0; d < rank; d++)
        elements *= shape[d];
    painted = calloc(elements, 1);
    assert_non_null(painted);
    for (uint64_t i = 0; i < cut->row_parts; i++) {
        for (uint64_t j = 0; j < cut->column_parts; j++) {
            uint64_t box[3] = { 1, 1, 1 }, from[3] = { 0 }, size[3] = { 1, 1, 1 };

            mix_cut_box(cut, rank, shape, i, j, start, lengths);
            for (uint32_t d = 0; d < rank; d++) {
                box[d] = lengths[d];
                from[d] = start[d];
                size[d] = shape[d];
                assert_true(start[d] + lengths[d] <= shape[d]);
            }
            assert_int_equal(mix_cut_piece_bytes(cut, i, j), box[0] * box[1] * box[2] * width);
            for (uint64_t a = from[0]; a < from[0] + box[0]; a++)
                for (uint64_t b = from[1]; b < from[1] + box[1]; b++)
                    for (uint64_t c = from[2]; c < from[2] + box[2]; c++)
                        painted[(a * size[1] + b) * size[2] + c]++;
        }
    }
    for (uint64_t e = 0; e < elements; e++)
        assert_int_equal(painted[e], 1);
    free(painted);
}

static void test_cut__is_torch_chunk_twice_over_rows_and_once_over_columns(void **state)
{
    (void)state;
    for (uint64_t rows = 1; rows <= 13; rows++)
        for (uint64_t columns = 1; columns <= 7; columns += 2)
            for (uint64_t outer = 1; outer <= 5; outer++)
                for (uint64_t inner = 1; inner <= 9; inner++)
                    for (uint64_t parts = 1; parts <= 9; parts += 2)
                        for (size_t t = 0; t < MIX_ARRAY_LEN(types); t++) {
                            const uint64_t shape[] = { rows, columns, 3 };
                            unsigned width = types[t].width;
                            struct mix_cut cut;

                            mix_cut_init(&cut, types[t].dtype, 3, shape, outer, inner, parts);
                            check_cut(&cut, rows, outer, inner, columns, parts, 3 * width);
                            check_coordinates(&cut);
                            check_tiling(&cut, 3, shape, width);
                        }
}

static void test_cut__of_many_rows(void **state)
{
    (void)state;
    for (uint64_t rows = 1; rows <= 60; rows++)
        for (uint64_t outer = 1; outer <= 8; outer++)
            for (uint64_t inner = 1; inner <= 8; inner++) {
                struct mix_cut cut;

                mix_cut_init(&cut, MIX_BF16, 1, &rows, outer, inner, 4);
                check_cut(&cut, rows, outer, inner, 1, 1, 2); /* a vector has no columns */
                check_tiling(&cut, 1, &rows, 2);
            }
}

/* The manifest writes the parts that there are, not the degrees that were asked for. */
static void test_cut__parts_that_exist_asked_for_again_are_the_same(void **state)
{
    (void)state;
    for (uint64_t rows = 1; rows <= 100; rows++)
        for (uint64_t parts = 1; parts <= 130; parts++) {
            const uint64_t shape[] = { rows, rows };
            struct mix_cut cut, again;

            mix_cut_init(&cut, MIX_U8, 2, shape, 1, parts, parts);
            mix_cut_init(&again, MIX_U8, 2, shape, 1, cut.row_parts, cut.column_parts);
            assert_int_equal(again.row_parts, cut.row_parts);
            assert_int_equal(again.column_parts, cut.column_parts);
            for (uint64_t i = 0; i < cut.row_parts; i++) {
                uint64_t a[2], b[2];

                mix_cut_rows(&cut, i, &a[0], &a[1]);
                mix_cut_rows(&again, i, &b[0], &b[1]);
                assert_memory_equal(a, b, sizeof a);
                mix_cut_columns(&cut, i, &a[0], &a[1]);
                mix_cut_columns(&again, i, &b[0], &b[1]);
                assert_memory_equal(a, b, sizeof a);
            }
        }
}

#define BIG (UINT64_C(1) << 40)

/* What cannot be cut is one piece of all its bytes. */
static const struct {
    const char *what;
    enum mix_dtype dtype;
    uint32_t rank;
    uint64_t shape[3];
    uint64_t row_parts, column_parts, bytes;
} odd[] = {
    { "scalar", MIX_F32, 0, { 0 }, 1, 1, 4 },
    { "no rows", MIX_F32, 2, { 0, 5 }, 1, 1, 0 },
    { "no columns", MIX_F32, 2, { 5, 0 }, 1, 1, 0 },
    { "no depth", MIX_F32, 3, { 5, 5, 0 }, 1, 1, 0 },
    { "no rows of more than 2^64 elements", MIX_F32, 3, { 0, BIG, BIG }, 1, 1, 0 },
    { "empty vector", MIX_BF16, 1, { 0 }, 1, 1, 0 },
    { "rows of half a byte", MIX_F4, 2, { 6, 1 }, 1, 1, 3 },
    { "rows of a byte and a half", MIX_F4, 2, { 6, 3 }, 1, 1, 9 },
    { "F6 rows that are no bytes", MIX_F6_E2M3, 2, { 4, 3 }, 1, 1, 9 },
    { "F4 vector", MIX_F4, 1, { 8 }, 1, 1, 4 },
    { "whole rows, columns of half a byte", MIX_F4, 2, { 6, 4 }, 3, 1, 12 },
    { "whole rows and whole columns", MIX_F4, 3, { 6, 4, 2 }, 3, 4, 24 },
    { "F6 columns of three bytes", MIX_F6_E3M2, 3, { 3, 2, 4 }, 3, 2, 18 },
};

static void test_cut__what_cannot_be_cut_is_one_piece(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(odd); i++) {
        struct mix_cut cut;
        uint64_t bytes = 0, start[3], lengths[3];

        test_row(odd[i].what);
        mix_cut_init(&cut, odd[i].dtype, odd[i].rank, odd[i].shape, 1, 4, 4);
        assert_int_equal(cut.row_parts, odd[i].row_parts);
        assert_int_equal(cut.column_parts, odd[i].column_parts);
        assert_int_equal(cut.rows * cut.row_bytes, odd[i].bytes);
        for (uint64_t r = 0; r < cut.row_parts; r++)
            for (uint64_t c = 0; c < cut.column_parts; c++)
                bytes += mix_cut_piece_bytes(&cut, r, c);
        assert_int_equal(bytes, odd[i].bytes);
        mix_cut_box(&cut, odd[i].rank, odd[i].shape, 0, 0, start, lengths);
        for (uint32_t d = 2; d < odd[i].rank; d++)
            assert_true(start[d] == 0 && lengths[d] == odd[i].shape[d]);
    }
}

static void test_cut__no_parts_count_as_one(void **state)
{
    const uint64_t shape[] = { 4, 4 };
    struct mix_cut cut;

    (void)state;
    mix_cut_init(&cut, MIX_U8, 2, shape, 0, 0, 0);
    assert_int_equal(mix_cut_pieces(&cut), 1);
}

/* Degrees and sizes from a hostile manifest: nothing wraps, nothing divides by zero. */
static void test_cut__huge_numbers(void **state)
{
    static const uint64_t numbers[] = { 1, 2, 3, 65536, UINT64_C(1) << 32, UINT64_MAX / 2,
                                        UINT64_MAX };
    const uint64_t rows = (UINT64_C(1) << 60) - 1, begin_of_last = rows - 1;

    (void)state;
    for (size_t a = 0; a < MIX_ARRAY_LEN(numbers); a++)
        for (size_t b = 0; b < MIX_ARRAY_LEN(numbers); b++)
            for (size_t c = 0; c < MIX_ARRAY_LEN(numbers); c++) {
                const uint64_t shape[] = { rows, 2 };
                struct mix_cut cut;
                uint64_t begin, end, last;

                mix_cut_init(&cut, MIX_U8, 2, shape, numbers[a], numbers[b], numbers[c]);
                assert_int_equal(cut.column_parts, numbers[c] > 1 ? 2 : 1);
                mix_cut_rows(&cut, 0, &begin, &end);
                assert_true(begin == 0 && end > 0);
                last = mix_cut_part_of_row(&cut, begin_of_last);
                assert_true(last == cut.row_parts - 1);
                mix_cut_rows(&cut, last, &begin, &end);
                assert_true(begin <= begin_of_last && end == rows);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut__is_torch_chunk_twice_over_rows_and_once_over_columns),
        cmocka_unit_test(test_cut__of_many_rows),
        cmocka_unit_test(test_cut__parts_that_exist_asked_for_again_are_the_same),
        cmocka_unit_test(test_cut__what_cannot_be_cut_is_one_piece),
        cmocka_unit_test(test_cut__no_parts_count_as_one),
        cmocka_unit_test(test_cut__huge_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
