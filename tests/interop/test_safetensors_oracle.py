"""What the safetensors package accepts we accept, and what it refuses we refuse.

    MIXCKPT=build/mixckpt python -m unittest tests/interop/test_safetensors_oracle.py

Crafted files, one rule each, are shown to the package and to `$MIXCKPT inspect`; the
verdicts must agree but for the rows of STRICTER, each with its reason.
"""

import json
import os
import struct
import subprocess
import tempfile
import unittest

from safetensors import SafetensorError, safe_open

# Accepted by the package, refused by us on purpose.
STRICTER = {
    "duplicate name, last covers": "one of the two would be lost without a word",
    "duplicate name, escaped": "one of the two would be lost without a word",
    "duplicate metadata key": "one of the two would be lost without a word",
    "duplicate key in unknown field": "no JSON of ours may hold a key twice",
    "control character in name": "names are printed one a line",
    "DEL in name": "names are printed one a line",
    "NUL in name": "a C string would end there",
    "NUL in metadata": "a C string would end there",
    "at sign in name": "only optimizer state has an @",
    "at sign in weight's name before a suffix": "only optimizer state has an @",
    "rank 33": "HDF5 holds at most 32 dimensions",
    "depth 100 in unknown field": "JSON nested deeper than 64",
    "dtype as a map": "serde reads an enum from a map too; no writer does",
}

HUGE = 2**63


def raw(header, data=b"", length=None):
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype="U8", shape=(4,), begin=0, end=4, **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


def tensors(data_bytes, **entries):
    return raw(json.dumps(entries), bytes(data_bytes))


A = '"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'


def one(text, data_bytes=4):
    """A header of one entry 'a', given as JSON text."""
    return raw('{"a":%s}' % text, bytes(data_bytes))


def fields(dtype='"U8"', shape="[4]", offsets="[0,4]", more=""):
    return '{"dtype":%s,"shape":%s,"data_offsets":%s%s}' % (dtype, shape, offsets, more)


def nested(depth):
    return "[" * depth + "]" * depth


