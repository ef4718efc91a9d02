"""A kill before each call that changes something: the old checkpoint or the new one is
there, whole, and the same command run again finishes the job.

The shim counts the calls of the whole process, so every one of them is hit. strace hits
the system calls themselves, also those that libc makes on its own; it counts them thread
by thread, so it finds less, but it cannot overlook a call that the shim does not know.
"""
import os
import random
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import faults
from faults import KILLED, FaultTest, needs_shim, run, shim

# Calls whose number does not depend on how the threads happen to run: with them every step
# of the publishing is hit in every run of the test.
STEADY = "mkdir,rename,syscall,unlink,rmdir"

# Every system call with which the program changes something, and those that only might.
SYSCALLS = ["openat", "mkdir", "pwrite64", "write", "rename", "renameat2", "ftruncate", "fsync",
            "fdatasync", "syncfs", "sync_file_range", "unlink", "rmdir", "close", "pread64"]


@needs_shim
class EveryCall(FaultTest):
    def kill_everywhere(self, name, *more_rules, jobs=1):
        job, points = self.jobs[name], 0
        states = {None: 0, "old": 0, "new": 0}
        for calls in (STEADY, "*"):
            for n in range(1, 10000):
                dst = self.prepare(job)
                done = run(*job.command(dst, jobs), env=shim((calls, n, "KILL"), *more_rules))
                with self.subTest(job=name, calls=calls, killed_before=n, jobs=jobs):
                    if done.returncode == 0:
                        break
                    self.assertEqual(done.returncode, KILLED, done.stderr)
                    points += 1
                    state = self.check_state(job, dst)
                    states[state] += 1
                    self.check_again(job, dst, state, jobs)
        self.check_inputs()
        print(f"{name}: killed at {points} points; afterwards {states}", file=sys.stderr)
        self.assertGreater(states["new"], 0)
        self.assertGreater(states["old" if job.force else None], 100)
        return states

    def test_convert(self):
        self.kill_everywhere("convert")

    def test_convert_by_two_threads(self):
        self.kill_everywhere("convert", jobs=2)

    def test_export(self):
        self.kill_everywhere("export")

    def test_reshard(self):
        self.kill_everywhere("reshard")

    def test_reshard_over_an_old_checkpoint(self):
        states = self.kill_everywhere("force")
        self.assertEqual(states[None], 0) # exchanged in one step

    def test_reshard_over_an_old_checkpoint_where_folders_cannot_be_exchanged(self):
        states = self.kill_everywhere("force", ("syscall", "1+", "EINVAL"))
        self.assertGreater(states[None], 0) # the moment between two renames

    def test_killed_again_and_again(self):
        """Kills of the runs that go on, too; a fixed seed, so that a failure comes back."""
        chance = random.Random(8)
        for name, *rules in [("convert",), ("export",), ("force",),
                             ("force", ("syscall", "1+", "EINVAL"))]:
            job = self.jobs[name]
            for _ in range(40):
                dst, points = self.prepare(job), []
                for _ in range(4):
                    points.append(chance.choice([chance.randint(1, 300), chance.randint(1, 40)]))
                    done = run(*job.command(dst), env=shim(("*", points[-1], "KILL"), *rules))
                    if done.returncode != KILLED:
                        break
                with self.subTest(job=name, killed_before_calls=points):
                    self.assertIn(done.returncode, (KILLED, 0, 3), done.stderr)
                    self.check_again(job, dst, self.check_state(job, dst))
        self.check_inputs()

    def test_killed_while_it_removes_the_work_of_another_job(self):
        """--force drops a .partial that is not ours; killed meanwhile, it does so again."""
        job, other = self.jobs["force"], self.jobs["convert"]
        for n in range(1, 1000):
            dst = self.prepare(other)
            half = run(*other.command(dst), env=shim(("pwrite64", 15, "KILL")))
            self.assertEqual(half.returncode, KILLED)
            done = run(*job.command(dst), env=shim(("*", n, "KILL")))
            with self.subTest(killed_before_call=n):
                if done.returncode == 0:
                    break
                state = self.whole(job, dst)
                self.assertIn(state, (None, "new"))
                self.check_again(job, dst, state)
        self.assertGreater(n, 100)


@unittest.skipUnless(shutil.which("strace"), "strace IS NOT INSTALLED (scripts/setup --tests): "
                     "kills at system calls ARE NOT TESTED")
class EverySystemCall(FaultTest):
    def kill_at(self, job, syscall, n, dst):
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}", "-e",
                  f"inject={syscall}:signal=SIGKILL:when={n}"]
        return run(*job.command(dst), before=strace,
                   env={"ASAN_OPTIONS": "detect_leaks=0"}) # leaks are not found under strace

    def kill_everywhere(self, name, step=1):
        job, points = self.jobs[name], 0
        for syscall in SYSCALLS:
            for n in range(1, 100000, step):
                dst = self.prepare(job)
                done = self.kill_at(job, syscall, n, dst)
                with self.subTest(job=name, syscall=syscall, n=n):
                    if done.returncode == 0:
                        break
                    self.assertEqual(done.returncode, KILLED, done.stderr)
                    points += 1
                    self.check_again(job, dst, self.check_state(job, dst))
        self.check_inputs()
        print(f"{name}: killed at {points} system calls", file=sys.stderr)
        self.assertGreater(points, 200 // step)

    def test_convert(self):
        self.kill_everywhere("convert")

    def test_reshard_over_an_old_checkpoint(self):
        self.kill_everywhere("force", step=3)

    @needs_shim
    def test_the_shim_knows_every_system_call_that_changes_something(self):
        """Otherwise "every call" above would not be every call."""
        pairs = {"mkdir": "mkdir", "pwrite64": "pwrite64", "rename": "rename",
                 "renameat2": "syscall", "ftruncate": "ftruncate64", "fsync": "fsync",
                 "unlink": "unlink", "rmdir": "rmdir", "syncfs": "syncfs"}
        changing = {"creat", "link", "linkat", "symlink", "symlinkat", "mkdirat", "renameat",
                    "unlinkat", "pwritev", "writev", "truncate", "fallocate", "copy_file_range",
                    "sendfile", "fdatasync", "chmod", "fchmod", "fchmodat", "chown", "utimensat",
                    "mknod", "splice", "msync"}
        report, log = self.home / "report", self.home / "log"
        rules = [(call, 0, "EIO") for call in pairs.values()]
        for name, job in self.jobs.items():
            preload = [f"{key}={value}" for key, value in shim(*rules, report=report).items()]
            strace = ["strace", "-f", "-qq", "-o", log, *(f"-E{each}" for each in preload)]
            self.must(run(*job.command(self.prepare(job)), before=strace))
            made = [line.split(None, 1)[1].split("(")[0] for line in
                    log.read_text(errors="replace").splitlines()
                    if "(" in line and "resumed>" not in line]
            self.assertEqual(changing & set(made) - set(pairs), set(), name)
            counts = dict(zip(pairs, map(int, report.read_text().split())))
            self.assertEqual(counts, {call: made.count(call) for call in pairs}, name)
            self.assertGreater(counts["pwrite64"], 10)


if __name__ == "__main__":
    unittest.main()
