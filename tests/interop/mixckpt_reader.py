#!/usr/bin/env python3
"""Read a mixckpt checkpoint with nothing but Python's standard library.

    python3 mixckpt_reader.py FOLDER            list the tensors
    python3 mixckpt_reader.py FOLDER NAME       write a tensor's bytes to stdout

Written from ckpt/MANIFEST.md alone, and it refuses what that page says a reader must.
It holds whole tensors in memory; that is its only shortcut.
"""
import hashlib
import json
import math
import re
import struct
import sys
from pathlib import Path

LEAF_BYTES, TAIL_BYTES, U64 = 65536, 76, 2 ** 64 - 1
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "BF16": 16, "F16": 16,
        "F32": 32, "F64": 64, **{f"{s}{n}": n for s in "IU" for n in (8, 16, 32, 64)},
        **{f"F8_{k}": 8 for k in ("E5M2", "E4M3", "E8M0", "E4M3FNUZ", "E5M2FNUZ")}}
FIELDS = ["format", "version", "container", "mesh", "step", "model", "trainer", "side", "files",
          "tensors", "self"]
INDEX = "model.safetensors.index.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5")
TAKEN = (INDEX, "job", ".weights", "mixckpt.json")


class Refused(ValueError):
    pass


def need(truth, words):
    if not truth:
        raise Refused(words)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def unique(pairs):
    need(len(dict(pairs)) == len(pairs), "a key stands twice")
    return dict(pairs)