CASES = {
    # the frame
    "empty file": b"",
    "seven bytes": bytes(7),
    "length 0": raw(""),
    "length one too large": raw("{%s}" % A, b"", length=len(A) + 3),
    "length over the limit": raw("{}", b"", length=100000001),
    "length huge": raw("{}", b"", length=2**64 - 1),
    "length huge, wraps with the prefix": raw("{}", b"", length=2**64 - 8),
    "no tensors": raw("{}"),
    "no tensors, data": raw("{}", b"x"),
    "data one byte short": tensors(3, a=entry()),
    "data one byte long": tensors(5, a=entry()),
    "no data": tensors(0, a=entry()),
    # JSON
    "leading white space": raw(" \n\t{%s}" % A, bytes(4)),
    "trailing white space": raw("{%s} \n " % A, bytes(4)),
    "trailing NUL": raw("{%s}\0" % A, bytes(4)),
    "trailing text": raw("{%s}x" % A, bytes(4)),
    "byte order mark": raw(b"\xef\xbb\xbf{" + A.encode() + b"}", bytes(4)),
    "comment": raw("{/* */%s}" % A, bytes(4)),
    "trailing comma": raw("{%s,}" % A, bytes(4)),
    "single quotes": raw("{'a':%s}" % fields(), bytes(4)),
    "header is an array": raw("[]"),
    "header is a number": raw("8"),
    "header is null": raw("null"),
    "header cut short": raw("{%s" % A, bytes(4)),
    "not UTF-8": raw(b'{"\xff":' + fields().encode() + b"}", bytes(4)),
    "overlong UTF-8": raw(b'{"\xc0\x80":' + fields().encode() + b"}", bytes(4)),
    "surrogate in UTF-8": raw(b'{"\xed\xa0\x80":' + fields().encode() + b"}", bytes(4)),
    "lone high surrogate": raw('{"\\ud800":%s}' % fields(), bytes(4)),
    "lone low surrogate": raw('{"\\udc00":%s}' % fields(), bytes(4)),
    "surrogate pair": raw('{"\\ud83d\\ude00":%s}' % fields(), bytes(4)),
    "raw control character in a string": raw('{"\x01":%s}' % fields(), bytes(4)),
    "raw DEL is no control character": raw('{"__metadata__":{"\x7f":""},%s}' % A, bytes(4)),
    "unknown escape": raw('{"\\x61":%s}' % fields(), bytes(4)),
    "duplicate name, last covers": raw("{%s,%s}" % (A, A), bytes(4)),
    "duplicate name, escaped": raw('{%s,"\\u0061":%s}' % (A, fields()), bytes(4)),
    "duplicate name, a hole is left": raw(
        '{%s,"a":%s}' % (A, fields(offsets="[4,8]")), bytes(8)),
    "duplicate __metadata__": raw('{"__metadata__":{},"__metadata__":{},%s}' % A, bytes(4)),
    "duplicate field": one(fields(more=',"dtype":"U8"')),
    "duplicate metadata key": raw('{"__metadata__":{"k":"1","k":"2"},%s}' % A, bytes(4)),
    # names
    "empty name": raw('{"":%s}' % fields(), bytes(4)),
    "control character in name": raw('{"a\\nb":%s}' % fields(), bytes(4)),
    "DEL in name": raw('{"a\x7fb":%s}' % fields(), bytes(4)),
    "NUL in name": raw('{"a\\u0000b":%s}' % fields(), bytes(4)),
    "at sign in name": raw('{"a@b":%s}' % fields(), bytes(4)),
    "at sign in weight's name before a suffix": raw('{"a@b@master":%s}' % fields(), bytes(4)),
    "optimizer suffix": raw('{"a@exp_avg_sq":%s}' % fields(), bytes(4)),
    "name of other letters": raw('{"ключ/тензор.😀":%s}' % fields(), bytes(4)),
    # metadata
    "metadata null": raw('{"__metadata__":null,%s}' % A, bytes(4)),
    "metadata empty": raw('{"__metadata__":{},%s}' % A, bytes(4)),
    "metadata last": raw('{%s,"__metadata__":{"format":"pt"}}' % A, bytes(4)),
    "metadata an array": raw('{"__metadata__":[],%s}' % A, bytes(4)),
    "metadata a string": raw('{"__metadata__":"x",%s}' % A, bytes(4)),
    "metadata with a number": raw('{"__metadata__":{"k":1},%s}' % A, bytes(4)),
    "metadata with null": raw('{"__metadata__":{"k":null},%s}' % A, bytes(4)),
    "metadata nested": raw('{"__metadata__":{"k":{}},%s}' % A, bytes(4)),
    "NUL in metadata": raw('{"__metadata__":{"k":"\\u0000"},%s}' % A, bytes(4)),
    # entries
    "entry an array": one('["U8",[4],[0,4]]'),
    "entry an array of two": one('["U8",[4]]'),
    "entry an array of four": one('["U8",[4],[0,4],1]'),
    "entry a string": one('"x"'),
    "entry null": one("null"),
    "no dtype": one('{"shape":[4],"data_offsets":[0,4]}'),
    "no shape": one('{"dtype":"U8","data_offsets":[0,4]}'),
    "no offsets": one('{"dtype":"U8","shape":[4]}'),
    "field in upper case": one('{"Dtype":"U8","shape":[4],"data_offsets":[0,4]}'),
    "unknown field": one(fields(more=',"x":{"y":[1,2.5e3,null,true]}')),
    "unknown field, number out of range": one(fields(more=',"x":1e999')),
    "unknown field, integer over 64 bits": one(fields(more=',"x":1' + "0" * 30)),
    "duplicate key in unknown field": one(fields(more=',"x":{"y":1,"y":2}')),
    "depth 40 in unknown field": one(fields(more=',"x":' + nested(40))),
    "depth 100 in unknown field": one(fields(more=',"x":' + nested(100))),
    "depth 5000 in unknown field": one(fields(more=',"x":' + nested(5000))),
    # dtype
    "unknown dtype": one(fields(dtype='"U7"')),
    "lower-case dtype": one(fields(dtype='"u8"')),
    "complex of 128 bits": one(fields(dtype='"C128"')),
    "dtype null": one(fields(dtype="null")),
    "dtype a number": one(fields(dtype="0")),
    "dtype as a map": one(fields(dtype='{"U8":null}')),
    # shape
    "scalar": one(fields(shape="[]", offsets="[0,1]"), 1),
    "shape null": one(fields(shape="null")),
    "shape a number": one(fields(shape="4")),
    "shape with a string": one(fields(shape='["4"]')),
    "shape with a fraction": one(fields(shape="[4.0]")),
    "shape with an exponent": one(fields(shape="[4e0]")),
    "shape negative": one(fields(shape="[-4]")),
    "shape minus zero": one(fields(shape="[-0]", offsets="[0,0]"), 0),
    "shape over 64 bits": one(fields(shape="[18446744073709551620]")),
    "leading zero": one(fields(shape="[04]")),
    "plus sign": one(fields(shape="[+4]")),
    "product wraps to 4": one(fields(shape="[%d,2,2]" % (2**62 + 1)), 4),
    "[huge, huge, 0]": one(fields(shape="[%d,%d,0]" % (HUGE, HUGE), offsets="[0,0]"), 0),
    "[0, huge, huge]": one(fields(shape="[0,%d,%d]" % (HUGE, HUGE), offsets="[0,0]"), 0),
    "rank 32": one(fields(shape="[%s4]" % ("1," * 31))),
    "rank 33": one(fields(shape="[%s4]" % ("1," * 32))),
    # offsets
    "one offset": one(fields(offsets="[0]")),
    "three offsets": one(fields(offsets="[0,4,4]")),
    "offsets null": one(fields(offsets="null")),
    "offset a fraction": one(fields(offsets="[0,4.0]")),
    "offset an exponent": one(fields(offsets="[0,4e0]")),
    "offset negative": one(fields(offsets="[-1,3]")),
    "offset minus zero": one(fields(offsets="[-0,4]")),
    "offset a string": one(fields(offsets='["0","4"]')),
    "end before begin": tensors(4, a=entry(), b=entry("U8", (4,), 4, 0)),
    "begin at 2^64 - 4": one(fields(offsets="[18446744073709551612,18446744073709551615]")),
    "fewer bytes than the shape": tensors(3, a=entry("U8", (4,), 0, 3)),
    "more bytes than the shape": tensors(5, a=entry("U8", (4,), 0, 5)),
    # tiling
    "gap before the first": tensors(5, a=entry("U8", (4,), 1, 5)),
    "hole": tensors(9, a=entry(), b=entry("U8", (4,), 5, 9)),
    "overlap": tensors(6, a=entry(), b=entry("U8", (4,), 2, 6)),
    "same range twice": tensors(4, a=entry(), b=entry()),
    "unsorted": tensors(8, a=entry("U8", (4,), 4, 8), b=entry()),
    "misaligned": tensors(9, a=entry("U8", (1,), 0, 1), b=entry("F32", (2,), 1, 9)),
    "zero size first": tensors(4, z=entry("F32", (0,), 0, 0), a=entry()),
    "zero size last": tensors(4, a=entry(), z=entry("F32", (0, 7), 4, 4)),
    "zero size listed behind": tensors(8, a=entry(), b=entry("U8", (4,), 4, 8),
                                       z=entry("F32", (0,), 4, 4)),
    "zero size within another": tensors(4, a=entry(), z=entry("F32", (0,), 2, 2)),
    "zero size beyond the end": tensors(4, a=entry(), z=entry("F32", (0,), 9, 9)),
    "only zero size": tensors(0, z=entry("F32", (0,), 0, 0), y=entry("I8", (3, 0), 0, 0)),
    # elements smaller than a byte
    "F4, even": tensors(2, a=entry("F4", (4,), 0, 2)),
    "F4, odd": tensors(2, a=entry("F4", (3,), 0, 2)),
    "F6, four make three bytes": tensors(3, a=entry("F6_E2M3", (4,), 0, 3)),
    "F6, two make no whole byte": tensors(2, a=entry("F6_E3M2", (2,), 0, 2)),
}

