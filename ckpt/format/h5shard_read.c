/*
 * h5shard_read.c - the list of tensors in an HDF5 file, read without libhdf5.
 *
 * libhdf5 was not made for files from strangers (CVE-2026-26200 writes beyond its
 * heap), so we parse the small part of the format that tensors need, and refuse the
 * rest by name. From the superblock on it is one walk over a stack of things to look
 * at:
 *
 *   object --(symbol table message)--> tree --> tree --> leaf --(links)--> object ...
 *   object --(dataspace, datatype, layout)--> a tensor
 *
 * Nothing recurses, and three rules bound the work whatever the file says: no address
 * is visited twice (so there are no cycles), the metadata that is parsed adds up to no
 * more than the file has bytes (so overlapping structures gain nothing), and there are
 * at most two million objects.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/mem.h"
#include "ckpt/format/h5parts.h"
#include "ckpt/format/h5shard.h"
#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"

enum {
    MAX_OBJECTS = 2000000,
    MAX_DEPTH = 64,              /* of groups in groups */
    MAX_LEVEL = 15,              /* of a B-tree: with 32 children a node, no file needs 8 */
    MAX_PENDING = 1 << 20,       /* things on the stack */
    MAX_LINK_BYTES = 3 * MIX_H5_MAX_NAME,
    MAX_PATHS_BYTES = 1 << 30,   /* all paths together, and no more than 4 file sizes */

    /*
     * Metadata is read through a few windows. A new one that begins where another
     * ended, or little behind, serves somebody who is reading along, and is large;
     * elsewhere a small one is enough.
     */
    WINDOWS = 8, /* more than there are streams: tree, leaf, names, objects, continuations */
    WINDOW_BYTES = 64 << 10,
    WINDOW_FIRST_BYTES = 8 << 10,
};

struct window {
    unsigned char *data; /* WINDOW_BYTES, once used */
    uint64_t at;
    size_t len;
    uint64_t used; /* when last, by a counter */
};

/* A group: what the walk must know to name its links. */
struct group {
    const char *path; /* "" for the root, else with a '/' behind it */
    unsigned depth;
    uint64_t names_at, names_bytes; /* the data of its local heap */
};

/* Something to look at. */
struct item {
    enum { OBJECT, TREE, LEAF } kind;
    int level;                 /* TREE: what its parent promises; -1: any */
    uint64_t at;
    const struct group *group; /* OBJECT: that it is linked from, NULL for the root */
    const char *path;          /* OBJECT */
};

struct entry {
    struct mix_tensor tensor;
    const uint64_t *start, *tensor_shape;
};

struct reader {
    struct mix_store *store;
    const char *path;
    struct mix_arena *arena; /* the result's */
    uint64_t end;            /* of the file, as the superblock has it */
    uint64_t budget;         /* metadata bytes that may still be parsed */
    uint64_t path_budget;    /* bytes of paths that may still be made */
    struct window window[WINDOWS];
    uint64_t clock;
    uint64_t *seen; /* addresses, hashed; 0: free */
    size_t seen_count, seen_capacity;
    struct item *stack;
    size_t depth, stack_capacity;
    size_t objects;
    struct entry *entry;
    size_t entry_count, entry_capacity;
    struct mix_buf link;
    unsigned char message[MIX_H5_MAX_MESSAGE];
};

struct mix_h5shard {
    struct mix_arena arena;
    struct mix_tensor *tensor;
    const uint64_t **start, **tensor_shape;
    size_t count;
};

/* ---- reading bytes ---- */

/* The window that holds byte `at`, which lies in the file. */
static enum mix_rc window_at(struct reader *r, uint64_t at, struct window **out,
                             struct mix_err *err)
{
    struct window *w = r->window;
    bool goes_on = false;
    enum mix_rc rc;

    for (size_t i = 0; i < WINDOWS; i++) {
        struct window *have = &r->window[i];

        if (have->len && at >= have->at && at - have->at < have->len) {
            have->used = ++r->clock;
            *out = have;
            return MIX_OK;
        }
        goes_on = goes_on || (have->len && at >= have->at && at - have->at - have->len < 4096);
        if (have->used < w->used)
            w = have;
    }
    if (!w->data && (rc = mix_new(&w->data, WINDOW_BYTES, err)))
        return rc;
    w->len = 0; /* holds nothing if the read fails */

    /* Elsewhere begin a little earlier: what comes next may stand in front. */
    uint64_t begin = goes_on ? at : at & ~(uint64_t)4095;
    size_t len = (size_t)mix_min(goes_on ? WINDOW_BYTES : WINDOW_FIRST_BYTES, r->end - begin);

    if ((rc = mix_store_read(r->store, r->path, begin, w->data, len, err)))
        return rc;
    w->at = begin;
    w->len = len;
    w->used = ++r->clock;
    *out = w;
    return MIX_OK;
}

static enum mix_rc spend(struct reader *r, uint64_t bytes, struct mix_err *err)
{
    if (bytes > r->budget)
        return mix_fail(err, MIX_BAD_FORMAT, "its parts overlap: more bytes of metadata are"
                        " pointed at than the file has");
    r->budget -= bytes;
    return MIX_OK;
}

/* Copy metadata [at, at + len); `what` names it where it leaves the file. */
static enum mix_rc fetch(struct reader *r, const char *what, uint64_t at, void *buf,
                         size_t len, struct mix_err *err)
{
    unsigned char *to = buf;
    enum mix_rc rc;

    if (at > r->end || len > r->end - at)
        return mix_fail(err, MIX_BAD_FORMAT, "%s at byte %" PRIu64 " reaches beyond the end of"
                        " the file, byte %" PRIu64, what, at, r->end);
    if ((rc = spend(r, len, err)))
        return rc;
    while (len) {
        struct window *w;

        if ((rc = window_at(r, at, &w, err)))
            return rc;

        size_t skip = (size_t)(at - w->at), part = mix_min(len, w->len - skip);

        memcpy(to, w->data + skip, part);
        to += part;
        at += part;
        len -= part;
    }
    return MIX_OK;
}

/* ---- addresses seen ---- */

