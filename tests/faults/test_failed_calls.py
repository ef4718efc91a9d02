"""Each call fails once, each allocation fails once, reads and writes stop half-way.

The exit code is 3, with one line of words; or 0, and then the result is right. Nothing
that is half looks whole, the input is untouched, and the same command run again makes
what an undisturbed run makes.
"""
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAILED, FaultTest, needs_shim, run, shim

# What may fail, and how.
FAULTS = [
    ("open64", ["EIO", "EMFILE", "ENOSPC", "EACCES"]), ("opendir", ["EMFILE", "EIO"]),
    ("readdir64", ["EIO"]), ("pread64", ["EIO"]), ("pwrite64", ["ENOSPC", "EIO", "EDQUOT"]),
    ("fsync", ["EIO", "ENOSPC"]), ("syncfs", ["EIO"]), ("close", ["EIO", "ENOSPC"]),
    ("rename", ["EIO", "ENOSPC", "EACCES"]), ("syscall", ["EIO", "EACCES"]),
    ("mkdir", ["ENOSPC", "EACCES"]), ("rmdir", ["EIO"]), ("unlink", ["EIO", "EACCES"]),
    ("ftruncate64", ["EIO", "ENOSPC"]), ("lstat64,stat64,fstat64,fstatat64", ["EIO", "ENOMEM"]),
    ("statvfs64", ["EIO"]), ("lseek64", ["EIO"]), ("readlink", ["EIO"]), ("realpath", ["EIO"]),
    ("memfd_create,mkostemp64", ["EMFILE"]), ("pthread_create", ["EAGAIN"]),
]
SURVIVE_EINTR = ["open64", "opendir", "pread64", "pwrite64", "fsync", "syncfs", "ftruncate64",
                 "close"]


@needs_shim
class Making(FaultTest):
    """Commands that make a checkpoint."""

    def disturb(self, name, calls, what, codes=(0, FAILED), whens=None, jobs=1):
        """Let call 1, 2, ... fail until the program makes no such call. Returns the codes."""
        job, report = self.jobs[name], self.home / "report"
        seen = []
        for when in whens or range(1, 100000):
            dst = self.prepare(job)
            done = run(*job.command(dst, jobs), env=shim((calls, when, what), report=report))
            with self.subTest(job=name, calls=calls, when=when, what=what):
                if not whens and int(report.read_text()) < when:
                    self.assertEqual(done.returncode, 0, done.stderr)
                    break
                self.assertIn(done.returncode, codes, done.stderr)
                seen.append(done.returncode)
                state = self.check_state(job, dst)
                if done.returncode == 0:
                    self.assertEqual(state, "new")
                else:
                    self.check_words(done)
                    self.check_again(job, dst, state, jobs)
        self.check_inputs()
        return seen

    def each_fault(self, name):
        total = {0: 0, FAILED: 0}
        for calls, errors in FAULTS:
            for what in errors:
                for code in self.disturb(name, calls, what):
                    total[code] += 1
        print(f"{name}: {sum(total.values())} faults, of which harmless: {total[0]}",
              file=sys.stderr)
        self.assertGreater(total[FAILED], 200)

    def test_convert(self):
        self.each_fault("convert")

    def test_export(self):
        self.each_fault("export")

    def test_reshard(self):
        self.each_fault("reshard")

    def test_reshard_over_an_old_checkpoint(self):
        self.each_fault("force")

    def test_interrupted_calls_are_made_again(self):
        for name in self.jobs:
            for calls in SURVIVE_EINTR:
                self.disturb(name, calls, "EINTR", codes=[0])

    def test_from_then_on_everything_fails(self):
        """A disk that is gone, or full, and stays so."""
        for calls, what in [("*", "EIO"), ("pwrite64", "ENOSPC"), ("fsync", "EIO"),
                            ("pread64", "EIO"), ("open64,opendir", "EMFILE")]:
            for name in ("convert", "force"):
                self.disturb(name, calls, what, whens=[f"{n}+" for n in (1, 2, 5, 10, 20, 40)])

    def test_each_allocation(self):
        for name in self.jobs:
            codes = self.disturb(name, "alloc", "ENOMEM")
            print(f"{name}: {len(codes)} allocations failed, harmless: {codes.count(0)}",
                  file=sys.stderr)
            self.assertGreater(codes.count(FAILED), 200)

    def test_short_reads_and_writes(self):
        for name in self.jobs:
            for calls in ("pread64", "pwrite64", "pread64,pwrite64"):
                self.disturb(name, calls, "HALF", codes=[0], whens=["1+"])
                self.disturb(name, calls, "HALF", codes=[0], whens=["1+"], jobs=2)

    def test_what_another_job_began_is_never_taken_over(self):
        """Whatever fails while it is looked at."""
        job, other = self.jobs["reshard"], self.jobs["convert"]
        dst = self.prepare(job)
        self.assertEqual(run(*other.command(dst), env=shim(("rename", 3, "EIO"))).returncode, FAILED)
        begun = self.home / "begun"
        shutil.copytree(self.work, begun)
        report = self.home / "report"
        for calls in ("lstat64,stat64,fstat64,fstatat64", "open64", "opendir", "readdir64",
                      "pread64"):
            for n in range(1, 100000):
                shutil.rmtree(self.work)
                shutil.copytree(begun, self.work)
                done = run(*job.command(dst), env=shim((calls, n, "EIO"), report=report))
                with self.subTest(calls=calls, n=n):
                    self.assertEqual(done.returncode, FAILED)
                    self.check_words(done)
                    self.assertFalse(dst.exists())
                if int(report.read_text()) < n:
                    break
            self.assertIn("unfinished work of another job", done.stderr)

    def test_init(self):
        """It reads a config.json only, and makes its bytes itself."""
        for calls, what in [("pwrite64", "ENOSPC"), ("pread64", "EIO"), ("open64", "EMFILE")]:
            self.assertIn(FAILED, self.disturb("init", calls, what))


