"""What commands compute and say: dtypes, cuts of the export, init, plan, inspect, diff.

Needs numpy, ml_dtypes and safetensors.
"""
import json
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import ml_dtypes
import numpy as np
from make_model import make_model
from program import REFERENCE, ROOT, ProgramTest, files_of, witness
from safetensors.numpy import load_file, save_file

TINY = REFERENCE / "tiny-mixtral"
TYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def load_folder(folder):
    tensors = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def set_bytes(path, name, content):
    """Overwrite the first bytes of a tensor."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, _ = json.loads(file.read(length))[name]["data_offsets"]
        file.seek(8 + length + begin)
        file.write(content)


class Conversions(ProgramTest):
    def test_dtype_converts_values_as_numpy_does(self):
        self.need_option("convert", "--dtype")
        src = self.tmp / "src"
        make_model(src, seed=12, dtypes=("F32",), shards=1)
        odd = np.array([1.00390625, 1.01171875, -1.00390625, 65519.0, 6e-8, 0.0, -0.0, 1e-40],
                       dtype="<f4")  # halves to even both ways, near the ends of F16
        set_bytes(src / "model.safetensors", "lm_head.weight", odd.tobytes())
        before = load_folder(src)
        for dtype, kind in TYPES.items():
            with self.subTest(dtype=dtype):
                ckpt, out = self.tmp / f"ckpt {dtype}", self.tmp / f"hf {dtype}"
                self.convert(src, ckpt, 2, 3, 2, "--dtype", dtype)
                self.assert_whole(ckpt)
                self.export(ckpt, out)
                after = load_folder(out)
                self.assertEqual(set(after), set(before))
                for name in before:
                    self.assertEqual(after[name].tobytes(), before[name].astype(kind).tobytes(),
                                     name)
                self.export(src, self.tmp / f"direct {dtype}", "--dtype", dtype)
                self.assertEqual(witness(self.tmp / f"direct {dtype}"), witness(out))

    def test_dtype_changes_one_value_of_config_json(self):
        self.need_option("convert", "--dtype")
        for name, field, old in (("tiny-mixtral", "dtype", "bfloat16"),
                                 ("tiny-mixtral-tied", "torch_dtype", "float16")):
            out = self.tmp / name
            self.export(REFERENCE / name, out, "--dtype", "F32")
            before = (REFERENCE / name / "config.json").read_text()
            self.assertEqual((out / "config.json").read_text(),
                             before.replace(f'"{field}": "{old}"', f'"{field}": "float32"'))

    def test_export_cuts_files_as_transformers_does(self):
        self.convert(TINY, self.tmp / "ckpt", 2, 2, 2)
        out = self.tmp / "out"
        self.export(self.tmp / "ckpt", out, "--max-shard-size", "100KB")
        self.assertEqual(witness(out), witness(TINY))
        index = json.loads((out / "model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"], {"total_parameters": 205760, "total_size": 411520})
        names, sizes, expected, number = load_folder(TINY), 0, {}, 1
        for name in sorted(names):
            if sizes + names[name].nbytes > 100000:
                sizes, number = 0, number + 1
            sizes += names[name].nbytes
            expected[name] = number
        self.assertEqual(index["weight_map"],
                         {n: f"model-{i:05d}-of-{number:05d}.safetensors"
                          for n, i in expected.items()})
        for name in files_of(out):
            if name.endswith(".safetensors"):
                save_file(load_file(out / name), self.tmp / "again", metadata={"format": "pt"})
                self.assertEqual((out / name).read_bytes(), (self.tmp / "again").read_bytes())
        self.assertEqual((out / "tokenizer.json").read_bytes(),
                         (TINY / "tokenizer.json").read_bytes())

    def test_init_gives_the_same_values_in_every_layout(self):
        config, seen = TINY / "config.json", set()
        for i, how in enumerate((("--to", "hf"), ("--to", "mixckpt", "--ep", 4, "--hsd", 3),
                                 ("--to", "mixckpt", "--ep", 1, "--hsd", 1, "--tp", 2),
                                 ("--to", "hf", "--max-shard-size", "90KB"))):
            self.run_program("init", config, self.tmp / f"{i}", *how, "--seed", 3)
            self.assert_whole(self.tmp / f"{i}")
            seen.add(self.digest(self.tmp / f"{i}"))
        self.assertEqual(seen, {witness(self.tmp / "0")})
        self.run_program("init", config, self.tmp / "other", "--to", "hf", "--seed", 4)
        self.assertNotIn(witness(self.tmp / "other"), seen)

        values = load_folder(self.tmp / "0")
        self.assertEqual({n: v.shape for n, v in values.items()},
                         {n: v.shape for n, v in load_folder(TINY).items()})
        for name, value in values.items():
            value = value.astype(np.float64)
            if "norm" in name:
                self.assertTrue((value == 1).all(), name)
            elif value.size > 1000:
                # 5 standard errors of the mean and of the deviation of N(0, 0.02)
                self.assertLess(abs(value.mean()), 5 * 0.02 / value.size ** 0.5, name)
                self.assertLess(abs(value.std() / 0.02 - 1), 5 / (2 * value.size) ** 0.5 + 0.003,
                                name)

    def test_init_of_other_dtypes_and_tied_embeddings(self):
        config = REFERENCE / "tiny-mixtral-tied" / "config.json"
        self.run_program("init", config, self.tmp / "f32", "--to", "hf", "--dtype", "F32")
        values = load_folder(self.tmp / "f32")
        self.assertNotIn("lm_head.weight", values)
        self.assertEqual({v.dtype for v in values.values()}, {np.dtype("float32")})

    def test_plan_says_what_convert_then_does(self):
        for mesh in ((2, 4, 1), (4, 3, 2), (1, 1, 1)):
            with self.subTest(mesh=mesh):
                dst = self.tmp / str(mesh)
                degrees = ("--ep", mesh[0], "--hsd", mesh[1], "--tp", mesh[2])
                plan = self.run_json("plan", TINY, *degrees)
                self.assertEqual(files_of(self.tmp / str(mesh)), [])
                done = self.convert(TINY, dst, *mesh)
                self.assertEqual(plan["files"], done["files"])
                # The plan counts tensors; headers and the edges of leaves come on top.
                for field in ("bytes_read", "bytes_written"):
                    self.assertLessEqual(411520, plan[field], field)
                    self.assertLessEqual(plan[field], done[field], field)
                self.assertEqual(len(plan["ranks"]), mesh[0] * mesh[1] * mesh[2])
                self.assertEqual(plan["pieces"] * 24, (dst / "mixckpt.pieces").stat().st_size)
                self.assertLessEqual(plan["peak_memory_bytes"], 256 << 20)

    def test_plan_counts_what_a_rank_holds(self):
        """Experts are divided by ep, hsd and tp; dense weights are held by every ep rank."""
        ranks = self.run_json("plan", TINY, "--ep", 2, "--hsd", 2, "--tp", 2)["ranks"]
        weights = load_folder(TINY)
        experts = sum(w.nbytes for n, w in weights.items() if ".experts." in n)
        dense = sum(w.nbytes for n, w in weights.items() if ".experts." not in n)
        for ep in range(2):
            held = sum(r["bytes"] for r in ranks if r["ep"] == ep)
            # What TP does not cut (norms, router) is held by both tp ranks.
            uncut = sum(w.nbytes for n, w in weights.items() if "norm" in n or "gate" in n)
            self.assertEqual(held, experts // 2 + dense + uncut)

    def test_inspect_tells_what_is_there(self):
        self.convert(TINY, self.tmp / "ckpt", 2, 4, 2)
        report = self.run_json("inspect", self.tmp / "ckpt")
        self.assertEqual((report["format"], report["container"]), ("mixckpt", "hdf5"))
        self.assertEqual(report["mesh"], {"ep": 2, "hsd": 4, "tp": 2})
        self.assertEqual(report["model"]["num_local_experts"], 4)
        self.assertEqual(report["total_bytes"], 411520)
        self.assertEqual(report["tensor_count"], len(report["tensors"]))
        for t in report["tensors"]:
            covered = sum(int(np.prod(p["lengths"])) for p in t["pieces"])
            self.assertEqual(covered, int(np.prod(t["shape"])), t["name"])
            for piece in t["pieces"]:
                self.assertTrue((self.tmp / "ckpt" / piece["file"]).is_file())
        some = self.run_json("inspect", TINY, "--tensors", "*.experts.3.w?.weight")
        self.assertEqual(some["format"], "hf")
        self.assertIsNone(some["mesh"])
        self.assertEqual(len(some["tensors"]), 2 * 3)

    def test_the_files_of_a_layout_are_named_after_mesh_coordinates(self):
        self.convert(TINY, self.tmp / "a", 2, 3, 1)
        names = [f for f in files_of(self.tmp / "a") if f.startswith("model/")]
        self.assertEqual(names, sorted(
            [f"model/dense-hsd{h:05d}of00003.h5" for h in range(3)] +
            [f"model/experts-ep{e:05d}of00002-hsd{h:05d}of00003.h5"
             for e in range(2) for h in range(3)]))
        self.convert(TINY, self.tmp / "b", 1, 1, 2, "--container", "safetensors")
        names = [f for f in files_of(self.tmp / "b") if f.endswith(".safetensors")]
        self.assertIn("model/experts-ep00000of00001-hsd00000of00001-tp00001of00002.safetensors",
                      names)

    def test_diff_numeric(self):
        a, b = self.tmp / "a", self.tmp / "b"
        make_model(a, seed=13, dtypes=("F32",), shards=1)
        shutil.copytree(a, b)
        name, first = "model.layers.1.self_attn.o_proj.weight", np.zeros(4, "<f4")
        set_bytes(a / "model.safetensors", name, first.tobytes())
        set_bytes(b / "model.safetensors", name, (first + [0.5, 0, -2, 0]).astype("<f4").tobytes())
        self.convert(b, self.tmp / "b2", 2, 3, 2)
        report = self.run_json("diff", a, self.tmp / "b2", "--numeric", code=1)
        self.assertFalse(report["equal"])
        (only,) = report["different"]
        self.assertEqual((only["name"], only["max_abs"]), (name, 2.0))
        self.assertAlmostEqual(only["mean_abs"], 2.5 / (64 * 64), places=9)

    def test_diff_names_what_only_one_has(self):
        make_model(self.tmp / "a", seed=14)
        make_model(self.tmp / "b", seed=14, extra=True)
        report = self.run_json("diff", self.tmp / "a", self.tmp / "b", code=1)
        self.assertEqual(report["only_in_a"], [])
        self.assertIn("logit_scale", report["only_in_b"])

    def test_verify_deep_finds_bad_numbers(self):
        src = self.tmp / "src"
        make_model(src, seed=15, shards=1)
        bad, dead = "model.layers.0.self_attn.k_proj.weight", "model.layers.1.input_layernorm.weight"
        set_bytes(src / "model.safetensors", bad, b"\x01\x02\xc0\x7f")  # a NaN, as BF16
        set_bytes(src / "model.safetensors", dead, bytes(128))
        self.convert(src, self.tmp / "ckpt", 2, 3, 1)
        for place in (src, self.tmp / "ckpt"):
            self.assert_whole(place)
            report = self.run_json("verify", place, "--deep", code=1)
            self.assertEqual({(d["kind"], d["tensor"]) for d in report["defects"]},
                             {("non-finite", bad), ("all-zero", dead)})

    def test_help_and_version(self):
        version = self.run_json("version")
        self.assertTrue({"version", "commit", "schemes", "containers", "devices",
                         "communicators"} <= set(version))
        self.assertTrue({"hdf5", "safetensors"} <= set(version["containers"]))
        overview = self.run_program("help").out
        for command in ("inspect", "plan", "init", "convert", "reshard", "verify", "digest",
                        "diff", "version", "help"):
            self.assertIn(command, overview)
            text = self.run_program(command, "--help").out
            self.assertGreaterEqual(text.count(f"mixckpt {command}"), 1, text)

    def test_messages_name_no_place_where_this_was_built(self):
        self.assertNotIn(str(ROOT), self.run_program("help").out)


if __name__ == "__main__":
    unittest.main()
