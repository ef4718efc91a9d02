/*
 * layout.c - shards on a mesh: which file holds which part of which tensor.
 *
 * TP cuts first (rows or columns, as the family's table says), then hsd cuts the rows of
 * what a TP rank holds. Experts lie in the files of the EP rank that owns them, all else
 * in the dense files, once. What TP does not cut lies in tp 0. Optimizer state follows
 * its weight, under optimizer/.
 *
 * A class is all tensors whose pieces share files: weights or optimizer state, dense or
 * of one EP rank. A group is the files of a class at one hsd coordinate, one a TP rank.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/digest_tree.h"
#include "ckpt/names/families.h"
#include "reshard/target.h"

enum { MAX_DEGREE = 65536, MAX_FILES = 1 << 22 };

/* Where the rules put a tensor. */
struct placing {
    uint32_t class;
    enum mix_tp_cut tp;
};

struct layout_file {
    uint64_t pieces, bytes;
    uint64_t shared_bytes; /* of pieces that every TP rank holds in memory */
    uint32_t id; /* index in m.file; only if it has pieces */
};

struct layout {
    enum mix_container container;
    struct mix_mesh mesh;
    size_t class_count;         /* 2 * (1 + ep): dense, ep 0, ep 1, ...; then optimizer */
    struct placing *placing;    /* one a tensor */
    size_t *class_first;        /* class_count + 1 places in class_tensor */
    uint32_t *class_tensor;     /* tensors by class, in order */
    struct layout_file *file;   /* [class][hsd][tp] */
    size_t *group_slot;         /* [class][hsd] of each group */
};

static struct layout_file *file_at(const struct layout *l, size_t class, uint64_t hsd,
                                   uint64_t tp)
{
    return &l->file[(class * l->mesh.hsd + hsd) * l->mesh.tp + tp];
}

/* ---- the rules ---- */

static enum mix_rc check_degree(const char *what, uint64_t degree, const char *of,
                                uint64_t number, struct mix_err *err)
{
    char legal[256];

    if (degree && degree <= MAX_DEGREE && number && number % degree == 0)
        return MIX_OK;
    return mix_fail(err, MIX_USAGE, "%s %" PRIu64 " does not divide the %" PRIu64 " %s; legal are %s",
                    what, degree, number, of, mix_divisors_text(number, legal));
}

static enum mix_rc check_mesh(const struct mix_geometry *g, const struct mix_mesh *mesh,
                              struct mix_err *err)
{
    enum mix_rc rc;

    if (!mesh->hsd || mesh->hsd > MAX_DEGREE)
        return mix_fail(err, MIX_USAGE, "hsd %" PRIu64 " is not possible; legal are 1 to %d",
                        mesh->hsd, MAX_DEGREE);
    if (!g->family && (mesh->ep != 1 || mesh->tp != 1))
        return mix_fail(err, MIX_USAGE,
                        "ep %" PRIu64 " and tp %" PRIu64 " need a model whose experts and heads "
                        "are known; for %s%s only ep 1 and tp 1 are legal", mesh->ep, mesh->tp,
                        *g->model_type ? "model type " : "a checkpoint without config.json",
                        g->model_type);
    if (g->family && ((rc = check_degree("ep", mesh->ep, "experts", g->experts, err)) ||
                      (rc = check_degree("tp", mesh->tp, "key-value heads", g->kv_heads, err)) ||
                      (rc = check_degree("tp", mesh->tp, "rows of the intermediate size",
                                         g->intermediate, err))))
        return rc;
    if (mesh->ep * mesh->hsd * mesh->tp > MAX_FILES / 4)
        return mix_fail(err, MIX_USAGE, "a mesh of %" PRIu64 " ranks; at most %d are possible",
                        mesh->ep * mesh->hsd * mesh->tp, MAX_FILES / 4);
    return MIX_OK;
}

/* What no rule knows is dense and cut by hsd alone. */
static struct placing place(const struct layout *l, const struct mix_geometry *g,
                            const char *name)
{
    struct mix_name_match match = { 0 };
    struct placing p = { 0, MIX_TP_NONE };
    const char *suffix;
    size_t len = mix_name_split(name, &suffix);

    if (g->family)
        mix_family_match(g->family, name, len, &match);
    if (match.tensor && (!match.has_layer || match.layer < g->layers) &&
        (!match.has_expert || match.expert < g->experts)) {
        p.tp = match.tensor->tp;
        if (match.has_expert)
            p.class = 1 + (uint32_t)(match.expert / (g->experts / l->mesh.ep));
    }
    if (suffix)
        p.class += 1 + (uint32_t)l->mesh.ep;
    return p;
}