@needs_shim
class Looking(FaultTest):
    """Commands that only read. 0 with another result would be a lie, and so would 1."""

    FAULTS = [
        ("alloc", ["ENOMEM"]), ("open64", ["EIO", "EMFILE"]), ("opendir", ["EIO", "EMFILE"]),
        ("readdir64", ["EIO"]), ("pread64", ["EIO"]), ("pthread_create", ["EAGAIN"]),
        ("lstat64,stat64,fstat64,fstatat64", ["EIO"]), ("readlink", ["EIO"]),
        ("memfd_create,mkostemp64", ["EMFILE"]), ("fsync,pwrite64,lseek64", ["EIO"]),
    ]

    def each_fault(self, *words):
        report = self.home / "report"
        right = self.must(run(*words))
        failed = 0
        for calls, errors in self.FAULTS:
            for what in errors:
                for n in range(1, 100000):
                    done = run(*words, env=shim((calls, n, what), report=report))
                    with self.subTest(words=words[0], calls=calls, n=n, what=what):
                        self.assertIn(done.returncode, (0, FAILED), done.stdout + done.stderr)
                        if done.returncode:
                            self.check_words(done)
                            failed += 1
                        else:
                            self.assertEqual(self.steady(done.stdout), self.steady(right.stdout))
                            self.assertEqual(done.stderr, right.stderr)
                    if int(report.read_text()) < n:
                        break
        self.check_inputs()
        self.assertGreater(failed, 30, words)

    @staticmethod
    def steady(text):
        """Without what a clock has said."""
        return [line for line in text.splitlines() if " in 0." not in line]

    def test_verify_shards(self):
        self.each_fault("verify", self.shards, "--jobs", 1)

    def test_verify_deep_against_a_hugging_face_folder(self):
        self.each_fault("verify", self.shards, "--deep", "--against", self.hf, "--jobs", 1)

    def test_verify_a_hugging_face_folder(self):
        self.each_fault("verify", self.hf, "--jobs", 1)

    def test_digest(self):
        self.each_fault("digest", self.shards, "--jobs", 1)
        self.each_fault("digest", self.hf, "--jobs", 1)

    def test_diff(self):
        self.each_fault("diff", self.shards, self.hf, "--numeric", "--jobs", 1)

    def test_inspect(self):
        self.each_fault("inspect", self.shards)
        self.each_fault("inspect", self.hf)
        self.each_fault("inspect", next((self.shards / "model").iterdir()))

    def test_plan(self):
        self.each_fault("plan", self.hf, "--ep", 2, "--hsd", 2)

    def test_short_reads(self):
        for words in (["verify", self.shards], ["digest", self.hf], ["inspect", self.shards],
                      ["diff", self.shards, self.hf, "--numeric"]):
            right = self.must(run(*words))
            done = self.must(run(*words, env=shim(("pread64", "1+", "HALF"))))
            self.assertEqual(self.steady(done.stdout), self.steady(right.stdout))


if __name__ == "__main__":
    unittest.main()
