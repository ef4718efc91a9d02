"""HDF5 files of h5py, read by mixckpt; HDF5 shards of mixckpt, read by h5py and h5dump.

    MIXCKPT=build/mixckpt python -m unittest tests/interop/test_h5shard.py

The files below are also the seeds of tests/fuzz/corpus/h5shard, which the unit test
reads without Python. To make those again:

    python tests/interop/test_h5shard.py --corpus tests/fuzz/corpus/h5shard
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

MIXCKPT = os.environ.get("MIXCKPT")

NUMPY = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2",
         "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
         "C64": "c8"}


def utf8(text):
    """The dtype of an attribute as H5SHARD.md spells strings."""
    return h5py.string_dtype("utf-8", len(text.encode()))


def put_text(dataset, **attributes):
    for key, text in attributes.items():
        dataset.attrs.create(key, text, dtype=utf8(text))


def put_u64(dataset, **attributes):
    for key, value in attributes.items():
        dataset.attrs[key] = np.array(value, "u8")


# ---- files that must be read: each writer, and {name: (dtype, shape)} ----

def write_default(f):
    for dtype, code in NUMPY.items():
        if dtype != "BOOL":
            f["t/" + dtype] = np.arange(6).reshape(2, 3).astype(code)
    f["t/BOOL"] = np.array([[True, False, True], [False, True, True]])
    f["scalar"] = np.float32(3)
    f["zero"] = np.zeros((0, 3), "f4")
    f["a/b/c/d"] = np.arange(4, dtype="i4")
    f.create_group("nothing")


DEFAULT = {"t/" + dtype: (dtype, [2, 3]) for dtype in NUMPY}
DEFAULT.update({"scalar": ("F32", []), "zero": ("F32", [0, 3]), "a/b/c/d": ("I32", [4])})


def write_attributes(f):
    """A header with continuations, a time, and attributes that only look like ours."""
    d = f.create_dataset("times", data=np.arange(6, dtype="f4"), track_times=True)
    for i in range(12):
        d.attrs["a%d" % i] = "x" * 50
    d.attrs["name"] = "of variable length"
    d.attrs["dtype"] = np.bytes_(b"in ASCII")
    d.attrs["shape"] = (1, 2)
    put_u64(d, start=[9])
    f.attrs["title"] = "x"
    g = f.create_group("g")
    g.attrs["y"] = np.arange(3)
    g["x"] = np.ones(3, "i2")


def write_shard(f):
    """What H5SHARD.md lets anybody write: F8, F4 and a piece."""
    d = f.create_dataset("f8", data=np.arange(6, dtype="u1").reshape(2, 3))
    put_text(d, dtype="F8_E4M3")
    d = f.create_dataset("f4", data=np.arange(6, dtype="u1"))
    put_text(d, dtype="F4")
    put_u64(d, shape=[3, 4])
    d = f.create_dataset("w%2Fx", data=np.arange(6, dtype="f4"))
    put_text(d, name="w/x", dtype="F32")
    put_u64(d, start=[4], tensor_shape=[20])


def write_many(f):
    """Enough links for a B-tree with several leaves."""
    for i in range(20):
        f["d%02d" % i] = np.int16(i)


def write_compact(f):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((5,))
    d = h5py.h5d.create(f.id, b"compact", h5py.h5t.IEEE_F32LE, space, plist)
    d.write(space, space, np.arange(5, dtype="f4"))


READ = {
    "default": (write_default, DEFAULT),
    "attributes": (write_attributes, {"times": ("F32", [6]), "g/x": ("I16", [3])}),
    "shard": (write_shard, {"f8": ("F8_E4M3", [2, 3]), "f4": ("F4", [3, 4]),
                            "w/x": ("F32", [6])}),
    "many": (write_many, {"d%02d" % i: ("I16", []) for i in range(20)}),
    "compact": (write_compact, {"compact": ("F32", [5])}),
}


# ---- files that must be refused: each writer, and words of the refusal ----

def with_data(data=None, **options):
    return lambda f: f.create_dataset("x", data=data, **options)


def write_nested_chunked(f):
    f.create_dataset("g/x", data=np.arange(10), chunks=(5,))


def write_virtual(f):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    f.create_virtual_dataset("x", layout)


def write_link(link):
    def write(f):
        f["y"] = np.arange(3)
        f["x"] = f["y"] if link is None else link
    return write


def write_cycle(f):
    f.create_group("g")["up"] = f["/"]


def write_named_type(f):
    f["x"] = np.dtype("f4")


def write_committed(f):
    f["t"] = np.dtype("f4")
    f.create_dataset("a", data=np.arange(3, dtype="f4"), dtype=f["t"])


def write_new_group(f):
    f.create_group("g", track_order=True)["x"] = 1


def with_text(data, **attributes):
    def write(f):
        put_text(f.create_dataset("x", data=data), **attributes)
    return write


def write_box(f):
    d = f.create_dataset("x", data=np.arange(3, dtype="u1"))
    put_text(d, name="x", dtype="U8")
    put_u64(d, start=[8], tensor_shape=[10])


def write_half_box(f):
    d = f.create_dataset("x", data=np.arange(3, dtype="u1"))
    put_text(d, name="x", dtype="U8")
    put_u64(d, start=[8])


REFUSED = {
    "chunked": (write_nested_chunked,
                "dataset 'g/x': it is chunked; only contiguous data is read"),
    "gzip": (with_data(np.arange(10), chunks=(5,), compression="gzip"),
             "dataset 'x': it is chunked, and compressed or filtered (gzip, filter 1"),
    "big-endian-float": (with_data(np.arange(3, dtype=">f4")), "big-endian float of 4 bytes"),
    "big-endian-int": (with_data(np.arange(3, dtype=">i8")), "big-endian integer of 8 bytes"),
    "string": (with_data(data=np.array([b"abc", b"d"])), "string of 3 bytes"),
    "vlen": (with_data(data=["a", "b"]), "variable-length of 16 bytes"),
    "compound": (with_data(np.zeros(2, [("a", "f4"), ("b", "i4")])), "compound of 8 bytes"),
    "complex128": (with_data(np.zeros(2, "c16")), "compound of 16 bytes"),
    "longdouble": (with_data(np.zeros(2, np.longdouble)), "float of 16 bytes"),
    "reference": (with_data(shape=(1,), dtype=h5py.ref_dtype), "reference of 8 bytes"),
    "array": (with_data(shape=(2,), dtype=np.dtype(("f4", (3,)))), "array of 12 bytes"),
    "opaque": (with_data(np.zeros(2, "V3")), "opaque of 3 bytes"),
    "external": (with_data(shape=(4,), dtype="u1", external=[("other.bin", 0, 4)]),
                 "dataset 'x': its data lies in external files"),
    "virtual": (write_virtual, "dataset 'x': it is virtual"),
    "soft-link": (write_link(h5py.SoftLink("/y")), "link 'x' is a soft link"),
    "external-link": (write_link(h5py.ExternalLink("other.h5", "/y")),
                      "links of the new format (external links"),
    "hard-link": (write_link(None), "is linked a second time"),
    "cycle": (write_cycle, "object 'g/up': the object at byte 96 is linked a second time"),
    "empty": (with_data(data=h5py.Empty("f4")), "null dataspace (h5py.Empty)"),
    "unwritten": (with_data(shape=(3,), dtype="f4"), "it was never written: 12 bytes"),
    "named-type": (write_named_type, "object 'x': it is a named datatype"),
    "committed": (write_committed, "dataset 'a': it uses a named (committed) datatype"),
    "latest": (with_data(np.arange(3)), "its superblock has version 3", {"libver": "latest"}),
    "track-order": (write_new_group, "object 'g': its object header has version 2"),
    "user-block": (with_data(np.arange(3)), "this is no HDF5 file", {"userblock_size": 512}),
    "dtype-differs": (with_text(np.arange(3, dtype="f4"), dtype="F16"),
                      "its attribute 'dtype' says F16, but it holds F32"),
    "dtype-unknown": (with_text(np.arange(3, dtype="f4"), dtype="float32"),
                      "'float32', which is no dtype of safetensors"),
    "packed-without-shape": (with_text(np.arange(3, dtype="u1"), dtype="F4"),
                             "it holds packed F4 but has no attribute 'shape'"),
    "name-differs": (with_text(np.arange(3, dtype="u1"), name="y/z"),
                     "its attribute 'name' says 'y/z', which would be linked as 'y%2Fz'"),
    "box": (write_box, "in dimension 0 it begins at 8 and has 3 of its tensor's 10"),
    "half-box": (write_half_box, "'start' and 'tensor_shape' without the other"),
}


def write_file(path, write, options=None):
    with h5py.File(path, "w", **(options or {})) as f:
        write(f)


def write_corpus(folder):
    for name, (write, _) in READ.items():
        write_file(os.path.join(folder, "h5py-%s.h5" % name), write)
    for name, (write, _, *options) in REFUSED.items():
        write_file(os.path.join(folder, "refused-%s.h5" % name), write, *options)


# ---- the tests ----

def run(*arguments):
    return subprocess.run([MIXCKPT, *arguments], capture_output=True, text=True, timeout=60)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}, without asking the safetensors package about F4."""
    with open(path, "rb") as f:
        raw = f.read()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"],
                   raw[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]])
            for name, t in header.items()}


