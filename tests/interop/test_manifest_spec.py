"""ckpt/MANIFEST.md is enough to write a reader from: mixckpt_reader.py is one, and finds
every byte of every tensor. What the page says a reader must refuse, both readers refuse.

Needs numpy (to make models).
"""
import hashlib
import json
import re
import shutil
import sys
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent),
                str(Path(__file__).resolve().parents[1] / "support")]

from make_model import make_model
from mixckpt_reader import BITS, TAIL_BYTES, Checkpoint, Refused
from program import REFERENCE, ProgramTest, files_of, flip_byte

CONTAINERS = ("hdf5", "safetensors")
MESHES = [(1, 1, 1), (2, 3, 2), (4, 1, 1), (1, 7, 1), (1, 1, 2), (4, 5, 2)]


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x9a6c9329ac4bc9b5 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc_table()


def crc64nvme(data):
    crc = 2 ** 64 - 1
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 2 ** 64 - 1


def tensors_of(folder):
    """{name: (dtype, shape, bytes)} of a Hugging Face folder."""
    tensors = {}
    for path in Path(folder).glob("*.safetensors"):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        for name, t in header.items():
            begin, end = t["data_offsets"]
            tensors[name] = t["dtype"], t["shape"], data[start + begin:start + end]
    return tensors


