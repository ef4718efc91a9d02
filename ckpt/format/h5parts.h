/*
 * h5parts.h - what the writer and the reader of HDF5 shards share: the numbers of the
 * file format, the spelling of its datatypes, and the names of links. H5SHARD.md
 * draws the file; "HDF5 File Format Specification 3.0" defines every structure.
 */
#ifndef MIXCKPT_CKPT_FORMAT_H5PARTS_H
#define MIXCKPT_CKPT_FORMAT_H5PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/dtype.h"

#define MIX_H5_SIGNATURE "\x89HDF\r\n\x1a\n"
#define MIX_H5_NOWHERE UINT64_MAX /* an address that is not there */

enum {
    /* Sizes and places of version 0 and version 1 structures, with 8-byte offsets. */
    MIX_H5_SUPERBLOCK = 96,
    MIX_H5_OBJECT_PREFIX = 16,
    MIX_H5_MESSAGE_PREFIX = 8,
    MIX_H5_TREE_PREFIX = 24,
    MIX_H5_HEAP_PREFIX = 32,
    MIX_H5_LEAF_PREFIX = 8,
    MIX_H5_LINK = 40, /* an entry of a leaf (SNOD), or the root's in the superblock */

    MIX_H5_MAX_MESSAGE = 65535, /* its size is a u16 */
    MIX_H5_MAX_NAME = 65000,    /* a name is an attribute, and an attribute is a message */
};

enum mix_h5_message {
    MIX_H5_NIL = 0x00,
    MIX_H5_DATASPACE = 0x01,
    MIX_H5_LINK_INFO = 0x02,
    MIX_H5_DATATYPE = 0x03,
    MIX_H5_FILL_OLD = 0x04,
    MIX_H5_FILL = 0x05,
    MIX_H5_LINK_MESSAGE = 0x06,
    MIX_H5_EXTERNAL = 0x07,
    MIX_H5_LAYOUT = 0x08,
    MIX_H5_GROUP_INFO = 0x0a,
    MIX_H5_FILTERS = 0x0b,
    MIX_H5_ATTRIBUTE = 0x0c,
    MIX_H5_COMMENT = 0x0d,
    MIX_H5_TIME_OLD = 0x0e,
    MIX_H5_CONTINUATION = 0x10,
    MIX_H5_SYMBOL_TABLE = 0x11,
    MIX_H5_TIME = 0x12,
    MIX_H5_ATTRIBUTE_INFO = 0x15,
    MIX_H5_REFERENCE_COUNT = 0x16,
};

/* The datatype whose elements a dataset of this dtype holds: U8 for F8, F6 and F4. */
enum mix_dtype mix_h5_stored_dtype(enum mix_dtype dtype);

/* The datatype message of a stored dtype, as libhdf5 and h5py spell it. */
const unsigned char *mix_h5_datatype(enum mix_dtype stored, size_t *bytes);

/* The dtype whose datatype message `data` begins with; false if there is none. */
bool mix_h5_find_datatype(const unsigned char *data, size_t len, enum mix_dtype *out);

/* What a datatype message says, in words: "big-endian float of 4 bytes". */
void mix_h5_describe_datatype(const unsigned char *data, size_t len, char *out,
                              size_t capacity);

/*
 * Links cannot be called "" or ".", nor hold '/'. So '%' becomes "%25", '/' "%2F",
 * a name that is "." "%2E", and an empty name "%", which nothing else becomes: no two
 * names share a link name. _bytes() counts without the NUL; _put() writes one.
 */
size_t mix_h5_link_name_bytes(const char *name);
void mix_h5_link_name_put(const char *name, char *out);

#endif
