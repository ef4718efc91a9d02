/* change_dtype.c - values of one floating type as another, and config.json to match. */
#include "reshard/change_dtype.h"

#include <math.h>
#include <string.h>

static bool is_changeable(enum mix_dtype dtype)
{
    return dtype == MIX_BF16 || dtype == MIX_F16 || dtype == MIX_F32;
}

bool mix_dtype_can_change(enum mix_dtype from, enum mix_dtype to)
{
    return from != to && is_changeable(from) && is_changeable(to);
}

static float load(enum mix_dtype dtype, const unsigned char *data, size_t i)
{
    uint16_t half;
    float value;

    if (dtype == MIX_F32) {
        memcpy(&value, data + i * 4, 4);
        return value;
    }
    memcpy(&half, data + i * 2, 2);
    return dtype == MIX_BF16 ? mix_bf16_to_f32(half) : mix_f16_to_f32(half);
}

uint64_t mix_dtype_change(enum mix_dtype from, const void *data, enum mix_dtype to, void *out,
                          size_t count)
{
    uint64_t overflowed = 0;

    for (size_t i = 0; i < count; i++) {
        float value = load(from, data, i);
        uint16_t half;

        if (to == MIX_F32) {
            memcpy((unsigned char *)out + i * 4, &value, 4);
            continue;
        }
        half = to == MIX_BF16 ? mix_f32_to_bf16(value) : mix_f32_to_f16(value);
        overflowed += isfinite(value) && (half & 0x7fff) == (to == MIX_BF16 ? 0x7f80 : 0x7c00);
        memcpy((unsigned char *)out + i * 2, &half, 2);
    }
    return overflowed;
}

/* The end of the string that begins at text[at]: behind its closing quote. */
static size_t string_end(const char *text, size_t len, size_t at)
{
    for (at++; at < len && text[at] != '"'; at++)
        at += text[at] == '\\';
    return at + 1;
}

static bool is_dtype_key(const char *text, size_t begin, size_t end)
{
    size_t n = end - begin;

    return (n == 7 && !memcmp(text + begin, "\"dtype\"", 7)) ||
           (n == 13 && !memcmp(text + begin, "\"torch_dtype\"", 13));
}

enum mix_rc mix_config_change_dtype(const char *text, size_t len, enum mix_dtype dtype,
                                    struct mix_buf *out, struct mix_err *err)
{
    const char *name = dtype == MIX_BF16 ? "bfloat16" : dtype == MIX_F16 ? "float16" : "float32";
    size_t copied = 0;
    bool is_value_of_dtype = false; /* the string that comes next */
    int depth = 0;
    enum mix_rc rc;

    for (size_t at = 0; at < len;) {
        char c = text[at];
        size_t end = c == '"' ? string_end(text, len, at) : at + 1;

        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (c == '"' && is_value_of_dtype) {
            if ((rc = mix_buf_put(out, text + copied, at - copied, err)) ||
                (rc = mix_buf_putf(out, err, "\"%s\"", name)))
                return rc;
            copied = end;
            is_value_of_dtype = false;
        } else if (c == '"' && depth == 1) {
            is_value_of_dtype = is_dtype_key(text, at, end);
        } else if (c == ',' || c == '{' || c == '[') {
            is_value_of_dtype = false; /* its value was not a string */
        }
        at = end;
    }
    return mix_buf_put(out, text + copied, len - copied, err);
}
