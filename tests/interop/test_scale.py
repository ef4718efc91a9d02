"""Models of the published sizes, as sparse files: memory, time, and that nothing is quadratic.

Standard library only.
"""
import hashlib
import json
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from make_many import make_many
from make_sparse import CONFIG_8X7B, CONFIG_8X22B, make_sparse
from program import REFERENCE, ProgramTest, run_measured

MEMORY_BOUND = 256 << 20


class Scale(ProgramTest):
    def bounded(self, *args):
        """Run with --json; the document, and the seconds that it took."""
        began = time.monotonic()
        run = run_measured([*args, "--json"])
        seconds = time.monotonic() - began
        self.assertEqual(run.code, 0, run)
        self.assertLessEqual(run.peak_bytes, MEMORY_BOUND, run)
        return json.loads(run.out), seconds

    def test_the_fixture_is_the_published_model(self):
        """Digests and sizes that the model hub shows for Mixtral-8x7B."""
        folder = self.tmp / "8x7b"
        self.assertEqual(make_sparse(folder, CONFIG_8X7B), 93405713504)
        for name, sha256 in (
                ("config.json",
                 "9d56d04b36d0fd12ff54ae4c5bac769cc176e254e64ff71144614b6318b40793"),
                ("model.safetensors.index.json",
                 "a8f30ebfaf569d5cc6358a32009342a3e73d4553a340cc38a6319457d9dc13e6")):
            self.assertEqual(hashlib.sha256((folder / name).read_bytes()).hexdigest(), sha256)
        for number, size in ((1, 4892809584), (2, 4983004016), (4, 4899035200), (7, 4899035248),
                             (18, 4983004072), (19, 4221679088)):
            path = folder / f"model-{number:05d}-of-00019.safetensors"
            self.assertEqual(path.stat().st_size, size)
            self.assertLess(path.stat().st_blocks * 512, 1 << 20)

    def test_8x7b(self):
        folder = self.tmp / "8x7b"
        make_sparse(folder, CONFIG_8X7B)
        report, seconds = self.bounded("inspect", folder)
        self.assertEqual((report["tensor_count"], report["total_bytes"]), (995, 93405585408))
        self.assertLess(seconds, 1)
        plan, seconds = self.bounded("plan", folder, "--ep", 8, "--hsd", 8)
        self.assertGreaterEqual(plan["bytes_written"], 93405585408)
        self.assertLess(seconds, 1)
        report, _ = self.bounded("verify", folder)
        self.assertEqual(report["proof"], "structure")

    def test_8x22b_with_optimizer_state_on_4096_ranks(self):
        folder = self.tmp / "8x22b"
        total = make_sparse(folder, CONFIG_8X22B, optimizer=True)
        self.assertGreater(total, 1.9e12)
        report, seconds = self.bounded("inspect", folder)
        self.assertEqual(report["tensor_count"], 4 * 1739)
        plan, seconds = self.bounded("plan", folder, "--ep", 8, "--hsd", 512)
        self.assertEqual(len(plan["ranks"]), 4096)
        self.assertGreater(plan["pieces"], 3_000_000)
        self.assertLess(seconds, 3)  # a second on a quiet machine

    def test_convert_verify_reshard_export_in_bounded_memory(self):
        config = dict(json.loads((REFERENCE / "tiny-mixtral" / "config.json").read_text()),
                      hidden_size=768, intermediate_size=2048, num_hidden_layers=8,
                      num_attention_heads=12, num_key_value_heads=4, num_local_experts=8,
                      vocab_size=16000)
        (self.tmp / "config.json").write_text(json.dumps(config))
        a, b, c, hf = (self.tmp / name for name in ("a", "b", "c", "hf"))
        self.bounded("init", self.tmp / "config.json", a, "--to", "hf")
        self.bounded("convert", a, b, "--to", "mixckpt", "--ep", 2, "--hsd", 4)
        self.bounded("verify", b)
        self.bounded("digest", b)
        self.bounded("reshard", b, c, "--ep", 4, "--hsd", 2, "--tp", 4)
        self.bounded("diff", a, c)
        self.bounded("verify", c, "--against", a)
        self.bounded("convert", c, hf, "--to", "hf")
        self.assert_same_folder(a, hf)

    def test_a_small_memory_option_is_kept(self):
        """--memory bounds the buffers, and 64 MiB beside them are for everything else."""
        folder = self.tmp / "many"
        make_many(folder, 20000)
        run = run_measured(["convert", folder, self.tmp / "dst", "--to", "mixckpt", "--ep", 1,
                            "--hsd", 4, "--memory", "64MiB"])
        self.assertEqual(run.code, 0, run)
        self.assertLessEqual(run.peak_bytes, 128 << 20)

    def test_time_grows_with_the_number_of_tensors_not_its_square(self):
        seconds = []
        for count in (5000, 20000):
            folder, dst = self.tmp / f"{count}", self.tmp / f"{count} dst"
            make_many(folder, count)
            began = time.monotonic()
            self.bounded("convert", folder, dst, "--to", "mixckpt", "--ep", 1, "--hsd", 4)
            self.bounded("verify", dst)
            seconds.append(time.monotonic() - began)
        # Four times the tensors: about 4 if linear, 16 if quadratic.
        self.assertLess(seconds[1], 9 * seconds[0] + 0.5)


if __name__ == "__main__":
    unittest.main()
