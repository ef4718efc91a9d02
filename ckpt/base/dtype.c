/* dtype.c - the table of element types, and the values of their bits. */
#include "ckpt/base/dtype.h"

#include <math.h>
#include <string.h>

#include "ckpt/base/bytes.h"

/*
 * How many values of a floating type with sign bit are neither finite nor NaN:
 * IEEE types have an all-ones exponent; E4M3 spends only one code on NaN and has no
 * Inf; the FNUZ types have a single NaN at minus zero; E8M0 is an exponent alone.
 */
static const struct dtype {
    const char *name;
    unsigned char bits;
    unsigned char exponent_bits, mantissa_bits; /* of IEEE-like types, else 0 */
} table[MIX_DTYPE_COUNT] = {
    [MIX_BOOL] = { "BOOL", 8, 0, 0 },
    [MIX_F4] = { "F4", 4, 0, 0 },
    [MIX_F6_E2M3] = { "F6_E2M3", 6, 0, 0 },
    [MIX_F6_E3M2] = { "F6_E3M2", 6, 0, 0 },
    [MIX_U8] = { "U8", 8, 0, 0 },
    [MIX_I8] = { "I8", 8, 0, 0 },
    [MIX_F8_E5M2] = { "F8_E5M2", 8, 5, 2 },
    [MIX_F8_E4M3] = { "F8_E4M3", 8, 0, 0 },
    [MIX_F8_E8M0] = { "F8_E8M0", 8, 0, 0 },
    [MIX_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", 8, 0, 0 },
    [MIX_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", 8, 0, 0 },
    [MIX_I16] = { "I16", 16, 0, 0 },
    [MIX_U16] = { "U16", 16, 0, 0 },
    [MIX_F16] = { "F16", 16, 5, 10 },
    [MIX_BF16] = { "BF16", 16, 8, 7 },
    [MIX_I32] = { "I32", 32, 0, 0 },
    [MIX_U32] = { "U32", 32, 0, 0 },
    [MIX_F32] = { "F32", 32, 8, 23 },
    [MIX_C64] = { "C64", 64, 8, 23 }, /* two F32 */
    [MIX_F64] = { "F64", 64, 11, 52 },
    [MIX_I64] = { "I64", 64, 0, 0 },
    [MIX_U64] = { "U64", 64, 0, 0 },
};

const char *mix_dtype_name(enum mix_dtype dtype)
{
    return table[dtype].name;
}

unsigned mix_dtype_bits(enum mix_dtype dtype)
{
    return table[dtype].bits;
}

bool mix_dtype_find(const char *name, enum mix_dtype *out)
{
    for (int i = 0; i < MIX_DTYPE_COUNT; i++) {
        if (!strcmp(table[i].name, name)) {
            *out = (enum mix_dtype)i;
            return true;
        }
    }
    return false;
}

enum mix_rc mix_dtype_bytes(enum mix_dtype dtype, size_t rank, const uint64_t *shape,
                            uint64_t *bytes, struct mix_err *err)
{
    uint64_t bits = 1;

    for (size_t i = 0; i < rank; i++)
        if (!mix_mul(bits, shape[i], &bits))
            return mix_fail(err, MIX_BAD_FORMAT, "the number of elements passes 2^64");
    if (!mix_mul(bits, table[dtype].bits, &bits))
        return mix_fail(err, MIX_BAD_FORMAT, "the number of bits passes 2^64");
    if (bits % 8)
        return mix_fail(err, MIX_BAD_FORMAT, "%llu bits of %s do not fill whole bytes",
                        (unsigned long long)bits, table[dtype].name);
    *bytes = bits / 8;
    return MIX_OK;
}

/* NaN and Inf of an IEEE-like type, by its exponent being all ones. */
static void count_ieee(const struct dtype *type, unsigned width, const unsigned char *data,
                       size_t bytes, uint64_t *nan_count, uint64_t *inf_count)
{
    uint64_t exponent = ((1ull << type->exponent_bits) - 1) << type->mantissa_bits;
    uint64_t mantissa = (1ull << type->mantissa_bits) - 1;

    for (size_t at = 0; at + width <= bytes; at += width) {
        uint64_t value = mix_load_le(data + at, (int)width);

        if ((value & exponent) == exponent) {
            if (value & mantissa)
                ++*nan_count;
            else
                ++*inf_count;
        }
    }
}

/* BF16 and F32 are nearly all there is, so these loops are written to be vectorised. */
static size_t count_exponent_ones16(const unsigned char *data, size_t bytes, uint16_t exponent)
{
    size_t hits = 0;

    for (size_t at = 0; at + 2 <= bytes; at += 2) {
        uint16_t value;

        memcpy(&value, data + at, 2);
        hits += (value & exponent) == exponent;
    }
    return hits;
}

static size_t count_exponent_ones32(const unsigned char *data, size_t bytes)
{
    size_t hits = 0;

    for (size_t at = 0; at + 4 <= bytes; at += 4) {
        uint32_t value;

        memcpy(&value, data + at, 4);
        hits += (value & 0x7f800000u) == 0x7f800000u;
    }
    return hits;
}

void mix_dtype_count_non_finite(enum mix_dtype dtype, const void *data, size_t bytes,
                                uint64_t *nan_count, uint64_t *inf_count)
{
    const unsigned char *p = data;
    size_t nan_codes = 0;

    switch (dtype) {
    case MIX_BF16:
    case MIX_F16:
        if (!count_exponent_ones16(p, bytes, dtype == MIX_BF16 ? 0x7f80 : 0x7c00))
            return;
        count_ieee(&table[dtype], 2, p, bytes, nan_count, inf_count);
        return;
    case MIX_F32:
    case MIX_C64:
        if (!count_exponent_ones32(p, bytes))
            return;
        count_ieee(&table[MIX_F32], 4, p, bytes, nan_count, inf_count);
        return;
    case MIX_F64:
    case MIX_F8_E5M2:
        count_ieee(&table[dtype], table[dtype].bits / 8, p, bytes, nan_count, inf_count);
        return;
    case MIX_F8_E4M3:
        for (size_t i = 0; i < bytes; i++)
            nan_codes += (p[i] & 0x7f) == 0x7f;
        break;
    case MIX_F8_E8M0:
        for (size_t i = 0; i < bytes; i++)
            nan_codes += p[i] == 0xff;
        break;
    case MIX_F8_E4M3FNUZ:
    case MIX_F8_E5M2FNUZ:
        for (size_t i = 0; i < bytes; i++)
            nan_codes += p[i] == 0x80;
        break;
    default:
        return;
    }
    *nan_count += nan_codes;
}

bool mix_dtype_has_values(enum mix_dtype dtype)
{
    return table[dtype].bits >= 8;
}

/* An 8-bit float: `bias` and the codes for NaN differ from kind to kind. */
static double f8_value(enum mix_dtype dtype, unsigned code)
{
    static const struct {
        unsigned char mantissa_bits, bias;
    } kind[MIX_DTYPE_COUNT] = {
        [MIX_F8_E5M2] = { 2, 15 },     [MIX_F8_E4M3] = { 3, 7 },
        [MIX_F8_E4M3FNUZ] = { 3, 8 },  [MIX_F8_E5M2FNUZ] = { 2, 16 },
    };

    if (dtype == MIX_F8_E8M0)
        return code == 0xff ? NAN : ldexp(1.0, (int)code - 127);

    unsigned m = kind[dtype].mantissa_bits, exponent = (code & 0x7f) >> m;
    double mantissa = code & ((1u << m) - 1), sign = code & 0x80 ? -1 : 1;
    bool fnuz = dtype == MIX_F8_E4M3FNUZ || dtype == MIX_F8_E5M2FNUZ;

    if ((fnuz && code == 0x80) || (dtype == MIX_F8_E4M3 && (code & 0x7f) == 0x7f))
        return NAN;
    if (dtype == MIX_F8_E5M2 && exponent == 31)
        return mantissa != 0 ? NAN : sign * INFINITY;
    if (!exponent)
        return sign * ldexp(mantissa, 1 - kind[dtype].bias - (int)m);
    return sign * ldexp(mantissa + (1u << m), (int)exponent - kind[dtype].bias - (int)m);
}

double mix_dtype_value(enum mix_dtype dtype, const void *data, size_t i)
{
    unsigned width = dtype == MIX_C64 ? 4 : table[dtype].bits / 8;
    uint64_t bits = mix_load_le((const unsigned char *)data + i * width, (int)width);
    uint32_t word = (uint32_t)bits;
    float f32;
    double f64;

    switch (dtype) {
    case MIX_I8: return (int8_t)bits;
    case MIX_I16: return (int16_t)bits;
    case MIX_I32: return (int32_t)bits;
    case MIX_I64: return (double)(int64_t)bits;
    case MIX_F16: return mix_f16_to_f32((uint16_t)bits);
    case MIX_BF16: return mix_bf16_to_f32((uint16_t)bits);
    case MIX_F32:
    case MIX_C64: memcpy(&f32, &word, 4); return f32;
    case MIX_F64: memcpy(&f64, &bits, 8); return f64;
    case MIX_F8_E5M2:
    case MIX_F8_E4M3:
    case MIX_F8_E8M0:
    case MIX_F8_E4M3FNUZ:
    case MIX_F8_E5M2FNUZ: return f8_value(dtype, (unsigned)bits);
    default: return (double)bits; /* BOOL and the unsigned ones */
    }
}

float mix_bf16_to_f32(uint16_t bits)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;

    memcpy(&value, &word, 4);
    return value;
}

uint16_t mix_f32_to_bf16(float value)
{
    uint32_t word;

    memcpy(&word, &value, 4);
    if ((word & 0x7fffffffu) > 0x7f800000u) /* NaN: keep it one, quiet */
        return (uint16_t)(word >> 16 | 0x40);
    word += 0x7fff + (word >> 16 & 1);
    return (uint16_t)(word >> 16);
}

float mix_f16_to_f32(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31;
    uint32_t mantissa = bits & 1023, word;
    float value;

    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact */
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31)
        word = sign | 0x7f800000u | mantissa << 13;
    else
        word = sign | (exponent + 112) << 23 | mantissa << 13;
    memcpy(&value, &word, 4);
    return value;
}

uint16_t mix_f32_to_f16(float value)
{
    uint32_t word, magnitude;
    uint16_t sign;

    memcpy(&word, &value, 4);
    sign = (uint16_t)(word >> 16 & 0x8000);
    magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000u) /* 65520 and above round to Inf */
        return sign | 0x7c00;
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 rounds at 2^-24 */
        float bits, shifted;

        memcpy(&bits, &magnitude, 4);
        shifted = bits + 0.5f;
        memcpy(&magnitude, &shifted, 4);
        return (uint16_t)(sign | (magnitude - 0x3f000000u));
    }
    magnitude += 0xfff + (magnitude >> 13 & 1); /* to nearest even */
    return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}
