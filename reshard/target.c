/* target.c - what the kinds of target share. */
#include "reshard/target.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/names/families.h"
#include "reshard/change_dtype.h"

static enum mix_rc copy_tensor(struct mix_arena *arena, const struct mix_ckpt_tensor *from,
                               struct mix_ckpt_tensor *to, struct mix_err *err)
{
    uint64_t *shape;
    enum mix_rc rc;

    memset(to, 0, sizeof *to);
    to->dtype = from->dtype;
    to->rank = from->rank;
    to->bytes = from->bytes;
    if ((rc = mix_arena_text(arena, from->name, strlen(from->name), &to->name, err)) ||
        (rc = mix_arena_new(arena, &shape, from->rank * sizeof *shape, err)))
        return rc;
    if (from->rank)
        memcpy(shape, from->shape, from->rank * sizeof *shape);
    to->shape = shape;
    mix_cut_init(&to->cut, to->dtype, to->rank, to->shape, 1, 1, 1);
    return MIX_OK;
}

enum mix_rc mix_target_take(struct mix_target *target, const struct mix_manifest *list,
                            bool weights_only, struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    const char *suffix;
    enum mix_rc rc;

    memset(target, 0, sizeof *target);
    if ((rc = mix_arena_new(&m->arena, &m->tensor, list->tensor_count * sizeof *m->tensor, err)))
        return rc;
    for (size_t i = 0; i < list->tensor_count; i++) {
        mix_name_split(list->tensor[i].name, &suffix);
        if (weights_only && suffix)
            continue;
        if ((rc = copy_tensor(&m->arena, &list->tensor[i], &m->tensor[m->tensor_count], err)))
            return rc;
        target->bytes += m->tensor[m->tensor_count++].bytes;
    }
    return mix_manifest_number(m, err);
}

enum mix_rc mix_target_change_dtype(struct mix_target *target, enum mix_dtype dtype,
                                    struct mix_err *err)
{
    struct mix_manifest *m = &target->m;
    const char *suffix;
    enum mix_rc rc;

    for (size_t i = 0; i < m->tensor_count; i++) {
        struct mix_ckpt_tensor *t = &m->tensor[i];

        mix_name_split(t->name, &suffix);
        if (suffix || !mix_dtype_can_change(t->dtype, dtype))
            continue;
        target->bytes -= t->bytes;
        t->dtype = dtype;
        if ((rc = mix_dtype_bytes(dtype, t->rank, t->shape, &t->bytes, err)))
            return rc;
        target->bytes += t->bytes;
        mix_cut_init(&t->cut, t->dtype, t->rank, t->shape, 1, 1, 1);
    }
    return mix_manifest_number(m, err);
}

void mix_target_release(struct mix_target *target)
{
    if (target->release)
        target->release(target);
    free(target->group_bytes);
    mix_manifest_release(&target->m);
    memset(target, 0, sizeof *target);
}

/* The smallest divisor above `d`: up to the root by trying, beyond it as a cofactor. */
static uint64_t next_divisor(uint64_t number, uint64_t d)
{
    for (d++; d <= number / d; d++)
        if (number % d == 0)
            return d;
    for (uint64_t q = number / d; q > 1; q--)
        if (number % q == 0)
            return number / q;
    return number;
}

const char *mix_divisors_text(uint64_t number, char out[256])
{
    size_t used = (size_t)snprintf(out, 256, "%d", number ? 1 : 0);

    for (uint64_t d = 1; d < number;) {
        d = next_divisor(number, d);
        if (used >= 200) {
            snprintf(out + used, 256 - used, ", ... and %" PRIu64, number);
            break;
        }
        used += (size_t)snprintf(out + used, 256 - used, "%s%" PRIu64, d < number ? ", " : " and ",
                                 d);
    }
    return out;
}
