/* h5parts.c - datatypes and link names of HDF5 shards. */
#include "ckpt/format/h5parts.h"

#include <stdio.h>
#include <string.h>

#include "ckpt/base/bytes.h"

/*
 * Datatype messages: version and class in one byte, 24 flag bits, the size of an
 * element, and what the class adds. Exact bytes rather than fields: libhdf5 spells a
 * type in one way only (under its oldest, default file format), so a type that is not
 * in this table is one that no tensor has, and nothing in it needs to be parsed.
 */
#define INTEGER(signed_bit, size, bits) "\x10" signed_bit "\0\0" size "\0\0\0" "\0\0" bits "\0"
#define FLOAT(sign, size, bits, exponent, mantissa, bias) \
    "\x11\x20" sign "\0" size "\0\0\0" "\0\0" bits "\0" exponent "\0" mantissa bias "\0\0"

#define F32 FLOAT("\x1f", "\4", "\x20", "\x17\x08", "\x17", "\x7f\0")

/* A member of a compound: name, byte offset, no dimensions (28 bytes), and its type. */
#define MEMBER(name, offset, type) name "\0\0\0\0\0\0\0" offset "\0\0\0" \
    "\0\0\0\0" "\0\0\0\0" "\0\0\0\0" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\0" type

#define ROW(text) { (const unsigned char *)(text), sizeof(text) - 1 }

static const struct {
    const unsigned char *bytes;
    size_t len;
} datatype[MIX_DTYPE_COUNT] = {
    /* Two members on an int8: the enum that h5py reads as bool. */
    [MIX_BOOL] = ROW("\x18\x02\0\0" "\1\0\0\0" INTEGER("\x08", "\1", "\x08")
                     "FALSE\0\0\0" "TRUE\0\0\0\0" "\0" "\1"),
    [MIX_U8] = ROW(INTEGER("\0", "\1", "\x08")),
    [MIX_I8] = ROW(INTEGER("\x08", "\1", "\x08")),
    [MIX_I16] = ROW(INTEGER("\x08", "\2", "\x10")),
    [MIX_U16] = ROW(INTEGER("\0", "\2", "\x10")),
    [MIX_F16] = ROW(FLOAT("\x0f", "\2", "\x10", "\x0a\x05", "\x0a", "\x0f\0")),
    [MIX_BF16] = ROW(FLOAT("\x0f", "\2", "\x10", "\x07\x08", "\x07", "\x7f\0")),
    [MIX_I32] = ROW(INTEGER("\x08", "\4", "\x20")),
    [MIX_U32] = ROW(INTEGER("\0", "\4", "\x20")),
    [MIX_F32] = ROW(F32),
    [MIX_C64] = ROW("\x16\x02\0\0" "\x08\0\0\0" MEMBER("r", "\0", F32) MEMBER("i", "\4", F32)),
    [MIX_F64] = ROW(FLOAT("\x3f", "\x08", "\x40", "\x34\x0b", "\x34", "\xff\3")),
    [MIX_I64] = ROW(INTEGER("\x08", "\x08", "\x40")),
    [MIX_U64] = ROW(INTEGER("\0", "\x08", "\x40")),
};

enum mix_dtype mix_h5_stored_dtype(enum mix_dtype dtype)
{
    return datatype[dtype].bytes ? dtype : MIX_U8;
}

const unsigned char *mix_h5_datatype(enum mix_dtype stored, size_t *bytes)
{
    *bytes = datatype[stored].len;
    return datatype[stored].bytes;
}

bool mix_h5_find_datatype(const unsigned char *data, size_t len, enum mix_dtype *out)
{
    for (int i = 0; i < MIX_DTYPE_COUNT; i++) {
        if (!datatype[i].bytes || datatype[i].len > len ||
            memcmp(datatype[i].bytes, data, datatype[i].len))
            continue;
        *out = (enum mix_dtype)i;
        return true;
    }
    return false;
}

void mix_h5_describe_datatype(const unsigned char *data, size_t len, char *out,
                              size_t capacity)
{
    static const char *const class[] = {
        "integer",  "float",           "time",        "string",          "bit field", "opaque",
        "compound", "reference",       "enumeration", "variable-length", "array",     "complex",
    };
    unsigned number = len ? data[0] & 15u : 15;

    if (len < 8 || number >= MIX_ARRAY_LEN(class)) {
        snprintf(out, capacity, "an unknown class");
        return;
    }
    /* Bit 0 is the byte order of the two classes that have one here. */
    snprintf(out, capacity, "%s%s of %u bytes",
             number <= 1 && data[1] & 1 ? "big-endian " : "", class[number],
             (unsigned)mix_load_le(data + 4, 4));
}

/* What stands for a byte of a name; NULL: the byte itself. */
static const char *escape(char c)
{
    return c == '%' ? "%25" : c == '/' ? "%2F" : NULL;
}

/* What stands for a whole name; NULL: its bytes, each escaped alone. */
static const char *escape_whole(const char *name)
{
    return !*name ? "%" : !strcmp(name, ".") ? "%2E" : NULL;
}

size_t mix_h5_link_name_bytes(const char *name)
{
    const char *whole = escape_whole(name);
    size_t bytes = 0;

    if (whole)
        return strlen(whole);
    for (; *name; name++)
        bytes += escape(*name) ? 3 : 1;
    return bytes;
}

void mix_h5_link_name_put(const char *name, char *out)
{
    const char *whole = escape_whole(name);

    if (whole) {
        memcpy(out, whole, strlen(whole) + 1);
        return;
    }
    for (; *name; name++) {
        const char *text = escape(*name);

        if (text) {
            memcpy(out, text, 3);
            out += 3;
        } else {
            *out++ = *name;
        }
    }
    *out = '\0';
}
