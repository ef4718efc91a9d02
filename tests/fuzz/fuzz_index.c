/*
 * fuzz_index.c - any bytes as a Hugging Face folder: an index, a config.json and the headers
 * of two small weight files. No crash; with a list for defects it always opens, and what
 * opens without one can be checked, walked and read.
 *
 * The four parts of an input are separated by "\n%%\n". That of a weight file is one byte,
 * the number of bytes of data, and the JSON of its header; the length is put in front here.
 */
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/inventory.h"
#include "ckpt/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTS = 4 };

static void check(bool holds)
{
    if (!holds)
        abort();
}

struct part {
    const uint8_t *data;
    size_t len;
};

static void split(const uint8_t *data, size_t size, struct part part[PARTS])
{
    static const char mark[] = "\n%%\n";
    size_t p = 0, begin = 0;

    memset(part, 0, PARTS * sizeof *part);
    for (size_t at = 0; at <= size && p < PARTS; at++) {
        bool ends = at + 4 <= size && !memcmp(data + at, mark, 4);

        if (!ends && at < size)
            continue;
        part[p++] = (struct part){ data + begin, at - begin };
        begin = at + 4;
        at += ends ? 3 : 0;
    }
}

static void put_weights(struct mix_store *store, const char *path, const struct part *part)
{
    static const char zeros[256];
    struct mix_buf file = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    unsigned char prefix[8];

    if (!part->len)
        return;
    mix_store_le(prefix, part->len - 1, 8);
    check(!mix_buf_put(&file, prefix, 8, &err));
    check(!mix_buf_put(&file, part->data + 1, part->len - 1, &err));
    check(!mix_buf_put(&file, zeros, part->data[0], &err));
    check(!mix_store_memory_put(store, path, file.data, file.len, &err));
    mix_buf_release(&file);
}

static struct mix_store *folder(const struct part part[PARTS])
{
    struct mix_store *store;
    struct mix_err err = { 0 };

    check(!mix_store_open_memory(&store, &err));
    check(!mix_store_memory_put(store, "model.safetensors.index.json",
                                part[0].data ? (const char *)part[0].data : "", part[0].len,
                                &err));
    if (part[1].len)
        check(!mix_store_memory_put(store, "config.json", part[1].data, part[1].len, &err));
    put_weights(store, "1.safetensors", &part[2]);
    put_weights(store, "2.safetensors", &part[3]);
    return store;
}

/* Tensors are sorted, lie in their files, and can be read from first to last. */
static void read_all(const struct mix_checkpoint *ckpt)
{
    const struct mix_manifest *m = &ckpt->m;
    struct mix_reader reader;
    struct mix_err err = { 0 };
    char buf[256];

    check(!mix_reader_init(&reader, ckpt, &err));
    for (size_t i = 0; i < m->tensor_count; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i];

        check(!i || strcmp(m->tensor[i - 1].name, t->name) < 0);
        check(mix_manifest_find(m, t->name) == t);
        check(t->file < m->file_count && t->bytes <= 255);
        check(t->offset + t->bytes <= m->file[t->file].bytes);
        check(!mix_reader_read(&reader, t, 0, t->bytes, buf, &err));
    }
    mix_reader_release(&reader);
}

static void walk(const struct mix_checkpoint *ckpt)
{
    struct mix_inventory inventory;
    struct mix_reader reader;
    struct mix_err err = { 0 };

    check(!mix_reader_init(&reader, ckpt, &err));
    check(!mix_inventory_init(&inventory, ckpt, NULL, &err));
    check(inventory.group_count == ckpt->m.file_count);
    for (size_t g = 0; g < inventory.group_count; g++) {
        struct mix_group group = MIX_GROUP_INIT;

        check(!mix_inventory_build(&inventory, &reader, g, &group, &err));
        check(group.bytes == inventory.group_bytes[g]);
        mix_group_release(&group);
    }
    mix_inventory_release(&inventory);
    mix_reader_release(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct part part[PARTS];
    struct mix_checkpoint *ckpt;
    struct mix_defects defects;
    struct mix_err err = { 0 };
    bool sound;

    split(data, size, part);
    sound = !mix_checkpoint_open_in(folder(part), NULL, &ckpt, &err);
    check(sound == (ckpt != NULL) && (sound || err.text[0]));
    if (sound) {
        read_all(ckpt);
        walk(ckpt);
        sound = !mix_checkpoint_check_model(ckpt, NULL, &err);
    }
    mix_checkpoint_close(ckpt);

    mix_defects_init(&defects);
    if (!mix_checkpoint_open_in(folder(part), &defects, &ckpt, &err)) {
        if (ckpt->m.tensor_count)
            check(!mix_checkpoint_check_model(ckpt, &defects, &err));
        read_all(ckpt);
        walk(ckpt);
        check(sound || defects.count || !ckpt->m.tensor_count);
        mix_checkpoint_close(ckpt);
    } else {
        check(err.rc == MIX_UNSUPPORTED); /* no fault of the checkpoint */
    }
    mix_defects_release(&defects);
    return 0;
}