def canonical(value):
    """One line of JSON. Numbers are texts behind a NUL here, which keeps their spelling."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return re.sub(r'"\\u0000([^"]*)"', r"\1", text)


def manifest_text(m):
    lines = [f'"{key}":' + ("[\n%s\n]" % ",\n".join(map(canonical, m[key])) if m[key] else "[\n]")
             if key in ("side", "files", "tensors") else f'"{key}":{canonical(m[key])}'
             for key in FIELDS]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def integer(value, low=0, high=2 ** 63 - 1):
    need(isinstance(value, str) and re.fullmatch("\0(0|[1-9][0-9]*)", value), "no integer")
    need(low <= int(value[1:]) <= high, "a number out of its range")
    return int(value[1:])


def integers(value, low=0):
    need(isinstance(value, list), "no list of numbers")
    return [integer(v, low, U64) for v in value]


def entry(value, *keys):
    need(isinstance(value, dict) and list(value) == list(keys), f"fields are not {keys}")
    return value


def digits(value, count):
    need(isinstance(value, str) and re.fullmatch("[0-9a-f]{%d}" % count, value), "no hash")


def chunks(begin, end, parts):
    """As torch.chunk cuts: parts of ceil(size / parts), those without a row left out."""
    step = -(-(end - begin) // parts) or 1
    return [(at, min(at + step, end)) for at in range(begin, end, step)]


class Tensor:
    def __init__(self, value):
        nest = ["nest"] if isinstance(value, dict) and "nest" in value else []
        entry(value, "name", "dtype", "shape", "grid", *nest, "digest")
        self.name, self.dtype, self.digest = value["name"], value["dtype"], value["digest"]
        need(isinstance(self.name, str) and not re.search("[\x00-\x1f\x7f]", self.name) and
             re.fullmatch("[^@]*(@exp_avg|@exp_avg_sq|@master)?", self.name), "no tensor name")
        need(self.dtype in BITS, "no dtype")
        digits(self.digest, 64)
        self.shape, self.grid = integers(value["shape"]), integers(value["grid"], 1)
        bits, rank = 1, len(self.shape)
        for factor in [*self.shape, BITS[self.dtype]]:
            bits *= factor
            need(bits <= U64, "more bits than 2^64")
        need(rank <= 32 and bits % 8 == 0, "no size of a tensor")
        need(len(self.grid) == rank and all(n == 1 for n in self.grid[2:]), "no grid")
        self.size = bits // 8
        rows, columns = ([*self.shape, 1, 1] if rank else [1, 1])[:2]
        row_bits = BITS[self.dtype] * math.prod(self.shape[1:])
        if not self.size or row_bits % 8:  # one piece
            need(not nest and all(n == 1 for n in self.grid), "cut where nothing can be")
            self.rows, self.columns, self.row_bytes = [(0, 1)], [(0, self.size)], self.size
            return
        self.row_bytes = row_bits // 8
        parts = (self.grid + [1, 1])[:2]
        if nest:
            nest = integers(value["nest"], 1)
            need(len(nest) == 2 and nest[0] >= 2, "nest")
            self.rows = [part for o in chunks(0, rows, nest[0]) for part in chunks(*o, nest[1])]
        else:
            self.rows = chunks(0, rows, parts[0])
        need(not rank or len(self.rows) == parts[0], "grid is not the number of row parts")
        each = row_bits // columns / 8  # bytes of a column
        need(parts[1] == 1 or each == int(each), "columns are not whole bytes")
        cut = chunks(0, columns, parts[1])
        need(len(cut) == parts[1], "grid is not the number of column parts")
        self.columns = ([(0, self.row_bytes)] if len(cut) == 1
                        else [(int(each) * b, int(each) * e) for b, e in cut])


class Checkpoint:
    def __init__(self, folder):
        self.folder = Path(folder)
        data = (self.folder / "mixckpt.json").read_bytes()
        tail = b'"self":"%s"\n}\n' % hashlib.sha256(data[:-TAIL_BYTES]).hexdigest().encode()
        need(data[-TAIL_BYTES:] == tail, "self is not the digest of the manifest")
        keep = lambda text: "\0" + text
        try:
            m = json.loads(data.decode(), object_pairs_hook=unique, parse_int=keep,
                           parse_float=keep, parse_constant=lambda text: need(False, text))
        except ValueError as error:
            raise Refused(error)
        entry(m, *FIELDS)
        need(m["format"] == "mixckpt" and m["version"] == "\x001", "another format or version")
        need(m["container"] in ("hdf5", "safetensors"), "no container")
        self.mesh = {k: integer(v, 1, 65536)
                     for k, v in entry(m["mesh"], "ep", "hsd", "tp").items()}
        self.step = None if m["step"] is None else integer(m["step"])
        need(all(m[k] is None or isinstance(m[k], dict) for k in ("model", "trainer")), "model")
        need(all(isinstance(m[k], list) for k in ("side", "files", "tensors")), "no list")
        self.side = [self.file(f, "sha256", 64) for f in m["side"]]
        self.files = [self.file(f, "crc64nvme", 16) for f in m["files"]]
        self.tensors = [Tensor(t) for t in m["tensors"]]
        for names in ([f[0] for f in self.side], [f[0] for f in self.files],
                      [t.name for t in self.tensors]):
            need(all(a.encode() < b.encode() for a, b in zip(names, names[1:])), "not sorted")
        need(manifest_text(m).encode() == data, "not in canonical spelling")
        pieces = leaves = 0
        for t in self.tensors:
            t.first_piece, t.first_leaf, t.leaves = pieces, leaves, -(-t.size // LEAF_BYTES)
            pieces, leaves = pieces + len(t.rows) * len(t.columns), leaves + t.leaves
        self.pieces = self.side_file("mixckpt.pieces", 24 * pieces)
        self.digests = self.side_file("mixckpt.digests", 32 * leaves)

    @staticmethod
    def file(value, kind, count):
        entry(value, "name", "bytes", kind)
        digits(value[kind], count)
        name = value["name"]
        need(isinstance(name, str) and not re.search("[\x00-\x1f\x7f]", name), "no path")
        need(not {"", ".", ".."} & set(name.split("/")), "a path that leaves the folder")
        if name.startswith("hf/.weights/"):
            need(name[12:] == INDEX or (name.endswith(".safetensors.header") and
                                        "/" not in name[12:]), "no header of a weight file")
        elif name.startswith("hf/"):
            need("/" not in name[3:] and not name.endswith(WEIGHTS) and name[3:] not in TAKEN,
                 "no file that travels with weights")
        return name, integer(value["bytes"]), value[kind]

    def side_file(self, name, size):
        """A side file, whole; size is what it must have, if that is known."""
        said = {f[0]: f[1:] for f in self.side}.get(name)
        need(said and size in (None, said[0]), f"{name} is not listed with {size} bytes")
        data = (self.folder / name).read_bytes()
        need((len(data), hashlib.sha256(data).hexdigest()) == said, f"{name} is damaged")
        return data

    def place(self, tensor, i, j):
        """(file, offset, bytes) of piece (i, j)."""
        number = tensor.first_piece + i * len(tensor.columns) + j
        file, zero, offset, size = struct.unpack_from("<IIQQ", self.pieces, 24 * number)
        (r0, r1), (c0, c1) = tensor.rows[i], tensor.columns[j]
        need(zero == 0 and file < len(self.files) and size == (r1 - r0) * (c1 - c0) and
             offset + size <= self.files[file][1], f"record {number} points nowhere")
        return self.files[file][0], offset, size

    def read(self, tensor):
        """The tensor's bytes, put together from its pieces and checked."""
        out = bytearray(tensor.size)
        for i, (r0, r1) in enumerate(tensor.rows):
            for j, (c0, c1) in enumerate(tensor.columns):
                name, offset, size = self.place(tensor, i, j)
                with open(self.folder / name, "rb") as file:
                    file.seek(offset)
                    piece = file.read(size)
                need(len(piece) == size, f"{name} is too short")
                for r in range(r1 - r0):
                    at, width = (r0 + r) * tensor.row_bytes + c0, c1 - c0
                    out[at:at + width] = piece[r * width:(r + 1) * width]
        self.check(tensor, out)
        return bytes(out)

    def check(self, tensor, data):
        hashes = [sha256(b"\0", data[at:at + LEAF_BYTES]) for at in range(0, len(data), LEAF_BYTES)]
        begin = 32 * tensor.first_leaf
        need(b"".join(hashes) == self.digests[begin:begin + 32 * tensor.leaves], "a wrong leaf")
        shape = json.dumps(tensor.shape, separators=(",", ":"))
        text = f"mixckpt-tensor-v1\n{tensor.dtype}\n{shape}\n"
        need(sha256(text.encode(), root(hashes)).hex() == tensor.digest, "a wrong digest")


def root(hashes):
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256()
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1", root(hashes[:half]), root(hashes[half:]))


def main(folder, name=None):
    checkpoint = Checkpoint(folder)
    for t in checkpoint.tensors:
        if name is None:
            print(f"{t.digest}  {t.dtype}  {t.shape}  {t.name}")
        elif t.name == name:
            sys.stdout.buffer.write(checkpoint.read(t))


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (2, 3) else sys.exit(__doc__)
