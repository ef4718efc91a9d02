/*
 * cut.h - how a tensor is cut into pieces: rows (dimension 0) and columns (dimension 1).
 *
 * Rows are cut as torch.chunk cuts: D rows over W parts gives parts of c = ceil(D / W)
 * rows, the last shorter, and parts without a row do not exist. They may be cut twice:
 * into `outer` parts, and each of those into `inner`. Columns are cut once. So a piece
 * is (row part i, column part j), and pieces are numbered i * column_parts + j: in
 * row-major order of where they begin.
 *
 * A scalar counts as one row of one element. A tensor without elements, or one whose
 * rows are not whole bytes, is one piece.
 */
#ifndef MIXCKPT_CKPT_CUT_H
#define MIXCKPT_CKPT_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"

struct mix_cut {
    uint64_t rows, row_bytes;        /* the tensor's; rows * row_bytes are its bytes */
    uint64_t outer, inner, columns;  /* parts asked for; each at least 1 */
    uint64_t chunk;                  /* rows of an outer part but the last */
    uint64_t row_parts, column_parts; /* that hold something */
    uint64_t column_chunk;           /* bytes of a row in a column part but the last */
};

/* Asked-for parts of 0 count as 1. Cannot fail: what cannot be cut is one piece. */
void mix_cut_init(struct mix_cut *cut, enum mix_dtype dtype, uint32_t rank,
                  const uint64_t *shape, uint64_t outer, uint64_t inner, uint64_t columns);

static inline uint64_t mix_cut_pieces(const struct mix_cut *cut)
{
    return cut->row_parts * cut->column_parts;
}

/* Rows [begin, end) of row part i. */
void mix_cut_rows(const struct mix_cut *cut, uint64_t i, uint64_t *begin, uint64_t *end);

/* Which row part holds a row. */
uint64_t mix_cut_part_of_row(const struct mix_cut *cut, uint64_t row);

/* Bytes [begin, end) of each row that column part j holds. */
void mix_cut_columns(const struct mix_cut *cut, uint64_t j, uint64_t *begin, uint64_t *end);

/* The row part at outer part o, inner part k; false if nothing lies there. */
bool mix_cut_part_at(const struct mix_cut *cut, uint64_t o, uint64_t k, uint64_t *part);
/* The other way round. */
void mix_cut_coordinates(const struct mix_cut *cut, uint64_t part, uint64_t *o, uint64_t *k);

/* Bytes of piece (i, j). */
uint64_t mix_cut_piece_bytes(const struct mix_cut *cut, uint64_t i, uint64_t j);

/* The box of piece (i, j): start and lengths in elements, `rank` of each. */
void mix_cut_box(const struct mix_cut *cut, uint32_t rank,
                 const uint64_t *shape, uint64_t i, uint64_t j, uint64_t *start,
                 uint64_t *lengths);

#endif
