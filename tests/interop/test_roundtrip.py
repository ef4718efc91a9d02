"""There and back: every layout holds the same tensors, and the way back gives the same files.

Needs numpy (to make models). The witness for digests is docs/mixckpt_digest.py.
"""
import json
import random
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from make_many import make_many
from make_model import EXTRA_ENTRIES, make_model
from program import REFERENCE, ProgramTest, files_of, witness

CONTAINERS = ("hdf5", "safetensors")

# Geometries that do not divide evenly by most hsd, with what is legal for ep and tp.
MODELS = {
    "plain": dict(seed=1),
    "uneven": dict(seed=2, hidden=42, intermediate=51, heads=6, kv_heads=3, experts=6,
                   vocab=101, layers=3, tied=True, shards=1, dtypes=("F16",), spelling=4),
    "mixed": dict(seed=3, hidden=40, intermediate=36, heads=5, kv_heads=1, experts=5, vocab=77,
                  head_dim=6, dtypes=("F32", "BF16", "F16"), shards=5, order="shuffled",
                  extra=True),
    "state": dict(seed=4, hidden=48, intermediate=64, heads=8, kv_heads=4, experts=8, layers=1,
                  optimizer=True, shards=4, spelling=4),
    "large pieces": dict(seed=5, hidden=640, intermediate=1000, heads=8, kv_heads=8, vocab=5003,
                         experts=2, layers=1, shards=2, optimizer=True),
}


def divisors(*numbers):
    return [n for n in range(1, max(numbers) + 1) if all(m % n == 0 for m in numbers)]


def legal_degrees(config_path):
    config = json.loads(Path(config_path).read_text())
    return (divisors(config["num_local_experts"]), [1, 2, 3, 4, 5, 7, 16],
            divisors(config["num_key_value_heads"], config["intermediate_size"]))


