/* inventory.c - which pieces lie in which file, from the records. */
#include "ckpt/inventory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"

/* ---- groups of files: a union-find over their indices ---- */

static uint32_t find(uint32_t *leader, uint32_t file)
{
    while (leader[file] != file)
        file = leader[file] = leader[leader[file]];
    return file;
}

/* The smaller index leads, so that groups stand in the order of their first file. */
static void join(uint32_t *leader, uint32_t a, uint32_t b)
{
    a = find(leader, a);
    b = find(leader, b);
    if (a < b)
        leader[b] = a;
    else
        leader[a] = b;
}

/* ---- going through all units ---- */

struct pass {
    struct mix_inventory *inventory;
    struct mix_reader reader;
    struct mix_defects *defects;
    uint32_t *leader;
    size_t *next; /* of each group, when units are dealt out */
};

/* Call `each` with the tensor, the unit and the files of its pieces. */
static enum mix_rc for_each_unit(struct pass *p,
                                 void (*each)(struct pass *p, const struct mix_ckpt_tensor *t,
                                              uint64_t unit, const struct mix_place *place),
                                 struct mix_err *err)
{
    const struct mix_manifest *m = &p->inventory->ckpt->m;
    enum mix_rc rc = MIX_OK;

    for (size_t k = 0; k < m->tensor_count && !rc; k++) {
        const struct mix_ckpt_tensor *t = &m->tensor[k];
        uint64_t columns = t->cut.column_parts;
        struct mix_place *place;

        if ((rc = mix_new_array(&place, columns, sizeof *place, err)))
            break;
        for (uint64_t i = 0; i < t->cut.row_parts && !rc; i++) {
            for (uint64_t j = 0; j < columns && !rc; j++)
                rc = mix_reader_place(&p->reader, t, i * columns + j, &place[j], err);
            if (!rc)
                each(p, t, p->inventory->first_unit[k] + i, place);
            else if (p->defects) /* noted once: the first pass notes, later ones skip */
                rc = mix_defects_take(p->defects, "mixckpt.pieces", rc, err);
        }
        free(place);
    }
    return rc;
}

static void join_files(struct pass *p, const struct mix_ckpt_tensor *t, uint64_t unit,
                       const struct mix_place *place)
{
    (void)unit;
    for (uint64_t j = 1; j < t->cut.column_parts; j++)
        join(p->leader, place[0].file, place[j].file);
}

static void count_unit(struct pass *p, const struct mix_ckpt_tensor *t, uint64_t unit,
                       const struct mix_place *place)
{
    struct mix_inventory *inv = p->inventory;
    uint32_t g = inv->group_of_file[place[0].file];

    (void)unit;
    inv->first[g + 1]++;
    for (uint64_t j = 0; j < t->cut.column_parts; j++)
        inv->group_bytes[g] += place[j].bytes;
}

static void deal_unit(struct pass *p, const struct mix_ckpt_tensor *t, uint64_t unit,
                      const struct mix_place *place)
{
    struct mix_inventory *inv = p->inventory;

    (void)t;
    inv->unit[p->next[inv->group_of_file[place[0].file]]++] = (uint32_t)unit;
}

static enum mix_rc number_units(struct mix_inventory *inv, struct mix_err *err)
{
    const struct mix_manifest *m = &inv->ckpt->m;
    uint64_t units = 0;
    enum mix_rc rc = mix_new_array(&inv->first_unit, m->tensor_count + 1,
                                   sizeof *inv->first_unit, err);

    for (size_t k = 0; k < m->tensor_count && !rc; k++) {
        inv->first_unit[k] = units;
        units += m->tensor[k].cut.row_parts;
    }
    if (rc)
        return rc;
    inv->first_unit[m->tensor_count] = units;
    if (units > UINT32_MAX)
        return mix_fail(err, MIX_UNSUPPORTED, "%" PRIu64 " pieces are more than this program "
                        "can walk", units);
    return MIX_OK;
}

/* The files of each group. */
static enum mix_rc list_files(struct mix_inventory *inv, struct mix_err *err)
{
    size_t files = inv->ckpt->m.file_count, *next;
    enum mix_rc rc;

    if ((rc = mix_new_array(&inv->first_file, inv->group_count + 1, sizeof *next, err)) ||
        (rc = mix_new_array(&inv->file, files, sizeof *inv->file, err)) ||
        (rc = mix_new_array(&next, inv->group_count, sizeof *next, err)))
        return rc;
    for (size_t f = 0; f < files; f++)
        inv->first_file[inv->group_of_file[f] + 1]++;
    for (size_t g = 0; g < inv->group_count; g++) {
        inv->first_file[g + 1] += inv->first_file[g];
        next[g] = inv->first_file[g];
    }
    for (uint32_t f = 0; f < files; f++)
        inv->file[next[inv->group_of_file[f]]++] = f;
    free(next);
    return MIX_OK;
}

static enum mix_rc number_groups(struct pass *p, struct mix_err *err)
{
    struct mix_inventory *inv = p->inventory;
    size_t files = inv->ckpt->m.file_count;
    enum mix_rc rc = mix_new_array(&inv->group_of_file, files, sizeof *inv->group_of_file, err);

