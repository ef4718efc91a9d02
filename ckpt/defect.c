/* defect.c - lists of defects and of warnings. */
#include "ckpt/defect.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT = 10000 };

void mix_defects_init(struct mix_defects *list)
{
    memset(list, 0, sizeof *list);
    pthread_mutex_init(&list->lock, NULL);
}

void mix_defects_release(struct mix_defects *list)
{
    mix_arena_release(&list->arena);
    free(list->defect);
    pthread_mutex_destroy(&list->lock);
    memset(list, 0, sizeof *list);
}

static enum mix_rc add(struct mix_defects *list, const struct mix_defect *d,
                       struct mix_err *err)
{
    struct mix_defect copy = *d;
    enum mix_rc rc;

    if (list->count >= KEPT) {
        list->left_out++;
        return MIX_OK;
    }
    if ((rc = mix_grow(&list->defect, &list->capacity, list->count, sizeof copy, err)) ||
        (rc = mix_arena_text(&list->arena, d->file, strlen(d->file), &copy.file, err)) ||
        (rc = mix_arena_text(&list->arena, d->tensor, strlen(d->tensor), &copy.tensor, err)) ||
        (rc = mix_arena_text(&list->arena, d->message, strlen(d->message), &copy.message, err)))
        return rc;
    list->defect[list->count++] = copy;
    return MIX_OK;
}

enum mix_rc mix_defects_add(struct mix_defects *list, const char *kind, const char *file,
                            const char *tensor, uint64_t begin, uint64_t end,
                            struct mix_err *err, const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    enum mix_rc rc;

    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    for (char *p = message; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';

    struct mix_defect d = { kind, file ? file : "", tensor ? tensor : "", begin, end, message };

    pthread_mutex_lock(&list->lock);
    rc = add(list, &d, err);
    pthread_mutex_unlock(&list->lock);
    return rc;
}

enum mix_rc mix_defects_take(struct mix_defects *list, const char *file, enum mix_rc rc,
                             struct mix_err *err)
{
    static const struct {
        enum mix_rc rc;
        const char *kind;
    } kinds[] = {
        { MIX_NOT_FOUND, "missing" }, { MIX_TRUNCATED, "truncated" },
        { MIX_BAD_FORMAT, "bad-format" }, { MIX_OVERLAP, "overlap" }, { MIX_HOLE, "hole" },
        { MIX_CORRUPT, "corrupt" }, { MIX_MISMATCH, "bad-format" },
    };
    struct mix_err ignored;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].rc != rc)
            continue;
        return mix_defects_add(list, kinds[i].kind, file ? file : err->file, err->tensor,
                               err->has_range ? err->begin : 0, err->has_range ? err->end : 0,
                               &ignored, "%s", err->text);
    }
    return rc;
}

static int in_order(const void *pa, const void *pb)
{
    const struct mix_defect *a = pa, *b = pb;
    int order = strcmp(a->file, b->file);

    if (!order)
        order = strcmp(a->tensor, b->tensor);
    if (!order)
        order = a->begin < b->begin ? -1 : a->begin > b->begin;
    return order ? order : strcmp(a->message, b->message);
}

void mix_defects_sort(struct mix_defects *list)
{
    if (list->count)
        qsort(list->defect, list->count, sizeof *list->defect, in_order);
}

void mix_texts_init(struct mix_texts *list)
{
    memset(list, 0, sizeof *list);
    pthread_mutex_init(&list->lock, NULL);
}

void mix_texts_release(struct mix_texts *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->text[i]);
    free(list->text);
    pthread_mutex_destroy(&list->lock);
    memset(list, 0, sizeof *list);
}

enum mix_rc mix_texts_add(struct mix_texts *list, struct mix_err *err, const char *fmt, ...)
{
    struct mix_err words;
    char text[1024];
    char *copy = NULL;
    va_list ap;
    enum mix_rc rc;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mix_fail(&words, MIX_OK, "%s", text); /* for its cleaning of control characters */

    pthread_mutex_lock(&list->lock);
    if (!(rc = mix_grow(&list->text, &list->capacity, list->count, sizeof *list->text, err))) {
        if ((copy = strdup(words.text)))
            list->text[list->count++] = copy;
        else
            rc = mix_fail(err, MIX_NO_MEMORY, "out of memory");
    }
    pthread_mutex_unlock(&list->lock);
    return rc;
}