static void cut(const struct layout *l, const struct placing *p, struct mix_ckpt_tensor *t)
{
    mix_cut_init(&t->cut, t->dtype, t->rank, t->shape, p->tp == MIX_TP_ROWS ? l->mesh.tp : 1,
                 l->mesh.hsd, p->tp == MIX_TP_COLUMNS ? l->mesh.tp : 1);
}

/* ---- counting ---- */

/* Sort the tensors into classes, keeping their order. */
static enum mix_rc classify(struct mix_target *target, struct layout *l,
                            const struct mix_geometry *g, struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    size_t *next;
    enum mix_rc rc;

    if ((rc = mix_new_array(&l->placing, m->tensor_count, sizeof *l->placing, err)) ||
        (rc = mix_new_array(&l->class_first, l->class_count + 1, sizeof *next, err)) ||
        (rc = mix_new_array(&l->class_tensor, m->tensor_count, sizeof *l->class_tensor, err)) ||
        (rc = mix_new_array(&next, l->class_count, sizeof *next, err)))
        return rc;
    for (size_t i = 0; i < m->tensor_count; i++) {
        l->placing[i] = place(l, g, m->tensor[i].name);
        cut(l, &l->placing[i], &m->tensor[i]);
        l->class_first[l->placing[i].class + 1]++;
    }
    for (size_t c = 0; c < l->class_count; c++) {
        l->class_first[c + 1] += l->class_first[c];
        next[c] = l->class_first[c];
    }
    for (size_t i = 0; i < m->tensor_count; i++)
        l->class_tensor[next[l->placing[i].class]++] = (uint32_t)i;
    free(next);
    return MIX_OK;
}

/* The coordinates in (hsd, tp) of piece (i, j) of a tensor. */
static void piece_at(const struct placing *p, const struct mix_cut *cut, uint64_t i, uint64_t j,
                     uint64_t *hsd, uint64_t *tp)
{
    uint64_t outer;

    mix_cut_coordinates(cut, i, &outer, hsd);
    *tp = p->tp == MIX_TP_COLUMNS ? j : outer;
}

/* What must be read behind row part i, so that the leaf which begins in it is whole. */
static uint64_t tail_bytes(const struct mix_ckpt_tensor *t, uint64_t i)
{
    uint64_t row_begin, row_end, begin, end, leaf;

    mix_cut_rows(&t->cut, i, &row_begin, &row_end);
    begin = row_begin * t->cut.row_bytes;
    end = row_end * t->cut.row_bytes;
    leaf = end - end % MIX_LEAF_BYTES;
    return leaf < begin || leaf == end ? 0 : mix_min(leaf + MIX_LEAF_BYTES, t->bytes) - end;
}

static void count_pieces(struct mix_target *target, struct layout *l)
{
    for (size_t t = 0; t < target->m.tensor_count; t++) {
        const struct mix_cut *c = &target->m.tensor[t].cut;

        for (uint64_t i = 0; i < c->row_parts; i++) {
            target->tail_bytes += tail_bytes(&target->m.tensor[t], i);
            for (uint64_t j = 0; j < c->column_parts; j++) {
                uint64_t hsd, tp;
                struct layout_file *f;

                piece_at(&l->placing[t], c, i, j, &hsd, &tp);
                f = file_at(l, l->placing[t].class, hsd, tp);
                f->pieces++;
                f->bytes += mix_cut_piece_bytes(c, i, j);
                if (l->placing[t].tp == MIX_TP_NONE)
                    f->shared_bytes += mix_cut_piece_bytes(c, i, j);
            }
        }
    }
}

static enum mix_rc file_name(struct mix_arena *arena, const struct layout *l, size_t class,
                             uint64_t hsd, uint64_t tp, const char **out, struct mix_err *err)
{
    uint64_t ep = l->mesh.ep;
    size_t kind = class % (1 + ep);
    char experts[64] = "", tensor_parallel[64] = "", name[256];
    int n;

    if (kind)
        snprintf(experts, sizeof experts, "-ep%05" PRIu64 "of%05" PRIu64, (uint64_t)kind - 1, ep);
    if (l->mesh.tp > 1)
        snprintf(tensor_parallel, sizeof tensor_parallel, "-tp%05" PRIu64 "of%05" PRIu64, tp,
                 l->mesh.tp);
    n = snprintf(name, sizeof name, "%s/%s%s-hsd%05" PRIu64 "of%05" PRIu64 "%s.%s",
                 class > ep ? "optimizer" : "model", kind ? "experts" : "dense", experts, hsd,
                 l->mesh.hsd, tensor_parallel, mix_container_extension(l->container));
    return mix_arena_text(arena, name, (size_t)n, out, err);
}

