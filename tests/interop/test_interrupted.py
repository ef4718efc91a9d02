"""Work that was interrupted half-way goes on, and until then nothing looks whole.

Standard library only. The model is some 290 MB, made by `mixckpt init`.
"""
import json
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from program import REFERENCE, SIGINT, SIGKILL, SIGTERM, ProgramTest

MESH = ("--ep", 2, "--hsd", 4)


class Interrupted(ProgramTest):
    def setUp(self):
        super().setUp()
        config = json.loads((REFERENCE / "tiny-mixtral" / "config.json").read_text())
        config.update(hidden_size=512, intermediate_size=1792, num_hidden_layers=6,
                      num_attention_heads=8, num_key_value_heads=4, num_local_experts=8,
                      vocab_size=8000)
        (self.tmp / "config.json").write_text(json.dumps(config))
        self.src, self.dst = self.tmp / "src", self.tmp / "dst"
        self.partial = self.tmp / "dst.partial"
        report = self.run_json("init", self.tmp / "config.json", self.src, "--to", "hf",
                               "--max-shard-size", "40MB")
        self.half = report["bytes_written"] // 2

    def check_goes_on(self, number, code, *job):
        self.run_program(*job[:2], self.tmp / "one go", *job[2:])
        with_dst = [*job[:2], self.dst, *job[2:]]
        run = self.interrupt_after(self.half, number, *with_dst, "--jobs", 1)
        self.assertEqual(run.code, code, run)
        self.assertFalse(self.dst.exists())
        self.assertTrue(self.partial.is_dir())
        self.run_program("verify", self.partial, code=1)  # it is no checkpoint
        report = self.run_json(*with_dst, "--jobs", 1)
        self.assertGreater(report["bytes_resumed"], 0)
        self.assertLess(report["bytes_written"], 2 * self.half)
        self.assertFalse(self.partial.exists())
        self.assert_same_folder(self.tmp / "one go", self.dst)

    def test_convert_killed(self):
        self.check_goes_on(SIGKILL, -SIGKILL, "convert", self.src, "--to", "mixckpt", *MESH)

    def test_convert_killed_while_writing_safetensors(self):
        self.check_goes_on(SIGKILL, -SIGKILL, "convert", self.src, "--to", "mixckpt", *MESH,
                           "--tp", 2, "--container", "safetensors")

    def test_convert_stopped_by_hand(self):
        self.check_goes_on(SIGINT, 130, "convert", self.src, "--to", "mixckpt", *MESH)

    def test_convert_told_to_stop(self):
        self.check_goes_on(SIGTERM, 143, "convert", self.src, "--to", "mixckpt", *MESH)

    def test_reshard_killed(self):
        self.run_program("convert", self.src, self.tmp / "ckpt", "--to", "mixckpt", *MESH)
        self.check_goes_on(SIGKILL, -SIGKILL, "reshard", self.tmp / "ckpt", "--ep", 4,
                           "--hsd", 3, "--tp", 2)

    def test_export_killed(self):
        self.run_program("convert", self.src, self.tmp / "ckpt", "--to", "mixckpt", *MESH)
        self.check_goes_on(SIGKILL, -SIGKILL, "convert", self.tmp / "ckpt", "--to", "hf")
        self.assert_same_folder(self.src, self.dst)

    def test_what_another_job_began_is_refused(self):
        self.interrupt_after(self.half, SIGKILL, "convert", self.src, self.dst, "--to",
                             "mixckpt", *MESH)
        run = self.run_program("convert", self.src, self.dst, "--to", "mixckpt", "--ep", 4,
                               "--hsd", 2, code=3)
        self.assertIn("dst.partial", run.err)
        self.assertTrue(self.partial.is_dir())
        self.run_program("convert", self.src, self.dst, "--to", "mixckpt", "--ep", 4,
                         "--hsd", 2, "--force")
        self.assert_whole(self.dst)
        self.assertFalse(self.partial.exists())

    def test_a_source_that_changed_in_between_is_another_job(self):
        run = self.interrupt_after(self.half, SIGKILL, "convert", self.src, self.dst, "--to",
                                   "mixckpt", *MESH)
        self.assertEqual(run.code, -SIGKILL)
        shutil.rmtree(self.src)
        self.run_program("init", self.tmp / "config.json", self.src, "--to", "hf", "--seed", 9,
                         "--max-shard-size", "40MB")
        run = self.run_program("convert", self.src, self.dst, "--to", "mixckpt", *MESH, code=3)
        self.assertIn("dst.partial", run.err)


if __name__ == "__main__":
    unittest.main()
