"""Many workers share one job: the same folder, byte for byte; a lost one is named.

Needs numpy (to make models).
"""
import os
import shutil
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from make_model import make_model
from program import REFERENCE, SIGKILL, ProgramTest, Run

JOB = ("--to", "mixckpt", "--ep", 2, "--hsd", 3, "--tp", 2)


class Workers(ProgramTest):
    def start_workers(self, count, *args, wait=30):
        """`wait`, so that one that dies does not keep the others (and this test) for long."""
        return [Run([*args, "--worker", f"{i}/{count}", "--wait", wait]) for i in range(count)]

    def run_workers(self, count, *args):
        for run in [r.wait() for r in self.start_workers(count, *args)]:
            self.assertEqual(run.code, 0, run)

    def test_any_number_of_workers_writes_the_same_folder(self):
        src, one = self.tmp / "src", self.tmp / "one"
        make_model(src, seed=8, hidden=320, vocab=700, optimizer=True, extra=True)
        self.run_program("convert", src, one, *JOB)
        self.run_program("reshard", one, self.tmp / "re one", "--ep", 4, "--hsd", 5)
        self.export(one, self.tmp / "hf one")
        for count in (2, 3, 8):
            with self.subTest(workers=count):
                many = self.tmp / f"{count}"
                self.run_workers(count, "convert", src, many, *JOB)
                self.assert_same_folder(one, many)
                self.run_workers(count, "reshard", many, self.tmp / f"re {count}",
                                 "--ep", 4, "--hsd", 5)
                self.assert_same_folder(self.tmp / "re one", self.tmp / f"re {count}")
                self.run_workers(count, "convert", many, self.tmp / f"hf {count}", "--to", "hf")
                self.assert_same_folder(self.tmp / "hf one", self.tmp / f"hf {count}")
        self.assertFalse([p for p in self.tmp.iterdir() if p.name.endswith(".partial")])

    def test_launchers_tell_it_in_the_environment(self):
        src, one = REFERENCE / "tiny-mixtral", self.tmp / "one"
        self.run_program("convert", src, one, *JOB)
        for rank, size in (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
                           ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
            many = self.tmp / rank
            runs = [Run(["convert", src, many, *JOB],
                        env={**os.environ, rank: str(i), size: "2"}) for i in range(2)]
            for run in [r.wait() for r in runs]:
                self.assertEqual(run.code, 0, run)
            self.assert_same_folder(one, many)

    def test_verify_and_digest_cover_everything_once(self):
        one = self.tmp / "one"
        self.run_program("convert", REFERENCE / "tiny-mixtral", one, *JOB)
        whole = self.run_json("verify", one)
        parts = [self.run_json("verify", one, "--worker", f"{i}/3") for i in range(3)]
        self.assertEqual([p["worker"] for p in parts], [[0, 3], [1, 3], [2, 3]])
        self.assertTrue(all(p["ok"] for p in parts))
        self.assertLess(max(p["bytes_read"] for p in parts), whole["bytes_read"])
        shares = [self.run_json("digest", one, "--worker", f"{i}/3")["tensors"] for i in range(3)]
        self.assertEqual(sum(map(len, shares)), len({k for s in shares for k in s}))
        self.assertEqual({k: v for s in shares for k, v in s.items()},
                         self.run_json("digest", one)["tensors"])

    def test_a_worker_that_never_comes_is_named_and_the_job_can_be_run_again(self):
        src, dst, one = REFERENCE / "tiny-mixtral", self.tmp / "dst", self.tmp / "one"
        self.run_program("convert", src, one, *JOB)
        run = self.run_program("convert", src, dst, *JOB, "--worker", "0/3", "--wait", 1, code=3)
        self.assertRegex(run.err, r"worker.*\b1\b.*\b2\b")
        self.assertFalse(dst.exists())
        self.run_workers(3, "convert", src, dst, *JOB)
        self.assert_same_folder(one, dst)

    def test_a_worker_that_is_killed_is_named_and_the_job_can_be_run_again(self):
        src, dst, one = self.tmp / "src", self.tmp / "dst", self.tmp / "one"
        make_model(src, seed=9, hidden=512, intermediate=2048, vocab=4000, layers=4, experts=8)
        self.run_program("convert", src, one, *JOB)
        runs = self.start_workers(3, "convert", src, dst, *JOB, wait=2)
        while not runs[1].ended() and runs[1].bytes_written() < 1 << 20:
            time.sleep(0.001)
        self.assertFalse(runs[1].ended(), "the model is too small to kill a worker half-way")
        runs[1].process.send_signal(SIGKILL)
        first, killed, third = [r.wait() for r in runs]
        self.assertEqual((first.code, killed.code), (3, -SIGKILL), first)
        self.assertIn(third.code, (0, 3), third)  # its share is done, but not the job
        self.assertRegex(first.err, r"worker.*\b1\b")
        self.assertFalse(dst.exists())
        self.run_workers(3, "convert", src, dst, *JOB)
        self.assert_same_folder(one, dst)

    def test_a_worker_that_fails_is_named(self):
        src, dst = self.tmp / "src", self.tmp / "dst"
        shutil.copytree(REFERENCE / "tiny-mixtral", src)
        with open(src / "model-00004-of-00005.safetensors", "r+b") as file:
            file.truncate(1000)
        runs = [r.wait() for r in self.start_workers(2, "convert", src, dst, *JOB, wait=2)]
        self.assertEqual({r.code for r in runs}, {3})
        for run in runs:
            self.assertIn("model-00004-of-00005.safetensors", run.err)
        self.assertFalse(dst.exists())


if __name__ == "__main__":
    unittest.main()