class Folder(unittest.TestCase):
    """A folder for each test."""

    def setUp(self):
        if not MIXCKPT:
            self.fail("MIXCKPT must name the program")
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)


class ReadsWhatH5pyWrites(Folder):
    def test_inspect_shows_names_dtypes_and_shapes(self):
        for name, (write, tensors) in READ.items():
            with self.subTest(name):
                path = self.path(name + ".h5")
                write_file(path, write)
                result = run("inspect", "--json", path)
                self.assertEqual(result.returncode, 0, result.stderr)
                seen = json.loads(result.stdout)
                self.assertEqual(seen["format"], "hdf5")
                self.assertEqual({t["name"]: (t["dtype"], t["shape"])
                                  for t in seen["tensors"]}, tensors)

    def test_convert_gives_equal_arrays(self):
        import safetensors.numpy

        path, out = self.path("f.h5"), self.path("out")
        write_file(path, write_default)
        result = run("convert", path, out, "--to", "hf")
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(os.path.join(out, "model.safetensors"), "rb") as f:
            raw = f.read()
        stored = read_safetensors(os.path.join(out, "model.safetensors"))
        self.assertEqual({n: (d, s) for n, (d, s, _) in stored.items()}, DEFAULT)
        del stored["t/C64"]  # beyond the numpy half of the safetensors package
        loaded = safetensors.numpy.load(without(raw, "t/C64"))
        with h5py.File(path) as f:
            self.assertEqual(read_safetensors(os.path.join(out, "model.safetensors"))
                             ["t/C64"][2], f["t/C64"][()].tobytes())
            for name in stored:
                np.testing.assert_array_equal(loaded[name], f[name][()])

    def test_other_files_are_refused_by_name(self):
        for name, (write, words, *options) in REFUSED.items():
            with self.subTest(name):
                path = self.path(name + ".h5")
                write_file(path, write, *options)
                result = run("inspect", path)
                self.assertEqual(result.returncode, 3)
                self.assertIn(name + ".h5", result.stderr)
                self.assertIn(words, result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1)

    def test_a_tree_of_several_levels(self):
        path = self.path("f.h5")
        with h5py.File(path, "w") as f:
            for i in range(3000):
                f["g/d%04d" % i] = np.int32(i)
        result = run("inspect", "--json", path)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([t["name"] for t in json.loads(result.stdout)["tensors"]],
                         ["g/d%04d" % i for i in range(3000)])

    def test_a_cut_file_is_refused(self):
        path = self.path("f.h5")
        write_file(path, write_default)
        os.truncate(path, os.path.getsize(path) - 1)
        result = run("inspect", path)
        self.assertEqual(result.returncode, 3)
        self.assertIn("its superblock says", result.stderr)


