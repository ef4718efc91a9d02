/*
 * fuzz_json.c - any bytes to mix_json_parse(): no crash, and what is accepted comes out
 * the same when it is written and read again.
 */
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* Every accessor on every value: each answers for its own kind only. */
static void walk(const struct mix_json *value)
{
    enum mix_json_kind kind = mix_json_kind(value);
    uint64_t u64;
    int64_t i64;
    double real;
    bool yes;

    check(!!mix_json_string(value) == (kind == MIX_JSON_STRING));
    check(!!mix_json_number_text(value) == (kind == MIX_JSON_NUMBER));
    check(mix_json_bool(value, &yes) == (kind == MIX_JSON_BOOL));
    check(mix_json_double(value, &real) == (kind == MIX_JSON_NUMBER));
    if (mix_json_u64(value, &u64) && mix_json_i64(value, &i64))
        check(i64 >= 0 && u64 == (uint64_t)i64);
    if (kind != MIX_JSON_OBJECT && kind != MIX_JSON_ARRAY)
        check(!mix_json_first(value));
    for (const struct mix_json *v = mix_json_first(value); v; v = mix_json_next(v)) {
        if (kind == MIX_JSON_OBJECT)
            check(mix_json_get(value, mix_json_key(v)) == v); /* no key stands twice */
        walk(v);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mix_json_doc *doc, *again;
    struct mix_buf text = MIX_BUF_INIT, twice = MIX_BUF_INIT;
    struct mix_err err = { 0 };

    if (mix_json_parse((const char *)data, size, &doc, &err)) {
        check(!doc && err.text[0]);
        return 0;
    }
    walk(mix_json_root(doc));
    check(!mix_json_emit(mix_json_root(doc), &text, &err));
    check(!mix_json_parse(text.data, text.len, &again, &err));
    check(!mix_json_emit(mix_json_root(again), &twice, &err));
    check(text.len == twice.len && !memcmp(text.data, twice.data, text.len));
    mix_json_free(again);
    mix_json_free(doc);
    mix_buf_release(&text);
    mix_buf_release(&twice);
    return 0;
}
