/*
 * fuzz_manifest.c - any bytes as mixckpt.json: no crash; what is accepted is spelled the
 * same when it is written again, and its cuts, records and groups can be walked. `self`
 * is made anew, so that the input gets past it.
 */
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/hash.h"
#include "ckpt/inventory.h"
#include "ckpt/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* The input up to its own `self`, and the right one behind it. */
static void sign(const uint8_t *data, size_t size, struct mix_buf *text)
{
    static const char self[] = "\"self\":\"";
    struct mix_err err = { 0 };
    unsigned char sha[32];
    char hex[MIX_SHA256_HEX];

    for (size_t at = 0; at + sizeof self - 1 <= size; at++)
        if (!memcmp(data + at, self, sizeof self - 1))
            size = at;
    mix_sha256(data, size, sha);
    mix_hex(sha, 32, hex);
    check(!mix_buf_put(text, data, size, &err));
    check(!mix_buf_putf(text, &err, "%s%s\"\n}\n", self, hex));
}

/* The first and last parts of a cut; all bytes are in some part. */
static void check_cut(const struct mix_ckpt_tensor *t)
{
    const struct mix_cut *cut = &t->cut;
    uint64_t last = cut->row_parts - 1, begin, end, o, k, part;

    check(cut->row_parts && cut->column_parts && cut->rows * cut->row_bytes == t->bytes);
    mix_cut_rows(cut, 0, &begin, &end);
    check(begin == 0 && end > 0);
    mix_cut_rows(cut, last, &begin, &end);
    check(begin < end && end == cut->rows);
    check(mix_cut_part_of_row(cut, end - 1) == last);
    mix_cut_coordinates(cut, last, &o, &k);
    check(mix_cut_part_at(cut, o, k, &part) && part == last);
    mix_cut_columns(cut, cut->column_parts - 1, &begin, &end);
    check(end == cut->row_bytes);
}

static void check_manifest(struct mix_manifest *m, const struct mix_buf *text)
{
    struct mix_buf again = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    check(!mix_manifest_emit(m, &again, &err));
    check(again.len == text->len && !memcmp(again.data, text->data, again.len));
    for (size_t i = 0; i < m->tensor_count; i++) {
        check(mix_manifest_find(m, m->tensor[i].name) == &m->tensor[i]);
        check_cut(&m->tensor[i]);
    }
    mix_buf_release(&again);
}

/* Records of the right size, all at the beginning of some file. */
static void put_records(struct mix_store *store, const struct mix_manifest *m)
{
    struct mix_buf records = MIX_BUF_INIT;
    struct mix_err err = { 0 };
    unsigned char record[MIX_PIECE_RECORD_BYTES] = { 0 };

    for (size_t i = 0; i < m->tensor_count; i++) {
        const struct mix_cut *cut = &m->tensor[i].cut;

        for (uint64_t k = 0; k < mix_cut_pieces(cut); k++) {
            mix_store_le(record, m->file_count ? (i + k) % m->file_count : 0, 4);
            mix_store_le(record + 8, (i % 3) * 4096, 8);
            mix_store_le(record + 16, mix_cut_piece_bytes(cut, k / cut->column_parts,
                                                          k % cut->column_parts), 8);
            check(!mix_buf_put(&records, record, sizeof record, &err));
        }
    }
    check(!mix_store_memory_put(store, "mixckpt.pieces", records.data ? records.data : "",
                                records.len, &err));
    mix_buf_release(&records);
}

/* The groups of its files: built, and their headers made, or refused with words. */
static void walk(const struct mix_checkpoint *ckpt)
{
    struct mix_inventory inventory;
    struct mix_defects defects;
    struct mix_reader reader;
    struct mix_err err = { 0 };

    mix_defects_init(&defects);
    check(!mix_reader_init(&reader, ckpt, &err));
    if (!mix_inventory_init(&inventory, ckpt, &defects, &err)) {
        for (size_t g = 0; g < inventory.group_count; g++) {
            struct mix_group group = MIX_GROUP_INIT;
            struct mix_buf header = MIX_BUF_INIT;

            if (mix_inventory_build(&inventory, &reader, g, &group, &err))
                check(err.rc == MIX_UNSUPPORTED); /* too large to be walked */
            for (size_t f = 0; f < group.file_count; f++) {
                mix_buf_clear(&header);
                if (mix_inventory_header(&inventory, &group, f, &header, &err))
                    check(err.text[0]);
            }
            mix_buf_release(&header);
            mix_group_release(&group);
        }
        mix_inventory_release(&inventory);
    }
    mix_reader_release(&reader);
    mix_defects_release(&defects);
}

static void open_it(const struct mix_buf *text, const struct mix_manifest *m)
{
    bool small = m->piece_count <= 500; /* else it takes too long */
    struct mix_checkpoint *ckpt;
    struct mix_defects defects;
    struct mix_store *store;
    struct mix_err err = { 0 };

    mix_defects_init(&defects);
    check(!mix_store_open_memory(&store, &err));
    check(!mix_store_memory_put(store, "mixckpt.json", text->data, text->len, &err));
    if (small)
        put_records(store, m);
    if (!mix_checkpoint_open_in(store, &defects, &ckpt, &err)) {
        check(ckpt->m.tensor_count || defects.count || !m->tensor_count);
        check(!mix_checkpoint_check_model(ckpt, &defects, &err));
        if (ckpt->m.tensor_count && small)
            walk(ckpt);
        mix_checkpoint_close(ckpt);
    }
    mix_defects_release(&defects);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mix_buf text = MIX_BUF_INIT;
    struct mix_manifest m;
    struct mix_err err = { 0 };

    if (mix_manifest_parse((const char *)data, size, &m, &err))
        check(err.text[0] && !m.tensor && !m.arena.block);
    mix_manifest_release(&m);
    sign(data, size, &text);
    if (mix_manifest_parse(text.data, text.len, &m, &err)) {
        check(err.text[0] && !m.tensor && !m.arena.block);
    } else {
        check_manifest(&m, &text);
        open_it(&text, &m);
    }
    mix_manifest_release(&m);
    mix_buf_release(&text);
    return 0;
}
