"""Checkpoints that lie: take one apart, change it, and put it together again so that all
digests above the change are right, and the rule itself is what must be noticed.
"""
import hashlib
import json
import struct

RECORD = struct.Struct("<IIQQ")  # file, 0, offset, bytes


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Manifest:
    """mixckpt.json and its two side files, as lists that can be changed."""

    def __init__(self, folder):
        self.folder = folder
        for key, value in json.loads((folder / "mixckpt.json").read_text()).items():
            setattr(self, key, value)
        data = (folder / "mixckpt.pieces").read_bytes()
        self.records = [list(r) for r in RECORD.iter_unpack(data)]
        data = (folder / "mixckpt.digests").read_bytes()
        self.leaves = [data[i:i + 32] for i in range(0, len(data), 32)]

    def tensor(self, name):
        return next(t for t in self.tensors if t["name"] == name)

    def pieces_of(self, name):
        """Indices of the records of a tensor."""
        first = 0
        for t in self.tensors:
            count = 1
            for n in t["grid"]:
                count *= n
            if t["name"] == name:
                return range(first, first + count)
            first += count
        raise KeyError(name)

    def leaves_of(self, name):
        """Indices of the leaf hashes of a tensor."""
        first = 0
        for t in self.tensors:
            count = -(-self.bytes_of(t) // 65536)
            if t["name"] == name:
                return range(first, first + count)
            first += count
        raise KeyError(name)

    @staticmethod
    def bytes_of(tensor):
        size = {"BF16": 2, "F16": 2, "F32": 4, "U8": 1}[tensor["dtype"]]
        for n in tensor["shape"]:
            size *= n
        return size

    def describe(self, name):
        """The entry of `side` for a file as it is on disk now."""
        data = (self.folder / name).read_bytes()
        entry = {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.side = sorted([s for s in self.side if s["name"] != name] + [entry],
                           key=lambda s: s["name"].encode())

    def write(self, change=lambda text: text):
        """Side files, then the manifest; `change` sees its text before `self` is made."""
        (self.folder / "mixckpt.pieces").write_bytes(b"".join(RECORD.pack(*r)
                                                              for r in self.records))
        (self.folder / "mixckpt.digests").write_bytes(b"".join(self.leaves))
        self.describe("mixckpt.pieces")
        self.describe("mixckpt.digests")
        sign(self.folder, change(self.text()))

    def text(self):
        """Everything before `self`, in canonical spelling."""
        lines = ["{", *(f"{compact(k)}:{compact(getattr(self, k))},"
                        for k in ("format", "version", "container", "mesh", "step", "model",
                                  "trainer"))]
        for key in ("side", "files", "tensors"):
            lines += [f"{compact(key)}:[", ",\n".join(map(compact, getattr(self, key))), "],"]
        text = "\n".join(lines) + "\n"
        return text.replace("[\n\n]", "[\n]").encode()


def sign(folder, text):
    self = hashlib.sha256(text).hexdigest()
    (folder / "mixckpt.json").write_bytes(text + b'"self":"' + self.encode() + b'"\n}\n')


def split_weights(data):
    """A .safetensors file as (text of its header, data)."""
    length = int.from_bytes(data[:8], "little")
    return data[8:8 + length], data[8 + length:]


def join_weights(header, data):
    return len(header).to_bytes(8, "little") + header + data