def without(raw, name):
    """A safetensors file less one tensor, its bytes left out."""
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    data, at, out = raw[8 + length:], 0, b""
    del header[name]
    header.pop("__metadata__", None)
    for t in header.values():
        begin, end = t["data_offsets"]
        out += data[begin:end]
        t["data_offsets"] = [at, at + end - begin]
        at += end - begin
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + out


class H5pyReadsWhatMixckptWrites(Folder):
    """A Hugging Face folder of an unknown model type keeps its names and takes ep 1 only."""

    NAMES = ["a/b", "a", "a%b", "a-b", ".", "..", "with space", "\u00fcn\u00ef",
             "\u65e5\u672c", "%2E"]
    TYPES = list(NUMPY) + ["BF16", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3"]
    BITS = {"F4": 4, "F6_E2M3": 6, "BF16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8}

    def tensors(self):
        rng = np.random.default_rng(1)
        for dtype in self.TYPES:
            if dtype in NUMPY:
                value = rng.integers(0, 2 if dtype == "BOOL" else 100, (5, 8))
                yield "t." + dtype, dtype, [5, 8], value.astype(NUMPY[dtype]).tobytes()
            else:
                bits = self.BITS[dtype]
                yield "t." + dtype, dtype, [5, 8], rng.bytes(5 * 8 * bits // 8)
        for name in self.NAMES:
            yield name, "F32", [4], rng.standard_normal(4).astype("f4").tobytes()
        yield "scalar", "F64", [], rng.standard_normal(1).tobytes()
        yield "none", "F32", [0, 3], b""

    def make_source(self):
        header, data = {}, b""
        for name, dtype, shape, raw in self.tensors():
            header[name] = {"dtype": dtype, "shape": shape,
                            "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        os.mkdir(self.path("src"))
        with open(self.path("src/model.safetensors"), "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + data)
        with open(self.path("src/config.json"), "w") as f:
            f.write('{"model_type": "nothing-known"}')

    def convert(self, dst):
        result = run("convert", self.path("src"), self.path(dst), "--to", "mixckpt",
                     "--ep", "1", "--hsd", "2", "--container", "hdf5")
        self.assertEqual(result.returncode, 0, result.stderr)
        model = self.path(dst + "/model")
        return sorted(os.path.join(model, name) for name in os.listdir(model))

    def check_dataset(self, dataset, whole):
        """Compare one piece with its rows of the tensor; returns the tensor's name."""
        name = dataset.attrs["name"].rstrip(b"\0").decode()
        dtype, shape, raw = whole[name]
        self.assertEqual(dataset.attrs["dtype"].decode(), dtype)
        value = dataset[()]
        if dtype == "BF16":
            self.assertEqual(value.dtype, np.float32)
            value = (np.asarray(value).view("u4") >> 16).astype("u2")
        elif dtype in NUMPY:
            self.assertEqual(value.dtype, np.dtype(NUMPY[dtype]))
        else:
            self.assertEqual(value.dtype, np.uint8)
        if not shape:
            self.assertEqual(value.tobytes(), raw)
            return name
        start = [int(v) for v in dataset.attrs["start"]]
        self.assertEqual([int(v) for v in dataset.attrs["tensor_shape"]], shape)
        row = len(raw) // shape[0] if shape[0] else 0
        rows = value.nbytes // row if row else 0
        if value.nbytes:
            self.assertEqual(dataset.id.get_offset() % 4096, 0)
        self.assertEqual(value.tobytes(), raw[start[0] * row:(start[0] + rows) * row])
        return name

    def test_numbers_names_and_pieces(self):
        self.make_source()
        whole = {n: (d, s, raw) for n, d, s, raw in self.tensors()}
        seen, covered = set(), 0
        for path in self.convert("dst"):
            with h5py.File(path, "r") as f:
                for link in f:
                    seen.add(self.check_dataset(f[link], whole))
                    covered += f[link].id.get_storage_size()
        self.assertEqual(seen, set(whole))
        self.assertEqual(covered, sum(len(raw) for _, _, raw in whole.values()))

    def test_h5dump_prints_numbers(self):
        self.make_source()
        for path in self.convert("dst"):
            result = subprocess.run(["h5dump", path], capture_output=True, timeout=60)
            self.assertEqual((result.returncode, result.stderr), (0, b""))
            self.assertIn(b"16-bit little-endian floating-point", result.stdout)

    def test_the_same_bytes_on_every_run(self):
        self.make_source()
        for one, two in zip(self.convert("one"), self.convert("two")):
            with open(one, "rb") as f, open(two, "rb") as g:
                self.assertEqual(f.read(), g.read())


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--corpus":
        write_corpus(sys.argv[2])
    else:
        unittest.main()
