"""Every kind of damage is found, and named: file, tensor, byte range.

Needs numpy and h5py (to find the bytes of a tensor in an HDF5 file).
"""
import contextlib
import json
import random
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import h5py
from make_model import make_model
from program import LEAF_BYTES, REFERENCE, ProgramTest, files_of, flip_byte, real_name


def piece_places(path):
    """{dataset or header name: (offset in the file, bytes)} of a shard file."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {real_name(d, n): (d.id.get_offset(), d.id.get_storage_size())
                    for n, d in file.items()}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: (8 + length + t["data_offsets"][0], t["data_offsets"][1] - t["data_offsets"][0])
            for name, t in header.items()}


def logical_byte(tensor, piece, at):
    """Where byte `at` of a piece stands in the tensor's row-major bytes."""
    shape, lengths, offsets = tensor["shape"], piece["lengths"], piece["offsets"]
    width = tensor["bytes"]
    for n in shape:
        width //= n
    index, rest, place = at // width, [], 0
    for n in reversed(lengths):
        rest.insert(0, index % n)
        index //= n
    for size, offset, i in zip(shape, offsets, rest):
        place = place * size + offset + i
    return place * width + at % width


class Damage(ProgramTest):
    def setUp(self):
        super().setUp()
        src = self.tmp / "src"
        make_model(src, seed=6, hidden=320, intermediate=480, vocab=701, layers=1, experts=2,
                   optimizer=True, dtypes=("BF16", "F32"))
        self.whole = {}
        for container in ("hdf5", "safetensors"):
            self.whole[container] = self.tmp / container
            self.convert(src, self.tmp / container, 2, 3, 2, "--container", container)

    def fresh_copy(self, container):
        copy = self.tmp / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.whole[container], copy)
        return copy

    @contextlib.contextmanager
    def for_a_while(self, path):
        """What happens to the file inside is undone afterwards."""
        content = path.read_bytes()
        try:
            yield
        finally:
            path.write_bytes(content)

    def defects(self, folder):
        report = self.run_json("verify", folder, code=1)
        self.assertFalse(report["ok"])
        self.assertTrue(report["defects"])
        return report["defects"]

    def assert_names(self, folder, name, kinds):
        found = [d for d in self.defects(folder) if d["file"] == name]
        self.assertTrue(found, f"{name} is not named")
        self.assertTrue({d["kind"] for d in found} <= set(kinds), found)
        return found

    def test_a_flipped_byte_of_a_tensor_is_located(self):
        pick = random.Random(1)
        for container, whole in self.whole.items():
            listing = {t["name"]: t for t in self.run_json("inspect", whole)["tensors"]}
            shards = [f for f in files_of(whole) if f.startswith(("model/", "optimizer/"))]
            for name in pick.sample(shards, 8):
                places = piece_places(whole / name)
                tensor = pick.choice(sorted(n for n, (_, size) in places.items() if size))
                offset, size = places[tensor]
                at = pick.randrange(size)
                piece = next(p for p in listing[tensor]["pieces"] if p["file"] == name)
                byte = logical_byte(listing[tensor], piece, at)
                with self.subTest(file=name, tensor=tensor, at=at):
                    copy = self.fresh_copy(container)
                    flip_byte(copy / name, offset + at)
                    found = self.assert_names(copy, name, {"corrupt"})
                    begin = byte // LEAF_BYTES * LEAF_BYTES
                    end = min(begin + LEAF_BYTES, listing[tensor]["bytes"])
                    self.assertIn((tensor, begin, end),
                                  [(d["tensor"], d["begin"], d["end"]) for d in found])
                    self.assertEqual({d["file"] for d in self.defects(copy)}, {name})
                    out = self.run_program("verify", copy, code=1).out
                    self.assertIn(f"corrupt {name} {tensor} [{begin}, {end}) ", out)

    def test_any_flipped_byte_of_any_file_is_found(self):
        pick = random.Random(2)
        for container, whole in self.whole.items():
            for name in files_of(whole):
                size = (whole / name).stat().st_size
                if not size:
                    continue
                for at in {0, size - 1, size // 2, pick.randrange(min(size, 4096))}:
                    with self.subTest(container=container, file=name, at=at):
                        with self.for_a_while(whole / name):
                            flip_byte(whole / name, at)
                            self.assert_names(whole, name, {"corrupt", "bad-format"})

    def test_a_missing_file_is_named(self):
        for container, whole in self.whole.items():
            for name in files_of(whole):
                with self.subTest(container=container, file=name), \
                        self.for_a_while(whole / name):
                    (whole / name).unlink()
                    if name == "mixckpt.json":  # then it is no checkpoint at all
                        self.run_program("verify", whole, code=1)
                        self.run_program("digest", whole, code=3)
                    else:
                        self.assert_names(whole, name, {"missing"})

    def test_a_truncated_or_lengthened_file_is_named(self):
        for container, whole in self.whole.items():
            for name in files_of(whole):
                size = (whole / name).stat().st_size
                for length in sorted({0, max(size - 1, 0), size + 1} - {size}):
                    with self.subTest(container=container, file=name, length=length), \
                            self.for_a_while(whole / name):
                        with open(whole / name, "r+b") as file:
                            file.truncate(length)
                        kinds = {"truncated", "corrupt", "bad-format"}
                        if length < size and name.startswith(("model/", "optimizer/")):
                            kinds = {"truncated"}
                        self.assert_names(whole, name, kinds)

    def test_a_file_that_nobody_lists(self):
        copy = self.fresh_copy("hdf5")
        shutil.copy(copy / "model" / "dense-hsd00000of00003-tp00000of00002.h5",
                    copy / "model" / "dense-hsd00000of00007-tp00000of00002.h5")
        self.assert_names(copy, "model/dense-hsd00000of00007-tp00000of00002.h5", {"unexpected"})
        copy = self.fresh_copy("hdf5")
        for name in ("README.md", ".gitattributes", "model/.nfs0123"):
            (copy / name).write_text("not ours")
        self.assert_whole(copy)

    def test_two_shards_that_changed_places(self):
        copy = self.fresh_copy("hdf5")
        a = copy / "model" / "experts-ep00000of00002-hsd00000of00003-tp00000of00002.h5"
        b = copy / "model" / "experts-ep00000of00002-hsd00001of00003-tp00000of00002.h5"
        a.rename(copy / "swap")
        b.rename(a)
        (copy / "swap").rename(b)
        names = {d["file"] for d in self.defects(copy)}
        self.assertTrue({str(p.relative_to(copy)) for p in (a, b)} <= names)

    def test_damaged_input_is_refused_and_leaves_nothing(self):
        copy = self.fresh_copy("safetensors")
        name = next(f for f in files_of(copy) if f.startswith("model/experts"))
        tensor, (offset, size) = max(piece_places(copy / name).items(), key=lambda p: p[1][1])
        flip_byte(copy / name, offset + size // 2)
        run = self.run_program("reshard", copy, self.tmp / "dst", "--ep", 1, "--hsd", 2, code=3)
        for word in (name, tensor):
            self.assertIn(word, run.err)
        self.assertFalse((self.tmp / "dst").exists())
        self.assertFalse((self.tmp / "dst.partial").exists())

    def test_against_another_copy(self):
        src = self.tmp / "hf"
        shutil.copytree(REFERENCE / "tiny-mixtral", src)
        self.convert(src, self.tmp / "ckpt", 2, 2, 2)
        name = "model-00002-of-00005.safetensors"
        tensor, (offset, size) = sorted(piece_places(src / name).items())[3]
        flip_byte(src / name, offset + size - 1)
        self.assert_whole(src)  # a Hugging Face folder carries no digests
        report = self.run_json("verify", src, "--against", self.tmp / "ckpt", code=1)
        self.assertEqual([(d["kind"], d["tensor"]) for d in report["defects"]],
                         [("mismatch", tensor)])
        difference = self.run_json("diff", src, self.tmp / "ckpt", code=1)
        self.assertFalse(difference["equal"])
        self.assertEqual([d["name"] for d in difference["different"]], [tensor])


if __name__ == "__main__":
    unittest.main()