class RoundTrip(ProgramTest):
    def source(self, name):
        if name.startswith("tiny"):
            return REFERENCE / name
        make_model(self.tmp / name, **MODELS[name])
        return self.tmp / name

    def check_way(self, src, mesh, container):
        """Convert, verify, digest, export."""
        there, back = self.tmp / "there", self.tmp / "back"
        for folder in (there, back):
            shutil.rmtree(folder, ignore_errors=True)
        report = self.convert(src, there, *mesh, "--container", container)
        self.assert_whole(there)
        lines = witness(src)
        self.assertEqual(self.digest(there), lines)
        self.assertIn(f"{report['model']}  model", lines)
        self.assertTrue(self.run_json("verify", there, "--against", src)["ok"])
        self.assertTrue(self.run_json("verify", src, "--against", there)["ok"])
        self.assertTrue(self.run_json("diff", src, there)["equal"])
        self.export(there, back)
        self.assert_same_folder(src, back)

    def test_every_model_in_many_layouts(self):
        for name in ("tiny-mixtral", "tiny-mixtral-tied", *MODELS):
            src, pick = self.source(name), random.Random(name)
            eps, hsds, tps = legal_degrees(src / "config.json")
            meshes = {(1, 1, 1), (eps[-1], 1, 1), (1, 4, 1), (1, 1, tps[-1]),
                      (eps[-1], 3, tps[-1])}
            while len(meshes) < 8:
                meshes.add((pick.choice(eps), pick.choice(hsds), pick.choice(tps)))
            for i, mesh in enumerate(sorted(meshes)):
                with self.subTest(model=name, mesh=mesh):
                    self.check_way(src, mesh, CONTAINERS[i % 2])

    def test_a_chain_of_reshards_equals_the_direct_way(self):
        for name in ("tiny-mixtral-tied", *MODELS):
            src, pick = self.source(name), random.Random("chain " + name)
            eps, hsds, tps = legal_degrees(src / "config.json")
            mesh = lambda: (pick.choice(eps), pick.choice(hsds), pick.choice(tps))
            step = self.tmp / f"{name} 0"
            self.convert(src, step, *mesh(), "--container", pick.choice(CONTAINERS))
            for i in range(1, 5):
                target, container = mesh(), pick.choice(CONTAINERS)
                after, direct = self.tmp / f"{name} {i}", self.tmp / f"{name} direct {i}"
                with self.subTest(model=name, step=i, mesh=target, container=container):
                    self.reshard(step, after, *target, "--container", container)
                    self.convert(src, direct, *target, "--container", container)
                    self.assert_same_folder(after, direct)
                step = after
            self.export(step, self.tmp / f"{name} back")
            self.assert_same_folder(src, self.tmp / f"{name} back")

    def test_reshard_keeps_the_container_and_to_its_own_mesh_changes_nothing(self):
        for container in CONTAINERS:
            first, second = self.tmp / container, self.tmp / (container + "2")
            self.convert(REFERENCE / "tiny-mixtral", first, 2, 3, 2, "--container", container)
            self.reshard(first, second, 2, 3, 2)
            self.assert_same_folder(first, second)

    def test_optimizer_state_follows_its_weights(self):
        src = REFERENCE / "tiny-mixtral"
        one, many = self.tmp / "one", self.tmp / "many"
        self.run_json("init", src / "config.json", one, "--to", "mixckpt", "--ep", 2, "--hsd", 3,
                      "--tp", 2, "--seed", 5, "--optimizer")
        self.assert_whole(one)
        report = self.run_json("digest", one)
        weights = [n for n in report["tensors"] if "@" not in n]
        for suffix in ("@exp_avg", "@exp_avg_sq", "@master"):
            for name in weights:
                self.assertEqual(report["tensors"][name + suffix]["shape"],
                                 report["tensors"][name]["shape"])
        self.reshard(one, many, 4, 2, 1, "--container", "safetensors")
        self.assert_whole(many)
        self.assertEqual(self.digest(many), self.digest(one))
        self.assertTrue(any(f.startswith("optimizer/") for f in files_of(many)))
        # A Hugging Face folder is for weights: the state stays behind, the weights do not.
        self.export(many, self.tmp / "hf")
        self.assertEqual(witness(self.tmp / "hf").splitlines()[-1], report["model"] + "  model")
        # And left behind when asked: the model line stays, the optimizer line goes.
        self.convert(one, self.tmp / "weights", 1, 2, 1, "--weights-only")
        weights_only = self.run_json("digest", self.tmp / "weights")
        self.assertEqual(weights_only["model"], report["model"])
        self.assertIsNone(weights_only["optimizer"])
        self.assertFalse(any(f.startswith("optimizer/") for f in files_of(self.tmp / "weights")))

    def test_tensors_that_no_rule_knows_are_carried_and_named(self):
        src = self.source("mixed")
        report = self.convert(src, self.tmp / "there", 5, 3, 1)
        warnings = "\n".join(report["warnings"])
        for name, _, _ in EXTRA_ENTRIES:
            self.assertIn(name, self.digest(self.tmp / "there"))
        self.assertIn("adapter.down.weight", warnings)

    def test_many_small_tensors_in_one_file_or_many(self):
        make_many(self.tmp / "one", 1000)
        make_many(self.tmp / "each", 1000, one_file_each=True)
        for name in ("one", "each"):
            self.check_way(self.tmp / name, (1, 4, 1), "hdf5")
            self.check_way(self.tmp / name, (1, 3, 1), "safetensors")

    def test_a_hub_cache_of_symbolic_links(self):
        src, hub = REFERENCE / "tiny-mixtral", self.tmp / "models--org--name"
        snapshot = hub / "snapshots" / "0123abcd"
        (hub / "blobs").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for i, name in enumerate(files_of(src)):
            shutil.copy(src / name, hub / "blobs" / f"blob{i}")
            (snapshot / name).symlink_to(f"../../blobs/blob{i}")
        self.convert(src, self.tmp / "plain", 2, 2, 1)
        self.convert(snapshot, self.tmp / "linked", 2, 2, 1)
        self.assert_same_folder(self.tmp / "plain", self.tmp / "linked")
        self.export(self.tmp / "linked", self.tmp / "back")
        self.assert_same_folder(src, self.tmp / "back")
        self.assertFalse(any(p.is_symlink() for p in (self.tmp / "back").iterdir()))

    def test_other_weights_beside_an_index_are_left_out(self):
        src = self.tmp / "src"
        shutil.copytree(REFERENCE / "tiny-mixtral", src)
        (src / "consolidated.00.pt").write_bytes(b"not for us")
        (src / "pytorch_model.bin").write_bytes(b"nor this")
        run = self.run_program("convert", src, self.tmp / "there", "--to", "mixckpt",
                               "--ep", 2, "--hsd", 2)
        self.assertIn("consolidated.00.pt", run.err)
        self.assertEqual(self.digest(self.tmp / "there"), witness(REFERENCE / "tiny-mixtral"))
        self.export(self.tmp / "there", self.tmp / "back")
        self.assert_same_folder(REFERENCE / "tiny-mixtral", self.tmp / "back")

    def test_a_single_file_is_a_checkpoint(self):
        lone = self.tmp / "lone.safetensors"
        shutil.copy(REFERENCE / "tiny-mixtral-tied" / "model.safetensors", lone)
        self.assertEqual(self.digest(lone), witness(REFERENCE / "tiny-mixtral-tied"))


if __name__ == "__main__":
    unittest.main()