WIDTH = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1,
         "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
         "I32": 4, "U32": 4, "F32": 4, "C64": 8, "F64": 8, "I64": 8, "U64": 8}
for name, width in WIDTH.items():
    CASES["dtype " + name] = tensors(3 * width, a=entry(name, (3,), 0, 3 * width))


def reference_accepts(path):
    try:
        with safe_open(path, "np") as f:
            f.keys()
        return True
    except (SafetensorError, ValueError, OSError):
        return False


def we_accept(path):
    done = subprocess.run([os.environ["MIXCKPT"], "inspect", path], capture_output=True,
                          check=False)
    if done.returncode not in (0, 3):
        raise AssertionError(f"exit {done.returncode}: {done.stderr!r}")
    if done.returncode == 3 and (not done.stderr.startswith(b"mixckpt: ")
                                 or done.stderr.count(b"\n") != 1):
        raise AssertionError(f"not one line of words: {done.stderr!r}")
    return done.returncode == 0


class SafetensorsOracle(unittest.TestCase):
    def test_verdicts_agree(self):
        self.assertIn("MIXCKPT", os.environ, "it must name the program")
        self.assertFalse(set(STRICTER) - set(CASES))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "m.safetensors")
            for name, content in CASES.items():
                with self.subTest(name):
                    with open(path, "wb") as f:
                        f.write(content)
                    theirs, ours = reference_accepts(path), we_accept(path)
                    if name in STRICTER:
                        self.assertTrue(theirs, "the package refuses this too")
                        self.assertFalse(ours, "accepted: " + STRICTER[name])
                    else:
                        self.assertEqual(theirs, ours, "the package, and we")


if __name__ == "__main__":
    unittest.main()
