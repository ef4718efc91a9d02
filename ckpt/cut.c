/* cut.c - rows and columns of the pieces of a tensor. */
#include "ckpt/cut.h"

#include <string.h>

#include "ckpt/base/bytes.h"

/* How many parts of c = ceil(size / parts) hold something, for size > 0. */
static uint64_t chunk_of(uint64_t size, uint64_t parts)
{
    return mix_div_up(size, parts);
}

static uint64_t parts_in(uint64_t size, uint64_t parts)
{
    return mix_div_up(size, chunk_of(size, parts));
}

/* Rows of the last outer part: the others have `chunk`. */
static uint64_t last_outer_rows(const struct mix_cut *cut)
{
    return (cut->rows - 1) % cut->chunk + 1;
}

void mix_cut_init(struct mix_cut *cut, enum mix_dtype dtype, uint32_t rank,
                  const uint64_t *shape, uint64_t outer, uint64_t inner, uint64_t columns)
{
    uint64_t row_elements = 1, rows = rank ? shape[0] : 1, bits;

    for (uint32_t i = 1; i < rank; i++)
        row_elements *= shape[i]; /* no wrap: the reader has checked the tensor's bytes */
    if (!rows)
        row_elements = 0; /* [0, huge, huge] may wrap: there are no bytes anyway */
    bits = row_elements * mix_dtype_bits(dtype);

    *cut = (struct mix_cut){ .rows = rows, .row_bytes = bits / 8, .outer = mix_max(outer, 1),
                             .inner = mix_max(inner, 1), .columns = mix_max(columns, 1) };
    if (!rows || !row_elements || bits % 8) {
        /* One piece: all bytes are one row. */
        cut->row_bytes = rows ? (rows * row_elements * mix_dtype_bits(dtype)) / 8 : 0;
        cut->rows = 1;
        cut->outer = cut->inner = cut->columns = 1;
    }
    if (rank < 2 || shape[1] == 0 || cut->rows != rows ||
        (bits / shape[1]) % 8) /* a column must be whole bytes too */
        cut->columns = 1;

    uint64_t column_bytes = cut->columns > 1 ? cut->row_bytes / shape[1] : cut->row_bytes;
    uint64_t column_count = cut->columns > 1 ? shape[1] : 1;

    cut->column_chunk = chunk_of(column_count, cut->columns) * column_bytes;
    cut->column_parts = parts_in(column_count, cut->columns);
    cut->chunk = chunk_of(cut->rows, cut->outer);
    cut->row_parts = (parts_in(cut->rows, cut->outer) - 1) * parts_in(cut->chunk, cut->inner) +
                     parts_in(last_outer_rows(cut), cut->inner);
}

void mix_cut_coordinates(const struct mix_cut *cut, uint64_t part, uint64_t *o, uint64_t *k)
{
    uint64_t per_outer = parts_in(cut->chunk, cut->inner);
    uint64_t last = parts_in(cut->rows, cut->outer) - 1;

    *o = mix_min(part / per_outer, last);
    *k = part - *o * per_outer;
}

static uint64_t outer_rows(const struct mix_cut *cut, uint64_t o)
{
    return mix_min(cut->chunk, cut->rows - o * cut->chunk);
}

bool mix_cut_part_at(const struct mix_cut *cut, uint64_t o, uint64_t k, uint64_t *part)
{
    if (o >= parts_in(cut->rows, cut->outer) || k >= parts_in(outer_rows(cut, o), cut->inner))
        return false;
    *part = o * parts_in(cut->chunk, cut->inner) + k;
    return true;
}

void mix_cut_rows(const struct mix_cut *cut, uint64_t i, uint64_t *begin, uint64_t *end)
{
    uint64_t o, k;

    mix_cut_coordinates(cut, i, &o, &k);

    uint64_t size = outer_rows(cut, o), c = chunk_of(size, cut->inner);

    *begin = o * cut->chunk + mix_min(k * c, size);
    *end = o * cut->chunk + mix_min((k + 1) * c, size);
}

uint64_t mix_cut_part_of_row(const struct mix_cut *cut, uint64_t row)
{
    uint64_t o = row / cut->chunk;
    uint64_t c = chunk_of(outer_rows(cut, o), cut->inner);

    return o * parts_in(cut->chunk, cut->inner) + (row - o * cut->chunk) / c;
}

void mix_cut_columns(const struct mix_cut *cut, uint64_t j, uint64_t *begin, uint64_t *end)
{
    *begin = mix_min(j * cut->column_chunk, cut->row_bytes);
    *end = mix_min((j + 1) * cut->column_chunk, cut->row_bytes);
}

uint64_t mix_cut_piece_bytes(const struct mix_cut *cut, uint64_t i, uint64_t j)
{
    uint64_t row_begin, row_end, column_begin, column_end;

    mix_cut_rows(cut, i, &row_begin, &row_end);
    mix_cut_columns(cut, j, &column_begin, &column_end);
    return (row_end - row_begin) * (column_end - column_begin);
}

void mix_cut_box(const struct mix_cut *cut, uint32_t rank,
                 const uint64_t *shape, uint64_t i, uint64_t j, uint64_t *start,
                 uint64_t *lengths)
{
    uint64_t begin, end;

    memset(start, 0, rank * sizeof *start);
    if (rank)
        memcpy(lengths, shape, rank * sizeof *lengths);
    if (cut->row_parts > 1) {
        mix_cut_rows(cut, i, &begin, &end);
        start[0] = begin;
        lengths[0] = end - begin;
    }
    if (cut->column_parts > 1) {
        uint64_t column_bytes = cut->row_bytes / shape[1];

        mix_cut_columns(cut, j, &begin, &end);
        start[1] = begin / column_bytes;
        lengths[1] = (end - begin) / column_bytes;
    }
}
