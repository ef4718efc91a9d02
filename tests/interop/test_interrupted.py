"""Work that was interrupted half-way goes on, and until then nothing looks whole.

Standard library only. The model is some 750 MB, made by `mixckpt init`: what is done
is noted every 256 MiB, so at that size a run that was killed late has something to keep.
"""
import json
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from program import REFERENCE, SIGINT, SIGKILL, SIGTERM, ProgramTest, Run

MESH = ("--ep", 2, "--hsd", 4)
GEOMETRY = dict(hidden_size=512, intermediate_size=1792, num_hidden_layers=16,
                num_attention_heads=8, num_key_value_heads=4, num_local_experts=8,
                vocab_size=8000)


class Interrupted(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.shared = Path(tempfile.mkdtemp(prefix="mixckpt-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        config = json.loads((REFERENCE / "tiny-mixtral" / "config.json").read_text())
        (cls.shared / "config.json").write_text(json.dumps({**config, **GEOMETRY}))
        cls.src = cls.init("src", 1)
        cls.late = sum(p.stat().st_size for p in cls.src.iterdir()) * 2 // 3

    @classmethod
    def init(cls, name, seed):
        run = Run(["init", cls.shared / "config.json", cls.shared / name, "--to", "hf",
                   "--max-shard-size", "40MB", "--seed", seed]).wait()
        assert run.code == 0, run
        return cls.shared / name

    def setUp(self):
        super().setUp()
        self.dst, self.partial = self.tmp / "dst", self.tmp / "dst.partial"

    def check_goes_on(self, number, code, *job):
        self.run_program(*job[:2], self.tmp / "one go", *job[2:])
        with_dst = [*job[:2], self.dst, *job[2:]]
        run = self.interrupt_after(self.late, number, *with_dst, "--jobs", 1)
        self.assertEqual(run.code, code, run)
        self.assertFalse(self.dst.exists())
        self.assertTrue(self.partial.is_dir())
        self.run_program("verify", self.partial, code=1)  # it is no checkpoint
        report = self.run_json(*with_dst, "--jobs", 1)
        self.assertGreater(report["bytes_resumed"], 0)
        self.assertLess(report["bytes_written"], self.late)
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
        self.interrupt_after(self.late, SIGKILL, "convert", self.src, self.dst, "--to",
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
        src = self.tmp / "src"
        shutil.copytree(self.src, src)
        run = self.interrupt_after(self.late, SIGKILL, "convert", src, self.dst, "--to",
                                   "mixckpt", *MESH)
        self.assertEqual(run.code, -SIGKILL)
        shutil.rmtree(src)
        self.init("other", 9).rename(src)
        run = self.run_program("convert", src, self.dst, "--to", "mixckpt", *MESH, code=3)
        self.assertIn("dst.partial", run.err)


if __name__ == "__main__":
    unittest.main()