/* Number the files that have pieces, in the order of their names, and the groups. */
static enum mix_rc number(struct mix_target *target, struct layout *l, struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    size_t slots = l->class_count * l->mesh.hsd, files = slots * l->mesh.tp;
    enum mix_rc rc;

    if ((rc = mix_arena_new(&m->arena, &m->file, files * sizeof *m->file, err)) ||
        (rc = mix_new_array(&target->group_bytes, slots, sizeof *target->group_bytes, err)) ||
        (rc = mix_new_array(&l->group_slot, slots, sizeof *l->group_slot, err)))
        return rc;
    for (size_t slot = 0; slot < slots; slot++) {
        uint64_t bytes = 0, pieces = 0;

        for (uint64_t tp = 0; tp < l->mesh.tp; tp++) {
            struct layout_file *f = &l->file[slot * l->mesh.tp + tp];

            if (!f->pieces)
                continue;
            pieces += f->pieces;
            bytes += f->bytes;
            f->id = (uint32_t)m->file_count;
            if ((rc = file_name(&m->arena, l, slot / l->mesh.hsd, slot % l->mesh.hsd, tp,
                                &m->file[m->file_count++].name, err)))
                return rc;
        }
        if (!pieces)
            continue;
        l->group_slot[target->group_count] = slot;
        target->group_bytes[target->group_count++] = bytes;
    }
    return MIX_OK;
}

/* ---- groups ---- */

/* The pieces of one file of a group, as the container wants to know them. */
struct file_pieces {
    struct mix_shard_piece *piece;
    size_t count, capacity;
};

static enum mix_rc add_piece(struct mix_group *group, const struct mix_ckpt_tensor *t,
                             uint64_t i, uint64_t j, struct file_pieces *list,
                             struct mix_err *err)
{
    struct mix_shard_piece *p;
    uint64_t *box;
    enum mix_rc rc;

    if ((rc = mix_grow(&list->piece, &list->capacity, list->count, sizeof *p, err)) ||
        (rc = mix_arena_new(&group->arena, &box, 2 * t->rank * sizeof *box, err)))
        return rc;
    mix_cut_box(&t->cut, t->rank, t->shape, i, j, box, box + t->rank);
    p = &list->piece[list->count++];
    *p = (struct mix_shard_piece){ .name = t->name, .dtype = t->dtype, .rank = t->rank,
                                   .start = box, .shape = box + t->rank,
                                   .tensor_shape = t->shape,
                                   .bytes = mix_cut_piece_bytes(&t->cut, i, j) };
    return MIX_OK;
}

/*
 * Call `each` for every item of a group, in order: row part i of a tensor, which lies in
 * the file of TP rank `tp`, or for column cuts in those of all of them.
 */
static enum mix_rc for_each_item(const struct mix_target *target, size_t slot,
                                 enum mix_rc (*each)(void *context, uint32_t tensor, uint64_t i,
                                                     uint64_t tp, struct mix_err *err),
                                 void *context, struct mix_err *err)
{
    const struct layout *l = target->own;
    size_t class = slot / l->mesh.hsd;
    uint64_t hsd = slot % l->mesh.hsd;
    enum mix_rc rc;

    for (size_t k = l->class_first[class]; k < l->class_first[class + 1]; k++) {
        uint32_t t = l->class_tensor[k];
        uint64_t outer = l->placing[t].tp == MIX_TP_ROWS ? l->mesh.tp : 1, i;

        for (uint64_t o = 0; o < outer; o++)
            if (mix_cut_part_at(&target->m.tensor[t].cut, o, hsd, &i) &&
                (rc = each(context, t, i, o, err)))
                return rc;
    }
    return MIX_OK;
}

struct building {
    const struct mix_target *target;
    struct mix_group *group;
    struct file_pieces *list;  /* one a TP rank */
    size_t *taken;             /* pieces of each list that items have been made of */
    uint32_t *group_file;      /* TP rank -> file of the group */
};

static enum mix_rc list_pieces(void *context, uint32_t tensor, uint64_t i, uint64_t tp,
                               struct mix_err *err)
{
    struct building *b = context;
    const struct mix_ckpt_tensor *t = &b->target->m.tensor[tensor];
    enum mix_rc rc = MIX_OK;

    for (uint64_t j = 0; j < t->cut.column_parts && !rc; j++)
        rc = add_piece(b->group, t, i, j, &b->list[tp + j], err);
    return rc;
}

static enum mix_rc list_item(void *context, uint32_t tensor, uint64_t i, uint64_t tp,
                             struct mix_err *err)
{
    struct building *b = context;
    const struct mix_ckpt_tensor *t = &b->target->m.tensor[tensor];
    struct mix_item item = { .tensor = tensor };
    struct mix_part *part;
    uint64_t row_begin, row_end;
    enum mix_rc rc;