static size_t seen_slot(const uint64_t *seen, size_t capacity, uint64_t at)
{
    size_t slot = (size_t)(at * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (capacity - 1);

    while (seen[slot] && seen[slot] != at)
        slot = (slot + 1) & (capacity - 1);
    return slot;
}

static enum mix_rc seen_grow(struct reader *r, struct mix_err *err)
{
    size_t capacity = r->seen_capacity ? r->seen_capacity * 2 : 256;
    uint64_t *seen;
    enum mix_rc rc = mix_new_array(&seen, capacity, sizeof *seen, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < r->seen_capacity; i++)
        if (r->seen[i])
            seen[seen_slot(seen, capacity, r->seen[i])] = r->seen[i];
    free(r->seen);
    r->seen = seen;
    r->seen_capacity = capacity;
    return MIX_OK;
}

/* A structure may be entered once: hard links and cycles end here. */
static enum mix_rc enter(struct reader *r, const char *what, uint64_t at, struct mix_err *err)
{
    enum mix_rc rc;

    if (at < MIX_H5_SUPERBLOCK || at >= r->end)
        return mix_fail(err, MIX_BAD_FORMAT, "%s at byte %" PRIu64 " lies outside of bytes"
                        " %d..%" PRIu64, what, at, MIX_H5_SUPERBLOCK, r->end);
    if (r->seen_count >= r->seen_capacity / 2 && (rc = seen_grow(r, err)))
        return rc;

    size_t slot = seen_slot(r->seen, r->seen_capacity, at);

    if (r->seen[slot])
        return mix_fail(err, MIX_UNSUPPORTED, "%s at byte %" PRIu64 " is linked a second time;"
                        " hard links and cycles are not read", what, at);
    r->seen[slot] = at;
    r->seen_count++;
    return MIX_OK;
}

static enum mix_rc push(struct reader *r, struct item item, struct mix_err *err)
{
    enum mix_rc rc = mix_grow(&r->stack, &r->stack_capacity, r->depth, sizeof item, err);

    if (r->depth >= MAX_PENDING)
        return mix_fail(err, MIX_UNSUPPORTED, "its trees are too wide: more than %d parts wait"
                        " to be read", MAX_PENDING);
    if (!rc)
        r->stack[r->depth++] = item;
    return rc;
}

/* Turn round what was pushed since `depth`, so that it is looked at in its order. */
static void turn(struct reader *r, size_t depth)
{
    for (size_t i = depth, k = r->depth; i + 1 < k; i++) {
        struct item item = r->stack[i];

        r->stack[i] = r->stack[--k];
        r->stack[k] = item;
    }
}

/* ---- an object: its header, message by message ---- */

struct object {
    const char *path;
    bool has_space, null_space, has_type, known_type, has_layout, has_group, has_external;
    uint32_t rank;
    uint64_t shape[MIX_MAX_RANK];
    enum mix_dtype stored;
    char type_words[96]; /* if it is none of ours */
    int layout_class;
    uint64_t data_at, data_bytes;
    unsigned filter_count, filter; /* the first one */
    uint64_t tree_at, heap_at;

    /* Attributes, where they have the form that H5SHARD.md gives them. */
    const char *name; /* NULL: not there */
    bool has_dtype;
    enum mix_dtype dtype;
    struct numbers {
        bool there;
        size_t count;
        uint64_t value[MIX_MAX_RANK];
    } start, tensor_shape, logical;
};

/* A message's body in memory, and where in the file it stands. */
struct body {
    const unsigned char *data;
    size_t len;
    uint64_t at;
};

static enum mix_rc too_short(const char *what, struct body body, struct mix_err *err)
{
    return mix_fail(err, MIX_BAD_FORMAT, "its %s message is cut short: %zu bytes", what,
                    body.len);
}

static enum mix_rc twice(const char *what, struct mix_err *err)
{
    return mix_fail(err, MIX_BAD_FORMAT, "it has two %s", what);
}

/*
 * A dataspace, version 1 or 2, of up to `max_rank` dimensions. Largest sizes and what
 * else may follow do not matter for data that is contiguous.
 */
static enum mix_rc parse_space(struct body body, size_t max_rank, uint32_t *rank,
                               uint64_t *shape, bool *null_space, struct mix_err *err)
{
    if (body.len < 4)
        return too_short("dataspace", body, err);

    unsigned version = body.data[0], flags = body.data[2];
    size_t prefix = version == 1 ? 8 : 4;

    *rank = body.data[1];
    *null_space = version == 2 && body.data[3] == 2;
    if (version != 1 && version != 2)
        return mix_fail(err, MIX_UNSUPPORTED, "its dataspace has version %u; 1 and 2 are read",
                        version);
    if (*rank > max_rank)
        return mix_fail(err, MIX_UNSUPPORTED, "it has %" PRIu32 " dimensions; up to %zu are"
                        " read", *rank, max_rank);
    if (flags & ~1u || (version == 2 && (body.data[3] > 2 || (body.data[3] != 1 && *rank))))
        return mix_fail(err, MIX_BAD_FORMAT, "its dataspace has flags 0x%02x and type %u with %"
                        PRIu32 " dimensions, which HDF5 does not know", flags, body.data[3],
                        *rank);
    if (body.len < prefix || (body.len - prefix) / 8 < *rank)
        return too_short("dataspace", body, err);
    for (uint32_t i = 0; i < *rank; i++)
        shape[i] = mix_load_le(body.data + prefix + 8 * i, 8);
    return MIX_OK;
}

static enum mix_rc take_space(struct reader *r, struct object *o, struct body body,
                              struct mix_err *err)
{
    (void)r;
    if (o->has_space)
        return twice("dataspace messages", err);
    o->has_space = true;
    return parse_space(body, MIX_MAX_RANK, &o->rank, o->shape, &o->null_space, err);
}

static enum mix_rc take_type(struct reader *r, struct object *o, struct body body,
                             struct mix_err *err)
{
    (void)r;
    if (o->has_type)
        return twice("datatype messages", err);
    o->has_type = true;
    o->known_type = mix_h5_find_datatype(body.data, body.len, &o->stored);
    if (!o->known_type)
        mix_h5_describe_datatype(body.data, body.len, o->type_words, sizeof o->type_words);
    return MIX_OK;
}

/* Version 3 only: what libhdf5 1.6.3 and later write for storage that is not chunked anew. */
static enum mix_rc take_layout(struct reader *r, struct object *o, struct body body,
                               struct mix_err *err)
{
    (void)r;
    if (o->has_layout)
        return twice("layout messages", err);
    o->has_layout = true;
    if (body.len < 4)
        return too_short("layout", body, err);
    o->layout_class = body.data[1];
    if (body.data[0] == 4 && o->layout_class >= 2)
        return MIX_OK; /* new kinds of chunked or virtual storage: finish() says so */
    if (body.data[0] != 3)
        return mix_fail(err, MIX_UNSUPPORTED, "its layout has version %u; 3 is read",
                        body.data[0]);
    if (o->layout_class == 0) { /* compact: size, and the data itself */
        o->data_bytes = mix_load_le(body.data + 2, 2);
        o->data_at = body.at + 4;
        if (o->data_bytes > body.len - 4)
            return too_short("layout", body, err);
    } else if (o->layout_class == 1) { /* contiguous: address and size */
        if (body.len < 18)
            return too_short("layout", body, err);
        o->data_at = mix_load_le(body.data + 2, 8);
        o->data_bytes = mix_load_le(body.data + 10, 8);
    }
    return MIX_OK;
}

static enum mix_rc take_external(struct reader *r, struct object *o, struct body body,
                                 struct mix_err *err)
{
    (void)r, (void)body, (void)err;
    o->has_external = true;
    return MIX_OK;
}

/* Version 1 puts six reserved bytes before the first filter's number, version 2 none. */
static enum mix_rc take_filters(struct reader *r, struct object *o, struct body body,
                                struct mix_err *err)
{
    (void)r;
    if (body.len < 8 || (body.data[0] == 1 && body.len < 10))
        return too_short("filter", body, err);
    o->filter_count = body.data[1];
    o->filter = (unsigned)mix_load_le(body.data + (body.data[0] == 1 ? 8 : 2), 2);
    return MIX_OK;
}

static enum mix_rc take_symbol_table(struct reader *r, struct object *o, struct body body,
                                     struct mix_err *err)
{
    (void)r;
    if (o->has_group)
        return twice("symbol table messages", err);
    if (body.len < 16)
        return too_short("symbol table", body, err);
    o->has_group = true;
    o->tree_at = mix_load_le(body.data, 8);
    o->heap_at = mix_load_le(body.data + 8, 8);
    return MIX_OK;
}

/* An attribute's parts, in the message that holds it. */
struct attribute {
    const char *name; /* NUL-terminated */
    struct body type, space, value;
};

/* The next `len` bytes of `body`, padded to 8 in version 1; false if they are not there. */
static bool take_part(struct body *body, size_t len, bool padded, struct body *part)
{
    size_t step = padded ? mix_round_up(len, 8) : len;

    if (step > body->len)
        return false;
    *part = (struct body){ body->data, len, body->at };
    *body = (struct body){ body->data + step, body->len - step, body->at + step };
    return true;
}

static bool split_attribute(struct body body, struct attribute *a, bool *shared)
{
    struct body head, name;
    unsigned version = body.len ? body.data[0] : 0;
    bool padded = version == 1;

    if (version < 1 || version > 3 || !take_part(&body, version == 3 ? 9 : 8, false, &head) ||
        !take_part(&body, mix_load_le(head.data + 2, 2), padded, &name) ||
        !take_part(&body, mix_load_le(head.data + 4, 2), padded, &a->type) ||
        !take_part(&body, mix_load_le(head.data + 6, 2), padded, &a->space) ||
        !name.len || name.data[name.len - 1])
        return false;
    *shared = version > 1 && head.data[1];
    a->name = (const char *)name.data;
    a->value = body;
    return true;
}

/* One string of a fixed length, UTF-8, NUL-padded or NUL-terminated? Then its bytes. */
static bool attribute_text(const struct attribute *a, const char **text, size_t *len)
{
    uint32_t rank;
    uint64_t none[1];
    bool null_space;
    struct mix_err ignored;

    if (a->type.len < 8 || a->type.data[0] != 0x13 || (a->type.data[1] & ~1u) != 0x10 ||
        parse_space(a->space, 0, &rank, none, &null_space, &ignored) || null_space)
        return false;
    *len = mix_load_le(a->type.data + 4, 4);
    if (!*len || *len > a->value.len)
        return false;
    *text = (const char *)a->value.data;
    while (*len && !(*text)[*len - 1])
        (*len)--;
    return true;
}

/* A row of up to 32 unsigned 64-bit numbers? Then those. */
static bool attribute_numbers(const struct attribute *a, struct numbers *out)
{
    enum mix_dtype dtype;
    uint32_t rank;
    uint64_t count[1];
    bool null_space;
    struct mix_err ignored;

    if (!mix_h5_find_datatype(a->type.data, a->type.len, &dtype) || dtype != MIX_U64 ||
        parse_space(a->space, 1, &rank, count, &null_space, &ignored) || rank != 1 ||
        null_space || count[0] > MIX_MAX_RANK || count[0] > a->value.len / 8)
        return false;
    out->there = true;
    out->count = (size_t)count[0];
    for (size_t i = 0; i < out->count; i++)
        out->value[i] = mix_load_le(a->value.data + 8 * i, 8);
    return true;
}

static enum mix_rc take_name(struct reader *r, struct object *o, const char *text, size_t len,
                             struct mix_err *err)
{
    if (o->name)
        return twice("attributes 'name'", err);
    if (memchr(text, '\0', len))
        return mix_fail(err, MIX_BAD_FORMAT, "its attribute 'name' holds a NUL");
    return mix_arena_text(r->arena, text, len, &o->name, err);
}

static enum mix_rc take_dtype(struct object *o, const char *text, size_t len,
                              struct mix_err *err)
{
    char name[32];

    if (o->has_dtype)
        return twice("attributes 'dtype'", err);
    snprintf(name, sizeof name, "%.*s", (int)mix_min(len, sizeof name - 1), text);
    if (strlen(name) != len || !mix_dtype_find(name, &o->dtype))
        return mix_fail(err, MIX_UNSUPPORTED, "its attribute 'dtype' says '%s', which is no"
                        " dtype of safetensors", name);
    o->has_dtype = true;
    return MIX_OK;
}

/* Attributes of other names, and of these names in other forms, are the user's own. */
static enum mix_rc take_attribute(struct reader *r, struct object *o, struct body body,
                                  struct mix_err *err)
{
    struct attribute a;
    const char *text;
    size_t len;
    bool shared;

    if (!split_attribute(body, &a, &shared))
        return mix_fail(err, MIX_BAD_FORMAT, "an attribute message of %zu bytes is broken",
                        body.len);
    if (shared)
        return MIX_OK; /* its type lies elsewhere: not how ours are written */
    if (!strcmp(a.name, "name") && attribute_text(&a, &text, &len))
        return take_name(r, o, text, len, err);
    if (!strcmp(a.name, "dtype") && attribute_text(&a, &text, &len))
        return take_dtype(o, text, len, err);

    struct numbers *numbers = !strcmp(a.name, "start")          ? &o->start
                              : !strcmp(a.name, "tensor_shape") ? &o->tensor_shape
                              : !strcmp(a.name, "shape")        ? &o->logical
                                                                : NULL;

    if (numbers && numbers->there)
        return mix_fail(err, MIX_BAD_FORMAT, "it has two attributes '%s'", a.name);
    if (numbers)
        attribute_numbers(&a, numbers);
    return MIX_OK;
}

/* What each message means here: something to take, something to refuse, or nothing. */
static const struct {
    enum mix_h5_message type;
    enum mix_rc (*take)(struct reader *r, struct object *o, struct body body,
                        struct mix_err *err);
    const char *refuse;
} message_table[] = {
    { MIX_H5_NIL, NULL, NULL },
    { MIX_H5_DATASPACE, take_space, NULL },
    { MIX_H5_LINK_INFO, NULL, "links of the new format (external links, libver 'latest')" },
    { MIX_H5_DATATYPE, take_type, NULL },
    { MIX_H5_FILL_OLD, NULL, NULL },
    { MIX_H5_FILL, NULL, NULL },
    { MIX_H5_LINK_MESSAGE, NULL, "links of the new format (external links, libver 'latest')" },
    { MIX_H5_EXTERNAL, take_external, NULL },
    { MIX_H5_LAYOUT, take_layout, NULL },
    { MIX_H5_GROUP_INFO, NULL, "links of the new format (external links, libver 'latest')" },
    { MIX_H5_FILTERS, take_filters, NULL },
    { MIX_H5_ATTRIBUTE, take_attribute, NULL },
    { MIX_H5_COMMENT, NULL, NULL },
    { MIX_H5_TIME_OLD, NULL, NULL },
    { MIX_H5_SYMBOL_TABLE, take_symbol_table, NULL },
    { MIX_H5_TIME, NULL, NULL },
    { MIX_H5_ATTRIBUTE_INFO, NULL, "attributes in dense storage (libver 'latest')" },
    { MIX_H5_REFERENCE_COUNT, NULL, NULL },
};

static enum mix_rc take_message(struct reader *r, struct object *o, unsigned type,
                                unsigned flags, struct body body, struct mix_err *err)
{
    for (size_t i = 0; i < MIX_ARRAY_LEN(message_table); i++) {
        if ((unsigned)message_table[i].type != type)
            continue;
        if (message_table[i].refuse)
            return mix_fail(err, MIX_UNSUPPORTED, "it uses %s", message_table[i].refuse);
        if (!message_table[i].take)
            return MIX_OK;
        if (flags & 2) /* the body is not here */
            return mix_fail(err, MIX_UNSUPPORTED, "it uses %s",
                            type == MIX_H5_DATATYPE ? "a named (committed) datatype"
                                                    : "a shared header message");
        return message_table[i].take(r, o, body, err);
    }
    return mix_fail(err, MIX_UNSUPPORTED, "it uses header message 0x%02x, which is not known here",
                    type);
}

/* A piece of an object header: the first, or one that a continuation points at. */
struct chunk {
    uint64_t at, len;
};

struct chunks {
    struct chunk *chunk;
    size_t count, capacity;
};

static enum mix_rc add_chunk(struct chunks *chunks, uint64_t at, uint64_t len,
                             struct mix_err *err)
{
    enum mix_rc rc = mix_grow(&chunks->chunk, &chunks->capacity, chunks->count,
                              sizeof *chunks->chunk, err);

    if (!rc)
        chunks->chunk[chunks->count++] = (struct chunk){ at, len };
    return rc;
}

static enum mix_rc take_continuation(struct reader *r, struct chunks *chunks, struct body body,
                                     struct mix_err *err)
{
    if (body.len < 16)
        return too_short("continuation", body, err);

    uint64_t at = mix_load_le(body.data, 8), len = mix_load_le(body.data + 8, 8);
    enum mix_rc rc = enter(r, "a header continuation", at, err);

    return rc ? rc : add_chunk(chunks, at, len, err);
}

/* All messages of one chunk. A rest too small for a message is filling. */
static enum mix_rc parse_chunk(struct reader *r, struct object *o, struct chunks *chunks,
                               struct chunk chunk, struct mix_err *err)
{
    enum mix_rc rc;

    if (chunk.at > r->end || chunk.len > r->end - chunk.at)
        return mix_fail(err, MIX_BAD_FORMAT, "its header, %" PRIu64 " bytes at byte %" PRIu64
                        ", reaches beyond the end of the file, byte %" PRIu64,
                        chunk.len, chunk.at, r->end);
    while (chunk.len >= MIX_H5_MESSAGE_PREFIX) {
        unsigned char prefix[MIX_H5_MESSAGE_PREFIX];

        if ((rc = fetch(r, "a header message", chunk.at, prefix, sizeof prefix, err)))
            return rc;

        unsigned type = (unsigned)mix_load_le(prefix, 2);
        size_t len = mix_load_le(prefix + 2, 2), step = sizeof prefix + len;
        struct body body = { r->message, len, chunk.at + sizeof prefix };

        if (step > chunk.len)
            return mix_fail(err, MIX_BAD_FORMAT, "header message 0x%02x of %zu bytes at byte %"
                            PRIu64 " leaves its header, which has %" PRIu64 " left",
                            type, len, chunk.at, chunk.len - sizeof prefix);
        if ((rc = fetch(r, "a header message", body.at, r->message, len, err)) ||
            (rc = type == MIX_H5_CONTINUATION ? take_continuation(r, chunks, body, err)
                                              : take_message(r, o, type, prefix[4], body, err)))
            return rc;
        chunk.at += step;
        chunk.len -= step;
    }
    return MIX_OK;
}

static enum mix_rc parse_header(struct reader *r, uint64_t at, struct object *o,
                                struct mix_err *err)
{
    unsigned char prefix[MIX_H5_OBJECT_PREFIX];
    struct chunks chunks = { 0 };
    enum mix_rc rc = fetch(r, "an object header", at, prefix, sizeof prefix, err);

    if (rc)
        return rc;
    if (!memcmp(prefix, "OHDR", 4))
        return mix_fail(err, MIX_UNSUPPORTED, "its object header has version %u, of the new"
                        " format (libver 'latest', track_order); 1 is read", prefix[4]);
    if (prefix[0] != 1)
        return mix_fail(err, MIX_BAD_FORMAT, "there is no object header at byte %" PRIu64
                        ": its version would be %u", at, prefix[0]);

    rc = add_chunk(&chunks, at + sizeof prefix, mix_load_le(prefix + 8, 4), err);
    for (size_t i = 0; i < chunks.count && !rc; i++)
        rc = parse_chunk(r, o, &chunks, chunks.chunk[i], err);
    free(chunks.chunk);
    return rc;
}

/* ---- from an object to a tensor ---- */

static const char *filter_name(unsigned filter)
{
    static const struct {
        unsigned filter;
        const char *name;
    } known[] = {
        { 1, "gzip" },      { 2, "shuffle" },      { 3, "fletcher32" }, { 4, "szip" },
        { 5, "nbit" },      { 6, "scale-offset" }, { 32000, "lzf" },    { 32001, "blosc" },
        { 32004, "lz4" },   { 32008, "bitshuffle" }, { 32015, "zstd" },
    };

    for (size_t i = 0; i < MIX_ARRAY_LEN(known); i++)
        if (known[i].filter == filter)
            return known[i].name;
    return "unknown";
}

/* Storage other than bytes in a row is well formed, and refused in plain words. */
static enum mix_rc check_storage(const struct object *o, struct mix_err *err)
{
    if (o->has_external)
        return mix_fail(err, MIX_UNSUPPORTED, "its data lies in external files; only data in"
                        " the file itself is read");
    if (o->layout_class == 2 && o->filter_count)
        return mix_fail(err, MIX_UNSUPPORTED, "it is chunked, and compressed or filtered (%s,"
                        " filter %u, the first of %u); only contiguous data is read",
                        filter_name(o->filter), o->filter, o->filter_count);
    if (o->layout_class == 2)
        return mix_fail(err, MIX_UNSUPPORTED, "it is chunked; only contiguous data is read");
    if (o->layout_class == 3)
        return mix_fail(err, MIX_UNSUPPORTED, "it is virtual: its data lies in other datasets;"
                        " only contiguous data is read");
    if (o->layout_class > 3 || o->filter_count)
        return mix_fail(err, MIX_BAD_FORMAT, "its layout is of class %d with %u filters, which"
                        " HDF5 does not know", o->layout_class, o->filter_count);
    if (o->null_space)
        return mix_fail(err, MIX_UNSUPPORTED, "it has a null dataspace (h5py.Empty), which is"
                        " no tensor");
    if (!o->known_type)
        return mix_fail(err, MIX_UNSUPPORTED, "its datatype is not one that tensors have: %s",
                        o->type_words);
    return MIX_OK;
}

/* The tensor's range: as many bytes as its elements take, inside the file. */
static enum mix_rc check_range(const struct reader *r, const struct object *o,
                               struct mix_tensor *t, struct mix_err *err)
{
    uint64_t bytes;
    enum mix_rc rc = mix_dtype_bytes(o->stored, o->rank, o->shape, &bytes, err);

    if (rc)
        return rc;
    /* Never written and empty are told apart by the size that it ought to have. */
    if (bytes && o->layout_class == 1 && o->data_at == MIX_H5_NOWHERE)
        return mix_fail(err, MIX_UNSUPPORTED, "it was never written: %" PRIu64 " bytes of data"
                        " have no place in the file", bytes);
    if (o->data_bytes != bytes)
        return mix_fail(err, MIX_BAD_FORMAT, "its data has %" PRIu64 " bytes, but dtype and"
                        " shape make it %" PRIu64, o->data_bytes, bytes);
    if (bytes && (o->data_at < MIX_H5_SUPERBLOCK || o->data_at > r->end ||
                  bytes > r->end - o->data_at))
        return mix_fail(err, MIX_BAD_FORMAT, "its %" PRIu64 " bytes of data at byte %" PRIu64
                        " do not lie in the file, whose data is in bytes %d..%" PRIu64, bytes,
                        o->data_at, MIX_H5_SUPERBLOCK, r->end);
    t->begin = bytes ? o->data_at : 0;
    t->end = t->begin + bytes;
    return MIX_OK;
}

/*
 * dtype and shape: the dataset's own, unless it holds bytes that stand for F8, F6 or
 * F4. Those keep their shape in an attribute; F8, whose elements are bytes, may go
 * without.
 */
static enum mix_rc take_meaning(const struct object *o, struct mix_tensor *t,
                                const uint64_t **shape, struct mix_err *err)
{
    uint64_t bytes;
    enum mix_rc rc;

    t->dtype = o->has_dtype ? o->dtype : o->stored;
    t->rank = o->rank;
    *shape = o->shape;
    if (mix_h5_stored_dtype(t->dtype) != o->stored)
        return mix_fail(err, MIX_BAD_FORMAT, "its attribute 'dtype' says %s, but it holds %s",
                        mix_dtype_name(t->dtype), mix_dtype_name(o->stored));
    if (t->dtype == o->stored)
        return MIX_OK;
    if (o->logical.there) {
        t->rank = (uint32_t)o->logical.count;
        *shape = o->logical.value;
    } else if (mix_dtype_bits(t->dtype) < 8) {
        return mix_fail(err, MIX_BAD_FORMAT, "it holds packed %s but has no attribute 'shape'"
                        " (unsigned 64-bit numbers)", mix_dtype_name(t->dtype));
    }
    if ((rc = mix_dtype_bytes(t->dtype, t->rank, *shape, &bytes, err)))
        return rc;
    if (bytes != t->end - t->begin)
        return mix_fail(err, MIX_BAD_FORMAT, "its attribute 'shape' makes %" PRIu64 " bytes of"
                        " %s, but it holds %" PRIu64, bytes, mix_dtype_name(t->dtype),
                        t->end - t->begin);
    return MIX_OK;
}

/*
 * The attribute must say what the link says, or two readers would see two names:
 * the link's name when a tensor stands in the root group, or the path.
 */
static enum mix_rc check_name(struct reader *r, const struct object *o, struct mix_err *err)
{
    enum mix_rc rc;

    if (!strcmp(o->name, o->path))
        return MIX_OK;
    mix_buf_clear(&r->link);
    if ((rc = mix_buf_reserve(&r->link, mix_h5_link_name_bytes(o->name), err)))
        return rc;
    mix_h5_link_name_put(o->name, r->link.data);
    if (strcmp(r->link.data, o->path))
        return mix_fail(err, MIX_BAD_FORMAT, "its attribute 'name' says '%s', which would be"
                        " linked as '%s'", o->name, r->link.data);
    return MIX_OK;
}

/* The box of a piece: `start` and `tensor_shape`, both or, in a scalar, neither. */
static enum mix_rc check_box(const struct object *o, const struct mix_tensor *t,
                             const uint64_t *shape, struct mix_err *err)
{
    if (o->start.there != o->tensor_shape.there)
        return mix_fail(err, MIX_BAD_FORMAT, "it has one of the attributes 'start' and"
                        " 'tensor_shape' without the other");
    if (o->start.count != o->tensor_shape.count ||
        (o->start.there && o->start.count != t->rank))
        return mix_fail(err, MIX_BAD_FORMAT, "its attributes 'start' and 'tensor_shape' have"
                        " %zu and %zu numbers, but it has %" PRIu32 " dimensions",
                        o->start.count, o->tensor_shape.count, t->rank);
    for (size_t i = 0; i < o->start.count; i++) {
        uint64_t end;

        if (!mix_add(o->start.value[i], shape[i], &end) || end > o->tensor_shape.value[i])
            return mix_fail(err, MIX_BAD_FORMAT, "in dimension %zu it begins at %" PRIu64
                            " and has %" PRIu64 " of its tensor's %" PRIu64, i,
                            o->start.value[i], shape[i], o->tensor_shape.value[i]);
    }
    return MIX_OK;
}

static enum mix_rc keep_numbers(struct reader *r, const uint64_t *value, size_t count,
                                const uint64_t **out, struct mix_err *err)
{
    uint64_t *copy = NULL;
    enum mix_rc rc = MIX_OK;

    if (count && !(rc = mix_arena_new(r->arena, &copy, count * sizeof *copy, err)))
        memcpy(copy, value, count * sizeof *copy);
    *out = copy;
    return rc;
}

static enum mix_rc add_tensor(struct reader *r, const struct object *o, struct mix_err *err)
{
    struct entry entry = { .tensor.name = o->name ? o->name : o->path };
    struct mix_tensor *t = &entry.tensor;
    const uint64_t *shape;
    /* Without a name it is no piece of ours, and these attributes are somebody else's. */
    bool box = o->name && o->start.there;
    enum mix_rc rc;

    if ((rc = check_storage(o, err)) || (rc = check_range(r, o, t, err)) ||
        (rc = take_meaning(o, t, &shape, err)) || (o->name && (rc = check_name(r, o, err))) ||
        (rc = mix_tensor_name_check(t->name, err)) ||
        (o->name && (rc = check_box(o, t, shape, err))) ||
        (rc = keep_numbers(r, shape, t->rank, &t->shape, err)) ||
        (box && ((rc = keep_numbers(r, o->start.value, t->rank, &entry.start, err)) ||
                 (rc = keep_numbers(r, o->tensor_shape.value, t->rank, &entry.tensor_shape,
                                    err)))) ||
        (rc = mix_grow(&r->entry, &r->entry_capacity, r->entry_count, sizeof entry, err)))
        return rc;
    r->entry[r->entry_count++] = entry;
    return MIX_OK;
}

/* ---- groups ---- */

/* A group's links: its heap is looked at now, its tree next. `parent` NULL: the root. */
static enum mix_rc enter_group(struct reader *r, const struct object *o,
                               const struct group *parent, struct mix_err *err)
{
    unsigned char prefix[MIX_H5_HEAP_PREFIX];
    struct group *group;
    struct mix_buf path = MIX_BUF_INIT;
    enum mix_rc rc;

    if (parent && parent->depth + 1 > MAX_DEPTH)
        return mix_fail(err, MIX_UNSUPPORTED, "groups lie deeper in each other than %d",
                        MAX_DEPTH);
    if ((rc = enter(r, "a local heap", o->heap_at, err)) ||
        (rc = fetch(r, "a local heap", o->heap_at, prefix, sizeof prefix, err)))
        return rc;
    if (memcmp(prefix, "HEAP", 5)) /* with version 0 */
        return mix_fail(err, MIX_BAD_FORMAT, "there is no local heap at byte %" PRIu64,
                        o->heap_at);
    if ((rc = mix_arena_new(r->arena, &group, sizeof *group, err)))
        return rc;
    group->path = "";
    group->depth = parent ? parent->depth + 1 : 0;
    group->names_bytes = mix_load_le(prefix + 8, 8);
    group->names_at = mix_load_le(prefix + 24, 8);
    if (group->names_at > r->end || group->names_bytes > r->end - group->names_at)
        return mix_fail(err, MIX_BAD_FORMAT, "the local heap at byte %" PRIu64 " has %" PRIu64
                        " bytes at byte %" PRIu64 ", beyond the end of the file, byte %" PRIu64,
                        o->heap_at, group->names_bytes, group->names_at, r->end);
    if (parent && !(rc = mix_buf_put(&path, o->path, strlen(o->path), err)) &&
        !(rc = mix_buf_put(&path, "/", 1, err)))
        rc = mix_arena_text(r->arena, path.data, path.len, &group->path, err);
    mix_buf_release(&path);
    return rc ? rc : push(r, (struct item){ TREE, -1, o->tree_at, group, NULL }, err);
}

/* What its messages make of an object: a group, a dataset, or something to refuse. */
static enum mix_rc take_object(struct reader *r, const struct object *o,
                               const struct group *parent, struct mix_err *err)
{
    if (o->has_group && (o->has_space || o->has_layout || o->has_type))
        return mix_fail(err, MIX_BAD_FORMAT, "it is both a group and a dataset");
    if (o->has_group)
        return enter_group(r, o, parent, err);
    if (!parent)
        return mix_fail(err, MIX_BAD_FORMAT, "it is no group");
    if (o->has_type && !o->has_space && !o->has_layout)
        return mix_fail(err, MIX_UNSUPPORTED, "it is a named datatype, which is no tensor");
    if (!o->has_type || !o->has_space || !o->has_layout)
        return mix_fail(err, MIX_BAD_FORMAT, "it has no %s message", !o->has_type ? "datatype"
                        : !o->has_space ? "dataspace" : "layout");
    return add_tensor(r, o, err);
}

static enum mix_rc visit_object(struct reader *r, struct item item, struct mix_err *err)
{
    struct object o = { .path = item.path };
    enum mix_rc rc;

    if (++r->objects > MAX_OBJECTS)
        return mix_fail(err, MIX_UNSUPPORTED, "the file has more than %d objects", MAX_OBJECTS);
    if ((rc = enter(r, "the object", item.at, err)) || (rc = parse_header(r, item.at, &o, err)) ||
        (rc = take_object(r, &o, item.group, err)))
        mix_err_at(err, !item.group ? "the root group%s" : o.has_space ? "dataset '%s'"
                   : "object '%s'", item.path);
    return rc;
}

static enum mix_rc visit_tree(struct reader *r, struct item item, struct mix_err *err)
{
    unsigned char prefix[MIX_H5_TREE_PREFIX], child[16];
    enum mix_rc rc;

    if ((rc = enter(r, "a B-tree node", item.at, err)) ||
        (rc = fetch(r, "a B-tree node", item.at, prefix, sizeof prefix, err)))
        return rc;

    int level = prefix[5];
    size_t children = mix_load_le(prefix + 6, 2), depth = r->depth;

    if (memcmp(prefix, "TREE", 5)) /* of type 0, groups */
        return mix_fail(err, MIX_BAD_FORMAT, "there is no B-tree node of a group at byte %"
                        PRIu64, item.at);
    if (item.level >= 0 && level != item.level)
        return mix_fail(err, MIX_BAD_FORMAT, "the B-tree node at byte %" PRIu64 " is of level %d"
                        " where %d belongs", item.at, level, item.level);
    if (level > MAX_LEVEL)
        return mix_fail(err, MIX_UNSUPPORTED, "the B-tree node at byte %" PRIu64 " is of level %d;"
                        " up to %d are read", item.at, level, MAX_LEVEL);
    for (size_t i = 0; i < children; i++) {
        uint64_t at = item.at + sizeof prefix + i * sizeof child; /* a key, then the child */

        if ((rc = fetch(r, "a B-tree node", at, child, sizeof child, err)) ||
            (rc = push(r, (struct item){ level ? TREE : LEAF, level - 1,
                                         mix_load_le(child + 8, 8), item.group, NULL }, err)))
            return rc;
    }
    turn(r, depth);
    return MIX_OK;
}

/* The link name at `offset` in the group's heap, in r->link. */
static enum mix_rc read_link_name(struct reader *r, const struct group *group, uint64_t offset,
                                  struct mix_err *err)
{
    const unsigned char *nul = NULL;
    enum mix_rc rc;

    mix_buf_clear(&r->link);
    while (!nul) {
        struct window *w;

        if (offset >= group->names_bytes || r->link.len > MAX_LINK_BYTES)
            return mix_fail(err, MIX_BAD_FORMAT, "a link's name has no end: it leaves the %"
                            PRIu64 " bytes of its heap or passes %d", group->names_bytes,
                            MAX_LINK_BYTES);
        if ((rc = window_at(r, group->names_at + offset, &w, err)))
            return rc;

        size_t skip = (size_t)(group->names_at + offset - w->at);
        size_t len = mix_min(w->len - skip, group->names_bytes - offset);

        nul = memchr(w->data + skip, '\0', len);
        if (nul)
            len = (size_t)(nul - (w->data + skip));
        if ((rc = spend(r, len, err)) ||
            (rc = mix_buf_put(&r->link, (char *)w->data + skip, len, err)))
            return rc;
        offset += len;
    }
    if (!r->link.len || !strcmp(r->link.data, ".") || memchr(r->link.data, '/', r->link.len))
        return mix_fail(err, MIX_BAD_FORMAT, "a link is called '%s', which no link can be",
                        r->link.data);
    return MIX_OK;
}

/* *out = the group's path and the name in r->link. */
static enum mix_rc make_path(struct reader *r, const struct group *group, const char **out,
                             struct mix_err *err)
{
    size_t prefix = strlen(group->path), len = prefix + r->link.len;
    char *path;
    enum mix_rc rc;

    if (len > r->path_budget)
        return mix_fail(err, MIX_UNSUPPORTED, "the paths of its objects are too long together");
    r->path_budget -= len;
    if ((rc = mix_arena_new(r->arena, &path, len + 1, err)))
        return rc;
    memcpy(path, group->path, prefix);
    memcpy(path + prefix, r->link.data, r->link.len);
    *out = path;
    return MIX_OK;
}

static enum mix_rc visit_link(struct reader *r, const struct group *group,
                              const unsigned char link[MIX_H5_LINK], struct mix_err *err)
{
    const char *path = NULL;
    enum mix_rc rc = read_link_name(r, group, mix_load_le(link, 8), err);

    if (rc || (rc = make_path(r, group, &path, err)))
        return rc;
    /* Cache type 1 repeats what the group's own header says; 2 is a link to a path. */
    if (mix_load_le(link + 16, 4) == 2)
        return mix_fail(err, MIX_UNSUPPORTED, "link '%s' is a soft link; only hard links are"
                        " read", path);
    return push(r, (struct item){ OBJECT, 0, mix_load_le(link + 8, 8), group, path }, err);
}

static enum mix_rc visit_leaf(struct reader *r, struct item item, struct mix_err *err)
{
    unsigned char prefix[MIX_H5_LEAF_PREFIX], link[MIX_H5_LINK];
    enum mix_rc rc;

    if ((rc = enter(r, "a symbol table node", item.at, err)) ||
        (rc = fetch(r, "a symbol table node", item.at, prefix, sizeof prefix, err)))
        return rc;
    if (memcmp(prefix, "SNOD\1", 5))
        return mix_fail(err, MIX_BAD_FORMAT, "there is no symbol table node at byte %" PRIu64,
                        item.at);

    size_t links = mix_load_le(prefix + 6, 2), depth = r->depth;

    for (size_t i = 0; i < links; i++) {
        uint64_t at = item.at + sizeof prefix + i * sizeof link;

        if ((rc = fetch(r, "a symbol table node", at, link, sizeof link, err)) ||
            (rc = visit_link(r, item.group, link, err)))
            return rc;
    }
    turn(r, depth);
    return MIX_OK;
}

static enum mix_rc visit(struct reader *r, struct item item, struct mix_err *err)
{
    switch (item.kind) {
    case OBJECT:
        return visit_object(r, item, err);
    case TREE:
        return visit_tree(r, item, err);
    case LEAF:
        return visit_leaf(r, item, err);
    }
    return MIX_OK;
}

/* ---- the file ---- */

static enum mix_rc parse_superblock(struct reader *r, uint64_t file_bytes, uint64_t *root_at,
                                    struct mix_err *err)
{
    unsigned char p[MIX_H5_SUPERBLOCK] = { 0 };
    size_t len = (size_t)mix_min(sizeof p, file_bytes);
    enum mix_rc rc = len ? mix_store_read(r->store, r->path, 0, p, len, err) : MIX_OK;

    if (rc)
        return rc;
    if (len < 9 || memcmp(p, MIX_H5_SIGNATURE, 8))
        return mix_fail(err, MIX_BAD_FORMAT, "this is no HDF5 file: it does not begin with the"
                        " signature");
    if (p[8] != 0)
        return mix_fail(err, MIX_UNSUPPORTED, "its superblock has version %u, of the new format"
                        " (libver 'latest', chunks with parameters); 0 is read", p[8]);
    if (len < sizeof p)
        return mix_fail(err, MIX_TRUNCATED, "the file has %zu bytes; its superblock alone has"
                        " %zu", len, sizeof p);
    if (p[13] != 8 || p[14] != 8)
        return mix_fail(err, MIX_UNSUPPORTED, "its offsets and lengths have %u and %u bytes; 8"
                        " are read", p[13], p[14]);
    if (mix_load_le(p + 24, 8) || mix_load_le(p + 48, 8) != MIX_H5_NOWHERE)
        return mix_fail(err, MIX_UNSUPPORTED, "it uses a base address or a driver of its own");
    r->end = mix_load_le(p + 40, 8);
    if (r->end > file_bytes)
        return mix_fail(err, MIX_TRUNCATED, "the file has %" PRIu64 " bytes; its superblock says"
                        " %" PRIu64, file_bytes, r->end);
    *root_at = mix_load_le(p + 64, 8);
    return MIX_OK;
}

static enum mix_rc walk(struct reader *r, uint64_t root_at, struct mix_err *err)
{
    enum mix_rc rc = push(r, (struct item){ OBJECT, 0, root_at, NULL, "" }, err);

    while (!rc && r->depth)
        rc = visit(r, r->stack[--r->depth], err);
    return rc;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->tensor.name, ((const struct entry *)b)->tensor.name);
}

