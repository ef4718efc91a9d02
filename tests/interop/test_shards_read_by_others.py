"""Stock readers on what mixckpt wrote: h5py and the safetensors package.

Needs numpy, h5py, ml_dtypes and safetensors.
"""
import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import h5py
import ml_dtypes
import numpy as np
from make_model import EXTRA_ENTRIES, make_model
from program import REFERENCE, ProgramTest, files_of, real_name
from safetensors import safe_open
from safetensors.numpy import load_file

NUMBERS = {"BF16": ml_dtypes.bfloat16, "F16": "<f2", "F32": "<f4", "I64": "<i8", "I16": "<i2",
           "U8": "u1", "BOOL": "?", "F8_E4M3": "u1"}


def load_numbers(folder):
    """Every tensor of a Hugging Face folder, straight from the bytes of its files."""
    tensors = {}
    for path in Path(folder).glob("*.safetensors"):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8:8 + length])
        header.pop("__metadata__", None)
        for name, t in header.items():
            begin, end = (8 + length + o for o in t["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end],
                                          NUMBERS[t["dtype"]]).reshape(t["shape"])
    return tensors


class ShardsReadByOthers(ProgramTest):
    def setUp(self):
        super().setUp()
        make_model(self.tmp / "odd", seed=21, dtypes=("BF16", "F16", "F32"), extra=True,
                   optimizer=True)
        self.sources = (REFERENCE / "tiny-mixtral", REFERENCE / "tiny-mixtral-tied",
                        self.tmp / "odd")

    def pieces(self, ckpt):
        """(file, tensor, its box as slices) of every piece, as inspect tells it."""
        for t in self.run_json("inspect", ckpt)["tensors"]:
            for p in t["pieces"]:
                yield p["file"], t, tuple(slice(o, o + n)
                                          for o, n in zip(p["offsets"], p["lengths"]))

    def test_hdf5_shards_hold_the_real_numbers_for_h5py(self):
        for src in self.sources:
            with self.subTest(source=src.name):
                ckpt, numbers, seen = self.tmp / ("h5 " + src.name), load_numbers(src), set()
                self.convert(src, ckpt, 2, 3, 2)
                for name, tensor, box in self.pieces(ckpt):
                    with h5py.File(ckpt / name) as file:
                        datasets = {real_name(d, n): d for n, d in file.items()}
                        self.assertIn(tensor["name"], datasets)
                        dataset = datasets[tensor["name"]]
                        self.assertEqual(dataset.chunks, None)
                        expected = numbers[tensor["name"]][box]
                        values = dataset[()]
                        self.assertEqual(values.shape, expected.shape)
                        if tensor["dtype"] == "BF16":
                            self.assertEqual(dataset.dtype.kind, "f")
                            expected = expected.astype(np.float32)
                        elif tensor["dtype"] != "F8_E4M3":
                            self.assertEqual(values.dtype, expected.dtype)
                        np.testing.assert_array_equal(values, expected, tensor["name"])
                    seen.add(tensor["name"])
                self.assertEqual(seen, set(numbers))

    def test_every_h5_file_holds_what_inspect_says_and_nothing_else(self):
        ckpt = self.tmp / "ckpt"
        self.convert(self.tmp / "odd", ckpt, 2, 2, 1)
        expected = {}
        for name, tensor, _ in self.pieces(ckpt):
            expected.setdefault(name, []).append(tensor["name"])
        for name in files_of(ckpt):
            if name.endswith(".h5"):
                with h5py.File(ckpt / name) as file:
                    found = [real_name(d, n) for n, d in file.items()]
                self.assertEqual(sorted(found), sorted(expected.pop(name)))
        self.assertEqual(expected, {})

    def test_safetensors_shards_load_with_the_package(self):
        for src in self.sources:
            with self.subTest(source=src.name):
                ckpt, numbers, seen = self.tmp / ("st " + src.name), load_numbers(src), set()
                self.convert(src, ckpt, 2, 3, 2, "--container", "safetensors")
                loaded = {name: safe_open(ckpt / name, "np") for name in files_of(ckpt)
                          if name.endswith(".safetensors") and name.startswith(("model", "opt"))}
                for name, tensor, box in self.pieces(ckpt):
                    if tensor["dtype"] == "F8_E4M3":  # unknown to this package's numpy side
                        continue
                    values = loaded[name].get_tensor(tensor["name"])
                    np.testing.assert_array_equal(values, numbers[tensor["name"]][box])
                    info = json.loads(loaded[name].metadata()["DCP_SHARDING_INFO"])
                    self.assertEqual(info[tensor["name"]]["saved_offsets"],
                                     [s.start for s in box])
                    seen.add(tensor["name"])
                self.assertEqual(seen | {"model.layers.0.quantised"},
                                 set(numbers) | {"model.layers.0.quantised"})

    def test_whole_safetensors_shards_are_a_hugging_face_folder(self):
        for src in self.sources[:2]:
            with self.subTest(source=src.name):
                ckpt = self.tmp / ("whole " + src.name)
                self.convert(src, ckpt, 2, 1, 1, "--container", "safetensors")
                self.assert_whole(ckpt)
                model, numbers, found = ckpt / "model", load_numbers(src), {}
                index = json.loads((model / "model.safetensors.index.json").read_text())
                for name in set(index["weight_map"].values()):
                    found.update(load_file(model / name))
                self.assertEqual(set(index["weight_map"]), set(numbers))
                for name, values in numbers.items():
                    np.testing.assert_array_equal(found[name], values, name)
                for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
                    self.assertEqual((model / name).read_bytes(), (src / name).read_bytes())
                self.assertEqual(self.digest(model), self.digest(src))


if __name__ == "__main__":
    unittest.main()
