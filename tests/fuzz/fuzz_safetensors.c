/*
 * fuzz_safetensors.c - any bytes as a .safetensors file: no crash, and whatever is
 * accepted is tiled by its tensors, which the writer can lay out again.
 */
#include <stdlib.h>
#include <string.h>

#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* What every later reader relies on. */
static void check_list(const struct mix_safetensors *st)
{
    size_t count, header_len;
    const struct mix_tensor *t = mix_safetensors_list(st, &count);
    uint64_t at, bytes;

    mix_safetensors_header(st, &header_len);
    at = header_len;
    for (size_t i = 0; i < count; i++) {
        check(t[i].begin == at && t[i].end >= at && t[i].rank <= MIX_MAX_RANK);
        check(!mix_tensor_name_check(t[i].name, NULL));
        check(!mix_dtype_bytes(t[i].dtype, t[i].rank, t[i].shape, &bytes, NULL));
        check(bytes == t[i].end - t[i].begin);
        at = t[i].end;
    }
    check(at == mix_safetensors_file_bytes(st));
    for (const char *const *w = mix_safetensors_warnings(st); *w; w++)
        check(**w);
}

/* The writer's header of the same tensors is accepted, without a doubt. */
static void write_again(const struct mix_safetensors *st)
{
    struct mix_buf header = MIX_BUF_INIT;
    struct mix_safetensors *again;
    struct mix_err err = { 0 };
    size_t count, count_again;
    const struct mix_tensor *list = mix_safetensors_list(st, &count);
    struct mix_tensor *copy = malloc(count ? count * sizeof *copy : 1);

    check(copy);
    if (count)
        memcpy(copy, list, count * sizeof *copy);
    check(!mix_safetensors_write_header(copy, count, &header, &err));
    check(!mix_safetensors_parse(header.data, header.len, UINT64_MAX, &again, &err));
    list = mix_safetensors_list(again, &count_again);
    check(count_again == count);
    check(!strcmp(mix_safetensors_metadata(again, "format"), "pt"));
    mix_safetensors_close(again);
    mix_buf_release(&header);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mix_store *store;
    struct mix_safetensors *st, *parsed;
    struct mix_err err = { 0 };

    check(!mix_store_open_memory(&store, &err));
    check(!mix_store_memory_put(store, "m", data, size, &err));
    if (!mix_safetensors_open(store, "m", &st, &err)) {
        size_t len;
        const char *header = mix_safetensors_header(st, &len);

        check_list(st);
        write_again(st);
        /* The header alone gives the same file. */
        check(!mix_safetensors_parse(header, len, UINT64_MAX, &parsed, &err));
        check(mix_safetensors_file_bytes(parsed) == size);
        mix_safetensors_close(parsed);
    } else {
        check(!st && err.text[0]);
        /* The same bytes as a header alone: whatever size it implies. */
        if (!mix_safetensors_parse(data, size, UINT64_MAX, &parsed, &err))
            check_list(parsed);
        mix_safetensors_close(parsed);
    }
    mix_safetensors_close(st);
    mix_store_close(store);
    return 0;
}