static int compare_places(const void *a, const void *b)
{
    const struct mix_tensor *x = &((const struct entry *)a)->tensor;
    const struct mix_tensor *y = &((const struct entry *)b)->tensor;

    return (x->begin > y->begin) - (x->begin < y->begin);
}

static void sort(struct reader *r, int (*compare)(const void *, const void *))
{
    if (r->entry_count) /* without any there is no array either */
        qsort(r->entry, r->entry_count, sizeof *r->entry, compare);
}

/*
 * No two tensors may share a byte, or writing one would change the other. Empty ones
 * have none. Leaves the entries sorted by place.
 */
static enum mix_rc check_overlap(struct reader *r, struct mix_err *err)
{
    const struct mix_tensor *last = NULL;

    sort(r, compare_places);
    for (size_t i = 0; i < r->entry_count; i++) {
        const struct mix_tensor *t = &r->entry[i].tensor;

        if (t->begin == t->end)
            continue;
        if (last && t->begin < last->end) {
            mix_fail(err, MIX_OVERLAP, "tensor '%s' covers bytes %" PRIu64 "..%" PRIu64
                     ", but '%s' covers %" PRIu64 "..%" PRIu64 ": they overlap", t->name,
                     t->begin, t->end, last->name, last->begin, last->end);
            mix_err_tensor(err, t->name, t->begin, t->end);
            return MIX_OVERLAP;
        }
        last = t;
    }
    return MIX_OK;
}