    if ((rc = mix_new_array(&part, t->cut.column_parts, sizeof *part, err)))
        return rc;
    mix_cut_rows(&t->cut, i, &row_begin, &row_end);
    item.begin = row_begin * t->cut.row_bytes;
    item.end = row_end * t->cut.row_bytes;
    for (uint64_t j = 0; j < t->cut.column_parts; j++) {
        part[j].file = b->group_file[tp + j];
        part[j].offset = b->list[tp + j].piece[b->taken[tp + j]++].offset;
        mix_cut_columns(&t->cut, j, &part[j].column_begin, &part[j].column_end);
    }
    rc = mix_group_add_item(b->group, &item, part, (uint32_t)t->cut.column_parts, err);
    free(part);
    return rc;
}

static enum mix_rc lay_out_files(struct building *b, const struct layout *l, size_t slot,
                                 struct mix_err *err)
{
    enum mix_rc rc;

    for (uint64_t tp = 0; tp < l->mesh.tp; tp++) {
        const struct layout_file *f = &l->file[slot * l->mesh.tp + tp];
        struct mix_group_file file = { .id = f->id, .fd = -1 };

        if (!f->pieces)
            continue;
        file.name = b->target->m.file[f->id].name;
        if ((rc = mix_shard_layout(l->container, b->list[tp].piece, b->list[tp].count,
                                   &file.header, &file.bytes, err)) ||
            (rc = mix_group_add_file(b->group, &file, err))) {
            mix_buf_release(&file.header);
            return mix_err_file(err, file.name);
        }
        b->group_file[tp] = (uint32_t)b->group->file_count - 1;
    }
    return MIX_OK;
}

static enum mix_rc build(const struct mix_target *target, size_t g, struct mix_group *group,
                         struct mix_err *err)
{
    const struct layout *l = target->own;
    struct building b = { .target = target, .group = group };
    size_t slot = l->group_slot[g], tp = l->mesh.tp;
    enum mix_rc rc;

    if ((rc = mix_new_array(&b.list, tp, sizeof *b.list, err)) ||
        (rc = mix_new_array(&b.taken, tp, sizeof *b.taken, err)) ||
        (rc = mix_new_array(&b.group_file, tp, sizeof *b.group_file, err)) ||
        (rc = for_each_item(target, slot, list_pieces, &b, err)) ||
        (rc = lay_out_files(&b, l, slot, err)) ||
        (rc = for_each_item(target, slot, list_item, &b, err)) ||
        (rc = mix_group_settle(group, err)))
        goto out;
out:
    for (size_t i = 0; b.list && i < tp; i++)
        free(b.list[i].piece);
    free(b.list);
    free(b.taken);
    free(b.group_file);
    return rc;
}

static void release(struct mix_target *target)
{
    struct layout *l = target->own;

    if (!l)
        return;
    free(l->placing);
    free(l->class_first);
    free(l->class_tensor);
    free(l->file);
    free(l->group_slot);
    free(l);
}

enum mix_rc mix_target_shards(struct mix_target *target, const struct mix_geometry *geometry,
                              enum mix_container container, const struct mix_mesh *mesh,
                              struct mix_err *err)
{
    struct layout *l;
    enum mix_rc rc;

    if ((rc = check_mesh(geometry, mesh, err)) || (rc = mix_new(&l, sizeof *l, err)))
        return rc;
    target->own = l;
    target->release = release;
    target->build = build;
    target->m.container = l->container = container;
    target->m.mesh = l->mesh = *mesh;
    l->class_count = 2 * (1 + mesh->ep);
    if ((rc = mix_new_array(&l->file, l->class_count * mesh->hsd * mesh->tp, sizeof *l->file,
                            err)) ||
        (rc = classify(target, l, geometry, err)) || (rc = mix_manifest_number(&target->m, err)))
        return rc;
    count_pieces(target, l);
    return number(target, l, err);
}

uint64_t mix_target_rank_bytes(const struct mix_target *target, uint64_t ep, uint64_t hsd,
                               uint64_t tp)
{
    const struct layout *l = target->own;
    uint64_t bytes = 0;

    for (size_t class = 0; class < l->class_count; class++) {
        size_t kind = class % (1 + l->mesh.ep);

        if (kind && kind != 1 + ep)
            continue; /* experts of another EP rank */
        bytes += file_at(l, class, hsd, tp)->bytes;
        if (tp)
            bytes += file_at(l, class, hsd, 0)->shared_bytes;
    }
    return bytes;
}