def write_strange(path):
    """A file of what a cut can stumble over: scalars, no elements, less than a byte."""
    kinds = [("F4", [5, 6]), ("F4", [3, 2, 1]), ("F6_E2M3", [4, 2]), ("F6_E3M2", [5, 4, 3]),
             ("F8_E8M0", [7]), ("I64", []), ("BOOL", [1]), ("F16", [0]), ("BF16", [3, 0]),
             ("F32", [0, 2 ** 40, 2]), ("C64", [9, 1, 2]), ("U8", [200000]), ("F64", [3, 50000])]
    header, data = {}, b""
    for i, (dtype, shape) in enumerate(kinds):
        bits = BITS[dtype]
        for n in shape:
            bits *= n
        offsets = [len(data), len(data) + bits // 8]
        name = f'\u00fc/"{i}\\%'
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += bytes((i + at * 7) % 251 for at in range(bits // 8))
    text = json.dumps(header).encode()
    path.parent.mkdir()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tp_cut(name):
    """Which dimension of a Mixtral tensor TP cuts, as the page says; None: none."""
    weight = name.split("@")[0]
    if re.search(r"\.(q_proj|k_proj|v_proj|w1|w3)\.weight$|embed_tokens|lm_head", weight):
        return 0
    return 1 if re.search(r"\.(o_proj|w2)\.weight$", weight) else None


def place_by_the_rules(name, tensor, i, j, mesh, experts, ending):
    """The file of piece (i, j), from the rules and not from the record."""
    expert = re.search(r"\.experts\.(\d+)\.", name)
    kind = (f"experts-ep{int(expert[1]) // (experts // mesh['ep']):05}of{mesh['ep']:05}"
            if expert else "dense")
    tp, hsd = (j, i) if tp_cut(name) == 1 else (0, i)
    if tp_cut(name) == 0 and mesh["tp"] > 1:
        chunk = -(-tensor.shape[0] // mesh["tp"])
        begins = [r[0] for r in tensor.rows]
        tp = begins[i] // chunk
        hsd = i - min(k for k, b in enumerate(begins) if b // chunk == tp)
    suffix = f"-tp{tp:05}of{mesh['tp']:05}" if mesh["tp"] > 1 else ""
    return (f"{'optimizer' if '@' in name else 'model'}/{kind}-hsd{hsd:05}of{mesh['hsd']:05}"
            f"{suffix}.{ending}")


def shard_header(pieces):
    """The header of a safetensors shard, from (name, tensor, start, shape, bytes)."""
    dump = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    info = dump({name: {"saved_offsets": start} for name, _, start, _, _ in pieces})
    fields, at = {"__metadata__": {"DCP_SHARDING_INFO": info, "DCP_VERSION": "1.0",
                                   "format": "pt"}}, 0
    for name, t, _, shape, size in pieces:
        fields[name] = {"dtype": t.dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = dump(fields).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class Specification(ProgramTest):
    def check_tensors(self, checkpoint, source, digest_lines):
        self.assertEqual([t.name for t in checkpoint.tensors], sorted(source, key=str.encode))
        for t in checkpoint.tensors:
            dtype, shape, data = source[t.name]
            self.assertEqual((t.dtype, t.shape), (dtype, shape))
            self.assertEqual(checkpoint.read(t), data, t.name)  # and leaves and digest
            self.assertIn(f"{t.digest}  {t.dtype}  {json.dumps(shape).replace(' ', '')}  "
                          f"{t.name}\n", digest_lines)

    def check_files(self, folder, checkpoint):
        """The manifest lists every file, and its sums are right."""
        listed = [f[0] for f in checkpoint.side + checkpoint.files]
        self.assertEqual(sorted([*listed, "mixckpt.json"]), files_of(folder))
        for name, size, crc in checkpoint.files:
            data = (folder / name).read_bytes()
            self.assertEqual((len(data), f"{crc64nvme(data):016x}"), (size, crc), name)
        for name, _, _ in checkpoint.side:
            checkpoint.side_file(name, None)

    def check_places(self, folder, checkpoint, experts, container):
        """Every piece lies where the rules say; nothing else lies in any file."""
        inside = {name: [] for name, _, _ in checkpoint.files}
        for t in checkpoint.tensors:
            for i, (r0, r1) in enumerate(t.rows):
                for j, (c0, c1) in enumerate(t.columns):
                    name, offset, size = checkpoint.place(t, i, j)
                    if experts:
                        ending = "h5" if container == "hdf5" else container
                        self.assertEqual(name, place_by_the_rules(t.name, t, i, j, checkpoint.mesh,
                                                                  experts, ending))
                    start, shape = [0] * len(t.shape), list(t.shape)
                    if len(t.rows) > 1:
                        start[0], shape[0] = r0, r1 - r0
                    if len(t.columns) > 1:
                        width = t.row_bytes // t.shape[1]
                        start[1], shape[1] = c0 // width, (c1 - c0) // width
                    inside[name].append((offset, size, (t.name, t, start, shape, size)))
        for name, pieces in inside.items():
            data = (folder / name).read_bytes()
            self.assertTrue(pieces, name)
            self.assertEqual([p[:2] for p in pieces], sorted(p[:2] for p in pieces), name)
            if container == "hdf5":
                self.assertEqual([p[0] % 4096 for p in pieces], [0] * len(pieces))
            else:
                header = shard_header([p[2] for p in pieces])
                self.assertEqual(data[:len(header)], header, name)
                self.assertEqual(pieces[0][0], len(header))
            for before, after in zip(pieces, pieces[1:] + [(len(data), 0)]):
                self.assertEqual(data[before[0] + before[1]:after[0]].strip(b"\0"), b"", name)
                self.assertTrue(container == "hdf5" or before[0] + before[1] == after[0])

    def check(self, src, meshes, experts):
        source, lines = tensors_of(src if src.is_dir() else src.parent), self.digest(src)
        for mesh in meshes:
            for container in CONTAINERS:
                with self.subTest(source=src.name, mesh=mesh, container=container):
                    folder = self.tmp / f"{src.name} {mesh} {container}"
                    self.convert(src, folder, *mesh, "--container", container)
                    checkpoint = Checkpoint(folder)
                    self.check_tensors(checkpoint, source, lines)
                    self.check_files(folder, checkpoint)
                    self.check_places(folder, checkpoint, experts, container)
                    if container == "safetensors" and mesh[1:] == (1, 1) and src.is_dir():
                        self.check_hugging_face_folder(src, folder)
                    shutil.rmtree(folder)

    def check_hugging_face_folder(self, src, folder):
        weights = {n: t for n, t in tensors_of(src).items() if "@" not in n}
        places = {t.name: Path(c.place(t, 0, 0)[0]).name for c in [Checkpoint(folder)]
                  for t in c.tensors}
        index = {"metadata": {"total_parameters": sum(len(t[2]) * 8 // BITS[t[0]]
                                                      for t in weights.values()),
                              "total_size": sum(len(t[2]) for t in weights.values())},
                 "weight_map": {n: places[n] for n in sorted(weights)}}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        self.assertEqual((folder / "model" / "model.safetensors.index.json").read_text(), text)
        for path in src.iterdir():
            if path.suffix != ".safetensors" and path.name != "model.safetensors.index.json":
                for copy in (folder / "hf", folder / "model"):
                    self.assertEqual((copy / path.name).read_bytes(), path.read_bytes())

    def test_the_page_has_the_right_checksum(self):
        self.assertEqual(f"{crc64nvme(b'123456789'):016x}", "ae8b14860a799888")

    def test_the_folder_that_transformers_wrote(self):
        self.check(REFERENCE / "tiny-mixtral", MESHES, 4)

    def test_uneven_sizes_many_leaves_and_optimizer_state(self):
        src = self.tmp / "odd"
        make_model(src, seed=31, hidden=322, intermediate=214, heads=7, kv_heads=1, experts=3,
                   layers=1, vocab=401, dtypes=("BF16", "F32"), optimizer=True, shards=2)
        self.check(src, [(3, 1, 1), (1, 5, 1), (3, 3, 1)], 3)

    def test_tensors_that_no_rule_knows(self):
        src = self.tmp / "extra"
        make_model(src, seed=32, hidden=16, intermediate=8, experts=2, vocab=33, extra=True)
        self.check(src, [(1, 1, 1), (2, 3, 2), (2, 1, 2)], 2)

    def test_tensors_that_are_hard_to_cut(self):
        src = self.tmp / "strange" / "strange.safetensors"
        write_strange(src)
        self.check(src, [(1, 1, 1), (1, 3, 1), (1, 64, 1)], None)

    def test_the_headers_that_came_in_are_kept(self):
        src, folder = REFERENCE / "tiny-mixtral", self.tmp / "kept"
        self.convert(src, folder, 2, 2, 1)
        for path in src.glob("*.safetensors"):
            data = path.read_bytes()
            kept = folder / "hf" / ".weights" / (path.name + ".header")
            self.assertEqual(kept.read_bytes(), data[:8 + int.from_bytes(data[:8], "little")])
        name = "model.safetensors.index.json"
        self.assertEqual((folder / "hf" / ".weights" / name).read_bytes(),
                         (src / name).read_bytes())

    def test_config_is_kept_in_canonical_spelling(self):
        src, folder = self.tmp / "src", self.tmp / "ckpt"
        shutil.copytree(REFERENCE / "tiny-mixtral", src)
        config = (src / "config.json").read_text()
        more = '{\n "words": "\\u00fc\\/\\u0007\\n\\\\", "numbers": [1E5, 1e-05, -0.0, 1.50],'
        (src / "config.json").write_text(config.replace("{", more, 1))
        self.convert(src, folder, 1, 2, 1)
        Checkpoint(folder)
        self.assertIn('"model":{"words":"\u00fc/\\u0007\\n\\\\","numbers":[1E5,1e-05,-0.0,1.50],',
                      (folder / "mixckpt.json").read_text(encoding="utf-8"))


def swap_first_tensors(text):
    lines = text.split("\n")
    at = lines.index('"tensors":[') + 1
    lines[at:at + 2] = lines[at + 1], lines[at]
    return "\n".join(lines)


def edit(old, new):
    def change(text):
        assert old in text, old
        return text.replace(old, new, 1)
    return change


# What to do to a manifest, whose `self` is made right again afterwards.
BROKEN = {
    "another format": edit('"format":"mixckpt"', '"format":"other"'),
    "another version": edit('"version":1', '"version":2'),
    "another container": edit('"container":"hdf5"', '"container":"zip"'),
    "degree 0": edit('"ep":2', '"ep":0'),
    "degree 65537": edit('"hsd":3', '"hsd":65537'),
    "step below 0": edit('"step":null', '"step":-1'),
    "step a fraction": edit('"step":null', '"step":1.0'),
    "step above 2^63": edit('"step":null', '"step":9223372036854775808'),
    "a model that is a list": edit('"trainer":null', '"trainer":[]'),
    "an unknown field": edit('"trainer":null', '"trainer":null,\n"more":1'),
    "a missing field": edit('"trainer":null,\n', ""),
    "a key twice": edit('"step":null', '"step":null,\n"step":null'),
    "another order": edit('"version":1,\n"container":"hdf5"', '"container":"hdf5",\n"version":1'),
    "white space": edit('"step":null', '"step": null'),
    "an escape that need not be": edit("lm_head", "lm\\u005fhead"),
    "tensors out of order": swap_first_tensors,
    "a tensor twice": lambda text: re.sub(r'(\{"name":"lm_head.*,\n)', r"\1\1", text),
    "a path upwards": edit('"name":"hf/README.md"', '"name":"hf/../README.md"'),
    "an absolute path": edit('"name":"hf/.weights', '"name":"/hf/.weights'),
    "an empty part": edit('"name":"hf/README.md"', '"name":"hf/R//E"'),
    "a control character in a path": edit('"name":"hf/README.md"', '"name":"hf/README\\u0001md"'),
    "DEL in a path": edit('"name":"hf/README.md"', '"name":"hf/README\x7fmd"'),
    "weights that travel": edit('"name":"hf/README.md"', '"name":"hf/README.bin"'),
    "a folder that travels": edit('"name":"hf/README.md"', '"name":"hf/README/md"'),
    "a name that is taken": edit('"name":"hf/tokenizer.json"', '"name":"hf/job"'),
    "a header of something else": edit("00005.safetensors.header", "00005.torch.header"),
    "a header in a folder": edit("model-00005-of", "model-00005/of"),
    "files out of order": edit("dense-hsd00000of00003-tp00000", "dense-hsd00000of00003-tp00009"),
    "a CRC of 15 digits": lambda text: re.sub(r'("crc64nvme":")[0-9a-f]', r"\1", text, count=1),
    "upper case": lambda text: re.sub('"digest":"[0-9a-f]{64}',
                                      lambda m: '"digest":"' + m[0][10:].upper(), text, count=1),
    "a tensor's name with @": edit("lm_head.weight", "lm_head@weight"),
    "a tensor's name with DEL": edit("lm_head.weight", "lm_head\x7fweight"),
    "an unknown dtype": edit('"dtype":"BF16"', '"dtype":"BF17"'),
    "a dtype of another width": edit('"dtype":"BF16"', '"dtype":"F32"'),
    "a shape that wraps": edit('"shape":[257,64]', '"shape":[4294967296,4294967296]'),
    "a shape that wraps on the way": edit('"shape":[257,64]',
                                          '"shape":[4294967296,4294967296,0]'),
    "33 dimensions": edit('"shape":[257,64],"grid":[6,1]',
                          '"shape":[257,64' + ",1" * 31 + '],"grid":[6,1' + ",1" * 31 + "]"),
    "half a byte": edit('"dtype":"BF16","shape":[257,64],"grid":[6,1],"nest":[2,3]',
                        '"dtype":"F4","shape":[3,3],"grid":[1,1]'),
    "more parts than rows": edit('"shape":[4,64],"grid":[2,1]', '"shape":[4,64],"grid":[5,1]'),
    "a grid that the nest does not give": edit('"grid":[6,1],"nest"', '"grid":[5,1],"nest"'),
    "a grid with 0": edit('"grid":[2,1]', '"grid":[2,0]'),
    "a grid that is too short": edit('"grid":[2,1]', '"grid":[2]'),
    "a third dimension that is cut": edit('"shape":[4,64],"grid":[2,1]',
                                          '"shape":[4,32,2],"grid":[2,1,2]'),
    "nest of one number": edit('"nest":[2,3]', '"nest":[2]'),
    "nest with 1 outside": edit('"grid":[6,1],"nest":[2,3]', '"grid":[3,1],"nest":[1,3]'),
    "nest with 0 inside": edit('"grid":[6,1],"nest":[2,3]', '"grid":[2,1],"nest":[2,0]'),
    "no mixckpt.pieces": edit('"name":"mixckpt.pieces"', '"name":"mixckpt.places"'),
    "mixckpt.digests too long": edit('"name":"mixckpt.digests","bytes":1312',
                                     '"name":"mixckpt.digests","bytes":1344'),
}


class Refusals(ProgramTest):
    def setUp(self):
        super().setUp()
        self.folder = self.tmp / "ckpt"
        self.convert(REFERENCE / "tiny-mixtral", self.folder, 2, 3, 2)
        self.manifest = self.folder / "mixckpt.json"
        self.good = self.manifest.read_bytes()

    def put_manifest(self, text):
        """With `self` made right."""
        body = text.encode()[:-TAIL_BYTES]
        tail = '"self":"%s"\n}\n' % hashlib.sha256(body).hexdigest()
        self.manifest.write_bytes(body + tail.encode())

    def assert_refused(self, verify_code=1):
        with self.assertRaises(Refused):
            checkpoint = Checkpoint(self.folder)
            for t in checkpoint.tensors:
                checkpoint.read(t)
        run = self.run_program("digest", self.folder, code=3)
        self.assertEqual(run.err.count("\n"), 1, run)
        self.run_program("verify", self.folder, code=verify_code)

    def test_the_same_text_with_self_made_again_is_accepted(self):
        self.put_manifest(self.good.decode())
        self.assertEqual(self.manifest.read_bytes(), self.good)
        Checkpoint(self.folder)

    def test_manifests_that_break_one_rule(self):
        for what, change in BROKEN.items():
            with self.subTest(what):
                self.put_manifest(change(self.good.decode()))
                self.assertNotEqual(self.manifest.read_bytes(), self.good)
                # Another version is no defect: this program cannot say what is right there.
                self.assert_refused(3 if what == "another version" else 1)

    def test_a_manifest_that_its_self_does_not_vouch_for(self):
        for at in (20, len(self.good) // 2, len(self.good) - 20):
            self.manifest.write_bytes(self.good)
            flip_byte(self.manifest, at)
            self.assert_refused()
        for data in (self.good[:-1], self.good + b"\n", b""):
            self.manifest.write_bytes(data)
            self.assert_refused()

    def test_records_that_point_nowhere(self):
        """mixckpt.pieces is changed, and its SHA-256 in the manifest with it."""
        pieces = self.folder / "mixckpt.pieces"
        good = pieces.read_bytes()
        for what, at, value in (("file", 0, b"\xff"), ("zero", 4, b"\1"), ("bytes", 16, b"\1"),
                                ("offset", 14, b"\xff"), ("far offset", 12, b"\1")):
            with self.subTest(what):
                bad = good[:at] + value + good[at + 1:]
                pieces.write_bytes(bad)
                self.put_manifest(self.good.decode().replace(hashlib.sha256(good).hexdigest(),
                                                             hashlib.sha256(bad).hexdigest()))
                self.assert_refused()


if __name__ == "__main__":
    unittest.main()