/* Sort by name, which must differ, and hand the entries over as arrays. */
static enum mix_rc collect(struct reader *r, struct mix_h5shard *h5, struct mix_err *err)
{
    size_t n = r->entry_count;
    enum mix_rc rc;

    sort(r, compare_names);
    if ((rc = mix_new_array(&h5->tensor, n, sizeof *h5->tensor, err)) ||
        (rc = mix_new_array(&h5->start, n, sizeof *h5->start, err)) ||
        (rc = mix_new_array(&h5->tensor_shape, n, sizeof *h5->tensor_shape, err)))
        return rc;
    for (size_t i = 0; i < n; i++) {
        const struct entry *entry = &r->entry[i];

        if (i && !strcmp(entry[-1].tensor.name, entry->tensor.name))
            return mix_fail(err, MIX_BAD_FORMAT, "tensor '%s' stands in it twice",
                            entry->tensor.name);
        h5->tensor[i] = entry->tensor;
        h5->start[i] = entry->start;
        h5->tensor_shape[i] = entry->tensor_shape;
    }
    h5->count = n;
    return MIX_OK;
}

static void reader_free(struct reader *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < WINDOWS; i++)
        free(r->window[i].data);
    free(r->seen);
    free(r->stack);
    free(r->entry);
    mix_buf_release(&r->link);
    free(r);
}