    for (uint32_t f = 0; f < files && !rc; f++)
        inv->group_of_file[f] = find(p->leader, f) == f
                                    ? (uint32_t)inv->group_count++
                                    : inv->group_of_file[find(p->leader, f)];
    if (rc || (rc = mix_new_array(&inv->group_bytes, inv->group_count,
                                  sizeof *inv->group_bytes, err)) ||
        (rc = mix_new_array(&inv->first, inv->group_count + 1, sizeof *inv->first, err)))
        return rc;
    return list_files(inv, err);
}

/* Tensors of a file stand by offset there, and by name in the manifest. */
struct by_offset {
    uint64_t offset, end;
    uint32_t unit;
};

static int in_file_order(const void *pa, const void *pb)
{
    const struct by_offset *a = pa, *b = pb;

    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static enum mix_rc sort_by_offset(struct mix_inventory *inv, struct mix_err *err)
{
    const struct mix_manifest *m = &inv->ckpt->m; /* one unit a tensor here */
    struct by_offset *list;
    enum mix_rc rc = mix_new_array(&list, m->tensor_count, sizeof *list, err);

    for (size_t g = 0; g < inv->group_count && !rc; g++) {
        size_t n = inv->first[g + 1] - inv->first[g];

        for (size_t i = 0; i < n; i++) {
            uint32_t unit = inv->unit[inv->first[g] + i];

            list[i] = (struct by_offset){ m->tensor[unit].offset,
                                          m->tensor[unit].offset + m->tensor[unit].bytes, unit };
        }
        if (n)
            qsort(list, n, sizeof *list, in_file_order);
        for (size_t i = 0; i < n; i++)
            inv->unit[inv->first[g] + i] = list[i].unit;
    }
    free(list);
    return rc;
}

enum mix_rc mix_inventory_init(struct mix_inventory *inv, const struct mix_checkpoint *ckpt,
                               struct mix_defects *defects, struct mix_err *err)
{
    struct pass p = { .inventory = inv, .defects = defects };
    struct mix_defects second;
    size_t files = ckpt->m.file_count;
    enum mix_rc rc;

    memset(inv, 0, sizeof *inv);
    inv->ckpt = ckpt;
    mix_defects_init(&second); /* what later passes find was found by the first */
    if ((rc = mix_reader_init(&p.reader, ckpt, err)) || (rc = number_units(inv, err)) ||
        (rc = mix_new_array(&p.leader, files, sizeof *p.leader, err)))
        goto out;
    for (uint32_t f = 0; f < files; f++)
        p.leader[f] = f;
    if ((rc = for_each_unit(&p, join_files, err)) || (rc = number_groups(&p, err)))
        goto out;
    if (defects)
        p.defects = &second;
    if ((rc = for_each_unit(&p, count_unit, err)) ||
        (rc = mix_new_array(&p.next, inv->group_count, sizeof *p.next, err)))
        goto out;
    for (size_t g = 0; g < inv->group_count; g++) {
        inv->first[g + 1] += inv->first[g];
        p.next[g] = inv->first[g];
    }
    if ((rc = mix_new_array(&inv->unit, inv->first[inv->group_count], sizeof *inv->unit, err)) ||
        (rc = for_each_unit(&p, deal_unit, err)))
        goto out;
    if (ckpt->form != MIX_FORM_MIXCKPT)
        rc = sort_by_offset(inv, err);
out:
    mix_defects_release(&second);
    mix_reader_release(&p.reader);
    free(p.leader);
    free(p.next);
    if (rc)
        mix_inventory_release(inv);
    return rc;
}

void mix_inventory_release(struct mix_inventory *inv)
{
    free(inv->group_bytes);
    free(inv->first);
    free(inv->unit);
    free(inv->first_unit);
    free(inv->group_of_file);
    free(inv->first_file);
    free(inv->file);
    memset(inv, 0, sizeof *inv);
}

/* ---- groups ---- */

static enum mix_rc add_files(const struct mix_inventory *inv, size_t g, struct mix_group *group,
                             struct mix_err *err)
{
    const struct mix_manifest *m = &inv->ckpt->m;
    enum mix_rc rc = MIX_OK;

    for (size_t i = inv->first_file[g]; i < inv->first_file[g + 1] && !rc; i++) {
        uint32_t f = inv->file[i];

        rc = mix_group_add_file(group,
                                &(struct mix_group_file){ .id = f, .name = m->file[f].name,
                                                          .bytes = m->file[f].bytes, .fd = -1 },
                                err);
    }
    return rc;
}

static uint32_t file_in_group(const struct mix_group *group, uint32_t id)
{
    uint32_t f = 0;

    while (group->file[f].id != id)
        f++;
    return f;
}

/* The tensor that a unit belongs to. */
static size_t tensor_of_unit(const struct mix_inventory *inv, uint32_t unit)
{
    size_t low = 0, high = inv->ckpt->m.tensor_count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (inv->first_unit[middle] <= unit)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static enum mix_rc add_unit(const struct mix_inventory *inv, struct mix_reader *reader,
                            uint32_t unit, struct mix_group *group, struct mix_err *err)
{
    size_t k = tensor_of_unit(inv, unit);
    const struct mix_ckpt_tensor *t = &inv->ckpt->m.tensor[k];
    uint64_t i = unit - inv->first_unit[k], row_begin, row_end;
    struct mix_item item = { .tensor = (uint32_t)k };
    struct mix_place place;
    struct mix_part *part;
    enum mix_rc rc = mix_new_array(&part, t->cut.column_parts, sizeof *part, err);

    if (rc)
        return rc;
    mix_cut_rows(&t->cut, i, &row_begin, &row_end);
    item.begin = row_begin * t->cut.row_bytes;
    item.end = row_end * t->cut.row_bytes;
    for (uint64_t j = 0; j < t->cut.column_parts && !rc; j++) {
        if ((rc = mix_reader_place(reader, t, i * t->cut.column_parts + j, &place, err)))
            break;
        part[j].file = file_in_group(group, place.file);
        part[j].offset = place.offset;
        mix_cut_columns(&t->cut, j, &part[j].column_begin, &part[j].column_end);
    }
    if (!rc)
        rc = mix_group_add_item(group, &item, part, (uint32_t)t->cut.column_parts, err);
    free(part);
    return rc;
}

enum mix_rc mix_inventory_build(const struct mix_inventory *inv, struct mix_reader *reader,
                                size_t g, struct mix_group *group, struct mix_err *err)
{
    enum mix_rc rc = add_files(inv, g, group, err);

    for (size_t i = inv->first[g]; i < inv->first[g + 1] && !rc; i++)
        rc = add_unit(inv, reader, inv->unit[i], group, err);
    return rc ? rc : mix_group_settle(group, err);
}

/* The pieces of one file of a group, as its container wants to know them. */
static enum mix_rc list_pieces(const struct mix_inventory *inv, const struct mix_group *group,
                               size_t f, struct mix_arena *arena, struct mix_shard_piece **out,
                               size_t *count, struct mix_err *err)
{
    struct mix_shard_piece *piece = NULL;
    size_t capacity = 0;
    enum mix_rc rc = MIX_OK;

    *count = 0;
    for (size_t i = 0; i < group->item_count && !rc; i++) {
        const struct mix_item *item = &group->item[i];
        const struct mix_ckpt_tensor *t = &inv->ckpt->m.tensor[item->tensor];
        uint64_t row = t->cut.row_bytes ? item->begin / t->cut.row_bytes : 0;
        uint64_t part_i = mix_cut_part_of_row(&t->cut, row), *box;

        for (uint32_t j = 0; j < item->part_count && !rc; j++) {
            if (group->part[item->part_first + j].file != f)
                continue;
            if ((rc = mix_grow(&piece, &capacity, *count, sizeof *piece, err)) ||
                (rc = mix_arena_new(arena, &box, 2 * t->rank * sizeof *box, err)))
                break;
            mix_cut_box(&t->cut, t->rank, t->shape, part_i, j, box, box + t->rank);
            piece[(*count)++] = (struct mix_shard_piece){
                .name = t->name, .dtype = t->dtype, .rank = t->rank, .start = box,
                .shape = box + t->rank, .tensor_shape = t->shape,
                .bytes = mix_cut_piece_bytes(&t->cut, part_i, j),
                .offset = group->part[item->part_first + j].offset,
            };
        }
    }
    *out = piece;
    return rc;
}

enum mix_rc mix_inventory_header(const struct mix_inventory *inv, const struct mix_group *group,
                                 size_t f, struct mix_buf *header, struct mix_err *err)
{
    struct mix_arena arena = MIX_ARENA_INIT;
    struct mix_shard_piece *piece = NULL;
    uint64_t *said = NULL, bytes;
    size_t count;
    enum mix_rc rc;

    if ((rc = list_pieces(inv, group, f, &arena, &piece, &count, err)) ||
        (rc = mix_new_array(&said, count, sizeof *said, err)))
        goto out;
    for (size_t i = 0; i < count; i++) {
        said[i] = piece[i].offset;
        if (i && strcmp(piece[i - 1].name, piece[i].name) >= 0) {
            rc = mix_fail(err, MIX_BAD_FORMAT, "holds two pieces of the tensor '%s'",
                          piece[i].name);
            goto out;
        }
    }
    if ((rc = mix_shard_layout(inv->ckpt->m.container, piece, count, header, &bytes, err)))
        goto out;
    for (size_t i = 0; i < count && !rc; i++)
        if (said[i] != piece[i].offset)
            rc = mix_fail(err, MIX_BAD_FORMAT, "its piece of the tensor '%s' is said to begin at "
                          "byte %" PRIu64 "; in this container it begins at %" PRIu64,
                          piece[i].name, said[i], piece[i].offset);
    if (!rc && bytes != group->file[f].bytes)
        rc = mix_fail(err, MIX_BAD_FORMAT, "is said to hold %" PRIu64 " bytes; its pieces make %"
                      PRIu64, group->file[f].bytes, bytes);
out:
    free(piece);
    free(said);
    mix_arena_release(&arena);
    return rc;
}
