"""Several workers share a job, and one of them is lost at any point, or fails.

Worker 0 says which; nobody publishes; the job can be run again, by any number of workers.
"""
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import faults
from faults import FAILED, KILLED, FaultTest, contents, needs_shim, run, shim

WAIT = 1 # seconds without progress after which a worker gives up


@needs_shim
class Workers(FaultTest):
    def start(self, job, dst, count, faulty=None, *rules, wait=WAIT):
        """All workers at once; the one called `faulty` under the shim."""
        processes = []
        for worker in range(count):
            words = [*job.command(dst), "--worker", f"{worker}/{count}", "--wait", wait]
            env = {**os.environ, **(shim(*rules) if worker == faulty else {})}
            processes.append(subprocess.Popen(
                [faults.PROGRAM, *map(str, words)], text=True, env=env,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return processes

    def end(self, processes):
        try:
            out = [p.communicate(timeout=60) for p in processes]
        finally:
            for p in processes:
                p.kill()
                p.wait()
        return [subprocess.CompletedProcess(p.args, p.returncode, *texts)
                for p, texts in zip(processes, out)]

    def run_again(self, job, dst, count):
        for done in self.end(self.start(job, dst, count, wait=30)):
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.whole(job, dst), "new")
        self.assertEqual(os.listdir(self.work), ["dst"])

    def check_nothing_published(self, job, dst):
        self.assertEqual(self.check_state(job, dst), "old" if job.force else None)

    def test_a_worker_that_is_killed(self):
        """At its first write, in the middle, at its last sign of life."""
        for name, n, again in [("convert", 1, 3), ("convert", 9, 1), ("convert", 25, 2),
                               ("force", 15, 4), ("reshard", 40, 3), ("export", 12, 5)]:
            job = self.jobs[name]
            dst = self.prepare(job)
            with self.subTest(job=name, killed_before_call=n):
                first, lost, third = self.end(self.start(job, dst, 3, 1, ("*", n, "KILL")))
                self.assertEqual(lost.returncode, KILLED, lost.stderr)
                self.assertEqual(first.returncode, FAILED, first.stderr)
                self.check_words(first)
                self.assertRegex(first.stderr, r"worker 1 of 3|workers, 1 have not .*: 1$")
                self.assertEqual(third.returncode, FAILED, third.stderr)
                self.check_words(third)
                self.check_nothing_published(job, dst)
                self.run_again(job, dst, again)

    def test_the_first_worker_is_killed(self):
        for name, n, again in [("convert", 1, 3), ("convert", 6, 2), ("force", 40, 3)]:
            job = self.jobs[name]
            dst = self.prepare(job)
            with self.subTest(job=name, killed_before_call=n):
                first, *others = self.end(self.start(job, dst, 3, 0, ("*", n, "KILL")))
                self.assertEqual(first.returncode, KILLED, first.stderr)
                for other in others:
                    self.assertEqual(other.returncode, FAILED, other.stderr)
                    self.check_words(other)
                    self.assertIn("worker 0", other.stderr)
                self.check_nothing_published(job, dst)
                self.run_again(job, dst, again)

    def test_a_worker_that_fails(self):
        """Worker 0 has its name and its words."""
        report = self.home / "report"
        # The first call that is its share's, not of the opening of the source or the job.
        for name, calls, n in [("convert", "pread64", None), ("reshard", "ftruncate64", 2),
                               ("force", "fsync", 4), ("export", "pread64", None)]:
            job = self.jobs[name]
            dst = self.prepare(job)
            if not n: # alone it opens the source, and then waits for worker 0
                alone = run(*job.command(dst), "--worker", "1/3", "--wait", WAIT,
                            env=shim((calls, 0, "EIO"), report=report))
                self.assertIn("worker 0 has not begun this job", alone.stderr)
                n = int(report.read_text()) + 6
            began = time.monotonic()
            with self.subTest(job=name, calls=calls, n=n):
                runs = self.end(self.start(job, dst, 3, 1, (calls, f"{n}+", "EIO"), wait=10))
                self.assertLess(time.monotonic() - began, 25)
                for done in runs:
                    self.assertEqual(done.returncode, FAILED, done.stderr)
                    self.check_words(done)
                    self.assertIn("Input/output error", done.stderr)
                self.assertIn("worker 1 of 3 failed", runs[0].stderr)
                self.check_nothing_published(job, dst)
                self.assertTrue(dst.with_name("dst.partial").exists())
                self.run_again(job, dst, 2)

    def test_a_source_that_one_worker_finds_damaged(self):
        """It is the fault of the input: nothing stays, whoever has found it."""
        src = self.home / "damaged"
        shutil.copytree(self.shards, src)
        for shard in sorted((src / "model").iterdir()):
            data = shard.read_bytes()
            shard.write_bytes(data[:-50] + bytes([data[-50] ^ 1]) + data[-49:])
            job = faults.Job(self.jobs["reshard"].words, src)
            with self.subTest(shard=shard.name):
                runs = self.end(self.start(job, self.prepare(job), 3))
                for done in runs:
                    self.assertEqual(done.returncode, FAILED, done.stderr)
                    self.check_words(done)
                self.assertIn(shard.name, runs[0].stderr)
                self.assertEqual(os.listdir(self.work), [])
            shard.write_bytes(data)

    def test_nobody_thinks_that_a_slow_first_worker_has_given_up(self):
        """It has moved the job away and takes its time with the last rename."""
        job = self.jobs["convert"]
        for n in range(1, 20):
            dst = self.prepare(job)
            processes = self.start(job, dst, 2, 0, ("rename", n, "STOP"), wait=20)
            try:
                os.waitpid(processes[0].pid, os.WUNTRACED)
                moved = dst.with_name("dst.partial.job").exists()
                if moved:
                    time.sleep(1.2) # the other one looks twice a second
                    self.assertIsNone(processes[1].poll())
            finally:
                processes[0].send_signal(signal.SIGCONT)
            for done in self.end(processes):
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assert_same(contents(dst), job.new)
            if moved:
                return
        self.fail("it never moved the job away")

    def test_workers_that_come_long_before_the_first(self):
        """They go on with a job that an earlier run began, and then wait for worker 0."""
        job = self.jobs["convert"]
        dst = self.prepare(job)
        first, *_ = self.end(self.start(job, dst, 3, 0, ("rename", 3, "EIO")))
        self.assertEqual(first.returncode, FAILED, first.stderr)
        words = [*job.command(dst), "--wait", 20, "--worker"]
        others = [subprocess.Popen([faults.PROGRAM, *map(str, words), f"{i}/3"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                  for i in (1, 2)]
        time.sleep(1)
        for done in [run(*words, "0/3"), *self.end(others)]:
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.whole(job, dst), "new")
        self.assertEqual(os.listdir(self.work), ["dst"])

    def test_many_workers_on_a_small_job(self):
        """More than there are files: some have nothing to do."""
        job = self.jobs["convert"]
        self.run_again(job, self.prepare(job), 9)


if __name__ == "__main__":
    unittest.main()