static enum mix_rc read_file(struct reader *r, struct mix_h5shard *h5, struct mix_err *err)
{
    struct mix_stat stat;
    uint64_t root_at = 0;
    enum mix_rc rc;

    if ((rc = mix_store_stat(r->store, r->path, &stat, err)) ||
        (rc = parse_superblock(r, stat.bytes, &root_at, err)))
        return rc;
    r->budget = r->end;
    r->path_budget = mix_min(MAX_PATHS_BYTES, r->end > UINT64_MAX / 4 ? r->end : r->end * 4);
    if ((rc = walk(r, root_at, err)) ||
        (rc = check_overlap(r, err)) ||
        (rc = collect(r, h5, err)))
        return rc;
    return MIX_OK;
}

enum mix_rc mix_h5shard_open(struct mix_store *store, const char *path,
                             struct mix_h5shard **out, struct mix_err *err)
{
    struct mix_h5shard *h5 = NULL;
    struct reader *r = NULL;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = mix_new(&h5, sizeof *h5, err)) || (rc = mix_new(&r, sizeof *r, err)))
        goto out;
    r->store = store;
    r->path = path;
    r->arena = &h5->arena;
    if ((rc = read_file(r, h5, err)))
        goto out;
    *out = h5;
    h5 = NULL; /* the caller's from here on */
out:
    reader_free(r);
    mix_h5shard_close(h5);
    if (rc)
        mix_err_file(err, path);
    return rc;
}

void mix_h5shard_close(struct mix_h5shard *h5)
{
    if (!h5)
        return;
    free(h5->tensor);
    free(h5->start);
    free(h5->tensor_shape);
    mix_arena_release(&h5->arena);
    free(h5);
}

const struct mix_tensor *mix_h5shard_list(const struct mix_h5shard *h5, size_t *count)
{
    *count = h5->count;
    return h5->tensor;
}

const uint64_t *mix_h5shard_start(const struct mix_h5shard *h5, size_t i)
{
    return h5->start[i];
}

const uint64_t *mix_h5shard_tensor_shape(const struct mix_h5shard *h5, size_t i)
{
    return h5->tensor_shape[i];
}
